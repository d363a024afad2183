//! Bytes per change on the wire in steady state, held against their budgets.
//!
//! One lane of a space with three writers, encoded as the engine encodes it. Steady means: every object and
//! origin is in the dictionary, the lane has many entries, one entry in four has seen one to three entries
//! more of one of the other lanes, and there are 1 to 300 ms between two entries. Operations that replace
//! something observe one dot, most often one of another origin.

mod catch_up;
mod typist;

use std::time::{Duration, Instant};

use comity_crdts::{Dot, Frontier, Hlc, Kind, LaneId, Nonce, ObjectAddress, ReplicaId, SpaceId, Value};
use comity_engine::wire::{
    Body, ChangeSet, Data, Dictionary, Group, LaneEntry, LaneOwner, LaneTip, Message, Op, decode_run,
    encode_run, sign,
};
use ed25519_dalek::SigningKey;

use crate::options::Options;
use crate::{Failure, Verdict, table};
use typist::Typist;

/// Objects the changes go to; so many that most references take two bytes.
const OBJECTS: u64 = 500;
/// Where the lane stands when measuring begins: its numbers take three bytes.
const STEADY_FROM: u64 = 50_000;
/// Change sets of each kind that are measured.
const MEASURED: usize = 500;
/// Entries in the runs that are compared.
const RUN_ENTRIES: [usize; 3] = [1, 10, 100];
/// The signature at a run's end.
const SIGNATURE_BYTES: usize = 64;

/// What a change consists of besides its budget: bytes of the application's own.
struct Case {
    name: &'static str,
    /// Bytes allowed on average, besides the application's own.
    budget: usize,
    /// What the application's own bytes are called.
    own: &'static str,
    kind: Kind,
    make: Make,
}

/// Makes an operation, and says how many bytes of it are the application's own.
type Make = fn(&mut Source, &[LaneId; 3]) -> (Op, usize);

/// What changes are made from: chance (SplitMix64), the time, and a text that is being typed.
struct Source {
    state: u64,
    at: Hlc,
    typist: Typist,
}

impl Source {
    fn new() -> Result<Self, Failure> {
        Ok(Self { state: 1, at: Hlc::ZERO, typist: Typist::new()? })
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn dot(&mut self, lanes: &[LaneId; 3]) -> Vec<Dot> {
        let origin = lanes[self.below(3) as usize];
        vec![Dot { origin, seq: STEADY_FROM - self.below(1_000), index: 0 }]
    }

    /// A text of 16 characters, and its bytes with tag and length.
    fn text(&mut self) -> (Value, usize) {
        let value = Value::Text(format!("{:016}", self.below(10_u64.pow(16))));
        let bytes = value.to_bytes().len();
        (value, bytes)
    }

    fn delta(&mut self) -> u64 {
        1 + self.below(1_000)
    }
}

/// Budgets of the protocol's design for the first three, and of the same measure for the others: each is
/// what its fields take where every reference and number is as long as it gets here.
const CASES: [Case; 18] = [
    Case { name: "counter add", budget: 14, own: "", kind: Kind::Counter, make: counter_add },
    Case { name: "set add, new element", budget: 16, own: "element", kind: Kind::Set, make: set_add },
    Case {
        name: "register write over one value",
        budget: 18,
        own: "value",
        kind: Kind::Register,
        make: write,
    },
    Case {
        name: "set add, element present",
        budget: 18,
        own: "element",
        kind: Kind::Set,
        make: set_add_again,
    },
    Case { name: "set remove", budget: 18, own: "element", kind: Kind::Set, make: set_remove },
    Case { name: "flag enable, disabled before", budget: 14, own: "", kind: Kind::Flag, make: flag_enable },
    Case { name: "flag disable", budget: 18, own: "", kind: Kind::Flag, make: flag_disable },
    Case {
        name: "disable-wins flag enable",
        budget: 14,
        own: "",
        kind: Kind::DwFlag,
        make: |_, _| (Op::DwFlagEnable, 0),
    },
    Case {
        name: "disable-wins flag disable",
        budget: 14,
        own: "",
        kind: Kind::DwFlag,
        make: |_, _| (Op::DwFlagDisable, 0),
    },
    Case { name: "remove-wins set add", budget: 16, own: "element", kind: Kind::RwSet, make: rw_add },
    Case { name: "remove-wins set remove", budget: 16, own: "element", kind: Kind::RwSet, make: rw_remove },
    Case { name: "map: counter add under a key", budget: 18, own: "key", kind: Kind::Map, make: map_add },
    Case {
        name: "map: register write under a key",
        budget: 22,
        own: "key, value",
        kind: Kind::Map,
        make: map_write,
    },
    Case {
        name: "bounded counter increment",
        budget: 14,
        own: "",
        kind: Kind::BoundedCounter,
        make: |source, _| (Op::BoundedIncrement(source.delta()), 0),
    },
    Case {
        name: "bounded counter decrement",
        budget: 14,
        own: "",
        kind: Kind::BoundedCounter,
        make: |source, _| (Op::BoundedDecrement(source.delta()), 0),
    },
    Case { name: "set clear", budget: 26, own: "", kind: Kind::Set, make: set_clear },
    Case {
        name: "document: one character typed",
        budget: 30,
        own: "character",
        kind: Kind::Document,
        make: |source, _| source.typist.keystroke(source.at),
    },
    Case {
        name: "document: typed, erased, moved about",
        budget: 30,
        own: "character",
        kind: Kind::Document,
        make: edit,
    },
];

fn counter_add(source: &mut Source, _: &[LaneId; 3]) -> (Op, usize) {
    (Op::CounterAdd(source.delta() as i64 - 500), 0)
}

fn set_add(source: &mut Source, _: &[LaneId; 3]) -> (Op, usize) {
    let (element, own) = source.text();
    (Op::SetAdd { element, observed: Vec::new() }, own)
}

fn set_add_again(source: &mut Source, lanes: &[LaneId; 3]) -> (Op, usize) {
    let (element, own) = source.text();
    (Op::SetAdd { element, observed: source.dot(lanes) }, own)
}

fn set_remove(source: &mut Source, lanes: &[LaneId; 3]) -> (Op, usize) {
    let (element, own) = source.text();
    (Op::SetRemove { element, observed: source.dot(lanes) }, own)
}

fn set_clear(_: &mut Source, lanes: &[LaneId; 3]) -> (Op, usize) {
    (Op::SetClear { observed: lanes.iter().map(|lane| (*lane, STEADY_FROM)).collect() }, 0)
}

fn write(source: &mut Source, lanes: &[LaneId; 3]) -> (Op, usize) {
    let (value, own) = source.text();
    // The stamp is the change set's, unless the register was last written by a clock that is ahead.
    (Op::RegisterSet { value, hlc: source.at, observed: source.dot(lanes) }, own)
}

fn flag_enable(_: &mut Source, _: &[LaneId; 3]) -> (Op, usize) {
    (Op::FlagEnable { observed: Vec::new() }, 0)
}

fn flag_disable(source: &mut Source, lanes: &[LaneId; 3]) -> (Op, usize) {
    (Op::FlagDisable { observed: source.dot(lanes) }, 0)
}

fn rw_add(source: &mut Source, _: &[LaneId; 3]) -> (Op, usize) {
    let (element, own) = source.text();
    (Op::RwSetAdd { element }, own)
}

fn rw_remove(source: &mut Source, _: &[LaneId; 3]) -> (Op, usize) {
    let (element, own) = source.text();
    (Op::RwSetRemove { element }, own)
}

/// Nine keystrokes in twelve go on where the last one was.
fn edit(source: &mut Source, _: &[LaneId; 3]) -> (Op, usize) {
    match source.below(12) {
        0 => {
            let to = source.below(u64::MAX);
            source.typist.jump(to);
            source.typist.keystroke(source.at)
        }
        1 | 2 => source.typist.backspace(source.at),
        _ => source.typist.keystroke(source.at),
    }
}

fn map_add(source: &mut Source, lanes: &[LaneId; 3]) -> (Op, usize) {
    nested(source, counter_add, lanes)
}

fn map_write(source: &mut Source, lanes: &[LaneId; 3]) -> (Op, usize) {
    nested(source, write, lanes)
}

fn nested(source: &mut Source, make: Make, lanes: &[LaneId; 3]) -> (Op, usize) {
    let key = format!("key-{:04}", source.below(10_000));
    let (op, own) = make(source, lanes);
    let bytes = key.len();
    (Op::Nested { path: vec![key], op: Box::new(op) }, own + bytes)
}

/// A lane that goes on from where it is steady, and what its owner's peer knows of it.
struct Steady {
    space: SpaceId,
    owner: LaneOwner,
    secret: SigningKey,
    lanes: [LaneId; 3],
    tip: LaneTip,
    dictionary: Dictionary,
    /// The receiver's, which grows in step.
    received: Dictionary,
    source: Source,
    kind: Kind,
    /// How many objects of it the changes go to.
    objects: u64,
}

impl Steady {
    fn new(kind: Kind) -> Result<Self, Failure> {
        let secret = SigningKey::from_bytes(&[7; 32]);
        let space = SpaceId([1; 16]);
        let owner =
            LaneOwner { replica: ReplicaId(secret.verifying_key().to_bytes()), nonce: Nonce([2; 16]) };
        let lane = owner.lane(&space);
        let lanes = [lane, comity_crdts::OriginId([3; 16]), comity_crdts::OriginId([4; 16])];
        let mut tip = LaneTip::start(&space, &lane);
        (tip.lsn, tip.seq) = (STEADY_FROM, STEADY_FROM);
        tip.at = Hlc::new(1_790_000_000_000, 0);
        tip.hlc = tip.at;
        lanes[1..].iter().for_each(|other| tip.admitted.advance(*other, STEADY_FROM));
        let (dictionary, received, source) = (Dictionary::default(), Dictionary::default(), Source::new()?);
        let objects = OBJECTS;
        let mut steady =
            Self { space, owner, secret, lanes, tip, dictionary, received, source, kind, objects };
        steady.warm_up()?;
        Ok(steady)
    }

    /// A run that names every object and origin.
    fn warm_up(&mut self) -> Result<(), Failure> {
        let (mut entry, _) = self.entry(set_clear)?;
        let Body::Change(change) = &mut entry.body else { return Err("a change was made".into()) };
        let op = change.groups[0].ops[0].clone();
        change.groups = (0..OBJECTS)
            .map(|number| Ok(Group { address: self.address(number)?, ops: vec![op.clone()] }))
            .collect::<Result<_, Failure>>()?;
        let before = self.tip.clone();
        self.tip = self.tip.after(&self.space, &entry);
        let entries = [(entry, self.tip.clone())];
        let (lane, signature) = (&self.lanes[0], [0; SIGNATURE_BYTES]);
        encode_run(lane, &self.owner, &before, &entries, &signature.into(), &mut self.dictionary);
        self.received = self.dictionary.clone();
        Ok(())
    }

    fn address(&self, number: u64) -> Result<ObjectAddress, Failure> {
        Ok(ObjectAddress::new(self.kind, "measured", &format!("object-{number:06}"))?)
    }

    /// An entry with what `make` makes at its time, and how many bytes of that are the application's own.
    fn entry(&mut self, make: Make) -> Result<(LaneEntry, usize), Failure> {
        let mut admitted: Frontier = self.tip.admitted.clone();
        if self.source.below(4) == 0 {
            let other = self.lanes[1 + self.source.below(2) as usize];
            admitted.advance(other, admitted.at(&other) + 1 + self.source.below(3));
        }
        let at = Hlc::new(self.tip.at.millis() + 1 + self.source.below(300), 0);
        self.source.at = at;
        let (op, own) = make(&mut self.source, &self.lanes);
        // One document is edited, from the first change to the last.
        let number = if self.kind == Kind::Document { OBJECTS - 1 } else { self.source.below(self.objects) };
        let change = ChangeSet {
            origin: self.lanes[0],
            seq: self.tip.seq + 1,
            prev: self.tip.change_hash,
            context: admitted.clone(),
            hlc: at,
            operation: None,
            groups: vec![Group { address: self.address(number)?, ops: vec![op] }],
        };
        Ok((LaneEntry { admitted, at, body: Body::Change(change) }, own))
    }

    /// Appends an entry to the lane.
    fn append(&mut self, make: Make) -> Result<((LaneEntry, LaneTip), usize), Failure> {
        let (entry, own) = self.entry(make)?;
        self.tip = self.tip.after(&self.space, &entry);
        Ok(((entry, self.tip.clone()), own))
    }

    /// Sends a run of `entries` to a receiver that checks it.
    fn send(&mut self, before: &LaneTip, entries: &[(LaneEntry, LaneTip)]) -> Result<Sent, Failure> {
        let (lane, tip) = (&self.lanes[0], entries.last().map_or(before, |(_, tip)| tip));
        let signature = sign(&self.secret, &self.space, lane, tip.lsn, &tip.hash);
        let start = Instant::now();
        let run = encode_run(lane, &self.owner, before, entries, &signature.into(), &mut self.dictionary);
        let encoding = start.elapsed();
        let read = decode_run(&self.space, lane, Some(self.owner), before, &mut self.received, &run)?;
        let decoding = start.elapsed() - encoding;
        if read.entries != entries {
            return Err("a run does not decode to what was encoded".into());
        }
        let data = Data {
            subscription: 1,
            more: false,
            awaited: false,
            ends: false,
            first: before.lsn + 1,
            bytes: &run,
        };
        let frame = Message::Data(data).encode().len();
        // The transport precedes each frame with its length.
        let length_prefix = frame.max(1).ilog2() as usize / 7 + 1;
        Ok(Sent { run: run.len(), wire: frame + length_prefix, encoding, decoding })
    }

    /// The bytes of `count` changes in one run and of all around it; and how many are the application's own.
    fn run(&mut self, case: &Case, count: usize) -> Result<Run, Failure> {
        let (mut entries, mut own) = (Vec::new(), 0);
        let before = self.tip.clone();
        for _ in 0..count {
            let (entry, bytes) = self.append(case.make)?;
            entries.push(entry);
            own += bytes;
        }
        let Sent { run, wire, .. } = self.send(&before, &entries)?;
        // Flags and the number of entries come before them.
        let head = 1 + if count < 128 { 1 } else { 2 };
        Ok(Run { entries: run - SIGNATURE_BYTES - head, own, wire })
    }
}

/// What a run of entries takes.
struct Sent {
    /// Bytes of the run.
    run: usize,
    /// Bytes on a stream.
    wire: usize,
    encoding: Duration,
    /// Its signature is verified and its hashes are computed.
    decoding: Duration,
}

struct Run {
    /// Bytes of the entries alone.
    entries: usize,
    /// Of which the application's own.
    own: usize,
    /// Bytes on a stream: entries, signature, run, frame.
    wire: usize,
}

/// Prints what each kind of change takes. No options.
pub(crate) fn run(_: &Options) -> Result<Verdict, Failure> {
    let (mut rows, mut verdict) = (Vec::new(), Verdict::default());
    for case in &CASES {
        let mut steady = Steady::new(case.kind)?;
        let mut singles: Vec<Run> = (0..MEASURED).map(|_| steady.run(case, 1)).collect::<Result<_, _>>()?;
        let overhead = |run: &Run| run.entries - run.own;
        let total: usize = singles.iter().map(overhead).sum();
        let most = singles.iter().map(overhead).max().unwrap_or(0);
        let mean = total as f64 / MEASURED as f64;
        let own = singles.iter().map(|run| run.own).sum::<usize>() / MEASURED;
        let mut row = vec![
            case.name.to_owned(),
            format!(
                "{}{}",
                case.budget,
                if case.own.is_empty() { String::new() } else { format!(" + {}", case.own) }
            ),
            format!("{mean:.1}"),
            most.to_string(),
            if own == 0 { "—".to_owned() } else { own.to_string() },
        ];
        for count in RUN_ENTRIES {
            let runs = match count {
                1 => std::mem::take(&mut singles),
                _ => (0..MEASURED / count).map(|_| steady.run(case, count)).collect::<Result<_, _>>()?,
            };
            let wire: usize = runs.iter().map(|run| run.wire).sum();
            row.push(format!("{:.1}", wire as f64 / (runs.len() * count) as f64));
        }
        rows.push(row);
        if mean > case.budget as f64 {
            verdict.broken.push(format!("{}: {mean:.1} bytes where {} are allowed", case.name, case.budget));
        }
    }
    let heads = ["change", "budget", "entry: mean", "most", "own bytes", "all, runs of 1", "of 10", "of 100"];
    table::print(&heads, &rows);
    catch_up::run(&mut verdict)?;
    Ok(verdict)
}
