//! Receipts of destruction: signed, and honest about what the destruction does not reach.
//!
//! What was wrapped under a root epoch key still opens in an old copy of the store, for whoever holds the key of one of the
//! epoch's recipients. So a receipt names the epochs that a key saw, and their recipients: the *horizon* is reached when
//! those keys are destroyed, or the copies.

use std::fmt::Write as _;

use uuid::Uuid;

use super::{Error, Service, rfc3339};
use crate::crypto::NoteSigner;
use crate::keyring::{KekVersionState, RootEpoch, RootRecipient, Tenant};
use crate::model::{KekState, Timestamp};

/// The domain of the key that signs receipts, and, under the names of logs, their checkpoints.
const DOMAIN: &str = "receipt";

impl Service {
    /// The key with which everyone can verify receipts, as a C2SP verifier key.
    pub(super) fn receipt_verifier(&self) -> Result<String, Error> {
        self.notary().map(|notary| notary.verifier())
    }

    /// A receipt for a version that is destroyed, or will be; none for another.
    pub(super) async fn key_receipt(
        &self,
        tenant: &Tenant,
        kek: &KekVersionState,
    ) -> Result<Option<String>, Error> {
        let at = match (kek.state, kek.destroy_at) {
            (KekState::Destroyed, _) => kek.changed,
            (KekState::DestroyScheduled, Some(at)) => at,
            _ => return Ok(None),
        };
        let mut text = self.heading(tenant)?;
        line(&mut text, &format!("key version {}", kek.version.0))?;
        let state = if kek.state == KekState::Destroyed { "destroyed" } else { "to be destroyed" };
        line(&mut text, &format!("{state} at {}", rfc3339(at)))?;
        self.horizon(&mut text, kek.created, at).await?;
        Ok(Some(self.notary()?.sign(&text)))
    }

    fn heading(&self, tenant: &Tenant) -> Result<String, Error> {
        let mut text = String::new();
        line(&mut text, "strongroom destruction receipt/1")?;
        line(&mut text, &format!("issued at {}", rfc3339(self.clock.now())))?;
        line(&mut text, &format!("store {}", Uuid::from_bytes(self.keyring.store_id().0)))?;
        let id = Uuid::from_bytes(tenant.tenant_ref().id.0);
        line(&mut text, &format!("tenant {} {id}", tenant.name().as_str()))?;
        Ok(text)
    }

    /// Who can open a copy of the store in which a key stood that lived from `born` to `dead`.
    async fn horizon(&self, text: &mut String, born: Timestamp, dead: Timestamp) -> Result<(), Error> {
        line(text, "in the store from then on no one opens what it wrapped")?;
        line(
            text,
            "copies of the store from before open with any of these, until they or the copies are destroyed",
        )?;
        let stored = self.keyring.read_epochs(&*self.engine).await?;
        let saw = |epoch: &&RootEpoch| epoch.began <= dead && epoch.ended.is_none_or(|ended| ended >= born);
        for epoch in stored.epochs().iter().filter(saw) {
            let lives = if epoch.ended.is_some() { "ended" } else { "lives" };
            for recipient in &epoch.recipients {
                line(text, &format!("root epoch {} ({lives}): {}", epoch.number, named(recipient)))?;
            }
        }
        Ok(())
    }

    /// The store's signing key.
    pub(super) fn notary(&self) -> Result<NoteSigner, Error> {
        let system = self.keyring.system();
        let signer = NoteSigner::derive(system.control(), self.keyring.store_id(), DOMAIN);
        signer.map_err(|_| Error::Internal)
    }
}

fn line(text: &mut String, line: &str) -> Result<(), Error> {
    writeln!(text, "{line}").map_err(|_| Error::Internal)
}

/// A provider's key id may be any text: what could end a line is shown as an escape.
fn named(recipient: &RootRecipient) -> String {
    let provider = recipient.provider.map_or_else(|| "unknown provider".to_owned(), |kind| kind.to_string());
    format!("{provider} {}", recipient.key_id.escape_debug())
}
