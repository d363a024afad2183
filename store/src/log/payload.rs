//! What a record holds: the group's entries in commit order, then its net changes to the state.

use crate::format::LogKey;
use crate::layer::Layer;

/// One thing to do to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// Put an entry into the log table, or remove it when it is empty.
    Entry(&'a LogKey, &'a [u8]),
    /// Set a key of the state, or delete it.
    Put(&'a [u8], Option<&'a [u8]>),
}

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
}

/// The changes of a group that is not encoded, in the same order.
pub(crate) fn layer_changes(layer: &Layer) -> impl Iterator<Item = Change<'_>> {
    let entries = layer.entries().map(|(key, entry)| Change::Entry(key, entry));
    entries.chain(layer.puts().map(|(key, value)| Change::Put(key, value)))
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
            ..comity_engine::Batch::default()
        });
        let mut bytes = Vec::new();
        encode(&layer, &mut bytes);
        let valid = |bytes: &[u8]| changes(bytes, |_| Ok::<_, ()>(())).unwrap().is_some();
        assert!(valid(&bytes));
        assert!((0..bytes.len()).all(|length| !valid(&bytes[..length])));
        bytes.push(0);
        assert!(!valid(&bytes));
    }
}
