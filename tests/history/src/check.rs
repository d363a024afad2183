//! The verdict on a history.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::anomaly::{Anomaly, Pattern};
use crate::graph::{Graph, Id};
use crate::history::{History, Operation};
use crate::order::Order;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sessions with at least one operation.
    pub sessions: usize,
    /// Reads.
    pub reads: usize,
    /// Writes, whatever their outcome.
    pub writes: usize,
    /// Pairs of a write and an operation that saw its value. Without these nothing was checked.
    pub edges: usize,
    /// Writes without a reply that nothing saw: they may not have happened, and what they saw was not judged.
    pub unseen: usize,
    /// Omitted values that one of several [`crate::Outcome::Unstated`] writes must have replaced, without
    /// telling which. When there is none, the verdict is exact.
    pub excused: usize,
}

/// Judges whether a causally consistent store of multi-value registers can have produced `history`.
///
/// O((operations + values seen) · sessions · siblings²) time and four bytes of space for each pair of an
/// operation and a session. Histories with [`crate::Outcome::Unstated`] writes may take several such passes.
///
/// # Errors
///
/// The first anomaly in causal order. The same history always gives the same one.
pub fn check(history: &History) -> Result<Summary, Anomaly> {
    let mut graph = Graph::new(history)?;
    let mut summary = summarize(&graph);
    loop {
        let findings = Judge::new(&graph, &Order::new(&graph)?).judge()?;
        if findings.forced.is_empty() {
            summary.excused = findings.excused;
            return Ok(summary);
        }
        // Each pair is new, and there are finitely many: the loop ends.
        for (omitted, unstated) in findings.forced {
            let seen = &mut graph.nodes[unstated].seen;
            if !seen.contains(&omitted) {
                seen.push(omitted);
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, reads, writes, edges, unseen, excused } = self;
        write!(
            f,
            "{sessions} sessions, {reads} reads, {writes} writes ({unseen} of them unseen and without a reply), \
             {edges} values seen, {excused} omissions excused"
        )
    }
}

fn summarize(graph: &Graph<'_>) -> Summary {
    let mut summary = Summary::default();
    for node in &graph.nodes {
        summary.sessions += usize::from(node.place.index == 0);
        summary.edges += node.seen.len();
        summary.unseen += usize::from(!node.happened);
        match node.operation {
            Operation::Write { .. } => summary.writes += 1,
            Operation::Read { .. } => summary.reads += 1,
        }
    }
    summary
}

/// What one pass learns of unstated writes.
#[derive(Default)]
struct Findings {
    /// Pairs of a write and the only unstated write that can have replaced it.
    forced: Vec<(Id, Id)>,
    excused: usize,
}

/// Judges each operation after everything before it was found good. So every operation before it has
/// replaced or seen all that is before itself in its key, and only the last one of each session counts.
struct Judge<'a, 'h> {
    graph: &'a Graph<'h>,
    order: &'a Order<'a, 'h>,
    /// By key and session that has any: all operations but the writes without a reply.
    keys: HashMap<u32, Vec<Lane>>,
    /// By write, if there are unstated ones: the operations that saw it, other than writes without a reply.
    witnesses: HashMap<Id, Vec<Id>>,
    findings: Findings,
}

/// What one session did to one key.
struct Lane {
    session: usize,
    /// By index in the session.
    operations: Vec<(usize, Id)>,
}

impl<'a, 'h> Judge<'a, 'h> {
    fn new(graph: &'a Graph<'h>, order: &'a Order<'a, 'h>) -> Self {
        let mut keys: HashMap<u32, Vec<Lane>> = HashMap::new();
        let mut witnesses: HashMap<Id, Vec<Id>> = HashMap::new();
        let has_unstated = graph.happened().any(|id| graph.nodes[id].operation.is_unstated());
        for id in graph.happened().filter(|&id| graph.nodes[id].operation.is_certain()) {
            let node = &graph.nodes[id];
            let (session, operation) = (node.place.session, (node.place.index, id));
            let lanes = keys.entry(node.operation.key()).or_default();
            match lanes.last_mut() {
                Some(lane) if lane.session == session => lane.operations.push(operation),
                _ => lanes.push(Lane { session, operations: vec![operation] }),
            }
            for write in node.seen.iter().filter(|_| has_unstated) {
                witnesses.entry(*write).or_default().push(id);
            }
        }
        Self { graph, order, keys, witnesses, findings: Findings::default() }
    }

    fn judge(mut self) -> Result<Findings, Anomaly> {
        let order = self.order;
        for id in order.operations() {
            if self.graph.nodes[id].operation.is_unstated() {
                continue;
            }
            self.judge_dominated(id)?;
            let known = self.known(id);
            for &write in &known {
                if !self.is_seen(id, write) {
                    self.judge_omitted(id, write, &known)?;
                }
            }
        }
        Ok(self.findings)
    }

    fn judge_dominated(&self, id: Id) -> Result<(), Anomaly> {
        let seen = &self.graph.nodes[id].seen;
        for &old in seen {
            for &new in seen {
                if old != new && self.order.reaches(old, new) {
                    let values = vec![self.graph.value(old), self.graph.value(new)];
                    let mut path = self.graph.path(old, new);
                    path.push(id);
                    return Err(self.graph.anomaly(Pattern::DominatedRead, id, values, &path));
                }
            }
        }
        Ok(())
    }

    /// The writes before `id` in its key, without those that others of them replaced.
    fn known(&self, id: Id) -> Vec<Id> {
        let node = &self.graph.nodes[id];
        let clock = self.order.clock(id);
        let mut known = Vec::new();
        for Lane { session, operations } in self.keys.get(&node.operation.key()).into_iter().flatten() {
            let mut count = clock[*session] as usize;
            if *session == node.place.session && node.operation.is_certain() {
                count = count.min(node.place.index);
            }
            let before = operations.partition_point(|(index, _)| *index < count);
            let Some(&(_, last)) = operations[..before].last() else { continue };
            match self.graph.nodes[last].operation {
                Operation::Write { .. } => known.push(last),
                Operation::Read { .. } => known.extend(&self.graph.nodes[last].seen),
            }
        }
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Whether `id` saw `write`, which is before it, or something that replaced it.
    fn is_seen(&self, id: Id, write: Id) -> bool {
        let seen = &self.graph.nodes[id].seen;
        seen.contains(&write) || seen.iter().any(|&value| self.order.reaches(write, value))
    }

    /// Judges whether an unstated write may be why `id` did not see `write`, one of the `known`.
    fn judge_omitted(&mut self, id: Id, write: Id, known: &[Id]) -> Result<(), Anomaly> {
        match self.unstated_that_may_have_replaced(write, id).as_slice() {
            [] => {
                // What comes after it in the key was not seen either, and the last such tells most.
                let is_last =
                    |one: Id| known.iter().all(|&other| other == one || !self.order.reaches(one, other));
                let after = |&one: &Id| self.order.reaches(write, one) && is_last(one);
                return Err(self.omission(id, known.iter().copied().find(after).unwrap_or(write)));
            }
            [only] => self.findings.forced.push((write, *only)),
            _ => self.findings.excused += 1,
        }
        Ok(())
    }

    /// The unstated writes behind what `id` saw that may have replaced `write`. O(writes that are neither
    /// before nor after it, and operations that saw it).
    fn unstated_that_may_have_replaced(&self, write: Id, id: Id) -> Vec<Id> {
        let mut found = Vec::new();
        let mut visited = HashSet::new();
        let mut pending = self.graph.nodes[id].seen.clone();
        while let Some(other) = pending.pop() {
            if self.order.reaches(other, write) || !visited.insert(other) {
                continue;
            }
            let node = &self.graph.nodes[other];
            pending.extend(&node.seen);
            if node.operation.is_unstated() {
                pending.extend(self.known(other));
                found.push(other);
            }
        }
        // Whatever comes after a replacement no longer sees what was replaced.
        let witnesses = self.witnesses.get(&write).map_or([].as_slice(), Vec::as_slice);
        found.retain(|&other| !witnesses.iter().any(|&witness| self.order.reaches(other, witness)));
        found
    }

    fn omission(&self, id: Id, write: Id) -> Anomaly {
        let seen = &self.graph.nodes[id].seen;
        let missing = self.graph.value(write);
        let path = self.graph.path(write, id);
        if seen.is_empty() {
            return self.graph.anomaly(Pattern::WriteCOInitRead, id, vec![missing], &path);
        }
        let Some(&stale) = seen.iter().find(|&&old| self.order.reaches(old, write)) else {
            return self.graph.anomaly(Pattern::OmittedWrite, id, vec![missing], &path);
        };
        let values = vec![self.graph.value(stale), missing];
        let mut whole = self.graph.path(stale, write);
        whole.extend(path.into_iter().skip(1));
        self.graph.anomaly(Pattern::WriteCORead, id, values, &whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Result<Summary, Anomaly> {
        check(&text.parse().expect("the text is right"))
    }

    fn complaint(text: &str) -> String {
        verdict(text).expect_err("there is an anomaly").to_string()
    }

    #[test]
    fn an_empty_history_is_accepted() {
        assert_eq!(verdict(""), Ok(Summary::default()));
    }

    #[test]
    fn siblings_and_what_replaces_them_are_accepted_and_counted() {
        let summary = verdict("0 1 W 5 ok\n1 1 W 6 ok\n2 1 R 6 5\n2 1 W 7 ok 5 6\n0 1 R 7\n1 2 R\n");
        let counted = Summary { sessions: 3, reads: 3, writes: 3, edges: 5, ..Summary::default() };
        assert_eq!(summary, Ok(counted));
    }

    #[test]
    fn a_write_without_a_reply_is_not_before_its_session() {
        assert!(verdict("0 1 W 5 unknown\n0 1 R\n0 1 R 5\n").is_ok());
        assert!(verdict("0 1 W 5 ok\n0 1 R\n").is_err());
        assert!(verdict("0 1 W 5 unknown\n0 1 R 5\n0 1 R\n").is_err());
    }

    #[test]
    fn a_write_without_a_reply_may_happen_after_its_sessions_next_operations() {
        assert!(verdict("0 1 W 5 unknown 6\n0 1 W 6 ok\n1 1 R 5\n").is_ok());
        assert!(verdict("0 1 W 5 ok 6\n0 1 W 6 ok\n1 1 R 5\n").is_err());
    }

    #[test]
    fn what_an_unseen_write_without_a_reply_saw_is_not_judged() {
        let summary = verdict("0 1 W 5 ok\n0 1 W 6 unknown\n").expect("nothing saw 6");
        assert_eq!(summary.unseen, 1);
        assert!(verdict("0 1 W 5 ok\n0 1 W 6 unknown\n1 1 R 6\n").is_err());
    }

    #[test]
    fn writes_without_a_reply_are_followed_through_each_other() {
        let chain = "0 1 W 5 unknown\n1 1 W 6 unknown 5\n2 1 W 7 unknown 6\n";
        assert!(verdict(&format!("{chain}3 1 R 7\n")).is_ok());
        assert!(complaint(&format!("{chain}3 1 R 7\n3 1 R 5\n")).starts_with("WriteCORead: "));
        assert!(complaint(&format!("{chain}3 1 R 5 7\n")).starts_with("DominatedRead: "));
    }

    #[test]
    fn an_unstated_write_may_have_replaced_what_it_does_not_say() {
        let both = "0 1 W 5 ok\n1 1 W 6 unstated\n2 1 R 5\n2 1 R 6\n";
        assert_eq!(verdict(both).map(|summary| summary.excused), Ok(0));
        assert!(complaint(&both.replace("unstated", "unknown")).starts_with("OmittedWrite: "));
        // But not sometimes.
        assert!(complaint(&format!("{both}2 1 R 5 6\n")).starts_with("OmittedWrite: "));
        // And not what came after it.
        assert!(verdict("1 1 W 6 unstated\n0 1 R 6\n0 1 W 5 ok 6\n0 1 R 6\n").is_err());
    }

    #[test]
    fn which_of_two_unstated_writes_replaced_a_value_is_left_open() {
        let either = "0 1 W 5 ok\n1 1 W 6 unstated\n2 1 W 7 unstated\n3 1 R 5\n3 1 R 6 7\n";
        assert_eq!(verdict(either).map(|summary| summary.excused), Ok(1));
    }

    #[test]
    fn an_anomaly_says_what_happened_where() {
        for (text, said) in [
            (
                "0 1 W 5 ok\n0 2 W 8 ok\n1 2 R 8\n1 1 R\n",
                "WriteCOInitRead: session 1 operation 1 saw no value of key 1, although 5 is in its causal past \
                 (session 0 operation 0 -> session 0 operation 1 -> session 1 operation 0 -> session 1 operation 1)",
            ),
            (
                "0 1 W 5 ok\n1 1 R 5\n1 1 R 5\n1 1 W 6 ok 5\n1 1 R 5\n",
                "WriteCORead: session 1 operation 3 saw [5] in key 1, although 6, which replaced 5, is in its \
                 causal past (session 0 operation 0 -> session 1 operation 2 -> session 1 operation 3)",
            ),
            (
                "0 1 W 5 ok\n1 1 R 6\n",
                "ThinAirRead: session 1 operation 0 saw 6 in key 1, which nobody wrote there",
            ),
            (
                "0 1 R 5\n0 1 W 5 ok\n",
                "CyclicCO: session 0 operation 0 happened before itself \
                 (session 0 operation 0 -> session 0 operation 1 -> session 0 operation 0)",
            ),
        ] {
            assert_eq!(complaint(text), said);
        }
    }
}
