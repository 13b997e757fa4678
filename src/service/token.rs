//! Strongroom's own tokens: made, listed, revoked, and found by their digest.

use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::answers::Slot;
use super::attempt::{Attempt, until_won};
use super::cursor::page_size;
use super::expiry::Bounds;
use super::memo::Memo;
use super::opened::domain;
use super::payload::{self, TokenNamePayload, TokenPayload};
use super::tenant::system_header;
use super::view::{Answer, Page, PageRequest, Repeat};
use super::{Error, Failure, Problem, Service};
use crate::audit::Operation;
use crate::auth::{AuthenticateError, ManageTokens, Permit, TokenDirectory, TokenGrant, token_digest};
use crate::commit::Receipt;
use crate::crypto::{Kind, Place, open, seal};
use crate::keyring::Keyring;
use crate::model::limits::{TOKEN_TENANTS, TOKEN_TTL_DEFAULT, TOKEN_TTL_MIN, TTL_MAX};
use crate::model::{
    Duration, MutationExpiry, Revision, Scope, Scopes, TenantName, TenantRef, TenantSet, Timestamp, TokenName,
};
use crate::store::{Batch, Key, Row, RowExpect, ScanRange, StorageEngine, Table, keys};

/// Random bytes in a token.
const SECRET_BYTES: usize = 32;
/// Most tokens whose opened rows are kept in memory.
const TOKENS_IN_MEMORY: usize = 4096;

const TTL: Bounds = Bounds { field: "ttl", min: TOKEN_TTL_MIN, max: TTL_MAX };

/// A token to create.
#[derive(Debug, Clone)]
pub struct CreateToken {
    /// Public name.
    pub name: TokenName,
    /// What it allows.
    pub scopes: Scopes,
    /// For which tenants.
    pub tenants: TenantSet,
    /// How long; `None`: 30 days.
    pub ttl: Option<Duration>,
}

/// A token without its secret. Times are milliseconds since 1970.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenDescription {
    /// Public name.
    pub name: String,
    /// Names of scopes.
    pub scopes: Vec<String>,
    /// Names of tenants; `None` stands for all.
    pub tenants: Option<Vec<String>>,
    /// When it was created.
    pub created: u64,
    /// When it ends.
    pub expires: u64,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A new token and its secret.
#[derive(Serialize, Deserialize)]
pub struct TokenCreated {
    /// The token.
    pub token: TokenDescription,
    /// Its secret.
    pub secret: Zeroizing<String>,
}

impl From<TokenPayload> for TokenDescription {
    fn from(payload: TokenPayload) -> Self {
        let TokenPayload { name, scopes, tenants, created, expires, revoked } = payload;
        Self { name, scopes, tenants, created, expires, revoked }
    }
}

/// Finds tokens by digest: the row is read every time, so that a revoked token is refused at once.
pub struct Tokens {
    engine: Arc<dyn StorageEngine>,
    keyring: Arc<Keyring>,
    memo: Memo<TokenGrant>,
}

impl Tokens {
    pub(super) fn new(engine: Arc<dyn StorageEngine>, keyring: Arc<Keyring>) -> Self {
        Self { engine, keyring, memo: Memo::new(TOKENS_IN_MEMORY) }
    }

    fn open(&self, key: &Key, row: &Row) -> Result<TokenPayload, Error> {
        let [record] = row.exactly()?;
        let header = system_header(Kind::Token, row.revision()?);
        let opened = open(self.keyring.system().control(), header, &self.place(key), record)?;
        payload::decode(opened.as_bytes())
    }

    fn place<'a>(&self, key: &'a Key) -> Place<'a> {
        let store = self.keyring.store_id();
        Place { store, tenant: TenantRef::SYSTEM, session: &[], key: key.within_tenant() }
    }

    async fn grant(&self, digest: &[u8; 32]) -> Result<Option<TokenGrant>, Error> {
        let key = keys::token(digest);
        let Some(row) = self.engine.multi_get(std::slice::from_ref(&key)).await?.pop().flatten() else {
            return Ok(None);
        };
        if let Some(grant) = self.memo.of(&key, &row) {
            return Ok(Some(grant));
        }
        let grant = grant(self.open(&key, &row)?)?;
        self.memo.remember(key, row, grant.clone());
        Ok(Some(grant))
    }
}

#[async_trait]
impl TokenDirectory for Tokens {
    async fn find(&self, digest: &[u8; 32]) -> Result<Option<TokenGrant>, AuthenticateError> {
        self.grant(digest).await.map_err(|error| {
            if matches!(error, Error::Integrity) {
                return AuthenticateError::Damaged;
            }
            tracing::warn!(%error, "a token could not be looked up");
            AuthenticateError::Unavailable
        })
    }
}

fn grant(payload: TokenPayload) -> Result<TokenGrant, Error> {
    let scopes = payload.scopes.iter().map(|name| Scope::from_name(name).ok_or(Error::Integrity));
    let tenants = match payload.tenants {
        None => TenantSet::All,
        Some(names) => {
            let names = names.into_iter().map(|name| TenantName::new(name).map_err(|_| Error::Integrity));
            TenantSet::Only(names.collect::<Result<_, _>>()?)
        }
    };
    Ok(TokenGrant {
        name: TokenName::new(payload.name).map_err(|_| Error::Integrity)?,
        scopes: scopes.collect::<Result<Scopes, _>>()?,
        tenants,
        expires: Timestamp::from_millis(payload.expires),
        revoked: payload.revoked,
    })
}

impl Service {
    /// Creates a token.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when the name was used before.
    pub async fn create_token(
        &self,
        permit: &Permit<ManageTokens>,
        create: &CreateToken,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TokenCreated>, Failure> {
        let mut attempt = self.server_attempt(permit, Operation::TokenCreate);
        attempt.about(domain::TOKEN, create.name.as_str());
        let slot = self.system_slot(permit, repeat);
        let outcome = until_won!(self.create_token_once(&attempt, create, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn create_token_once(
        &self,
        attempt: &Attempt<'_>,
        create: &CreateToken,
        slot: Option<&Slot>,
    ) -> Result<(TokenCreated, Receipt), Error> {
        if let Some(given) = self.system_answer(slot).await? {
            return Ok((given, attempt.record().await?));
        }
        let mut random = Zeroizing::new([0; SECRET_BYTES]);
        self.entropy.fill(&mut random[..])?;
        let secret = Zeroizing::new(format!("srt_{}", BASE64URL_NOPAD.encode(&random[..])));
        let (description, mut batch) = self.stage_token(create, &secret).await?;
        let created = TokenCreated { token: description, secret };
        if let Some(slot) = slot {
            slot.give(self, &self.system_answer_key(), &created, &mut batch)?;
        }
        let receipt = attempt.commit(batch, None).await?;
        Ok((created, receipt))
    }

    /// The rows of a new token with this secret.
    async fn stage_token(
        &self,
        create: &CreateToken,
        secret: &str,
    ) -> Result<(TokenDescription, Batch), Error> {
        let now = self.clock.now();
        let expiry = create.ttl.map_or(MutationExpiry::Default, MutationExpiry::After);
        let expires = TTL.end(expiry, now)?.unwrap_or_else(|| now.after(TOKEN_TTL_DEFAULT));
        let token = TokenPayload {
            name: create.name.as_str().to_owned(),
            scopes: create.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
            tenants: tenant_names(&create.tenants)?,
            created: now.as_millis(),
            expires: expires.as_millis(),
            revoked: false,
        };
        let directory = self.token_name_key(&create.name);
        if let [Some(_)] = self.read([directory.clone()]).await? {
            return Err(Error::AlreadyExists);
        }
        let digest = token_digest(secret);
        let key = keys::token(&digest);
        let control = self.keyring.system().control();
        let pointer = payload::encode(&TokenNamePayload { digest })?;
        let header = system_header(Kind::TokenName, Revision::FIRST);
        let pointer = seal(
            control,
            header,
            &self.place_within(TenantRef::SYSTEM, &directory),
            &pointer,
            &*self.entropy,
        )?;
        let row = self.seal_token(&key, Revision::FIRST, &token)?;

        let mut batch = Batch::default();
        batch.expect.extend([(directory.clone(), RowExpect::Absent), (key.clone(), RowExpect::Absent)]);
        batch.put.extend([(directory, Row::new(Revision::FIRST, &[&pointer])), (key, row)]);
        Ok((token.into(), batch))
    }

    /// Makes sure that a token with this secret is there, for installations that are handed theirs.
    ///
    /// # Errors
    /// [`Error`] when it cannot be stored.
    pub async fn ensure_token(&self, create: &CreateToken, secret: &str) -> Result<(), Error> {
        if self.tokens.grant(&token_digest(secret)).await?.is_some() {
            return Ok(());
        }
        let (_, batch) = self.stage_token(create, secret).await?;
        let mut attempt = self.own_server_attempt(Operation::TokenCreate);
        attempt.about(domain::TOKEN, create.name.as_str());
        attempt.commit(batch, None).await.map(|_| ())
    }

    fn seal_token(&self, key: &Key, revision: Revision, token: &TokenPayload) -> Result<Row, Error> {
        let plain = payload::encode(token)?;
        let header = system_header(Kind::Token, revision);
        let control = self.keyring.system().control();
        let record =
            seal(control, header, &self.place_within(TenantRef::SYSTEM, key), &plain, &*self.entropy)?;
        Ok(Row::new(revision, &[&record]))
    }

    fn token_name_key(&self, name: &TokenName) -> Key {
        keys::token_name(&self.keyring.system().index().blind(domain::TOKEN, &[name.as_bytes()]))
    }

    /// Lists tokens, without their secrets.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong page token.
    pub async fn list_tokens(
        &self,
        permit: &Permit<ManageTokens>,
        page: &PageRequest,
    ) -> Result<Answer<Page<TokenDescription>>, Failure> {
        let mut attempt = self.server_attempt(permit, Operation::TokenList);
        let outcome = self.list_tokens_once(&mut attempt, page).await;
        attempt.close(outcome).await
    }

    async fn list_tokens_once(
        &self,
        attempt: &mut Attempt<'_>,
        page: &PageRequest,
    ) -> Result<(Page<TokenDescription>, Receipt), Error> {
        let scope = self.system_cursor("page_token", b"tokens");
        let size = page_size(page.size);
        let after = scope.open(self, &page.token)?.map(Key::from_stored);
        let range = ScanRange { after, ..ScanRange::prefix(keys::table(Table::Token)) };
        let rows = self.engine.scan(range, size).await?;
        let next = match rows.last() {
            Some((key, _)) if rows.len() == size => scope.seal(self, key.as_bytes())?,
            Some(_) | None => String::new(),
        };
        let items: Result<Vec<_>, Error> =
            rows.iter().map(|(key, row)| Ok(self.tokens.open(key, row)?.into())).collect();
        let items = items?;
        attempt.touched(items.len());
        Ok((Page { items, next }, attempt.record().await?))
    }

    /// Revokes a token. To revoke one again is no error.
    ///
    /// # Errors
    /// [`Error::TokenNotFound`].
    pub async fn revoke_token(
        &self,
        permit: &Permit<ManageTokens>,
        name: &TokenName,
        repeat: Option<Repeat>,
    ) -> Result<Answer<TokenDescription>, Failure> {
        let mut attempt = self.server_attempt(permit, Operation::TokenRevoke);
        attempt.about(domain::TOKEN, name.as_str());
        let slot = self.system_slot(permit, repeat);
        let outcome = until_won!(self.revoke_once(&attempt, name, slot.as_ref()).await);
        attempt.close(outcome).await
    }

    async fn revoke_once(
        &self,
        attempt: &Attempt<'_>,
        name: &TokenName,
        slot: Option<&Slot>,
    ) -> Result<(TokenDescription, Receipt), Error> {
        if let Some(given) = self.system_answer(slot).await? {
            return Ok((given, attempt.record().await?));
        }
        let directory = self.token_name_key(name);
        let [pointer] = self.read([directory.clone()]).await?;
        let pointer = pointer.ok_or(Error::TokenNotFound)?;
        let [record] = pointer.exactly()?;
        let header = system_header(Kind::TokenName, pointer.revision()?);
        let opened = open(
            self.keyring.system().control(),
            header,
            &self.place_within(TenantRef::SYSTEM, &directory),
            record,
        )?;
        let TokenNamePayload { digest } = payload::decode(opened.as_bytes())?;

        let key = keys::token(&digest);
        let [row] = self.read([key.clone()]).await?;
        let row = row.ok_or(Error::TokenNotFound)?;
        let mut token = self.tokens.open(&key, &row)?;
        token.revoked = true;
        let mut batch = Batch::default();
        batch.expect.push((key.clone(), RowExpect::unchanged(Some(&row))));
        batch.put.push((key.clone(), self.seal_token(&key, row.revision()?.next(), &token)?));
        let description = TokenDescription::from(token);
        if let Some(slot) = slot {
            slot.give(self, &self.system_answer_key(), &description, &mut batch)?;
        }
        Ok((description, attempt.commit(batch, None).await?))
    }
}

fn tenant_names(tenants: &TenantSet) -> Result<Option<Vec<String>>, Error> {
    match tenants {
        TenantSet::All => Ok(None),
        TenantSet::Only(names) if names.is_empty() || names.len() > TOKEN_TENANTS => {
            Err(Error::invalid("tenants", Problem::Count { min: 1, max: TOKEN_TENANTS }))
        }
        TenantSet::Only(names) => Ok(Some(names.iter().map(|name| name.as_str().to_owned()).collect())),
    }
}
