//! The member list: what admins, and members about themselves, have said of who takes part, and who does by that.
//!
//! Whether a statement counts follows from what its author had seen, and the list from the statements that count, so
//! every replica that has applied the same entries has the same list, in whatever order they arrived. `docs/decisions.md`
//! has the rule.

mod roster;

#[cfg(test)]
mod tests;

use comity_crdts::{Frontier, LaneId, ReplicaId, SpaceId};

use crate::apply::Effects;
use crate::keys;
use crate::op::Role;
use crate::rows::member_digest;
use crate::store::StoreError;
use crate::work::Work;

pub(crate) use roster::{Roster, View};

/// Where a statement stands: the lane, the entry, and the operation among those on the member list in that entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) lane: LaneId,
    pub(crate) lsn: u64,
    pub(crate) index: u16,
}

/// A statement as it stands in a lane.
pub(crate) struct Said<'a> {
    pub(crate) author: &'a ReplicaId,
    /// What its author had seen.
    pub(crate) context: &'a Frontier,
    pub(crate) place: Place,
    /// Whom it is about.
    pub(crate) replica: &'a ReplicaId,
    /// The role that it gives; none removes.
    pub(crate) role: Option<Role>,
}

/// Applies a statement, if it counts: its author was an admin by what it had seen, or a member that removes itself.
/// O(statements of the space).
pub(crate) fn state(
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    said: &Said<'_>,
) -> Result<(), StoreError> {
    let mut roster = Roster::load(work, space)?;
    let before = roster.row(said.replica);
    if !roster.take(said) {
        return Ok(());
    }
    store(work, effects, space, (said.replica, before.as_deref()), &roster);
    Ok(())
}

/// Makes `founder` the first admin, in everyone's eyes.
pub(crate) fn found(
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    founder: &ReplicaId,
) -> Roster {
    let roster = Roster::founded_by(founder);
    store(work, effects, space, (founder, None), &roster);
    roster
}

/// Writes a member's row and keeps the space digest in step.
fn store(
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    (replica, before): (&ReplicaId, Option<&[u8]>),
    roster: &Roster,
) {
    let after = roster.row(replica).expect("the row was just changed");
    let removed = before.map_or(0, |row| member_digest(replica, row));
    effects.digest = effects.digest.wrapping_sub(removed).wrapping_add(member_digest(replica, &after));
    effects.members_changed = true;
    work.put(keys::member(space, replica), after);
}
