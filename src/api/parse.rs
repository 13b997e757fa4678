//! From messages to checked values. Each function names the field that it blames.

use data_encoding::HEXLOWER;
use prost::Message;
use prost_types::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};
use uuid::Uuid;

use crate::model::limits::{
    AUDIT_FILTER_OPERATIONS, AUDIT_FILTER_PSEUDONYMS, AUDIT_PRINCIPAL_BYTES, BATCH_ENTRIES, FOLLOW_MAX,
    ROOT_KEY_ID_BYTES,
};
use crate::model::{
    ContentType, Duration, EntryKey, Expect, KekVersion, Labels, MutationExpiry, NameError, Owner, RequestId,
    Revision, Scope, Scopes, SessionId, StreamName, TenantId, TenantName, TenantSet, Timestamp, TokenName,
    View,
};
use crate::proto::v1;
use crate::service::{
    DeleteEntry, DestroyKek, DestroyTenant, Error, ExportKek, Filter, ImportKek, JobKind, OperationSet,
    Order, Outcome, OutcomeSet, PageRequest, Problem, Pseudonym, PutEntry, Repeat, SessionName, Subject,
    WriteEntry,
};

type Parsed<T> = Result<T, Error>;

/// A message that must be there.
pub(super) fn required<T>(field: &'static str, message: Option<T>) -> Parsed<T> {
    message.ok_or_else(|| Error::invalid(field, Problem::Missing))
}

pub(super) fn owner(field: &'static str, owner: Option<v1::Owner>) -> Parsed<Option<Owner>> {
    owner
        .map(|owner| Owner::new(owner.issuer, owner.client_id, owner.subject))
        .transpose()
        .map_err(|problem| Error::invalid(field, problem))
}

pub(super) fn session(session: v1::SessionRef) -> Parsed<SessionName> {
    let id = SessionId::new(session.session_id)
        .map_err(|problem| Error::invalid("session.session_id", problem))?;
    Ok(SessionName { id, owner: owner("session.owner", session.owner)? })
}

/// A handle without an owner.
pub(super) fn session_id(id: &str) -> Parsed<SessionId> {
    SessionId::new(id).map_err(|problem| Error::invalid("session_id", problem))
}

/// A handle that the caller chose, or none.
pub(super) fn chosen_session(id: String) -> Parsed<Option<SessionId>> {
    if id.is_empty() {
        return Ok(None);
    }
    SessionId::new(id).map(Some).map_err(|problem| Error::invalid("session_id", problem))
}

pub(super) fn entry_key(field: &'static str, key: String) -> Parsed<EntryKey> {
    EntryKey::new(key).map_err(|problem| Error::invalid(field, problem))
}

pub(super) fn entry_keys(keys: Vec<String>) -> Parsed<Vec<EntryKey>> {
    if keys.len() > BATCH_ENTRIES {
        return Err(Error::invalid("keys", Problem::Count { min: 1, max: BATCH_ENTRIES }));
    }
    let keys: Vec<_> = keys.into_iter().map(|key| entry_key("keys", key)).collect::<Parsed<_>>()?;
    let names: std::collections::HashSet<_> = keys.iter().collect();
    if names.len() == keys.len() { Ok(keys) } else { Err(Error::invalid("keys", Problem::Repeated)) }
}

pub(super) fn stream(name: String) -> Parsed<StreamName> {
    StreamName::new(name).map_err(|problem| Error::invalid("stream", problem))
}

pub(super) fn tenant(field: &'static str, name: String) -> Parsed<TenantName> {
    TenantName::new(name).map_err(|problem| Error::invalid(field, problem))
}

pub(super) fn token_name(name: String) -> Parsed<TokenName> {
    TokenName::new(name).map_err(|problem| Error::invalid("name", problem))
}

pub(super) fn labels(
    field: &'static str,
    labels: impl IntoIterator<Item = (String, String)>,
) -> Parsed<Labels> {
    Labels::new(labels).map_err(|problem| Error::invalid(field, problem))
}

pub(super) fn content_type(field: &'static str, text: String) -> Parsed<ContentType> {
    ContentType::new(text).map_err(|problem| Error::invalid(field, problem))
}

pub(super) fn duration(field: &'static str, duration: ProtoDuration) -> Parsed<Duration> {
    // Not by prost's conversion: it overflows on what no honest client sends.
    let seconds = u64::try_from(duration.seconds).ok();
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    seconds
        .zip(nanos)
        .map(|(seconds, nanos)| Duration::new(seconds, nanos))
        .ok_or_else(|| Error::invalid(field, Problem::Form { form: "a duration that is not negative" }))
}

/// How long to follow: what the caller wants within the bound.
pub(super) fn follow(max: Option<ProtoDuration>) -> Parsed<Duration> {
    let wish = max.map(|max| duration("max_duration", max)).transpose()?;
    Ok(wish.filter(|wish| !wish.is_zero()).map_or(FOLLOW_MAX, |wish| wish.min(FOLLOW_MAX)))
}

pub(super) fn time(field: &'static str, time: ProtoTimestamp) -> Parsed<Timestamp> {
    let problem = || Error::invalid(field, Problem::Form { form: "a time after 1970" });
    let seconds = u64::try_from(time.seconds).map_err(|_| problem())?;
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(problem)?;
    let millis = seconds.checked_mul(1000).and_then(|millis| millis.checked_add(nanos / 1_000_000));
    millis.map(Timestamp::from_millis).ok_or_else(problem)
}

fn after(field: &'static str, ttl: ProtoDuration) -> Parsed<MutationExpiry> {
    duration(field, ttl).map(MutationExpiry::After)
}

fn at(field: &'static str, expire: ProtoTimestamp) -> Parsed<MutationExpiry> {
    time(field, expire).map(MutationExpiry::At)
}

pub(super) fn create_expiry(
    expiration: Option<v1::create_session_request::Expiration>,
) -> Parsed<MutationExpiry> {
    use v1::create_session_request::Expiration;
    match expiration {
        None => Ok(MutationExpiry::Default),
        Some(Expiration::Ttl(ttl)) => after("ttl", ttl),
        Some(Expiration::ExpireTime(time)) => at("expire_time", time),
    }
}

pub(super) fn update_expiry(
    expiration: Option<v1::update_session_request::Expiration>,
) -> Parsed<MutationExpiry> {
    use v1::update_session_request::Expiration;
    match expiration {
        None => Ok(MutationExpiry::Default),
        Some(Expiration::Ttl(ttl)) => after("ttl", ttl),
        Some(Expiration::ExpireTime(time)) => at("expire_time", time),
    }
}

fn put_expiry(expiration: Option<v1::put::Expiration>) -> Parsed<MutationExpiry> {
    use v1::put::Expiration;
    match expiration {
        None => Ok(MutationExpiry::Default),
        Some(Expiration::Ttl(ttl)) => after("put.ttl", ttl),
        Some(Expiration::ExpireTime(time)) => at("put.expire_time", time),
    }
}

fn expect(field: &'static str, expect: Option<v1::Expectation>) -> Parsed<Expect> {
    use v1::expectation::Condition;
    match expect.map(|expect| expect.condition) {
        None => Ok(Expect::Any),
        Some(None) => Err(Error::invalid(field, Problem::Missing)),
        Some(Some(Condition::Absent(true))) => Ok(Expect::Absent),
        Some(Some(Condition::Absent(false))) => {
            Err(Error::invalid(field, Problem::Form { form: "true when it is set" }))
        }
        Some(Some(Condition::Revision(number))) => Revision::new(number)
            .map(Expect::Revision)
            .ok_or_else(|| Error::invalid(field, Problem::Form { form: "1 or more" })),
    }
}

pub(super) fn put(put: v1::Put) -> Parsed<PutEntry> {
    Ok(PutEntry {
        key: entry_key("put.key", put.key)?,
        value: put.value,
        content_type: content_type("put.content_type", put.content_type)?,
        expiry: put_expiry(put.expiration)?,
        labels: labels("put.labels", put.labels)?,
        expect: expect("put.expect", put.expect)?,
    })
}

pub(super) fn delete(delete: v1::Delete) -> Parsed<DeleteEntry> {
    let expect = expect("delete.expect", delete.expect)?;
    if expect == Expect::Absent {
        return Err(Error::invalid("delete.expect", Problem::Form { form: "a revision, or unset" }));
    }
    Ok(DeleteEntry { key: entry_key("delete.key", delete.key)?, expect })
}

pub(super) fn write(write: v1::Write) -> Parsed<WriteEntry> {
    use v1::write::Write;
    match required("writes.write", write.write)? {
        Write::Put(message) => put(message).map(WriteEntry::Put),
        Write::Delete(message) => delete(message).map(WriteEntry::Delete),
    }
}

pub(super) fn view(view: i32) -> Parsed<View> {
    match v1::View::try_from(view) {
        Ok(v1::View::Unspecified | v1::View::Redacted) => Ok(View::Redacted),
        Ok(v1::View::Full) => Ok(View::Full),
        Err(_) => Err(Error::invalid("view", Problem::Unknown)),
    }
}

pub(super) fn page(size: u32, token: String) -> PageRequest {
    PageRequest { size: usize::try_from(size).unwrap_or(usize::MAX), token }
}

/// The right to the same answer again, when the request has an id.
pub(super) fn repeat(method: &'static str, id: &str, request: &impl Message) -> Parsed<Option<Repeat>> {
    if id.is_empty() {
        return Ok(None);
    }
    let uuid = Uuid::try_parse(id)
        .map_err(|_| Error::invalid("request_id", Problem::Form { form: "a UUID, or empty" }))?;
    // Maps are ordered, so that the same message has the same encoding.
    let encoded = zeroize::Zeroizing::new(request.encode_to_vec());
    Ok(Some(Repeat::new(RequestId(uuid.into_bytes()), method, &encoded)))
}

pub(super) fn approval_id(id: &str) -> Parsed<[u8; 16]> {
    let uuid =
        Uuid::try_parse(id).map_err(|_| Error::invalid("approval_id", Problem::Form { form: "a UUID" }))?;
    Ok(uuid.into_bytes())
}

/// The id of a recipient's key.
pub(super) fn root_key_id(field: &'static str, text: &str) -> Parsed<String> {
    match text.len() {
        0 => Err(Error::invalid(field, Problem::Missing)),
        1..=ROOT_KEY_ID_BYTES => Ok(text.to_owned()),
        _ => Err(Error::invalid(field, Problem::TooLarge { max: ROOT_KEY_ID_BYTES })),
    }
}

pub(super) fn destroy_kek(message: &v1::DestroyKekRequest) -> Parsed<DestroyKek> {
    Ok(DestroyKek {
        version: KekVersion(message.version),
        grace: message.grace.map(|grace| duration("grace", grace)).transpose()?,
        expect_sessions: message.expect_sessions,
        dry_run: message.dry_run,
    })
}

pub(super) fn tenant_uid(field: &'static str, uid: &str) -> Parsed<TenantId> {
    let uuid = Uuid::try_parse(uid);
    uuid.map(|uuid| TenantId(uuid.into_bytes()))
        .map_err(|_| Error::invalid(field, Problem::Form { form: "a name, or uid: and a UUID" }))
}

pub(super) fn destroy_tenant(message: &v1::DestroyTenantRequest) -> Parsed<DestroyTenant> {
    Ok(DestroyTenant {
        grace: message.grace.map(|grace| duration("grace", grace)).transpose()?,
        expect_sessions: message.expect_sessions,
        dry_run: message.dry_run,
    })
}

pub(super) fn import_kek(message: &v1::ImportKekRequest) -> Parsed<ImportKek> {
    let wrapping_key = Uuid::try_parse(&message.wrapping_key_uid)
        .map_err(|_| Error::invalid("wrapping_key_uid", Problem::Form { form: "a UUID" }))?;
    let wrapped = message.wrapped[..].try_into();
    Ok(ImportKek {
        wrapping_key: wrapping_key.into_bytes(),
        wrapped: wrapped.map_err(|_| Error::invalid("wrapped", Problem::Form { form: "80 bytes" }))?,
        pending: message.pending,
    })
}

pub(super) fn export_kek(message: &v1::ExportKekRequest) -> Parsed<ExportKek> {
    let recipient = message.recipient_public_key[..].try_into();
    let problem = || Error::invalid("recipient_public_key", Problem::Form { form: "32 bytes" });
    Ok(ExportKek { version: KekVersion(message.version), recipient: recipient.map_err(|_| problem())? })
}

pub(super) fn job_kind(kind: i32) -> Parsed<JobKind> {
    match v1::JobKind::try_from(kind) {
        Ok(v1::JobKind::Rewrap) => Ok(JobKind::Rewrap),
        Ok(v1::JobKind::Scrub) => Ok(JobKind::Scrub),
        Ok(v1::JobKind::Reencrypt) => Ok(JobKind::Reencrypt),
        Ok(v1::JobKind::Unspecified) | Err(_) => Err(Error::invalid("kind", Problem::Unknown)),
    }
}

pub(super) fn scopes(scopes: &[i32]) -> Parsed<Scopes> {
    let known = |scope: &i32| match v1::Scope::try_from(*scope) {
        Ok(v1::Scope::Read) => Ok(Scope::Read),
        Ok(v1::Scope::ReadFull) => Ok(Scope::ReadFull),
        Ok(v1::Scope::Write) => Ok(Scope::Write),
        Ok(v1::Scope::Purge) => Ok(Scope::Purge),
        Ok(v1::Scope::Keys) => Ok(Scope::Keys),
        Ok(v1::Scope::Audit) => Ok(Scope::Audit),
        Ok(v1::Scope::Tenants) => Ok(Scope::Tenants),
        Ok(v1::Scope::Tokens) => Ok(Scope::Tokens),
        Ok(v1::Scope::Status) => Ok(Scope::Status),
        Ok(v1::Scope::KeysDestroy) => Ok(Scope::KeysDestroy),
        Ok(v1::Scope::KeysDestroyNow) => Ok(Scope::KeysDestroyNow),
        Ok(v1::Scope::KeysImport) => Ok(Scope::KeysImport),
        Ok(v1::Scope::KeysExport) => Ok(Scope::KeysExport),
        Ok(v1::Scope::Root) => Ok(Scope::Root),
        Ok(v1::Scope::Unspecified) | Err(_) => Err(Error::invalid("scopes", Problem::Unknown)),
    };
    let scopes: Scopes = scopes.iter().map(known).collect::<Parsed<_>>()?;
    if scopes.is_empty() { Err(Error::invalid("scopes", Problem::Missing)) } else { Ok(scopes) }
}

pub(super) fn tenants(names: Vec<String>) -> Parsed<TenantSet> {
    if names == ["*"] {
        return Ok(TenantSet::All);
    }
    let names = names.into_iter().map(|name| tenant("tenants", name));
    names.collect::<Parsed<_>>().map(TenantSet::Only)
}

pub(super) fn filter(filter: Option<v1::AuditFilter>) -> Parsed<Filter> {
    let Some(filter) = filter else {
        return Ok(Filter::ALL);
    };
    if filter.operations.len() > AUDIT_FILTER_OPERATIONS {
        let problem = Problem::Count { min: 0, max: AUDIT_FILTER_OPERATIONS };
        return Err(Error::invalid("filter.operations", problem));
    }
    Ok(Filter {
        start: filter.start_time.map(|start| time("filter.start_time", start)).transpose()?,
        end: filter.end_time.map(|end| time("filter.end_time", end)).transpose()?,
        operations: operations(&filter.operations)?,
        outcomes: outcomes(&filter.outcomes)?,
        about: Vec::new(),
    })
}

/// Whom and what a filter is about.
pub(super) fn subjects(filter: Option<&v1::AuditFilter>) -> Parsed<Vec<Subject>> {
    let Some(filter) = filter else { return Ok(Vec::new()) };
    let mut subjects = Vec::new();
    if !filter.principal.is_empty() {
        subjects.push(Subject::Principal(principal(&filter.principal)?));
    }
    subjects.extend(owner("filter.owner", filter.owner.clone())?.map(Subject::Owner));
    let mut named = |field, text: &str, subject: fn(&str) -> Result<Subject, NameError>| {
        let found = (!text.is_empty()).then(|| subject(text)).transpose();
        found.map(|found| subjects.extend(found)).map_err(|problem| Error::invalid(field, problem))
    };
    named("filter.session_id", &filter.session_id, |text| SessionId::new(text).map(Subject::Session))?;
    named("filter.entry_key", &filter.entry_key, |text| EntryKey::new(text).map(Subject::Entry))?;
    named("filter.stream", &filter.stream, |text| StreamName::new(text).map(Subject::Stream))?;
    named("filter.token", &filter.token, |text| TokenName::new(text).map(Subject::Token))?;
    if !filter.address.is_empty() {
        let form = "an IPv4 or IPv6 address";
        let address = filter.address.parse();
        let address = address.map_err(|_| Error::invalid("filter.address", Problem::Form { form }))?;
        subjects.push(Subject::Address(address));
    }
    subjects.extend(pseudonyms(&filter.pseudonyms)?);
    Ok(subjects)
}

fn principal(id: &str) -> Parsed<String> {
    if id.len() > AUDIT_PRINCIPAL_BYTES {
        return Err(Error::invalid("filter.principal", Problem::TooLarge { max: AUDIT_PRINCIPAL_BYTES }));
    }
    Ok(id.to_owned())
}

fn pseudonyms(texts: &[String]) -> Parsed<Vec<Subject>> {
    if texts.len() > AUDIT_FILTER_PSEUDONYMS {
        let problem = Problem::Count { min: 0, max: AUDIT_FILTER_PSEUDONYMS };
        return Err(Error::invalid("filter.pseudonyms", problem));
    }
    let form = "p, a number, ':' and 26 characters of base32, as it stands in the log";
    let read = |text: &String| Pseudonym::parse(text.as_bytes()).map(Subject::Pseudonym);
    let read = texts.iter().map(read).collect::<Option<_>>();
    read.ok_or_else(|| Error::invalid("filter.pseudonyms", Problem::Form { form }))
}

fn operations(patterns: &[String]) -> Parsed<OperationSet> {
    if patterns.is_empty() {
        return Ok(OperationSet::ALL);
    }
    let mut set = OperationSet::NONE;
    for pattern in patterns {
        set = set.with_pattern(pattern).map_err(|_| Error::invalid("filter.operations", Problem::Unknown))?;
    }
    Ok(set)
}

fn outcomes(names: &[String]) -> Parsed<OutcomeSet> {
    if names.is_empty() {
        return Ok(OutcomeSet::ALL);
    }
    let mut set = OutcomeSet::NONE;
    for name in names {
        let outcome =
            Outcome::from_name(name).ok_or_else(|| Error::invalid("filter.outcomes", Problem::Unknown))?;
        set = set.with(outcome);
    }
    Ok(set)
}

pub(super) fn order(order: i32) -> Parsed<Order> {
    match v1::AuditOrder::try_from(order) {
        Ok(v1::AuditOrder::Unspecified | v1::AuditOrder::OldestFirst) => Ok(Order::OldestFirst),
        Ok(v1::AuditOrder::NewestFirst) => Ok(Order::NewestFirst),
        Err(_) => Err(Error::invalid("order", Problem::Unknown)),
    }
}

/// A UUID as text, of its bytes.
pub(super) fn uuid_text(bytes: [u8; 16]) -> String {
    Uuid::from_bytes(bytes).to_string()
}

/// The name of a tenant's log.
pub(super) fn log_text(tenant: [u8; 16], epoch: u32) -> String {
    format!("sr1/{}/{epoch}", HEXLOWER.encode(&tenant))
}
