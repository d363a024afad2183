//! An element is in the set if some visible add of it is not followed by a visible remove of it.

use super::*;
use crate::{AwSet, Observed, Value};

struct Set;

#[derive(Clone, Debug)]
enum Intent {
    Add(u8),
    Remove(u8),
    Clear,
    /// A clear that names intervals.
    Reset,
}

#[derive(Clone, Debug)]
enum Op {
    Add(Value, Vec<Dot>),
    Remove(Value, Vec<Dot>),
    Clear(Vec<Dot>),
    Reset(Observed),
}

const ELEMENTS: u8 = 4;

fn element(name: u8) -> Value {
    Value::from(i64::from(name))
}

impl Law for Set {
    type State = AwSet;
    type Intent = Intent;
    type Op = Op;

    fn write(state: &AwSet, intent: &Intent, _x: &Context<'_>, _now: Hlc) -> Op {
        match intent {
            Intent::Add(name) => Op::Add(element(*name), state.observed(&element(*name))),
            Intent::Remove(name) => Op::Remove(element(*name), state.observed(&element(*name))),
            Intent::Clear => Op::Clear(state.dots()),
            Intent::Reset => Op::Reset(Observed::from_dots(state.dots().into_iter())),
        }
    }

    fn apply(state: &mut AwSet, x: &Context<'_>, op: &Op) {
        match op {
            Op::Add(element, observed) => state.add(element.clone(), x.dot, observed),
            Op::Remove(element, observed) => state.remove(element, observed),
            Op::Clear(observed) => state.clear(observed),
            Op::Reset(observed) => state.clear_observed(observed),
        }
    }

    fn encode(state: &AwSet, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<AwSet, DecodeError> {
        AwSet::decode(reader)
    }

    fn assert_specification(state: &AwSet, visible: &[&Event<Self>]) {
        let adds = |name: u8| visible.iter().filter(move |e| matches!(e.intent, Intent::Add(n) if n == name));
        let removed = |add: &Event<Self>, name: u8| {
            let removes = |event: &Event<Self>| match event.intent {
                Intent::Remove(removed) => removed == name,
                Intent::Clear | Intent::Reset => true,
                Intent::Add(_) => false,
            };
            visible.iter().any(|event| removes(event) && add.happened_before(event))
        };
        for name in 0..ELEMENTS {
            let present = adds(name).any(|add| !removed(add, name));
            assert_eq!(state.contains(&element(name)), present);
            // L9: one dot per add that no later add or remove has observed, and no row for absent elements.
            let repeated = |add: &Event<Self>| adds(name).any(|later| add.happened_before(later));
            let mut live: Vec<Dot> =
                adds(name).filter(|add| !removed(add, name) && !repeated(add)).map(|add| add.dot).collect();
            live.sort_unstable();
            assert_eq!(state.observed(&element(name)), live);
        }
        assert!(state.iter().all(|(_, row)| row.is_present()));
        assert_eq!(state.iter().count(), state.len());
        let dots = state.dots().len();
        assert!(bytes::<Self>(state).len() <= 1 + state.len() * (2 + 1) + dots * (16 + 2 + 1));
    }
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        6 => (0..ELEMENTS).prop_map(Intent::Add),
        4 => (0..ELEMENTS).prop_map(Intent::Remove),
        1 => Just(Intent::Clear),
        1 => Just(Intent::Reset),
    ]
}

fn dot(replica: usize, seq: u64) -> Dot {
    Dot { origin: origin(replica), seq, index: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn sets_keep_the_laws(skews in skews(), steps in steps(intent())) {
        run::<Set>(&skews, steps);
    }

    #[test]
    fn sets_have_one_encoding(
        rows in vec((0..ELEMENTS, dots()), 1..6),
        at: prop::sample::Index,
        byte: u8,
        noise in vec(any::<u8>(), 0..60),
    ) {
        let mut set = AwSet::new();
        rows.into_iter().for_each(|(name, dot)| set.add(element(name), dot, &[]));
        assert_canonical_around::<Set>(&set, at, byte, &noise);
    }
}

#[test]
fn removing_what_was_not_seen_changes_nothing() {
    let mut set = AwSet::new();
    set.remove(&element(1), &[dot(0, 1)]);
    assert!(set.is_empty());
    set.add(element(1), dot(1, 1), &[]);
    set.remove(&element(1), &[]);
    set.remove(&element(2), &[dot(1, 1)]);
    assert!(set.contains(&element(1)));
}

#[test]
fn an_element_added_again_survives_a_late_copy_of_the_remove() {
    let mut set = AwSet::new();
    set.add(element(1), dot(0, 1), &[]);
    set.remove(&element(1), &[dot(0, 1)]);
    set.add(element(1), dot(0, 3), &[]);
    set.remove(&element(1), &[dot(0, 1)]);
    assert_eq!(set.observed(&element(1)), [dot(0, 3)]);
}

#[test]
fn a_clear_takes_what_its_author_saw_and_leaves_what_was_added_meanwhile() {
    let mut set = AwSet::new();
    set.add(element(1), dot(0, 1), &[]);
    set.add(element(2), dot(0, 2), &[]);
    let observed = set.dots();
    set.add(element(2), dot(1, 1), &[]);
    set.clear(&observed);
    assert_eq!(set.iter().map(|(element, _)| element.clone()).collect::<Vec<_>>(), [element(2)]);
    assert_eq!(set.dots(), [dot(1, 1)]);
}

#[test]
fn rows_without_dots_and_disordered_rows_do_not_decode() {
    let row = |element: Value, dots: &[Dot]| {
        let mut out = Writer::new();
        element.encode(&mut out);
        out.varint(dots.len() as u64);
        dots.iter().for_each(|dot| dot.encode(&mut out));
        out.finish()
    };
    let decode = |rows: &[Vec<u8>]| {
        let encoded = [vec![rows.len() as u8], rows.concat()].concat();
        AwSet::decode(&mut Reader::new(&encoded))
    };
    assert!(decode(&[row(element(1), &[dot(0, 1)]), row(element(2), &[dot(0, 2)])]).is_ok());
    let disorder = Err(DecodeError::NotCanonical { what: "set" });
    assert_eq!(decode(&[row(element(2), &[dot(0, 1)]), row(element(1), &[dot(0, 2)])]), disorder);
    assert_eq!(decode(&[row(element(1), &[dot(0, 1)]), row(element(1), &[dot(0, 2)])]), disorder);
    assert_eq!(decode(&[row(element(1), &[])]), disorder);
    let repeated = decode(&[row(element(1), &[dot(0, 1), dot(0, 1)])]);
    assert_eq!(repeated, Err(DecodeError::NotCanonical { what: "element dots" }));
}
