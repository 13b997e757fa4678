//! An allocator that looks into every block on its way back.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Bytes of a secret that are looked for.
pub const SECRET: usize = 16;
/// Most secrets that can be planted.
const SECRETS: usize = 64;
/// What a planted secret is mixed with, so that the list of secrets is not itself a place where they stand.
const MASK: u8 = 0xa5;

static PLANTED: AtomicUsize = AtomicUsize::new(0);
static MASKED: [[AtomicU8; SECRET]; SECRETS] = [const { [const { AtomicU8::new(0) }; SECRET] }; SECRETS];

/// Has all allocators look for these bytes from now on; the first [`SECRET`] of them count.
pub fn plant(secret: &[u8]) {
    let number = PLANTED.load(Ordering::SeqCst);
    for (place, byte) in MASKED[number].iter().zip(&secret[..SECRET]) {
        place.store(byte ^ MASK, Ordering::SeqCst);
    }
    PLANTED.store(number + 1, Ordering::SeqCst);
}

/// Counts the blocks in which a planted secret stands when they are given back, and passes them on.
pub struct Inspect<A> {
    next: A,
    found: AtomicUsize,
    seen: AtomicUsize,
}

impl<A> Inspect<A> {
    pub const fn new(next: A) -> Self {
        Self { next, found: AtomicUsize::new(0), seen: AtomicUsize::new(0) }
    }

    /// The allocator that it passes blocks on to.
    pub const fn next(&self) -> &A {
        &self.next
    }

    /// Blocks with a secret, and blocks in all, that were given back.
    pub fn counts(&self) -> (usize, usize) {
        (self.found.load(Ordering::SeqCst), self.seen.load(Ordering::SeqCst))
    }
}

// SAFETY: every call goes on to the next allocator as it came; in between a block is only read, while it is still its giver's.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Inspect<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the next allocator asks for.
        unsafe { self.next.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.next.alloc_zeroed(layout) }
    }

    // Growing in place would move a block without showing it; the default takes a new one, copies, and gives the old one back here.

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the block has this length and is the caller's until it is passed on.
        if unsafe { holds_secret(block, layout.size()) } {
            self.found.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: as above.
        unsafe { self.next.dealloc(block, layout) }
    }
}

/// Whether a planted secret stands in a block.
///
/// # Safety
/// The block must be readable for its whole length. It need not have been written: bytes are read as volatile.
unsafe fn holds_secret(block: *const u8, length: usize) -> bool {
    let planted = PLANTED.load(Ordering::SeqCst).min(SECRETS);
    // SAFETY: only asked below for what lies within the block.
    let byte = |at: usize| unsafe { block.add(at).read_volatile() };
    (0..(length + 1).saturating_sub(SECRET)).any(|start| {
        let first = byte(start) ^ MASK;
        MASKED[..planted].iter().any(|secret| {
            secret[0].load(Ordering::Relaxed) == first
                && (1..SECRET).all(|at| byte(start + at) ^ MASK == secret[at].load(Ordering::Relaxed))
        })
    })
}
