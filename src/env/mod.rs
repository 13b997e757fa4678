//! The outside world: time and entropy, as traits, so that everything else is reproducible.

mod clock;
mod entropy;

pub use clock::{Clock, ClockJump, SystemClock};
pub use entropy::{Entropy, EntropyError, SystemEntropy};
