//! What clients were told, and whether what is found agrees with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use comity_history::{History, Operation, Outcome};

use crate::lines::Sums;

/// Something that a replica must never do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Who noticed.
    pub oracle: Oracle,
    /// What.
    pub detail: String,
}

impl Violation {
    /// What an oracle noticed.
    pub fn new(oracle: Oracle, detail: impl Into<String>) -> Self {
        Self { oracle, detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle.promise(), self.detail)
    }
}

/// Who judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    /// What was acknowledged is there after every restart.
    Recovered,
    /// Counters are exact.
    Counters,
    /// Sets hold what was acknowledged, and nothing that nobody added.
    Elements,
    /// A change set is visible as a whole.
    Whole,
    /// Sessions never go back.
    Sessions,
    /// Every register ends at its undominated values.
    Registers,
    /// All replicas are the same in the end.
    Convergence,
    /// The history is causally consistent.
    Causality,
    /// Nothing is acknowledged after a sync failed.
    FailedSync,
    /// A full disk refuses writes only, with a name, and for as long as it is full.
    FullDisk,
    /// Replicas open, answer, and do not panic.
    Alive,
    /// A kill damages nothing and costs no incarnation.
    Undamaged,
}

impl Oracle {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 12] = [
        Self::Recovered,
        Self::Counters,
        Self::Elements,
        Self::Whole,
        Self::Sessions,
        Self::Registers,
        Self::Convergence,
        Self::Causality,
        Self::FailedSync,
        Self::FullDisk,
        Self::Alive,
        Self::Undamaged,
    ];

    /// What it watches over.
    pub fn promise(self) -> &'static str {
        match self {
            Self::Recovered => "what was acknowledged survives every restart",
            Self::Counters => "counters are exact",
            Self::Elements => "sets hold what was acknowledged and nothing else",
            Self::Whole => "change sets are visible as a whole",
            Self::Sessions => "sessions never go back",
            Self::Registers => "registers end at their undominated values",
            Self::Convergence => "all replicas end up the same",
            Self::Causality => "the history is causally consistent",
            Self::FailedSync => "nothing is acknowledged after a failed sync",
            Self::FullDisk => "a full disk refuses writes only, and recovers",
            Self::Alive => "replicas open, answer and do not panic",
            Self::Undamaged => "nothing is damaged, frozen or re-incarnated",
        }
    }
}

/// What is known of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was sent.
    Tried,
    /// It was acknowledged: it counts exactly once.
    Acknowledged,
    /// Its outcome is not known: it counts once or not at all.
    Unknown,
    /// It was refused: it does not count.
    Refused,
}

/// Every addition that was tried.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    additions: BTreeMap<String, (usize, Fate)>,
}

impl Ledger {
    /// Notes what became of an addition at a node. Each element is tried once.
    pub fn note(&mut self, element: &str, node: usize, fate: Fate) {
        let before = self.additions.insert(element.to_owned(), (node, fate));
        let is_next = match before {
            None => fate == Fate::Tried,
            Some((at, before)) => at == node && before == Fate::Tried,
        };
        assert!(is_next, "{element} at node {node}: {before:?}, then {fate:?}");
    }

    /// Additions at a node, or at all, with such a fate.
    pub fn count(&self, node: Option<usize>, fate: Fate) -> u64 {
        let of = |(at, known): &&(usize, Fate)| *known == fate && node.is_none_or(|node| node == *at);
        self.additions.values().filter(of).count() as u64
    }

    /// The most and the least that a node may count of its own.
    fn bounds(&self, node: usize) -> (u64, u64) {
        let [acknowledged, unknown, tried] =
            [Fate::Acknowledged, Fate::Unknown, Fate::Tried].map(|fate| self.count(Some(node), fate));
        (acknowledged, acknowledged + unknown + tried)
    }

    fn own(&self, oracle: Oracle, node: usize, own: u64) -> Option<Violation> {
        let (low, high) = self.bounds(node);
        let detail = || format!("node {node} counts {own} of its own; {low} to {high} are possible");
        (!(low..=high).contains(&own)).then(|| Violation::new(oracle, detail()))
    }

    /// Judges what a node found in its directory.
    pub fn check_recovered(&self, node: usize, sums: &Sums) -> Vec<Violation> {
        let own = sums.own.get(node).copied().unwrap_or_default();
        check_whole(sums).into_iter().chain(self.own(Oracle::Recovered, node, own)).collect()
    }

    /// Judges what a node counts in the end.
    pub fn check_sums(&self, sums: &Sums) -> Vec<Violation> {
        let own =
            sums.own.iter().enumerate().filter_map(|(node, own)| self.own(Oracle::Counters, node, *own));
        check_whole(sums).into_iter().chain(own).collect()
    }

    /// Judges the elements that a node lists in the end.
    pub fn check_elements(&self, node: usize, elements: &BTreeSet<String>) -> Vec<Violation> {
        let acknowledged = self.additions.iter().filter(|(_, (_, fate))| *fate == Fate::Acknowledged);
        let missing: Vec<&String> =
            acknowledged.map(|(element, _)| element).filter(|element| !elements.contains(*element)).collect();
        let strange = elements
            .iter()
            .filter(|element| self.additions.get(*element).is_none_or(|(_, fate)| *fate == Fate::Refused));
        let strange: Vec<&String> = strange.collect();
        let wrong = [("lacks", "acknowledged", missing), ("has", "never added, or refused", strange)];
        let wrong = wrong.into_iter().filter(|(_, _, elements)| !elements.is_empty());
        let detail = |(verb, what, elements): (&str, &str, Vec<&String>)| {
            let some = &elements[..elements.len().min(ELEMENTS_SHOWN_MAX)];
            format!("node {node} {verb} {} elements that were {what}: {some:?}", elements.len())
        };
        wrong.map(|wrong| Violation::new(Oracle::Elements, detail(wrong))).collect()
    }
}

/// Elements named in one violation.
const ELEMENTS_SHOWN_MAX: usize = 5;

/// Judges that what is counted in one view belongs to whole change sets.
pub fn check_whole(sums: &Sums) -> Option<Violation> {
    let own: u64 = sums.own.iter().sum();
    let is_whole = sums.all == sums.elements && sums.all == own;
    (!is_whole).then(|| Violation::new(Oracle::Whole, format!("{sums:?}")))
}

/// Judges the values that every register ends with: those of writes that took place and that no other such write
/// replaced. A write took place when it was acknowledged, is seen in the end, or was replaced by one that did.
pub fn check_registers(history: &History, ends: &BTreeMap<u32, BTreeSet<u64>>) -> Vec<Violation> {
    let mut replaced_by: BTreeMap<u64, &[u64]> = BTreeMap::new();
    let mut took_place: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for operation in history.sessions.iter().flatten() {
        if let Operation::Write { key, value, replaced, outcome } = operation {
            replaced_by.insert(*value, replaced);
            if *outcome == Outcome::Acknowledged {
                took_place.entry(*key).or_default().push(*value);
            }
        }
    }
    let mut violations = Vec::new();
    let keys: BTreeSet<u32> = took_place.keys().chain(ends.keys()).copied().collect();
    for key in keys {
        let end = ends.get(&key).cloned().unwrap_or_default();
        let mut open = took_place.remove(&key).unwrap_or_default();
        open.extend(&end);
        let (mut known, mut dominated) = (BTreeSet::new(), BTreeSet::new());
        while let Some(value) = open.pop() {
            if known.insert(value) {
                let replaced = replaced_by.get(&value).copied().unwrap_or_default();
                dominated.extend(replaced);
                open.extend(replaced);
            }
        }
        let expected: BTreeSet<u64> = known.difference(&dominated).copied().collect();
        if expected != end {
            let (lost, risen) = (expected.difference(&end), end.difference(&expected));
            let (lost, risen): (Vec<_>, Vec<_>) = (lost.collect(), risen.collect());
            let detail = format!("register {key} lost {lost:?} and shows {risen:?}, which were replaced");
            violations.push(Violation::new(Oracle::Registers, detail));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(additions: &[(&str, usize, Fate)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (element, node, fate) in additions {
            ledger.note(element, *node, Fate::Tried);
            if *fate != Fate::Tried {
                ledger.note(element, *node, *fate);
            }
        }
        ledger
    }

    fn mixed() -> Ledger {
        ledger(&[
            ("a", 0, Fate::Acknowledged),
            ("b", 0, Fate::Acknowledged),
            ("c", 0, Fate::Unknown),
            ("d", 0, Fate::Refused),
            ("e", 1, Fate::Acknowledged),
            ("f", 1, Fate::Tried),
        ])
    }

    fn sums(own: &[u64]) -> Sums {
        let all = own.iter().sum();
        Sums { all, elements: all, own: own.to_vec() }
    }

    fn oracles(violations: &[Violation]) -> Vec<Oracle> {
        violations.iter().map(|violation| violation.oracle).collect()
    }

    #[test]
    fn counting_from_what_was_acknowledged_to_what_was_unknown_is_right() {
        for own in [[2, 1], [3, 1], [2, 2], [3, 2]] {
            assert_eq!(mixed().check_sums(&sums(&own)), []);
        }
        assert_eq!(mixed().check_recovered(0, &sums(&[2, 0])), []);
    }

    #[test]
    fn a_lost_or_doubled_addition_is_noticed() {
        assert_eq!(oracles(&mixed().check_sums(&sums(&[1, 1]))), [Oracle::Counters]);
        assert_eq!(oracles(&mixed().check_sums(&sums(&[4, 1]))), [Oracle::Counters]);
        assert_eq!(oracles(&mixed().check_recovered(0, &sums(&[1, 9]))), [Oracle::Recovered]);
    }

    #[test]
    fn a_part_of_a_change_set_is_noticed() {
        let part = Sums { all: 3, elements: 2, own: vec![2, 1] };
        assert_eq!(oracles(&mixed().check_recovered(0, &part)), [Oracle::Whole]);
    }

    #[test]
    fn a_lost_and_an_invented_element_are_noticed() {
        let elements = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(mixed().check_elements(0, &elements(&["a", "b", "e"])), []);
        assert_eq!(mixed().check_elements(0, &elements(&["a", "b", "c", "e", "f"])), []);
        for wrong in [&["a", "e"][..], &["a", "b", "e", "x"], &["a", "b", "d", "e"]] {
            assert_eq!(oracles(&mixed().check_elements(0, &elements(wrong))), [Oracle::Elements]);
        }
    }

    fn write(value: u64, replaced: &[u64], outcome: Outcome) -> Operation {
        Operation::Write { key: 0, value, replaced: replaced.to_vec(), outcome }
    }

    fn ends(values: &[u64]) -> BTreeMap<u32, BTreeSet<u64>> {
        BTreeMap::from([(0, values.iter().copied().collect())])
    }

    #[test]
    fn registers_end_at_what_nobody_replaced() {
        let (sure, unknown) = (Outcome::Acknowledged, Outcome::Unknown);
        let session =
            vec![write(1, &[], sure), write(2, &[1], sure), write(3, &[1], sure), write(4, &[2], unknown)];
        let history = History { sessions: vec![session] };
        assert_eq!(check_registers(&history, &ends(&[2, 3])), []);
        assert_eq!(check_registers(&history, &ends(&[4, 3])), []);
        for wrong in [&[2][..], &[], &[1, 2, 3], &[2, 3, 4]] {
            assert_eq!(oracles(&check_registers(&history, &ends(wrong))), [Oracle::Registers], "{wrong:?}");
        }
    }
}
