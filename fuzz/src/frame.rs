//! The frames of a stream.

use bytes::Bytes;
use comity_transport::framing::{StreamDecoder, class_of, encode};
use comity_transport::{CloseCode, TransportConfig};

use crate::{Choices, within};

/// Limits on a frame, in bytes.
const FRAME_BYTES_MAX: [usize; 4] = [1, 300, 5_000, (1 << 28) - 1];
/// Bytes of memory that taking a stream apart may use beyond a multiple of it.
const FRAMING_BASE: usize = 16 * 1024;
/// The chunk, the body that arrived, and its double while it grows.
const FRAMING_FACTOR: usize = 4;

/// The frames that were whole, and how it ended.
type Decoded = (Vec<Bytes>, Result<(), CloseCode>);

/// A limit, the lengths of the chunks in which a stream arrives, and the stream.
pub fn frame(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let limit = match choices.byte() % 5 {
        4 => TransportConfig::default().frame_bytes_max,
        other => FRAME_BYTES_MAX[usize::from(other)],
    };
    let lengths: Vec<usize> = (0..choices.byte() % 8).map(|_| choices.short()).collect();
    let Some(class) = class_of(choices.byte()) else { return };
    let stream = choices.0;

    let whole = decode(stream, &[], limit);
    assert_eq!(decode(stream, &lengths, limit), whole, "the chunks make no difference");
    assert_eq!(decode(stream, &[1], limit), whole, "single bytes make no difference");
    let (frames, end) = whole;
    assert!(frames.iter().all(|frame| (1..=limit).contains(&frame.len())));
    let again = encode(class, frames).concat();
    assert_eq!(class_of(again[0]), Some(class));
    match end {
        Ok(()) => assert_eq!(again[1..], *stream, "what decodes encodes to the same bytes"),
        Err(_) => assert!(stream.starts_with(&again[1..]), "what came before the fault does, too"),
    }

    let allowed = FRAMING_BASE + FRAMING_FACTOR * stream.len();
    within(allowed, || take_apart(stream, &lengths, limit, drop)).ok();
}

fn decode(stream: &[u8], lengths: &[usize], limit: usize) -> Decoded {
    let mut frames = Vec::new();
    let end = take_apart(stream, lengths, limit, |frame| frames.push(frame));
    (frames, end)
}

/// Cuts the stream into chunks of these lengths, over and over.
fn take_apart(
    mut stream: &[u8],
    lengths: &[usize],
    limit: usize,
    mut on_frame: impl FnMut(Bytes),
) -> Result<(), CloseCode> {
    let mut decoder = StreamDecoder::new(limit);
    let mut lengths = lengths.iter().cycle();
    while !stream.is_empty() {
        let length = lengths.next().copied().unwrap_or(stream.len()).clamp(1, stream.len());
        let (chunk, rest) = stream.split_at(length);
        stream = rest;
        decoder.handle(Bytes::copy_from_slice(chunk));
        while let Some(frame) = decoder.poll()? {
            on_frame(frame);
        }
    }
    decoder.finish()
}
