//! What every replica must show, told independently of the engine: a write is a number, and from which
//! writes its author had seen everything else follows.

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::{SpaceId, Value};
use comity_engine::{Durability, Reply, RequestId, StateRead, TxError};

use super::World;

/// One write of the schedule.
struct Write {
    /// The writes its author had seen.
    seen: BTreeSet<i64>,
    delta: i64,
    /// Whose tag it takes away.
    untags: Option<i64>,
    node: usize,
    request: RequestId,
    acknowledged: bool,
}

/// Every write that was ever attempted.
#[derive(Default)]
pub(crate) struct Model {
    writes: BTreeMap<i64, Write>,
}

fn numbers(read: &dyn StateRead, space: &SpaceId, key: &str) -> BTreeSet<i64> {
    let elements = comity_engine::set_elements(read, space, ("model", key), None, usize::MAX).unwrap();
    elements.iter().map(number).collect()
}

fn number(value: &Value) -> i64 {
    match value {
        Value::I64(number) => *number,
        other => panic!("{other:?}"),
    }
}

impl Model {
    /// One transaction over four objects at a node: counts, adds itself to two sets, takes the `untag`th
    /// visible tag away, and replaces the register.
    pub(crate) fn write(&mut self, world: &mut World, node: usize, space: SpaceId, untag: Option<usize>) {
        let id = self.writes.len() as i64 + 1;
        let delta = id * 7 - 20;
        let (result, request) = world.write_with::<_, TxError>(node, space, Durability::Local, |tx| {
            let seen = numbers(tx.state(), &space, "ids");
            let tags = numbers(tx.state(), &space, "tags");
            let untags = untag.and_then(|n| tags.iter().nth(n % tags.len().max(1)).copied());
            tx.counter_add("model", "sum", delta)?;
            tx.set_add("model", "ids", Value::I64(id))?;
            tx.set_add("model", "tags", Value::I64(id))?;
            if let Some(tag) = untags {
                tx.set_remove("model", "tags", Value::I64(tag))?;
            }
            tx.register_write("model", "last", Value::I64(id))?;
            Ok((seen, untags))
        });
        let (seen, untags) = result.unwrap();
        let write = Write { seen, delta, untags, node, request, acknowledged: false };
        self.writes.insert(id, write);
    }

    /// Holds what readers of a node see against the writes that are visible there. Returns those.
    pub(crate) fn check(&mut self, world: &World, node: usize, space: SpaceId) -> BTreeSet<i64> {
        let view = world.nodes[node].disk.view();
        let present = numbers(&view, &space, "ids");
        let writes: Vec<&Write> = present.iter().map(|id| &self.writes[id]).collect();
        for (id, write) in present.iter().zip(&writes) {
            assert!(
                write.seen.is_subset(&present),
                "invariant 7: {id} is visible before what its author saw"
            );
        }
        let sum: i128 = writes.iter().map(|write| i128::from(write.delta)).sum();
        let counter = comity_engine::counter(&view, &space, "model", "sum").unwrap();
        assert_eq!(counter, sum, "invariants 6 and 10: each write counts once and as a whole");
        let untagged: BTreeSet<i64> = writes.iter().filter_map(|write| write.untags).collect();
        let tags: BTreeSet<i64> = present.difference(&untagged).copied().collect();
        assert_eq!(numbers(&view, &space, "tags"), tags);
        let replaced: BTreeSet<i64> = writes.iter().flat_map(|write| write.seen.iter().copied()).collect();
        let siblings: BTreeSet<i64> = present.difference(&replaced).copied().collect();
        let register = comity_engine::register(&view, &space, "model", "last").unwrap();
        let shown: BTreeSet<i64> = register.siblings().map(|(_, sibling)| number(&sibling.value)).collect();
        assert_eq!(shown, siblings, "exactly the writes that nobody had seen when writing are siblings");
        self.note_acknowledgements(world);
        let own = self.writes.iter().filter(|(_, write)| write.node == node && write.acknowledged);
        let own: BTreeSet<i64> = own.map(|(id, _)| *id).collect();
        assert!(own.is_subset(&present), "what was acknowledged is durable");
        present
    }

    fn note_acknowledgements(&mut self, world: &World) {
        for write in self.writes.values_mut() {
            let reply = world.nodes[write.node].replies.get(&write.request);
            write.acknowledged |= matches!(reply, Some(Ok(Reply::Acknowledged(_))));
        }
    }

    /// Every replica shows the same, and nothing that was acknowledged is missing.
    pub(crate) fn check_converged(&mut self, world: &World, space: SpaceId) {
        let first = self.check(world, 0, space);
        for node in 1..world.nodes.len() {
            assert_eq!(self.check(world, node, space), first, "node {node}");
        }
        for (id, write) in self.writes.iter().filter(|(_, write)| write.acknowledged) {
            assert!(first.contains(id), "write {id} of node {} was acknowledged", write.node);
        }
        world.assert_converged(space);
    }
}
