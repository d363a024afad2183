//! Removals that others must hear of before they are forgotten.

use std::time::Duration;

use comity_crdts::{Hlc, Kind, LaneId, SpaceId, Value};
use comity_engine::wire::{Body, LaneEntry};
use comity_engine::{Command, StateRead, Tx, TxError};

use super::World;
use super::ghost::Ghost;
use super::spec::top;

/// The keys of everything that objects are made of, without members.
pub(crate) fn rows(world: &World, node: usize) -> Vec<Vec<u8>> {
    let rows = world.nodes[node].disk.scan(&[0x30], &[0x40], usize::MAX).unwrap();
    rows.into_iter().map(|(key, _)| key).filter(|key| key[0] != 0x36).collect()
}

/// How many rows have something that is to be forgotten.
pub(crate) fn unstable(world: &World, node: usize) -> usize {
    rows(world, node).iter().filter(|key| key[0] == 0x37).count()
}

pub(crate) fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.pass(Duration::from_secs(1));
    }
}

/// Every node has written, is confirmed, and connected to every other.
pub(crate) fn writers(count: usize) -> (World, SpaceId) {
    let (mut world, space) = World::mesh(count);
    for node in 0..count {
        world.write(node, space, |tx| tx.counter_add("warm", "up", 1)).unwrap();
        let confirmation = Command::AwaitConfirmation { space, within: Duration::from_secs(1) };
        world.command(node, confirmation).unwrap();
    }
    pass(&mut world, 3);
    (world, space)
}

pub(crate) fn remove(tx: &mut Tx<'_>, number: i64) -> Result<(), TxError> {
    tx.rw_set_remove_at(&top(Kind::RwSet), Value::I64(number))
}

pub(crate) fn add(tx: &mut Tx<'_>, number: i64) -> Result<(), TxError> {
    tx.rw_set_add_at(&top(Kind::RwSet), Value::I64(number))
}

pub(crate) fn members(world: &World, node: usize, space: SpaceId) -> Vec<Value> {
    let view = world.nodes[node].disk.view();
    comity_engine::set_elements_at(&view, &space, &top(Kind::RwSet), None, 100).unwrap()
}

/// The next entry of a ghost's lane: an announcement.
pub(crate) fn announcement(
    ghost: &Ghost,
    frontier: &[(LaneId, u64)],
    admitted: &[(LaneId, u64)],
) -> LaneEntry {
    let before = ghost.tip(ghost.entries.len());
    let at = before.at.max(Hlc::new(1_700_000_000_000, 0)).succ();
    let body = Body::Checkpoint(frontier.iter().copied().collect());
    LaneEntry { admitted: admitted.iter().copied().collect(), at, body }
}
