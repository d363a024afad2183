//! The sending half: a bounded queue and a writer task for each class.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::config::TransportConfig;
use crate::connection::{Lifeline, Link};
use crate::error::SendError;
use crate::frame::{Batch, Class};
use crate::queue::{PushError, QueueReceiver, QueueSender, Queued, bounded};

/// Bytes after which a batch is written, however many frames are still queued: enough for a full burst of
/// packets, little enough to leave the queue's budget to the caller.
const BATCH_BYTES: usize = 64 * 1024;

/// Takes frames without ever waiting. Each class has a queue, a task and a QUIC stream of its own; frames of
/// one class stay in order, frames of different classes overtake each other.
pub struct FrameSender {
    frame_bytes_max: usize,
    queues: [QueueSender; 3],
    writers: [JoinHandle<Result<(), SendError>>; 3],
    _lifeline: Arc<Lifeline>,
}

impl FrameSender {
    pub(crate) fn start(link: &Arc<Link>, lifeline: Arc<Lifeline>, config: &TransportConfig) -> FrameSender {
        let channels = Class::ALL.map(|class| {
            let (queue, frames) = bounded(config.queue_bytes);
            (queue, tokio::spawn(write_stream(Arc::clone(link), class, frames)))
        });
        let [(control, control_writer), (live, live_writer), (catch_up, catch_up_writer)] = channels;
        FrameSender {
            frame_bytes_max: config.frame_bytes_max,
            queues: [control, live, catch_up],
            writers: [control_writer, live_writer, catch_up_writer],
            _lifeline: lifeline,
        }
    }

    /// Queues a frame, in O(1). Small frames queued together leave in one QUIC write.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when `queue_bytes` of this class wait for a peer that does not read (a frame counts
    /// 128 bytes more than its length); [`SendError::Closed`], [`SendError::TooLarge`], [`SendError::Empty`].
    /// The frame is not queued then, and the sender remains usable unless it is closed.
    pub fn try_send(&mut self, class: Class, frame: Bytes) -> Result<(), SendError> {
        if frame.is_empty() {
            return Err(SendError::Empty);
        }
        if frame.len() > self.frame_bytes_max {
            return Err(SendError::TooLarge);
        }
        self.queues[class.index()].try_push(frame).map_err(|error| match error {
            PushError::Full => SendError::Full,
            PushError::Closed => SendError::Closed,
        })
    }

    /// Sends what is queued, ends the streams and waits until the peer's QUIC has acknowledged everything. It
    /// waits as long as the peer takes: combine it with a timeout. Cancelling it leaves the writers at work.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] when the connection ended first; frames may be lost then.
    pub async fn finish(self) -> Result<(), SendError> {
        let FrameSender { queues, writers, _lifeline, .. } = self;
        drop(queues);
        for writer in writers {
            // A writer is never aborted and does not panic; a runtime that shuts down takes it along.
            writer.await.map_err(|_| SendError::Closed)??;
        }
        Ok(())
    }
}

impl fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender").finish_non_exhaustive()
    }
}

/// Writes the frames of one class until the queue is dropped or the connection ends.
async fn write_stream(link: Arc<Link>, class: Class, mut queue: QueueReceiver) -> Result<(), SendError> {
    let mut stream = link.quic.open_uni().await.map_err(|_| SendError::Closed)?;
    stream.set_priority(class.priority()).map_err(|_| SendError::Closed)?;
    // The tag goes out at once: a listener's first stream tells the dialer that its key was accepted.
    write(&mut stream, Batch::opening(class)).await?;
    while let Some(first) = queue.frames.recv().await {
        let (batch, budget) = gather(&link, class, first, &mut queue);
        write(&mut stream, batch).await?;
        // Only here are the frames off the queue's budget and on that of QUIC's send window.
        drop(budget);
    }
    stream.finish().map_err(|_| SendError::Closed)?;
    match stream.stopped().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) | Err(_) => Err(SendError::Closed),
    }
}

/// Encodes `first` and what is queued behind it, up to [`BATCH_BYTES`].
fn gather(
    link: &Link,
    class: Class,
    first: Queued,
    queue: &mut QueueReceiver,
) -> (Batch, OwnedSemaphorePermit) {
    let Queued { frame, permit: mut budget } = first;
    let mut batch = Batch::default();
    link.counters.count_sent(class, frame.len());
    batch.push(frame);
    while batch.bytes() < BATCH_BYTES
        && let Ok(Queued { frame, permit }) = queue.frames.try_recv()
    {
        link.counters.count_sent(class, frame.len());
        batch.push(frame);
        budget.merge(permit);
    }
    (batch, budget)
}

async fn write(stream: &mut quinn::SendStream, batch: Batch) -> Result<(), SendError> {
    stream.write_all_chunks(&mut batch.into_chunks()).await.map_err(|_| SendError::Closed)
}
