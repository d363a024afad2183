//! Writes the first inputs of every corpus: one of each thing, as the code encodes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use comity_crdts::automerge::marks::{ExpandMark, Mark};
use comity_crdts::automerge::{Automerge, ObjType, ROOT, ReadDoc, transaction::Transactable};
use comity_crdts::hostile::changes as changes_hostile;
use comity_crdts::{
    Dot, ExtensionTag, Frontier, Hlc, Kind, ObjectAddress, ResetColumn, SpaceId, Value, Writer,
};
use comity_engine::wire::{
    AuditAsk, AuditFetch, AuditItem, AuditReply, AuditRows, AuditSuspect, Body, Branch, Branches, ChangeSet,
    Data, Denied, Dictionary, FrontierAnswer, FrontierRequest, Genesis, Gone, Group, Have, Hello, Join,
    Knows, LaneEntry, LaneRef, LaneTip, Leaf, Leaves, Limit, Limited, Message, Op, Open, OpenLane, Proof,
    Range, RangeDigest, RightsRequest, RowsEnd, Shared, SnapshotAsk, SnapshotPiece, SnapshotRead, Subscribe,
    Unsubscribe, decode_run, encode_run, sign,
};
use comity_engine::{OperationId, Token};

fn main() {
    let value = Value::Map(BTreeMap::from([
        (
            "list".to_owned(),
            Value::List(vec![Value::Null, Value::Bool(true), Value::I64(-5), Value::F64(0.5)]),
        ),
        ("bytes".to_owned(), Value::Bytes(vec![1, 2, 3])),
        ("text".to_owned(), Value::from("Grüße")),
    ]));
    keep("value", "map", &value.to_bytes());
    let run = run(four_kinds(&value), None, None);
    keep("run", "four-kinds", &run);
    keep("run", "every-operation", &self::run(every_operation(&value), Some(announcement()), None));
    keep("run", "document-typed", &self::run(document_typed(1), None, None));
    keep("run", "part", &part(&value));
    keep("run", "packed", &self::run(document_typed(60), None, None));
    let operation = OperationId::named(b"order-17").expect("a short name");
    keep("run", "operation", &self::run(four_kinds(&value), None, Some(operation)));
    elided();
    for (name, message) in messages(&run) {
        keep("message", name, &message.encode());
    }
    keep("raw_change", "map-and-text", &raw_change());
    chunks();
    let (_, space, owner) = comity_fuzz::owner();
    let frontier: Frontier = [(owner.lane(&space), 258)].into_iter().collect();
    keep("token", "one-lane", &Token { space, frontier }.to_bytes());
    let addresses = vec!["127.0.0.1:4433".parse().expect("an address")];
    let ticket = comity::Ticket {
        replica: owner.replica,
        addresses,
        space,
        secret: Some([5; 16]),
        role: comity::Role::Writer,
    };
    keep("ticket", "invitation", ticket.to_string().as_bytes());
    frames();
    logs();
    engine(&run);
}

/// Every frame on both sessions among writes, syncs, reconnects and power cuts.
fn engine(run: &[u8]) {
    keep(
        "engine",
        "writes-of-both-members",
        &[0, 1, 4, 2, 5, 132, 3, 6, 1, 4, 0, 7, 132, 1, 8, 1, 2, 6, 0, 1],
    );
    keep("engine", "reconnects", &[4, 2, 9, 3, 131, 4, 2, 1, 1, 3, 7, 132, 2, 4, 131, 1]);
    keep("engine", "power-cuts", &[0, 4, 2, 5, 5, 3, 0, 1, 132, 3, 2, 5, 131, 3, 7, 135, 1, 0, 5]);
    // Every sort of entry in both lanes, every sort of write in between, and time to announce and to forget.
    let mut inputs = Vec::new();
    for what in 0..24 {
        inputs.extend([4, what, 3, 132, what, 5, 1, 16 * (what % 8), 1, 2, 1]);
    }
    inputs.extend([2, 1].repeat(50));
    inputs.extend([5, 3, 131, 1, 2, 1]);
    keep("engine", "every-operation", &inputs);
    let mut inputs = vec![0, 1, 2, 3, 0, 1, 2];
    for (_, message) in messages(run) {
        let frame = message.encode();
        let [high, low] = (frame.len() as u16).to_be_bytes();
        for step in [15, 143, 3] {
            inputs.push(step);
            if step != 3 {
                inputs.extend([high, low]);
                inputs.extend(&frame);
            }
        }
    }
    keep("engine", "every-message", &inputs);
}

/// Chunks of each type, and everything hostile; the first byte is the type that the rest is made a chunk of, or
/// says that the rest is chunks already.
fn chunks() {
    let mut document = Automerge::new();
    let text = document.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text)).expect("an edit").result;
    for round in 0..30 {
        let mark = Mark::new("bold".to_owned(), true, 0, 2);
        let edit = document.transact(|tx| {
            tx.splice_text(&text, round, round.min(1) as isize, "words and more words")?;
            tx.put(ROOT, "round", round as i64)?;
            tx.mark(&text, mark, ExpandMark::Both)
        });
        edit.expect("an edit");
    }
    let mut changes = document.get_changes(&[]);
    let last = changes.last_mut().expect("there are changes");
    let (raw, deflated) = (last.raw_bytes().to_vec(), last.bytes().to_vec());
    for (name, chunks) in [
        ("document", document.save()),
        ("document-not-deflated", document.save_nocompress()),
        ("change", raw),
        ("change-deflated", deflated),
    ] {
        // Magic, checksum, type, and a length of two bytes come before the contents.
        let contents = &chunks[11..];
        keep("chunks", name, &[&[255][..], &chunks].concat());
        keep("chunks", &format!("{name}-contents"), &[&chunks[8..9], contents].concat());
    }
    // A fuzzer gets nowhere with what is long.
    let short = changes_hostile().into_iter().filter(|hostile| hostile.bytes.len() < 4_096);
    for (number, hostile) in short.enumerate() {
        keep("chunks", &format!("hostile-{number:02}"), &[&[255][..], &hostile.bytes].concat());
    }
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join(name), bytes).expect("the file can be written");
}

/// A limit, no or some lengths of chunks, and a stream.
fn frames() {
    let stream = [&[2][..], &[2], b"hi", &[0xc8, 0x01], &[7; 200], &[1, 9]].concat();
    keep("frame", "three-frames", &[&[1, 0][..], &stream].concat());
    keep("frame", "three-frames-in-chunks", &[&[1, 3, 0, 1, 0, 2, 0, 100][..], &stream].concat());
    keep("frame", "over-the-limit", &[&[0, 0][..], &stream].concat());
    keep("frame", "cut-short", &[&[4, 1, 0, 64][..], &stream[..90]].concat());
    keep("frame", "empty-frame", &[3, 0, 1, 1, 5, 0]);
    keep("frame", "long-length", &[3, 0, 3, 0x85, 0]);
    keep("frame", "largest-announced", &[3, 1, 0, 2, 1, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3]);
    let large = [&[2, 1, 0x10, 0, 2, 0x88, 0x27][..], &[3; 5000], &[1, 4]].concat();
    keep("frame", "larger-than-a-reservation", &large);
}

/// The life of a store, then what is done to its log.
fn logs() {
    let put = |name: &str, bytes: &[u8]| {
        let [high, low] = (bytes.len() as u16).to_be_bytes();
        [&[5, 0, name.len() as u8][..], name.as_bytes(), &[high, low], bytes].concat()
    };
    for life in 0..4 {
        let spoils: [(&str, Vec<u8>); 9] = [
            ("sound", Vec::new()),
            ("flipped", vec![0, 0, 2, 9, 3]),
            ("header-flipped", vec![0, 1, 0, 30, 7]),
            ("truncated", vec![1, 1, 6, 0]),
            ("overwritten", vec![2, 0, 4, 0, 4, 1, 2, 3, 4]),
            ("swapped", vec![3, 0, 1]),
            ("removed", vec![4, 1]),
            ("zeroed", vec![6, 1, 2, 0, 4, 0]),
            ("moved", vec![7, 0, 1, 1, 3, 2]),
        ];
        for (name, spoil) in spoils {
            keep("log", &format!("{name}-{life}"), &[&[life][..], &spoil].concat());
        }
    }
    for (what, name) in [
        ("highest-number", "18446744073709551615.log"),
        ("highest-number-kept", "18446744073709551615.damaged"),
        ("short-number", "77.log"),
        ("signed-number", "+000000001.log"),
        ("garbage", "0000000099.log"),
        ("unfinished", "0000000099.log.new"),
    ] {
        keep("log", what, &[&[0][..], &put(name, b"no file of a log")].concat());
    }
    let entry = [&[1][..], &[1; 40], &[3], b"row", &[2], &[1], b"k", &[2], b"v", &[1], b"g", &[0]].concat();
    let record = |payload: &[u8]| [&[0, 9, 0, payload.len() as u8][..], payload].concat();
    let sound = [&[4, 1, 2][..], &record(&entry), &record(&[0, 0]), &[8]].concat();
    keep("log", "forged-groups", &sound);
    keep("log", "forged-no-group", &[&[4, 1, 1][..], &record(&[1, 2, 3]), &[0]].concat());
    let again =
        [&[4, 2, 2][..], &record(&entry), &[64, 0, 0, 2, 0, 0], &[0, 1, 255], &record(&entry)].concat();
    keep("log", "forged-gap", &again);
}

fn raw_change() -> Vec<u8> {
    let mut document = Automerge::new().with_actor([1_u8; 16].into());
    let mut tx = document.transaction();
    tx.put(ROOT, "title", "Milk").expect("the root is a map");
    let (hash, _) = tx.commit();
    let hash = hash.expect("something was changed");
    document.get_change_by_hash(&hash).expect("it was just made").raw_bytes().to_vec()
}

fn address(kind: Kind) -> ObjectAddress {
    ObjectAddress::new(kind, "c", "k").expect("a short name")
}

const HLC: (u64, u16) = (1_700_000_000_000, 1);

fn observed() -> Vec<Dot> {
    let (_, space, owner) = comity_fuzz::owner();
    vec![Dot { origin: owner.lane(&space), seq: 1, index: 0 }]
}

fn four_kinds(value: &Value) -> Vec<Group> {
    let (observed, hlc) = (observed(), Hlc::new(HLC.0, HLC.1));
    vec![
        Group { address: address(Kind::Counter), ops: vec![Op::CounterAdd(5)] },
        Group { address: address(Kind::Set), ops: vec![Op::SetAdd { element: value.clone(), observed }] },
        Group {
            address: address(Kind::Register),
            ops: vec![Op::RegisterSet { value: value.clone(), hlc, observed: Vec::new() }],
        },
        Group {
            address: address(Kind::Document),
            ops: vec![Op::DocumentChange(
                comity_crdts::RawChange::parse(&raw_change()).expect("a sound change"),
            )],
        },
    ]
}

/// The changes of a document, some more than once: nothing says that a run cannot.
fn document_typed(times: usize) -> Vec<Group> {
    let (_, changes) = comity_fuzz::recent();
    let ops = (0..times).flat_map(|_| changes.iter().cloned().map(Op::DocumentChange)).collect();
    vec![Group { address: address(Kind::Document), ops }]
}

/// Each change, after those that the target takes to be known.
fn elided() {
    let (recent, changes) = comity_fuzz::recent();
    for (number, change) in changes.iter().enumerate() {
        let mut out = Writer::new();
        change.encode_elided(&comity_fuzz::expected(&recent), &mut out);
        keep("elided", &format!("change-{number}"), out.as_slice());
    }
}

/// What the four kinds leave out, each alone and where it may be in a map.
fn every_operation(value: &Value) -> Vec<Group> {
    let (observed, element) = (observed, value.clone());
    let origin = observed()[0].origin;
    let columns = vec![ResetColumn { origin, through: (3, 2), sum: -70_000 }];
    let clear = Op::SetClear { observed: [(origin, 300)].into_iter().collect() };
    let mut groups = vec![
        vec![Op::CounterReset { columns }],
        vec![Op::SetRemove { element: element.clone(), observed: observed() }, clear],
        vec![Op::RegisterReset { observed: observed() }],
        vec![Op::FlagEnable { observed: observed() }, Op::FlagDisable { observed: observed() }],
    ];
    let nested = groups.iter().flatten().map(|op| {
        let path = vec!["a".to_owned(), "key".to_owned()];
        Op::Nested { path, op: Box::new(op.clone()) }
    });
    let nested = nested.collect();
    groups.extend([
        nested,
        vec![Op::DwFlagEnable, Op::DwFlagDisable],
        vec![Op::RwSetAdd { element: element.clone() }, Op::RwSetRemove { element }],
        vec![
            Op::BoundedIncrement(5),
            Op::BoundedDecrement(1),
            Op::BoundedTransfer { to: comity_crdts::OriginId([4; 16]), amount: 3 },
        ],
        vec![Op::DocumentRemove { heads: vec![[1; 32], [2; 32]] }],
    ]);
    groups.into_iter().map(|ops| Group { address: address(ops[0].kind()), ops }).collect()
}

fn announcement() -> Body {
    Body::Checkpoint([(observed()[0].origin, 1)].into_iter().collect())
}

/// A run of a change set, and of something else after it.
fn run(groups: Vec<Group>, last: Option<Body>, operation: Option<OperationId>) -> Vec<u8> {
    let (key, space, owner) = comity_fuzz::owner();
    let (lane, hlc) = (owner.lane(&space), Hlc::new(HLC.0, HLC.1));
    let start = LaneTip::start(&space, &lane);
    let (origin, prev, context) = (lane, start.change_hash, Frontier::new());
    let change = ChangeSet { origin, seq: 1, prev, context: context.clone(), hlc, operation, groups };
    let entry = LaneEntry { admitted: context, at: hlc, body: Body::Change(change) };
    let mut after = start.after(&space, &entry);
    let mut entries = vec![(entry, after.clone())];
    if let Some(body) = last {
        let entry = LaneEntry { admitted: Frontier::new(), at: hlc, body };
        after = after.after(&space, &entry);
        entries.push((entry, after.clone()));
    }
    let signature = sign(&key, &space, &lane, after.lsn, &after.hash);
    encode_run(&lane, &owner, &start, &entries, &signature.into(), &mut Dictionary::default())
}

/// The first entry of a run of two, proved by the link of the other.
fn part(value: &Value) -> Vec<u8> {
    let run = run(four_kinds(value), Some(announcement()), None);
    let (_, space, owner) = comity_fuzz::owner();
    let (lane, start) = (owner.lane(&space), LaneTip::start(&space, &owner.lane(&space)));
    let whole =
        decode_run(&space, &lane, None, &start, &mut Dictionary::default(), &run).expect("a sound run");
    let (first, second) = (&whole.entries[0], &whole.entries[1]);
    let links = vec![first.1.after_linked(&space, &second.0).1];
    let proof = Proof { links, signature: whole.proof.signature };
    encode_run(&lane, &owner, &start, &whole.entries[..1], &proof, &mut Dictionary::default())
}

fn tags(tags: &[u8]) -> BTreeSet<ExtensionTag> {
    tags.iter().filter_map(|tag| ExtensionTag::new(*tag)).collect()
}

fn messages(run: &[u8]) -> Vec<(&'static str, Message<'_>)> {
    let (_, space, owner) = comity_fuzz::owner();
    let lane = owner.lane(&space);
    let open_lane = OpenLane { lane, lsn: 3, hash: [1; 8], subscription: Some(0) };
    let branch = Branch { number: 0xa, present: 0x8001, digests: vec![[1; 16], [2; 16]] };
    let leaf = Leaf { from: SpaceId([0; 16]), until: SpaceId([0xff; 16]), spaces: vec![(space, [3; 16])] };
    let (creator, nonce, name) = (owner.replica, owner.nonce, "notes".to_owned());
    vec![
        ("hello", Message::Hello(Hello { version_min: 4, version_max: 6, wall_ms: 1_700_000_000_000 })),
        ("knows", Message::Knows(Knows { operations: tags(&[64, 71]), kinds: tags(&[72]) })),
        ("shared", Message::Shared(Shared { spaces: 1_000, root: Some([0xab; 16]) })),
        ("heard", Message::Heard),
        ("branches", Message::Branches(Branches { depth: 1, nodes: vec![branch] })),
        ("leaves", Message::Leaves(Leaves { more: false, ranges: vec![leaf] })),
        ("join", Message::Join(Join { space, secret: [5; 16] })),
        ("open", Message::Open(Open { space_ref: 0, space, needs_genesis: true, lanes: vec![open_lane] })),
        ("genesis", Message::Genesis(Genesis { space, creator, nonce, name })),
        ("denied", Message::Denied(Denied { space })),
        ("subscribe", Message::Subscribe(Subscribe { space, subscription: 0, lane, from: 1, hash: [0; 8] })),
        ("offer", Message::Offer(Subscribe { space, subscription: 1 << 31, lane, from: 1, hash: [0; 8] })),
        ("range", Message::Range(Range { space, subscription: 1, lane, from: 4_097, until: 8_192 })),
        ("limit", Message::Limit(Limit { subscription: 0, until: 4_096 })),
        ("limited", Message::Limited(Limited { subscription: 0, last: 4_160 })),
        ("gone", Message::Gone(Gone { subscription: 0, floor: 300 })),
        ("snapshot-ask", Message::SnapshotAsk(SnapshotAsk { space, number: 3 })),
        (
            "snapshot-read",
            Message::SnapshotRead(SnapshotRead {
                number: 3,
                from: b"\x30".to_vec(),
                until: None,
                hash: None,
                pieces: 8,
            }),
        ),
        (
            "snapshot-piece",
            Message::SnapshotPiece(SnapshotPiece { number: 3, more: true, bytes: &[1, 2, 3] }),
        ),
        ("unsubscribe", Message::Unsubscribe(Unsubscribe { subscription: 0, refused: false })),
        (
            "have",
            Message::Have(Have {
                space_ref: 0,
                lanes: vec![(LaneRef::Known(0), 9), (LaneRef::New(lane), 1)],
            }),
        ),
        ("frontier-request", Message::FrontierRequest(FrontierRequest { space, number: 5 })),
        (
            "frontier-answer",
            Message::FrontierAnswer(FrontierAnswer {
                number: 5,
                space_ref: 0,
                lanes: vec![(LaneRef::Known(0), 9), (LaneRef::New(lane), 1)],
            }),
        ),
        (
            "rights-request",
            Message::RightsRequest(RightsRequest {
                space,
                collection: "c".to_owned(),
                key: "k".to_owned(),
                to: lane,
                amount: 300,
            }),
        ),
        (
            "audit-ask",
            Message::AuditAsk(AuditAsk {
                space,
                number: 1,
                frontier: [(lane, 9)].into_iter().collect(),
                root: [6; 16],
                from: Vec::new(),
                ranges: vec![RangeDigest { until: vec![0xff], count: 2, state: 7 << 80 }],
            }),
        ),
        (
            "audit-reply",
            Message::AuditReply(AuditReply {
                number: 1,
                compared: 1,
                differ: vec![(0, vec![AuditItem { key: b"\x01c\0k".to_vec(), ops: 1, state: 9 }])],
            }),
        ),
        (
            "audit-fetch",
            Message::AuditFetch(AuditFetch {
                space,
                number: 2,
                object: b"\x01c\0k".to_vec(),
                frontier: [(lane, 9)].into_iter().collect(),
                root: [6; 16],
            }),
        ),
        (
            "audit-rows",
            Message::AuditRows(AuditRows {
                number: 2,
                rows: vec![(vec![0x30, 1], vec![2, 3])],
                end: RowsEnd::Complete {
                    frontier: [(lane, 9)].into_iter().collect(),
                    forgotten: Frontier::new(),
                },
            }),
        ),
        ("audit-suspect", Message::AuditSuspect(AuditSuspect { space, objects: vec![b"\x01c\0k".to_vec()] })),
        (
            "data",
            Message::Data(Data {
                subscription: 0,
                more: false,
                awaited: true,
                ends: false,
                first: 1,
                bytes: run,
            }),
        ),
    ]
}
