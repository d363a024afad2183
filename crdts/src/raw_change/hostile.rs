//! Changes and chunks that no program makes by itself, for tests of what must refuse them: what Automerge
//! panics on, what it takes and cannot load again, and what is small and claims to be large.

use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjType, ROOT, ScalarValue};
use flate2::{Compress, Compression, FlushCompress};

use crate::codec::Writer;
use crate::limits::DOCUMENT_DEPTH_MAX;

use super::ingest::{chunk_hash, write_chunk};

/// Made the changes that the hostile ones build on.
pub const ALICE: [u8; 16] = [0xa1; 16];
/// Makes the hostile ones.
pub const MALLORY: [u8; 16] = [0xe0; 16];
/// Operations 1 to 9 are Alice's: a number, a list of two, a text of five letters that follow it.
const NUMBER: u64 = 1;
const LIST: u64 = 2;
const TEXT: u64 = 5;
const LETTERS: [u64; 5] = [6, 7, 8, 9, 10];
const MAP: u64 = 11;

/// Where something hostile is found out at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is not a change within the limits.
    Parse,
    /// It is a change, and does not fit the document.
    Apply,
}

/// A change, as its bytes, and where it is to be refused.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// What is wrong with it.
    pub name: &'static str,
    /// One chunk.
    pub bytes: Vec<u8>,
    /// Who has to notice.
    pub stage: Stage,
}

/// The changes of a sound document, by [`ALICE`]; each a chunk.
///
/// # Panics
/// Never: Automerge takes them.
pub fn base() -> Vec<Vec<u8>> {
    let mut document = Automerge::new().with_actor(ActorId::from(&ALICE[..]));
    document.transact(|tx| tx.put(ROOT, "n", 1)).expect("a sound edit");
    let rest = document.transact(|tx| {
        let list = tx.put_object(ROOT, "list", ObjType::List)?;
        tx.insert(&list, 0, "a")?;
        tx.insert(&list, 1, "b")?;
        let text = tx.put_object(ROOT, "text", ObjType::Text)?;
        tx.splice_text(&text, 0, 0, "hello")?;
        tx.put_object(ROOT, "map", ObjType::Map)
    });
    rest.expect("a sound edit");
    document.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect()
}

/// A change by [`MALLORY`] on top of [`base`], well-formed until the caller changes it.
///
/// # Panics
/// Never: the base parses.
pub fn forged(operations: Vec<Op>) -> ExpandedChange {
    let base = base();
    let last = base.last().and_then(|chunk| Change::try_from(&chunk[..]).ok()).expect("the base parses");
    ExpandedChange {
        operations,
        actor_id: ActorId::from(&MALLORY[..]),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::new(last.max_op() + 1).expect("above another"),
        time: 0,
        message: None,
        deps: vec![last.hash()],
        extra_bytes: Vec::new(),
        author: None,
    }
}

/// The chunk of a change.
pub fn encode(expanded: ExpandedChange) -> Vec<u8> {
    Change::from(expanded).raw_bytes().to_vec()
}

/// An operation that sets a key of the root.
pub fn put(key: &str) -> Op {
    Op {
        action: OpType::Put(ScalarValue::Int(6)),
        obj: ObjectId::Root,
        key: Key::Map(key.into()),
        pred: SortedVec::new(),
        insert: false,
    }
}

/// The beginning or the end of a mark, after an element of the text or at its start.
pub fn mark(action: OpType, after: Option<OpId>) -> Op {
    let key = Key::Seq(after.map_or(ElementId::Head, ElementId::Id));
    Op { action, obj: ObjectId::Id(of_alice(TEXT)), key, pred: SortedVec::new(), insert: true }
}

/// The beginning of a mark.
pub fn begin() -> OpType {
    OpType::MarkBegin(MarkData { name: "bold".into(), value: ScalarValue::Boolean(true), expand: false })
}

/// An operation of [`base`].
pub fn of_alice(counter: u64) -> OpId {
    OpId(counter, ActorId::from(&ALICE[..]))
}

/// An operation of [`forged`]: its first is number 0.
pub fn of_mallory(index: u64) -> OpId {
    OpId(MAP + 1 + index, ActorId::from(&MALLORY[..]))
}

/// A letter of the text of [`base`].
pub fn letter(index: usize) -> OpId {
    of_alice(LETTERS[index])
}

/// Changes on top of [`base`], each with something wrong.
pub fn changes() -> Vec<Hostile> {
    let mut all = misnumbered();
    all.extend(misplaced());
    all.extend(mismarked());
    all.extend(bombs());
    all
}

fn with(name: &'static str, stage: Stage, alter: impl FnOnce(&mut ExpandedChange)) -> Hostile {
    let mut expanded = forged(vec![put("x")]);
    alter(&mut expanded);
    Hostile { name, stage, bytes: encode(expanded) }
}

fn made_of(name: &'static str, operations: Vec<Op>) -> Hostile {
    Hostile { name, stage: Stage::Apply, bytes: encode(forged(operations)) }
}

/// Wrong numbers and dependencies.
fn misnumbered() -> Vec<Hostile> {
    let start_op = |number| NonZeroU64::new(number).expect("not zero");
    let footer = vec![1, 2, 65, 66];
    vec![
        with("a gap in its actor's numbers", Stage::Apply, |change| change.seq = 3),
        with("its actor's number again", Stage::Apply, |change| {
            (change.actor_id, change.seq) = (ActorId::from(&ALICE[..]), 2);
        }),
        with("operations numbered from one", Stage::Apply, |change| change.start_op = NonZeroU64::MIN),
        with("operations of its actor's numbered again", Stage::Apply, |change| {
            (change.actor_id, change.seq) = (ActorId::from(&ALICE[..]), 3);
            change.start_op = start_op(MAP);
        }),
        with("no operations, and numbers left out", Stage::Apply, |change| {
            change.operations.clear();
            change.start_op = start_op(MAP + 4);
        }),
        with("a dependency that nobody has", Stage::Apply, |change| change.deps = vec![ChangeHash([7; 32])]),
        with("no dependency on its actor's previous change", Stage::Apply, |change| {
            (change.actor_id, change.seq) = (ActorId::from(&ALICE[..]), 3);
            change.deps = Vec::new();
        }),
        with("an author in a later change", Stage::Apply, |change| {
            (change.actor_id, change.seq) = (ActorId::from(&ALICE[..]), 3);
            change.extra_bytes = footer;
        }),
        with("an operation beyond 32 bits", Stage::Parse, |change| {
            change.start_op = start_op(u64::from(u32::MAX));
            change.operations.push(put("y"));
        }),
        with("the last operation of 32 bits", Stage::Parse, |change| {
            change.start_op = start_op(u64::from(u32::MAX));
        }),
    ]
}

/// Operations on what is not there, or is something else.
fn misplaced() -> Vec<Hostile> {
    let (list, map) = (ObjectId::Id(of_alice(LIST)), ObjectId::Id(of_alice(MAP)));
    let stranger = OpId(LIST, ActorId::from(&[0xdd; 16][..]));
    let after = |element: OpId| Key::Seq(ElementId::Id(element));
    let make = OpType::Make(ObjType::Map);
    vec![
        made_of("an object of an unknown actor", vec![Op { obj: ObjectId::Id(stranger), ..put("x") }]),
        made_of("an unknown object", vec![Op { obj: ObjectId::Id(of_alice(1000)), ..put("x") }]),
        made_of(
            "an object within an unknown one",
            vec![Op { obj: ObjectId::Id(of_alice(1000)), action: make, ..put("x") }],
        ),
        made_of("a number as an object", vec![Op { obj: ObjectId::Id(of_alice(NUMBER)), ..put("x") }]),
        made_of(
            "an insertion after an unknown element",
            vec![Op { obj: list.clone(), key: after(of_alice(999)), insert: true, ..put("x") }],
        ),
        made_of("a key in a list", vec![Op { obj: list.clone(), ..put("x") }]),
        made_of("a key in a text", vec![Op { obj: ObjectId::Id(of_alice(TEXT)), ..put("x") }]),
        made_of("an element in a map", vec![Op { obj: map, key: Key::head(), insert: true, ..put("x") }]),
        made_of("an element in the root", vec![Op { key: Key::head(), insert: true, ..put("x") }]),
        made_of("an inserted key", vec![Op { insert: true, ..put("n") }]),
        made_of("an unknown predecessor", vec![Op { pred: vec![of_alice(999)].into(), ..put("n") }]),
        made_of("a predecessor of another key", vec![Op { pred: vec![of_alice(NUMBER)].into(), ..put("o") }]),
        made_of("a deletion of nothing", vec![Op { action: OpType::Delete, ..put("n") }]),
    ]
}

/// Marks that a document cannot be loaded with.
fn mismarked() -> Vec<Hostile> {
    let end = || OpType::MarkEnd(false);
    let in_list = |op: Op, element: u64| Op {
        obj: ObjectId::Id(of_alice(LIST)),
        key: Key::Seq(ElementId::Id(of_alice(element))),
        ..op
    };
    let last = Some(letter(4));
    vec![
        made_of(
            "a mark that ends before it begins",
            vec![mark(begin(), last.clone()), mark(end(), Some(letter(1)))],
        ),
        made_of("a mark that ends at the start", vec![mark(begin(), last.clone()), mark(end(), None)]),
        made_of(
            "a mark that ends where it begins, and before it",
            vec![mark(begin(), last.clone()), mark(end(), last.clone())],
        ),
        made_of(
            "a mark that ends in another object",
            vec![mark(begin(), last.clone()), in_list(mark(end(), None), 3)],
        ),
        made_of("a mark that only ends", vec![put("x"), mark(end(), last.clone())]),
        made_of(
            "a mark that ends twice",
            vec![mark(begin(), None), mark(end(), last.clone()), mark(end(), last.clone())],
        ),
        made_of("a mark that ends in the first operation", vec![mark(end(), last)]),
        made_of("a mark in a list", vec![in_list(mark(begin(), None), 3), in_list(mark(end(), None), 4)]),
        made_of(
            "a mark of map keys",
            vec![Op { action: begin(), ..put("z") }, Op { action: end(), ..put("a") }],
        ),
        made_of(
            "a mark that is no element",
            vec![
                Op { insert: false, ..mark(begin(), Some(letter(3))) },
                Op { insert: false, ..mark(end(), Some(letter(1))) },
            ],
        ),
    ]
}

/// What is small and claims to be large.
fn bombs() -> Vec<Hostile> {
    let maps = |count: u64| {
        let object =
            |index: u64| index.checked_sub(1).map_or(ObjectId::Root, |outer| ObjectId::Id(of_mallory(outer)));
        let make = |index| Op { action: OpType::Make(ObjType::Map), obj: object(index), ..put("m") };
        (0..count).map(make).collect::<Vec<_>>()
    };
    let columns = |name: &'static str, columns: &[(u64, Vec<u8>)]| Hostile {
        name,
        stage: Stage::Parse,
        bytes: change_of(columns),
    };
    let mut long_name = Writer::new();
    long_name.blob(&[b'a'; 400_000]);
    let mut many = Writer::new();
    many.varint(1_000_000);
    vec![
        made_of("three hundred nested maps", maps(300)),
        made_of("one nested map too many", maps(DOCUMENT_DEPTH_MAX + 1)),
        columns("a million operations", &[(66, run(1_000_000, &[1]))]),
        columns("two hundred thousand operations", &[(66, run(200_000, &[1]))]),
        columns(
            "more operations than can be counted",
            &[(66, [run(i64::MAX, &[1]), run(i64::MAX, &[1])].concat())],
        ),
        columns(
            "a long key for every operation",
            &[(21, run(10_000, long_name.as_slice())), (66, run(10_000, &[1]))],
        ),
        columns(
            "a million predecessors",
            &[(66, run(-1, &[1])), (112, run(-1, many.as_slice())), (113, run(1_000_000, &[0]))],
        ),
    ]
}

/// A change with these columns, and nothing else of note.
pub fn change_of(columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(0);
    out.blob(&MALLORY);
    out.varint(1);
    out.varint(1);
    out.u8(0);
    out.varint(0);
    out.varint(0);
    write_columns(&[columns], &mut out);
    chunk(1, out.as_slice())
}

/// A whole document of so many actors, with these columns of changes and of operations, that names no heads.
pub fn document_of(actors: u32, changes: &[(u64, Vec<u8>)], operations: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(u64::from(actors));
    (0..actors).for_each(|actor| out.blob(&actor.to_be_bytes()));
    out.varint(0);
    write_columns(&[changes, operations], &mut out);
    chunk(0, out.as_slice())
}

fn write_columns(sections: &[&[(u64, Vec<u8>)]], out: &mut Writer) {
    for columns in sections {
        out.varint(columns.len() as u64);
        for (spec, data) in *columns {
            out.varint(*spec);
            out.varint(data.len() as u64);
        }
    }
    sections.iter().copied().flatten().for_each(|(_, data)| out.bytes(data));
}

/// A chunk of any type, with the checksum that belongs to it.
pub fn chunk(chunk_type: u8, contents: &[u8]) -> Vec<u8> {
    let hash = chunk_hash(chunk_type, contents);
    write_chunk([hash[0], hash[1], hash[2], hash[3]], chunk_type, contents)
}

/// A run of `count` rows, each holding `row`.
pub fn run(count: i64, row: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = count;
    loop {
        let byte = (rest & 0x7f) as u8;
        rest >>= 7;
        let last = (rest == 0 && byte & 0x40 == 0) || (rest == -1 && byte & 0x40 != 0);
        out.push(if last { byte } else { byte | 0x80 });
        if last {
            break;
        }
    }
    out.extend_from_slice(row);
    out
}

/// A deflate stream of so many times sixteen mebibytes of zeros; each takes 16 KiB.
///
/// # Panics
/// Never: there is room for the stream.
pub fn deflated_zeros(times: usize) -> Vec<u8> {
    let mut deflater = Compress::new(Compression::best(), false);
    let (zeros, mut part) = (vec![0; 16 * 1024 * 1024], Vec::with_capacity(64 * 1024));
    // After a full flush nothing refers back, so that the part can be repeated.
    deflater.compress_vec(&zeros, &mut part, FlushCompress::Full).expect("room for the part");
    assert_eq!(deflater.total_in(), zeros.len() as u64, "all zeros are in the part");
    let mut stream = part.repeat(times);
    // The last block: fixed codes, and nothing but its end.
    stream.extend([3, 0]);
    stream
}

#[cfg(test)]
mod tests;
