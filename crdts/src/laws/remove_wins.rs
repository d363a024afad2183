//! An element is in the set if it was visibly added, and every visible remove of it is followed by a visible
//! add of it.

use super::*;
use crate::{RwRow, RwSet, Value};

const HONEST: u8 = 0;
/// Announcements count when they are made.
const EARLY: u8 = 1;
/// Compacts what not everybody is known to have.
const TOO_FAR: u8 = 2;
/// Adds undo removes that their authors had not seen.
const ALL_SEEING: u8 = 3;
/// Adds undo nothing.
const BLIND: u8 = 4;
/// A remove of what its author does not see in the set is not recorded.
const UNRECORDED: u8 = 5;

struct Set<const BUG: u8>;

#[derive(Clone, Debug)]
enum Intent {
    Add(u8),
    Remove(u8),
}

#[derive(Clone, Debug)]
enum Op {
    Add(Value),
    Remove(Value),
    Nothing,
}

const ELEMENTS: u8 = 2;

fn element(name: u8) -> Value {
    Value::from(i64::from(name))
}

impl<const BUG: u8> Law for Set<BUG> {
    type State = RwSet;
    type Intent = Intent;
    type Op = Op;
    const OUT_OF_BAND: bool = BUG == EARLY;

    fn write(state: &RwSet, intent: &Intent, _x: &Context<'_>, _now: Hlc) -> Op {
        match intent {
            Intent::Add(name) => Op::Add(element(*name)),
            Intent::Remove(name) if BUG == UNRECORDED && !state.contains(&element(*name)) => Op::Nothing,
            Intent::Remove(name) => Op::Remove(element(*name)),
        }
    }

    fn apply(state: &mut RwSet, x: &Context<'_>, op: &Op) {
        let frontier = match BUG {
            ALL_SEEING => &everywhere(u64::MAX),
            BLIND => &Frontier::new(),
            _ => x.frontier,
        };
        match op {
            Op::Add(element) => state.add(element.clone(), &Context { frontier, ..*x }),
            Op::Remove(element) => state.remove(element.clone(), x),
            Op::Nothing => {}
        }
    }

    fn compact(state: &mut RwSet, cut: &Frontier) {
        state.compact(&further(cut, u64::from(BUG == TOO_FAR)));
    }

    fn project(state: &RwSet, out: &mut Writer) {
        state.iter().for_each(|element| element.encode(out));
    }

    fn encode(state: &RwSet, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<RwSet, DecodeError> {
        RwSet::decode(reader)
    }

    fn assert_specification(state: &RwSet, visible: &[&Event<Self>]) {
        let (adds, removes) = (events_of(visible, true), events_of(visible, false));
        let undone = |remove: &Event<Self>, name| adds(name).any(|add| remove.happened_before(add));
        let is_member =
            |name| adds(name).next().is_some() && removes(name).all(|remove| undone(remove, name));
        let members: Vec<Value> = (0..ELEMENTS).filter(|name| is_member(*name)).map(element).collect();
        assert!(state.iter().eq(&members));
        assert_eq!((state.len(), state.is_empty()), (members.len(), members.is_empty()));
        assert!((0..ELEMENTS).map(element).all(|name| state.contains(&name) == members.contains(&name)));
    }

    /// L9: a token for each remove that no later operation on the element has observed.
    fn assert_uncompacted(state: &RwSet, visible: &[&Event<Self>]) {
        let (adds, removes) = (events_of(visible, true), events_of(visible, false));
        for name in 0..ELEMENTS {
            let observed =
                |remove: &Event<Self>| adds(name).chain(removes(name)).any(|x| remove.happened_before(x));
            let mut tokens: Vec<_> =
                removes(name).filter(|remove| !observed(remove)).map(|remove| remove.place()).collect();
            tokens.sort_unstable();
            let row = state.rows().find(|(other, _)| **other == element(name)).map(|(_, row)| row.clone());
            assert!(row.unwrap_or_default().tokens().eq(tokens));
        }
        let tokens: usize = state.rows().map(|(_, row)| row.tokens().count()).sum();
        assert!(bytes::<Self>(state).len() <= 1 + state.rows().count() * (2 + 2) + tokens * (16 + 2 + 1 + 2));
    }

    fn assert_settled(state: &RwSet) {
        assert!(state.rows().all(|(_, row)| row.is_member()));
    }
}

/// The adds, or the removes, of an element.
fn events_of<'a, const BUG: u8>(
    visible: &'a [&'a Event<Set<BUG>>],
    is_add: bool,
) -> impl Fn(u8) -> Box<dyn Iterator<Item = &'a Event<Set<BUG>>> + 'a> {
    move |name| {
        let wanted = move |event: &&Event<Set<BUG>>| match event.intent {
            Intent::Add(added) => is_add && added == name,
            Intent::Remove(removed) => !is_add && removed == name,
        };
        Box::new(visible.iter().copied().filter(wanted))
    }
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![(0..ELEMENTS).prop_map(Intent::Add), (0..ELEMENTS).prop_map(Intent::Remove)]
}

#[test]
fn remove_wins_sets_keep_the_laws() {
    assert_laws_with_compaction::<Set<HONEST>>(2_000, intent());
}

#[test]
fn the_laws_notice_sets_that_are_wrong() {
    assert!(!is_caught::<Set<HONEST>>(500, intent()));
    assert!(is_caught::<Set<EARLY>>(2_000, intent()));
    assert!(is_caught::<Set<TOO_FAR>>(500, intent()));
    assert!(is_caught::<Set<ALL_SEEING>>(500, intent()));
    assert!(is_caught::<Set<BLIND>>(500, intent()));
    assert!(is_caught::<Set<UNRECORDED>>(500, intent()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn remove_wins_sets_have_one_encoding(
        rows in vec((0..ELEMENTS, any::<bool>(), 0..REPLICAS_MAX, 1..300_u64, 0..REPLICAS_MAX), 1..6),
        at: prop::sample::Index,
        byte: u8,
        noise in vec(any::<u8>(), 0..60),
    ) {
        let (mut set, nothing) = (RwSet::new(), Frontier::new());
        for (name, is_add, replica, seq, lane) in rows {
            let x = Context { lane: origin(lane), ..context(replica, seq, &nothing) };
            if is_add { set.add(element(name), &x) } else { set.remove(element(name), &x) }
        }
        assert_canonical_around::<Set<HONEST>>(&set, at, byte, &noise);
    }
}

#[test]
fn a_remove_of_an_absent_element_beats_a_concurrent_add() {
    let nothing = Frontier::new();
    for remove_first in [false, true] {
        let mut row = RwRow::new();
        if remove_first {
            row.remove(&context(0, 1, &nothing));
        }
        row.add(&context(1, 1, &nothing));
        if !remove_first {
            row.remove(&context(0, 1, &nothing));
        }
        assert!(!row.is_member() && !row.is_empty());
        row.add(&context(1, 2, &having_seen(&[(0, 1)])));
        assert!(row.is_member());
    }
}

#[test]
fn concurrent_adds_undo_concurrent_removes_together() {
    let mut row = RwRow::new();
    row.remove(&context(0, 1, &Frontier::new()));
    row.remove(&context(1, 1, &Frontier::new()));
    row.add(&context(2, 1, &having_seen(&[(0, 1)])));
    assert!(!row.is_member());
    row.add(&context(3, 1, &having_seen(&[(1, 1)])));
    assert!(row.is_member());
}

/// An add whose author no longer holds the token undoes the remove where the token is still held.
#[test]
fn an_add_undoes_a_remove_that_its_author_had_compacted_away() {
    let mut author = RwRow::new();
    author.remove(&context(0, 1, &Frontier::new()));
    let mut receiver = author.clone();
    author.compact(&everywhere(2));
    assert!(author.is_empty());
    let seen = having_seen(&[(0, 1)]);
    let x = context(1, 1, &seen);
    author.add(&x);
    receiver.add(&x);
    assert!(author.is_member());
    assert_eq!(author, receiver);
}

#[test]
fn a_row_is_forgotten_only_when_all_its_tokens_are_stable() {
    let mut row = RwRow::new();
    row.add(&context(2, 1, &Frontier::new()));
    row.remove(&context(0, 1, &Frontier::new()));
    row.remove(&context(1, 1, &Frontier::new()));
    let kept = row.clone();
    row.compact(&having_seen(&[(0, 9)]));
    assert_eq!(row, kept);
    row.compact(&having_seen(&[(0, 9), (1, 1)]));
    assert!(row.is_empty());
    row.add(&context(2, 2, &having_seen(&[(0, 1), (1, 1)])));
    row.compact(&everywhere(u64::MAX));
    assert!(row.is_member(), "members have no tokens to be compacted");
}

#[test]
fn operations_of_one_change_set_take_effect_in_their_order() {
    let nothing = Frontier::new();
    let at = |index| {
        let mut x = context(0, 1, &nothing);
        x.dot.index = index;
        x
    };
    let mut row = RwRow::new();
    row.remove(&at(0));
    row.add(&at(1));
    assert!(row.is_member());
    row.remove(&at(2));
    assert!(!row.is_member());
    assert_eq!(row.tokens().map(|token| token.dot.index).collect::<Vec<_>>(), [2]);
}

#[test]
fn disordered_and_empty_rows_do_not_decode() {
    let row = |present: u8, tokens: &[Place]| {
        let mut out = Writer::new();
        element(1).encode(&mut out);
        out.u8(present);
        out.varint(tokens.len() as u64);
        tokens.iter().for_each(|token| token.encode(&mut out));
        out.finish()
    };
    let decode = |rows: &[Vec<u8>]| {
        let encoded = [vec![rows.len() as u8], rows.concat()].concat();
        RwSet::decode(&mut Reader::new(&encoded))
    };
    let nothing = Frontier::new();
    let (one, other) = (context(1, 1, &nothing).place(), context(0, 1, &nothing).place());
    assert!(decode(&[row(0, &[one, other])]).is_ok());
    let disorder = Err(DecodeError::NotCanonical { what: "tokens" });
    assert_eq!(decode(&[row(0, &[other, one])]), disorder);
    assert_eq!(decode(&[row(0, &[one, one])]), disorder);
    assert_eq!(decode(&[row(0, &[])]), Err(DecodeError::NotCanonical { what: "set" }));
    assert_eq!(decode(&[row(1, &[]), row(1, &[])]), Err(DecodeError::NotCanonical { what: "set" }));
    assert!(matches!(decode(&[row(2, &[])]), Err(DecodeError::OverLimit { .. })));
}
