use automerge::legacy::{ElementId, Key as OpKey, ObjectId, Op, OpId, OpType};
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, Change, ObjType, ROOT, ScalarValue};
use proptest::prelude::*;

use super::*;
use crate::Document;
use crate::raw_change::hostile::{
    ALICE, base, begin, encode, forged, letter, mark, of_alice, of_mallory, put,
};

const BOB: [u8; 16] = [0xb0; 16];

/// A document in which everything is a map at a depth of its own.
struct Fixed {
    depth: Option<u64>,
}

impl Objects for Fixed {
    fn sort(&self, _: &OpName<'_>) -> Option<Sort> {
        self.depth.map(|_| Sort::Map)
    }

    fn depth(&self, _: &OpName<'_>) -> Option<u64> {
        self.depth
    }

    fn order(&self, _: &OpName<'_>, _: &OpName<'_>, _: &OpName<'_>) -> Option<Ordering> {
        Some(Ordering::Equal)
    }
}

fn parse(operations: Vec<Op>) -> RawChange {
    RawChange::parse(&encode(forged(operations))).unwrap()
}

fn nested(outer: &ObjectId, count: u64) -> Vec<Op> {
    let object =
        |index: u64| index.checked_sub(1).map_or(outer.clone(), |outer| ObjectId::Id(of_mallory(outer)));
    let make = |index| Op { action: OpType::Make(ObjType::Map), obj: object(index), ..put("m") };
    (0..count).map(make).collect()
}

fn check_depths(operations: Vec<Op>, depth: Option<u64>) -> Result<(), DocumentError> {
    check_objects(&parse(operations).operations().unwrap(), &Fixed { depth })
}

#[test]
fn objects_nest_as_deep_as_the_limit_counted_from_the_root() {
    let too_deep = |value| {
        let value_max = DOCUMENT_DEPTH_MAX;
        Err(DocumentError::OverLimit { what: "nesting depth", value, value_max })
    };
    assert_eq!(check_depths(nested(&ObjectId::Root, 64), None), Ok(()));
    assert_eq!(check_depths(nested(&ObjectId::Root, 65), None), too_deep(65));
    let outer = || ObjectId::Id(of_alice(11));
    assert_eq!(check_depths(nested(&outer(), 1), Some(63)), Ok(()));
    assert_eq!(check_depths(nested(&outer(), 2), Some(63)), too_deep(65));
    assert_eq!(check_depths(nested(&outer(), 1), Some(64)), too_deep(65));
    let unknown = Err(DocumentError::UnknownObject { counter: 12 });
    assert_eq!(check_depths(nested(&outer(), 1), None), unknown);
    assert_eq!(check_depths(vec![Op { obj: outer(), ..put("x") }], Some(64)), Ok(()));
}

#[test]
fn keys_are_for_maps_and_elements_for_sequences() {
    let element = |op: Op| Op { key: OpKey::head(), insert: true, ..op };
    let list = || ObjectId::Id(of_mallory(0));
    let make = |object_type| Op { action: OpType::Make(object_type), ..put("made") };
    let mismatched = |counter| Err(DocumentError::ObjectType { counter });
    for (object_type, is_sequence) in
        [(ObjType::Map, false), (ObjType::Table, false), (ObjType::List, true), (ObjType::Text, true)]
    {
        let keyed = check_depths(vec![make(object_type), Op { obj: list(), ..put("x") }], None);
        let listed = check_depths(vec![make(object_type), element(Op { obj: list(), ..put("x") })], None);
        let (keyed_expected, listed_expected) =
            if is_sequence { (mismatched(13), Ok(())) } else { (Ok(()), mismatched(13)) };
        assert_eq!((keyed, listed), (keyed_expected, listed_expected), "{object_type}");
    }
    assert_eq!(check_depths(vec![element(put("x"))], None), mismatched(12));
    assert_eq!(check_depths(vec![Op { insert: true, ..put("x") }], None), mismatched(12));
}

#[test]
fn marks_that_positions_cannot_settle_are_said_to_be_so() {
    let settled =
        |operations| check_marks(&parse(operations).operations().unwrap(), &Fixed { depth: Some(1) });
    let end = || OpType::MarkEnd(false);
    let after_itself = vec![mark(begin(), Some(letter(2))), mark(end(), Some(of_mallory(0)))];
    assert_eq!(settled(after_itself), Ok(Marks::Ordered));
    let apart = vec![mark(begin(), Some(letter(2))), mark(end(), Some(letter(4)))];
    assert_eq!(settled(apart), Ok(Marks::Unsettled));
    assert_eq!(settled(vec![mark(begin(), None)]), Ok(Marks::Ordered));
    let other = vec![mark(begin(), None), put("x"), mark(end(), Some(letter(4)))];
    assert_eq!(settled(other), Err(DocumentError::MarkOrder { counter: 14 }));
}

fn alice() -> Document {
    let mut document = Document::new(ALICE);
    let changes: Vec<_> = base().iter().map(|chunk| RawChange::parse(chunk).unwrap()).collect();
    document.apply(&changes).unwrap();
    document
}

/// The document can be stored and loaded, and read in every way.
fn assert_loads(document: &Document) {
    let text = ObjId::Id(5, ActorId::from(&ALICE[..]), 0);
    let (list, automerge) = (ObjId::Id(2, ActorId::from(&ALICE[..]), 0), document.automerge());
    assert_eq!(automerge.text(&text).unwrap().chars().count(), automerge.length(&text));
    assert!(automerge.spans(&text).unwrap().count() <= automerge.length(&text));
    assert_eq!(automerge.list_range(&list, ..).count(), automerge.length(&list));
    automerge.marks(&text).unwrap();
    automerge.diff(&[], &automerge.get_heads());
    let loaded = Automerge::load(&document.automerge().save()).unwrap();
    assert_eq!(loaded.hydrate(None), document.automerge().hydrate(None));
}

/// One edit of a text, by numbers that are made to fit.
#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, String),
    Delete(usize, usize),
    Mark(usize, usize, ExpandMark, bool),
}

impl Edit {
    fn make(&self, tx: &mut Transaction<'_>) -> Result<(), AutomergeError> {
        let text = ObjId::Id(5, ActorId::from(&ALICE[..]), 0);
        let length = tx.length(&text);
        let range = |at: usize, count: usize| {
            let start = at % (length + 1);
            (start, start + count % (length - start + 1))
        };
        match self {
            Self::Insert(at, string) => tx.splice_text(&text, at % (length + 1), 0, string),
            Self::Delete(at, count) => {
                let (start, end) = range(*at, *count);
                tx.splice_text(&text, start, (end - start) as isize, "")
            }
            Self::Mark(at, count, expand, is_set) => {
                let (start, end) = range(*at, *count);
                if *is_set {
                    tx.mark(&text, Mark::new("bold".to_owned(), true, start, end), *expand)
                } else {
                    tx.unmark(&text, "bold", start, end, *expand)
                }
            }
        }
    }
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let expand = prop_oneof![
        Just(ExpandMark::None),
        Just(ExpandMark::Before),
        Just(ExpandMark::After),
        Just(ExpandMark::Both)
    ];
    let edit = prop_oneof![
        (any::<usize>(), "[a-zé😀]{0,4}").prop_map(|(at, string)| Edit::Insert(at, string)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, count)| Edit::Delete(at, count)),
        (any::<usize>(), any::<usize>(), expand, any::<bool>())
            .prop_map(|(at, count, expand, is_set)| Edit::Mark(at, count, expand, is_set)),
    ];
    prop::collection::vec(edit, 1..6)
}

/// An operation that may be anything, on what may be there.
fn operations() -> impl Strategy<Value = Vec<Op>> {
    let id = || (0..20_u64).prop_map(|n| if n < 12 { of_alice(n) } else { of_mallory(n - 12) });
    let action = prop_oneof![
        4 => Just(OpType::Put(ScalarValue::Str("x".into()))),
        1 => Just(OpType::Put(ScalarValue::counter(3))),
        1 => Just(OpType::Increment(2)),
        2 => Just(OpType::Delete),
        1 => Just(OpType::Make(ObjType::Map)),
        1 => Just(OpType::Make(ObjType::Text)),
        3 => Just(begin()),
        3 => Just(OpType::MarkEnd(false)),
    ];
    let object = prop_oneof![
        1 => Just(ObjectId::Root),
        3 => Just(ObjectId::Id(of_alice(5))),
        1 => Just(ObjectId::Id(of_alice(2))),
        1 => Just(ObjectId::Id(of_alice(11))),
        1 => id().prop_map(ObjectId::Id),
    ];
    let key = prop_oneof![
        1 => prop_oneof![Just("n"), Just("text"), Just("x")].prop_map(|key| OpKey::Map(key.into())),
        1 => Just(OpKey::head()),
        4 => id().prop_map(|element| OpKey::Seq(ElementId::Id(element))),
    ];
    let pred = prop::collection::vec(id(), 0..2);
    let op = (action, object, key, pred, any::<bool>()).prop_map(|(action, obj, key, pred, insert)| Op {
        action,
        obj,
        key,
        pred: pred.into(),
        insert,
    });
    prop::collection::vec(op, 1..6)
}

/// Marks in the text that pair as they should, after elements that are there, and letters inserted and deleted
/// between them.
fn paired_marks() -> impl Strategy<Value = Vec<Op>> {
    let text = || ObjectId::Id(of_alice(5));
    let elements =
        prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6);
    elements.prop_map(move |choices| {
        let mut there: Vec<Option<OpId>> =
            [None].into_iter().chain((0..5).map(|n| Some(letter(n)))).collect();
        let mut operations: Vec<Op> = Vec::new();
        for (what, first, second) in choices {
            let (first, second) = (first.get(&there).clone(), second.get(&there).clone());
            match (what, first) {
                (0, first) => {
                    for (action, after) in [(begin(), first), (OpType::MarkEnd(false), second)] {
                        there.push(Some(of_mallory(operations.len() as u64)));
                        operations.push(mark(action, after));
                    }
                }
                (1, Some(gone)) => operations.push(Op {
                    action: OpType::Delete,
                    obj: text(),
                    key: OpKey::Seq(ElementId::Id(gone.clone())),
                    pred: vec![gone].into(),
                    insert: false,
                }),
                (_, first) => {
                    there.push(Some(of_mallory(operations.len() as u64)));
                    operations.push(mark(OpType::Put(ScalarValue::Str("y".into())), first));
                }
            }
        }
        operations
    })
}

/// Whether Automerge by itself stores and loads the change on top of the base.
fn automerge_loads(change: &RawChange) -> bool {
    let mut automerge = Automerge::new();
    let chunks = base().into_iter().chain([change.bytes().to_vec()]);
    automerge.apply_changes(chunks.map(|chunk| Change::try_from(&chunk[..]).unwrap())).unwrap();
    Automerge::load(&automerge.save()).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nobody who edits with Automerge is ever refused, whatever is deleted from under the marks.
    #[test]
    fn honest_marks_are_taken_in_any_order(rounds in prop::collection::vec((edits(), edits(), any::<bool>()), 1..5)) {
        let (mut alice, mut bob) = (alice(), Document::new(BOB));
        bob.apply(&alice.changes()).unwrap();
        for (of_alice, of_bob, meet) in rounds {
            let made = alice.edit(0, |tx| of_alice.iter().try_for_each(|edit| edit.make(tx)));
            prop_assert!(made.is_ok(), "{made:?}");
            let made = bob.edit(0, |tx| of_bob.iter().try_for_each(|edit| edit.make(tx)));
            prop_assert!(made.is_ok(), "{made:?}");
            if meet {
                let outcome = alice.apply(&bob.changes()).unwrap();
                prop_assert_eq!(outcome.refused, []);
            }
        }
        for change in alice.changes() {
            let outcome = bob.apply(std::slice::from_ref(&change)).unwrap();
            prop_assert_eq!(outcome.refused, []);
        }
        let mut late = Document::new([0xcc; 16]);
        prop_assert_eq!(late.apply(&bob.changes()).unwrap().refused, []);
        [alice, bob, late].iter().for_each(assert_loads);
    }

    /// Of marks that pair, exactly those are refused that Automerge cannot load.
    #[test]
    fn marks_are_refused_when_and_only_when_they_do_not_load(operations in paired_marks()) {
        let change = parse(operations);
        let mut document = alice();
        let outcome = document.apply(std::slice::from_ref(&change)).unwrap();
        prop_assert_eq!(outcome.refused.is_empty(), automerge_loads(&change), "{:?}", outcome);
        assert_loads(&document);
    }

    /// What is taken, whatever it is, harms nobody: others go on editing what it touched, and everything can be
    /// told to others, stored and loaded.
    #[test]
    fn what_is_taken_does_no_harm_later(operations in operations()) {
        let Ok(change) = RawChange::parse(&encode(forged(operations))) else { return Ok(()) };
        let mut document = alice();
        let outcome = document.apply(std::slice::from_ref(&change)).unwrap();
        prop_assert_eq!(outcome.applied.len() + outcome.refused.len(), 1);
        let object = |counter| ObjId::Id(counter, ActorId::from(&ALICE[..]), 0);
        for round in 0..3_usize {
            let made = document.edit(0, |tx| {
                for key in ["a", "n", "text", "x", "z"] {
                    tx.put(ROOT, key, round as i64)?;
                    tx.put(object(11), key, round as i64)?;
                }
                for sequence in [2, 5] {
                    let length = tx.length(object(sequence));
                    tx.insert(object(sequence), length / 2, "i")?;
                    tx.insert(object(sequence), length, "j")?;
                    tx.delete(object(sequence), round)?;
                }
                tx.mark(object(5), Mark::new("bold".to_owned(), true, 0, 2), ExpandMark::Both)
            });
            prop_assert!(made.is_ok(), "{made:?}");
        }
        let mut late = Document::new(BOB);
        for change in document.changes() {
            prop_assert_eq!(late.apply(std::slice::from_ref(&change)).unwrap().refused, []);
        }
        prop_assert_eq!(late.automerge().hydrate(None), document.automerge().hydrate(None));
        assert_loads(&document);
        assert_loads(&late);
    }
}
