//! Lists of a session's entries: names, revisions, sizes and expiry, never values.

use super::attempt::Attempt;
use super::cursor::{CursorScope, page_size};
use super::entry::Slotted;
use super::opened::Opened;
use super::view::{Answer, EntryDescription, Page, PageRequest, SessionName};
use super::{Error, Failure, Service};
use crate::audit::Operation;
use crate::auth::{Permit, Read};
use crate::commit::Receipt;
use crate::keyring::Tenant;
use crate::model::limits::PAGE_SCAN_ROWS;
use crate::store::{Key, ScanRange, SessionPart, keys};

/// How many rows one scan step brings into memory: with the largest values 256 MiB, with usual ones a few KiB.
const SCAN_STEP: usize = 16;

impl Service {
    /// Lists a session's entries, without their values.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong page token.
    pub async fn list_entries(
        &self,
        permit: &Permit<Read>,
        name: &SessionName,
        page: &PageRequest,
    ) -> Result<Answer<Page<EntryDescription>>, Failure> {
        let (mut attempt, tenant) = self.attempt(permit, Operation::EntryList).await?;
        attempt.about_session(name);
        let outcome = self.list_entries_once(&mut attempt, &tenant, name, page).await;
        attempt.close(outcome).await
    }

    async fn list_entries_once(
        &self,
        attempt: &mut Attempt<'_>,
        tenant: &Tenant,
        name: &SessionName,
        page: &PageRequest,
    ) -> Result<(Page<EntryDescription>, Receipt), Error> {
        let opened = self.open_session(tenant, name, |_| Vec::new()).await?;
        let mut request = b"entries".to_vec();
        request.extend_from_slice(&opened.id);
        let tenant = &opened.tenant;
        let scope =
            CursorScope { key: tenant.control(), tenant: tenant.tenant_ref(), field: "page_token", request };
        let after = scope.open(self, &page.token)?.map(Key::from_stored);
        let (items, last) = self.entries_after(&opened, after, page_size(page.size)).await?;
        let next = last.map_or(Ok(String::new()), |last| scope.seal(self, last.as_bytes()))?;
        attempt.touched(items.len());
        Ok((Page { items, next }, self.record_use(attempt, &opened).await?))
    }

    /// Live entries after a key, and the last key looked at unless there is nothing more.
    pub(super) async fn entries_after(
        &self,
        opened: &Opened,
        mut after: Option<Key>,
        size: usize,
    ) -> Result<(Vec<EntryDescription>, Option<Key>), Error> {
        let prefix = keys::session_part(opened.tenant.tenant_ref().id, &opened.id, SessionPart::Entry);
        let mut items = Vec::new();
        for _ in 0..PAGE_SCAN_ROWS / SCAN_STEP {
            let step = SCAN_STEP.min(size - items.len());
            let range = ScanRange { after: after.clone(), ..ScanRange::prefix(prefix.clone()) };
            let rows = self.engine.scan(range, step).await?;
            for (key, row) in &rows {
                if let Slotted::Live { revision, entry } = self.look(opened, key, Some(row))? {
                    items.push(EntryDescription::new(entry, revision));
                }
            }
            if rows.len() < step {
                return Ok((items, None));
            }
            after = rows.into_iter().last().map(|(key, _)| key);
            if items.len() >= size {
                break;
            }
        }
        Ok((items, after))
    }
}
