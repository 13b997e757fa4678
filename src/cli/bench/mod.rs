//! `strongroom bench`: a load generator, and a replay of recorded sessions that verifies every byte.
//!
//! It is a client like any other and needs the same profile. It promises that latencies of an open loop count from the
//! intended start, that failed operations are counted and never enter the latencies, and that nothing that was stored is
//! printed. It shares the machine with a server under test as often as not, so it uses few connections and one thread
//! unless told otherwise, and says how busy it was itself.

mod load;
mod manifest;
mod measure;
mod pace;
mod progress;
mod random;
mod recording;
mod replay;
mod report;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use super::args::{self, ArgumentError, Rate, ViewArg};
use super::failure::{self, Exit, Failure};
use super::invocation::Invocation;
use crate::client::{ClientError, ErrorReason, Strongroom, Tenant};
use crate::model::limits::{EVENT_BYTES, VALUE_BYTES_CEILING};
use manifest::ManifestError;
use measure::Operation;
use pace::Extent;
use recording::RecordingError;
use verify::Difference;

/// Calls that one connection carries before another one is opened, unless configured.
const CALLS_PER_CONNECTION: usize = 64;
/// Pause of a worker that could not reach the server, so that it does not spin while the server is away.
const PAUSE_WHEN_UNREACHABLE: Duration = Duration::from_millis(50);

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["workload", "replay", "verify_only"]))]
pub struct BenchArgs {
    /// What to do
    #[arg(value_enum)]
    workload: Option<Workload>,
    /// Size of a value or an event
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = args::size)]
    size: usize,
    /// Operations in flight at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count_up_to::<4096>)]
    concurrency: usize,
    /// Connections that they share; one for every 64 in flight if not given
    #[arg(long, value_name = "N", value_parser = count_up_to::<64>)]
    connections: Option<usize>,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = args::duration)]
    duration: Duration,
    /// How many operations to measure, instead of for how long
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    operations: Option<u64>,
    /// How long to run before measuring begins
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = args::duration_or_zero)]
    warm_up: Duration,
    /// Open loop: begin so many operations a second
    #[arg(long, value_name = "N/s", value_parser = args::rate)]
    rate: Option<Rate>,
    /// Sessions to use
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count_up_to::<100_000>)]
    sessions: usize,
    /// Entries in each session
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count_up_to::<100_000>)]
    entries: usize,
    /// Shares of the workload 'mixed'
    #[arg(long, value_name = "READS:WRITES:APPENDS", default_value = "75:20:5", value_parser = mix)]
    mix: Mix,
    /// Which view to read
    #[arg(long, value_enum, default_value = "redacted")]
    view: ViewArg,
    /// Repeat the choices of an earlier run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads of this client
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count_up_to::<64>)]
    threads: usize,
    /// Leave the sessions in place at the end
    #[arg(long)]
    keep: bool,
    /// Replay the sessions recorded in this file, and verify them
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where a replay writes down what it stored, to be verified again; its sessions are then kept
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    manifest: Option<PathBuf>,
    /// Verify what an earlier replay stored, as its --manifest says
    #[arg(long, requires = "manifest")]
    verify_only: bool,
}

/// The workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Read entries
    Read,
    /// Put entries
    Write,
    /// Append events
    Append,
    /// All three, in the shares of --mix
    Mixed,
}

impl Workload {
    /// Its name on the command line.
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Append => "append",
            Self::Mixed => "mixed",
        }
    }
}

/// Shares of the three operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    reads: u16,
    writes: u16,
    appends: u16,
}

impl Mix {
    /// The operation that `number` (any) falls on.
    const fn operation(self, number: u64) -> Operation {
        let total = self.reads as u64 + self.writes as u64 + self.appends as u64;
        let at = number % total;
        if at < self.reads as u64 {
            Operation::Read
        } else if at < self.reads as u64 + self.writes as u64 {
            Operation::Write
        } else {
            Operation::Append
        }
    }
}

/// Why a load or a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The file to replay is not right.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A call failed that everything else depends on.
    #[error("cannot {doing} session {session}: {source}")]
    Call {
        /// What was being done, as a verb with its preposition.
        doing: &'static str,
        /// The session's handle, or its name in the recording.
        session: String,
        /// What came back.
        source: ClientError,
    },
    /// What was read back is not what was stored.
    #[error("{first}; {sessions} of {of} sessions differ")]
    Different {
        /// The first difference.
        first: Box<Difference>,
        /// How many sessions have one.
        sessions: usize,
        /// How many there are.
        of: usize,
    },
    /// Some operations failed; the report says why.
    #[error("{failed} operations failed, most often with {reason}")]
    OperationsFailed {
        /// How many.
        failed: u64,
        /// The most frequent reason.
        reason: String,
    },
    /// It was interrupted before it was finished.
    #[error("interrupted before it was finished")]
    Interrupted,
    /// A task of this client ended unexpectedly.
    #[error("a worker of the load generator ended unexpectedly")]
    Worker,
    /// A histogram could not be made.
    #[error("a histogram could not be made: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

impl BenchError {
    /// What the process returns.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Recording(_) | Self::Manifest(_) => Exit::Usage,
            Self::Call { source, .. } => failure::exit_of(source),
            Self::Different { .. }
            | Self::OperationsFailed { .. }
            | Self::Interrupted
            | Self::Worker
            | Self::Histogram(_) => Exit::Failed,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Call { source, .. } => failure::hint_of(source),
            Self::Different { .. } => Some(
                "keep the store's files as they are; --manifest and --verify-only repeat the comparison"
                    .to_owned(),
            ),
            Self::Recording(RecordingError::Line { .. }) => {
                Some("each line must be {\"session\": NAME, \"messages\": [MESSAGE, ...]}".to_owned())
            }
            Self::Manifest(ManifestError::Format { .. }) => {
                Some("--manifest takes the file that an earlier --replay wrote".to_owned())
            }
            Self::Recording(_)
            | Self::Manifest(_)
            | Self::OperationsFailed { .. }
            | Self::Interrupted
            | Self::Worker
            | Self::Histogram(_) => None,
        }
    }
}

impl BenchArgs {
    /// Runs it on a runtime of its own.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        let mut runtime = match self.threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = runtime.worker_threads(self.threads).enable_all().build().map_err(Failure::Start)?;
        runtime.block_on(Box::pin(self.perform(invocation)))
    }

    async fn perform(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match (self.workload, &self.replay) {
            (Some(workload), _) => {
                self.check_size(workload)?;
                load::run(&self, workload, invocation).await
            }
            (None, Some(path)) => {
                replay::run(&self, recording::read(path).map_err(BenchError::from)?, invocation).await
            }
            (None, None) => verify::run(&self, invocation).await,
        }
    }

    fn check_size(&self, workload: Workload) -> Result<(), Failure> {
        let (what, most) = match workload {
            Workload::Append | Workload::Mixed => ("--size of an event", EVENT_BYTES),
            Workload::Read | Workload::Write => ("--size of a value", VALUE_BYTES_CEILING),
        };
        if self.size > most { Err(Failure::TooLarge { what, most }) } else { Ok(()) }
    }

    /// A client with as many connections as were asked for, and the tenant to work in.
    fn client(&self, invocation: &Invocation, named: Option<&str>) -> Result<(Strongroom, Tenant), Failure> {
        let profile = invocation.profile()?;
        let name = match named {
            Some(name) => name.to_owned(),
            None => invocation.tenant_name(&profile)?.into_string(),
        };
        let client = invocation.data_client(&profile, self.connections())?;
        let tenant = client.tenant(&name).map_err(Failure::call("use the tenant"))?;
        Ok((client, tenant))
    }

    fn connections(&self) -> usize {
        self.connections.unwrap_or_else(|| self.concurrency.div_ceil(CALLS_PER_CONNECTION))
    }

    fn extent(&self) -> Extent {
        self.operations.map_or(Extent::For(self.duration), Extent::Times)
    }
}

/// Takes a count from 1 to `MOST`.
fn count_up_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("expected a number from 1 to {MOST}"))
}

/// Takes three shares, not all of them zero.
fn mix(text: &str) -> Result<Mix, ArgumentError> {
    let shares: Vec<u16> =
        text.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| ArgumentError::Mix)?;
    match shares[..] {
        [0, 0, 0] => Err(ArgumentError::Mix),
        [reads, writes, appends] => Ok(Mix { reads, writes, appends }),
        _ => Err(ArgumentError::Mix),
    }
}

/// The reason of an error as it is counted: the server's, else the code.
fn reason_of(error: &ClientError) -> String {
    if error.reason() == ErrorReason::Unspecified {
        return format!("{:?}", error.code());
    }
    error.reason().as_str_name().trim_start_matches("ERROR_REASON_").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_falls_on_each_operation_by_its_share() {
        let shares = mix("75:20:5").unwrap();
        let count = |operation| (0..100).filter(|number| shares.operation(*number) == operation).count();
        assert_eq!(Operation::ALL.map(count), [75, 20, 5]);
        let appends = mix("0:0:1").unwrap();
        assert!((0..100).all(|number| appends.operation(number) == Operation::Append));
        for wrong in ["", "1", "1:2", "0:0:0", "1:2:3:4", "a:b:c", "-1:1:1", "65536:0:0"] {
            assert_eq!(mix(wrong), Err(ArgumentError::Mix), "{wrong}");
        }
    }

    #[test]
    fn counts_have_bounds() {
        assert_eq!(count_up_to::<64>("64"), Ok(64));
        for wrong in ["0", "65", "-1", "", "x"] {
            assert!(count_up_to::<64>(wrong).is_err(), "{wrong}");
        }
    }
}
