//! Spaces in which both ends of a session stand alike are not opened on it: they are *quiet*, and cost nothing until
//! something happens in them. Each side sends a digest over what it shares with the other; where the two differ, a walk
//! down the tree that they are the roots of finds the spaces to open.
//!
//! What holds on a session from the moment its digest is sent: of every space in the digest, either this side has opened
//! it on the session since, or nothing that the digest covers has changed. So what is found to be the same stays so.

mod tree;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, ReplicaId, SpaceId, canary};

use crate::engine::Engine;
use crate::excerpt::durable_hash;
use crate::hash::hash;
use crate::io::{Class, CloseReason, Now, SessionId};
use crate::limits::{DIGEST_PEERS_MAX, LEAF_DEPTH_MAX, LEAF_SPACES, LEAVES_MAX};
use crate::message::Message;
use crate::receive::Refusal;

use crate::session::Session;
use crate::space::Space;
use crate::store::{Store, StoreError};
use crate::version::WITH_DIGESTS;
use tree::{Digest, Prefix, Tree};

pub use words::{Branch, Branches, Leaf, Leaves, Shared};

/// What is shared with one peer.
#[derive(Debug, Default)]
struct Common {
    tree: Tree,
    /// What is not in the digest, because it is to be opened whatever the peer has.
    apart: BTreeSet<SpaceId>,
}

/// What is shared with each peer that was met lately.
#[derive(Debug, Default)]
pub(crate) struct Commons {
    of: BTreeMap<ReplicaId, Common>,
    /// What each space has come to, unless it is apart.
    digests: BTreeMap<SpaceId, Digest>,
    /// Spaces that may have changed since the digests were computed.
    stale: BTreeSet<SpaceId>,
}

impl Commons {
    /// Something about a space may have changed. O(log n).
    pub(crate) fn touch(&mut self, id: SpaceId) {
        if !canary!(DigestStale) || !self.digests.contains_key(&id) {
            self.stale.insert(id);
        }
    }

    /// Whether a space was in the digest for a peer when that was last computed.
    fn covers(&self, peer: &ReplicaId, id: &SpaceId) -> bool {
        self.of.get(peer).is_some_and(|common| common.tree.contains(id))
    }
}

/// How far the comparison on a session has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The peer's digest has not come.
    #[default]
    Awaited,
    /// Nothing more of it is to come, and it says nothing of spaces that are not open: this or the other side opens all.
    Open,
    /// Nodes at this depth are to come from the peer next, and the spaces under those at the second.
    Walk { next: u8, leaves: u8 },
    /// What is not open on the session is the same at both ends.
    Agreed,
}

/// What this side said of itself on a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    spaces: u32,
    root: Option<Digest>,
    /// When, until the peer has heard it.
    at: Option<Duration>,
}

impl Space {
    /// Whether everything that opening the space would tell a peer is in the digest.
    fn is_plain(&self) -> bool {
        let is_settled =
            self.row.invitation.is_none() && self.row.left.is_none() && self.row.removed_by.is_none();
        self.row.founder.is_some() && is_settled && !self.is_brought_up()
    }

    /// What is durable here of every lane, and which lanes are not followed any more; `None` for a space that is apart.
    /// O(lanes).
    fn shared_digest(&self, store: &dyn Store) -> Result<Option<Digest>, StoreError> {
        if !self.is_plain() {
            return Ok(None);
        }
        let mut facts = Vec::with_capacity(16 + self.lanes.len() * LANE_BYTES);
        facts.extend_from_slice(&self.id.0);
        for (lane_id, lane) in &self.lanes {
            let lsn = self.durable.at(lane_id);
            if lsn == 0 {
                continue;
            }
            facts.extend_from_slice(&lane_id.0);
            facts.extend_from_slice(&lsn.to_be_bytes());
            facts.extend_from_slice(&durable_hash(store, &self.id, (lane_id, lane), lsn)?.0);
            facts.push(u8::from(lane.row.frozen.is_some()));
        }
        Ok(Some(hash("comity 2026 space state\0", &[&facts]).half()))
    }
}

/// A lane in the digest of a space: id, position, chain hash, whether it is frozen.
const LANE_BYTES: usize = 16 + 8 + 32 + 1;

impl Engine {
    /// Says what is shared with a peer that has connected, and opens what is to be opened in any case. O(what changed
    /// since a peer was met last), and for a peer that is met for the first time O(spaces).
    pub(crate) fn say_shared(
        &mut self,
        now: &Now,
        session_id: SessionId,
        peer: ReplicaId,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        self.meet(peer, store)?;
        let Some(common) = self.commons.of.get_mut(&peer) else { return Ok(()) };
        let is_few = common.tree.len() + common.apart.len() <= self.open_at_once;
        let root = (!is_few).then(|| common.tree.root());
        let spaces = common.tree.len() as u32;
        let mut to_open = common.apart.clone();
        if is_few {
            to_open.extend(common.tree.range(Prefix::ROOT.bounds()).map(|(space, _)| space));
        }
        // Who waits for others may wait for what one of them has already.
        let awaited = self.waits.spaces();
        to_open.extend(awaited.into_iter().filter(|id| self.admits(&peer, id)));
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.said = Said { spaces, root, at: Some(now.monotonic) };
        }
        self.send(session_id, Class::Control, &Message::Shared(Shared { spaces, root }));
        self.open_all(now, session_id, to_open, store)
    }

    fn open_all(
        &mut self,
        now: &Now,
        session_id: SessionId,
        spaces: impl IntoIterator<Item = SpaceId>,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        spaces.into_iter().try_for_each(|id| self.open_space(now, session_id, id, store))
    }

    fn admits(&self, peer: &ReplicaId, id: &SpaceId) -> bool {
        self.spaces.get(id).is_some_and(|space| space.admits(peer))
    }

    /// Opens everything that is shared with a peer which does not compare digests.
    pub(crate) fn open_shared(
        &mut self,
        now: &Now,
        session_id: SessionId,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if session.comparison == Comparison::Open {
            return Ok(());
        }
        session.comparison = Comparison::Open;
        let peer = session.peer;
        self.meet(peer, store)?;
        let Some(common) = self.commons.of.get(&peer) else { return Ok(()) };
        let in_digest = common.tree.range(Prefix::ROOT.bounds()).map(|(space, _)| space);
        let spaces: Vec<SpaceId> = in_digest.chain(common.apart.iter().copied()).collect();
        self.open_all(now, session_id, spaces, store)
    }

    /// Brings the digests up to date, and makes a tree for a peer that has none.
    fn meet(&mut self, peer: ReplicaId, store: &dyn Store) -> Result<(), StoreError> {
        self.refresh(store)?;
        if self.commons.of.contains_key(&peer) {
            return Ok(());
        }
        let connected: BTreeSet<ReplicaId> = self.sessions.values().map(|session| session.peer).collect();
        if self.commons.of.len() >= DIGEST_PEERS_MAX {
            self.commons.of.retain(|known, _| connected.contains(known));
        }
        let mut common = Common::default();
        for space in self.spaces.values().filter(|space| space.admits(&peer)) {
            common.set(space.id, Some(self.commons.digests.get(&space.id).copied()));
        }
        self.commons.of.insert(peer, common);
        Ok(())
    }

    fn refresh(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        while let Some(id) = self.commons.stale.first().copied() {
            let space = self.spaces.get(&id);
            let digest = space.map(|space| space.shared_digest(store)).transpose()?.flatten();
            match digest {
                Some(digest) => self.commons.digests.insert(id, digest),
                None => self.commons.digests.remove(&id),
            };
            for (peer, common) in &mut self.commons.of {
                let is_shared = space.is_some_and(|space| space.admits(peer));
                common.set(id, is_shared.then_some(digest));
            }
            self.commons.stale.remove(&id);
        }
        Ok(())
    }

    /// A peer says what it shares with this replica.
    pub(crate) fn on_shared(
        &mut self,
        now: &Now,
        session_id: SessionId,
        shared: &Shared,
        store: &dyn Store,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        if session.version() < WITH_DIGESTS {
            // As it is skipped by who does not know it.
            return Ok(());
        }
        if session.comparison != Comparison::Awaited {
            return Err(CloseReason::Unexpected.into());
        }
        let root = session.said.root;
        self.send(session_id, Class::Control, &Message::Heard);
        let (Some(ours), Some(theirs)) = (root, shared.root) else {
            // Who shares so little that it opens all of it differs from who shares much in nearly as much as that.
            return Ok(self.open_shared(now, session_id, store)?);
        };
        if ours == theirs {
            self.note_agreed(session_id);
            return Ok(());
        }
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let leaves = leaf_depth(session.said.spaces.max(shared.spaces));
        session.comparison = Comparison::Walk { next: 0, leaves };
        self.refresh(store)?;
        self.say_nodes(session_id, 0, &[Prefix::ROOT]);
        Ok(())
    }

    /// A peer has heard what is shared with it: where all is quiet nothing else tells how far away it is.
    pub(crate) fn on_heard(&mut self, now: &Now, session_id: SessionId) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        if let Some(said) = session.said.at.take() {
            session.round_trip.note(now.monotonic.saturating_sub(said));
        }
    }

    /// Shows a peer some nodes of what is shared with it, or what is under them where that is little.
    fn say_nodes(&mut self, session_id: SessionId, depth: u8, nodes: &[Prefix]) {
        let Some(session) = self.sessions.get(&session_id) else { return };
        let Comparison::Walk { leaves, .. } = session.comparison else { return };
        let Some(common) = self.commons.of.get_mut(&session.peer) else { return };
        if depth < leaves {
            let nodes = nodes.iter().map(|node| Branch::of(node.number(), &common.tree.children(*node)));
            let branches = Branches { depth, nodes: nodes.collect() };
            return self.send(session_id, Class::Control, &Message::Branches(branches));
        }
        for leaves in list(&common.tree, nodes) {
            self.send(session_id, Class::Control, &Message::Leaves(leaves));
        }
    }

    /// A peer shows nodes of what it shares with this replica: those below them that differ are shown in return. Each side
    /// does so, so that each message is the answer to one and asked for by none.
    pub(crate) fn on_branches(
        &mut self,
        session_id: SessionId,
        branches: &Branches,
        store: &dyn Store,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        let Comparison::Walk { next, leaves } = session.comparison else {
            return Err(CloseReason::Unexpected.into());
        };
        if branches.depth != next || next >= leaves {
            return Err(CloseReason::Unexpected.into());
        }
        if !branches.nodes.is_sorted_by(|one, other| one.number < other.number) {
            return Err(CloseReason::Malformed.into());
        }
        session.comparison = Comparison::Walk { next: next + 1, leaves };
        let peer = session.peer;
        self.refresh(store)?;
        let Some(common) = self.commons.of.get_mut(&peer) else { return Ok(()) };
        let mut differing = Vec::new();
        for branch in &branches.nodes {
            let (node, theirs) = (Prefix::numbered(next, branch.number), branch.children());
            let (Some(node), Some(theirs)) = (node, theirs) else {
                return Err(CloseReason::Malformed.into());
            };
            let ours = common.tree.children(node).into_iter();
            let differs = ours.zip(theirs).enumerate().filter(|(_, (ours, theirs))| ours != theirs);
            differing.extend(differs.map(|(child, _)| node.child(child)));
        }
        self.say_nodes(session_id, next + 1, &differing);
        Ok(())
    }

    /// A peer lists what it shares with this replica in some ranges: of what is held here, what it does not list as it is
    /// here is opened. What only the peer has, it opens.
    pub(crate) fn on_leaves(
        &mut self,
        now: &Now,
        session_id: SessionId,
        listed: &Leaves,
        store: &dyn Store,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&session_id) else { return Ok(()) };
        match session.comparison {
            Comparison::Walk { next, leaves } if next == leaves => {}
            _ => return Err(CloseReason::Unexpected.into()),
        }
        if !listed.ranges.iter().all(Leaf::is_sound) {
            return Err(CloseReason::Malformed.into());
        }
        let peer = session.peer;
        if !listed.more {
            self.note_agreed(session_id);
        }
        self.refresh(store)?;
        let Some(common) = self.commons.of.get(&peer) else { return Ok(()) };
        let mut to_open = Vec::new();
        for leaf in &listed.ranges {
            let theirs: BTreeMap<SpaceId, Digest> = leaf.spaces.iter().copied().collect();
            let ours = common.tree.range((leaf.from, leaf.until));
            let differing = ours.filter(|(space, digest)| theirs.get(space) != Some(digest));
            to_open.extend(differing.map(|(space, _)| space));
        }
        Ok(self.open_all(now, session_id, to_open, store)?)
    }

    /// What is not open on a session is the same at both ends. Lanes of the peer's that are received from others may go back to
    /// it. O(spaces).
    fn note_agreed(&mut self, session_id: SessionId) {
        let Some(session) = self.sessions.get_mut(&session_id) else { return };
        session.comparison = Comparison::Agreed;
        let peer = session.peer;
        for space in self.spaces.values_mut().filter(|space| !space.parents.is_empty()) {
            let is_owned =
                |lane: &&LaneId| space.lanes.get(lane).is_some_and(|lane| lane.row.owner.replica == peer);
            let owned: Vec<LaneId> = space.parents.keys().filter(is_owned).copied().collect();
            if !owned.is_empty() {
                space.review.extend(owned);
                self.dirty.insert(space.id);
            }
        }
    }

    /// Whether a space is in what a session's peer was told of by a digest, and is neither open there nor was closed.
    pub(crate) fn is_quiet(&self, session: &Session, id: &SpaceId) -> bool {
        !session.spaces.contains_key(id)
            && !session.withdrawn.contains(id)
            && self.commons.covers(&session.peer, id)
    }

    /// Whether a quiet space is known to be the same at a session's peer.
    pub(crate) fn agrees(&self, session: &Session, id: &SpaceId) -> bool {
        session.comparison == Comparison::Agreed && self.is_quiet(session, id)
    }

    /// Something happens in a space, or is about to: it is opened on all sessions on which it is quiet. Comes before what is
    /// durable moves, because that is what peers with whom this replica agrees have.
    pub(crate) fn rouse(&mut self, id: SpaceId) {
        if canary!(QuietForEver) {
            return;
        }
        let Some(space) = self.spaces.get(&id).filter(|space| !space.is_blocked()) else { return };
        let roused: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| space.admits(&session.peer))
            .filter(|(_, session)| !session.spaces.contains_key(&id) && !session.withdrawn.contains(&id))
            .map(|(session, _)| *session)
            .collect();
        for session_id in roused {
            self.to_open.insert((session_id, id));
            if self.sessions.get(&session_id).is_some_and(|session| self.agrees(session, &id)) {
                self.note_roused(session_id, id);
            }
        }
    }

    /// A space is not quiet any more on a session: until now the peer held of it what is durable here.
    pub(crate) fn note_roused(&mut self, session_id: SessionId, id: SpaceId) {
        let (Some(space), Some(session)) = (self.spaces.get_mut(&id), self.sessions.get_mut(&session_id))
        else {
            return;
        };
        let peer = session.peer;
        let part = session.space_mut(&id);
        (part.peer_have, part.roused) = (space.durable.clone(), true);
        let has_opened = |session: &Session| {
            session.peer == peer && session.spaces.get(&id).is_some_and(|part| part.opened_by_peer)
        };
        if self.sessions.values().any(has_opened) {
            // It has said more on another session, perhaps.
            space.peer_durable.entry(peer).or_default().merge(&space.durable);
        } else {
            space.peer_durable.insert(peer, space.durable.clone());
        }
    }

    /// The sessions on which a space was quiet and the peer has not opened it yet.
    pub(crate) fn roused_sessions(&self, id: &SpaceId) -> impl Iterator<Item = SessionId> {
        let is_roused = |session: &Session| {
            session
                .spaces
                .get(id)
                .is_some_and(|part| part.roused && part.opened_by_us && !part.opened_by_peer)
        };
        self.sessions.iter().filter(move |(_, session)| is_roused(session)).map(|(number, _)| *number)
    }

    /// The peers that are known to take part in a space at present, each with one of its sessions: those with which it is
    /// open, is being opened after it was quiet, or is quiet. O(sessions).
    pub(crate) fn present_peers(&self, space: &Space) -> BTreeMap<ReplicaId, SessionId> {
        let is_present = |session: &Session| match session.spaces.get(&space.id) {
            Some(part) => part.roused || (part.opened_by_us && part.opened_by_peer),
            None => self.agrees(session, &space.id),
        };
        let present = self.sessions.iter().filter(|(_, session)| is_present(session));
        present.map(|(number, session)| (session.peer, *number)).collect()
    }
}

impl Engine {
    /// What a peer holds of a space, as it said in this session, or as it has as long as the space is quiet; `None` when
    /// nothing is known of it. O(sessions).
    pub(crate) fn held_by<'a>(&self, space: &'a Space, peer: &ReplicaId) -> Option<&'a Frontier> {
        let of_peer = || self.sessions.values().filter(|session| session.peer == *peer);
        let is_open = of_peer().any(|session| session.spaces.contains_key(&space.id));
        let agrees = |session: &Session| self.agrees(session, &space.id);
        if !is_open && of_peer().any(agrees) { Some(&space.durable) } else { space.peer_durable.get(peer) }
    }
}

impl Common {
    /// Takes in what a shared space has come to, if it is not apart; or that it is not shared.
    fn set(&mut self, id: SpaceId, shared: Option<Option<Digest>>) {
        self.tree.set(id, shared.flatten());
        match shared {
            Some(None) => self.apart.insert(id),
            Some(Some(_)) | None => self.apart.remove(&id),
        };
    }
}

/// How many levels below the root spaces are listed, when one side has so many: few are under each node then.
fn leaf_depth(spaces: u32) -> u8 {
    let mut depth = 0;
    while depth < LEAF_DEPTH_MAX && spaces >> (4 * u32::from(depth)) > LEAF_SPACES {
        depth += 1;
    }
    depth
}

/// What is under some nodes, in messages that fit into frames.
fn list(tree: &Tree, nodes: &[Prefix]) -> Vec<Leaves> {
    let mut messages = vec![Leaves { more: false, ranges: Vec::new() }];
    let mut room = LEAVES_MAX;
    for node in nodes {
        let (mut from, end) = node.bounds();
        let mut spaces = tree.range(node.bounds()).peekable();
        loop {
            if room < 2 {
                messages.iter_mut().for_each(|message| message.more = true);
                messages.push(Leaves { more: false, ranges: Vec::new() });
                room = LEAVES_MAX;
            }
            let taken: Vec<(SpaceId, Digest)> = spaces.by_ref().take(room - 1).collect();
            room -= 1 + taken.len();
            let next = spaces.peek().map(|(space, _)| *space);
            let until = next.map_or(end, |next| SpaceId((u128::from_be_bytes(next.0) - 1).to_be_bytes()));
            if let Some(message) = messages.last_mut() {
                message.ranges.push(Leaf { from, until, spaces: taken });
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    messages
}
