//! A queue of frames bounded in bytes, between the caller and the task of a stream.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

/// What a queued frame costs beyond its bytes: the allocation's header, the slot and the permit. Charging it
/// keeps millions of one-byte frames within the limit too.
const FRAME_OVERHEAD_BYTES: usize = 128;

/// A queue that holds at most `bytes_max` bytes of frames and their overhead. One frame is always admitted to
/// an empty queue, however large.
pub(crate) fn bounded(bytes_max: usize) -> (QueueSender, QueueReceiver) {
    let slots = bytes_max.div_ceil(FRAME_OVERHEAD_BYTES).max(1);
    let (sender, receiver) = mpsc::channel(slots);
    let budget = Arc::new(Semaphore::new(bytes_max));
    (QueueSender { frames: sender, budget, bytes_max }, QueueReceiver { frames: receiver })
}

/// A frame and its share of the budget, which is returned when this is dropped.
pub(crate) struct Queued {
    pub(crate) frame: Bytes,
    pub(crate) permit: OwnedSemaphorePermit,
}

pub(crate) struct QueueSender {
    frames: mpsc::Sender<Queued>,
    budget: Arc<Semaphore>,
    bytes_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Full,
    Closed,
}

impl QueueSender {
    pub(crate) fn try_push(&self, frame: Bytes) -> Result<(), PushError> {
        if self.frames.is_closed() {
            return Err(PushError::Closed);
        }
        let permit =
            Arc::clone(&self.budget).try_acquire_many_owned(self.cost(&frame)).map_err(
                |error| match error {
                    TryAcquireError::NoPermits => PushError::Full,
                    TryAcquireError::Closed => PushError::Closed,
                },
            )?;
        self.frames.try_send(Queued { frame, permit }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PushError::Full,
            mpsc::error::TrySendError::Closed(_) => PushError::Closed,
        })
    }

    /// Waits for room. Not cancel safe: the frame is lost with the future.
    pub(crate) async fn push(&self, frame: Bytes) -> Result<(), PushError> {
        let permit = Arc::clone(&self.budget)
            .acquire_many_owned(self.cost(&frame))
            .await
            .map_err(|_| PushError::Closed)?;
        self.frames.send(Queued { frame, permit }).await.map_err(|_| PushError::Closed)
    }

    fn cost(&self, frame: &Bytes) -> u32 {
        let bytes = frame.len().saturating_add(FRAME_OVERHEAD_BYTES).min(self.bytes_max);
        u32::try_from(bytes).expect("queue limits are validated to fit 32 bits")
    }
}

pub(crate) struct QueueReceiver {
    pub(crate) frames: mpsc::Receiver<Queued>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    #[test]
    fn a_queue_is_full_by_bytes_and_frees_them_when_frames_leave() {
        let (sender, mut receiver) = bounded(2000);
        assert_eq!(sender.try_push(frame(1000)), Ok(()));
        assert_eq!(sender.try_push(frame(1000)), Err(PushError::Full));
        assert_eq!(sender.try_push(frame(500)), Ok(()));
        drop(receiver.frames.try_recv());
        assert_eq!(sender.try_push(frame(1000)), Ok(()));
    }

    #[test]
    fn one_byte_frames_are_bounded_by_their_overhead() {
        let (sender, _receiver) = bounded(128 * 1024);
        let taken = (0..).take_while(|_| sender.try_push(frame(1)).is_ok()).count();
        assert!((1000..=1024).contains(&taken), "{taken} frames taken");
    }

    #[test]
    fn a_frame_larger_than_the_queue_passes_when_it_is_alone() {
        let (sender, mut receiver) = bounded(100);
        assert_eq!(sender.try_push(frame(5000)), Ok(()));
        assert_eq!(sender.try_push(frame(1)), Err(PushError::Full));
        assert_eq!(receiver.frames.try_recv().map(|queued| queued.frame.len()).ok(), Some(5000));
        assert_eq!(sender.try_push(frame(1)), Ok(()));
    }

    #[tokio::test]
    async fn a_waiting_push_ends_when_the_receiver_goes() {
        let (sender, receiver) = bounded(200);
        assert_eq!(sender.try_push(frame(200)), Ok(()));
        let (pushed, ()) = tokio::join!(sender.push(frame(200)), async { drop(receiver) });
        assert_eq!(pushed, Err(PushError::Closed));
        assert_eq!(sender.try_push(frame(1)), Err(PushError::Closed));
    }
}
