//! The member list: who takes part in a space, and since when who is an admin.

use std::collections::BTreeMap;

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{DecodeError, Frontier, LaneId, OriginId, Reader, ReplicaId, SpaceId, Writer};

use crate::apply::Effects;
use crate::keys;
use crate::op::Role;
use crate::rows::{damaged, member_digest};
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) role: Role,
    /// The entries that made it an admin: the first one of each lane. The founder's is entry 0 of the zero
    /// lane, which everyone has seen.
    admin_since: BTreeMap<LaneId, u64>,
}

impl Member {
    fn new(role: Role) -> Self {
        Self { role, admin_since: BTreeMap::new() }
    }

    /// The founder of a space, an admin in everyone's eyes.
    pub(crate) fn founder() -> Self {
        let always = BTreeMap::from([(OriginId([0; 16]), 0)]);
        Self { role: Role::Admin, admin_since: always }
    }

    /// Whether the member was an admin to somebody who had seen `context`. A pure function of the causal past,
    /// so every replica judges a grant alike, in whatever order concurrent entries arrive.
    fn is_admin_in(&self, context: &Frontier) -> bool {
        self.admin_since.iter().any(|(lane, lsn)| context.at(lane) >= *lsn)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(self.role as u8);
        out.varint(self.admin_since.len() as u64);
        for (lane, lsn) in &self.admin_since {
            out.bytes(&lane.0);
            out.varint(*lsn);
        }
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let tag = reader.u8("member role")?;
        let role = Role::from_tag(tag)
            .ok_or(DecodeError::UnknownTag { what: "member role", tag: u64::from(tag) })?;
        let mut member = Self::new(role);
        for _ in 0..reader.count(LANES_MAX + 1, "member grants")? {
            let lane = OriginId(reader.array("granting lane")?);
            member.admin_since.insert(lane, reader.varint("granting entry")?);
        }
        reader.finish("member row")?;
        Ok(member)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        Self::decode(bytes).map_err(|error| damaged("member row", &error))
    }
}

/// A member's row, or `None` for a stranger.
fn load(read: &dyn StateRead, space: &SpaceId, replica: &ReplicaId) -> Result<Option<Member>, StoreError> {
    read.get(&keys::member(space, replica))?.map(|bytes| Member::from_bytes(&bytes)).transpose()
}

/// Writes a member's row and keeps the space digest in step.
pub(crate) fn store(
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    replica: &ReplicaId,
    (before, after): (Option<&Member>, &Member),
) {
    let removed = before.map_or(0, |member| member_digest(replica, &member.to_bytes()));
    let added = member_digest(replica, &after.to_bytes());
    effects.digest = effects.digest.wrapping_sub(removed).wrapping_add(added);
    effects.members_changed = true;
    work.put(keys::member(space, replica), after.to_bytes());
}

/// A grant as it stands in a lane.
pub(crate) struct Grant<'a> {
    pub(crate) author: &'a ReplicaId,
    /// What its author had seen.
    pub(crate) context: &'a Frontier,
    /// Its place.
    pub(crate) place: (LaneId, u64),
    pub(crate) replica: &'a ReplicaId,
    pub(crate) role: Role,
}

/// Applies a grant. It counts only when its author was an admin in its own eyes; roles only rise.
pub(crate) fn grant(
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    grant: &Grant<'_>,
) -> Result<(), StoreError> {
    let author = load(work, space, grant.author)?;
    if !author.is_some_and(|author| author.is_admin_in(grant.context)) {
        return Ok(());
    }
    let before = load(work, space, grant.replica)?;
    let mut after = before.clone().unwrap_or_else(|| Member::new(grant.role));
    if grant.role == Role::Admin {
        after.role = Role::Admin;
        let (lane, lsn) = grant.place;
        after.admin_since.entry(lane).or_insert(lsn);
    }
    if before.as_ref() != Some(&after) {
        store(work, effects, space, grant.replica, (before.as_ref(), &after));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use comity_crdts::LaneId;

    use crate::store::{LogRead, Row};

    /// A state in which nothing is stored.
    struct Nothing;

    impl LogRead for Nothing {
        fn lane_entry(&self, _: &SpaceId, _: &LaneId, _: u64) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }
    }

    impl StateRead for Nothing {
        fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }

        fn scan(&self, _from: &[u8], _until: &[u8], _limit: usize) -> Result<Vec<Row>, StoreError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_grant_concurrent_with_its_author_s_promotion_counts_nowhere() {
        let (space, founder) = (SpaceId([1; 16]), ReplicaId([1; 32]));
        let (author, friend) = (ReplicaId([2; 32]), ReplicaId([3; 32]));
        let (lane_of_founder, lane_of_author) = (OriginId([4; 16]), OriginId([5; 16]));
        let nothing_seen = Frontier::new();
        let promotion = Grant {
            author: &founder,
            context: &nothing_seen,
            place: (lane_of_founder, 7),
            replica: &author,
            role: Role::Admin,
        };
        let by_author = |context| Grant {
            author: &author,
            context,
            place: (lane_of_author, 1),
            replica: &friend,
            role: Role::Writer,
        };
        let promoted: Frontier = [(lane_of_founder, 7)].into_iter().collect();
        for (context, counts) in [(&nothing_seen, false), (&promoted, true)] {
            let mut digests = Vec::new();
            for promotion_first in [true, false] {
                let (mut work, mut effects) = (Work::over(&Nothing), Effects::default());
                store(&mut work, &mut effects, &space, &founder, (None, &Member::founder()));
                let mut order = [&promotion, &by_author(context)];
                if !promotion_first {
                    // What had seen the promotion cannot come before it.
                    if counts {
                        continue;
                    }
                    order.reverse();
                }
                for step in order {
                    grant(&mut work, &mut effects, &space, step).unwrap();
                }
                assert_eq!(load(&work, &space, &friend).unwrap().is_some(), counts);
                digests.push(effects.digest);
            }
            digests.dedup();
            assert_eq!(digests.len(), 1, "the order in which they arrive changes nothing");
        }
    }

    #[test]
    fn rows_round_trip() {
        let mut member = Member::founder();
        member.admin_since.insert(OriginId([9; 16]), 300);
        assert_eq!(Member::from_bytes(&member.to_bytes()), Ok(member));
    }
}
