//! Somebody who speaks the protocol with bytes of its own making: honest, or not.

use comity_crdts::{Frontier, Hlc, Kind, LaneId, Nonce, ObjectAddress, ReplicaId, SpaceId};
use comity_engine::wire::{
    Body, ChangeSet, Data, Dictionary, Group, Hello, Join, LaneEntry, LaneOwner, LaneTip, Message, Op, Open,
    OpenLane, PROTOCOL_VERSION, encode_run, sign,
};
use comity_engine::{CloseReason, Notice, Role, SessionId};
use ed25519_dalek::SigningKey;

use super::World;

/// A flag of a run.
const FRESH_DICTIONARY: u8 = 1 << 1;

/// A replica whose entries and frames the test makes.
#[derive(Clone)]
pub(crate) struct Ghost {
    pub(crate) key: SigningKey,
    pub(crate) space: SpaceId,
    pub(crate) owner: LaneOwner,
    /// Its lane so far.
    pub(crate) entries: Vec<(LaneEntry, LaneTip)>,
}

impl Ghost {
    pub(crate) fn new(seed: u8, space: SpaceId) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let replica = ReplicaId(key.verifying_key().to_bytes());
        Self { key, space, owner: LaneOwner { replica, nonce: Nonce([seed; 16]) }, entries: Vec::new() }
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        self.owner.replica
    }

    pub(crate) fn lane(&self) -> LaneId {
        self.owner.lane(&self.space)
    }

    /// Where the lane stands after its first `count` entries.
    pub(crate) fn tip(&self, count: usize) -> LaneTip {
        match count.checked_sub(1) {
            None => LaneTip::start(&self.space, &self.lane()),
            Some(last) => self.entries[last].1.clone(),
        }
    }

    /// The next entry as an honest author would make it, with nothing seen of others.
    pub(crate) fn draft(&self, groups: Vec<Group>) -> LaneEntry {
        let before = self.tip(self.entries.len());
        let hlc = before.hlc.max(Hlc::new(1_700_000_000_000, 0)).succ();
        let change = ChangeSet {
            origin: self.lane(),
            seq: before.seq + 1,
            prev: before.change_hash,
            context: Frontier::new(),
            hlc,
            operation: None,
            groups,
        };
        LaneEntry { admitted: Frontier::new(), at: hlc, body: Body::Change(change) }
    }

    /// Appends an entry to the lane, whatever it says.
    pub(crate) fn append(&mut self, entry: LaneEntry) {
        let after = self.tip(self.entries.len()).after(&self.space, &entry);
        self.entries.push((entry, after));
    }

    /// Appends an addition to the counter that `World::add` adds to.
    pub(crate) fn add(&mut self, delta: i64) {
        let entry = self.draft(vec![likes(delta)]);
        self.append(entry);
    }

    pub(crate) fn add_groups(&mut self, groups: Vec<Group>) {
        let entry = self.draft(groups);
        self.append(entry);
    }

    /// A run of the lane: the entries after the first `from`, up to the first `to`, signed by `key`. Each run
    /// starts a fresh dictionary.
    pub(crate) fn run_signed(&self, from: usize, to: usize, key: &SigningKey) -> Vec<u8> {
        let last = self.tip(to);
        let signature = sign(key, &self.space, &self.lane(), last.lsn, &last.hash);
        let (before, entries) = (self.tip(from), &self.entries[from..to]);
        let mut dictionary = Dictionary::default();
        let mut run =
            encode_run(&self.lane(), &self.owner, &before, entries, &signature.into(), &mut dictionary);
        run[0] |= FRESH_DICTIONARY;
        run
    }

    pub(crate) fn run(&self, from: usize, to: usize) -> Vec<u8> {
        self.run_signed(from, to, &self.key)
    }
}

/// An addition to the counter that `World::add` adds to.
pub(crate) fn likes(delta: i64) -> Group {
    let address = ObjectAddress::new(Kind::Counter, "stats", "likes").unwrap();
    Group { address, ops: vec![Op::CounterAdd(delta)] }
}

/// A frame of one run.
pub(crate) fn data(subscription: u32, first: u64, bytes: &[u8]) -> Vec<u8> {
    Message::Data(Data { subscription, more: false, awaited: false, ends: false, first, bytes }).encode()
}

pub(crate) fn hello() -> Vec<u8> {
    let (version_min, version_max) = (PROTOCOL_VERSION, PROTOCOL_VERSION);
    Message::Hello(Hello { version_min, version_max, wall_ms: 0 }).encode()
}

/// `Open` of a space that says where the sender stands in some lanes, and subscribes to none.
pub(crate) fn open(space: SpaceId, lanes: &[(LaneId, u64, [u8; 8])]) -> Vec<u8> {
    let lane = |(lane, lsn, hash): &(LaneId, u64, [u8; 8])| OpenLane {
        lane: *lane,
        lsn: *lsn,
        hash: *hash,
        subscription: None,
    };
    let lanes = lanes.iter().map(lane).collect();
    Message::Open(Open { space_ref: 0, space, needs_genesis: false, lanes }).encode()
}

/// Everything that a refused message must leave alone.
#[derive(Debug, PartialEq)]
pub(crate) struct Untouched {
    status: String,
    commits: usize,
    likes: i128,
    invitations_open: bool,
}

impl World {
    /// What `node` holds of a space, to be compared with later.
    pub(crate) fn untouched(&self, node: usize, space: SpaceId) -> Untouched {
        let status = self.status(node, space);
        let lanes: Vec<_> = status.lanes.iter().map(|lane| (lane.lane, lane.applied, lane.staged)).collect();
        let frozen: Vec<_> = status.lanes.iter().filter_map(|lane| lane.frozen.clone()).collect();
        Untouched {
            status: format!("{:?} {:?} {lanes:?} {frozen:?}", status.frontier, status.digest),
            commits: self.nodes[node].disk.commits(),
            likes: self.likes(node, space),
            invitations_open: self.nodes[node].engine.trust().invitations_open,
        }
    }

    /// Lets a ghost into a space by an invitation; it is greeted and open on the session returned, and node
    /// is subscribed to the ghost's lane up to which the ghost claims to have entries. Returns the session
    /// and the number of the node's subscription to the lane.
    pub(crate) fn admit(&mut self, node: usize, ghost: &Ghost) -> (SessionId, u32) {
        let secret = self.invite(node, ghost.space, Role::Writer);
        let session = self.connect_ghost(node, ghost.replica());
        self.inject(node, session, hello());
        self.inject(node, session, Message::Join(Join { space: ghost.space, secret }).encode());
        self.run();
        self.offer(node, session, ghost)
    }

    /// Opens the space for a ghost that is a member, claiming its own lane as it stands.
    pub(crate) fn offer(&mut self, node: usize, session: SessionId, ghost: &Ghost) -> (SessionId, u32) {
        let count = ghost.entries.len();
        let claim = (ghost.lane(), count as u64, ghost.tip(count).hash.prefix());
        self.inject(node, session, open(ghost.space, &[claim]));
        self.run();
        (session, self.subscription(node, session, ghost.lane()).expect("the lane is wanted"))
    }

    /// The number under which `node` last subscribed to a lane on a session.
    pub(crate) fn subscription(&self, node: usize, session: SessionId, lane: LaneId) -> Option<u32> {
        let log = &self.link(session).sent(node).log;
        let numbers = log.iter().filter_map(|(_, frame)| match Message::decode(frame).unwrap() {
            Message::Subscribe(subscribe) if subscribe.lane == lane => Some(subscribe.subscription),
            Message::Open(open) => open.lanes.iter().find(|open| open.lane == lane)?.subscription,
            _ => None,
        });
        numbers.reduce(|_, later| later)
    }

    /// The first reason for which `node` closed the session, if it did.
    pub(crate) fn close_reason(&self, node: usize, session: SessionId) -> Option<CloseReason> {
        self.nodes[node].closed.iter().find(|(closed, _)| *closed == session).map(|(_, reason)| *reason)
    }

    /// How often `node` was told that a peer denied it the space.
    pub(crate) fn denials(&self, node: usize) -> usize {
        self.nodes[node].notices.iter().filter(|notice| matches!(notice, Notice::Denied { .. })).count()
    }
}
