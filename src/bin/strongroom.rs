//! The command line client; everything is in `strongroom::cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes every block when it is freed: what ring, rustls and the HTTP/2 stack leave behind cannot be wiped elsewhere.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    strongroom::cli::main()
}
