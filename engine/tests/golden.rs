//! The bytes of `docs/wire.md`, read from the document itself: what it shows is what the code encodes and
//! decodes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::automerge::transaction::{CommitOptions, Transactable};
use comity_crdts::automerge::{Automerge, ObjType, ROOT};
use comity_crdts::{
    ExtensionTag, Frontier, Hlc, Kind, Nonce, ObjectAddress, OriginId, RawChange, ReplicaId, SpaceId, Value,
    Writer,
};
use comity_engine::wire::{
    AuditAsk, AuditFetch, AuditItem, AuditReply, AuditRows, AuditSuspect, Body, Branch, Branches, ChangeSet,
    Data, Denied, Dictionary, FrontierAnswer, FrontierRequest, Genesis, Group, Have, Head, Hello, Join,
    Knows, LaneEntry, LaneOwner, LaneRef, LaneTip, Leaf, Leaves, Limit, Limited, Message, Op, Open, OpenLane,
    Proof, Range, RangeDigest, Removed, RightsRequest, RowsEnd, Shared, Subscribe, Unsubscribe, decode_entry,
    decode_run, encode_entry, encode_run, sign,
};
use comity_engine::{CloseReason, OperationId, Role};
use ed25519_dalek::SigningKey;

const DOCUMENT: &str = include_str!("../../docs/wire.md");

/// The changes of the document that the example types.
const TYPED: [&str; 3] = ["typed-change-1", "typed-change-2", "typed-change-3"];

/// The blocks fenced as "```hex <name>", without what follows a `;` on each line.
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let hex = lines.by_ref().take_while(|line| *line != "```");
        let hex: String = hex.map(|line| line.split(';').next().unwrap().replace(' ', "")).collect();
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        assert!(blocks.insert(name, bytes.collect()).is_none(), "{name} is shown once");
    }
    blocks
}

/// The worked example: one replica, one space, one lane of two entries.
struct Example {
    key: SigningKey,
    founder: Nonce,
    space: SpaceId,
    owner: LaneOwner,
    lane: OriginId,
    entries: Vec<(LaneEntry, LaneTip)>,
}

fn example() -> Example {
    let key = SigningKey::from_bytes(&[1; 32]);
    let replica = ReplicaId(key.verifying_key().to_bytes());
    let founder = Nonce([2; 16]);
    let space = SpaceId::derive(&replica, &founder);
    let owner = LaneOwner { replica, nonce: Nonce([3; 16]) };
    let lane = owner.lane(&space);
    let start = LaneTip::start(&space, &lane);
    let likes = |delta| Group {
        address: ObjectAddress::new(Kind::Counter, "stats", "likes").unwrap(),
        ops: vec![Op::CounterAdd(delta)],
    };
    let at = Hlc::new(1_700_000_000_000, 0);
    let first = entry(lane, &start, at, Frontier::new(), vec![likes(5)]);
    let after_first = start.after(&space, &first);
    let at = Hlc::new(1_700_000_000_250, 3);
    let later = at.succ();
    let city = Group {
        address: ObjectAddress::new(Kind::Register, "profile", "city").unwrap(),
        ops: vec![Op::RegisterSet { value: "Berlin".into(), hlc: later, observed: Vec::new() }],
    };
    let seen = [(OriginId([4; 16]), 7)].into_iter().collect();
    let second = entry(lane, &after_first, at, seen, vec![likes(-2), city]);
    let after_second = after_first.after(&space, &second);
    let entries = vec![(first, after_first), (second, after_second)];
    Example { key, founder, space, owner, lane, entries }
}

fn entry(lane: OriginId, before: &LaneTip, at: Hlc, admitted: Frontier, groups: Vec<Group>) -> LaneEntry {
    let (seq, prev, context) = (before.seq + 1, before.change_hash, admitted.clone());
    let change = ChangeSet { origin: lane, seq, prev, context, hlc: at, operation: None, groups };
    LaneEntry { admitted, at, body: Body::Change(change) }
}

/// As whom the lane's owner edits documents.
fn actor(example: &Example) -> [u8; 16] {
    let parts = [&b"comity 2026 actor\0"[..], &example.lane.0, &example.owner.nonce.0].concat();
    *blake3::hash(&parts).as_bytes().first_chunk().unwrap()
}

/// Three more entries: a document with the text "H", and an "i" and a "!" that are typed after it.
fn typed(example: &Example) -> Vec<(LaneEntry, LaneTip)> {
    let mut document = Automerge::new().with_actor(actor(example).into());
    let mut before = example.entries[1].1.clone();
    let mut entries = Vec::new();
    let mut text = None;
    for (at, letter) in ["H", "i", "!"].into_iter().enumerate() {
        let hlc = Hlc::new(1_700_000_001_000 + 150 * at as u64, 0);
        let mut tx = document.transaction();
        let text = text.get_or_insert_with(|| tx.put_object(ROOT, "text", ObjType::Text).unwrap());
        tx.splice_text(&*text, at, 0, letter).unwrap();
        tx.commit_with(CommitOptions::default().with_time(1_700_000_001));
        let change = RawChange::parse(document.get_last_local_change().unwrap().raw_bytes()).unwrap();
        let address = ObjectAddress::new(Kind::Document, "notes", "draft").unwrap();
        let groups = vec![Group { address, ops: vec![Op::DocumentChange(change)] }];
        let entry = entry(example.lane, &before, hlc, before.admitted.clone(), groups);
        before = before.after(&example.space, &entry);
        entries.push((entry, before.clone()));
    }
    entries
}

/// An operation, the first entry as it would be under it, and the hash of its change set.
fn identified(example: &Example) -> [(&'static str, Vec<u8>); 3] {
    let Example { space, lane, entries, .. } = example;
    let (operation, start) = (OperationId::named(b"order-17").unwrap(), LaneTip::start(space, lane));
    let mut entry = entries[0].0.clone();
    if let Body::Change(change) = &mut entry.body {
        change.operation = Some(operation);
    }
    let tip = start.after(space, &entry);
    let mut stored = Writer::new();
    stored.bytes(&tip.hash.0);
    encode_entry(lane, &start, &entry, &mut Dictionary::default(), &mut stored);
    let hash = tip.change_hash.0.to_vec();
    [("operation", operation.0.to_vec()), ("identified", stored.finish()), ("identified-change", hash)]
}

/// The first entry as one that lets a follower in and removes somebody, and the hash of its change set.
fn stated(example: &Example) -> [(&'static str, Vec<u8>); 2] {
    let Example { space, lane, entries, .. } = example;
    let (start, mut entry) = (LaneTip::start(space, lane), entries[0].0.clone());
    if let Body::Change(change) = &mut entry.body {
        let follower = Op::Grant { replica: ReplicaId([7; 32]), role: Role::Follower };
        let ops = vec![follower, Op::Revoke { replica: ReplicaId([8; 32]) }];
        change.groups = vec![Group { address: ObjectAddress::members(), ops }];
    }
    let tip = start.after(space, &entry);
    let mut stored = Writer::new();
    stored.bytes(&tip.hash.0);
    encode_entry(lane, &start, &entry, &mut Dictionary::default(), &mut stored);
    [("stated", stored.finish()), ("stated-change", tip.change_hash.0.to_vec())]
}

/// The first entry as one that has something of a later version besides, and the hash of its change set.
fn extended(example: &Example) -> [(&'static str, Vec<u8>); 2] {
    let Example { space, lane, entries, .. } = example;
    let (start, mut entry) = (LaneTip::start(space, lane), entries[0].0.clone());
    if let Body::Change(change) = &mut entry.body {
        let tag = ExtensionTag::new(71).unwrap();
        change.groups[0].ops.push(Op::Extension { tag, body: b"more".to_vec() });
        let address = ObjectAddress::new(Kind::from_tag(72).unwrap(), "stats", "likes").unwrap();
        change.groups.push(Group { address, ops: vec![Op::Extension { tag, body: Vec::new() }] });
    }
    let tip = start.after(space, &entry);
    let mut stored = Writer::new();
    stored.bytes(&tip.hash.0);
    encode_entry(lane, &start, &entry, &mut Dictionary::default(), &mut stored);
    [("extended", stored.finish()), ("extended-change", tip.change_hash.0.to_vec())]
}

fn tags(tags: &[u8]) -> BTreeSet<ExtensionTag> {
    tags.iter().filter_map(|tag| ExtensionTag::new(*tag)).collect()
}

/// The changes in entries that each change one document.
fn changes(entries: &[(LaneEntry, LaneTip)]) -> Vec<Vec<u8>> {
    let ops = entries.iter().map(|(entry, _)| match &entry.body {
        Body::Change(change) => change.groups[0].ops[0].clone(),
        Body::Checkpoint(_) => panic!("a change set"),
    });
    let bytes = ops.map(|op| match op {
        Op::DocumentChange(change) => change.bytes().to_vec(),
        other => panic!("{other:?}"),
    });
    bytes.collect()
}

/// The messages of the example, with the names under which the document shows them.
fn messages(example: &Example, run: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let Example { space, lane, owner, entries, founder, key } = example;
    let (space, lane) = (*space, *lane);
    let (other, start) = (OriginId([4; 16]), LaneTip::start(&space, &lane).hash.prefix());
    let tip = &entries[1].1;
    let other_lane = OpenLane { lane: other, lsn: 7, hash: [0xab; 8], subscription: Some(0) };
    let own_lane = OpenLane { lane, lsn: 2, hash: tip.hash.prefix(), subscription: None };
    let name = "home".to_owned();
    let signature = sign(key, &space, &lane, tip.lsn, &tip.hash);
    let all = [
        ("hello", Message::Hello(Hello { version_min: 4, version_max: 6, wall_ms: 1_700_000_000_000 })),
        ("hello-4", Message::Hello(Hello { version_min: 4, version_max: 4, wall_ms: 1_700_000_000_000 })),
        ("knows", Message::Knows(Knows { operations: tags(&[64, 71]), kinds: tags(&[72]) })),
        ("shared", Message::Shared(Shared { spaces: 1_000, root: Some([0xab; 16]) })),
        ("heard", Message::Heard),
        ("branches", branches()),
        ("leaves", leaves(space)),
        ("join", Message::Join(Join { space, secret: [5; 16] })),
        (
            "open",
            Message::Open(Open {
                space_ref: 0,
                space,
                needs_genesis: false,
                lanes: vec![other_lane, own_lane],
            }),
        ),
        ("genesis", Message::Genesis(Genesis { space, creator: owner.replica, nonce: *founder, name })),
        ("denied", Message::Denied(Denied { space })),
        ("removed", Message::Removed(Removed { space })),
        ("subscribe", Message::Subscribe(Subscribe { space, subscription: 3, lane, from: 1, hash: start })),
        ("offer", Message::Offer(Subscribe { space, subscription: 1 << 31, lane, from: 1, hash: start })),
        ("range", Message::Range(Range { space, subscription: 4, lane, from: 4_097, until: 8_192 })),
        ("limit", Message::Limit(Limit { subscription: 3, until: 4_096 })),
        ("limited", Message::Limited(Limited { subscription: 3, last: 4_096 })),
        ("unsubscribe", Message::Unsubscribe(Unsubscribe { subscription: 3, refused: true })),
        (
            "data",
            Message::Data(Data {
                subscription: 3,
                more: false,
                awaited: true,
                ends: false,
                first: 1,
                bytes: run,
            }),
        ),
        (
            "have",
            Message::Have(Have {
                space_ref: 0,
                lanes: vec![(LaneRef::Known(0), 300), (LaneRef::New(OriginId([6; 16])), 1)],
            }),
        ),
        ("head", Message::Head(Head { space, lane, lsn: tip.lsn, hash: tip.hash, proof: signature.into() })),
        ("frontier-request", Message::FrontierRequest(FrontierRequest { space, number: 5 })),
        (
            "frontier-answer",
            Message::FrontierAnswer(FrontierAnswer {
                number: 5,
                space_ref: 0,
                lanes: vec![(LaneRef::Known(0), 7), (LaneRef::Known(1), 2)],
            }),
        ),
        (
            "rights",
            Message::RightsRequest(RightsRequest {
                space,
                collection: "stock".to_owned(),
                key: "seats".to_owned(),
                to: lane,
                amount: 300,
            }),
        ),
    ];
    let all = all.into_iter().chain(audits(space, lane));
    all.map(|(name, message)| (name, message.encode())).collect()
}

/// The messages of audits.
fn audits(space: SpaceId, lane: OriginId) -> [(&'static str, Message<'static>); 5] {
    let key = b"\x01stats\0likes".to_vec();
    let range = RangeDigest { until: key.clone(), count: 1, state: 300 };
    let ask = AuditAsk {
        space,
        number: 4,
        frontier: [(lane, 2)].into_iter().collect(),
        root: [0x0a; 16],
        from: Vec::new(),
        ranges: vec![range],
    };
    let (frontier, root) = (ask.frontier.clone(), ask.root);
    let fetch = AuditFetch { space, number: 6, object: key.clone(), frontier: frontier.clone(), root };
    let end = RowsEnd::Complete { frontier, forgotten: Frontier::new() };
    let rows = AuditRows { number: 6, rows: vec![(b"012".to_vec(), vec![7])], end };
    let item = AuditItem { key: key.clone(), ops: 0, state: 5 };
    let reply = AuditReply { number: 4, compared: 1, differ: vec![(0, vec![item])] };
    [
        ("audit-ask", Message::AuditAsk(ask)),
        ("audit-reply", Message::AuditReply(reply)),
        ("audit-fetch", Message::AuditFetch(fetch)),
        ("audit-rows", Message::AuditRows(rows)),
        ("audit-suspect", Message::AuditSuspect(AuditSuspect { space, objects: vec![key] })),
    ]
}

fn branches() -> Message<'static> {
    let digests = vec![[0xab; 16], [0xcd; 16]];
    Message::Branches(Branches { depth: 1, nodes: vec![Branch { number: 0xa, present: 0x8001, digests }] })
}

fn leaves(space: SpaceId) -> Message<'static> {
    let (mut from, mut until) = ([0; 16], [0xff; 16]);
    (from[0], until[0]) = (0xa0, 0xaf);
    let (from, until) = (SpaceId(from), SpaceId(until));
    let ranges = vec![Leaf { from, until, spaces: vec![(space, [0xef; 16])] }];
    Message::Leaves(Leaves { more: false, ranges })
}

fn encoded(example: &Example) -> Vec<(&'static str, Vec<u8>)> {
    let Example { key, space, owner, lane, entries, .. } = example;
    let start = LaneTip::start(space, lane);
    let tip = &entries[1].1;
    let signature = sign(key, space, lane, tip.lsn, &tip.hash);
    let run = encode_run(lane, owner, &start, entries, &signature.into(), &mut Dictionary::default());
    let mut stored = Writer::new();
    stored.bytes(&tip.hash.0);
    encode_entry(lane, &start, &entries[1].0, &mut Dictionary::default(), &mut stored);
    let mut all = vec![
        ("replica", owner.replica.0.to_vec()),
        ("space", space.0.to_vec()),
        ("lane", lane.0.to_vec()),
        ("chain-0", start.hash.0.to_vec()),
        ("change-1", entries[0].1.change_hash.0.to_vec()),
        ("chain-1", entries[0].1.hash.0.to_vec()),
        ("change-2", tip.change_hash.0.to_vec()),
        ("chain-2", tip.hash.0.to_vec()),
        ("signature", signature.to_vec()),
        ("stored", stored.finish()),
        ("run", run.clone()),
    ];
    all.extend(messages(example, &run));
    all.extend(identified(example));
    all.extend(stated(example));
    all.extend(extended(example));
    let typed = typed(example);
    let last = &typed[2].1;
    let signature = sign(key, space, lane, last.lsn, &last.hash);
    all.push(("typed", encode_run(lane, owner, tip, &typed, &signature.into(), &mut Dictionary::default())));
    let links = vec![entries[0].1.after_linked(space, &entries[1].0).1];
    let proof = Proof { links, signature: sign(key, space, lane, entries[1].1.lsn, &entries[1].1.hash) };
    let part = encode_run(lane, owner, &start, &entries[..1], &proof, &mut Dictionary::default());
    all.push(("link-2", proof.links[0].0.to_vec()));
    all.push(("part", part));
    all.push(("actor", actor(example).to_vec()));
    all.extend(TYPED.into_iter().zip(changes(&typed)));
    all
}

#[test]
fn the_code_encodes_exactly_the_bytes_that_the_document_shows() {
    let mut shown = blocks();
    assert!(shown.remove("packed").is_some(), "may be packed in many ways");
    for (name, bytes) in encoded(&example()) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown.remove(name), Some(bytes), "{name} is {hex}");
    }
    assert!(shown.is_empty(), "shown but not checked: {:?}", shown.keys());
}

#[test]
fn the_messages_of_the_document_decode_to_what_it_says() {
    let shown = blocks();
    for (name, bytes) in messages(&example(), &shown["run"]) {
        let message = Message::decode(&shown[name]).unwrap();
        assert_eq!(message, Message::decode(&bytes).unwrap(), "{name}");
        assert_eq!(message.encode(), shown[name], "{name}");
    }
}

#[test]
fn the_run_of_the_document_decodes_and_its_signature_holds() {
    let Example { space, lane, owner, entries, .. } = example();
    let shown = blocks();
    let start = LaneTip::start(&space, &lane);
    let run = decode_run(&space, &lane, None, &start, &mut Dictionary::default(), &shown["run"]).unwrap();
    assert_eq!((run.owner, &run.entries), (owner, &entries));
    assert_eq!(run.proof.signature.to_vec(), shown["signature"]);
    let mut stored = comity_crdts::Reader::new(&shown["stored"][32..]);
    let entry = decode_entry(&lane, &start, &mut Dictionary::default(), &mut stored).unwrap();
    let Body::Change(change) = &entry.body else { panic!("a change set") };
    assert_eq!((entry.at, &entry.admitted), (entries[1].0.at, &entries[1].0.admitted));
    assert_eq!(change.groups[1].ops.len(), 1);
    assert!(
        matches!(&change.groups[1].ops[0], Op::RegisterSet { value: Value::Text(city), .. } if city == "Berlin")
    );
}

#[test]
fn the_entry_with_an_operation_decodes_and_a_bit_of_its_id_is_in_its_hash() {
    let Example { space, lane, .. } = example();
    let (shown, start) = (blocks(), LaneTip::start(&space, &lane));
    let read = |bytes: &[u8]| {
        let mut reader = comity_crdts::Reader::new(&bytes[32..]);
        decode_entry(&lane, &start, &mut Dictionary::default(), &mut reader).unwrap()
    };
    let entry = read(&shown["identified"]);
    let Body::Change(change) = &entry.body else { panic!("a change set") };
    assert_eq!(change.operation.map(|id| id.0.to_vec()), Some(shown["operation"].clone()));
    assert_eq!(start.after(&space, &entry).change_hash.0.to_vec(), shown["identified-change"]);
    let mut other = shown["identified"].clone();
    let at = other.windows(16).position(|window| window == shown["operation"]).unwrap();
    other[at + 7] ^= 1;
    assert_ne!(start.after(&space, &read(&other)).change_hash.0.to_vec(), shown["identified-change"]);
    assert_ne!(shown["change-1"], shown["identified-change"]);
}

#[test]
fn the_runs_of_the_document_give_the_changes_that_were_left_out_and_what_was_packed() {
    let example = example();
    let Example { space, lane, owner, entries, .. } = &example;
    let shown = blocks();
    let (tip, mut dictionary) = (&entries[1].1, Dictionary::default());
    let run = decode_run(space, lane, Some(*owner), tip, &mut dictionary, &shown["typed"]).unwrap();
    assert_eq!(changes(&run.entries), TYPED.map(|name| shown[name].clone()));
    let start = LaneTip::start(space, lane);
    let part = decode_run(space, lane, None, &start, &mut Dictionary::default(), &shown["part"]).unwrap();
    assert_eq!(part.entries, entries[..1]);
    let run = decode_run(space, lane, None, &start, &mut Dictionary::default(), &shown["packed"]).unwrap();
    let Body::Change(change) = &run.entries[0].0.body else { panic!("a change set") };
    assert_eq!(change.groups[0].ops, vec![Op::CounterAdd(5); 100]);
}

#[test]
fn the_close_codes_of_the_document_are_those_of_the_code() {
    let reasons = [
        CloseReason::Malformed,
        CloseReason::Unexpected,
        CloseReason::Version,
        CloseReason::Signature,
        CloseReason::LaneOrder,
        CloseReason::Window,
        CloseReason::TooMany,
        CloseReason::Storage,
        CloseReason::NotMember,
    ];
    for reason in reasons {
        let row = format!("| {:#x} | `{reason:?}` | {} |", reason.code(), reason.sentence());
        assert!(DOCUMENT.contains(&row), "{row}");
    }
    let codes = DOCUMENT.lines().filter(|line| line.starts_with("| 0x") && line.find(" | ") == Some(7));
    assert_eq!(codes.count(), reasons.len());
}
