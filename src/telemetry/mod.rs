//! What the process says about itself: log lines and figures.
//!
//! # What may be logged
//! Ids, sizes, counts, durations, reasons that are enums, and errors of this crate. Never a value, a name that a caller
//! chose, a token, a key, a certificate's content, an address of a person. `#[instrument(skip_all, fields(…))]`, never bare.
//! Types that hold content have a `Debug` without it, so that a slip shows a length at most.
//! Lines of other crates below `info` are dropped whatever the filter says: the HTTP/2 and TLS stacks print headers there.
//! A panic is logged with its place; its message only when that is a literal of the source.
//!
//! # Levels
//! | level | meaning |
//! |---|---|
//! | `error` | a person must look: data that does not open, a store that cannot be written, a panic |
//! | `warn` | it goes on, but not as configured: memory not locked, a certificate about to end, a clock that jumped |
//! | `info` | what happens a few times a day: start, stop, reload, rotation |
//! | `debug` | one line a request at most |
//! | `trace` | anything more often |
//!
//! An error is logged once, where it is handled. What this module does not do: it exports nothing over the network and
//! reads no environment; `RUST_LOG` has no effect.

pub mod metrics;
mod registry;

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::{Log, LogFormat};

pub use registry::{CopiedHistogram, Counter, Gauge, Histogram};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is none. A loaded configuration was checked for that.
    #[error("the log filter is not valid")]
    Filter,
    /// A subscriber was installed before.
    #[error("logging was set up before")]
    Installed,
}

/// Sends log lines to stderr for the rest of the process's life, and panics with them.
///
/// # Errors
/// [`TelemetryError`] when the filter is not valid or logging was set up before.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let subscriber = subscriber(log, std::io::stderr, std::io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Installed)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn subscriber<W>(log: &Log, writer: W, colours: bool) -> Result<impl Subscriber, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&log.level).map_err(|_| TelemetryError::Filter)?;
    let lines = match log.format {
        LogFormat::Text => fmt::layer().with_writer(writer).with_ansi(colours).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    Ok(Registry::default().with(lines).with(filter).with(filter_fn(is_ours_or_coarse)))
}

/// Whether a line is of this crate, or at least `info`.
fn is_ours_or_coarse(line: &Metadata<'_>) -> bool {
    let target = line.target();
    let ours = target.strip_prefix("strongroom").is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    // The binary's own target.
    ours || target.starts_with("strongroomd") || *line.level() <= Level::INFO
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    tracing::error!(place, thread, message_of_panic = literal(panic), "panic");
}

/// A message that was formatted may hold content; one that is a literal cannot.
fn literal<'p>(panic: &'p PanicHookInfo<'_>) -> &'p str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(withheld)")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { format, level: level.to_owned() };
        let subscriber = subscriber(&log, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        lines.text()
    }

    #[test]
    fn lines_of_other_crates_below_info_are_dropped_whatever_the_filter_says() {
        let text = logged(LogFormat::Text, "trace,h2=trace", || {
            tracing::trace!(target: "h2::codec", "a frame");
            tracing::debug!(target: "strongroomish", "a stranger");
            tracing::info!(target: "h2::codec", "a notice");
            tracing::trace!(target: "strongroom::commit", "a group");
            tracing::debug!(target: "strongroomd", "a start");
        });
        assert!(!text.contains("a frame") && !text.contains("a stranger"), "{text}");
        assert!(text.contains("a notice") && text.contains("a group") && text.contains("a start"), "{text}");
    }

    #[test]
    fn the_filter_decides_about_our_own_lines() {
        let text = logged(LogFormat::Text, "warn,strongroom::commit=debug", || {
            tracing::info!(target: "strongroom::api", "quiet");
            tracing::debug!(target: "strongroom::commit", "loud");
        });
        assert!(!text.contains("quiet") && text.contains("loud"), "{text}");
    }

    #[test]
    fn json_lines_are_objects_with_flat_fields() {
        let text =
            logged(LogFormat::Json, "info", || tracing::info!(target: "strongroom", bytes = 7, "sealed"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((line["message"].as_str(), line["bytes"].as_u64()), (Some("sealed"), Some(7)));
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let log = Log { format: LogFormat::Text, level: "info,==".to_owned() };
        assert!(matches!(subscriber(&log, std::io::stderr, false).err(), Some(TelemetryError::Filter)));
    }

    #[test]
    fn a_panic_shows_its_place_and_no_formatted_message() {
        let text = logged(LogFormat::Text, "info", || {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let formatted = std::panic::catch_unwind(|| panic!("hunter{}", std::hint::black_box(2)));
            let literal = std::panic::catch_unwind(|| panic!("the queue is gone"));
            std::panic::set_hook(before);
            assert!(formatted.is_err() && literal.is_err());
        });
        assert!(!text.contains("hunter2") && text.contains("(withheld)"), "{text}");
        assert!(text.contains("the queue is gone") && text.contains("telemetry/mod.rs:"), "{text}");
    }
}
