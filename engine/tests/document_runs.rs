//! Document changes in runs: what they take on the wire, that they come out as they were, and who lies about
//! what was left out of them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod world;

use comity_crdts::automerge::transaction::{CommitOptions, Transactable};
use comity_crdts::automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc};
use comity_crdts::{Frontier, Hlc, Kind, Nonce, ObjectAddress, RawChange, ReplicaId, SpaceId, Writer};
use comity_engine::wire::{
    Body, ChangeSet, Data, Dictionary, Group, LaneEntry, LaneOwner, LaneTip, Message, Op, RunError,
    decode_run, encode_run, sign,
};
use comity_engine::{CloseReason, TxError};
use ed25519_dalek::SigningKey;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use std::io::Read;
use world::World;
use world::ghost::{Ghost, data, hello, open};

const SIGNATURE_BYTES: usize = 64;
const OWNER_BYTES: usize = 48;
const PACKED: u8 = 1 << 2;

/// A lane whose owner types, and the two ends of a subscription to it.
struct Lane {
    key: SigningKey,
    space: SpaceId,
    owner: LaneOwner,
    tip: LaneTip,
    writer: Dictionary,
    reader: Dictionary,
    millis: u64,
}

impl Lane {
    fn new() -> Self {
        let (key, space) = (SigningKey::from_bytes(&[7; 32]), SpaceId([1; 16]));
        let replica = ReplicaId(key.verifying_key().to_bytes());
        let owner = LaneOwner { replica, nonce: Nonce([2; 16]) };
        let tip = LaneTip::start(&space, &owner.lane(&space));
        let (writer, reader) = Default::default();
        Self { key, space, owner, tip, writer, reader, millis: 1_700_000_000_000 }
    }

    fn entry(&mut self, groups: Vec<Group>) -> (LaneEntry, LaneTip) {
        let at = Hlc::new(self.millis, 0);
        let (seq, prev) = (self.tip.seq + 1, self.tip.change_hash);
        let origin = self.owner.lane(&self.space);
        let change =
            ChangeSet { origin, seq, prev, context: Frontier::new(), hlc: at, operation: None, groups };
        let entry = LaneEntry { admitted: Frontier::new(), at, body: Body::Change(change) };
        self.tip = self.tip.after(&self.space, &entry);
        (entry, self.tip.clone())
    }

    /// The bytes of a run, which the other end understands.
    fn send(&mut self, before: &LaneTip, entries: &[(LaneEntry, LaneTip)]) -> Vec<u8> {
        let (lane, last) = (self.owner.lane(&self.space), &entries.last().unwrap().1);
        let signature = sign(&self.key, &self.space, &lane, last.lsn, &last.hash);
        let run = encode_run(&lane, &self.owner, before, entries, &signature.into(), &mut self.writer);
        let owner = Some(self.owner);
        let read = decode_run(&self.space, &lane, owner, before, &mut self.reader, &run).unwrap();
        assert_eq!(read.entries, entries);
        run
    }

    /// What one change set adds to a run: the bytes of a run of its own without head and signature.
    fn grow_by(&mut self, groups: Vec<Group>) -> usize {
        let before = self.tip.clone();
        let owner = if before.lsn == 0 { OWNER_BYTES } else { 0 };
        let entry = self.entry(groups);
        self.send(&before, &[entry]).len() - 2 - owner - SIGNATURE_BYTES
    }
}

/// A document in which somebody types.
struct Text {
    document: Automerge,
    text: ObjId,
}

impl Text {
    fn new(actor: u8) -> Self {
        let mut document = Automerge::new().with_actor([actor; 16].into());
        let text = document.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text)).unwrap().result;
        Self { document, text }
    }

    fn splice(&mut self, (at, erased, typed): (usize, isize, &str), seconds: i64) -> RawChange {
        let mut tx = self.document.transaction();
        tx.splice_text(&self.text, at, erased, typed).unwrap();
        tx.commit_with(CommitOptions::default().with_time(seconds));
        RawChange::parse(self.document.get_last_local_change().unwrap().raw_bytes()).unwrap()
    }

    fn first(&self) -> RawChange {
        RawChange::parse(self.document.get_changes(&[])[0].raw_bytes()).unwrap()
    }

    fn len(&self) -> usize {
        self.document.length(&self.text)
    }
}

fn group(key: &str, ops: Vec<RawChange>) -> Group {
    let address = ObjectAddress::new(Kind::Document, "notes", key).unwrap();
    Group { address, ops: ops.into_iter().map(Op::DocumentChange).collect() }
}

const PROSE: &str = include_str!("../../docs/decisions.md");

#[test]
fn a_keystroke_takes_at_most_thirty_bytes_in_a_run_of_its_own() {
    let (mut lane, mut text) = (Lane::new(), Text::new(3));
    lane.grow_by(vec![group("draft", vec![text.first()])]);
    let mut sizes = Vec::new();
    for (at, letter) in PROSE.chars().take(500).enumerate() {
        lane.millis += 37 + 61 * (at as u64 % 7);
        let change = text.splice((at, 0, &letter.to_string()), (lane.millis / 1_000) as i64);
        sizes.push(lane.grow_by(vec![group("draft", vec![change])]));
    }
    // The first two differ from what was before them: the text is made, then has no character to follow.
    let steady = &sizes[2..];
    let mean = steady.iter().sum::<usize>() as f64 / steady.len() as f64;
    assert!(steady.iter().all(|bytes| *bytes <= 30), "{sizes:?}");
    assert!(mean <= 14.0, "{mean}");
}

#[test]
fn both_ends_stay_in_step_over_more_documents_than_they_keep() {
    let mut lane = Lane::new();
    let mut texts: Vec<Text> = (0..70).map(|actor| Text::new(actor as u8)).collect();
    for round in 0..2_000_usize {
        lane.millis += 400;
        // Some are edited often and some never again, so that every sort of forgetting comes up.
        let index = if round % 3 == 0 { round % 70 } else { (round * round) % 11 };
        let (text, seconds) = (&mut texts[index], (lane.millis / 1_000) as i64 + (round % 2) as i64);
        let at = (round * 7) % (text.len() + 1);
        let erased = isize::from(round % 5 == 0 && at < text.len());
        let edits = [text.splice((at, erased, "ab"), seconds), text.splice((at, 1, ""), seconds)];
        let mut groups = vec![group(&format!("{index}"), edits.to_vec())];
        if round % 13 == 0 {
            let other = (index + 1) % 70;
            groups.push(group(&format!("{other}"), vec![texts[other].splice((0, 0, "x"), seconds)]));
        }
        lane.grow_by(groups);
        if round % 701 == 700 {
            // A new subscription starts with nothing.
            (lane.writer, lane.reader) = Default::default();
        }
    }
}

#[test]
fn what_is_missed_while_a_thousand_characters_are_typed_takes_six_kilobytes() {
    let (mut world, space) = World::mesh(2);
    let edit = |world: &mut World, at: usize, typed: &str| {
        let edited = world.write(0, space, |tx| {
            tx.document_edit::<_, TxError>("notes", "draft", |document| {
                let text = match document.get(ROOT, "text").unwrap() {
                    Some((_, text)) => text,
                    None => document.put_object(ROOT, "text", ObjType::Text).unwrap(),
                };
                document.splice_text(&text, at, 0, typed).unwrap();
                Ok(())
            })
        });
        edited.unwrap();
    };
    edit(&mut world, 0, "x");
    let session = world.session_between(0, 1).unwrap();
    world.disconnect(session);
    for (at, letter) in PROSE.chars().take(1_000).enumerate() {
        world.nodes[0].wall_ms += 37 + 61 * (at as u64 % 7);
        edit(&mut world, at + 1, &letter.to_string());
    }
    let session = world.connect(0, 1);
    world.run();
    world.assert_converged(space);
    let frames = &world.link(session).sent(0).log;
    let data = frames.iter().filter(|(_, frame)| matches!(Message::decode(frame), Ok(Message::Data(_))));
    let bytes: usize = data.map(|(_, frame)| frame.len()).sum();
    assert!(bytes <= 6_000, "{bytes}");
    // What goes on from there is small from the second keystroke.
    let mut last = 0;
    for at in 0..10 {
        let before: usize = world.link(session).sent(0).log.iter().map(|(_, frame)| frame.len()).sum();
        edit(&mut world, 1_001 + at, "z");
        let after: usize = world.link(session).sent(0).log.iter().map(|(_, frame)| frame.len()).sum();
        last = after - before;
    }
    assert!(last <= SIGNATURE_BYTES + 30 + 10, "{last} bytes with frame and signature");
}

/// The run of a lane that starts with these changes to one document.
fn run_of(ops: Vec<RawChange>) -> (Lane, LaneTip, Vec<u8>) {
    let mut lane = Lane::new();
    let before = lane.tip.clone();
    let entry = lane.entry(vec![group("draft", ops)]);
    let lane_id = lane.owner.lane(&lane.space);
    let signature = sign(&lane.key, &lane.space, &lane_id, entry.1.lsn, &entry.1.hash);
    let run =
        encode_run(&lane_id, &lane.owner, &before, &[entry], &signature.into(), &mut Dictionary::default());
    (lane, before, run)
}

fn decoded(lane: &Lane, before: &LaneTip, run: &[u8]) -> Result<usize, RunError> {
    let id = lane.owner.lane(&lane.space);
    let run = decode_run(&lane.space, &id, Some(lane.owner), before, &mut Dictionary::default(), run)?;
    Ok(run.entries.len())
}

#[test]
fn a_few_bytes_that_stand_for_many_document_changes_are_refused() {
    let mut text = Text::new(3);
    let first = text.splice((0, 0, &"word ".repeat(200)), 1_700_000_000);
    assert!(first.bytes().len() > 1_000);
    // The same change again: valid as a change, and all of it is as it was before.
    let (lane, before, run) = run_of(vec![first.clone(); 900]);
    assert!(run.len() < 8_000 && decoded(&lane, &before, &run).is_ok(), "{}", run.len());
    let (lane, before, run) = run_of(vec![first; 1_100]);
    assert!(run.len() < 8_000, "{}", run.len());
    let refused = decoded(&lane, &before, &run).unwrap_err();
    assert!(refused.to_string().starts_with("document changes of a change set"), "{refused}");
}

#[test]
fn what_was_left_out_for_another_receiver_is_not_made_up() {
    let (mut lane, mut text) = (Lane::new(), Text::new(3));
    let mut before = lane.tip.clone();
    let mut runs = Vec::new();
    for at in 0..6 {
        let change = text.splice((at, 0, "x"), 1_700_000_000);
        let entry = lane.entry(vec![group("draft", vec![change])]);
        runs.push((before.clone(), lane.send(&before, std::slice::from_ref(&entry))));
        before = entry.1;
    }
    let (before, run) = &runs[5];
    assert!(decoded(&lane, before, run).is_err(), "a receiver that knows nothing");
    // One that has another change in the place of the last.
    let mut reader = Dictionary::default();
    let id = lane.owner.lane(&lane.space);
    for (before, run) in &runs[..4] {
        decode_run(&lane.space, &id, Some(lane.owner), before, &mut reader, run).unwrap();
    }
    let lied = decode_run(&lane.space, &id, Some(lane.owner), before, &mut reader, run);
    assert_eq!(lied.unwrap_err(), RunError::Signature);
}

fn deflated(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::new();
    DeflateEncoder::new(bytes, flate2::Compression::new(level)).read_to_end(&mut out).unwrap();
    out
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    DeflateDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

/// A run whose packed entries are `packed`, which claim to be `length` bytes.
fn forged(lane: &Lane, length: u64, packed: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.u8(1 | PACKED);
    out.bytes(&lane.owner.replica.0);
    out.bytes(&lane.owner.nonce.0);
    out.varint(length);
    out.blob(packed);
    out.bytes(&[0; SIGNATURE_BYTES]);
    out.finish()
}

#[test]
fn packed_entries_that_are_not_what_they_claim_are_malformed() {
    let (lane, before, run) = run_of(vec![Text::new(3).first(); 200]);
    assert_eq!(run[0] & PACKED, PACKED);
    assert_eq!(decoded(&lane, &before, &run), Ok(1));
    let mut reader = comity_crdts::Reader::new(&run[1 + OWNER_BYTES..]);
    let length = reader.varint("length").unwrap();
    let packed = reader.blob(usize::MAX, "packed").unwrap();
    let malformed = |length: u64, packed: &[u8]| {
        let refused = decoded(&lane, &before, &forged(&lane, length, packed)).unwrap_err();
        assert!(matches!(refused, RunError::Decode(_)), "{refused}");
    };
    assert_eq!(decoded(&lane, &before, &forged(&lane, length, packed)), Err(RunError::Signature));
    malformed(length - 1, packed);
    malformed(length + 1, packed);
    malformed(length, &packed[..packed.len() - 1]);
    malformed(length, &[packed, &[0]].concat());
    malformed(length, &[]);
    malformed(0, &[]);
    malformed(u64::MAX, packed);
    malformed(1 << 21, &deflated(&vec![0; 1 << 21], 6));
    // Entries that are there twice, and what packing makes no shorter.
    let unpacked = inflated(packed);
    let twice = [&unpacked[..], &unpacked].concat();
    malformed(twice.len() as u64, &deflated(&twice, 6));
    malformed(length, &deflated(&unpacked, 0));
    // The bomb: as many zeros as a run may have, each an entry of nothing.
    let zeros = vec![0; (1024 + 256) * 1024];
    let bomb = deflated(&zeros, 9);
    assert!(bomb.len() < 2_000);
    malformed(zeros.len() as u64, &bomb);
}

#[test]
fn no_byte_of_a_packed_run_can_be_altered_by_who_relays_it() {
    let mut text = Text::new(3);
    let mut ops = vec![text.first()];
    ops.extend((0..400).map(|at| text.splice((at, 0, "x"), 1_700_000_000)));
    let (lane, before, run) = run_of(ops);
    assert_eq!(run[0] & PACKED, PACKED);
    let honest = decode_run(
        &lane.space,
        &lane.owner.lane(&lane.space),
        None,
        &before,
        &mut Dictionary::default(),
        &run,
    );
    let honest = honest.unwrap();
    for at in 0..run.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut altered = run.clone();
            altered[at] ^= flip;
            let id = lane.owner.lane(&lane.space);
            let read = decode_run(&lane.space, &id, None, &before, &mut Dictionary::default(), &altered);
            // Other bytes can unpack to the same entries, and nothing else.
            assert!(read.is_err() || read.unwrap().entries == honest.entries, "byte {at} ^ {flip:02x}");
        }
    }
}

#[test]
fn a_peer_that_sends_a_bomb_loses_its_session_and_nothing_is_kept() {
    let mut world = World::new(1);
    let space = world.create_space(0);
    let mut ghost = Ghost::new(9, space);
    ghost.add(1);
    let (session, subscription) = world.admit(0, &ghost);
    let before = world.untouched(0, space);
    let mut out = Writer::new();
    out.u8(1 | PACKED);
    out.bytes(&ghost.owner.replica.0);
    out.bytes(&ghost.owner.nonce.0);
    out.varint((1024 + 256) * 1024);
    out.blob(&deflated(&vec![0; (1024 + 256) * 1024], 9));
    out.bytes(&[0; SIGNATURE_BYTES]);
    world.inject(0, session, data(subscription, 1, out.as_slice()));
    world.run();
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Malformed));
    assert_eq!(world.untouched(0, space), before);
    // In pieces it is the same bomb.
    let session = world.connect_ghost(0, ghost.replica());
    world.inject(0, session, hello());
    world.inject(0, session, open(space, &[(ghost.lane(), 1, ghost.tip(1).hash.prefix())]));
    world.run();
    let subscription = world.subscription(0, session, ghost.lane()).unwrap();
    for (index, bytes) in out.as_slice().chunks(500).enumerate() {
        let more = (index + 1) * 500 < out.len();
        let message = Data { subscription, more, awaited: false, ends: false, first: 1, bytes };
        world.inject(0, session, Message::Data(message).encode());
    }
    world.run();
    assert_eq!(world.close_reason(0, session), Some(CloseReason::Malformed));
    assert_eq!(world.untouched(0, space), before);
}
