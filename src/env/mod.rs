//! The outside world: time and entropy, as traits, so that everything else is reproducible; and the process's own defences.

mod clock;
mod entropy;
pub mod process;

pub use clock::{Clock, ClockJump, SystemClock};
pub use entropy::{Entropy, EntropyError, SystemEntropy};
