//! The same answer to the same request: what makes a repeated mutation harmless.
//!
//! The answer to a mutation that came with a request id is sealed and stored in the same commit as the mutation. Answers
//! are kept by period, so that those of past periods are one range to delete. The id is bound to the principal, and the
//! request itself is compared by its hash: another request under the same id is refused.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::opened::domain;
use super::payload::{self, AnswerPayload};
use super::view::Repeat;
use super::{Error, Service};
use crate::auth::Caller;
use crate::crypto::{Blinded, Header, IndexKey, KeyId, Kind, Place, SealingKey, open, seal};
use crate::model::limits::REQUEST_ID_TTL;
use crate::model::{Revision, TenantRef, Timestamp};
use crate::store::{Batch, Key, Row, RowExpect, keys};

/// Where the answer to one request is, or will be.
pub(super) struct Slot {
    repeat: Repeat,
    tenant: TenantRef,
    request: Blinded,
    now: Timestamp,
}

/// The key under which answers are sealed: of the session, so that they are erased with it, or of the tenant.
pub(super) struct AnswerKey<'a, K> {
    pub(super) key: &'a K,
    pub(super) id: KeyId,
    /// The key and its id before, while answers under it are still opened.
    pub(super) former: Option<(&'a K, KeyId)>,
}

impl<'a, K> AnswerKey<'a, K> {
    /// The key of this id, if it is one of them.
    fn named(&self, id: KeyId) -> Option<&'a K> {
        let former = self.former.filter(|(_, former)| *former == id).map(|(key, _)| key);
        if id == self.id { Some(self.key) } else { former }
    }
}

/// The number of the period in which a time lies.
pub(super) fn period(at: Timestamp) -> u64 {
    at.as_secs() / REQUEST_ID_TTL.as_secs()
}

impl Slot {
    /// The slot of a caller's request.
    pub(super) fn new(
        index: &IndexKey,
        tenant: TenantRef,
        caller: &Caller,
        repeat: Repeat,
        now: Timestamp,
    ) -> Self {
        let parts = [caller.principal.id().as_bytes(), repeat.id.0.as_slice()];
        Self { repeat, tenant, request: index.blind(domain::REQUEST, &parts), now }
    }

    /// Where an answer may stand: in this period or in the one before.
    pub(super) fn keys(&self) -> [Key; 2] {
        let period = period(self.now);
        [period, period.saturating_sub(1)].map(|period| keys::answer(period, self.tenant.id, &self.request))
    }

    fn place(&self, service: &Service) -> (Place<'_>, Header) {
        let store = service.keyring.store_id();
        let place = Place { store, tenant: self.tenant, session: &[], key: &self.request };
        let header = Header { kind: Kind::Answer, key_id: KeyId([0; 16]), revision: 1 };
        (place, header)
    }

    /// The answer that was given before, from the rows under [`Slot::keys`].
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] when the id was used for another request, or in another session.
    pub(super) fn given<T: DeserializeOwned>(
        &self,
        service: &Service,
        key: &AnswerKey<'_, impl SealingKey>,
        rows: &[Option<Row>],
    ) -> Result<Option<T>, Error> {
        let (place, header) = self.place(service);
        for row in rows.iter().flatten() {
            let [record] = row.exactly()?;
            if row.revision()? != Revision::FIRST {
                return Err(Error::Integrity);
            }
            let id = Header::named_key(record).ok_or(Error::Integrity)?;
            let named = key.named(id).ok_or(Error::RequestIdReused)?;
            let opened = open(named, Header { key_id: id, ..header }, &place, record)?;
            let answer: AnswerPayload = payload::decode(opened.as_bytes())?;
            let until = Timestamp::from_millis(answer.given).after(REQUEST_ID_TTL);
            if until <= self.now {
                continue;
            }
            if answer.fingerprint != self.repeat.fingerprint {
                return Err(Error::RequestIdReused);
            }
            return payload::decode(&answer.answer).map(Some);
        }
        Ok(None)
    }

    /// Adds the answer to the batch that makes it true.
    pub(super) fn give<T: Serialize>(
        &self,
        service: &Service,
        key: &AnswerKey<'_, impl SealingKey>,
        answer: &T,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let answer = payload::encode(answer)?.to_vec();
        let given = self.now.as_millis();
        let plain = payload::encode(&AnswerPayload { fingerprint: self.repeat.fingerprint, given, answer })?;
        let (place, header) = self.place(service);
        let header = Header { key_id: key.id, ..header };
        let record = seal(key.key, header, &place, &plain, &*service.entropy)?;
        let [row, _] = self.keys();
        batch.expect.push((row.clone(), RowExpect::Absent));
        batch.put.push((row, Row::new(Revision::FIRST, &[&record])));
        Ok(())
    }
}
