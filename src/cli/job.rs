//! `strongroom job`: long work on all of a tenant's sessions, which the server does and goes on with after a restart.
//!
//! Whoever watches a job only looks: when the watch is broken off, the job goes on. Rates and times come from the server's
//! own times, never from the clock here.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use super::failure::Failure;
use super::invocation::Invocation;
use super::output::{Console, Record, Time, optional_cell};
use crate::client::{Admin, ErrorReason, Job, JobKind, JobState, JobWatch, KekUse};
use crate::model::limits::JOB_RATE_MAX;

/// How often a plain line is printed while a job is watched without a terminal.
const LINE: Duration = Duration::from_secs(5);

/// What can be done with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Start a job
    ///
    /// A tenant has at most one of a kind that works. The server counts the sessions first, which takes a while with
    /// many of them.
    Start(StartArgs),
    /// List the tenant's latest job of each kind
    List,
    /// Show the tenant's latest job of a kind, and how far it is
    Status(KindArgs),
    /// Watch a job to its end
    ///
    /// Shows how far it is on standard error, and the job as it ended on standard output. To break this off does not end the
    /// job. The exit code is 1 when a rewrap or reencrypt met sessions that do not open, and 5 when a scrub found records that do
    /// not. Sessions under a version that is disabled or destroyed are no failure of a scrub: it counts them apart, as closed.
    Watch(KindArgs),
    /// End a job where it is
    ///
    /// What it did stays done. One that has ended is left as it is.
    Cancel(KindArgs),
}

/// What a job does, as it is named on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Wrap the keys of all sessions anew under the primary version; no data is touched
    Rewrap,
    /// Open every record and count those that do not open; nothing is changed
    Scrub,
    /// Make new keys for all sessions and seal everything in them anew
    Reencrypt,
}

impl From<Kind> for JobKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Rewrap => Self::Rewrap,
            Kind::Scrub => Self::Scrub,
            Kind::Reencrypt => Self::Reencrypt,
        }
    }
}

/// Arguments of the verbs that take a kind and nothing else.
#[derive(Debug, Args)]
pub struct KindArgs {
    /// What the job does
    #[arg(value_enum)]
    kind: Kind,
}

/// Arguments of `job start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    which: KindArgs,
    /// Most sessions a second; as many as traffic leaves room for if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(JOB_RATE_MAX)))]
    rate: Option<u32>,
    /// Watch it to its end, as 'job watch' does
    #[arg(long)]
    watch: bool,
}

impl JobCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let jobs = Jobs::new(invocation)?;
        match self {
            Self::Start(args) => jobs.start(&args, invocation).await,
            Self::List => jobs.list(invocation).await,
            Self::Status(args) => jobs.status(args.kind.into(), invocation).await,
            Self::Watch(args) => jobs.watch(args.kind.into(), invocation).await,
            Self::Cancel(args) => jobs.cancel(args.kind.into(), invocation).await,
        }
    }
}

/// The jobs of one tenant.
struct Jobs {
    admin: Admin,
    /// For what the server walks through all sessions for.
    patient: Admin,
    tenant: String,
}

impl Jobs {
    fn new(invocation: &Invocation) -> Result<Self, Failure> {
        let tenant = invocation.tenant_name(&invocation.profile()?)?.into_string();
        Ok(Self { admin: invocation.admin()?, patient: invocation.patient_admin()?, tenant })
    }

    async fn start(&self, args: &StartArgs, invocation: &mut Invocation) -> Result<(), Failure> {
        let kind = JobKind::from(args.which.kind);
        let started = self.patient.start_job(&self.tenant, kind, args.rate).await;
        let job = started.map_err(|error| match error.reason() == ErrorReason::AlreadyExists {
            true => Failure::JobWorks { kind, tenant: self.tenant.clone() },
            false => Failure::call("start the job")(error),
        })?;
        if args.watch {
            return self.watch(kind, invocation).await;
        }
        invocation.console.record(&JobRecord::from(&*job))?;
        invocation.console.say(format_args!("See how far it is: {}", self.command("watch", kind)))
    }

    async fn list(&self, invocation: &mut Invocation) -> Result<(), Failure> {
        let jobs = self.admin.jobs(&self.tenant).await.map_err(Failure::call("list the jobs"))?;
        let mut listing = invocation.console.listing();
        for job in jobs.iter() {
            listing.push(&JobRow(JobRecord::from(job)))?;
        }
        listing.finish()
    }

    async fn status(&self, kind: JobKind, invocation: &mut Invocation) -> Result<(), Failure> {
        let job = self.admin.job(&self.tenant, kind).await.map_err(Failure::call("show the job"))?;
        invocation.console.record(&JobRecord::from(&*job))
    }

    async fn cancel(&self, kind: JobKind, invocation: &mut Invocation) -> Result<(), Failure> {
        let job = self.patient.cancel_job(&self.tenant, kind).await;
        let job = job.map_err(Failure::call("cancel the job"))?;
        invocation.console.record(&JobRecord::from(&*job))
    }

    async fn watch(&self, kind: JobKind, invocation: &mut Invocation) -> Result<(), Failure> {
        let watch = JobWatch { patience: invocation.global().timeout(), ..JobWatch::default() };
        let mut answers = self.admin.watch_job(&self.tenant, kind, watch);
        let mut progress = Progress::new(kind, invocation.global().quiet);
        let mut ended = None;
        while let Some(job) = answers.next().await {
            let job = job.map_err(Failure::call("watch the job"))?;
            if job.state == JobState::Running {
                progress.show(&job, &mut invocation.console)?;
            }
            ended = Some(job);
        }
        drop(progress);
        let job = ended.ok_or(Failure::Malformed("job"))?;
        invocation.console.record(&JobRecord::from(&job))?;
        if job.state == JobState::Cancelled {
            invocation.console.say("It was cancelled before it came to the end.")?;
        }
        match job.failed {
            0 => Ok(()),
            failed => Err(Failure::JobFailures { kind: job.kind, failed }),
        }
    }

    fn command(&self, verb: &str, kind: JobKind) -> String {
        format!("strongroom job {verb} {} --tenant {}", kind.name(), self.tenant)
    }
}

/// How far a watched job is: a bar on a terminal, plain lines elsewhere.
struct Progress {
    bar: ProgressBar,
    next_line: Option<Instant>,
}

impl Progress {
    fn new(kind: JobKind, quiet: bool) -> Self {
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        };
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}%  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar: bar.with_prefix(kind.name()), next_line: None }
    }

    fn show(&mut self, job: &Job, console: &mut Console) -> Result<(), Failure> {
        let text = progress_text(job);
        if !self.bar.is_hidden() {
            self.bar.set_length(job.sessions_total.max(job.sessions_seen));
            self.bar.set_position(job.sessions_seen);
            self.bar.set_message(text);
            return Ok(());
        }
        let now = Instant::now();
        if self.next_line.is_none_or(|due| now >= due) {
            self.next_line = Some(now + LINE);
            console.say(format_args!("{}: {text}", job.kind.name()))?;
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// For example `100 of 300 sessions, 25/s, 8s left, 2 failed`.
fn progress_text(job: &Job) -> String {
    let mut text = format!("{} of {} sessions", job.sessions_seen, job.sessions_total);
    if let Some(rate) = job.sessions_per_second() {
        text.push_str(&format!(", {rate:.0}/s"));
    }
    if let Some(left) = job.time_left() {
        text.push_str(&format!(", {} left", whole_seconds(left)));
    }
    if job.failed > 0 {
        text.push_str(&format!(", {} failed", job.failed));
    }
    if job.sessions_closed > 0 {
        text.push_str(&format!(", {} closed", job.sessions_closed));
    }
    text
}

/// A span for people: seconds, rounded up so that what is not over is never none.
fn whole_seconds(span: Duration) -> String {
    let seconds = span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0));
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// A job as it is printed.
#[derive(Serialize)]
struct JobRecord {
    uid: String,
    kind: &'static str,
    state: &'static str,
    started: Time,
    updated: Time,
    ended: Option<Time>,
    elapsed_seconds: f64,
    rate_limit: Option<u32>,
    sessions_total: u64,
    sessions_seen: u64,
    sessions_per_second: Option<f64>,
    seconds_left: Option<f64>,
    done: u64,
    failed: u64,
    failed_sessions: Vec<String>,
    sessions_closed: u64,
    before: Vec<UseRecord>,
    after: Vec<UseRecord>,
}

/// What a version wraps, as it is printed.
#[derive(Serialize)]
struct UseRecord {
    version: u32,
    sessions: u64,
}

impl From<&Job> for JobRecord {
    fn from(job: &Job) -> Self {
        Self {
            uid: job.uid.clone(),
            kind: job.kind.name(),
            state: job.state.name(),
            started: Time(job.create_time),
            updated: Time(job.update_time),
            ended: job.end_time.map(Time),
            elapsed_seconds: job.elapsed().as_secs_f64(),
            rate_limit: job.rate,
            sessions_total: job.sessions_total,
            sessions_seen: job.sessions_seen,
            sessions_per_second: job.sessions_per_second().map(|rate| (rate * 10.0).round() / 10.0),
            seconds_left: job.time_left().map(|left| left.as_secs_f64()),
            done: job.done,
            failed: job.failed,
            failed_sessions: job.failed_sessions.clone(),
            sessions_closed: job.sessions_closed,
            before: use_records(&job.before),
            after: use_records(&job.after),
        }
    }
}

fn use_records(uses: &[KekUse]) -> Vec<UseRecord> {
    uses.iter().map(|of| UseRecord { version: of.version, sessions: of.sessions }).collect()
}

impl JobRecord {
    fn progress_cell(&self) -> String {
        format!("{} of {}", self.sessions_seen, self.sessions_total)
    }

    fn rate_cell(&self) -> String {
        optional_cell(self.sessions_per_second.map(|rate| format!("{rate:.1}/s")))
    }

    fn left_cell(&self) -> String {
        optional_cell(self.seconds_left.map(Duration::from_secs_f64).map(whole_seconds))
    }

    fn elapsed_cell(&self) -> String {
        whole_seconds(Duration::from_secs_f64(self.elapsed_seconds))
    }
}

/// For example `version 1: 300, version 2: 0`; `-` when nothing was counted.
fn census_cell(uses: &[UseRecord]) -> String {
    let each = uses.iter().map(|of| format!("version {}: {}", of.version, of.sessions));
    let cell = each.collect::<Vec<_>>().join(", ");
    optional_cell(Some(cell).filter(|cell| !cell.is_empty()))
}

impl Record for JobRecord {
    const COLUMNS: &'static [&'static str] = &[
        "KIND",
        "STATE",
        "SESSIONS",
        "DONE",
        "FAILED",
        "FAILED SESSIONS",
        "CLOSED SESSIONS",
        "RATE",
        "RATE LIMIT",
        "LEFT",
        "ELAPSED",
        "STARTED",
        "UPDATED",
        "ENDED",
        "BEFORE",
        "AFTER",
        "UID",
    ];

    fn cells(&self) -> Vec<String> {
        let failed = Some(self.failed_sessions.join(" ")).filter(|names| !names.is_empty());
        vec![
            self.kind.to_owned(),
            self.state.to_owned(),
            self.progress_cell(),
            self.done.to_string(),
            self.failed.to_string(),
            optional_cell(failed),
            self.sessions_closed.to_string(),
            self.rate_cell(),
            optional_cell(self.rate_limit.map(|limit| format!("{limit}/s"))),
            self.left_cell(),
            self.elapsed_cell(),
            self.started.to_string(),
            self.updated.to_string(),
            optional_cell(self.ended),
            census_cell(&self.before),
            census_cell(&self.after),
            self.uid.clone(),
        ]
    }
}

/// A job as a row of a listing: the same facts as JSON, fewer as a table.
#[derive(Serialize)]
#[serde(transparent)]
struct JobRow(JobRecord);

impl Record for JobRow {
    const COLUMNS: &'static [&'static str] =
        &["KIND", "STATE", "SESSIONS", "DONE", "FAILED", "RATE", "LEFT", "ELAPSED", "STARTED"];

    fn cells(&self) -> Vec<String> {
        let job = &self.0;
        vec![
            job.kind.to_owned(),
            job.state.to_owned(),
            job.progress_cell(),
            job.done.to_string(),
            job.failed.to_string(),
            job.rate_cell(),
            job.left_cell(),
            job.elapsed_cell(),
            job.started.to_string(),
        ]
    }
}
