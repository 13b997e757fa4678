//! From values to messages.

use prost_types::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};

use super::parse::{log_text, uuid_text};
use crate::model::{Duration, KekOrigin, KekState, Owner, Scope, TenantState, Timestamp};
use crate::proto::v1;
use crate::service::{
    ApprovalDescription, ApprovalState, EntryChange, EntryDescription, EntryWithValue, EventDescription,
    JobDescription, JobKind, JobState, KekDescription, KekUse, LogLine, ProviderKind, Recipient,
    RedactionAction, Reported, RootCondition, RootDescription, RootEpoch, RootRecipient, RootVerification,
    SessionDescription, Status, TenantDescription, TokenDescription, WrappingKeyDescription,
};

pub(super) fn time(time: Timestamp) -> ProtoTimestamp {
    millis(time.as_millis())
}

fn millis(millis: u64) -> ProtoTimestamp {
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    ProtoTimestamp { seconds, nanos }
}

/// A time that may be absent, for which zero stands.
fn some_millis(value: u64) -> Option<ProtoTimestamp> {
    (value != 0).then(|| millis(value))
}

pub(super) fn duration(span: Duration) -> ProtoDuration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    ProtoDuration { seconds, nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0) }
}

fn owner(owner: &Owner) -> v1::Owner {
    v1::Owner {
        issuer: owner.issuer().to_owned(),
        client_id: owner.client_id().to_owned(),
        subject: owner.subject().to_owned(),
    }
}

pub(super) fn session(session: SessionDescription) -> v1::Session {
    v1::Session {
        owner: session.owner().as_ref().map(owner),
        session_id: session.id,
        create_time: Some(millis(session.created)),
        expire_time: Some(millis(session.expires)),
        absolute_expire_time: Some(millis(session.absolute_end)),
        idle_ttl: (session.idle_ttl != 0).then(|| duration(Duration::from_millis(session.idle_ttl))),
        labels: session.labels.into_iter().collect(),
        revision: session.revision,
        sensitive_purged: session.sensitive_purged,
    }
}

pub(super) fn metadata(entry: EntryDescription) -> v1::EntryMetadata {
    v1::EntryMetadata {
        key: entry.key,
        revision: entry.revision,
        size: entry.size,
        content_type: entry.content_type,
        create_time: Some(millis(entry.created)),
        update_time: Some(millis(entry.updated)),
        expire_time: some_millis(entry.expires),
        labels: entry.labels.into_iter().collect(),
    }
}

pub(super) fn redactions(report: Vec<Reported>) -> Vec<v1::RedactionReport> {
    let action = |action| match action {
        RedactionAction::Protect => v1::RedactionAction::Protect,
        RedactionAction::Drop => v1::RedactionAction::Drop,
        RedactionAction::Mask => v1::RedactionAction::Mask,
        RedactionAction::Pseudonym => v1::RedactionAction::Pseudonym,
        RedactionAction::Generalize => v1::RedactionAction::Generalize,
        RedactionAction::Reject => v1::RedactionAction::Reject,
        RedactionAction::Flag => v1::RedactionAction::Flag,
    };
    let line = |line: Reported| v1::RedactionReport {
        rule: line.rule.to_owned(),
        action: action(line.action).into(),
        count: line.count,
    };
    report.into_iter().map(line).collect()
}

pub(super) fn entry(entry: EntryWithValue) -> v1::Entry {
    v1::Entry { metadata: Some(metadata(entry.description)), value: entry.value }
}

pub(super) fn event(event: EventDescription) -> v1::Event {
    v1::Event {
        event_id: event.id,
        data: event.value,
        content_type: event.content_type,
        append_time: Some(time(event.appended)),
    }
}

pub(super) fn change(change: EntryChange) -> v1::EntryChange {
    v1::EntryChange { key: change.key, revision: change.revision, deleted: change.deleted }
}

pub(super) fn tenant(tenant: TenantDescription) -> v1::Tenant {
    let state = match tenant.state {
        TenantState::Active => v1::TenantState::Active,
        TenantState::Suspended => v1::TenantState::Suspended,
        TenantState::DestroyScheduled => v1::TenantState::DestroyScheduled,
        TenantState::Destroyed => v1::TenantState::Destroyed,
    };
    let rotates = tenant.rotation_every != 0;
    v1::Tenant {
        uid: uuid_text(tenant.id),
        state: state.into(),
        create_time: Some(millis(tenant.created)),
        primary_kek_version: tenant.primary,
        audit_log: log_text(tenant.id, tenant.audit_epoch),
        name: tenant.name,
        rotation_period: rotates.then(|| duration(Duration::from_millis(tenant.rotation_every))),
        next_rotation_time: rotates.then(|| millis(tenant.rotation_next)),
        destroy_time: some_millis(tenant.destroy_at),
        exportable: tenant.exportable,
    }
}

pub(super) fn kek(kek: KekDescription) -> v1::Kek {
    let state = match kek.state {
        KekState::Pending => v1::KekState::Pending,
        KekState::Primary => v1::KekState::Primary,
        KekState::Enabled => v1::KekState::Enabled,
        KekState::Disabled => v1::KekState::Disabled,
        KekState::DestroyScheduled => v1::KekState::DestroyScheduled,
        KekState::Destroyed => v1::KekState::Destroyed,
    };
    v1::Kek {
        version: kek.version.0,
        state: state.into(),
        create_time: Some(time(kek.created)),
        state_time: Some(time(kek.changed)),
        destroy_time: kek.destroy_at.map(time),
        origin: match kek.origin {
            KekOrigin::Generated => v1::KekOrigin::Generated,
            KekOrigin::Imported => v1::KekOrigin::Imported,
        }
        .into(),
        export_time: kek.exported.map(time),
    }
}

pub(super) fn wrapping_key(key: WrappingKeyDescription) -> v1::WrappingKey {
    v1::WrappingKey {
        uid: uuid_text(key.id),
        public_key: key.public.to_vec().into(),
        info: key.info,
        expire_time: Some(time(key.expires)),
    }
}

pub(super) fn kek_use(found: KekUse) -> v1::KekUse {
    v1::KekUse { version: found.version.0, sessions: found.sessions }
}

pub(super) fn job(job: &JobDescription) -> v1::Job {
    let kind = match job.kind {
        JobKind::Rewrap => v1::JobKind::Rewrap,
        JobKind::Scrub => v1::JobKind::Scrub,
        JobKind::Reencrypt => v1::JobKind::Reencrypt,
    };
    let state = match job.state {
        JobState::Running => v1::JobState::Running,
        JobState::Done => v1::JobState::Done,
        JobState::Cancelled => v1::JobState::Cancelled,
    };
    v1::Job {
        uid: uuid::Uuid::from_bytes(job.id).to_string(),
        kind: kind.into(),
        state: state.into(),
        create_time: Some(time(Timestamp::from_millis(job.started))),
        update_time: Some(time(Timestamp::from_millis(job.moved))),
        end_time: (job.ended != 0).then(|| time(Timestamp::from_millis(job.ended))),
        rate: job.rate,
        sessions_total: job.total,
        sessions_seen: job.seen,
        done: job.done,
        failed: job.failed,
        failed_sessions: job.failures.iter().map(|id| data_encoding::HEXLOWER.encode(id)).collect(),
        before: job.before().map(kek_use).collect(),
        after: job.after().map(kek_use).collect(),
        sessions_closed: job.closed,
    }
}

pub(super) fn approval(approval: ApprovalDescription) -> v1::Approval {
    let state = match approval.state {
        ApprovalState::Waiting => v1::ApprovalState::Waiting,
        ApprovalState::Approved => v1::ApprovalState::Approved,
        ApprovalState::Denied => v1::ApprovalState::Denied,
        ApprovalState::Used => v1::ApprovalState::Used,
        ApprovalState::Expired => v1::ApprovalState::Expired,
    };
    v1::Approval {
        approval_id: uuid_text(approval.id),
        operation: approval.what.operation().name().to_owned(),
        tenant: approval.tenant,
        description: approval.what.to_string(),
        scopes: approval.what.scopes().iter().map(|of| scope(of.name()).into()).collect(),
        requester: approval.requester,
        create_time: Some(millis(approval.asked)),
        expire_time: Some(millis(approval.expires)),
        state: state.into(),
        decider: approval.decider,
        decide_time: some_millis(approval.decided),
        use_time: some_millis(approval.used),
    }
}

pub(super) fn root(root: RootDescription) -> v1::Root {
    let (health, since, key_id) = match root.condition {
        RootCondition::Healthy => (v1::RootHealth::Healthy, None, String::new()),
        RootCondition::KeyChanged { key_id, since } => (v1::RootHealth::KeyChanged, Some(since), key_id),
        RootCondition::Unhealthy { since } => (v1::RootHealth::Unhealthy, Some(since), String::new()),
    };
    let rows = root.rows;
    let epoch = |epoch: RootEpoch| v1::RootEpoch {
        number: epoch.number,
        begin_time: Some(time(epoch.began)),
        end_time: epoch.ended.map(time),
        rows: rows.get(&epoch.number).copied().unwrap_or(0),
        recipients: epoch.recipients.into_iter().map(root_recipient).collect(),
    };
    v1::Root {
        epoch: root.newest,
        epochs: root.epochs.into_iter().map(epoch).collect(),
        health: health.into(),
        health_time: since.map(time),
        provider_key_id: key_id,
    }
}

fn root_recipient(of: RootRecipient) -> v1::RootRecipient {
    v1::RootRecipient {
        provider: provider_kind(of.provider).into(),
        key_id: of.key_id,
        add_time: Some(time(of.added)),
        remove_time: of.removed.map(time),
    }
}

pub(super) fn root_verification(found: RootVerification) -> v1::VerifyRootResponse {
    let check = |(recipient, opens): (Recipient, bool)| v1::RootProviderCheck {
        provider: provider_kind(recipient.provider).into(),
        key_id: recipient.key_id,
        opens,
    };
    v1::VerifyRootResponse {
        providers: found.providers.into_iter().map(check).collect(),
        rows_opened: found.opened,
        rows_damaged: found.damaged,
    }
}

const fn provider_kind(kind: Option<ProviderKind>) -> v1::RootProviderKind {
    match kind {
        None => v1::RootProviderKind::Unspecified,
        Some(ProviderKind::File) => v1::RootProviderKind::File,
        Some(ProviderKind::Recovery) => v1::RootProviderKind::Recovery,
        Some(ProviderKind::Kms) => v1::RootProviderKind::Kms,
        Some(ProviderKind::Transit) => v1::RootProviderKind::Transit,
    }
}

fn scope(name: &str) -> v1::Scope {
    match Scope::from_name(name) {
        Some(Scope::Read) => v1::Scope::Read,
        Some(Scope::ReadFull) => v1::Scope::ReadFull,
        Some(Scope::Write) => v1::Scope::Write,
        Some(Scope::Purge) => v1::Scope::Purge,
        Some(Scope::Keys) => v1::Scope::Keys,
        Some(Scope::Audit) => v1::Scope::Audit,
        Some(Scope::Tenants) => v1::Scope::Tenants,
        Some(Scope::Tokens) => v1::Scope::Tokens,
        Some(Scope::Status) => v1::Scope::Status,
        Some(Scope::KeysDestroy) => v1::Scope::KeysDestroy,
        Some(Scope::KeysDestroyNow) => v1::Scope::KeysDestroyNow,
        Some(Scope::KeysImport) => v1::Scope::KeysImport,
        Some(Scope::KeysExport) => v1::Scope::KeysExport,
        Some(Scope::Root) => v1::Scope::Root,
        None => v1::Scope::Unspecified,
    }
}

pub(super) fn token(token: TokenDescription) -> v1::Token {
    v1::Token {
        name: token.name,
        scopes: token.scopes.iter().map(|name| scope(name).into()).collect(),
        tenants: token.tenants.unwrap_or_else(|| vec!["*".to_owned()]),
        create_time: Some(millis(token.created)),
        expire_time: Some(millis(token.expires)),
        revoked: token.revoked,
    }
}

pub(super) fn audit_event(log: &str, line: LogLine) -> v1::AuditEvent {
    v1::AuditEvent { log: log.to_owned(), sequence: line.sequence, line: line.line }
}

pub(super) fn status(status: &Status) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store_uid: uuid_text(status.store.0),
        format_version: 1,
        start_time: Some(time(status.started)),
        engine: status.engine.to_owned(),
        disk_bytes: status.storage.disk_bytes,
        rows: status.storage.rows,
        tenants: status.tenants,
        queue_depth: status.commits.depth,
        commits: status.commits.groups,
        committed_operations: status.commits.operations,
        integrity_failures: status.counts.integrity_failures,
        sessions_expired: status.counts.sessions_expired,
        sweeper_lag: Some(duration(status.counts.sweeper_lag)),
        system_log_size: status.system_log_size,
        receipt_verifier: status.receipt_verifier.clone(),
    }
}
