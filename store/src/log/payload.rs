//! What a record holds: the group's entries in commit order, its net changes to the state, and the entries that it
//! drops.

use crate::format::{LogKey, lsn_of};
use crate::layer::Layer;

/// One thing to do to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// Put an entry into the log table.
    Entry(&'a LogKey, &'a [u8]),
    /// Set a key of the state, or delete it.
    Put(&'a [u8], Option<&'a [u8]>),
    /// Delete an entry of the log table.
    Drop(LogKey),
}

/// Entries that one span of a record drops.
const SPAN_ENTRIES_MAX: u64 = 65_536;

/// Appends a group to `out`.
pub(crate) fn encode(layer: &Layer, out: &mut Vec<u8>) {
    put_number(layer.entry_count() as u64, out);
    for (key, entry) in layer.entries() {
        out.extend_from_slice(key);
        put_bytes(entry, out);
    }
    put_number(layer.put_count() as u64, out);
    for (key, value) in layer.puts() {
        put_bytes(key, out);
        match value {
            Some(value) => {
                put_number(value.len() as u64 + 1, out);
                out.extend_from_slice(value);
            }
            None => out.push(0),
        }
    }
    let spans = spans(layer);
    if !spans.is_empty() {
        put_number(spans.len() as u64, out);
        for (first, count) in spans {
            out.extend_from_slice(&first);
            put_number(count, out);
        }
    }
}

/// What a layer drops, as first entries with how many consecutive ones there are.
fn spans(layer: &Layer) -> Vec<(LogKey, u64)> {
    let mut spans: Vec<(LogKey, u64)> = Vec::new();
    for key in layer.dropped() {
        match spans.last_mut() {
            Some((first, count)) if *count < SPAN_ENTRIES_MAX && nth(first, *count) == Some(*key) => {
                *count += 1
            }
            _ => spans.push((*key, 1)),
        }
    }
    spans
}

/// The key of the entry so many numbers later in the same lane.
fn nth(first: &LogKey, later: u64) -> Option<LogKey> {
    let mut key = *first;
    key[32..].copy_from_slice(&lsn_of(first).checked_add(later)?.to_be_bytes());
    Some(key)
}

/// The changes of a group that is not encoded, in the same order.
pub(crate) fn layer_changes(layer: &Layer) -> impl Iterator<Item = Change<'_>> {
    let entries = layer.entries().map(|(key, entry)| Change::Entry(key, entry));
    let puts = layer.puts().map(|(key, value)| Change::Put(key, value));
    entries.chain(puts).chain(layer.dropped().map(|key| Change::Drop(*key)))
}

/// Visits the changes of an encoded group in order. `None` where the bytes are not one; some of the changes
/// may have been visited then.
pub(crate) fn changes<E>(
    mut bytes: &[u8],
    mut visit: impl FnMut(Change<'_>) -> Result<(), E>,
) -> Result<Option<()>, E> {
    let input = &mut bytes;
    let Some(entries) = number(input) else { return Ok(None) };
    for _ in 0..entries {
        let Some((key, entry)) = entry(input) else { return Ok(None) };
        visit(Change::Entry(key, entry))?;
    }
    let Some(puts) = number(input) else { return Ok(None) };
    for _ in 0..puts {
        let Some((key, value)) = put(input) else { return Ok(None) };
        visit(Change::Put(key, value))?;
    }
    if !input.is_empty() {
        let Some(spans) = number(input).filter(|spans| *spans > 0) else { return Ok(None) };
        for _ in 0..spans {
            let Some((first, count)) = span(input) else { return Ok(None) };
            for later in 0..count {
                let Some(key) = nth(&first, later) else { return Ok(None) };
                visit(Change::Drop(key))?;
            }
        }
    }
    Ok(input.is_empty().then_some(()))
}

fn entry<'a>(input: &mut &'a [u8]) -> Option<(&'a LogKey, &'a [u8])> {
    let (key, rest) = input.split_first_chunk()?;
    *input = rest;
    let length = number(input)?;
    Some((key, take(input, length)?))
}

fn put<'a>(input: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let length = number(input)?;
    let key = take(input, length)?;
    let value = match number(input)?.checked_sub(1) {
        Some(length) => Some(take(input, length)?),
        None => None,
    };
    Some((key, value))
}

fn span(input: &mut &[u8]) -> Option<(LogKey, u64)> {
    let (key, rest) = input.split_first_chunk()?;
    *input = rest;
    let count = number(input).filter(|count| (1..=SPAN_ENTRIES_MAX).contains(count))?;
    Some((*key, count))
}

fn take<'a>(input: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(usize::try_from(length).ok()?)?;
    *input = rest;
    Some(taken)
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_number(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Seven bits to a byte, the lowest first (unsigned LEB128).
fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if bits.checked_shl(shift)? >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use comity_engine::LaneSpan;

    #[test]
    fn numbers_decode_to_what_was_encoded_and_too_large_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(value, &mut bytes);
            assert_eq!(number(&mut bytes.as_slice()), Some(value));
        }
        assert_eq!(number(&mut [0xff; 11].as_slice()), None);
        assert_eq!(number(&mut [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2].as_slice()), None);
    }

    #[test]
    fn bytes_cut_short_or_left_over_are_no_group() {
        let mut layer = Layer::default();
        layer.apply(comity_engine::Batch {
            facts: vec![(b"key".to_vec(), Some(b"value".to_vec())), (b"gone".to_vec(), None)],
            dropped: vec![LaneSpan {
                space: comity_crdts::SpaceId([1; 16]),
                lane: comity_crdts::OriginId([2; 16]),
                first: 7,
                count: 3,
            }],
            ..comity_engine::Batch::default()
        });
        let mut bytes = Vec::new();
        encode(&layer, &mut bytes);
        let valid = |bytes: &[u8]| changes(bytes, |_| Ok::<_, ()>(())).unwrap().is_some();
        assert!(valid(&bytes));
        // A group that drops nothing ends before the spans.
        let without = bytes.len() - 42;
        assert!((0..bytes.len()).all(|length| valid(&bytes[..length]) == (length == without)));
        let mut dropped = Vec::new();
        let visited = changes(&bytes, |change| {
            if let Change::Drop(key) = change {
                dropped.push(lsn_of(&key));
            }
            Ok::<_, ()>(())
        });
        assert_eq!((visited, dropped), (Ok(Some(())), vec![7, 8, 9]));
        bytes.push(0);
        assert!(!valid(&bytes));
    }
}
