//! Merging sorted sources of rows, the newer one winning.

use std::cmp::Ordering;
use std::iter::Peekable;

use comity_engine::StoreError;

/// A row of one source: its key, and its value or `None` where the source deletes it.
pub(crate) type Sourced<K> = Result<(K, Option<Vec<u8>>), StoreError>;

/// Merges two sources that ascend by key without repeats; at equal keys the newer row hides the older.
/// Deletions are passed on, so merges stack.
pub(crate) struct Merged<N: Iterator, O: Iterator> {
    newer: Peekable<N>,
    older: Peekable<O>,
}

impl<K: Ord, N: Iterator<Item = Sourced<K>>, O: Iterator<Item = Sourced<K>>> Merged<N, O> {
    pub(crate) fn new(newer: N, older: O) -> Self {
        Self { newer: newer.peekable(), older: older.peekable() }
    }
}

impl<K: Ord, N: Iterator<Item = Sourced<K>>, O: Iterator<Item = Sourced<K>>> Iterator for Merged<N, O> {
    type Item = Sourced<K>;

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.newer.peek(), self.older.peek()) {
            (Some(Ok((newer, _))), Some(Ok((older, _)))) => newer.cmp(older),
            (_, Some(Err(_))) | (None, _) => Ordering::Greater,
            (Some(_), _) => Ordering::Less,
        };
        match order {
            Ordering::Less => self.newer.next(),
            Ordering::Greater => self.older.next(),
            Ordering::Equal => {
                self.older.next();
                self.newer.next()
            }
        }
    }
}

/// The first `limit` rows that are not deletions.
pub(crate) fn rows<K>(
    source: impl Iterator<Item = Sourced<K>>,
    limit: usize,
) -> Result<Vec<(K, Vec<u8>)>, StoreError> {
    source.filter_map(|row| row.map(|(key, value)| Some((key, value?))).transpose()).take(limit).collect()
}

/// The entries with consecutive numbers from `from` on: as many as fit `bytes_max`, but at least one.
pub(crate) fn run(
    source: impl Iterator<Item = Sourced<u64>>,
    from: u64,
    bytes_max: usize,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut entries = Vec::new();
    let mut bytes = 0usize;
    let mut expected = Some(from);
    for row in source {
        let (lsn, Some(entry)) = row? else { break };
        bytes = bytes.saturating_add(entry.len());
        if Some(lsn) != expected || (bytes > bytes_max && !entries.is_empty()) {
            break;
        }
        entries.push((lsn, entry));
        expected = lsn.checked_add(1);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(rows: &[(u64, Option<&str>)]) -> impl Iterator<Item = Sourced<u64>> {
        rows.iter()
            .map(|(key, value)| Ok((*key, value.map(|value| value.as_bytes().to_vec()))))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn the_newer_row_hides_the_older_and_a_deletion_hides_a_value() {
        let newer = source(&[(1, Some("a")), (3, None), (5, Some("e"))]);
        let older = source(&[(1, Some("old")), (2, Some("b")), (3, Some("old"))]);
        let merged = rows(Merged::new(newer, older), 10).unwrap();
        let expected: Vec<(u64, Vec<u8>)> =
            [(1, "a"), (2, "b"), (5, "e")].map(|(key, value)| (key, value.into())).into();
        assert_eq!(merged, expected);
    }

    #[test]
    fn a_failure_in_the_older_source_is_not_hidden_by_the_newer() {
        let older = std::iter::once(Err(StoreError::Poisoned));
        let merged = rows(Merged::new(source(&[(1, Some("a"))]), older), 10);
        assert_eq!(merged, Err(StoreError::Poisoned));
    }

    #[test]
    fn a_run_starts_at_its_first_number_and_ends_at_a_gap_or_at_the_limit() {
        let lane = [(2, Some("aa")), (3, Some("bb")), (5, Some("cc"))];
        let lsns = |from, bytes_max| -> Vec<u64> {
            run(source(&lane), from, bytes_max).unwrap().into_iter().map(|(lsn, _)| lsn).collect()
        };
        assert_eq!(lsns(2, 100), [2, 3]);
        assert_eq!(lsns(2, 3), [2]);
        assert_eq!(lsns(2, 0), [2]);
        assert!(lsns(1, 100).is_empty());
        let last = [(u64::MAX, Some("z"))];
        assert_eq!(run(source(&last), u64::MAX, 9).unwrap().len(), 1);
    }
}
