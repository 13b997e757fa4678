//! A root provider behind a Kubernetes KMS v2 plugin: gRPC over a Unix socket.
//!
//! The contract is `proto/kms/v2/plugin.proto`; what it says beyond the shape of messages is checked for every answer, and
//! no answer of more than 64 KiB is read. The key that wrapped must be the one that the plugin's status names, because it is
//! stored as the name of what can unwrap; when the plugin's key changes in between, the wrap is made again, three times at
//! most. The plugin knows no associated data: a stanza is bound to its store by the record under the key that is wrapped
//! here. Who may open the socket can use the root key; that is for the operating system to say.

mod codec;
mod error;
mod rules;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use subtle::ConstantTimeEq as _;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use zeroize::Zeroizing;

pub use error::{KmsCall, KmsError};

use crate::env::Entropy;
use crate::keyring::{
    PROVIDER_SECRET_BYTES, ProviderError, ProviderKind, ProviderStatus, RootProvider, Wrapped,
};
use crate::model::{Duration, StoreId};
use codec::NotProtobuf;
use rules::{ANSWER_BYTES, CIPHERTEXT_BYTES, check_secret, check_status, check_wrapped};
use wire::key_management_service_client::KeyManagementServiceClient;
use wire::{DecryptRequest, EncryptRequest, StatusRequest};

/// How often a secret is wrapped when the plugin's key changes meanwhile.
const ATTEMPTS: usize = 3;
/// Where requests are said to go; the socket is where they go.
const ORIGIN: &str = "http://localhost";

/// A key management plugin at a Unix socket.
pub struct KmsPlugin {
    socket: PathBuf,
    client: KeyManagementServiceClient<Channel>,
    deadline: Duration,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for KmsPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KmsPlugin({})", self.socket.display())
    }
}

impl KmsPlugin {
    /// A plugin that is connected to when it is first asked, and again when the connection broke. Each call may take
    /// `deadline`. Must be called within a runtime.
    #[must_use]
    pub fn new(socket: &Path, deadline: Duration, entropy: Arc<dyn Entropy>) -> Self {
        let path: Arc<Path> = Arc::from(socket);
        let channel =
            Endpoint::from_static(ORIGIN).connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = Arc::clone(&path);
                async move { UnixStream::connect(&path).await.map(TokioIo::new) }
            }));
        let client = KeyManagementServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        Self { socket: socket.to_owned(), client, deadline, entropy }
    }

    /// The key that the plugin wraps with now.
    ///
    /// # Errors
    /// [`KmsError`] when it does not answer as a healthy plugin of version 2 does.
    pub async fn key_id(&self) -> Result<String, KmsError> {
        let mut client = self.client.clone();
        check_status(self.ask(KmsCall::Status, client.status(StatusRequest {})).await?)
    }

    /// Wraps a secret, and unwraps it again to see that it is the same.
    ///
    /// # Errors
    /// [`KmsError`]; [`KeyIdUnsettled`](KmsError::KeyIdUnsettled) when the plugin's key changes all the time.
    pub async fn encrypt(&self, secret: &[u8]) -> Result<Wrapped, KmsError> {
        if secret.len() > PROVIDER_SECRET_BYTES {
            return Err(KmsError::SecretTooLarge);
        }
        for _ in 0..ATTEMPTS {
            let current = self.key_id().await?;
            let wrapped = self.encrypt_once(secret).await?;
            if wrapped.key_id != current {
                continue;
            }
            let same: bool = self.decrypt(&wrapped).await?.ct_eq(secret).into();
            return if same { Ok(wrapped) } else { Err(KmsError::NotTheSame) };
        }
        Err(KmsError::KeyIdUnsettled { attempts: ATTEMPTS })
    }

    /// Unwraps what the plugin wrapped once.
    ///
    /// # Errors
    /// [`KmsError`]; [`Refused`](KmsError::Refused) when the plugin cannot.
    pub async fn decrypt(&self, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        if !(1..=CIPHERTEXT_BYTES).contains(&wrapped.ciphertext.len()) {
            return Err(KmsError::Ciphertext);
        }
        let request = DecryptRequest {
            ciphertext: wrapped.ciphertext.clone(),
            uid: self.uid()?,
            key_id: wrapped.key_id.clone(),
            annotations: wrapped.annotations.iter().cloned().collect(),
        };
        let mut client = self.client.clone();
        check_secret(self.ask(KmsCall::Decrypt, client.decrypt(request)).await?)
    }

    async fn encrypt_once(&self, secret: &[u8]) -> Result<Wrapped, KmsError> {
        let request = EncryptRequest { plaintext: secret.to_vec(), uid: self.uid()? };
        let mut client = self.client.clone();
        check_wrapped(self.ask(KmsCall::Encrypt, client.encrypt(request)).await?)
    }

    async fn ask<T>(
        &self,
        call: KmsCall,
        asked: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, KmsError> {
        match tokio::time::timeout(self.deadline, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failed(call, &status)),
            Err(_) => Err(KmsError::Deadline { call, after: self.deadline }),
        }
    }

    /// A status with a source was made on this side: by the codec, or because of the connection.
    fn failed(&self, call: KmsCall, status: &Status) -> KmsError {
        match std::error::Error::source(status) {
            Some(source) if source.is::<NotProtobuf>() => KmsError::Malformed { call },
            Some(_) => KmsError::Unreachable { call, socket: self.socket.clone() },
            // The bound on answers is reported so; no call of the contract has another use for the code.
            None if status.code() == Code::OutOfRange => KmsError::AnswerTooLarge { call, max: ANSWER_BYTES },
            None => KmsError::Refused { call, code: status.code() },
        }
    }

    fn uid(&self) -> Result<String, KmsError> {
        let mut id = [0; 16];
        self.entropy.fill(&mut id)?;
        Ok(uuid::Builder::from_random_bytes(id).into_uuid().to_string())
    }

    /// Why the plugin refused to unwrap: it holds another key, or what is stored is not what it wrapped.
    async fn tell_apart(&self, wrapped: &Wrapped, code: Code) -> ProviderError {
        let refused = KmsError::Refused { call: KmsCall::Decrypt, code };
        if !is_final(code) {
            return refused.into();
        }
        match self.key_id().await {
            Ok(held) if held != wrapped.key_id => ProviderError::UnknownKey,
            Ok(_) if blames_what_is_stored(code) => ProviderError::Rejected,
            Ok(_) => refused.into(),
            Err(error) => error.into(),
        }
    }
}

/// Whether asking again would give the same answer. Many plugins give every failure of theirs the code `Unknown`.
const fn is_final(code: Code) -> bool {
    blames_what_is_stored(code) || matches!(code, Code::Internal | Code::Unknown)
}

const fn blames_what_is_stored(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::DataLoss)
}

#[async_trait]
impl RootProvider for KmsPlugin {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Kms
    }

    async fn status(&self) -> Result<ProviderStatus, ProviderError> {
        Ok(ProviderStatus { key_id: self.key_id().await? })
    }

    async fn wrap(&self, _: StoreId, secret: &[u8]) -> Result<Wrapped, ProviderError> {
        Ok(self.encrypt(secret).await?)
    }

    async fn unwrap(&self, _: StoreId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        match self.decrypt(wrapped).await {
            Ok(secret) => Ok(secret),
            Err(KmsError::Refused { code, .. }) => Err(self.tell_apart(wrapped, code).await),
            // It was stored so, and no plugin wraps so.
            Err(KmsError::Ciphertext) => Err(ProviderError::Rejected),
            Err(error) => Err(error.into()),
        }
    }
}
