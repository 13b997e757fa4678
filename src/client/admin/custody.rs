//! Key material that is imported or exported. It is wrapped here, and travels and arrives wrapped.

use uuid::Uuid;

use super::Admin;
use super::records::Kek;
use crate::client::answer::Answer;
use crate::client::convert::required_time;
use crate::client::error::ClientError;
use crate::client::link::{admin, call};
use crate::crypto::{Secret, WrappedKey, WrappingPublicKey};
use crate::model::Timestamp;
use crate::proto::v1;

/// A public key for which key material is wrapped with HPKE (RFC 9180), in its base mode, single-shot, with
/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM. It is for one import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappingKey {
    /// Never given twice. A UUID.
    pub uid: String,
    /// The public key.
    pub public_key: WrappingPublicKey,
    /// The `info` of HPKE. It names the store, the tenant and this key.
    pub info: String,
    /// When it ends.
    pub expire_time: Timestamp,
}

/// A version of a tenant's key, wrapped for a recipient.
#[derive(Debug, Clone)]
pub struct ExportedKek {
    /// The version, marked as exported.
    pub kek: Kek,
    /// Its key, wrapped as for a [`WrappingKey`].
    pub wrapped: WrappedKey,
    /// The `info` of HPKE. It names the store, the tenant and the version.
    pub info: String,
}

impl WrappingKey {
    fn from_wire(key: v1::WrappingKey) -> Result<Self, ClientError> {
        let public_key = key.public_key[..].try_into();
        Ok(Self {
            uid: key.uid,
            public_key: WrappingPublicKey(public_key.map_err(|_| malformed("wrapping key"))?),
            info: key.info,
            expire_time: required_time(key.expire_time)?,
        })
    }

    /// Wraps key material for it.
    ///
    /// # Errors
    /// [`ClientError::WeakMaterial`] when all bytes are the same, [`ClientError::Wrap`].
    pub fn wrap(&self, material: &Secret) -> Result<WrappedKey, ClientError> {
        if material.repeats_one_byte() {
            return Err(ClientError::WeakMaterial);
        }
        Ok(self.public_key.wrap_now(self.info.as_bytes(), material)?)
    }
}

impl ExportedKek {
    fn from_wire(exported: v1::ExportKekResponse) -> Result<Self, ClientError> {
        let wrapped = exported.wrapped[..].try_into();
        Ok(Self {
            kek: Kek::required(exported.kek)?,
            wrapped: WrappedKey(wrapped.map_err(|_| malformed("wrapped key"))?),
            info: exported.info,
        })
    }
}

const fn malformed(what: &'static str) -> ClientError {
    ClientError::Malformed { what }
}

impl Admin {
    /// Has a key pair made for which key material can be wrapped, for one import. Each call makes another.
    ///
    /// # Errors
    /// `TENANT_NOT_FOUND`; `QUOTA_EXCEEDED` when 16 are neither used nor expired; see [`ClientError`] for the rest.
    pub async fn wrapping_key(&self, tenant: &str) -> Result<Answer<WrappingKey>, ClientError> {
        let request = v1::GetWrappingKeyRequest { tenant: tenant.to_owned() };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.get_wrapping_key)).await?;
        answer.try_map(|response| {
            WrappingKey::from_wire(response.wrapping_key.ok_or_else(|| malformed("wrapping key"))?)
        })
    }

    /// Makes a new version of key material: has a wrapping key made, wraps the material for it here, and imports it. The
    /// version is the primary, unless it is to be `pending`. The token needs the scope `keys-import`.
    ///
    /// # Errors
    /// As for [`Self::import_wrapped`], and [`ClientError::WeakMaterial`].
    pub async fn import_kek(
        &self,
        tenant: &str,
        material: &Secret,
        pending: bool,
    ) -> Result<Answer<Kek>, ClientError> {
        let key = self.wrapping_key(tenant).await?;
        let wrapped = key.wrap(material)?;
        self.import_wrapped(tenant, &key.uid, &wrapped, pending).await
    }

    /// Makes a new version of material that was wrapped for the wrapping key `uid`, by whatever tool.
    ///
    /// # Errors
    /// `WRAPPING_KEY_NOT_FOUND` when it was used or has expired; `INVALID_FIELD` for what does not open, or is no key;
    /// `ALREADY_EXISTS` for what is a version already; `QUOTA_EXCEEDED` when there are too many versions;
    /// `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn import_wrapped(
        &self,
        tenant: &str,
        uid: &str,
        wrapped: &WrappedKey,
        pending: bool,
    ) -> Result<Answer<Kek>, ClientError> {
        let id = Uuid::new_v4();
        let request = v1::ImportKekRequest {
            tenant: tenant.to_owned(),
            wrapping_key_uid: uid.to_owned(),
            wrapped: wrapped.0.to_vec().into(),
            pending,
            request_id: id.to_string(),
        };
        let answer = self.link.unary(id, request, call!(admin.import_kek)).await?;
        answer.try_map(|response| Kek::required(response.kek))
    }

    /// Returns a version of an exportable tenant's key, wrapped for `recipient`, and has it marked as exported. The token
    /// needs the scope `keys-export`. A repetition wraps it anew.
    ///
    /// # Errors
    /// `KEY_NOT_EXPORTABLE`; `KEY_NOT_FOUND`; `KEY_STATE` for a version that is refused for use or gone; `INVALID_FIELD` for
    /// a public key of low order; `TENANT_NOT_FOUND`; see [`ClientError`] for the rest.
    pub async fn export_kek(
        &self,
        tenant: &str,
        version: u32,
        recipient: &WrappingPublicKey,
    ) -> Result<Answer<ExportedKek>, ClientError> {
        let recipient_public_key = recipient.0.to_vec().into();
        let request = v1::ExportKekRequest { tenant: tenant.to_owned(), version, recipient_public_key };
        let answer = self.link.unary(Uuid::new_v4(), request, call!(admin.export_kek)).await?;
        answer.try_map(ExportedKek::from_wire)
    }
}
