//! Frames on a stream: the format, an encoder that coalesces and an incremental decoder. No IO.
//!
//! | field | bytes | meaning |
//! |---|---|---|
//! | class | 1 | once, the first byte of the stream: 1 control, 2 live, 3 catch-up |
//! | length | 1 to 4 | then for each frame: bytes of the body as unsigned LEB128 in its shortest form, 1 or more |
//! | body | length | opaque |
//!
//! A live stream with the frames `hi` and 200 times `00` begins `02 02 68 69 c8 01 00 00 …`.

use std::mem;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::close::CloseCode;

/// Longest length prefix, in bytes.
const LENGTH_BYTES_MAX: usize = 4;

/// Largest frame the length prefix can announce, in bytes.
pub(crate) const FRAME_BYTES_LIMIT: usize = (1 << (7 * LENGTH_BYTES_MAX)) - 1;

/// What a body may reserve before it has arrived, in bytes. Beyond it, memory only doubles what did arrive.
const RESERVE_BYTES: usize = 4 * 1024;

/// Bodies up to this many bytes are copied together into one chunk; longer ones are passed on as they are.
const COALESCE_BYTES_MAX: usize = 4 * 1024;

/// What a frame is for. Each class has a QUIC stream of its own in each direction, so that none waits for
/// another's losses or windows; bandwidth goes to control first, then live, then catch-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Session messages: small and urgent.
    Control,
    /// Changes as they happen.
    Live,
    /// Bulk history for a replica that is behind.
    CatchUp,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Class; 3] = [Class::Control, Class::Live, Class::CatchUp];

    /// The first byte of a stream of this class.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Class::Control => 1,
            Class::Live => 2,
            Class::CatchUp => 3,
        }
    }

    pub(crate) fn of_tag(tag: u8) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.tag() == tag)
    }

    /// Position in [`Class::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Class::Control => 0,
            Class::Live => 1,
            Class::CatchUp => 2,
        }
    }

    /// The QUIC send priority; higher goes first.
    pub(crate) fn priority(self) -> i32 {
        match self {
            Class::Control => 2,
            Class::Live => 1,
            Class::CatchUp => 0,
        }
    }
}

/// How a peer can break the frame format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("empty frame")]
    Empty,
    #[error("frame over the limit")]
    TooLarge,
    #[error("length not in its shortest form")]
    LongLength,
    #[error("stream ended inside a frame")]
    Truncated,
}

impl FrameError {
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            FrameError::TooLarge => CloseCode::FRAME_TOO_LARGE,
            FrameError::Empty | FrameError::LongLength | FrameError::Truncated => CloseCode::MALFORMED_FRAME,
        }
    }
}

/// Splits the bytes of a stream, in whatever chunks they arrive, into frames.
///
/// Frames are copied out of the chunks: a ten-byte frame must not keep a whole receive buffer alive. Memory is
/// at most twice the bytes of the unfinished frame that have arrived, or [`RESERVE_BYTES`].
pub(crate) struct Deframer {
    frame_bytes_max: usize,
    chunk: Bytes,
    state: State,
}

enum State {
    Length { value: usize, bytes: usize },
    Body { announced: usize, body: Vec<u8> },
}

const AT_BOUNDARY: State = State::Length { value: 0, bytes: 0 };

impl Deframer {
    pub(crate) fn new(frame_bytes_max: usize) -> Deframer {
        Deframer { frame_bytes_max, chunk: Bytes::new(), state: AT_BOUNDARY }
    }

    /// Hands over the next bytes of the stream. Only after [`poll`](Self::poll) has returned `None`.
    pub(crate) fn handle(&mut self, chunk: Bytes) {
        assert!(self.chunk.is_empty(), "the previous chunk was polled to its end");
        self.chunk = chunk;
    }

    /// The next whole frame; `None` when it has not arrived yet. After an error the stream is unusable.
    pub(crate) fn poll(&mut self) -> Result<Option<Bytes>, FrameError> {
        while !self.chunk.is_empty() {
            match &mut self.state {
                State::Length { value, bytes } => {
                    let byte = self.chunk.get_u8();
                    if let Some(announced) = push_length_byte(value, bytes, byte)? {
                        if announced > self.frame_bytes_max {
                            return Err(FrameError::TooLarge);
                        }
                        self.state = State::Body { announced, body: Vec::new() };
                    }
                }
                State::Body { announced, body } => {
                    let arrived = self.chunk.len().min(*announced - body.len());
                    reserve(body, arrived, *announced);
                    body.extend_from_slice(&self.chunk[..arrived]);
                    self.chunk.advance(arrived);
                    if body.len() == *announced {
                        let body = mem::take(body);
                        self.state = AT_BOUNDARY;
                        return Ok(Some(Bytes::from(body)));
                    }
                }
            }
        }
        // An exhausted chunk would keep its receive buffer alive until the next one.
        self.chunk = Bytes::new();
        Ok(None)
    }

    /// The stream has ended: an error unless it did so between two frames.
    pub(crate) fn finish(&self) -> Result<(), FrameError> {
        match self.state {
            State::Length { bytes: 0, .. } => Ok(()),
            State::Length { .. } | State::Body { .. } => Err(FrameError::Truncated),
        }
    }

    #[cfg(test)]
    fn reserved_bytes(&self) -> usize {
        match &self.state {
            State::Length { .. } => 0,
            State::Body { body, .. } => body.capacity(),
        }
    }
}

/// Takes one more byte of a length; returns the length once it is complete.
fn push_length_byte(value: &mut usize, bytes: &mut usize, byte: u8) -> Result<Option<usize>, FrameError> {
    *value |= usize::from(byte & 0x7f) << (7 * *bytes);
    *bytes += 1;
    let more = byte & 0x80 != 0;
    match (more, *bytes) {
        (true, LENGTH_BYTES_MAX) => Err(FrameError::TooLarge),
        (true, _) => Ok(None),
        (false, 1) if byte == 0 => Err(FrameError::Empty),
        (false, _) if byte == 0 => Err(FrameError::LongLength),
        (false, _) => Ok(Some(*value)),
    }
}

/// Room for `arrived` more bytes of a body of `announced`, without trusting the announcement.
fn reserve(body: &mut Vec<u8>, arrived: usize, announced: usize) {
    let needed = body.len() + arrived;
    if needed > body.capacity() {
        let target = needed.max(2 * body.capacity()).max(RESERVE_BYTES).min(announced);
        body.reserve_exact(target - body.len());
    }
}

/// Frames encoded for one write to a stream.
#[derive(Default)]
pub(crate) struct Batch {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Batch {
    /// A batch that begins with the tag of a stream.
    pub(crate) fn opening(class: Class) -> Batch {
        let mut batch = Batch::default();
        batch.tail.put_u8(class.tag());
        batch.bytes = 1;
        batch
    }

    /// Appends a frame of 1 to [`FRAME_BYTES_LIMIT`] bytes.
    pub(crate) fn push(&mut self, frame: Bytes) {
        assert!((1..=FRAME_BYTES_LIMIT).contains(&frame.len()), "frames are checked when they are queued");
        self.bytes += frame.len();
        put_length(&mut self.tail, frame.len());
        if frame.len() <= COALESCE_BYTES_MAX {
            self.tail.put_slice(&frame);
        } else {
            self.chunks.push(self.tail.split().freeze());
            self.chunks.push(frame);
        }
    }

    /// Bytes appended so far, without length prefixes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The encoded bytes in order.
    pub(crate) fn into_chunks(mut self) -> Vec<Bytes> {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.freeze());
        }
        self.chunks
    }
}

fn put_length(buffer: &mut BytesMut, len: usize) {
    let mut rest = len;
    while rest >= 0x80 {
        buffer.put_u8((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

#[cfg(test)]
mod tests;
