//! `strongroom audit`: the access log of a tenant, or of the server itself.

mod evidence;
mod files;
mod siem;
mod verify;

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::value::RawValue;

use super::args::{self, Moment};
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Record, Time};
use crate::client::{AuditEvent, AuditOrder, AuditSearch, AuditSubjects, AuditTail, ClientError, Timestamp};
use crate::model::limits::AUDIT_BACKLOG;

/// What can be done with an access log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the newest events, and with --follow those that come
    Tail(TailArgs),
    /// Find events by whom and what they are about, time, operation and outcome
    Search(SearchArgs),
    /// Print the key with which everyone can verify the log's checkpoints
    ///
    /// Keep it where the server's operators cannot change it: it is what an auditor trusts.
    Key(LogArgs),
    /// Print a signed checkpoint of the log: what it is now, in one line of hash
    ///
    /// A C2SP signed note, for who wants to hold the server to it later. With --since the log is proven to go on from an
    /// earlier one.
    Checkpoint(evidence::CheckpointArgs),
    /// Print the proof that an event is in the log
    ///
    /// A C2SP tlog-proof, with a signed checkpoint, which can be verified offline together with the event's line.
    Proof(evidence::ProofArgs),
    /// Write all of the log to a new directory, to be verified by anybody
    ///
    /// 'checkpoint' and the files of C2SP tlog-tiles: the hashes in tile/, the events in tile/entries/, or line by line in
    /// events.ndjson. What was written is verified before it is said to be there, and before other forms are made of it.
    Export(evidence::ExportArgs),
    /// Verify an exported log, without asking the server
    ///
    /// Everything is computed anew from the events. The first place that is not as it was signed is named, and the exit code
    /// is 5 then.
    Verify(verify::VerifyArgs),
}

/// Which events are wanted.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only events at or after this time: RFC 3339, or a duration that counts back from now such as 15m
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    since: Option<Moment>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    until: Option<Moment>,
    /// Only this operation, for example ctx.read, or a family as ctx.* (can be repeated)
    #[arg(long = "operation", value_name = "NAME")]
    operations: Vec<String>,
    /// Only this outcome (can be repeated)
    #[arg(long = "outcome", value_enum, value_name = "ok|deny|fail", hide_possible_values = true)]
    outcomes: Vec<OutcomeArg>,
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Whom and what the events are about.
#[derive(Debug, Args)]
#[command(next_help_heading = "Whom and what it is about (with --owner, only that user's)")]
pub struct AboutArgs {
    /// Only what was done on these credentials, for example token:travel or jwt:ISSUER SUBJECT
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Only what was done to this session
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Only what was done to an entry of this key, in any session
    #[arg(long, value_name = "KEY")]
    entry: Option<String>,
    /// Only what was done to a stream of this name, in any session
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Only what was done to the token of this name
    #[arg(long = "of-token", value_name = "NAME")]
    token: Option<String>,
    /// Only what was asked for from this address
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Only events in which this pseudonym stands, as p1:… in another event of the log (can be repeated)
    #[arg(long = "pseudonym", value_name = "PSEUDONYM")]
    pseudonyms: Vec<String>,
}

/// Which log, where it is not the tenant's.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The log of the server itself, instead of the tenant's; needs a token for all tenants
    #[arg(long, conflicts_with = "tenant")]
    system: bool,
    /// The log of the tenant with this uid, which may be destroyed; needs a token for all tenants
    #[arg(long, conflicts_with_all = ["tenant", "system"])]
    uid: Option<String>,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutcomeArg {
    /// It was done
    Ok,
    /// It was refused
    Deny,
    /// It failed
    Fail,
}

/// Arguments of `audit tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// How many of the newest events come first, at most 1000
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=AUDIT_BACKLOG as i64))]
    lines: u32,
    /// Go on with new events
    #[arg(long, short)]
    follow: bool,
}

/// Arguments of `audit search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Newest events first
    #[arg(long)]
    newest_first: bool,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl AuditCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::Tail(args) => args.run(invocation).await,
            Self::Search(args) => args.run(invocation).await,
            Self::Key(args) => evidence::key(&args, invocation).await,
            Self::Checkpoint(args) => args.run(invocation).await,
            Self::Proof(args) => args.run(invocation).await,
            Self::Export(args) => args.run(invocation).await,
            Self::Verify(args) => args.run(invocation),
        }
    }
}

impl TailArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let tail = AuditTail {
            search: self.filter.search(invocation)?,
            backlog: self.lines,
            follow: self.follow,
            patience: invocation.global().timeout(),
        };
        let events = invocation.admin()?.tail_audit(tail);
        print(events, invocation).await
    }
}

impl SearchArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let mut search = self.filter.search(invocation)?;
        search.order = if self.newest_first { AuditOrder::NewestFirst } else { AuditOrder::OldestFirst };
        let events = invocation.admin()?.search_audit(search).take(self.limit.unwrap_or(usize::MAX));
        print(events.boxed(), invocation).await
    }
}

impl FilterArgs {
    fn search(&self, invocation: &Invocation) -> Result<AuditSearch, Failure> {
        let now = invocation.now();
        Ok(AuditSearch {
            tenant: self.log.name(invocation)?,
            start_time: self.since.map(|moment| moment.resolve(now)),
            end_time: self.until.map(|moment| moment.resolve(now)),
            operations: self.operations.clone(),
            outcomes: self.outcomes.iter().map(|outcome| outcome.name().to_owned()).collect(),
            about: self.about.subjects(invocation),
            order: AuditOrder::OldestFirst,
        })
    }
}

impl AboutArgs {
    fn subjects(&self, invocation: &Invocation) -> AuditSubjects {
        AuditSubjects {
            principal: self.principal.clone(),
            owner: invocation.owner(),
            session: self.session.clone(),
            entry: self.entry.clone(),
            stream: self.stream.clone(),
            token: self.token.clone(),
            address: self.address,
            pseudonyms: self.pseudonyms.clone(),
        }
    }
}

impl LogArgs {
    /// The log's name for the server; none is the server's own.
    pub(super) fn name(&self, invocation: &Invocation) -> Result<Option<String>, Failure> {
        match &self.uid {
            Some(uid) => Ok(Some(format!("uid:{uid}"))),
            None if self.system => Ok(None),
            None => Ok(Some(invocation.tenant_name(&invocation.profile()?)?.into_string())),
        }
    }
}

impl OutcomeArg {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Deny => "deny",
            Self::Fail => "fail",
        }
    }
}

async fn print(
    mut events: BoxStream<'static, Result<AuditEvent, ClientError>>,
    invocation: &mut Invocation,
) -> Result<(), Failure> {
    let failed = Failure::call("read the access log");
    let mut stream = invocation.console.stream(&[24, 8, 12, 7]);
    while let Some(event) = events.next().await {
        let record =
            EventRecord::read(event.map_err(&failed)?).ok_or(Failure::Malformed("access log line"))?;
        stream.push(&record)?;
    }
    Ok(())
}

/// An event as it is printed: the exact line in JSON, the facts most asked for in a table.
#[derive(Serialize)]
struct EventRecord {
    log: String,
    sequence: u64,
    event: Box<RawValue>,
    #[serde(skip)]
    line: serde_json::Value,
}

impl EventRecord {
    /// Takes an event; `None` when its line is no JSON.
    fn read(event: AuditEvent) -> Option<Self> {
        let line = serde_json::from_str(&event.line).ok()?;
        let exact = RawValue::from_string(event.line).ok()?;
        Some(Self { log: event.log, sequence: event.sequence, event: exact, line })
    }

    /// One field of the line as a cell.
    fn field(&self, pointer: &str) -> String {
        match self.line.pointer(pointer) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(serde_json::Value::Null) | None => "-".to_owned(),
            Some(other) => other.to_string(),
        }
    }

    /// When it happened: the log has milliseconds, or a text of its own.
    fn time(&self) -> String {
        let millis = self.line.pointer("/ts").and_then(serde_json::Value::as_u64);
        millis.map_or_else(|| self.field("/ts"), |millis| Time(Timestamp::from_millis(millis)).to_string())
    }
}

impl Record for EventRecord {
    const COLUMNS: &'static [&'static str] =
        &["TIME", "SEQUENCE", "OPERATION", "OUTCOME", "REASON", "ACTOR", "SESSION", "RESOURCE", "REVISION"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.time(), self.sequence.to_string()];
        let fields = ["/typ", "/out", "/rsn", "/act/p", "/sid", "/res/kp", "/res/ver"];
        cells.extend(fields.map(|pointer| self.field(pointer)));
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> AuditEvent {
        AuditEvent { log: "demo/1".to_owned(), sequence: 7, line: line.to_owned() }
    }

    #[test]
    fn json_keeps_the_exact_line() {
        let event = event(r#"{"v":1,"ts":1782907200007,"z":"\u00e4","a":1.50}"#);
        let record = EventRecord::read(event).unwrap();
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"log":"demo/1","sequence":7,"event":{"v":1,"ts":1782907200007,"z":"\u00e4","a":1.50}}"#
        );
    }

    #[test]
    fn the_table_has_the_facts_most_asked_for_and_dashes_for_the_rest() {
        let event =
            event(r#"{"ts":1782907200007,"typ":"ctx.read","out":"ok","act":{"p":"p1:abc"},"res":{"ver":3}}"#);
        let cells = EventRecord::read(event).unwrap().cells();
        assert_eq!(cells, ["2026-07-01T12:00:00.007Z", "7", "ctx.read", "ok", "-", "p1:abc", "-", "-", "3"]);
        assert_eq!(cells.len(), EventRecord::COLUMNS.len());
    }

    #[test]
    fn a_line_that_is_no_json_is_not_printed() {
        assert!(EventRecord::read(event("{\"v\":1")).is_none());
    }
}
