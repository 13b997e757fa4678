//! The anchor: the latest checkpoint of every log, where the store is not.
//!
//! A checkpoint is signed for a log that grew, at most once a second, when the committer says that it is on disk: so none
//! covers what a crash could lose. Once a minute the anchor is written although nothing grew, and once more at the end. That it
//! cannot be written holds up no request; it is logged, counted, and tried again. What is done with it at a start is in
//! [`rollback`](super::rollback).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use data_encoding::HEXLOWER;

use super::{Error, Service, rfc3339};
use crate::audit::LogName;
use crate::crypto::{NoteSigner, VerifierKey};
use crate::model::{Duration, TenantId, Timestamp};
use crate::tlog::{AnchorTextError, AnchoredLog, Frontier, open_anchor, sign_anchor};

/// The anchor is written after so long although no log grew.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Where the anchor is kept: not where the store is.
#[async_trait]
pub trait AnchorPlace: Send + Sync {
    /// What operators call it.
    fn name(&self) -> String;

    /// The anchor; `None` when there is none.
    ///
    /// # Errors
    /// Why it cannot be read; that it might be there must not be taken for its absence.
    async fn read(&self) -> Result<Option<String>, PlaceError>;

    /// Puts another anchor in its place, whole and durable or not at all.
    ///
    /// # Errors
    /// Why it cannot be written.
    async fn replace(&self, text: String) -> Result<(), PlaceError>;
}

/// Why an anchor cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PlaceError(Box<dyn std::error::Error + Send + Sync>);

impl PlaceError {
    /// Takes the error of a place.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// How the anchor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorHealth {
    /// How long ago it was last written.
    pub age: Duration,
    /// How often it could not be written.
    pub failures: u64,
    /// Whether it could not be written the last time.
    pub failing: bool,
}

/// Keeps the anchor of a store.
pub struct Anchoring {
    pub(super) service: Arc<Service>,
    pub(super) place: Box<dyn AnchorPlace>,
    logs: tokio::sync::Mutex<Anchored>,
    written: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
}

/// A log, and what is anchored of it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) log: LogName,
    pub(super) anchored: AnchoredLog,
}

/// The newest epoch of each log.
pub(super) type KeptLogs = BTreeMap<TenantId, Kept>;

struct Anchored {
    logs: KeptLogs,
    /// Whether something of them was never written.
    is_news: bool,
}

impl Anchoring {
    pub(super) fn new(service: Arc<Service>, place: Box<dyn AnchorPlace>, logs: KeptLogs) -> Self {
        let written = AtomicU64::new(service.clock.now().as_millis());
        let logs = tokio::sync::Mutex::new(Anchored { logs, is_news: true });
        Self { service, place, logs, written, failures: AtomicU64::new(0), failing: AtomicBool::new(false) }
    }

    /// Writes the anchor when a log grew, or when it has not been written for a minute. Returns whether it is as it should be.
    pub async fn round(&self) -> bool {
        self.write(false).await
    }

    /// Writes the anchor a last time, once nothing more is committed.
    pub async fn finish(&self) -> bool {
        self.write(true).await
    }

    /// How the anchor is.
    #[must_use]
    pub fn health(&self) -> AnchorHealth {
        AnchorHealth {
            age: self.service.clock.now().since(self.last_written()),
            failures: self.failures.load(Ordering::Relaxed),
            failing: self.failing.load(Ordering::Relaxed),
        }
    }

    fn last_written(&self) -> Timestamp {
        Timestamp::from_millis(self.written.load(Ordering::Relaxed))
    }

    async fn write(&self, at_any_rate: bool) -> bool {
        let mut anchored = self.logs.lock().await;
        let outcome = self.take_grown(&mut anchored);
        let now = self.service.clock.now();
        let is_due = now.since(self.last_written()) >= HEARTBEAT;
        if outcome.is_ok() && !(anchored.is_news || is_due || at_any_rate) {
            return true;
        }
        let written = match outcome.and_then(|()| self.service.anchor_text(&anchored.logs)) {
            Ok(text) => self.place.replace(text).await,
            Err(error) => Err(PlaceError::new(error)),
        };
        anchored.is_news = written.is_err();
        self.note(written, now)
    }

    fn take_grown(&self, anchored: &mut Anchored) -> Result<(), Error> {
        self.service.notary()?;
        for (log, frontier) in self.service.committer.take_grown() {
            let known = anchored.logs.get(&log.tenant);
            let newer = known.is_none_or(|known| {
                (known.log.epoch, known.anchored.frontier.size()) < (log.epoch, frontier.size())
            });
            if newer {
                anchored.logs.insert(log.tenant, self.service.kept(log, frontier)?);
                anchored.is_news = true;
            }
        }
        Ok(())
    }

    fn note(&self, written: Result<(), PlaceError>, now: Timestamp) -> bool {
        let was_failing = self.failing.swap(written.is_err(), Ordering::Relaxed);
        match written {
            Ok(()) => {
                self.written.store(now.as_millis(), Ordering::Relaxed);
                if was_failing {
                    tracing::info!(
                        place = self.place.name(),
                        "the anchor of the access logs is written again"
                    );
                }
                true
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !was_failing {
                    tracing::error!(place = self.place.name(), %error, "the anchor of the access logs cannot be written");
                }
                false
            }
        }
    }
}

impl Service {
    /// Signs a log as it is on disk.
    pub(super) fn kept(&self, log: LogName, frontier: Frontier) -> Result<Kept, Error> {
        Ok(Kept { log, anchored: AnchoredLog::sign(self.origin(log), frontier, self.notary()?) })
    }

    pub(super) fn anchor_text(&self, logs: &KeptLogs) -> Result<String, Error> {
        let written = rfc3339(self.clock.now());
        Ok(sign_anchor(logs.values().map(|kept| &kept.anchored), &written, &self.anchor_signer()?))
    }

    /// What an anchor says that this store has signed.
    pub(super) fn open_anchor(&self, text: &str) -> Result<KeptLogs, AnchorTextError> {
        let signer = self.anchor_signer().map_err(|_| AnchorTextError::Title)?;
        let key: VerifierKey = signer.verifier().parse()?;
        let named = |anchored: AnchoredLog| {
            let log = self.log_named(&anchored.origin).ok_or(AnchorTextError::Title)?;
            Ok((log.tenant, Kept { log, anchored }))
        };
        open_anchor(text, &key)?.into_iter().map(named).collect()
    }

    /// The log of an [`origin`](Self::origin).
    fn log_named(&self, origin: &str) -> Option<LogName> {
        let (_, rest) = origin.rsplit_once(&HEXLOWER.encode(&self.keyring.store_id().0))?;
        let (tenant, epoch) = rest.strip_prefix('/')?.split_once('/')?;
        let tenant = TenantId(HEXLOWER.decode(tenant.as_bytes()).ok()?.try_into().ok()?);
        let log = LogName { tenant, epoch: epoch.parse().ok()? };
        (self.origin(log) == origin).then_some(log)
    }

    fn anchor_signer(&self) -> Result<NoteSigner, Error> {
        let store = HEXLOWER.encode(&self.keyring.store_id().0);
        Ok(self.notary()?.under(format!("strongroom/anchor/{store}")))
    }
}
