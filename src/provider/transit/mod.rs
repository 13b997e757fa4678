//! A root provider that is a transit engine of Vault or OpenBao, asked over HTTPS.
//!
//! A secret is wrapped by `POST /v1/<mount>/encrypt/<key>` and unwrapped by `…/decrypt/<key>`; both need the `update`
//! capability and nothing else. The stored key id is `<mount>/<key>:v<version>`: the mount and the key say whether this
//! provider can unwrap a stanza, the version is for people and for the watch over the provider's health, which wraps a few
//! public bytes to learn it. Where the key's type can bind associated data, the store's id is bound. Every answer has at most
//! 64 KiB and every call its deadline; redirections are not followed, and only the configured authority is trusted.

mod error;
mod https;
mod login;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use error::{FileProblem, TransitCall, TransitError};
pub use login::{Credential, Kubernetes};

use crate::env::Clock;
use crate::keyring::{
    PROVIDER_SECRET_BYTES, ProviderError, ProviderKind, ProviderStatus, RootProvider, Wrapped,
};
use crate::model::{Duration, StoreId};
use https::Https;
use login::Login;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Marks requests that a browser cannot be made to send; servers may ask for it.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
/// Begins every ciphertext, before its key's version.
const PREFIX: &str = "vault:v";
/// Largest ciphertext: four times what a wrapped key needs.
const CIPHERTEXT_BYTES: usize = 1024;
/// Longest mount, key, role and namespace.
const NAME_BYTES: usize = 128;
/// What is wrapped to learn how the engine is. It is no secret.
const PROBE: &[u8] = b"strongroom asks how the engine is";

/// Where a transit engine is and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitOptions {
    /// `https://host[:port]`.
    pub address: String,
    /// The authorities of the server's certificate, in PEM.
    pub ca: PathBuf,
    /// Where the engine is mounted; usually `transit`.
    pub mount: String,
    /// The engine's key.
    pub key: String,
    /// The namespace, where the server has them.
    pub namespace: Option<String>,
    /// Whether the key's type binds associated data: the store's id then.
    pub associated_data: bool,
    /// Who asks.
    pub credential: Credential,
    /// The deadline of each call.
    pub deadline: Duration,
}

/// A transit engine's key.
pub struct Transit {
    https: Https,
    login: Login,
    headers: HeaderMap,
    /// `<mount>/<key>`.
    name: String,
    encrypt: String,
    decrypt: String,
    associated_data: bool,
}

impl std::fmt::Debug for Transit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transit({})", self.name)
    }
}

#[derive(Serialize)]
struct EncryptRequest<'a> {
    plaintext: Zeroizing<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    associated_data: Option<&'a str>,
}

#[derive(Serialize)]
struct DecryptRequest<'a> {
    ciphertext: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    associated_data: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
    key_version: Option<u64>,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

impl Transit {
    /// An engine that is connected to for each call.
    ///
    /// # Errors
    /// [`TransitError::Address`] and [`TransitError::Option`] for options that cannot be used; files are not looked at.
    pub fn new(options: TransitOptions, clock: Arc<dyn Clock>) -> Result<Self, TransitError> {
        let TransitOptions { address, ca, mount, key, namespace, associated_data, credential, deadline } =
            options;
        check_path("mount", &mount)?;
        check_name("key", &key)?;
        if let Credential::Kubernetes(options) = &credential {
            check_path("auth_mount", &options.mount)?;
        }
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        if let Some(namespace) = namespace {
            check_path("namespace", namespace.trim_end_matches('/'))?;
            let value = HeaderValue::from_str(&namespace);
            headers.insert(NAMESPACE, value.map_err(|_| TransitError::Option { option: "namespace" })?);
        }
        Ok(Self {
            https: Https::new(&address, &ca, deadline)?,
            login: Login::new(credential, clock),
            headers,
            encrypt: format!("/v1/{mount}/encrypt/{key}"),
            decrypt: format!("/v1/{mount}/decrypt/{key}"),
            name: format!("{mount}/{key}"),
            associated_data,
        })
    }

    /// Wraps a secret for a store, and unwraps it again to see that it is the same.
    ///
    /// # Errors
    /// [`TransitError`] when it cannot.
    pub async fn encrypt(&self, store: StoreId, secret: &[u8]) -> Result<Wrapped, TransitError> {
        if secret.len() > PROVIDER_SECRET_BYTES {
            return Err(TransitError::SecretTooLarge);
        }
        let wrapped = self.encrypt_once(self.bound(store).as_deref(), secret).await?;
        let same: bool = self.decrypt(store, &wrapped).await?.ct_eq(secret).into();
        if same { Ok(wrapped) } else { Err(TransitError::NotTheSame) }
    }

    /// Unwraps what the engine wrapped for a store.
    ///
    /// # Errors
    /// [`TransitError`]; [`BadRequest`](TransitError::BadRequest) when it is not what the key wrapped.
    pub async fn decrypt(
        &self,
        store: StoreId,
        wrapped: &Wrapped,
    ) -> Result<Zeroizing<Vec<u8>>, TransitError> {
        let call = TransitCall::Decrypt;
        let malformed = || TransitError::Malformed { call };
        // What was stored as a ciphertext and is none was not given by an engine.
        let ciphertext = std::str::from_utf8(&wrapped.ciphertext);
        let ciphertext = ciphertext.map_err(|_| TransitError::BadRequest { call })?;
        let bound = self.bound(store);
        let request = DecryptRequest { ciphertext, associated_data: bound.as_deref() };
        let Decrypted { plaintext } = self.ask(call, &self.decrypt, &request).await?;
        let room = BASE64.decode_len(plaintext.len()).map_err(|_| malformed())?;
        if room > PROVIDER_SECRET_BYTES + 2 {
            return Err(malformed());
        }
        let mut secret = Zeroizing::new(vec![0; room]);
        let length = BASE64.decode_mut(plaintext.as_bytes(), &mut secret).map_err(|_| malformed())?;
        secret.truncate(length);
        Ok(secret)
    }

    async fn encrypt_once(&self, bound: Option<&str>, secret: &[u8]) -> Result<Wrapped, TransitError> {
        let call = TransitCall::Encrypt;
        let mut plaintext = Zeroizing::new(String::with_capacity(BASE64.encode_len(secret.len())));
        BASE64.encode_append(secret, &mut plaintext);
        let request = EncryptRequest { plaintext, associated_data: bound };
        let Encrypted { ciphertext, key_version } = self.ask(call, &self.encrypt, &request).await?;
        let version = version(&ciphertext).ok_or(TransitError::Malformed { call })?;
        if key_version.is_some_and(|said| said != version) {
            return Err(TransitError::Malformed { call });
        }
        let key_id = format!("{}:v{version}", self.name);
        Ok(Wrapped { key_id, annotations: Vec::new(), ciphertext: ciphertext.into_bytes() })
    }

    /// Asks with a token; when it is refused, once more with a new one if there is a way to have one.
    async fn ask<T: DeserializeOwned>(
        &self,
        call: TransitCall,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, TransitError> {
        let mut renewed = false;
        loop {
            let token = self.login.token(&self.https, self.headers.clone()).await?;
            let body = serde_json::to_vec(request).map_err(|_| TransitError::Malformed { call })?;
            let headers = self.headers_with(&token)?;
            match self.https.post(call, path, headers, Zeroizing::new(body)).await {
                Err(TransitError::Denied { .. }) if !renewed && self.login.forget(&token).await => {
                    renewed = true;
                }
                answer => return answer.map(|Answer { data }| data),
            }
        }
    }

    fn headers_with(&self, token: &str) -> Result<HeaderMap, TransitError> {
        let mut headers = self.headers.clone();
        let mut token = HeaderValue::from_str(token).map_err(|_| TransitError::Option { option: "token" })?;
        token.set_sensitive(true);
        headers.insert(TOKEN, token);
        Ok(headers)
    }

    fn bound(&self, store: StoreId) -> Option<String> {
        self.associated_data.then(|| BASE64.encode(store.0.as_ref()))
    }
}

/// The version in `vault:v<version>:<anything>`, when the whole is a ciphertext that could be stored.
fn version(ciphertext: &str) -> Option<u64> {
    let (version, rest) = ciphertext.strip_prefix(PREFIX)?.split_once(':')?;
    let digits = version.bytes().all(|byte| byte.is_ascii_digit()) && !version.starts_with('0');
    let visible = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
    let right = digits && visible && ciphertext.len() <= CIPHERTEXT_BYTES;
    version.parse().ok().filter(|_| right)
}

fn check_name(option: &'static str, name: &str) -> Result<(), TransitError> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let right = (1..=NAME_BYTES).contains(&name.len())
        && name.bytes().all(letter)
        && name.bytes().any(|byte| byte != b'.');
    if right { Ok(()) } else { Err(TransitError::Option { option }) }
}

fn check_path(option: &'static str, path: &str) -> Result<(), TransitError> {
    path.split('/').try_for_each(|name| check_name(option, name))
}

#[async_trait]
impl RootProvider for Transit {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Transit
    }

    async fn status(&self) -> Result<ProviderStatus, ProviderError> {
        Ok(ProviderStatus { key_id: self.encrypt_once(None, PROBE).await?.key_id })
    }

    async fn wrap(&self, store: StoreId, secret: &[u8]) -> Result<Wrapped, ProviderError> {
        Ok(self.encrypt(store, secret).await?)
    }

    async fn unwrap(&self, store: StoreId, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
        if wrapped.key_id.rsplit_once(':').is_none_or(|(name, _)| name != self.name) {
            return Err(ProviderError::UnknownKey);
        }
        match self.decrypt(store, wrapped).await {
            Err(TransitError::BadRequest { .. }) => Err(ProviderError::Rejected),
            secret => Ok(secret?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_names_the_version_of_its_key() {
        assert_eq!(version("vault:v1:AAAA"), Some(1));
        assert_eq!(version("vault:v12:AA:AA=="), Some(12));
        let long = format!("vault:v1:{}", "A".repeat(CIPHERTEXT_BYTES));
        for text in [
            "",
            "vault:v",
            "vault:v1",
            "vault:v1:",
            "vault:v:A",
            "vault:v01:A",
            "vault:v+1:A",
            "v1:A",
            "vault:v1:A A",
            &long,
        ] {
            assert_eq!(version(text), None, "{text}");
        }
    }

    #[test]
    fn names_that_could_leave_their_path_are_refused() {
        for path in ["transit", "team-1/transit", "a.b/c_d"] {
            assert!(check_path("mount", path).is_ok(), "{path}");
        }
        for path in ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".", "a b", "a?b", "a%2f", "a\n", "ä"] {
            let refused = check_path("mount", path);
            assert!(matches!(refused, Err(TransitError::Option { option: "mount" })), "{path:?}");
        }
        assert!(check_name("key", "a/b").is_err() && check_name("key", &"a".repeat(129)).is_err());
    }
}
