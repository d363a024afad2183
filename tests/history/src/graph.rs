//! Who happened right after whom.

use std::collections::{HashMap, VecDeque};

use crate::anomaly::{Anomaly, Pattern};
use crate::history::{History, Operation, Place};

/// An operation of a history: operations are numbered session by session.
pub(crate) type Id = usize;

/// The operations that happened, and for each those right before it.
pub(crate) struct Graph<'h> {
    /// All operations of the history.
    pub(crate) nodes: Vec<Node<'h>>,
    /// How many sessions the history has.
    pub(crate) sessions: usize,
}

/// One operation.
pub(crate) struct Node<'h> {
    pub(crate) place: Place,
    pub(crate) operation: &'h Operation,
    /// Whether the operation is known to have happened; nothing below holds of one that may not have.
    pub(crate) happened: bool,
    /// The last operation of the session that this one comes after.
    pub(crate) previous: Option<Id>,
    /// The writes of what it saw, and for an unstated write also of what it must have seen.
    pub(crate) seen: Vec<Id>,
}

impl<'h> Graph<'h> {
    /// Finds the write of every value that was seen. O(operations + values seen).
    ///
    /// # Errors
    ///
    /// [`Pattern::WrittenTwice`], [`Pattern::ThinAirRead`] and [`Pattern::RepeatedValue`].
    pub(crate) fn new(history: &'h History) -> Result<Self, Anomaly> {
        let mut graph = Self { nodes: nodes(history), sessions: history.sessions.len() };
        let writes = graph.writes()?;
        let mut reached: Vec<Id> =
            (0..graph.nodes.len()).rev().filter(|&id| graph.nodes[id].happened).collect();
        while let Some(id) = reached.pop() {
            graph.nodes[id].seen = graph.resolve(id, &writes)?;
            for write in graph.nodes[id].seen.clone() {
                if !graph.nodes[write].happened {
                    graph.nodes[write].happened = true;
                    reached.push(write);
                }
            }
        }
        Ok(graph)
    }

    /// The operations that happened.
    pub(crate) fn happened(&self) -> impl Iterator<Item = Id> + '_ {
        (0..self.nodes.len()).filter(|&id| self.nodes[id].happened)
    }

    /// The operations right before `id`: all others before it are before these.
    pub(crate) fn predecessors(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        let node = &self.nodes[id];
        node.previous.into_iter().chain(node.seen.iter().copied())
    }

    /// A way from `from` to `to` in causal order, along as few changes of session as there are. Both ends
    /// included, also when they are the same: then it is a cycle. Empty when there is none. O(operations).
    pub(crate) fn path(&self, from: Id, to: Id) -> Vec<Id> {
        let mut after: Vec<Option<Id>> = vec![None; self.nodes.len()];
        let mut queue: VecDeque<(Id, Id)> = self.nodes[to].seen.iter().map(|&write| (write, to)).collect();
        queue.extend(self.nodes[to].previous.map(|previous| (previous, to)));
        while let Some((id, next)) = queue.pop_front() {
            if after[id].is_some() {
                continue;
            }
            after[id] = Some(next);
            if id == from {
                break;
            }
            queue.extend(self.nodes[id].seen.iter().map(|&write| (write, id)));
            if let Some(previous) = self.nodes[id].previous {
                queue.push_front((previous, id));
            }
        }
        let mut path = Vec::new();
        let mut at = from;
        while let Some(next) = after[at] {
            path.push(at);
            at = next;
            if at == to {
                path.push(to);
                break;
            }
        }
        path
    }

    /// An anomaly that `id` shows.
    pub(crate) fn anomaly(&self, pattern: Pattern, id: Id, values: Vec<u64>, path: &[Id]) -> Anomaly {
        let node = &self.nodes[id];
        Anomaly {
            pattern,
            at: node.place,
            key: node.operation.key(),
            seen: node.operation.seen().to_vec(),
            values,
            witnesses: ends_of_runs(path.iter().map(|&id| self.nodes[id].place)),
        }
    }

    /// The value that a write wrote.
    pub(crate) fn value(&self, id: Id) -> u64 {
        match self.nodes[id].operation {
            Operation::Write { value, .. } => *value,
            Operation::Read { .. } => unreachable!("a read wrote nothing"),
        }
    }

    fn writes(&self) -> Result<HashMap<u64, Id>, Anomaly> {
        let mut writes = HashMap::new();
        for (id, node) in self.nodes.iter().enumerate() {
            let Operation::Write { value, .. } = node.operation else { continue };
            if let Some(first) = writes.insert(*value, id) {
                let mut anomaly = self.anomaly(Pattern::WrittenTwice, id, vec![*value], &[]);
                anomaly.witnesses = vec![self.nodes[first].place, node.place];
                return Err(anomaly);
            }
        }
        Ok(writes)
    }

    fn resolve(&self, id: Id, writes: &HashMap<u64, Id>) -> Result<Vec<Id>, Anomaly> {
        let operation = self.nodes[id].operation;
        let mut seen = Vec::with_capacity(operation.seen().len());
        for &value in operation.seen() {
            let write = writes.get(&value).copied();
            match write.filter(|&write| self.nodes[write].operation.key() == operation.key()) {
                Some(write) => seen.push(write),
                None => return Err(self.anomaly(Pattern::ThinAirRead, id, vec![value], write.as_slice())),
            }
        }
        seen.sort_unstable();
        match seen.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                let value = self.value(pair[0]);
                Err(self.anomaly(Pattern::RepeatedValue, id, vec![value], &[pair[0], id]))
            }
            None => Ok(seen),
        }
    }
}

fn nodes(history: &History) -> Vec<Node<'_>> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for (session, operations) in history.sessions.iter().enumerate() {
        let mut previous = None;
        for (index, operation) in operations.iter().enumerate() {
            let happened = operation.is_certain();
            let place = Place { session, index };
            nodes.push(Node { place, operation, happened, previous, seen: Vec::new() });
            if happened {
                previous = Some(nodes.len() - 1);
            }
        }
    }
    nodes
}

fn ends_of_runs(places: impl Iterator<Item = Place>) -> Vec<Place> {
    let mut shortened: Vec<Place> = Vec::new();
    for place in places {
        let [.., before, last] = shortened.as_mut_slice() else {
            shortened.push(place);
            continue;
        };
        let is_run = before.session == place.session && last.session == place.session;
        if is_run && before.index < last.index && last.index < place.index {
            *last = place;
        } else {
            shortened.push(place);
        }
    }
    shortened
}
