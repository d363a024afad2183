//! The framer without IO.

use proptest::collection::vec;
use proptest::prelude::{any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;

const LIMIT: usize = 256 * 1024;

fn encoded(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut batch = Batch::default();
    for frame in frames {
        batch.push(Bytes::copy_from_slice(frame));
    }
    batch.into_chunks().concat()
}

/// Decodes `bytes` cut into chunks of the given lengths, cycled.
fn decoded(bytes: &[u8], chunk_lens: &[usize], limit: usize) -> Result<Vec<Bytes>, FrameError> {
    let mut deframer = Deframer::new(limit);
    let mut frames = Vec::new();
    let mut rest = bytes;
    let mut lens = chunk_lens.iter().cycle();
    while !rest.is_empty() {
        let len = lens.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(len);
        rest = after;
        deframer.handle(Bytes::copy_from_slice(chunk));
        while let Some(frame) = deframer.poll()? {
            frames.push(frame);
        }
    }
    deframer.finish().map(|()| frames)
}

#[test]
fn the_example_of_the_module_documentation_holds() {
    let mut batch = Batch::opening(Class::Live);
    batch.push(Bytes::from_static(b"hi"));
    batch.push(Bytes::from(vec![0; 200]));
    let bytes = batch.into_chunks().concat();
    assert_eq!(bytes[..8], [0x02, 0x02, 0x68, 0x69, 0xc8, 0x01, 0x00, 0x00]);
    assert_eq!(bytes.len(), 1 + 3 + 202);
    let frames = decoded(&bytes[1..], &[], LIMIT).expect("well formed");
    assert_eq!(frames, [Bytes::from_static(b"hi"), Bytes::from(vec![0; 200])]);
}

#[test]
fn tags_round_trip_and_all_others_are_unknown() {
    let known = (0..=u8::MAX).filter_map(Class::of_tag).collect::<Vec<_>>();
    assert_eq!(known, Class::ALL);
    for class in Class::ALL {
        assert_eq!(Class::of_tag(class.tag()), Some(class));
        assert_eq!(Class::ALL[class.index()], class);
    }
}

#[test]
fn lengths_at_every_width_round_trip() {
    for len in [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
        let frames = decoded(&encoded(&[vec![7; len]]), &[1000], FRAME_BYTES_LIMIT).expect("well formed");
        assert_eq!(frames.iter().map(Bytes::len).collect::<Vec<_>>(), [len]);
    }
}

#[test]
fn a_frame_at_the_limit_passes_and_one_byte_more_does_not() {
    assert!(decoded(&encoded(&[vec![1; 1000]]), &[], 1000).is_ok());
    assert_eq!(decoded(&encoded(&[vec![1; 1001]]), &[], 1000), Err(FrameError::TooLarge));
}

#[test]
fn malformed_lengths_are_told_apart() {
    let cases: [(&[u8], FrameError); 7] = [
        (&[0x00], FrameError::Empty),
        (&[0x80, 0x00], FrameError::LongLength),
        (&[0x85, 0x00], FrameError::LongLength),
        (&[0xff, 0xff, 0xff, 0x7f], FrameError::TooLarge),
        (&[0xff, 0xff, 0xff, 0xff, 0x0f], FrameError::TooLarge),
        (&[0x80], FrameError::Truncated),
        (&[0x02, 0x61], FrameError::Truncated),
    ];
    for (bytes, error) in cases {
        assert_eq!(decoded(bytes, &[1], LIMIT), Err(error), "{bytes:02x?}");
        assert_eq!(decoded(bytes, &[], LIMIT), Err(error), "{bytes:02x?}");
    }
}

#[test]
fn an_announced_length_reserves_almost_nothing() {
    let mut deframer = Deframer::new(FRAME_BYTES_LIMIT);
    deframer.handle(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f]));
    assert_eq!(deframer.poll(), Ok(None));
    assert_eq!(deframer.reserved_bytes(), 0);
    let mut arrived = 0;
    for _ in 0..5000 {
        deframer.handle(Bytes::from_static(&[0; 100]));
        assert_eq!(deframer.poll(), Ok(None));
        arrived += 100;
        assert!(deframer.reserved_bytes() <= RESERVE_BYTES.max(2 * arrived));
    }
}

#[test]
fn small_frames_share_a_chunk_and_large_ones_are_not_copied() {
    let large = Bytes::from(vec![9; 100_000]);
    let mut batch = Batch::default();
    for _ in 0..100 {
        batch.push(Bytes::from_static(b"small"));
    }
    batch.push(large.clone());
    batch.push(Bytes::from_static(b"small"));
    let chunks = batch.into_chunks();
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[1].as_ptr(), large.as_ptr());
}

#[test]
fn a_small_frame_does_not_keep_its_chunk_alive() {
    let mut deframer = Deframer::new(LIMIT);
    let mut bytes = encoded(&[b"tiny".to_vec()]);
    bytes.extend(encoded(&[vec![0; 60_000]]));
    let chunk = Bytes::from(bytes);
    let range = chunk.as_ptr() as usize..chunk.as_ptr() as usize + chunk.len();
    deframer.handle(chunk);
    let frame = deframer.poll().expect("well formed").expect("whole");
    assert_eq!(frame, b"tiny"[..]);
    assert!(!range.contains(&(frame.as_ptr() as usize)));
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_frames(
        frames in vec(prop_oneof![vec(any::<u8>(), 1..40), vec(any::<u8>(), 100..9000)], 0..12),
        chunk_lens in vec(1usize..3000, 1..10),
    ) {
        let got = decoded(&encoded(&frames), &chunk_lens, 9000);
        prop_assert_eq!(got.map(|got| got.iter().map(|frame| frame.to_vec()).collect::<Vec<_>>()), Ok(frames));
    }

    #[test]
    fn arbitrary_bytes_give_the_same_verdict_in_any_chunking(
        bytes in vec(any::<u8>(), 0..2000),
        chunk_lens in vec(1usize..50, 1..10),
    ) {
        prop_assert_eq!(decoded(&bytes, &chunk_lens, 300), decoded(&bytes, &[], 300));
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(bytes in vec(0u8..20, 0..200)) {
        if let Ok(frames) = decoded(&bytes, &[], 300) {
            let frames = frames.iter().map(|frame| frame.to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(encoded(&frames), bytes);
        }
    }

    #[test]
    fn memory_follows_the_bytes_that_arrived(
        announced in 1usize..FRAME_BYTES_LIMIT,
        chunk_lens in vec(1usize..20_000, 1..40),
    ) {
        let mut deframer = Deframer::new(FRAME_BYTES_LIMIT);
        let mut prefix = BytesMut::new();
        put_length(&mut prefix, announced);
        deframer.handle(prefix.freeze());
        prop_assert_eq!(deframer.poll(), Ok(None));
        let mut arrived = 0;
        for len in chunk_lens {
            if arrived + len >= announced {
                break;
            }
            deframer.handle(Bytes::from(vec![0; len]));
            prop_assert_eq!(deframer.poll(), Ok(None));
            arrived += len;
            prop_assert!(deframer.reserved_bytes() <= RESERVE_BYTES.max(2 * arrived));
        }
    }
}
