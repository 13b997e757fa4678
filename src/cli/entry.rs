//! `strongroom entry`: values under names, read and replaced.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde::Serialize;

use super::args::{self, Literal, ViewArg};
use super::destroy::PlanArgs;
use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{self, Record, Time, label_cell, optional_cell};
use super::session;
use crate::client::{Entry, EntryMetadata, Expect, Revision};
use crate::model::limits::VALUE_BYTES_CEILING;

/// What can be done with entries.
#[derive(Debug, Subcommand)]
pub enum EntryCommand {
    /// Create or replace an entry
    ///
    /// The value is read from FILE, or from standard input when FILE is '-' or not given. The server takes at most 4 MiB,
    /// unless its operator allows more.
    Put(PutArgs),
    /// Print the value of an entry, exactly its bytes
    ///
    /// With --output json: its metadata and the value.
    Get(GetArgs),
    /// List the entries of a session without their values, in no particular order
    List(ListArgs),
    /// Delete an entry
    Delete(DeleteArgs),
    /// Print the changes of a session's entries as they happen
    ///
    /// Begins with all entries as they are, then goes on until it is interrupted or the session ends.
    Watch(WatchArgs),
}

/// Arguments of `entry put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The session's handle
    session: String,
    /// The entry's name
    key: String,
    /// File that holds the value; '-' is standard input
    #[arg(default_value = "-", hide_default_value = true)]
    file: PathBuf,
    /// The value itself
    ///
    /// Beware: other users of this machine can see it in the list of processes, and your shell remembers it. Prefer a
    /// file or standard input.
    #[arg(long, value_name = "TEXT", value_parser = OsStringValueParser::new().map(Literal::from), conflicts_with = "file")]
    value: Option<Literal>,
    /// Only if the entry is absent, or has this revision
    #[arg(long, value_name = "absent|REVISION", value_parser = args::expect)]
    expect: Option<Expect>,
    /// How long it lives: 1ms to 400d, and never longer than the session
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// Media type
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// Label (can be repeated)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = args::label)]
    labels: Vec<(String, String)>,
}

/// Arguments of `entry get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The session's handle
    session: String,
    /// The entry's name
    key: String,
    /// Which part of the value
    #[arg(long, value_enum, default_value = "redacted")]
    view: ViewArg,
    /// File to write the value to, with mode 600, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Refuse an answer that is older than this revision
    #[arg(long, value_name = "REVISION", value_parser = args::revision)]
    min_revision: Option<Revision>,
}

/// Arguments of `entry list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The session's handle
    session: String,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// Arguments of `entry delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The session's handle
    session: String,
    /// The entry's name
    key: String,
    /// Only if the entry has this revision
    #[arg(long, value_name = "REVISION", value_parser = args::revision)]
    expect: Option<Revision>,
    /// Print the last value: of all callers exactly one gets it
    #[arg(long = "return")]
    returned: bool,
    /// Which part of the returned value
    #[arg(long, value_enum, default_value = "redacted", requires = "returned")]
    view: ViewArg,
    /// File to write the returned value to, with mode 600, instead of standard output
    #[arg(long, value_name = "FILE", requires = "returned")]
    out: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// Arguments of `entry watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The session's handle
    session: String,
    /// Stop after so long
    #[arg(long = "for", value_name = "DURATION", value_parser = args::duration)]
    span: Option<Duration>,
}

impl EntryCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::Put(args) => args.run(invocation).await,
            Self::Get(args) => args.run(invocation).await,
            Self::List(args) => args.run(invocation).await,
            Self::Delete(args) if args.plan.dry_run => args.say(invocation).await,
            Self::Delete(args) => args.run(invocation).await,
            Self::Watch(args) => args.run(invocation).await,
        }
    }
}

impl PutArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let session = invocation.session(&self.session)?;
        let labels = session::labels(self.labels)?;
        let value = match self.value {
            Some(literal) => Bytes::from(literal.into_bytes()),
            None => read_value(&self.file, invocation, "the value", VALUE_BYTES_CEILING)?,
        };
        let mut put = session.put(self.key, value).content_type(self.content_type);
        if let Some(expect) = self.expect {
            put = put.expect(expect);
        }
        if let Some(ttl) = self.ttl {
            put = put.ttl(ttl);
        }
        for (key, value) in labels {
            put = put.label(key, value);
        }
        let metadata = put.await.map_err(Failure::call("put the entry"))?;
        invocation.console.record(&EntryRecord::from(&*metadata))
    }
}

impl GetArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let mut read = invocation.session(&self.session)?.read(self.key, self.view.into());
        if let Some(revision) = self.min_revision {
            read = read.min_revision(revision);
        }
        let entry = read.await.map_err(Failure::call("read the entry"))?;
        print_entry(&entry, self.out.as_deref(), invocation)
    }
}

impl ListArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let entries = invocation.session(&self.session)?.entries();
        let mut entries = entries.take(self.limit.unwrap_or(usize::MAX));
        let mut listing = invocation.console.listing();
        while let Some(entry) = entries.next().await {
            listing.push(&EntryRecord::from(&entry.map_err(Failure::call("list the entries"))?))?;
        }
        listing.finish()
    }
}

impl DeleteArgs {
    /// Shows the entry that would be lost, without its value.
    async fn say(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let entry = invocation.session(&self.session)?.read(self.key, ViewArg::Redacted.into()).await;
        let entry = entry.map_err(Failure::call("read the entry"))?;
        invocation.console.record(&EntryRecord::from(&entry.metadata))?;
        self.plan.say(&mut invocation.console)
    }

    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let session = invocation.session(&self.session)?;
        invocation.confirm("This deletes the entry, for ever.", &self.key)?;
        let expect = self.expect.map_or(Expect::Any, Expect::Revision);
        if self.returned {
            let taken = session.take(self.key, self.view.into()).expect(expect).await;
            return print_entry(
                &*taken.map_err(Failure::call("take the entry"))?,
                self.out.as_deref(),
                invocation,
            );
        }
        let deleted = session.delete(self.key.as_str()).expect(expect).await;
        let revision = deleted.map_err(Failure::call("delete the entry"))?.get();
        invocation.console.record(&DeletedRecord { key: self.key, revision })
    }
}

impl WatchArgs {
    async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let mut watch = invocation.session(&self.session)?.watch().patience(invocation.global().timeout());
        if let Some(span) = self.span {
            watch = watch.watch_for(span);
        }
        let mut updates = watch.stream();
        let mut stream = invocation.console.stream(&[24]);
        while let Some(update) = updates.next().await {
            let update = update.map_err(Failure::call("watch the session"))?;
            for change in update.changes {
                stream.push(&ChangeRecord {
                    key: change.key,
                    revision: change.revision.get(),
                    deleted: change.deleted,
                    snapshot: update.snapshot,
                })?;
            }
        }
        Ok(())
    }
}

/// Reads what shall be sent from a file, or from standard input for `-`.
pub(super) fn read_value(
    path: &Path,
    invocation: &mut Invocation,
    what: &'static str,
    most: usize,
) -> Result<Bytes, Failure> {
    let bytes = if path == Path::new("-") {
        invocation.console.read_input(most)?
    } else {
        let opened = fs::File::open(path).and_then(|mut file| output::read_bounded(&mut file, most));
        opened.map_err(Failure::file(path, "read"))?
    };
    if bytes.len() > most { Err(Failure::TooLarge { what, most }) } else { Ok(bytes.into()) }
}

/// Prints an entry's value as it is, or all of the entry as JSON; or writes the value to a file.
fn print_entry(entry: &Entry, out: Option<&Path>, invocation: &mut Invocation) -> Result<(), Failure> {
    if let Some(path) = out {
        let file = output::private_file(path, false);
        let written = file.and_then(|mut file| file.write_all(&entry.value));
        written.map_err(Failure::file(path, "written"))?;
        return invocation.console.record(&EntryRecord::from(&entry.metadata));
    }
    if invocation.json() {
        let metadata = EntryRecord::from(&entry.metadata);
        return invocation
            .console
            .record(&FullRecord { metadata, value: output::Content::from(&entry.value) });
    }
    invocation.console.raw(&entry.value)
}

/// An entry's metadata as it is printed.
#[derive(Serialize)]
struct EntryRecord {
    key: String,
    revision: u64,
    size: u64,
    content_type: String,
    created: Time,
    updated: Time,
    expires: Option<Time>,
    labels: BTreeMap<String, String>,
}

impl From<&EntryMetadata> for EntryRecord {
    fn from(metadata: &EntryMetadata) -> Self {
        Self {
            key: metadata.key.clone(),
            revision: metadata.revision.get(),
            size: metadata.size,
            content_type: metadata.content_type.clone(),
            created: Time(metadata.create_time),
            updated: Time(metadata.update_time),
            expires: metadata.expire_time.map(Time),
            labels: metadata.labels.clone(),
        }
    }
}

impl Record for EntryRecord {
    const COLUMNS: &'static [&'static str] =
        &["KEY", "REVISION", "SIZE", "CONTENT TYPE", "CREATED", "UPDATED", "EXPIRES", "LABELS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.key.clone(),
            self.revision.to_string(),
            self.size.to_string(),
            optional_cell(Some(&self.content_type).filter(|text| !text.is_empty())),
            self.created.to_string(),
            self.updated.to_string(),
            optional_cell(self.expires),
            label_cell(self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
        ]
    }
}

/// An entry with its value, in JSON alone.
#[derive(Serialize)]
struct FullRecord {
    #[serde(flatten)]
    metadata: EntryRecord,
    #[serde(flatten)]
    value: output::Content,
}

impl Record for FullRecord {
    const COLUMNS: &'static [&'static str] = EntryRecord::COLUMNS;

    fn cells(&self) -> Vec<String> {
        self.metadata.cells()
    }
}

#[derive(Serialize)]
struct DeletedRecord {
    key: String,
    revision: u64,
}

impl Record for DeletedRecord {
    const COLUMNS: &'static [&'static str] = &["KEY", "REVISION"];

    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.revision.to_string()]
    }
}

/// A change as it is printed.
#[derive(Serialize)]
struct ChangeRecord {
    key: String,
    revision: u64,
    deleted: bool,
    snapshot: bool,
}

impl Record for ChangeRecord {
    const COLUMNS: &'static [&'static str] = &["KEY", "REVISION", "CHANGE"];

    fn cells(&self) -> Vec<String> {
        let change = match (self.deleted, self.snapshot) {
            (true, _) => "deleted",
            (false, true) => "is there",
            (false, false) => "put",
        };
        vec![self.key.clone(), self.revision.to_string(), change.to_owned()]
    }
}
