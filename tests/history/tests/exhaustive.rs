//! The checker agrees with the definition on every small history.

use comity_history::{History, Operation, Outcome, check, is_causal_by_brute_force};

use Outcome::{Acknowledged, Unknown, Unstated};

/// A set of histories: all ways to fill sessions of given lengths with operations.
struct Family {
    operations: usize,
    sessions_max: usize,
    keys: u32,
    writes_max: usize,
    outcomes: &'static [Outcome],
    /// How many values one operation sees at most.
    seen_max: usize,
    /// Whether operations also see their own value, values of the other key, and one that nobody wrote.
    strange: bool,
}

/// What came of comparing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    causal: u64,
    anomalous: u64,
}

/// A write without its outcome and what it saw: the skeleton of a history.
#[derive(Clone, Copy)]
enum Kind {
    Write(u32, Outcome),
    Read(u32),
}

impl Family {
    const PLAIN: Self = Self {
        operations: 0,
        sessions_max: 3,
        keys: 1,
        writes_max: usize::MAX,
        outcomes: &[Acknowledged],
        seen_max: usize::MAX,
        strange: false,
    };

    fn compare(&self) -> Compared {
        let mut compared = Compared::default();
        for lengths in partitions(self.operations, self.operations, self.sessions_max) {
            self.skeletons(&mut Vec::new(), &mut |kinds| {
                let choices: Vec<Vec<Vec<u64>>> =
                    (0..kinds.len()).map(|at| self.choices(kinds, at)).collect();
                fill(&choices, &mut |seen| compared.add(&history(&lengths, kinds, seen)));
            });
        }
        compared
    }

    fn skeletons(&self, kinds: &mut Vec<Kind>, visit: &mut impl FnMut(&[Kind])) {
        if kinds.len() == self.operations {
            return visit(kinds);
        }
        // Keys have no order, so the first operation is on the first one.
        for key in 0..if kinds.is_empty() { 1 } else { self.keys } {
            let writes = kinds.iter().filter(|kind| matches!(kind, Kind::Write(..))).count();
            let outcomes = if writes < self.writes_max { self.outcomes } else { &[] };
            let writes = outcomes.iter().map(|outcome| Kind::Write(key, *outcome));
            for kind in writes.chain([Kind::Read(key)]) {
                kinds.push(kind);
                self.skeletons(kinds, visit);
                kinds.pop();
            }
        }
    }

    /// What the operation at `at` may see. The value of a write is its position, and that of no write is 99.
    fn choices(&self, kinds: &[Kind], at: usize) -> Vec<Vec<u64>> {
        let mut values: Vec<u64> = (0..kinds.len() as u64)
            .filter(|&value| match kinds[value as usize] {
                Kind::Write(key, _) => self.strange || (value != at as u64 && key == kinds[at].key()),
                Kind::Read(_) => false,
            })
            .collect();
        if self.strange {
            values.push(99);
        }
        let subsets = (0..1_usize << values.len()).map(|mask| {
            (0..values.len()).filter(|bit| mask & (1 << bit) != 0).map(|bit| values[bit]).collect()
        });
        subsets.filter(|subset: &Vec<u64>| subset.len() <= self.seen_max).collect()
    }

    /// How many histories there are: by numbers of reads and writes of the two keys.
    fn promised(&self) -> u64 {
        let operations = self.operations as u64;
        let mut fillings = 0;
        for (reads, writes, other_reads, other_writes) in quadruples(operations) {
            let all_writes = writes + other_writes;
            if all_writes > self.writes_max as u64 || (self.keys == 1 && other_reads + other_writes > 0) {
                continue;
            }
            let arrangements = factorial(operations)
                / (factorial(reads) * factorial(writes) * factorial(other_reads) * factorial(other_writes));
            let of_read = |writes: u64| self.subsets(if self.strange { all_writes + 1 } else { writes });
            let of_write =
                |writes: u64| if writes == 0 { 1 } else { of_read(writes - u64::from(!self.strange)) };
            let outcomes = (self.outcomes.len() as u64).pow(all_writes as u32);
            fillings += arrangements
                * outcomes
                * of_read(writes).pow(reads as u32)
                * of_write(writes).pow(writes as u32)
                * of_read(other_writes).pow(other_reads as u32)
                * of_write(other_writes).pow(other_writes as u32);
        }
        let partitions = partitions(self.operations, self.operations, self.sessions_max).len() as u64;
        fillings / u64::from(self.keys) * partitions
    }

    /// The subsets of so many values of which none is too large.
    fn subsets(&self, values: u64) -> u64 {
        let sizes = 0..=values.min(self.seen_max as u64);
        sizes.map(|size| factorial(values) / (factorial(size) * factorial(values - size))).sum()
    }
}

impl Kind {
    fn key(self) -> u32 {
        match self {
            Self::Write(key, _) | Self::Read(key) => key,
        }
    }
}

impl Compared {
    fn add(&mut self, history: &History) {
        let verdict = check(history);
        match (is_causal_by_brute_force(history), &verdict) {
            (true, Ok(_)) => self.causal += 1,
            (false, Err(_)) => self.anomalous += 1,
            (causal, _) => panic!("{history:?} is causal: {causal}, and the checker says {verdict:?}"),
        }
    }
}

fn history(lengths: &[usize], kinds: &[Kind], seen: &[&Vec<u64>]) -> History {
    let mut operations = kinds.iter().zip(seen).enumerate().map(|(at, (kind, seen))| match kind {
        Kind::Write(key, outcome) => {
            Operation::Write { key: *key, value: at as u64, replaced: (*seen).clone(), outcome: *outcome }
        }
        Kind::Read(key) => Operation::Read { key: *key, values: (*seen).clone() },
    });
    History { sessions: lengths.iter().map(|length| operations.by_ref().take(*length).collect()).collect() }
}

/// Visits every way to take one of each of `choices`.
fn fill<'c>(choices: &'c [Vec<Vec<u64>>], visit: &mut impl FnMut(&[&'c Vec<u64>])) {
    let mut at = vec![0; choices.len()];
    loop {
        let seen: Vec<&Vec<u64>> = choices.iter().zip(&at).map(|(choices, at)| &choices[*at]).collect();
        visit(&seen);
        let Some(next) = (0..at.len()).find(|&digit| at[digit] + 1 < choices[digit].len()) else { return };
        at[..next].fill(0);
        at[next] += 1;
    }
}

/// The lengths that so many operations can have in at most so many sessions, none longer than the one before.
fn partitions(operations: usize, longest: usize, sessions: usize) -> Vec<Vec<usize>> {
    if operations == 0 {
        return vec![Vec::new()];
    }
    if sessions == 0 {
        return Vec::new();
    }
    let firsts = (1..=longest.min(operations)).rev();
    firsts
        .flat_map(|first| {
            let others = partitions(operations - first, first, sessions - 1);
            others.into_iter().map(move |others| [vec![first], others].concat())
        })
        .collect()
}

fn quadruples(sum: u64) -> impl Iterator<Item = (u64, u64, u64, u64)> {
    (0..=sum).flat_map(move |a| {
        (0..=sum - a).flat_map(move |b| (0..=sum - a - b).map(move |c| (a, b, c, sum - a - b - c)))
    })
}

fn factorial(number: u64) -> u64 {
    (1..=number).product()
}

/// Compares all histories of these families, of which there are so many.
fn assert_agreed(families: &[Family], histories: u64) {
    let mut all = Compared::default();
    for family in families {
        let compared = family.compare();
        assert_eq!(compared.causal + compared.anomalous, family.promised());
        all.causal += compared.causal;
        all.anomalous += compared.anomalous;
    }
    println!("{all:?}");
    assert!(all.causal > 0 && all.anomalous > 0);
    assert_eq!(all.causal + all.anomalous, histories);
}

const PLAIN: Family = Family::PLAIN;

#[test]
fn on_whatever_up_to_three_operations_may_see() {
    let families = [
        Family {
            operations: 1,
            keys: 2,
            strange: true,
            outcomes: &[Acknowledged, Unknown, Unstated],
            ..PLAIN
        },
        Family {
            operations: 2,
            keys: 2,
            strange: true,
            outcomes: &[Acknowledged, Unknown, Unstated],
            ..PLAIN
        },
        Family { operations: 3, strange: true, outcomes: &[Acknowledged, Unknown], ..PLAIN },
        Family { operations: 3, keys: 2, strange: true, ..PLAIN },
    ];
    assert_agreed(&families, 190_614);
}

#[test]
fn on_all_of_up_to_four_operations() {
    let families = [
        Family { operations: 2, keys: 2, ..PLAIN },
        Family { operations: 3, keys: 2, ..PLAIN },
        Family { operations: 4, ..PLAIN },
        Family { operations: 4, keys: 2, writes_max: 3, ..PLAIN },
    ];
    assert_agreed(&families, 40_423);
}

#[test]
fn on_writes_without_a_reply() {
    let families = [
        Family { operations: 3, outcomes: &[Acknowledged, Unknown, Unstated], ..PLAIN },
        Family { operations: 4, writes_max: 3, outcomes: &[Acknowledged, Unknown], ..PLAIN },
        Family { operations: 4, writes_max: 2, outcomes: &[Acknowledged, Unknown, Unstated], ..PLAIN },
        Family { operations: 5, writes_max: 2, outcomes: &[Acknowledged, Unknown], ..PLAIN },
    ];
    assert_agreed(&families, 144_748);
}

#[test]
fn on_writes_that_do_not_say_what_they_replaced() {
    let families = [
        Family { operations: 4, writes_max: 3, outcomes: &[Acknowledged, Unstated], ..PLAIN },
        Family {
            operations: 5,
            sessions_max: 2,
            writes_max: 3,
            seen_max: 1,
            outcomes: &[Acknowledged, Unstated],
            ..PLAIN
        },
    ];
    assert_agreed(&families, 189_063);
}

#[test]
fn on_five_operations() {
    let families = [
        Family { operations: 5, writes_max: 2, keys: 2, ..PLAIN },
        Family { operations: 5, writes_max: 3, seen_max: 1, ..PLAIN },
    ];
    assert_agreed(&families, 57_710);
}

#[test]
fn on_six_operations() {
    let families = [
        Family { operations: 6, writes_max: 2, ..PLAIN },
        Family { operations: 6, writes_max: 2, keys: 2, seen_max: 1, sessions_max: 2, ..PLAIN },
    ];
    assert_agreed(&families, 191_631);
}
