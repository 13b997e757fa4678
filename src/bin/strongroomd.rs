//! The server.

use std::process::ExitCode;

/// Wipes every block when it is freed: keys that ring does not wipe, plaintext in buffers that are not ours.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> =
    zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    strongroom::server::daemon::main()
}
