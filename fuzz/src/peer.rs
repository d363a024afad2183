//! A member of a space whose entries are sound.

use comity_crdts::{
    Dot, ExtensionTag, Frontier, Hlc, LaneId, Nonce, ObjectAddress, OriginId, ReplicaId, ResetColumn,
    SpaceId, Value,
};
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

    /// Appends an entry: an addition to the counter, a write elsewhere, or an announcement.
    pub(crate) fn append(&mut self, what: u8, number: i64) {
        let before = self.tip(self.entries.len());
        let hlc = before.at.max(Hlc::new(1_700_000_000_000, 0)).succ();
        let op = self.op(what % 24, number, (before.seq + 1, hlc));
        let likes = if let Some(Op::CounterAdd(delta)) = &op { *delta } else { 0 };
        self.deltas.push(likes);
        let body = match op {
            None => Body::Checkpoint([(self.lane(), before.lsn)].into_iter().collect()),
            Some(op) => {
                let key = if likes == 0 { "others" } else { "likes" };
                let address = ObjectAddress::new(op.kind(), "stats", key).expect("a short name");
                Body::Change(ChangeSet {
                    origin: self.lane(),
                    seq: before.seq + 1,
                    prev: before.change_hash,
                    context: Frontier::new(),
                    hlc,
                    operation: None,
                    groups: vec![Group { address, ops: vec![op] }],
                })
            }
        };
        let entry = LaneEntry { admitted: Frontier::new(), at: hlc, body };
        let after = before.after(&self.space, &entry);
        self.entries.push((entry, after));
    }

    /// An operation of every sort, whose author has seen its own first change set; none for an announcement.
    fn op(&self, what: u8, number: i64, (seq, hlc): (u64, Hlc)) -> Option<Op> {
        let (origin, value, amount) = (self.lane(), Value::I64(number), number.unsigned_abs());
        let observed = vec![Dot { origin, seq: 1, index: 0 }];
        let seen = amount.min(seq);
        let nested = |op: Op| Op::Nested { path: vec!["a".to_owned(), number.to_string()], op: Box::new(op) };
        Some(match what {
            0 => Op::SetAdd { element: value, observed: Vec::new() },
            1 => Op::RegisterSet { value, hlc, observed: Vec::new() },
            3 => {
                let tag = ExtensionTag::new(ExtensionTag::MIN | number as u8)?;
                Op::Extension { tag, body: number.to_be_bytes().to_vec() }
            }
            4 => Op::SetRemove { element: value, observed },
            5 => Op::SetClear { observed: [(origin, seen)].into_iter().collect() },
            6 => Op::RegisterReset { observed },
            7 => Op::FlagEnable { observed },
            8 => Op::FlagDisable { observed },
            9 => Op::DwFlagEnable,
            10 => Op::DwFlagDisable,
            11 => Op::RwSetAdd { element: value },
            12 => Op::RwSetRemove { element: value },
            13 => Op::BoundedIncrement(amount),
            14 => Op::BoundedDecrement(amount),
            15 => Op::BoundedTransfer { to: OriginId([number as u8; 16]), amount },
            16 => Op::CounterReset {
                columns: vec![ResetColumn { origin, through: (seen, 0), sum: i128::from(number) }],
            },
            17 => Op::DocumentRemove { heads: Vec::new() },
            18 => nested(Op::CounterAdd(number)),
            19 => nested(Op::SetAdd { element: value, observed: Vec::new() }),
            20 => nested(Op::RegisterSet { value, hlc, observed }),
            21 => nested(Op::FlagEnable { observed: Vec::new() }),
            22 => return None,
            _ => Op::CounterAdd(number),
        })
    }

    /// A run of the entries after the first `from`.
    pub(crate) fn run(&self, from: usize) -> Vec<u8> {
        let last = self.tip(self.entries.len());
        let (lane, before) = (self.lane(), self.tip(from));
        let signature = sign(&self.key, &self.space, &lane, last.lsn, &last.hash);
        let entries = &self.entries[from..];
        let mut run =
            encode_run(&lane, &self.owner, &before, entries, &signature.into(), &mut Dictionary::default());
        run[0] |= FRESH_DICTIONARY;
        run
    }
}
