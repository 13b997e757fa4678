//! Page tokens: sealed, because they name rows, and bound to the request that they continue.

use data_encoding::BASE64URL_NOPAD;

use super::{Error, Problem, Service};
use crate::crypto::{ControlKey, Header, KeyId, Kind, Place, open, seal};
use crate::model::TenantRef;
use crate::model::limits::{PAGE_DEFAULT, PAGE_MAX, PAGE_TOKEN_BYTES};

/// What a page token belongs to: the tenant's key, and everything that the request asked for besides the page.
pub(super) struct CursorScope<'a> {
    pub(super) key: &'a ControlKey,
    pub(super) tenant: TenantRef,
    pub(super) field: &'static str,
    pub(super) request: Vec<u8>,
}

impl CursorScope<'_> {
    fn place(&self, service: &Service) -> (Place<'_>, Header) {
        let store = service.keyring.store_id();
        let place = Place { store, tenant: self.tenant, session: &[], key: &self.request };
        (place, Header { kind: Kind::Cursor, key_id: KeyId(self.tenant.id.0), revision: 1 })
    }

    /// Seals a position.
    pub(super) fn seal(&self, service: &Service, position: &[u8]) -> Result<String, Error> {
        let (place, header) = self.place(service);
        let record = seal(self.key, header, &place, position, &*service.entropy)?;
        Ok(BASE64URL_NOPAD.encode(record.as_bytes()))
    }

    /// Opens a position; an empty token is the beginning.
    ///
    /// # Errors
    /// [`Problem::Cursor`] for a token that was not given for this request.
    pub(super) fn open(&self, service: &Service, token: &str) -> Result<Option<Vec<u8>>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        if token.len() > PAGE_TOKEN_BYTES {
            return Err(Error::invalid(self.field, Problem::TooLarge { max: PAGE_TOKEN_BYTES }));
        }
        let refused = || Error::invalid(self.field, Problem::Cursor);
        let record = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| refused())?;
        let (place, header) = self.place(service);
        let position = open(self.key, header, &place, &record).map_err(|_| refused())?;
        Ok(Some(position.as_bytes().to_vec()))
    }
}

/// The size of a page: the caller's wish within the bounds.
pub(super) const fn page_size(wish: usize) -> usize {
    match wish {
        0 => PAGE_DEFAULT,
        1..=PAGE_MAX => wish,
        _ => PAGE_MAX,
    }
}
