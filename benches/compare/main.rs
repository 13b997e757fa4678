//! Whole processes compared, in turn and in one run, so that the ratio holds when the machine's speed drifts.
//!
//! ```text
//! cargo bench --bench compare -- reads     ReadEntry of 1 KiB, audit durable, against the same message from a bare tonic server
//! cargo bench --bench compare -- puts      durable PutEntry of 1 KiB against append + fdatasync with the same batch sizes
//! cargo bench --bench compare -- growth    disk, memory, start-up and sweep at 10⁵ entries (ENTRIES=1000000 for 10⁶)
//! ```
//!
//! The servers are processes of their own; the client is this one, with the same code for both.

#![expect(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench measures real time, and its figures have less than 52 bits"
)]

mod echo;
mod growth;
mod load;
mod puts;
mod reads;
mod servers;

use std::process::ExitCode;

/// What goes wrong here is shown and ends the run.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let what = arguments.next().unwrap_or_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = runtime.block_on(async {
        match what.as_str() {
            "echo-server" => echo::serve(arguments.next().unwrap_or_default().as_ref()).await,
            "reads" => reads::run().await,
            "puts" => puts::run().await,
            "growth" => growth::run().await,
            // `cargo bench` and `cargo test --benches` run every bench: say what there is, and do no harm.
            _ => {
                println!("say what to compare: reads, puts or growth");
                Ok(())
            }
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error),
    }
}

fn fail(error: &(dyn std::error::Error + Send + Sync)) -> ExitCode {
    eprintln!("compare: {error}");
    ExitCode::FAILURE
}

/// Minimum, median and maximum.
fn spread(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    let at = |n: usize| figures.get(n).copied().unwrap_or(f64::NAN);
    (at(0), at(figures.len() / 2), at(figures.len().saturating_sub(1)))
}
