//! A member of a space whose entries are sound.

use comity_crdts::{Frontier, Hlc, Kind, LaneId, Nonce, ObjectAddress, ReplicaId, SpaceId, Value};
use comity_engine::SessionId;
use comity_engine::wire::{
    Body, ChangeSet, Dictionary, Group, LaneEntry, LaneOwner, LaneTip, Op, encode_run, sign,
};
use ed25519_dalek::SigningKey;

/// A flag of a run.
const FRESH_DICTIONARY: u8 = 1 << 1;

/// A replica whose lane the target makes.
pub(crate) struct Peer {
    key: SigningKey,
    space: SpaceId,
    owner: LaneOwner,
    entries: Vec<(LaneEntry, LaneTip)>,
    /// What each entry adds to the counter.
    deltas: Vec<i64>,
    /// Its last session; zero before the first.
    pub(crate) session: SessionId,
    /// Under which number the core wants its lane.
    pub(crate) subscription: Option<u32>,
}

impl Peer {
    pub(crate) fn new(seed: u8, space: SpaceId) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let replica = ReplicaId(key.verifying_key().to_bytes());
        let owner = LaneOwner { replica, nonce: Nonce([seed; 16]) };
        let (entries, deltas) = Default::default();
        Self { key, space, owner, entries, deltas, session: SessionId(0), subscription: None }
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        self.owner.replica
    }

    pub(crate) fn lane(&self) -> LaneId {
        self.owner.lane(&self.space)
    }

    /// How many entries its lane has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the lane stands after its first `count` entries.
    pub(crate) fn tip(&self, count: usize) -> LaneTip {
        match count.checked_sub(1) {
            None => LaneTip::start(&self.space, &self.lane()),
            Some(last) => self.entries[last].1.clone(),
        }
    }

    /// What the first `count` entries add to the counter.
    pub(crate) fn likes(&self, count: usize) -> i128 {
        self.deltas[..count].iter().map(|delta| i128::from(*delta)).sum()
    }

    /// Appends an entry: an addition to the counter, or a write elsewhere.
    pub(crate) fn append(&mut self, what: u8, number: i64) {
        let before = self.tip(self.entries.len());
        let hlc = before.hlc.max(Hlc::new(1_700_000_000_000, 0)).succ();
        let value = Value::I64(number);
        let (kind, op) = match what % 4 {
            0 => (Kind::Set, Op::SetAdd { element: value, observed: Vec::new() }),
            1 => (Kind::Register, Op::RegisterSet { value, hlc, observed: Vec::new() }),
            _ => (Kind::Counter, Op::CounterAdd(number)),
        };
        self.deltas.push(if kind == Kind::Counter { number } else { 0 });
        let address = ObjectAddress::new(kind, "stats", "likes").expect("a short name");
        let change = ChangeSet {
            origin: self.lane(),
            seq: before.seq + 1,
            prev: before.change_hash,
            context: Frontier::new(),
            hlc,
            groups: vec![Group { address, ops: vec![op] }],
        };
        let entry = LaneEntry { admitted: Frontier::new(), at: hlc, body: Body::Change(change) };
        let after = before.after(&self.space, &entry);
        self.entries.push((entry, after));
    }

    /// A run of the entries after the first `from`.
    pub(crate) fn run(&self, from: usize) -> Vec<u8> {
        let last = self.tip(self.entries.len());
        let (lane, before) = (self.lane(), self.tip(from));
        let signature = sign(&self.key, &self.space, &lane, last.lsn, &last.hash);
        let entries = &self.entries[from..];
        let mut run =
            encode_run(&lane, &self.owner, &before, entries, &signature, &mut Dictionary::default());
        run[0] |= FRESH_DICTIONARY;
        run
    }
}
