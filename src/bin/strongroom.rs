//! The command line; everything is in `strongroom::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    strongroom::cli::main()
}
