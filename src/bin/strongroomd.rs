//! The server.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Wipes every block when it is freed: what ring, rustls and the HTTP/2 stack leave behind cannot be wiped elsewhere.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() {}
