//! The receiving half: one task accepts the peer's streams, one for each class reads and splits it.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::{ReadError, RecvStream};
use tokio::sync::watch;

use crate::close::CloseCode;
use crate::config::TransportConfig;
use crate::connection::{Lifeline, Link};
use crate::error::RecvError;
use crate::frame::{Class, Deframer};
use crate::queue::{QueueReceiver, QueueSender, bounded};

/// Largest piece taken from QUIC at once, in bytes.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Hands out the frames of all classes. A caller that does not receive holds the peer back, class by class.
pub struct FrameReceiver {
    queues: [QueueReceiver; 3],
    link: Arc<Link>,
    _lifeline: Arc<Lifeline>,
}

impl FrameReceiver {
    pub(crate) fn start(
        link: &Arc<Link>,
        lifeline: Arc<Lifeline>,
        config: &TransportConfig,
        confirmed: watch::Sender<bool>,
    ) -> FrameReceiver {
        let [(control, control_queue), (live, live_queue), (catch_up, catch_up_queue)] =
            Class::ALL.map(|_| bounded(config.inbound_bytes));
        let inlets = Arc::new(Mutex::new([Some(control), Some(live), Some(catch_up)]));
        tokio::spawn(accept_streams(Arc::clone(link), inlets, config.frame_bytes_max, confirmed));
        FrameReceiver {
            queues: [control_queue, live_queue, catch_up_queue],
            link: Arc::clone(link),
            _lifeline: lifeline,
        }
    }

    /// The next frame: of the most urgent class that has one, in order within the class. Cancel safe: a frame
    /// is either returned or still there for the next call.
    ///
    /// # Errors
    ///
    /// [`RecvError`] once every frame that arrived has been returned and none can follow.
    pub async fn recv(&mut self) -> Result<(Class, Bytes), RecvError> {
        self.recv_among(Class::ALL.len()).await
    }

    /// As [`recv`](Self::recv), but leaves [`Class::CatchUp`] alone: for a caller that has enough of it and wants nothing
    /// urgent to wait behind it. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`RecvError`] once every urgent frame that arrived has been returned and none can follow.
    pub async fn recv_urgent(&mut self) -> Result<(Class, Bytes), RecvError> {
        self.recv_among(Class::CatchUp.index()).await
    }

    /// Of the first so many classes.
    async fn recv_among(&mut self, classes: usize) -> Result<(Class, Bytes), RecvError> {
        match poll_fn(|context| self.poll_queues(classes, context)).await {
            Some(received) => Ok(received),
            None => Err(self.link.close_reason().map_or(RecvError::Finished, RecvError::Closed)),
        }
    }

    /// `None` when all of the first so many classes have ended.
    fn poll_queues(&mut self, classes: usize, context: &mut Context<'_>) -> Poll<Option<(Class, Bytes)>> {
        let mut ended = 0;
        for (class, queue) in Class::ALL.into_iter().zip(&mut self.queues).take(classes) {
            match queue.frames.poll_recv(context) {
                Poll::Ready(Some(queued)) => return Poll::Ready(Some((class, queued.frame))),
                Poll::Ready(None) => ended += 1,
                Poll::Pending => {}
            }
        }
        if ended == classes { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl fmt::Debug for FrameReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReceiver").finish_non_exhaustive()
    }
}

/// The queues of the classes that have had no stream yet.
type Inlets = Mutex<[Option<QueueSender>; 3]>;

/// Starts a reader for each of the peer's streams until the connection ends.
async fn accept_streams(
    link: Arc<Link>,
    inlets: Arc<Inlets>,
    frame_bytes_max: usize,
    confirmed: watch::Sender<bool>,
) {
    let mut accepted = 0;
    while let Ok(stream) = link.quic.accept_uni().await {
        accepted += 1;
        if accepted > Class::ALL.len() {
            link.blame_peer(CloseCode::UNEXPECTED_STREAM, "more streams than classes");
            return;
        }
        confirmed.send_replace(true);
        let reader = Reader { link: Arc::clone(&link), stream, deframer: Deframer::new(frame_bytes_max) };
        tokio::spawn(reader.run(Arc::clone(&inlets)));
    }
}

/// Splits one stream into frames.
struct Reader {
    link: Arc<Link>,
    stream: RecvStream,
    deframer: Deframer,
}

impl Reader {
    async fn run(mut self, inlets: Arc<Inlets>) {
        let Some((class, inlet)) = self.claim(&inlets).await else { return };
        // The other classes must not wait for this reader before they count as ended.
        drop(inlets);
        while let Some(chunk) = self.read().await {
            self.deframer.handle(chunk);
            if !self.deliver(class, &inlet).await {
                return;
            }
        }
    }

    /// Reads the stream's tag and takes the inlet of its class; `None` when there is none to take.
    async fn claim(&mut self, inlets: &Inlets) -> Option<(Class, QueueSender)> {
        let mut tag = [0];
        match self.stream.read(&mut tag).await {
            Ok(Some(_)) => {}
            Ok(None) | Err(ReadError::Reset(_)) => {
                self.link.blame_peer(CloseCode::UNEXPECTED_STREAM, "stream without a class");
                return None;
            }
            Err(_) => return None,
        }
        let Some(class) = Class::of_tag(tag[0]) else {
            self.link.blame_peer(CloseCode::UNEXPECTED_STREAM, "stream of an unknown class");
            return None;
        };
        let inlet = inlets.lock().unwrap_or_else(PoisonError::into_inner)[class.index()].take();
        if inlet.is_none() {
            self.link.blame_peer(CloseCode::UNEXPECTED_STREAM, "second stream of a class");
        }
        inlet.map(|inlet| (class, inlet))
    }

    /// The next bytes; `None` when the stream or the connection has ended, for whatever reason.
    async fn read(&mut self) -> Option<Bytes> {
        match self.stream.read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => Some(chunk.bytes),
            Ok(None) => {
                if let Err(error) = self.deframer.finish() {
                    self.link.blame_peer(error.close_code(), &error.to_string());
                }
                None
            }
            Err(ReadError::Reset(_)) => {
                self.link.blame_peer(CloseCode::MALFORMED_FRAME, "stream reset");
                None
            }
            Err(_) => None,
        }
    }

    /// Passes on the whole frames of a chunk, waiting for room. `false` when there is no point in reading on.
    async fn deliver(&mut self, class: Class, inlet: &QueueSender) -> bool {
        loop {
            match self.deframer.poll() {
                Ok(Some(frame)) => {
                    self.link.counters.count_received(class, frame.len());
                    if inlet.push(frame).await.is_err() {
                        return false;
                    }
                }
                Ok(None) => return true,
                Err(error) => {
                    self.link.blame_peer(error.close_code(), &error.to_string());
                    return false;
                }
            }
        }
    }
}
