//! Values taken apart on their way in, and put together again for who may see them whole.
//!
//! What a policy calls sensitive is cut out of a value before it is sealed. The body with its placeholders is sealed under the
//! session's body key, what was cut out is the second record of the same row, under the sensitive key. A redacted view opens the
//! first record alone; without the sensitive key nobody opens the second.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::opened::Opened;
use super::payload::{self, Parting};
use super::reencrypt::Turnover;
use super::{Error, Service};
use crate::audit::Redaction;
use crate::crypto::{Header, KeyId, Kind, Sealed, open, seal, seal_parts};
use crate::keyring::{SessionKeys, Tenant};
use crate::model::{Revision, View};
use crate::redact::{Overlay, Redactor, Reported};
use crate::store::{Key, Row};

/// Larger values are scanned on a thread where they hold up nobody, in bytes.
const LARGE: usize = 64 << 10;
/// The domain of pseudonyms in bodies, and how long they are.
const PSEUDONYM: &str = "redaction";
const PSEUDONYM_BYTES: usize = 10;
/// The version of the built-in policy, as values name it that were taken apart by it.
const POLICY: u32 = 1;

/// A value that is about to be stored.
#[derive(Debug)]
pub(super) struct Parted {
    body: Bytes,
    overlay: Overlay,
    pub(super) report: Vec<Reported>,
}

/// What an entry and an event are, each with what was cut out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) body: Kind,
    pub(super) overlay: Kind,
}

pub(super) const ENTRY: Kinds = Kinds { body: Kind::Entry, overlay: Kind::EntryOverlay };
pub(super) const EVENT: Kinds = Kinds { body: Kind::Event, overlay: Kind::EventOverlay };

impl Parted {
    fn new(
        redactor: &Redactor,
        tenant: &Tenant,
        (before, value, after): (&[u8], &Bytes, &[u8]),
    ) -> Result<Self, Error> {
        let pseudonym = |piece: &[u8]| {
            let blinded = tenant.index().blind(PSEUDONYM, &[piece]);
            let name = data_encoding::BASE32_NOPAD.encode(blinded.get(..PSEUDONYM_BYTES).unwrap_or_default());
            format!("p1:{}", name.to_ascii_lowercase())
        };
        let redacted = redactor.redact_between((before, after), value, &pseudonym);
        let redacted = redacted.map_err(Error::RedactionRejected)?;
        let body = match redacted.body {
            Cow::Borrowed(_) => value.clone(),
            Cow::Owned(body) => Bytes::from(body),
        };
        Ok(Self { body, overlay: redacted.overlay, report: redacted.report })
    }

    /// The same, and nothing of the value stays on the stack.
    fn made(redactor: &Redactor, tenant: &Tenant, between: (&[u8], &Bytes, &[u8])) -> Result<Self, Error> {
        let parted = Self::new(redactor, tenant, between);
        wipe_stack();
        parted
    }

    /// A value that nothing is cut out of.
    fn whole(value: &Bytes) -> Self {
        Self { body: value.clone(), overlay: Overlay::default(), report: Vec::new() }
    }

    /// What the access log says of it.
    pub(super) fn redaction(&self) -> Option<Redaction> {
        let pieces = self.pieces();
        (pieces > 0).then_some(Redaction { policy: POLICY, pieces })
    }

    /// How many pieces were cut out.
    fn pieces(&self) -> u32 {
        self.report.iter().filter(|line| line.action.cuts()).map(|line| line.count).sum()
    }

    /// What the metadata say of it under `keys`; none of a value that is stored as it came.
    pub(super) fn parting(&self, keys: &SessionKeys) -> Option<Parting> {
        let kept = if keys.has_sensitive() { self.overlay.len() } else { 0 };
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        (self.pieces() > 0).then_some(Parting { body: self.body.len() as u64, kept, policy: POLICY })
    }
}

impl Service {
    /// Takes a value apart as the policy says.
    ///
    /// [`Error::RedactionRejected`] when that is not possible, or the policy does not take the value.
    pub(super) async fn part(&self, tenant: &Arc<Tenant>, value: &Bytes) -> Result<Parted, Error> {
        let none = Bytes::new();
        self.part_between(tenant, (&none, value, &none)).await
    }

    /// The same of a value that stands between two others.
    pub(super) async fn part_between(
        &self,
        tenant: &Arc<Tenant>,
        (before, value, after): (&Bytes, &Bytes, &Bytes),
    ) -> Result<Parted, Error> {
        let Some(redactor) = &self.redactor else { return Ok(Parted::whole(value)) };
        if value.len() < LARGE {
            return Parted::made(redactor, tenant, (before, value, after));
        }
        let (redactor, tenant) = (Arc::clone(redactor), Arc::clone(tenant));
        let (before, value, after) = (before.clone(), value.clone(), after.clone());
        let parting =
            tokio::task::spawn_blocking(move || Parted::made(&redactor, &tenant, (&before, &value, &after)));
        parting.await.map_err(|_| Error::Internal)?
    }

    /// The row of a value: its metadata and body, and what was cut out, unless there is no key for that any more.
    pub(super) fn parted_row(
        &self,
        opened: &Opened,
        (key, revision): (&Key, Revision),
        kinds: Kinds,
        metadata: &[u8],
        parted: &Parted,
    ) -> Result<Row, Error> {
        let place = self.place(&opened.tenant, key);
        let header = Header { kind: kinds.body, key_id: opened.keys.body_id(), revision: revision.get() };
        let parts = [metadata, parted.body.as_ref()];
        let record = seal_parts(opened.keys.body(), header, &place, &parts, &*self.entropy)?;
        if parted.overlay.is_empty() {
            return Ok(Row::new(revision, &[&record]));
        }
        let Some((id, sensitive)) = self.keyring.sensitive_key(&opened.tenant, &opened.key, &opened.keys)?
        else {
            return Ok(Row::new(revision, &[&record]));
        };
        let header = Header { kind: kinds.overlay, key_id: *id, revision: revision.get() };
        let plain = payload::encode(&parted.overlay)?;
        let overlay = seal(sensitive, header, &place, &plain, &*self.entropy)?;
        Ok(Row::new(revision, &[&record, &overlay]))
    }

    /// The value in a view, of the body that was opened from a row's first record.
    pub(super) fn viewed(
        &self,
        opened: &Opened,
        (key, revision): (&Key, Revision),
        kinds: Kinds,
        (body, parting): (&[u8], Option<Parting>),
        (view, row): (View, &Row),
    ) -> Result<Bytes, Error> {
        let (record, overlay) = halves(row)?;
        match (view, parting.filter(|parting| parting.kept > 0)) {
            (View::Full, Some(parting)) => {
                let keys = opened.opener(record);
                let record = overlay.ok_or(Error::Integrity)?;
                let overlay = self.open_overlay(opened, keys, (key, revision), kinds, record)?;
                if overlay.len() != parting.kept as usize {
                    return Err(Error::Integrity);
                }
                overlay.splice(body).map(Bytes::from).map_err(|_| Error::Integrity)
            }
            (View::Full | View::Redacted, _) => Ok(Bytes::copy_from_slice(body)),
        }
    }

    fn open_overlay(
        &self,
        opened: &Opened,
        keys: &SessionKeys,
        (key, revision): (&Key, Revision),
        kinds: Kinds,
        record: &[u8],
    ) -> Result<Overlay, Error> {
        let sensitive = self.keyring.sensitive_key(&opened.tenant, &opened.key, keys)?;
        let (id, sensitive) = sensitive.ok_or(Error::SensitivePurged)?;
        let header = Header { kind: kinds.overlay, key_id: *id, revision: revision.get() };
        let plain = open(sensitive, header, &self.place(&opened.tenant, key), record)?;
        payload::decode(plain.as_bytes())
    }

    /// What was cut out of a value, sealed under the new keys of its session; none where there is no sensitive key any more.
    pub(super) fn overlay_anew(
        &self,
        tenant: &Tenant,
        turnover: &Turnover,
        (key, row): (&Key, &Row),
    ) -> Result<Option<Sealed>, Error> {
        let (record, Some(overlay)) = halves(row)? else { return Ok(None) };
        let (kinds, revision) = (kinds_of(record)?, row.revision()?.get());
        let sensitive = |keys| self.keyring.sensitive_key(tenant, &turnover.key, keys);
        let (former, keys) = (&turnover.former, &turnover.keys);
        let Some(((old_id, old), (new_id, new))) = sensitive(former)?.zip(sensitive(keys)?) else {
            return Ok(None);
        };
        let header = |key_id: &KeyId| Header { kind: kinds.overlay, key_id: *key_id, revision };
        let place = self.place(tenant, key);
        let plain = open(old, header(old_id), &place, overlay)?;
        Ok(Some(seal(new, header(new_id), &place, plain.as_bytes(), &*self.entropy)?))
    }

    /// Opens what was cut out of a value, if it is there and has a key, and forgets it: for who checks that all opens.
    pub(super) fn check_overlay(
        &self,
        tenant: &Tenant,
        session: (&Key, &SessionKeys),
        (key, row): (&Key, &Row),
    ) -> Result<(), Error> {
        let (record, Some(overlay)) = halves(row)? else { return Ok(()) };
        let (kinds, revision) = (kinds_of(record)?, row.revision()?.get());
        if let Some((key_id, sensitive)) = self.keyring.sensitive_key(tenant, session.0, session.1)? {
            let header = Header { kind: kinds.overlay, key_id: *key_id, revision };
            open(sensitive, header, &self.place(tenant, key), overlay)?;
        }
        Ok(())
    }
}

/// Overwrites what the scan left below this call on the stack: registers with a few bytes of a value were saved there, and it may be
/// seconds until somebody else needs the place.
#[inline(never)]
fn wipe_stack() {
    let mut room = [0_u8; 32 << 10];
    std::hint::black_box(&mut room);
}

/// One line a rule and action, of reports on several values.
pub(super) fn summed(reports: impl Iterator<Item = Reported>) -> Vec<Reported> {
    let mut sums: Vec<Reported> = Vec::new();
    for line in reports {
        match sums.iter_mut().find(|sum| (sum.rule, sum.action) == (line.rule, line.action)) {
            Some(sum) => sum.count = sum.count.saturating_add(line.count),
            None => sums.push(line),
        }
    }
    sums
}

/// The records of a row in a session: what it is, and what was cut out of it.
pub(super) fn halves(row: &Row) -> Result<(&[u8], Option<&[u8]>), Error> {
    match *row.records()?.as_slice() {
        [record] => Ok((record, None)),
        [record, overlay] => Ok((record, Some(overlay))),
        _ => Err(Error::Integrity),
    }
}

fn kinds_of(record: &[u8]) -> Result<Kinds, Error> {
    let named = Header::named_kind(record);
    [ENTRY, EVENT].into_iter().find(|kinds| named == Some(kinds.body as u8)).ok_or(Error::Integrity)
}

/// A remembered value: what was cut out of it stays as sealed as it was, so that it goes with its key.
#[derive(Serialize, Deserialize)]
pub(super) struct Remembered<T> {
    pub(super) value: T,
    kept: Option<(Vec<u8>, u64)>,
}

impl<T> Remembered<T> {
    /// Takes a value whose body is redacted, and the row that it is from, if it was in the full view.
    pub(super) fn new(value: T, full: Option<&Row>) -> Result<Self, Error> {
        let Some(row) = full else { return Ok(Self { value, kept: None }) };
        let (_, overlay) = halves(row)?;
        let revision = row.revision()?.get();
        Ok(Self { value, kept: overlay.map(|record| (record.to_vec(), revision)) })
    }

    /// The whole of a remembered body of an entry.
    pub(super) fn whole(
        &self,
        service: &Service,
        opened: &Opened,
        key: &Key,
        body: &[u8],
    ) -> Result<Option<Bytes>, Error> {
        let Some((record, revision)) = &self.kept else { return Ok(None) };
        let former = opened.session.former().and_then(|former| former.sensitive).map(KeyId);
        let is_former = former.is_some() && Header::named_key(record) == former;
        let keys = opened.former.as_ref().filter(|_| is_former).unwrap_or(&opened.keys);
        let revision = Revision::new(*revision).ok_or(Error::Integrity)?;
        let overlay = service.open_overlay(opened, keys, (key, revision), ENTRY, record)?;
        overlay.splice(body).map(|value| Some(Bytes::from(value))).map_err(|_| Error::Integrity)
    }
}
