//! How much of all requests together is in memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use crate::api::status::status;
use crate::proto::v1::ErrorReason;

/// What a refused caller is told to wait: about what a large request takes.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A number of bytes that all requests share.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    bytes: Arc<Semaphore>,
    limit: usize,
}

/// What one request holds of a [`Memory`], until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    memory: Memory,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(limit)), limit }
    }

    pub(super) fn claim(&self) -> Arc<Claim> {
        Arc::new(Claim { memory: self.clone(), held: Mutex::new(None) })
    }

    fn refusal(&self) -> Status {
        let text = "too many bytes of requests in flight";
        status(Code::ResourceExhausted, ErrorReason::Overloaded, text)
            .metadata("limit_bytes", self.limit.to_string())
            .retry_after(RETRY_AFTER)
            .build()
    }
}

impl Claim {
    /// Adds bytes that have arrived. What was only announced does not count: a peer must send what it wants to occupy.
    ///
    /// # Errors
    /// OVERLOADED when there is no room for them.
    pub(super) fn add(&self, bytes: usize) -> Result<(), Status> {
        let bytes = u32::try_from(bytes).map_err(|_| self.memory.refusal())?;
        let more = Arc::clone(&self.memory.bytes).try_acquire_many_owned(bytes);
        let more = more.map_err(|_| self.memory.refusal())?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    /// Gives back everything.
    pub(super) fn clear(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_share_the_bytes_and_give_them_back() {
        let memory = Memory::new(100);
        let (one, other) = (memory.claim(), memory.claim());
        one.add(40).unwrap();
        one.add(20).unwrap();
        assert_eq!(other.add(41).unwrap_err().code(), Code::ResourceExhausted);
        other.add(40).unwrap();
        drop(one);
        other.add(60).unwrap();
        other.clear();
        memory.claim().add(100).unwrap();
    }
}
