//! How durable a write is: which replicas have said that they hold it, and whether these are the ones asked for.

use std::collections::BTreeSet;

use comity_crdts::{LaneId, ReplicaId, SpaceId, canary};

use crate::engine::Engine;
use crate::io::Durability;
use crate::op::Role;
use crate::settings::regions;
use crate::space::Space;
use crate::store::{StateRead, StoreError};

/// Of those that a durability is about, how many have a write, and how many must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) counted: u32,
    pub(crate) needed: u32,
}

impl Tally {
    pub(crate) fn is_reached(self) -> bool {
        self.counted >= self.needed
    }
}

/// The smallest number that any two of which share a member.
pub(crate) fn majority(members: u32) -> u32 {
    members / 2 + 1
}

impl Space {
    /// The members that write, as far as is known here.
    pub(crate) fn writers(&self) -> impl Iterator<Item = &ReplicaId> {
        let least = if canary!(FollowerCounted) { Role::Follower } else { Role::Writer };
        self.members.iter().filter(move |(_, role)| **role >= least).map(|(id, _)| id)
    }

    /// Other replicas that reported an entry durable.
    pub(crate) fn holders(&self, (lane, lsn): (LaneId, u64)) -> impl Iterator<Item = &ReplicaId> {
        let holds = move |durable: &comity_crdts::Frontier| durable.at(&lane) >= lsn;
        self.peer_durable.iter().filter(move |(_, durable)| holds(durable)).map(|(replica, _)| replica)
    }

    /// How many other replicas reported an entry durable.
    pub(crate) fn remote_count(&self, place: (LaneId, u64)) -> u32 {
        let others = self.holders(place).count() as u32;
        if canary!(RemoteCountsItself) { others + 1 } else { others }
    }
}

impl Engine {
    /// The region of a replica, as far as is known here. This one knows its own best.
    pub(crate) fn region_in<'a>(&'a self, space: &'a Space, replica: &ReplicaId) -> Option<&'a str> {
        let own = self.region.as_deref().filter(|_| *replica == self.replica);
        own.or_else(|| space.regions.get(replica).map(String::as_str))
    }

    /// The first of the regions asked for that nobody is known to be in.
    pub(crate) fn unknown_region(&self, id: &SpaceId, durability: &Durability) -> Option<String> {
        let (Some(space), Durability::Regions(names)) = (self.spaces.get(id), durability) else {
            return None;
        };
        let known = space.regions.keys().chain([&self.replica]);
        let known: BTreeSet<&str> = known.filter_map(|replica| self.region_in(space, replica)).collect();
        names.iter().find(|name| !known.contains(name.as_str())).cloned()
    }

    /// The regions with a replica that holds an entry which is durable here.
    pub(crate) fn regions_holding<'a>(&'a self, space: &'a Space, place: (LaneId, u64)) -> BTreeSet<&'a str> {
        let holders = space.holders(place).chain([&self.replica]);
        holders.filter_map(|replica| self.region_in(space, replica)).collect()
    }

    /// How far an entry that is durable here is from what was asked for. O(members).
    pub(crate) fn tally(&self, space: &Space, place: (LaneId, u64), durability: &Durability) -> Tally {
        let members_holding = || {
            let is_held = |of: &&ReplicaId| {
                let held = space.peer_durable.get(of).is_some_and(|durable| durable.at(&place.0) >= place.1);
                **of == self.replica || held
            };
            space.writers().filter(is_held).count() as u32
        };
        let members = || space.writers().count() as u32;
        match durability {
            Durability::Local => Tally { counted: 1, needed: 1 },
            Durability::Remote(needed) => Tally { counted: space.remote_count(place), needed: *needed },
            Durability::Quorum if canary!(QuorumOfHalf) => {
                Tally { counted: members_holding(), needed: members() / 2 }
            }
            Durability::Quorum => Tally { counted: members_holding(), needed: majority(members()) },
            // Whose members are not known yet has not reached all of them.
            Durability::All => Tally { counted: members_holding(), needed: members().max(1) },
            Durability::Regions(names) => {
                let (wanted, held): (BTreeSet<&str>, _) =
                    (names.iter().map(String::as_str).collect(), self.regions_holding(space, place));
                let counted = wanted.iter().filter(|name| held.contains(*name)).count() as u32;
                Tally { counted, needed: wanted.len() as u32 }
            }
        }
    }

    /// Reads again where replicas are after one has said so, and answers who waited for that.
    pub(crate) fn reload_regions(&mut self, id: SpaceId, store: &dyn StateRead) -> Result<(), StoreError> {
        if let Some(space) = self.spaces.get_mut(&id) {
            space.regions = regions(store, &id)?;
            self.resolve_remote(id);
        }
        Ok(())
    }
}
