//! `strongroom policy`: what is sensitive, and what is done with it.

mod score;

use clap::Subcommand;

use super::failure::Failure;
use super::invocation::Invocation;

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Measure the built-in rules on a labelled file, without asking the server
    ///
    /// The file has JSON lines of one of two kinds: {"text", "spans": [{"type", "start", "end"}]} with offsets in characters, or
    /// {"text", "secret": true|false} with an optional "rule". A span counts as found when rules for its type cover all of it; a
    /// find counts as wrong when it touches no span of its type. A text with a secret counts as found when a rule for credentials
    /// finds anything in it. Texts are never printed.
    Score(score::ScoreArgs),
}

impl PolicyCommand {
    /// Does what it says.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run(self, invocation: &mut Invocation) -> Result<(), Failure> {
        match self {
            Self::Score(args) => args.run(invocation),
        }
    }
}
