//! Which elements of two lists stay.

use std::collections::BTreeMap;
use std::ops::Range;

/// Comparisons made to align two lists, beyond those of their common start and end. Beyond it they are taken as
/// differing from one end to the other, which is as right and writes more.
const COMPARISONS_MAX: usize = 1 << 20;

/// A stretch of two lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The same elements in both.
    Same { old: Range<usize>, new: Range<usize> },
    /// Elements of one to be replaced by those of the other; one of the two may be empty.
    Differing { old: Range<usize>, new: Range<usize> },
}

/// Aligns two lists by a longest common subsequence. The runs cover both, in order. O(old × new) of what lies
/// between their common start and end.
pub(super) fn align(old: &[String], new: &[String]) -> Vec<Run> {
    let mut classes = BTreeMap::new();
    let mut classes = |elements: &[String]| -> Vec<usize> {
        let class = |element: &String| {
            let next = classes.len();
            *classes.entry(element.clone()).or_insert(next)
        };
        elements.iter().map(class).collect()
    };
    let (old, new) = (classes(old), classes(new));
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let ends = old[start..].iter().rev().zip(new[start..].iter().rev());
    let end = ends.take_while(|(old, new)| old == new).count();
    let (old_end, new_end) = (old.len() - end, new.len() - end);

    let mut runs = Runs { runs: Vec::new(), old: 0, new: 0 };
    for index in 0..start {
        runs.same(index, index);
    }
    for (one, other) in common(&old[start..old_end], &new[start..new_end]) {
        runs.same(start + one, start + other);
    }
    for index in 0..end {
        runs.same(old_end + index, new_end + index);
    }
    runs.differing(old.len(), new.len());
    runs.runs
}

/// The runs found so far, which reach to `old` and `new`.
struct Runs {
    runs: Vec<Run>,
    old: usize,
    new: usize,
}

impl Runs {
    fn same(&mut self, one: usize, other: usize) {
        self.differing(one, other);
        (self.old, self.new) = (one + 1, other + 1);
        match self.runs.last_mut() {
            Some(Run::Same { old, new }) => (old.end, new.end) = (one + 1, other + 1),
            _ => self.runs.push(Run::Same { old: one..one + 1, new: other..other + 1 }),
        }
    }

    fn differing(&mut self, old: usize, new: usize) {
        if (self.old, self.new) != (old, new) {
            self.runs.push(Run::Differing { old: self.old..old, new: self.new..new });
            (self.old, self.new) = (old, new);
        }
    }
}

/// The pairs of a longest common subsequence, in order.
fn common(old: &[usize], new: &[usize]) -> Vec<(usize, usize)> {
    if old.is_empty() || new.is_empty() || old.len().saturating_mul(new.len()) > COMPARISONS_MAX {
        return Vec::new();
    }
    let width = new.len() + 1;
    // The length of the longest common subsequence of what follows both.
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for one in (0..old.len()).rev() {
        for other in (0..new.len()).rev() {
            lengths[one * width + other] = if old[one] == new[other] {
                lengths[(one + 1) * width + other + 1] + 1
            } else {
                lengths[(one + 1) * width + other].max(lengths[one * width + other + 1])
            };
        }
    }
    let (mut pairs, mut one, mut other) = (Vec::new(), 0, 0);
    while one < old.len() && other < new.len() {
        if old[one] == new[other] {
            pairs.push((one, other));
            (one, other) = (one + 1, other + 1);
        } else if lengths[(one + 1) * width + other] >= lengths[one * width + other + 1] {
            one += 1;
        } else {
            other += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Run, align};

    fn words(letters: &str) -> Vec<String> {
        letters.chars().map(String::from).collect()
    }

    #[test]
    fn what_is_removed_from_the_middle_leaves_both_sides() {
        let runs = align(&words("abcde"), &words("abde"));
        let expected = [
            Run::Same { old: 0..2, new: 0..2 },
            Run::Differing { old: 2..3, new: 2..2 },
            Run::Same { old: 3..5, new: 2..4 },
        ];
        assert_eq!(runs, expected);
    }

    /// The length of a longest common subsequence, by trying everything.
    fn longest(old: &[bool], new: &[bool]) -> usize {
        let ([one, old_rest @ ..], [other, new_rest @ ..]) = (old, new) else { return 0 };
        if one == other {
            return 1 + longest(old_rest, new_rest);
        }
        longest(old_rest, new).max(longest(old, new_rest))
    }

    proptest! {
        #[test]
        fn runs_cover_both_lists_and_keep_as_much_as_can_be(
            old in vec(any::<bool>(), 0..10),
            new in vec(any::<bool>(), 0..10),
        ) {
            let names = |list: &[bool]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (mut at, mut same) = ((0, 0), 0);
            for run in align(&names(&old), &names(&new)) {
                let (one, other) = match run {
                    Run::Same { old: one, new: other } => {
                        prop_assert_eq!(&old[one.clone()], &new[other.clone()]);
                        same += one.len();
                        (one, other)
                    }
                    Run::Differing { old: one, new: other } => (one, other),
                };
                prop_assert_eq!((one.start, other.start), at);
                at = (one.end, other.end);
            }
            prop_assert_eq!(at, (old.len(), new.len()));
            prop_assert_eq!(same, longest(&old, &new));
        }
    }
}
