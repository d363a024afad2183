//! The causal order of operations.

use crate::anomaly::{Anomaly, Pattern};
use crate::graph::{Graph, Id};

/// The causal order: the transitive closure of session order and of a write coming before what saw its value.
///
/// Each operation knows how many leading operations of each session are before it. That says everything about
/// acknowledged writes and reads. A write without a reply is no part of its session's order, only a branch
/// off it; such a write is before an operation when something that saw it is, so each of them knows the first
/// operation of each session that comes after it.
pub(crate) struct Order<'g, 'h> {
    graph: &'g Graph<'h>,
    topological: Vec<Id>,
    /// By operation, then session: how many leading operations are at or before it.
    clocks: Vec<u32>,
    /// By operation, then session: the first operation after this write without a reply. Empty for others.
    followers: Vec<Vec<u32>>,
}

impl<'g, 'h> Order<'g, 'h> {
    /// Orders the operations. O((operations + values seen) · sessions) time, O(operations · sessions) space.
    ///
    /// # Errors
    ///
    /// [`Pattern::CyclicCO`] when there is no such order.
    pub(crate) fn new(graph: &'g Graph<'h>) -> Result<Self, Anomaly> {
        let topological = topological(graph)?;
        let mut order = Self {
            graph,
            topological,
            clocks: vec![0; graph.nodes.len() * graph.sessions],
            followers: vec![Vec::new(); graph.nodes.len()],
        };
        let mut clock = vec![0; graph.sessions];
        for at in 0..order.topological.len() {
            order.place(order.topological[at], &mut clock);
        }
        Ok(order)
    }

    /// The operations that happened, each after everything before it.
    pub(crate) fn operations(&self) -> impl Iterator<Item = Id> + '_ {
        self.topological.iter().copied()
    }

    /// How many leading operations of each session are at or before `id`.
    pub(crate) fn clock(&self, id: Id) -> &[u32] {
        &self.clocks[id * self.graph.sessions..(id + 1) * self.graph.sessions]
    }

    /// Whether `write` is `id` or before it. O(1) for an acknowledged write, O(sessions) for others, and
    /// O(values seen by writes without a reply) between two of those.
    pub(crate) fn reaches(&self, write: Id, id: Id) -> bool {
        let node = &self.graph.nodes[write];
        if write == id {
            return true;
        }
        if node.operation.is_certain() {
            return self.clock(id)[node.place.session] > position(node.place.index);
        }
        self.followers[write].iter().zip(self.clock(id)).any(|(first, count)| first < count)
            || self.is_below(write, id)
    }

    /// Whether `id` saw `write` by way of nothing but writes without a reply.
    fn is_below(&self, write: Id, id: Id) -> bool {
        let mut visited = Vec::new();
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            if id == write {
                return true;
            }
            if self.graph.nodes[id].operation.is_certain() || visited.contains(&id) {
                continue;
            }
            visited.push(id);
            pending.extend(&self.graph.nodes[id].seen);
        }
        false
    }

    fn place(&mut self, id: Id, clock: &mut [u32]) {
        clock.fill(0);
        for before in self.graph.predecessors(id) {
            for (count, other) in clock.iter_mut().zip(self.clock(before)) {
                *count = (*count).max(*other);
            }
        }
        let node = &self.graph.nodes[id];
        if node.operation.is_certain() {
            clock[node.place.session] = position(node.place.index) + 1;
            self.follow(id);
        } else {
            self.followers[id] = vec![u32::MAX; self.graph.sessions];
        }
        self.clocks[id * clock.len()..(id + 1) * clock.len()].copy_from_slice(clock);
    }

    /// Tells the writes without a reply that `id` saw that it comes after them.
    fn follow(&mut self, id: Id) {
        let place = self.graph.nodes[id].place;
        let mut pending = self.graph.nodes[id].seen.clone();
        while let Some(write) = pending.pop() {
            // An earlier operation of the session that saw this write told those below it, too.
            if let Some(first) = self.followers[write].get_mut(place.session)
                && *first == u32::MAX
            {
                *first = position(place.index);
                pending.extend(&self.graph.nodes[write].seen);
            }
        }
    }
}

fn topological(graph: &Graph<'_>) -> Result<Vec<Id>, Anomaly> {
    let mut missing = vec![0; graph.nodes.len()];
    let mut successors = vec![Vec::new(); graph.nodes.len()];
    for id in graph.happened() {
        for before in graph.predecessors(id) {
            missing[id] += 1;
            successors[before].push(id);
        }
    }
    let mut order: Vec<Id> = graph.happened().filter(|&id| missing[id] == 0).collect();
    let mut done = 0;
    while let Some(&id) = order.get(done) {
        done += 1;
        for &next in &successors[id] {
            missing[next] -= 1;
            if missing[next] == 0 {
                order.push(next);
            }
        }
    }
    match graph.happened().find(|&id| missing[id] > 0) {
        Some(stuck) => Err(cycle(graph, stuck, &missing)),
        None => Ok(order),
    }
}

/// A cycle at or before `stuck`, when `missing` counts for each operation those right before it that could
/// not be ordered.
fn cycle(graph: &Graph<'_>, stuck: Id, missing: &[usize]) -> Anomaly {
    let mut visited = vec![false; graph.nodes.len()];
    let mut at = stuck;
    while !visited[at] {
        visited[at] = true;
        at = graph
            .predecessors(at)
            .find(|&before| missing[before] > 0)
            .expect("an operation that could not be ordered waits for another one");
    }
    graph.anomaly(Pattern::CyclicCO, at, Vec::new(), &graph.path(at, at))
}

fn position(index: usize) -> u32 {
    u32::try_from(index).expect("a session has fewer operations than fit into memory")
}
