use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::marks::{ExpandMark, Mark};
use automerge::{Author, ExpandedChange, ObjType, ROOT, ScalarValue};
use proptest::prelude::*;

use super::*;
use crate::limits::{DOCUMENT_CHANGE_BYTES_MAX, DOCUMENT_DEPTH_MAX, DOCUMENT_OP_COUNTER_MAX};

const ALICE: [u8; 16] = [0xa1; 16];
const BOB: [u8; 16] = [0xb0; 16];
const MALLORY: [u8; 16] = [0xe0; 16];

fn put(document: &mut Document, key: &str, value: i64) -> RawChange {
    document.edit(0, |tx| tx.put(ROOT, key, value)).unwrap().1.unwrap()
}

/// A document of Alice's with a map key, a list and a text, and its changes.
fn base() -> (Document, Vec<RawChange>) {
    let mut document = Document::new(ALICE);
    put(&mut document, "n", 1);
    document
        .edit(0, |tx| {
            let list = tx.put_object(ROOT, "list", ObjType::List)?;
            tx.insert(&list, 0, "a")?;
            tx.insert(&list, 1, "b")?;
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, "hello")
        })
        .unwrap();
    let changes = document.changes();
    (document, changes)
}

fn encode(expanded: ExpandedChange) -> RawChange {
    RawChange::parse(Change::from(expanded).raw_bytes()).unwrap()
}

/// A change by Mallory on top of `document`, well-formed until the caller changes it.
fn forged(document: &Document, operations: Vec<Op>) -> ExpandedChange {
    let max_op = document.changes().iter().map(RawChange::max_op).max().unwrap_or(0);
    ExpandedChange {
        operations,
        actor_id: ActorId::from(&MALLORY[..]),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::new(max_op + 1).unwrap(),
        time: 0,
        message: None,
        deps: document.heads().into_iter().map(ChangeHash).collect(),
        extra_bytes: Vec::new(),
        author: None,
    }
}

fn put_op(key: &str) -> Op {
    Op {
        action: OpType::Put(ScalarValue::Int(6)),
        obj: ObjectId::Root,
        key: Key::Map(key.into()),
        pred: SortedVec::new(),
        insert: false,
    }
}

fn op_id(counter: u64, actor: [u8; 16]) -> OpId {
    OpId(counter, ActorId::from(&actor[..]))
}

/// Every kind of change that Automerge panics on or cannot store, with the name of the expected refusal.
fn ill_formed(document: &Document) -> Vec<(&'static str, RawChange)> {
    let list = ObjectId::Id(op_id(2, ALICE));
    let one = |op: Op| encode(forged(document, vec![op]));
    let with = |change: &dyn Fn(&mut ExpandedChange)| {
        let mut expanded = forged(document, vec![put_op("x")]);
        change(&mut expanded);
        encode(expanded)
    };
    vec![
        ("SequenceGap", with(&|change| change.seq = 3)),
        ("SequenceReused", with(&|change| change.actor_id = ActorId::from(&ALICE[..]))),
        ("StartOp", with(&|change| change.start_op = NonZeroU64::MIN)),
        ("MissingDependency", with(&|change| change.deps = vec![ChangeHash([7; 32])])),
        ("NotAfterOwnPrevious", {
            let mut expanded = forged(document, vec![put_op("x")]);
            (expanded.actor_id, expanded.seq, expanded.deps) = (ActorId::from(&ALICE[..]), 3, Vec::new());
            encode(expanded)
        }),
        ("UnknownActor", one(Op { obj: ObjectId::Id(op_id(2, [0xdd; 16])), ..put_op("x") })),
        ("Panicked", one(Op { obj: ObjectId::Id(op_id(1000, ALICE)), ..put_op("x") })),
        ("Panicked", one(Op { obj: ObjectId::Id(op_id(1, ALICE)), ..put_op("x") })),
        (
            "Panicked",
            one(Op {
                obj: list.clone(),
                key: Key::Seq(ElementId::Id(op_id(999, ALICE))),
                insert: true,
                ..put_op("x")
            }),
        ),
        ("NotReproduced", one(Op { obj: list, ..put_op("x") })),
        ("NotReproduced", one(Op { pred: vec![op_id(999, ALICE)].into(), ..put_op("n") })),
        ("NotReproduced", one(Op { pred: vec![op_id(1, ALICE)].into(), ..put_op("other") })),
        ("NotReproduced", one(Op { action: OpType::Delete, ..put_op("n") })),
    ]
}

fn variant(error: &DocumentError) -> String {
    format!("{error:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// The document takes new changes and edits, and can be had back from its changes.
fn assert_sound(document: &mut Document) {
    put(document, "after", 1);
    let loaded = load(&document.changes(), BOB);
    assert_eq!(loaded.change_count(), document.change_count());
    let snapshot = document.save().unwrap();
    assert_eq!(Document::load(Some(&snapshot), &[], BOB).unwrap().0.heads(), document.heads());
    assert_eq!(loaded.heads(), document.heads());
    let heads: BTreeSet<_> = document.automerge().get_heads().into_iter().map(|head| head.0).collect();
    assert_eq!(heads.into_iter().collect::<Vec<_>>(), document.heads());
    assert_eq!(loaded.automerge().hydrate(None), document.automerge().hydrate(None));
    Automerge::load(&document.automerge().save()).unwrap();
}

#[test]
fn an_ill_formed_change_is_refused_with_its_reason_and_leaves_no_trace() {
    let (document, _) = base();
    for (expected, change) in ill_formed(&document) {
        let mut document = document.clone();
        let before = (document.heads(), document.automerge().save());
        let outcome = document.apply(std::slice::from_ref(&change)).unwrap();
        assert_eq!((outcome.applied.len(), outcome.known.len()), (0, 0), "{expected}");
        let [(hash, error)] = &outcome.refused[..] else { panic!("{expected}: {outcome:?}") };
        assert_eq!((*hash, variant(error).as_str()), (change.hash(), expected), "{error}");
        assert_eq!((document.heads(), document.automerge().save()), before, "{expected}");
        assert_sound(&mut document);
    }
}

#[test]
fn an_ill_formed_change_in_a_batch_takes_down_only_what_depends_on_it() {
    let (document, _) = base();
    for (expected, change) in ill_formed(&document) {
        let mut document = document.clone();
        let mut bob = load(&document.changes(), BOB);
        let good: Vec<_> = (0..5).map(|n| put(&mut bob, "b", n)).collect();
        let mut child = forged(&document, vec![put_op("y")]);
        child.actor_id = ActorId::from(&[0xcc; 16][..]);
        child.deps = vec![ChangeHash(change.hash())];
        child.start_op = NonZeroU64::new(change.max_op() + 1).unwrap();
        let child = encode(child);
        let mut batch = vec![child.clone()];
        batch.extend_from_slice(&good[..3]);
        batch.push(change.clone());
        batch.extend_from_slice(&good[3..]);
        let outcome = document.apply(&batch).unwrap();
        assert_eq!(outcome.applied, good.iter().map(RawChange::hash).collect::<Vec<_>>(), "{expected}");
        let refused: Vec<_> = outcome.refused.iter().map(|(hash, error)| (*hash, variant(error))).collect();
        let orphan = (child.hash(), "MissingDependency".to_owned());
        assert_eq!(refused, [(change.hash(), expected.to_owned()), orphan]);
        assert_eq!(document.heads(), bob.heads());
        assert_sound(&mut document);
    }
}

fn load(changes: &[RawChange], actor: [u8; 16]) -> Document {
    let (document, applied) = Document::load(None, changes, actor).unwrap();
    assert_eq!(applied.refused, []);
    document
}

#[test]
fn a_document_with_the_offender_first_names_why_a_second_of_its_kind_fails() {
    let (mut document, _) = base();
    let first = encode(forged(&document, vec![put_op("x")]));
    let mut second = forged(&document, vec![put_op("y")]);
    second.seq = 1;
    let second = encode(second);
    let outcome = document.apply(&[first.clone(), second.clone()]).unwrap();
    assert_eq!(outcome.applied, [first.hash()]);
    assert_eq!(outcome.refused, [(second.hash(), DocumentError::SequenceReused { seq: 1 })]);
}

#[test]
fn an_author_may_be_named_in_the_first_change_of_an_actor_only() {
    let (mut document, _) = base();
    let mut signed = Automerge::new().with_author(Some(Author::from(vec![65, 66])));
    signed.transact(|tx| tx.put(ROOT, "x", 1)).unwrap();
    let footer = signed.get_last_local_change().unwrap().extra_bytes().to_vec();
    let mut first = forged(&document, vec![put_op("x")]);
    first.extra_bytes.clone_from(&footer);
    let first = encode(first);
    assert_eq!(document.apply(std::slice::from_ref(&first)).unwrap().applied, [first.hash()]);
    let mut second = forged(&document, vec![put_op("y")]);
    (second.seq, second.extra_bytes) = (2, footer);
    let second = encode(second);
    let outcome = document.apply(std::slice::from_ref(&second)).unwrap();
    assert_eq!(outcome.refused, [(second.hash(), DocumentError::AuthorFooter)]);
    assert_sound(&mut document);
}

#[test]
fn marks_that_end_before_they_begin_do_not_break_loading() {
    let (mut document, _) = base();
    let text = ObjectId::Id(op_id(5, ALICE));
    let mark = |action: OpType, element: u64| Op {
        action,
        obj: text.clone(),
        key: Key::Seq(ElementId::Id(op_id(element, ALICE))),
        pred: SortedVec::new(),
        insert: true,
    };
    let begin = MarkData { name: "bold".into(), value: ScalarValue::Boolean(true), expand: false };
    let operations = vec![mark(OpType::MarkBegin(begin), 9), mark(OpType::MarkEnd(false), 6)];
    let change = encode(forged(&document, operations));
    document.apply(&[change]).unwrap();
    load(&document.changes(), BOB);
}

#[test]
fn operation_counters_stop_where_automerge_would_overflow() {
    let (document, _) = base();
    let mut last = forged(&document, vec![put_op("x")]);
    last.start_op = NonZeroU64::new(DOCUMENT_OP_COUNTER_MAX + 1).unwrap();
    let error = RawChange::parse(Change::from(last.clone()).raw_bytes()).unwrap_err();
    assert!(matches!(error, DocumentError::OverLimit { what: "operation counter", .. }));
    last.start_op = NonZeroU64::new(DOCUMENT_OP_COUNTER_MAX).unwrap();
    let mut document = document;
    let change = encode(last);
    assert_eq!(document.apply(std::slice::from_ref(&change)).unwrap().applied, [change.hash()]);
    let refused = document.edit(0, |tx| tx.put(ROOT, "y", 1)).unwrap_err();
    assert!(matches!(refused, EditError::TooLarge { what: "operation counter", .. }));
    assert_eq!(document.heads(), [change.hash()]);
}

#[test]
fn a_panicking_or_failing_edit_leaves_the_document_as_it_was() {
    let (mut document, _) = base();
    let before = (document.heads(), document.automerge().save());
    let panicked = document.edit(0, |tx| -> Result<(), ()> {
        tx.put(ROOT, "x", 1).unwrap();
        panic!("in the middle of an edit")
    });
    assert_eq!(panicked, Err(EditError::Panicked));
    assert_eq!((document.heads(), document.automerge().save()), before);
    let failed = document.edit(0, |tx| {
        tx.put(ROOT, "x", 1).unwrap();
        Err::<(), _>("enough")
    });
    assert_eq!(failed, Err(EditError::Refused("enough")));
    assert_eq!((document.heads(), document.automerge().save()), before);
    let nothing = document.edit(0, |_| Ok::<_, ()>(5)).unwrap();
    assert_eq!(nothing, (5, None));
    assert_sound(&mut document);
}

#[test]
fn an_edit_beyond_the_limits_names_them_and_changes_nothing() {
    let (mut document, _) = base();
    let before = (document.heads(), document.automerge().save());
    let ops_max = DOCUMENT_CHANGE_OPS_MAX as i64;
    let many = |count: i64| move |tx: &mut Transaction<'_>| (0..count).try_for_each(|n| tx.put(ROOT, "k", n));
    let refused = document.edit(0, many(ops_max + 1)).unwrap_err();
    let expected = EditError::TooLarge {
        what: "operations in a change",
        value: DOCUMENT_CHANGE_OPS_MAX + 1,
        value_max: DOCUMENT_CHANGE_OPS_MAX,
    };
    assert_eq!(refused, expected);
    let large = "x".repeat(DOCUMENT_CHANGE_BYTES_MAX);
    let refused = document.edit(0, |tx| tx.put(ROOT, "k", large)).unwrap_err();
    assert!(matches!(refused, EditError::TooLarge { what: "change bytes", .. }));
    assert_eq!((document.heads(), document.automerge().save()), before);
    let (_, change) = document.edit(0, many(ops_max)).unwrap();
    assert_eq!(change.unwrap().ops(), DOCUMENT_CHANGE_OPS_MAX);
    assert_sound(&mut document);
}

#[test]
fn an_edit_at_an_older_version_is_concurrent_with_what_came_after() {
    let (mut document, changes) = base();
    let old = [changes[0].hash()];
    let (length, change) =
        document.edit_at(&old, 7, |tx| tx.put(ROOT, "late", 1).map(|()| tx.length(ROOT))).unwrap();
    assert_eq!(length, 2);
    let change = change.unwrap();
    assert_eq!(change.deps().collect::<Vec<_>>(), old);
    assert_eq!(document.heads().len(), 2);
    let unknown = document.edit_at(&[[9; 32]], 0, |_| Ok::<_, ()>(())).unwrap_err();
    assert_eq!(unknown, EditError::Document(DocumentError::UnknownHead { head: [9; 32] }));
    assert_eq!(document.edit_at(&old, 0, |_| Ok::<_, ()>(())), Ok(((), None)));
    document.edit_at(&[], 0, |tx| tx.put(ROOT, "from nothing", 1)).unwrap();
    document.edit_at(&old, 0, |tx| tx.put(ROOT, "again", 1)).unwrap();
    let heads = document.heads();
    document.edit_at(&heads, 0, |tx| tx.put(ROOT, "joined", 1)).unwrap();
    assert_eq!(document.heads().len(), 1);
    let mut other = Document::new(BOB);
    let all: Vec<_> = document.changes();
    assert_eq!(other.apply(&all).unwrap().refused, []);
    assert_eq!(other.heads(), document.heads());
    assert_sound(&mut document);
}

#[test]
fn an_actor_may_follow_its_own_previous_change_through_others() {
    let mut alice = Document::new(ALICE);
    put(&mut alice, "n", 1);
    let merge = encode(forged(&alice, Vec::new()));
    let mut bob = load(&alice.changes(), BOB);
    bob.apply(&[merge]).unwrap();
    put(&mut bob, "n", 2);
    let version = bob.heads();
    alice.apply(&bob.changes()).unwrap();
    let (_, change) = alice.edit_at(&version, 0, |tx| tx.put(ROOT, "n", 3)).unwrap();
    let change = change.unwrap();
    assert_eq!((change.actor(), change.seq()), (&ALICE[..], 2));
    assert_eq!(change.deps().collect::<Vec<_>>(), version);
    assert_eq!(bob.apply(std::slice::from_ref(&change)).unwrap().applied, [change.hash()]);
    assert_eq!(bob.heads(), alice.heads());
}

#[test]
fn a_repeated_change_is_known_whether_it_comes_twice_or_was_there() {
    let (mut document, changes) = base();
    let mut bob = Document::new(BOB);
    let twice = [changes[1].clone(), changes[0].clone(), changes[1].clone()];
    let outcome = bob.apply(&twice).unwrap();
    assert_eq!(outcome.applied, [changes[0].hash(), changes[1].hash()]);
    assert_eq!(outcome.known, [changes[1].hash()]);
    assert_eq!(document.apply(&changes).unwrap().known.len(), 2);
}

#[test]
fn loading_tells_what_does_not_follow_and_refuses_a_spoiled_snapshot() {
    let (document, changes) = base();
    let (empty, applied) = Document::load(None, &changes[1..], BOB).unwrap();
    assert_eq!((empty.change_count(), applied.applied.len()), (0, 0));
    assert!(matches!(applied.refused[..], [(_, DocumentError::MissingDependency { .. })]));
    let snapshot = document.save().unwrap();
    for length in [0, 1, 8, snapshot.len() / 2, snapshot.len() - 1] {
        let spoiled = Document::load(Some(&snapshot[..length]), &[], BOB);
        assert!(spoiled.is_err() || length == 0, "{length} bytes of a snapshot were taken for one");
    }
    let mut altered = snapshot.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert!(Document::load(Some(&altered), &[], BOB).is_err());
}

#[test]
fn a_snapshot_and_the_changes_since_are_the_document() {
    let (mut document, changes) = base();
    let snapshot = document.save().unwrap();
    let late = put(&mut document, "late", 1);
    let again = [changes[1].clone(), late.clone()];
    let (mut loaded, applied) = Document::load(Some(&snapshot), &again, BOB).unwrap();
    assert_eq!((&applied.applied[..], &applied.known[..]), (&[late.hash()][..], &[changes[1].hash()][..]));
    assert_eq!(loaded.heads(), document.heads());
    assert_eq!(loaded.latest(&ALICE), Some(LatestChange::of(&late)));
    assert_sound(&mut loaded);
}

#[test]
fn nesting_up_to_the_limit_is_applied_within_a_small_stack() {
    let mut deep = Document::new(ALICE);
    deep.edit(0, |tx| {
        (0..DOCUMENT_DEPTH_MAX).try_fold(ROOT, |object, _| tx.put_object(object, "m", ObjType::Map))
    })
    .unwrap();
    let changes = deep.changes();
    let apply = std::thread::Builder::new().stack_size(256 * 1024);
    apply
        .spawn(move || load(&changes, BOB).edit(0, |tx| tx.put(ROOT, "m", 1)).unwrap().0)
        .unwrap()
        .join()
        .unwrap();
}

type Edit = fn(&mut Transaction<'_>) -> Result<(), AutomergeError>;

/// Edits of every kind that an author makes, with whether a follower can make them again.
const EDITS: [(&str, bool, Edit); 14] = [
    ("a key", true, |tx| tx.put(ROOT, "n", 2)),
    ("the same value again", true, |tx| tx.put(ROOT, "other", 2)),
    ("a key removed", true, |tx| tx.delete(ROOT, "n")),
    ("letters", true, |tx| tx.splice_text(in_root(tx, "text"), 3, 0, "wörld")),
    ("letters at the start", true, |tx| tx.splice_text(in_root(tx, "text"), 0, 0, "a")),
    ("letters replaced", true, |tx| tx.splice_text(in_root(tx, "text"), 1, 2, "xyz")),
    ("letters removed", true, |tx| tx.splice_text(in_root(tx, "text"), 1, 3, "")),
    ("an element", true, |tx| tx.insert(in_root(tx, "list"), 1, 7)),
    ("an element replaced and one removed", true, |tx| {
        let list = in_root(tx, "list");
        tx.put(&list, 0, "z")?;
        tx.delete(&list, 1)
    }),
    ("objects in objects", true, |tx| {
        let map = tx.put_object(ROOT, "map", ObjType::Map)?;
        let list = tx.put_object(&map, "list", ObjType::List)?;
        let inner = tx.insert_object(&list, 0, ObjType::Text)?;
        tx.splice_text(&inner, 0, 0, "deep")
    }),
    ("a counter", true, |tx| {
        tx.put(ROOT, "count", ScalarValue::counter(1))?;
        tx.increment(ROOT, "count", 5)
    }),
    ("an object removed", true, |tx| tx.delete(ROOT, "list")),
    ("a mark", false, |tx| {
        let mark = Mark::new("bold".to_owned(), true, 1, 3);
        tx.mark(in_root(tx, "text"), mark, ExpandMark::Both)
    }),
    ("a block", false, |tx| tx.split_block(in_root(tx, "text"), 1).map(drop)),
];

fn in_root(document: &impl ReadDoc, key: &str) -> automerge::ObjId {
    document.get(ROOT, key).unwrap().unwrap().1
}

#[test]
fn an_edit_that_continues_the_document_is_made_again_and_gives_the_same() {
    for (name, is_made_again, edit) in EDITS {
        let (mut author, changes) = base();
        let mut follower = load(&changes, BOB);
        let (_, change) = author.edit(7, edit).unwrap();
        let change = change.unwrap_or_else(|| panic!("{name} changed nothing"));
        let mut outcome = Applied::default();
        let ready = follower.check(std::slice::from_ref(&change), &mut outcome);
        let (before, mut patches) = (follower.clone(), Vec::new());
        let made = follower.make_again(&ready, &mut outcome, Some(&mut patches)).unwrap();
        assert_eq!((made == 1, outcome.applied.len()), (is_made_again, made), "{name}");
        if made == 0 {
            assert_eq!(follower.automerge().save(), before.automerge().save(), "{name} leaves no trace");
        }
        assert_eq!(follower.apply(std::slice::from_ref(&change)).unwrap().refused, []);
        let (mut mirror, mut plain) = (before.automerge().hydrate(None), before.automerge().clone());
        plain.apply_changes([parse(&change).unwrap()]).unwrap();
        assert_eq!(follower.automerge().hydrate(None), plain.hydrate(None), "{name}");
        assert_eq!(follower.latest(&ALICE), Some(LatestChange::of(&change)));
        if made == 1 {
            mirror.apply_patches(automerge::TextEncoding::UnicodeCodePoint, patches).unwrap();
            assert_eq!(mirror, plain.hydrate(None), "{name}: the patches are what changed");
        }
        assert_sound(&mut follower);
    }
}

#[test]
fn what_does_not_continue_the_document_is_not_made_again() {
    let (mut author, changes) = base();
    let mut follower = load(&changes, BOB);
    put(&mut follower, "own", 1);
    let concurrent = put(&mut author, "n", 5);
    let mut outcome = Applied::default();
    let ready = follower.check(std::slice::from_ref(&concurrent), &mut outcome);
    assert_eq!(follower.make_again(&ready, &mut outcome, None), Ok(0));
    assert_eq!(follower.apply(std::slice::from_ref(&concurrent)).unwrap().applied, [concurrent.hash()]);
    // The author merges, so what it does next continues what the follower holds.
    author.apply(&follower.changes()).unwrap();
    let merged = put(&mut author, "n", 6);
    let ready = follower.check(std::slice::from_ref(&merged), &mut outcome);
    assert_eq!(follower.make_again(&ready, &mut outcome, None), Ok(1));
    assert_eq!(follower.heads(), author.heads());
}

#[test]
fn a_change_that_no_edit_makes_is_applied_all_the_same() {
    let (document, _) = base();
    // A letter after one that is gone, which an edit would put after the one before.
    let text = ObjectId::Id(op_id(5, ALICE));
    let mut author = document.clone();
    author.edit(0, |tx| tx.splice_text(in_root(tx, "text"), 1, 1, "")).unwrap();
    let op = Op {
        action: OpType::Put(ScalarValue::Str("q".into())),
        obj: text,
        key: Key::Seq(ElementId::Id(op_id(7, ALICE))),
        pred: SortedVec::new(),
        insert: true,
    };
    let odd = encode(forged(&author, vec![op]));
    assert_eq!(author.apply(std::slice::from_ref(&odd)).unwrap().applied, [odd.hash()]);
    assert!(author.replays);
    assert_sound(&mut author);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Edit { replica: usize, key: u8, value: i64 },
    Type { replica: usize, at: usize },
    EditOld { replica: usize, change: usize },
    Merge { from: usize, to: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, 0..4_u8, any::<i64>()).prop_map(|(replica, key, value)| Step::Edit {
            replica,
            key,
            value
        }),
        (0..3_usize, 0..9_usize).prop_map(|(replica, at)| Step::Type { replica, at }),
        (0..3_usize, 0..9_usize).prop_map(|(replica, change)| Step::EditOld { replica, change }),
        (0..3_usize, 0..3_usize).prop_map(|(from, to)| Step::Merge { from, to }),
    ]
}

fn run(documents: &mut [Document], step: &Step) {
    match *step {
        Step::Edit { replica, key, value } => {
            put(&mut documents[replica], &key.to_string(), value);
        }
        Step::Type { replica, at } => {
            documents[replica]
                .edit(0, |tx| {
                    let (_, text) = tx.get(ROOT, "text").unwrap().unwrap();
                    let at = at.min(tx.length(&text));
                    tx.splice_text(&text, at, isize::from(at > 2 && at < tx.length(&text)), "xy")
                })
                .unwrap();
        }
        Step::EditOld { replica, change } => {
            let count = documents[replica].change_count();
            let head = documents[replica].changes()[change % count].hash();
            documents[replica].edit_at(&[head], 0, |tx| tx.put(ROOT, "old", 1)).unwrap();
        }
        Step::Merge { from, to } => merge(documents, from, to),
    }
}

fn merge(documents: &mut [Document], from: usize, to: usize) {
    let mut changes = documents[from].changes();
    changes.reverse();
    let outcome = documents[to].apply(&changes).unwrap();
    assert_eq!(outcome.refused, []);
    assert_eq!(outcome.applied.len() + outcome.known.len(), changes.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn replicas_that_hold_the_same_changes_hold_the_same_document(steps in prop::collection::vec(step(), 1..24)) {
        let (shared, _) = base();
        let mut documents: Vec<_> =
            (0..3).map(|n| load(&shared.changes(), [n; 16])).collect();
        steps.iter().for_each(|step| run(&mut documents, step));
        for (from, to) in [(1, 0), (2, 0), (0, 1), (0, 2)] {
            merge(&mut documents, from, to);
        }
        for document in &mut documents {
            prop_assert_eq!(document.change_count(), document.automerge().stats().num_changes as usize);
        }
        let value = documents[0].automerge().hydrate(None);
        prop_assert_eq!(&documents[1].automerge().hydrate(None), &value);
        prop_assert_eq!(&documents[2].automerge().hydrate(None), &value);
        prop_assert_eq!(documents[1].heads(), documents[0].heads());
        assert_sound(&mut documents[2]);
    }
}
