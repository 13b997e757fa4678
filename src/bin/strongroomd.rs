//! The server; everything is in `strongroom::server`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes every block when it is freed: keys that ring does not wipe, plaintext in buffers that are not ours.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    strongroom::server::daemon::main()
}
