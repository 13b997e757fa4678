//! How far a long run is: a bar with rate and time left on a terminal, plain lines elsewhere.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the bar is drawn anew: seldom enough to cost nothing beside the load.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a plain line is printed.
const LINE: Duration = Duration::from_secs(5);

/// What ends the run.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// So many operations.
    Count(u64),
    /// So much time.
    Time(Duration),
}

/// A run's progress. Workers count, a task of its own draws; it ends when this is dropped.
#[derive(Debug)]
pub struct Progress {
    done: Arc<AtomicU64>,
    drawing: Option<JoinHandle<()>>,
    bar: ProgressBar,
}

impl Progress {
    /// Begins to show `what`; must be called within a runtime.
    #[must_use]
    pub fn begin(what: &'static str, goal: Goal, quiet: bool) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let bar = if quiet { ProgressBar::hidden() } else { bar(what, goal) };
        let drawing = (!quiet).then(|| {
            let (done, bar) = (Arc::clone(&done), bar.clone());
            tokio::spawn(draw(what, goal, done, bar))
        });
        Self { done, drawing, bar }
    }

    /// The counter of operations done, for workers.
    #[must_use]
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(drawing) = &self.drawing {
            drawing.abort();
        }
        self.bar.finish_and_clear();
    }
}

fn bar(what: &'static str, goal: Goal) -> ProgressBar {
    let length = match goal {
        Goal::Count(count) => count,
        Goal::Time(span) => millis(span),
    };
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let template = "{prefix} [{bar:30}] {percent:>3}%  {msg}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_prefix(what)
}

async fn draw(what: &'static str, goal: Goal, done: Arc<AtomicU64>, bar: ProgressBar) {
    let begin = Instant::now();
    let hidden = bar.is_hidden();
    let mut ticks = interval(if hidden { LINE } else { REDRAW });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (count, elapsed) = (done.load(Ordering::Relaxed), begin.elapsed());
        let rate = per_second(count, elapsed);
        if hidden {
            plain_line(what, goal, count, elapsed, rate);
        } else {
            bar.set_message(format!("{count} operations, {rate}/s"));
            bar.set_position(match goal {
                Goal::Count(_) => count,
                Goal::Time(_) => millis(elapsed),
            });
        }
    }
}

fn plain_line(what: &str, goal: Goal, count: u64, elapsed: Duration, rate: u64) {
    let seconds = elapsed.as_secs();
    let line = match goal {
        Goal::Count(all) => format!("{what}: {count} of {all} operations after {seconds} s, {rate}/s\n"),
        Goal::Time(span) => {
            format!("{what}: {seconds} of {} s, {count} operations, {rate}/s\n", span.as_secs())
        }
    };
    // Progress that nobody can read is no reason to stop.
    if io::stderr().write_all(line.as_bytes()).is_err() {}
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    count.saturating_mul(1000).checked_div(millis(elapsed)).unwrap_or_default()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
