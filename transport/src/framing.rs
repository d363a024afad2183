//! The frames of a stream without a connection, for fuzzing.

use bytes::Bytes;

use crate::close::CloseCode;
use crate::frame::{Batch, Class, Deframer};

/// Takes a stream apart as a receiver does.
pub struct StreamDecoder(Deframer);

impl StreamDecoder {
    /// For the bytes after the stream's first, which names its class, and frames of up to so many bytes.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self(Deframer::new(frame_bytes_max))
    }

    /// Hands over the next bytes of the stream.
    ///
    /// # Panics
    ///
    /// Where [`poll`](Self::poll) has not returned `None` since the bytes before: a receiver reads on only then.
    pub fn handle(&mut self, chunk: Bytes) {
        self.0.handle(chunk);
    }

    /// The next whole frame; `None` when it has not arrived yet.
    ///
    /// # Errors
    ///
    /// Why a receiver closes the connection; the stream is unusable then.
    pub fn poll(&mut self) -> Result<Option<Bytes>, CloseCode> {
        self.0.poll().map_err(|error| error.close_code())
    }

    /// The stream has ended.
    ///
    /// # Errors
    ///
    /// Why a receiver closes the connection: the end was inside a frame.
    pub fn finish(&self) -> Result<(), CloseCode> {
        self.0.finish().map_err(|error| error.close_code())
    }
}

impl std::fmt::Debug for StreamDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamDecoder").finish_non_exhaustive()
    }
}

/// The class that the first byte of a stream names.
pub fn class_of(tag: u8) -> Option<Class> {
    Class::of_tag(tag)
}

/// The bytes of a stream of these frames, in the pieces in which a sender writes them.
///
/// # Panics
///
/// Where a frame is empty or longer than a length prefix can say: a sender refuses it before.
pub fn encode(class: Class, frames: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let mut batch = Batch::opening(class);
    frames.into_iter().for_each(|frame| batch.push(frame));
    batch.into_chunks()
}
