//! Every bound of the product, each with its reason.
//!
//! A bound that a caller can meet stands in the proto comments too, and in the error that reports it.

use std::time::Duration;

/// Longest tenant name, in bytes: a DNS label, so that it can be a Kubernetes name.
pub const TENANT_NAME_BYTES: usize = 63;
/// Longest token name, in bytes: as for tenants.
pub const TOKEN_NAME_BYTES: usize = 63;
/// Longest session handle, in bytes: MCP servers use UUIDs and base64 of up to 64 bytes.
pub const SESSION_ID_BYTES: usize = 128;
/// Longest entry key or stream name, in bytes: room for a URI, small enough to list by the thousand.
pub const ENTRY_KEY_BYTES: usize = 512;
/// Longest of the three parts of an owner, in bytes: OpenID Connect bounds `sub` at 255 characters.
pub const OWNER_PART_BYTES: usize = 256;
/// Longest media type, in bytes: RFC 6838 allows 127 for each half; real ones are below 80.
pub const CONTENT_TYPE_BYTES: usize = 128;
/// Most labels on one session or entry.
pub const LABELS: usize = 32;
/// Longest label key, in bytes.
pub const LABEL_KEY_BYTES: usize = 63;
/// Longest label value, in bytes.
pub const LABEL_VALUE_BYTES: usize = 256;

/// Largest value of an entry unless the operator allows more: one sled batch of this size was cut 580 times without loss.
pub const VALUE_BYTES: usize = 4 << 20;
/// Largest value that an operator may allow.
pub const VALUE_BYTES_CEILING: usize = 16 << 20;
/// Largest sum of values in one batch, in either direction.
pub const BATCH_VALUE_BYTES: usize = 16 << 20;
/// Most entries in one batch.
pub const BATCH_ENTRIES: usize = 256;
/// Largest event.
pub const EVENT_BYTES: usize = 1 << 20;
/// Most events in one append.
pub const APPEND_EVENTS: usize = 256;
/// Largest sum of events in one append.
pub const APPEND_BYTES: usize = 4 << 20;
/// What is added to the largest value to bound a message: names, labels, framing.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256 << 10;
/// About how many bytes of events go into one message of a replay.
pub const REPLAY_CHUNK_BYTES: usize = 1 << 20;
/// Most events in one message of a replay.
pub const REPLAY_CHUNK_EVENTS: usize = 256;

/// Page size when the caller names none.
pub const PAGE_DEFAULT: usize = 100;
/// Largest page.
pub const PAGE_MAX: usize = 1000;
/// Most rows that one List call looks at, so that a page of deleted entries cannot hold up a server.
pub const PAGE_SCAN_ROWS: usize = 5000;
/// Longest page or resume token, in bytes as text.
pub const PAGE_TOKEN_BYTES: usize = 2048;

/// Shortest lifetime of a session: below a second a session would end during the call that made it.
pub const SESSION_TTL_MIN: Duration = Duration::from_secs(1);
/// Lifetime of a session when the caller names none: the longest of the TTLs seen in use.
pub const SESSION_TTL_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Longest lifetime of anything: above a year, so that yearly work has slack.
pub const TTL_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// Shortest lifetime of an entry: leases are sometimes very short.
pub const ENTRY_TTL_MIN: Duration = Duration::from_millis(1);
/// How long an expired session is still told apart from an unknown one.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long the tombstone of a deleted session stays: longer than any request can be under way, so that the revisions of
/// a session's row do not begin again under one that has read the row.
pub const DELETED_TOMBSTONE_TTL: Duration = Duration::from_secs(60);
/// How long the destruction of a key can be taken back, unless somebody says otherwise.
pub const KEY_GRACE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Shortest such time.
pub const KEY_GRACE_MIN: Duration = Duration::from_secs(24 * 3600);
/// Longest such time.
pub const KEY_GRACE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// Shortest time between rotations of a key that are made by themselves: below that, 120 versions are soon reached.
pub const KEY_PERIOD_MIN: Duration = Duration::from_secs(24 * 3600);
/// Longest such time.
pub const KEY_PERIOD_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long what was asked for can be approved and used: long enough for somebody who sleeps now, and short enough that who
/// approved still knows why.
pub const APPROVAL_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long an approval can be looked at after its time was over.
pub const APPROVAL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most approvals of one store that wait or can be used.
pub const APPROVALS_OPEN: usize = 256;
/// Most of these that one principal asked for, so that nobody takes the place of all others.
pub const APPROVALS_OPEN_EACH: usize = 32;
/// Most approvals that are stored, with those that were used, denied or expired; the oldest of these make room.
pub const APPROVALS_STORED: usize = 512;
/// How long key material can be wrapped for a wrapping key: time for a ceremony with an offline device, and over a weekend.
pub const WRAPPING_KEY_TTL: Duration = Duration::from_secs(3 * 24 * 3600);
/// Most wrapping keys of a tenant at one time: each is for one import, and few people import at once.
pub const WRAPPING_KEYS: usize = 16;
/// Sessions that a job names of those that it could not work on.
pub const JOB_FAILURES: usize = 32;
/// Most sessions a second that a job's rate may be.
pub const JOB_RATE_MAX: u32 = 1_000_000;
/// How long a request id is remembered.
pub const REQUEST_ID_TTL: Duration = Duration::from_secs(600);
/// Shortest lifetime of a token.
pub const TOKEN_TTL_MIN: Duration = Duration::from_secs(60);
/// Lifetime of a token when the caller names none.
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most tenants that one token names.
pub const TOKEN_TENANTS: usize = 64;
/// Longest token of our own, in bytes: they have 47; a longer one is refused before it is hashed.
pub const TOKEN_BYTES: usize = 64;
/// Longest token of another issuer, in bytes; a longer one is refused before it is taken apart.
pub const SIGNED_TOKEN_BYTES: usize = 8 << 10;
/// Longest time that one stream is followed, so that drain and balancing work.
pub const FOLLOW_MAX: Duration = Duration::from_secs(3600);
/// Pause between heartbeats on a followed stream.
pub const FOLLOW_HEARTBEAT: Duration = Duration::from_secs(15);

/// Longest that one request may take, whatever deadline its caller sets.
pub const DEADLINE_CEILING: Duration = Duration::from_secs(30);
/// The same for a request that walks through all sessions of a tenant, if its caller sets so late a deadline.
pub const WALK_DEADLINE_CEILING: Duration = Duration::from_secs(300);
/// Most requests in flight in one server.
pub const REQUESTS_IN_FLIGHT: usize = 4096;
/// Most followed streams in one server: each holds a task and a page of events.
pub const FOLLOWED_STREAMS: usize = 4096;
/// Most connections to one listener.
pub const CONNECTIONS: usize = 4096;
/// Most concurrent streams on one connection.
pub const STREAMS_PER_CONNECTION: u32 = 256;
/// Most TLS handshakes at one time: a handshake costs 0.3 to 0.4 ms of CPU.
pub const HANDSHAKES: usize = 256;
/// Longest TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most operations that wait for the committer.
pub const COMMIT_QUEUE: usize = 8192;
/// Most bytes of rows that wait for the committer.
pub const COMMIT_QUEUE_BYTES: usize = 256 << 20;
/// Most operations in one group: with more, a segment of sled's log could be reused before the device was flushed.
pub const COMMIT_GROUP: usize = 1024;
/// Bytes of rows after which a group is closed, for the same reason.
pub const COMMIT_GROUP_BYTES: usize = 512 << 10;
/// A commit that takes longer than this means that the engine or the disk is stuck; the process ends.
pub const COMMIT_STUCK: Duration = Duration::from_secs(10);
/// How often a mutation without a condition is tried again when it lost a race.
pub const RACE_RETRIES: usize = 32;

/// Longest canonical line of an audit event, in bytes.
pub const AUDIT_LINE_BYTES: usize = 4096;
/// Most operations in an audit filter.
pub const AUDIT_FILTER_OPERATIONS: usize = 32;
/// Most pages of a log's index that one call reads: what a million events have.
pub const AUDIT_INDEX_PAGES: usize = 64;
/// Most identifiers of each kind in an audit filter.
pub const AUDIT_FILTER_PSEUDONYMS: usize = 8;
/// Longest principal in an audit filter, in bytes: the longest SPIFFE id.
pub const AUDIT_PRINCIPAL_BYTES: usize = 2048;
/// Most events that come first when a log is tailed.
pub const AUDIT_BACKLOG: usize = 1000;

/// Most opened sessions (their keys and metadata) kept in memory.
pub const OPENED_SESSIONS: usize = 16_384;
/// Most changes remembered for watches.
pub const WATCH_RING: usize = 16_384;
/// Most bytes of names in those.
pub const WATCH_RING_BYTES: usize = 8 << 20;
/// Bytes of the id of a root provider's key: as much as a stanza's row key can hold.
pub const ROOT_KEY_ID_BYTES: usize = 2048;
