//! What can happen, and the name of it in the log.

use super::event::Outcome;

/// Declares the operations: variant, name on the wire.
macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// An operation that the log knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operation {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Operation {
            /// All operations, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the log: family, dot, verb.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it means, for the reference.
            #[cfg(test)]
            pub(crate) const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)*
                }
            }
        }
    };
}

operations! {
    /// A session was created.
    SessionCreate = "ses.create",
    /// A session's metadata was read.
    SessionRead = "ses.read",
    /// A session's lifetime or labels changed.
    SessionUpdate = "ses.update",
    /// A session was deleted.
    SessionDelete = "ses.delete",
    /// A session came to its end.
    SessionExpire = "ses.expire",
    /// Sessions were listed.
    SessionList = "ses.list",
    /// A session's sensitive part was purged.
    SessionPurge = "ses.purge",
    /// Rows of what had ended were removed.
    SessionReclaim = "ses.reclaim",
    /// A session's events were replayed.
    SessionReplay = "ses.replay",
    /// An entry was put.
    EntryPut = "ctx.put",
    /// An entry was read in its redacted view.
    EntryRead = "ctx.read",
    /// An entry was read in its full view.
    EntryReveal = "ctx.reveal",
    /// Entries were listed.
    EntryList = "ctx.list",
    /// An entry was deleted.
    EntryDelete = "ctx.delete",
    /// An entry was deleted and its last value returned.
    EntryConsume = "ctx.consume",
    /// An entry came to its end.
    EntryExpire = "ctx.expire",
    /// A session's entries were watched.
    EntryWatch = "ctx.watch",
    /// Events were appended to a stream.
    EventAppend = "evt.append",
    /// Events of a stream were read.
    EventRead = "evt.read",
    /// Key versions were listed.
    KeyList = "key.list",
    /// A new key version became primary.
    KeyRotate = "key.rotate",
    /// A key version was looked at.
    KeyRead = "key.read",
    /// A key version became the primary.
    KeyPromote = "key.promote",
    /// A key version may unwrap again.
    KeyEnable = "key.enable",
    /// A key version was disabled.
    KeyDisable = "key.disable",
    /// The sessions that key versions wrap were counted.
    KeyCensus = "key.census",
    /// A key version is to be destroyed.
    KeySchedule = "key.schedule",
    /// A key version is not to be destroyed.
    KeyCancel = "key.cancel",
    /// A key version was destroyed.
    KeyDestroy = "key.destroy",
    /// It was said how often new key versions are made by themselves.
    KeySetRotation = "key.period",
    /// A wrapping key was made, for key material that is to be imported.
    KeyWrapping = "key.wrapping",
    /// A key version was made of imported material.
    KeyImport = "key.import",
    /// A key version was given out, wrapped for a recipient.
    KeyExport = "key.export",
    /// Session keys were wrapped anew under the primary version.
    KeyRewrap = "key.rewrap",
    /// Sessions got new keys, and what is in them was sealed anew.
    KeyReencrypt = "key.reencrypt",
    /// Stored records were opened, to see whether they do.
    KeyScrub = "key.scrub",
    /// A job was started.
    JobStart = "job.start",
    /// A job has ended.
    JobEnd = "job.end",
    /// A job was cancelled.
    JobCancel = "job.cancel",
    /// A job was looked at.
    JobRead = "job.read",
    /// Jobs were listed.
    JobList = "job.list",
    /// The root epochs were looked at.
    RootRead = "root.read",
    /// A root epoch began.
    RootRotate = "root.rotate",
    /// A row's keys were wrapped anew under the newest root epoch.
    RootRewrap = "root.rewrap",
    /// Older root epochs ended: nothing was wrapped under them any more.
    RootEnd = "root.end",
    /// The root key was wrapped for one more recovery key.
    RootAdd = "root.add",
    /// The root key is not wrapped for a recipient any more.
    RootRemove = "root.remove",
    /// The root key was wrapped for another provider, or for another key of the same.
    RootMigrate = "root.migrate",
    /// It was tried who opens the root key, and what that opens.
    RootVerify = "root.verify",
    /// The store was opened with a recovery key, and the root key wrapped for a provider again.
    RootRecover = "root.recover",
    /// A tenant was created.
    TenantCreate = "tenant.create",
    /// A tenant was read.
    TenantRead = "tenant.read",
    /// Tenants were listed.
    TenantList = "tenant.list",
    /// A tenant was suspended.
    TenantSuspend = "tenant.suspend",
    /// A tenant was resumed.
    TenantResume = "tenant.resume",
    /// Something that needs a second person was asked for.
    ApprovalRequest = "approval.request",
    /// A second person approved it.
    ApprovalApprove = "approval.approve",
    /// It was denied or withdrawn.
    ApprovalDeny = "approval.deny",
    /// Its time was over.
    ApprovalExpire = "approval.expire",
    /// An approval was looked at.
    ApprovalRead = "approval.read",
    /// Approvals were listed.
    ApprovalList = "approval.list",
    /// The sessions that would die with a tenant were counted.
    TenantCensus = "tenant.census",
    /// A tenant is to be destroyed.
    TenantSchedule = "tenant.schedule",
    /// A tenant is not to be destroyed.
    TenantCancel = "tenant.cancel",
    /// A tenant's keys were destroyed.
    TenantDestroy = "tenant.destroy",
    /// Rows of a destroyed tenant were removed.
    TenantReclaim = "tenant.reclaim",
    /// A token was created.
    TokenCreate = "tok.create",
    /// Tokens were listed.
    TokenList = "tok.list",
    /// A token was revoked.
    TokenRevoke = "tok.revoke",
    /// Credentials were missing or not valid.
    AuthenticationFail = "auth.fail",
    /// Credentials were valid and did not allow the action.
    AuthorizationDeny = "authz.deny",
    /// A caller was turned away for its rate.
    RateLimit = "rate.limit",
    /// The access log was searched.
    AuditSearch = "aud.search",
    /// The access log was tailed.
    AuditTail = "aud.tail",
    /// A signed checkpoint of the access log was given out.
    AuditCheckpoint = "aud.checkpoint",
    /// It was proven that an event is in the access log.
    AuditProof = "aud.proof",
    /// The access log was exported.
    AuditExport = "aud.export",
    /// The server's status was read.
    StatusRead = "adm.status",
    /// The server started.
    SystemStart = "sys.start",
    /// The server stopped.
    SystemStop = "sys.stop",
    /// The wall clock jumped.
    SystemClock = "sys.clock",
    /// The latest checkpoints of all logs were anchored anew outside of the store: there was no anchor any more.
    SystemAnchor = "sys.anchor",
    /// An operator accepted that a log is not what its anchored checkpoint says, which the event binds.
    SystemRollback = "sys.rollback",
    /// A new epoch of the log began; the event binds the final state of the one before.
    SystemEpoch = "sys.epoch",
}

impl Operation {
    /// The operation of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.name() == name)
    }

    const fn bit(self) -> u128 {
        1 << (self as u128)
    }
}

/// The pattern names no operation and no family of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no operation has this name")]
pub struct UnknownOperation;

/// A set of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationSet(u128);

impl OperationSet {
    /// No operation.
    pub const NONE: Self = Self(0);
    /// Every operation.
    pub const ALL: Self = Self(u128::MAX);

    /// The set with `operation` too.
    #[must_use]
    pub const fn with(self, operation: Operation) -> Self {
        Self(self.0 | operation.bit())
    }

    /// The set with everything that `pattern` names: one operation, as `ctx.read`, or a family, as `ctx.*`.
    ///
    /// # Errors
    /// [`UnknownOperation`] when it names none.
    pub fn with_pattern(self, pattern: &str) -> Result<Self, UnknownOperation> {
        let named = |operation: &&Operation| match pattern.strip_suffix(".*") {
            Some(family) => operation.name().split_once('.').is_some_and(|(of, _)| of == family),
            None => operation.name() == pattern,
        };
        let found = Operation::ALL.iter().filter(named).fold(0, |bits, operation| bits | operation.bit());
        if found == 0 { Err(UnknownOperation) } else { Ok(Self(self.0 | found)) }
    }

    /// Whether the set has `operation`.
    #[must_use]
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & operation.bit() != 0
    }
}

/// A set of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeSet(u8);

impl OutcomeSet {
    /// No outcome.
    pub const NONE: Self = Self(0);
    /// Every outcome.
    pub const ALL: Self = Self(u8::MAX);

    /// The set with `outcome` too.
    #[must_use]
    pub const fn with(self, outcome: Outcome) -> Self {
        Self(self.0 | 1 << (outcome as u8))
    }

    /// Whether the set has `outcome`.
    #[must_use]
    pub const fn contains(self, outcome: Outcome) -> bool {
        self.0 & (1 << (outcome as u8)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_bit_and_a_name_of_its_own() {
        assert!(Operation::ALL.len() <= 128);
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(*operation));
            assert!(operation.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'.'));
            let one = OperationSet::NONE.with(*operation);
            let members = Operation::ALL.iter().filter(|other| one.contains(**other));
            assert_eq!(members.collect::<Vec<_>>(), [operation]);
        }
    }

    #[test]
    fn a_pattern_names_one_operation_or_a_family() {
        let keys = OperationSet::NONE.with_pattern("key.*").unwrap();
        assert!(keys.contains(Operation::KeyList) && keys.contains(Operation::KeyDestroy));
        let all = Operation::ALL.iter().filter(|operation| keys.contains(**operation));
        assert!(all.clone().all(|operation| operation.name().starts_with("key.")));
        assert_eq!(all.count(), 17);
        let both = keys.with_pattern("ctx.read").unwrap();
        assert!(both.contains(Operation::EntryRead) && both.contains(Operation::KeyList));
        assert!(!both.contains(Operation::EntryReveal));
        for unknown in ["", "*", ".*", "ctx", "ctx.", "ctx.*.*", "ct.*", "CTX.READ"] {
            assert_eq!(OperationSet::NONE.with_pattern(unknown), Err(UnknownOperation), "{unknown}");
        }
    }
}
