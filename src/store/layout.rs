//! Which row stands where: one key space, fixed-width binary keys.
//!
//! ```text
//! table (1) ‖ tenant id (16) ‖ …                         tenant-wide tables
//! table (1) ‖ tenant id (16) ‖ session (16) ‖ part (1) ‖ …   everything of a session: one contiguous range
//! ```
//!
//! Names appear blinded only. The parts that follow the tenant id are what a record's [`Place`](crate::crypto::Place) binds.

use crate::crypto::Blinded;
use crate::model::{StoreId, TenantId, Timestamp};

/// The tables, by the first byte of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// The store's identity, format version and root epoch keys.
    Meta = b'M',
    /// From a blinded tenant name to the tenant's id.
    TenantName = b'N',
    /// Tenants.
    Tenant = b'T',
    /// Tokens, by digest.
    Token = b'K',
    /// From a blinded token name to its digest.
    TokenName = b'O',
    /// Sessions with their entries, streams and events.
    Session = b'S',
    /// Remembered answers, by the period in which they were given.
    Answer = b'A',
    /// What ends when: by second, tenant and row.
    Expiry = b'X',
    /// Long work on a tenant's rows: what there is to know of each kind's latest.
    Job = b'J',
    /// What was asked for and needs the approval of a second person.
    Approval = b'P',
    /// Wrapping keys, for key material that is to be imported.
    WrappingKey = b'W',
    /// Blocks of leaves of access logs.
    LogBlock = b'L',
    /// Heads of access logs.
    LogHead = b'H',
    /// What is in the complete bundles of access logs.
    LogIndex = b'I',
}

/// The parts of a session, by the byte after its blinded id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionPart {
    /// The session row itself.
    Root = 0,
    /// Entries.
    Entry = 1,
    /// Heads of streams.
    Stream = 2,
    /// Events.
    Event = 3,
    /// No row has this: in the expiry index it names a session that is on its way to new keys.
    Reencryption = 4,
}

/// The key of a row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

/// Table and tenant id.
const TENANT_END: usize = 17;
/// Table, tenant id and blinded session id.
const SESSION_END: usize = 33;

impl Key {
    /// Takes stored bytes.
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The part that names the session, of a key in the session table.
    #[must_use]
    pub fn session(&self) -> &[u8] {
        self.0.get(TENANT_END..SESSION_END).unwrap_or_default()
    }

    /// The part that follows the session, of a key in the session table.
    #[must_use]
    pub fn within_session(&self) -> &[u8] {
        self.0.get(SESSION_END..).unwrap_or_default()
    }

    /// The part that follows the tenant.
    #[must_use]
    pub fn within_tenant(&self) -> &[u8] {
        self.0.get(TENANT_END..).unwrap_or_default()
    }

    /// The part that follows the table's byte, of any key.
    #[must_use]
    pub fn within_table(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }

    /// The tenant, of a key in a tenant's table.
    #[must_use]
    pub fn tenant(&self) -> Option<TenantId> {
        self.0.get(1..TENANT_END).and_then(|id| id.try_into().ok()).map(TenantId)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Makes keys, one function a kind of row.
pub mod keys {
    use super::{Blinded, Key, SESSION_END, SessionPart, StoreId, Table, TenantId, Timestamp};

    fn key(table: Table, parts: &[&[u8]]) -> Key {
        let mut bytes = vec![table as u8];
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Key(bytes)
    }

    /// A row of the meta table.
    #[must_use]
    pub fn meta(name: &'static str) -> Key {
        key(Table::Meta, &[name.as_bytes()])
    }

    /// Where the store's id stands: in the key of a marker row.
    #[must_use]
    pub fn store_ids() -> Vec<u8> {
        key(Table::Meta, &[b"store/"]).0
    }

    /// The marker row that names the store.
    #[must_use]
    pub fn store_id(store: StoreId) -> Key {
        key(Table::Meta, &[b"store/", &store.0])
    }

    /// All rows of root epoch keys.
    #[must_use]
    pub fn roots() -> Vec<u8> {
        key(Table::Meta, &[b"root/"]).0
    }

    /// A row of a root epoch key: number 0 is its commitment, the others are its recipients' stanzas. `plain` is what the
    /// row says openly.
    #[must_use]
    pub fn root(epoch: u32, number: u8, plain: &[u8]) -> Key {
        key(Table::Meta, &[b"root/", &epoch.to_be_bytes(), &[number], plain])
    }

    /// Epoch, number and plain part of a row of a root epoch key.
    #[must_use]
    pub fn root_parts(row: &Key) -> Option<(u32, u8, &[u8])> {
        let (epoch, rest) = row.as_bytes().strip_prefix(&roots()[..])?.split_first_chunk()?;
        let (number, plain) = rest.split_first()?;
        Some((u32::from_be_bytes(*epoch), *number, plain))
    }

    /// The directory row of a tenant's name, blinded under the server's index key.
    #[must_use]
    pub fn tenant_name(name: &Blinded) -> Key {
        key(Table::TenantName, &[&TenantId::SYSTEM.0, name])
    }

    /// A tenant's row.
    #[must_use]
    pub fn tenant(tenant: TenantId) -> Key {
        key(Table::Tenant, &[&tenant.0])
    }

    /// A token's row, by the digest of its secret.
    #[must_use]
    pub fn token(digest: &[u8; 32]) -> Key {
        key(Table::Token, &[&TenantId::SYSTEM.0, digest])
    }

    /// The directory row of a token's public name, blinded under the server's index key.
    #[must_use]
    pub fn token_name(name: &Blinded) -> Key {
        key(Table::TokenName, &[&TenantId::SYSTEM.0, name])
    }

    /// All of a tenant's sessions.
    #[must_use]
    pub fn tenant_sessions(tenant: TenantId) -> Vec<u8> {
        key(Table::Session, &[&tenant.0]).0
    }

    /// All rows of a session.
    #[must_use]
    pub fn session_rows(tenant: TenantId, session: &Blinded) -> Vec<u8> {
        key(Table::Session, &[&tenant.0, session]).0
    }

    /// All rows of the session that `row` belongs to.
    #[must_use]
    pub fn rows_of_session(row: &Key) -> Vec<u8> {
        row.as_bytes().iter().copied().take(SESSION_END).collect()
    }

    /// A key behind every row of the session that `row` belongs to, and before those of the next.
    #[must_use]
    pub fn session_end(row: &Key) -> Key {
        let mut end = row.as_bytes().iter().copied().take(SESSION_END).collect::<Vec<_>>();
        end.push(u8::MAX);
        Key(end)
    }

    /// Whether a key of the session table is that of a session's own row.
    #[must_use]
    pub fn is_session(row: &Key) -> bool {
        row.as_bytes().first() == Some(&(Table::Session as u8))
            && row.within_session() == [SessionPart::Root as u8]
    }

    /// The session's own row, of any key in the session table.
    #[must_use]
    pub fn session_of(row: &Key) -> Key {
        let mut root = row.as_bytes().iter().copied().take(SESSION_END).collect::<Vec<_>>();
        root.push(SessionPart::Root as u8);
        Key(root)
    }

    /// What stands in the expiry index for the session that `row` belongs to, while it is on its way to new keys.
    #[must_use]
    pub fn reencryption(row: &Key) -> Key {
        let mut named = rows_of_session(row);
        named.push(SessionPart::Reencryption as u8);
        Key(named)
    }

    /// Whether a key of the session table is what [`reencryption`] makes.
    #[must_use]
    pub fn is_reencryption(row: &Key) -> bool {
        row.as_bytes().first() == Some(&(Table::Session as u8))
            && row.within_session() == [SessionPart::Reencryption as u8]
    }

    /// All rows of one part of a session.
    #[must_use]
    pub fn session_part(tenant: TenantId, session: &Blinded, part: SessionPart) -> Vec<u8> {
        key(Table::Session, &[&tenant.0, session, &[part as u8]]).0
    }

    /// A session's own row.
    #[must_use]
    pub fn session(tenant: TenantId, session: &Blinded) -> Key {
        Key(session_part(tenant, session, SessionPart::Root))
    }

    /// An entry's row.
    #[must_use]
    pub fn entry(tenant: TenantId, session: &Blinded, entry: &Blinded) -> Key {
        key(Table::Session, &[&tenant.0, session, &[SessionPart::Entry as u8], entry])
    }

    /// The head of a stream.
    #[must_use]
    pub fn stream(tenant: TenantId, session: &Blinded, stream: &Blinded) -> Key {
        key(Table::Session, &[&tenant.0, session, &[SessionPart::Stream as u8], stream])
    }

    /// All events of a stream, in order.
    #[must_use]
    pub fn stream_events(tenant: TenantId, session: &Blinded, stream: &Blinded) -> Vec<u8> {
        key(Table::Session, &[&tenant.0, session, &[SessionPart::Event as u8], stream]).0
    }

    /// One event of a stream, by its number.
    #[must_use]
    pub fn event(tenant: TenantId, session: &Blinded, stream: &Blinded, number: u64) -> Key {
        let part = [SessionPart::Event as u8];
        key(Table::Session, &[&tenant.0, session, &part, stream, &number.to_be_bytes()])
    }

    /// The number of an event, of its key.
    #[must_use]
    pub fn event_number(event: &Key) -> Option<u64> {
        event.within_session().get(17..25).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes)
    }

    /// A tenant's latest jobs of all kinds.
    #[must_use]
    pub fn jobs(tenant: TenantId) -> Vec<u8> {
        key(Table::Job, &[&tenant.0]).0
    }

    /// A tenant's latest job of a kind.
    #[must_use]
    pub fn job(tenant: TenantId, kind: u8) -> Key {
        key(Table::Job, &[&tenant.0, &[kind]])
    }

    /// An approval, by its id.
    #[must_use]
    pub fn approval(id: &[u8; 16]) -> Key {
        key(Table::Approval, &[&TenantId::SYSTEM.0, id])
    }

    /// The id of an approval, of its key.
    #[must_use]
    pub fn approval_id(row: &Key) -> Option<[u8; 16]> {
        let is_approval = row.as_bytes().first() == Some(&(Table::Approval as u8));
        is_approval.then(|| row.within_tenant().try_into().ok())?
    }

    /// A wrapping key of a tenant.
    #[must_use]
    pub fn wrapping_key(tenant: TenantId, id: &[u8; 16]) -> Key {
        key(Table::WrappingKey, &[&tenant.0, id])
    }

    /// All wrapping keys of a tenant.
    #[must_use]
    pub fn wrapping_keys(tenant: TenantId) -> Vec<u8> {
        key(Table::WrappingKey, &[&tenant.0]).0
    }

    /// Whether a key is that of a wrapping key.
    #[must_use]
    pub fn is_wrapping_key(row: &Key) -> bool {
        row.as_bytes().first() == Some(&(Table::WrappingKey as u8))
    }

    /// The remembered answer to a request id that was given in `period`.
    #[must_use]
    pub fn answer(period: u64, tenant: TenantId, request: &Blinded) -> Key {
        key(Table::Answer, &[&period.to_be_bytes(), &tenant.0, request])
    }

    /// A tenant's remembered answers that were given in `period`.
    #[must_use]
    pub fn tenant_answers(period: u64, tenant: TenantId) -> Vec<u8> {
        key(Table::Answer, &[&period.to_be_bytes(), &tenant.0]).0
    }

    /// All remembered answers, and the key below which those of earlier periods lie.
    #[must_use]
    pub fn answers_before(period: u64) -> (Vec<u8>, Key) {
        (key(Table::Answer, &[]).0, key(Table::Answer, &[&period.to_be_bytes()]))
    }

    /// All rows of the expiry index.
    #[must_use]
    pub fn expiry_rows() -> Vec<u8> {
        key(Table::Expiry, &[]).0
    }

    /// All rows of a table.
    #[must_use]
    pub fn table(table: Table) -> Vec<u8> {
        key(table, &[]).0
    }

    /// The index row that says that `row` may end in the second of `at`.
    #[must_use]
    pub fn expiry(at: Timestamp, row: &Key) -> Key {
        key(Table::Expiry, &[&at.as_secs().to_be_bytes(), row.as_bytes()])
    }

    /// Every index row up to and with the second of `at` lies below this key.
    #[must_use]
    pub fn expiry_end(at: Timestamp) -> Key {
        key(Table::Expiry, &[&at.as_secs().saturating_add(1).to_be_bytes()])
    }

    /// The row that an expiry index row is about, and its second.
    #[must_use]
    pub fn expiring(index: &Key) -> Option<(u64, Key)> {
        let (second, row) = index.as_bytes().get(1..)?.split_at_checked(8)?;
        Some((u64::from_be_bytes(second.try_into().ok()?), Key(row.to_vec())))
    }

    /// All blocks of one epoch of a tenant's access log, in order.
    #[must_use]
    pub fn log_blocks(tenant: TenantId, epoch: u32) -> Vec<u8> {
        key(Table::LogBlock, &[&tenant.0, &epoch.to_be_bytes()]).0
    }

    /// A block of leaves, by the sequence number of its first.
    #[must_use]
    pub fn log_block(tenant: TenantId, epoch: u32, first: u64) -> Key {
        key(Table::LogBlock, &[&tenant.0, &epoch.to_be_bytes(), &first.to_be_bytes()])
    }

    /// The sequence number of a block's first leaf.
    #[must_use]
    pub fn log_block_first(block: &Key) -> Option<u64> {
        block.as_bytes().get(21..29).and_then(|first| first.try_into().ok()).map(u64::from_be_bytes)
    }

    /// All pages of the index of one epoch of a tenant's access log, in order.
    #[must_use]
    pub fn log_index(tenant: TenantId, epoch: u32) -> Vec<u8> {
        key(Table::LogIndex, &[&tenant.0, &epoch.to_be_bytes()]).0
    }

    /// A page of that index, by its number.
    #[must_use]
    pub fn log_index_page(tenant: TenantId, epoch: u32, page: u64) -> Key {
        key(Table::LogIndex, &[&tenant.0, &epoch.to_be_bytes(), &page.to_be_bytes()])
    }

    /// The number of a page, of its key.
    #[must_use]
    pub fn log_index_number(page: &Key) -> Option<u64> {
        page.as_bytes().get(21..29).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes)
    }

    /// The head of a tenant's access log.
    #[must_use]
    pub fn log_head(tenant: TenantId) -> Key {
        key(Table::LogHead, &[&tenant.0])
    }
}
