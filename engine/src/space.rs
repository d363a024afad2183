//! One space at one replica: its lanes, its members, its clock, and what of it is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use comity_crdts::{Clock, Frontier, Hlc, LaneId, Nonce, OriginId, ReplicaId, SpaceId, canary};
use serde::{Deserialize, Serialize};

use crate::apply::Effects;
use crate::bootstrap::{Bootstrap, Installing};
use crate::change::{LaneEntry, LaneOwner, LaneTip};
use crate::documents::DocumentCache;
use crate::extension::Extensions;
use crate::fresh::Freshness;
use crate::hash::Hash;
use crate::head::HeadSignature;
use crate::held;
use crate::io::SessionId;
use crate::keys;
use crate::lag::{LagState, Marks};
use crate::limits::STAGED_BYTES_MAX;
use crate::members::{self, Roster, View};
use crate::op::Role;
use crate::operations::forget_due;
use crate::options::TailLimits;
use crate::own::Incarnation;
use crate::proof::Proof;
use crate::ranges::Ranges;
use crate::retention::{Kept, floor_of, kept};
use crate::rows::damaged;
use crate::settings::regions;
use crate::sorted::Sorted;
use crate::status::{Freeze, StateDigest};
use crate::store::{StateRead, StoreError};
use crate::unstable::unstable_entries;
use crate::work::Work;

/// Proof that a data directory is the one it was, neither copied nor restored.
pub type InstanceToken = [u8; 32];

/// Who founded a space. The space's id commits to both, so nobody can name another founder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founder {
    pub(crate) replica: ReplicaId,
    pub(crate) nonce: Nonce,
}

/// Facts about a space that no lane entry tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpaceRow {
    pub(crate) name: String,
    pub(crate) founder: Option<Founder>,
    /// This replica's incarnation, and the directory it was minted in.
    pub(crate) incarnation: Option<(Nonce, InstanceToken)>,
    /// Peers trusted before the member list says anything.
    pub(crate) pinned: BTreeSet<ReplicaId>,
    /// An invitation still to be redeemed.
    pub(crate) invitation: Option<(ReplicaId, [u8; 16])>,
    /// The invitation is one for a follower.
    pub(crate) follows: bool,
    /// This replica takes no part any more, by its own will.
    pub(crate) left: Option<Leave>,
    /// The admin that said that this replica is no member any more, where the member list here does not say so.
    pub(crate) removed_by: Option<ReplicaId>,
}

/// How a replica has left a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Leave {
    /// It has removed itself, and serves the others until they know.
    Told,
    /// It serves nobody.
    Silent,
}

/// What applying has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) applied: u64,
    pub(crate) digest: StateDigest,
    /// Of the entries in the log, bytes in stored form.
    pub(crate) log_bytes: u64,
    /// No stamp at or below this is issued again.
    pub(crate) clock_floor: Hlc,
    /// The own incarnation that was confirmed.
    pub(crate) confirmed: Option<OriginId>,
}

/// The durable part of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneRow {
    pub(crate) owner: LaneOwner,
    pub(crate) tip: LaneTip,
    pub(crate) frozen: Option<Freeze>,
    /// The last entry that is a change set; 0 for none.
    pub(crate) changed: u64,
    /// The last entry with a kept head, which a proof stands for; 0 for none.
    pub(crate) head: u64,
    /// Entries up to that head since the one before it, which stays.
    pub(crate) head_entries: u64,
    /// Their bytes in stored form.
    pub(crate) head_bytes: u64,
}

/// An entry that was received and checked and waits for its turn.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) entry: LaneEntry,
    pub(crate) after: LaneTip,
    /// The entry in stored form.
    pub(crate) stored: Vec<u8>,
    /// The entry's link in the lane's chain.
    pub(crate) link: Hash,
    /// Present on the last entry of a run.
    pub(crate) proof: Option<Proof>,
    /// When it was received.
    pub(crate) received: Duration,
}

impl Staged {
    /// What it counts as in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.stored.len() + self.proof.as_ref().map_or(0, |proof| proof.links.len() * size_of::<Hash>())
    }
}

/// A lane in which somebody else has more than its parent delivers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stuck {
    /// When the lane last moved.
    pub(crate) since: Duration,
    /// How often another parent was tried; each time is given twice as long as the one before, so that on
    /// slow links somebody is given long enough.
    pub(crate) grafts: u32,
}

/// What spaces are kept by.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) tail: TailLimits,
    pub(crate) extensions: Extensions,
    pub(crate) segment_entries: u64,
}

/// From whom a lane is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) session: SessionId,
    pub(crate) subscription: u32,
    /// When the subscription was made.
    pub(crate) since: Duration,
}

/// One lane: its durable row, and what is on its way.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) row: LaneRow,
    /// Where it stood after the last entry that is not kept here.
    pub(crate) floor: LaneTip,
    pub(crate) staged: VecDeque<Staged>,
    /// In stored form, with the links that prove them.
    pub(crate) staged_bytes: usize,
    /// Own lane: the last head that was signed.
    pub(crate) signed: Option<(u64, HeadSignature)>,
    /// Copied lane: heads of applied entries, from the newest that is durable on. The rows keep only the
    /// newest of all, which is not durable yet while entries keep coming.
    pub(crate) heads: VecDeque<(u64, Proof)>,
    /// Somebody does not go on from where the lane stands, which was not durable when that was learnt: what
    /// is held here is shown to them once it is.
    pub(crate) doubted_by: BTreeSet<SessionId>,
    /// What the owner last announced to have applied, as far as the lane is applied here.
    pub(crate) announced: Frontier,
    /// The same as far as the lane is staged.
    pub(crate) announced_staged: Frontier,
    /// It brought what its owner made without having seen all that was forgotten here.
    pub(crate) was_late: bool,
    /// Sizes and stamps of some of the entries.
    pub(crate) marks: Marks,
}

impl Lane {
    /// How long its entries are, as far as is known: those that wait, or those that were applied.
    pub(crate) fn mean_bytes(&self) -> u64 {
        match self.staged.len() {
            0 => self.marks.mean_bytes(),
            waiting => (self.staged_bytes / waiting) as u64,
        }
    }

    pub(crate) fn new(space: &SpaceId, owner: LaneOwner) -> Self {
        let tip = LaneTip::start(space, &owner.lane(space));
        let (frozen, changed, head) = (None, 0, 0);
        let row = LaneRow { owner, tip: tip.clone(), frozen, changed, head, head_entries: 0, head_bytes: 0 };
        Self::with_row(row, tip)
    }

    fn with_row(row: LaneRow, floor: LaneTip) -> Self {
        let (staged, heads, doubted_by) = (VecDeque::new(), VecDeque::new(), BTreeSet::new());
        let (announced, announced_staged) = (Frontier::new(), Frontier::new());
        let marks = Marks::from(row.tip.lsn, row.tip.at.millis());
        Self {
            row,
            floor,
            staged,
            staged_bytes: 0,
            signed: None,
            heads,
            doubted_by,
            announced,
            announced_staged,
            was_late: false,
            marks,
        }
    }

    /// Forgets heads older than the newest that is durable.
    pub(crate) fn forget_heads(&mut self, durable: u64) {
        while self.heads.get(1).is_some_and(|(lsn, _)| *lsn <= durable) {
            self.heads.pop_front();
        }
    }

    /// Where the lane stands once everything staged is applied.
    pub(crate) fn staged_tip(&self) -> &LaneTip {
        self.staged.back().map_or(&self.row.tip, |staged| &staged.after)
    }

    pub(crate) fn drop_staged(&mut self) {
        self.staged.clear();
        self.staged_bytes = 0;
        self.announced_staged = self.announced.clone();
    }
}

/// One space. No state is shared between spaces.
pub(crate) struct Space {
    pub(crate) id: SpaceId,
    pub(crate) row: SpaceRow,
    pub(crate) progress: Progress,
    /// `None` until the first write, and again when continuity cannot be proved.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) clock: Clock,
    pub(crate) lanes: Sorted<LaneId, Box<Lane>>,
    pub(crate) parents: BTreeMap<LaneId, Parent>,
    pub(crate) ranges: Ranges,
    /// Peers that are not asked for parts of a lane any more: they took too long, or could not serve one.
    pub(crate) unfit: BTreeSet<(LaneId, SessionId)>,
    /// What is applied.
    pub(crate) frontier: Frontier,
    /// What is synced, and may therefore be spoken of.
    pub(crate) durable: Frontier,
    /// Everything that was said about members, and who takes part by that.
    pub(crate) roster: Roster,
    pub(crate) members: Sorted<ReplicaId, Role>,
    pub(crate) documents: DocumentCache,
    /// Whom it trusts has not changed since that was counted.
    pub(crate) is_trust_counted: bool,
    /// What each connected peer said it holds durably, in this session.
    pub(crate) peer_durable: BTreeMap<ReplicaId, Frontier>,
    /// Where replicas say they are.
    pub(crate) regions: BTreeMap<ReplicaId, String>,
    /// How fresh this replica is towards members that were asked.
    pub(crate) fresh: BTreeMap<ReplicaId, Freshness>,
    /// Lanes whose owner is no member, as far as is known here.
    pub(crate) strangers: BTreeSet<LaneId>,
    /// Lanes in which a connected peer other than the parent has more.
    pub(crate) lagging: BTreeMap<LaneId, Stuck>,
    /// Lanes whose parent is to be considered again.
    pub(crate) review: BTreeSet<LaneId>,
    /// When all parents are considered again.
    pub(crate) review_due: Option<Duration>,
    /// Sessions on which both sides have opened the space.
    pub(crate) sessions: BTreeSet<SessionId>,
    /// Everything before this is applied by everybody who is known here, and whatever they bring was made by somebody
    /// who had seen it. It goes back when somebody new turns up.
    pub(crate) cut: Frontier,
    /// What may be forgotten here. Who brings what was made without having seen it makes it come back.
    pub(crate) forgotten: Frontier,
    /// The own lane when this replica started, and how far it had come. What came after is known to nobody else if the store
    /// turns out to have been rolled back before.
    pub(crate) started_at: Option<Box<(LaneId, u64)>>,
    /// Additions that a removal might beat and that may be forgotten here. The same goes for them.
    pub(crate) additions_forgotten: Box<Frontier>,
    /// Entries that left something behind which can be forgotten once they are within the cut, and the first
    /// entries of lanes that greet: what the next announcement is for.
    pub(crate) unstable: Frontier,
    /// The cut has moved, or not everything within it is forgotten yet.
    pub(crate) compactable: bool,
    /// When the next announcement is to be made.
    pub(crate) announce_due: Option<Duration>,
    /// When one is to be made for the sake of who could let go of entries.
    pub(crate) drop_announce_due: Option<Duration>,
    /// What of the order of applying is not there any more.
    pub(crate) kept: Kept,
    /// There may be entries that need not be kept.
    pub(crate) droppable: bool,
    /// When that is looked at.
    pub(crate) drop_due: Option<Duration>,
    /// Somebody new waits for it.
    pub(crate) greeted: bool,
    /// Something was refused because nobody has confirmed the incarnation yet.
    pub(crate) wants_confirmation: bool,
    /// The incarnation that has greeted the others.
    pub(crate) has_greeted: Option<OriginId>,
    /// This replica has said where it is, or need not.
    pub(crate) region_said: bool,
    /// The journal may hold more than it may.
    pub(crate) prunable: bool,
    /// When there are operation ids to be forgotten, by the wall clock.
    pub(crate) forget_ids_ms: u64,
    /// There is a timer for the next step of forgetting.
    pub(crate) compacting: bool,
    /// Changes of documents that are in quarantine.
    pub(crate) quarantined: u64,
    pub(crate) lag: LagState,
    /// Entries of the log are let go of, or were.
    pub(crate) is_shortened: bool,
    /// What is known of later versions' operations.
    pub(crate) extensions: Extensions,
    /// Entries in a segment of a lane.
    pub(crate) segment_entries: u64,
    /// Change sets of which something is held.
    pub(crate) held: u64,
    /// From which key on what is held is still to be looked at, while that goes on.
    pub(crate) release_from: Option<Vec<u8>>,
    /// All that was held when the space was loaded has been looked at.
    pub(crate) is_released: bool,
    /// Objects of a later version's kind are there.
    pub(crate) has_later_kinds: bool,
    /// A snapshot that is wanted or on its way.
    pub(crate) bootstrap: Option<Box<Bootstrap>>,
    /// A snapshot that is taking the place of the state.
    pub(crate) installing: Option<Box<Installing>>,
}

impl Space {
    pub(crate) fn new(id: SpaceId, row: SpaceRow, terms: Terms) -> Self {
        Self {
            id,
            row,
            progress: Progress::default(),
            incarnation: None,
            clock: Clock::default(),
            lanes: Sorted::new(),
            parents: BTreeMap::new(),
            ranges: Ranges::new(),
            frontier: Frontier::new(),
            durable: Frontier::new(),
            roster: Roster::default(),
            members: Sorted::new(),
            documents: DocumentCache::new(terms.tail),
            is_trust_counted: false,
            peer_durable: BTreeMap::new(),
            regions: BTreeMap::new(),
            fresh: BTreeMap::new(),
            strangers: BTreeSet::new(),
            lagging: BTreeMap::new(),
            review: BTreeSet::new(),
            review_due: None,
            sessions: BTreeSet::new(),
            cut: Frontier::new(),
            forgotten: Frontier::new(),
            started_at: None,
            additions_forgotten: Box::default(),
            unstable: Frontier::new(),
            compactable: false,
            announce_due: None,
            drop_announce_due: None,
            kept: Kept::default(),
            droppable: true,
            drop_due: None,
            greeted: false,
            wants_confirmation: false,
            has_greeted: None,
            region_said: false,
            prunable: true,
            forget_ids_ms: u64::MAX,
            compacting: false,
            quarantined: 0,
            lag: LagState::default(),
            is_shortened: false,
            extensions: terms.extensions,
            segment_entries: terms.segment_entries,
            unfit: BTreeSet::new(),
            held: 0,
            release_from: None,
            is_released: false,
            has_later_kinds: false,
            bootstrap: None,
            installing: None,
        }
    }

    /// Reads a space back from its rows. The incarnation is taken up again only in the directory it was
    /// minted in.
    pub(crate) fn load(
        read: &dyn StateRead,
        (id, row): (SpaceId, SpaceRow),
        terms: Terms,
        replica: &ReplicaId,
        instance: &InstanceToken,
    ) -> Result<Self, StoreError> {
        let mut space = Self::new(id, row, terms);
        if let Some(bytes) = read.get(&keys::progress(&id))? {
            space.progress = decode("progress row", &bytes)?;
        }
        let floor = if canary!(ClockFloorForgotten) { Hlc::ZERO } else { space.progress.clock_floor };
        space.clock = Clock::with_floor(floor);
        let (from, until) = keys::lanes(&id);
        for (_, bytes) in read.scan(&from, &until, usize::MAX)? {
            let row: LaneRow = decode("lane row", &bytes)?;
            let lane_id = row.owner.lane(&id);
            space.frontier.advance(lane_id, row.tip.lsn);
            let floor = floor_of(read, &id, &lane_id)?.unwrap_or_else(|| LaneTip::start(&id, &lane_id));
            let mut lane = Lane::with_row(row, floor);
            if let Some(bytes) = read.get(&keys::announced(&id, &lane_id))? {
                lane.announced = decode("announcement row", &bytes)?;
                lane.announced_staged = lane.announced.clone();
                if lane.announced.is_empty() {
                    space.unstable.advance(lane_id, 1);
                }
            }
            space.lanes.insert(lane_id, Box::new(lane));
        }
        space.set_roster(Roster::load(read, &id)?);
        space.unstable.merge(&unstable_entries(read, &id)?);
        if let Some(bytes) = read.get(&keys::forgotten(&id))? {
            space.forgotten = decode("row of what is forgotten", &bytes)?;
        }
        if let Some(bytes) = read.get(&keys::additions_forgotten(&id))? {
            space.additions_forgotten = decode("row of forgotten additions", &bytes)?;
        }
        space.kept = kept(read, &id)?;
        space.held = held::count(read, &id)?;
        let (from, until) = keys::later_kinds(&id);
        space.has_later_kinds = !read.scan(&from, &until, 1)?.is_empty();
        space.installing = Installing::load(read, &id)?.map(Box::new);
        space.bootstrap = if space.is_blocked() { None } else { Bootstrap::load(read, &id)?.map(Box::new) };
        space.move_cut();
        space.compactable = true;
        space.durable = space.frontier.clone();
        let (from, until) = keys::quarantine(&id);
        space.quarantined = read.scan(&from, &until, usize::MAX)?.len() as u64;
        space.regions = regions(read, &id)?;
        space.forget_ids_ms = forget_due(read, &id)?;
        space.incarnation = match space.row.incarnation {
            Some((nonce, minted_in)) if minted_in == *instance || canary!(InstanceIgnored) => {
                let own = Incarnation::new(&id, replica, nonce);
                let frozen = space.lanes.get(&own.origin).is_some_and(|lane| lane.row.frozen.is_some());
                (!frozen).then_some(own)
            }
            _ => None,
        };
        space.started_at = space.own_lane().map(|own| Box::new((own, space.frontier.at(&own))));
        Ok(space)
    }

    /// Makes `founder` the first admin.
    pub(crate) fn found(
        &mut self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        founder: Founder,
        name: String,
    ) {
        self.row.founder = Some(founder);
        self.row.name = name;
        let roster = members::found(work, effects, &self.id, &founder.replica);
        self.set_roster(roster);
    }

    /// The member list is this from now on.
    pub(crate) fn set_roster(&mut self, roster: Roster) {
        self.members = roster.roles(View::Everything);
        self.roster = roster;
        self.is_trust_counted = false;
    }

    /// Whether a lane can be received from the position that is durable here.
    pub(crate) fn can_follow(&self, lane_id: &LaneId) -> bool {
        self.own_lane() != Some(*lane_id)
            && self.lanes.get(lane_id).is_some_and(|lane| {
                lane.row.frozen.is_none() && lane.staged_tip().lsn == self.durable.at(lane_id)
            })
    }

    /// Whether the state is being replaced, so that nothing can be read or written.
    pub(crate) fn is_blocked(&self) -> bool {
        self.installing.is_some()
    }

    /// Whether a snapshot is wanted, received or installed.
    pub(crate) fn is_brought_up(&self) -> bool {
        self.installing.is_some() || self.bootstrap.is_some()
    }

    /// Whether a snapshot is on its way, so that nobody needs to be asked for lanes that are not received.
    pub(crate) fn is_receiving(&self) -> bool {
        self.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.source().is_some())
    }

    /// The lane this replica writes to at present.
    pub(crate) fn own_lane(&self) -> Option<LaneId> {
        self.incarnation.map(|incarnation| incarnation.origin)
    }

    /// The actor under which documents are edited here. Without an incarnation nothing is edited, so any
    /// will do.
    pub(crate) fn actor(&self) -> [u8; 16] {
        self.incarnation.map_or([0; 16], |own| crate::apply::actor(&own.origin, &own.nonce))
    }

    pub(crate) fn put_row(&self, work: &mut Work<'_>) {
        work.put_fact(keys::space(&self.id), encode(&self.row));
    }

    pub(crate) fn put_progress(&self, work: &mut Work<'_>, progress: &Progress) {
        work.put(keys::progress(&self.id), encode(progress));
    }

    /// Whether the first staged entry is stamped no earlier than what it follows.
    fn can_be_ready(&self, lane: &Lane) -> bool {
        lane.staged.front().is_none_or(|staged| staged.after.hlc >= lane.row.tip.hlc)
    }

    /// Panics when the space contradicts itself: what a debug build checks after every step.
    pub(crate) fn assert_invariants(&self) {
        if self.is_blocked() {
            return;
        }
        for (id, lane) in &self.lanes {
            assert_eq!(
                lane.row.tip.lsn,
                self.frontier.at(id),
                "invariant 8: the frontier is the applied prefix"
            );
            assert!(lane.floor.lsn <= self.durable.at(id), "only durable entries are let go of");
            assert!(lane.row.head <= lane.row.tip.lsn, "a kept head covers applied entries only");
            assert_eq!(
                lane.staged_tip().lsn,
                lane.row.tip.lsn + lane.staged.len() as u64,
                "invariant 3: staged entries are contiguous"
            );
            assert!(
                lane.staged_bytes <= STAGED_BYTES_MAX,
                "invariant 13: {} bytes of a lane are staged",
                lane.staged_bytes
            );
            assert!(self.can_be_ready(lane), "invariant 5: stamps increase along a lane");
            let has_seen = lane.staged.is_empty() || lane.announced.covers(&self.cut);
            assert!(has_seen || canary!(CutOfOne), "who brings something has announced to have seen the cut");
        }
        assert!(self.frontier.covers(&self.durable), "invariant 4: only what was applied can be durable");
        if let Some(own) = self.own_lane() {
            assert!(!self.parents.contains_key(&own), "the own lane is received from nobody");
        }
    }
}

pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let room = Vec::with_capacity(ROW_BYTES);
    postcard::to_extend(row, room).expect("a row is plain data, which always encodes")
}

/// What most rows take, so that they do not grow byte by byte.
const ROW_BYTES: usize = 128;

pub(crate) fn decode<T: for<'b> Deserialize<'b>>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|error| damaged(what, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_are_ten_thousands_of_is_small() {
        assert!(size_of::<Space>() <= 1_296, "{}", size_of::<Space>());
        assert!(size_of::<Lane>() <= 616, "{}", size_of::<Lane>());
    }
}
