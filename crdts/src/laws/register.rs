//! The register holds the visible writes that no other visible write or reset has observed.

use super::*;
use crate::{MvRegister, Observed, Policy, RegisterView, Sibling, Value};

struct Register;

#[derive(Clone, Debug)]
enum Intent {
    Set(Value),
    /// A write by someone who has not read the register: it overwrites nothing.
    SetBlind(Value),
    Reset,
    /// A reset that names intervals.
    Clear,
}

#[derive(Clone, Debug)]
enum Op {
    Set(Sibling, Vec<Dot>),
    Reset(Vec<Dot>),
    Clear(Observed),
}

impl Law for Register {
    type State = MvRegister;
    type Intent = Intent;
    type Op = Op;

    fn write(state: &MvRegister, intent: &Intent, _x: &Context<'_>, now: Hlc) -> Op {
        match intent {
            Intent::Set(value) => {
                let hlc = state.stamp(now);
                assert!(hlc >= now && state.siblings().all(|(_, sibling)| sibling.hlc < hlc));
                Op::Set(Sibling { hlc, value: value.clone() }, state.dots())
            }
            Intent::SetBlind(value) => Op::Set(Sibling { hlc: now, value: value.clone() }, Vec::new()),
            Intent::Reset => Op::Reset(state.dots()),
            Intent::Clear => Op::Clear(Observed::from_dots(state.dots().into_iter())),
        }
    }

    fn apply(state: &mut MvRegister, x: &Context<'_>, op: &Op) {
        let before = state.clone();
        let removed = match op {
            Op::Set(sibling, observed) => state.set(x.dot, sibling.clone(), observed),
            Op::Reset(observed) => state.reset(observed),
            Op::Clear(observed) => state.clear(observed),
        };
        let is_named = |dot: &Dot| match op {
            Op::Set(_, observed) | Op::Reset(observed) => observed.contains(dot),
            Op::Clear(observed) => observed.covers(dot),
        };
        let named = before.siblings().filter(|(dot, _)| is_named(dot));
        assert!(removed.iter().map(|(dot, sibling)| (dot, sibling)).eq(named));
    }

    fn encode(state: &MvRegister, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<MvRegister, DecodeError> {
        MvRegister::decode(reader)
    }

    fn assert_specification(state: &MvRegister, visible: &[&Event<Self>]) {
        let overwritten = |event: &Event<Self>| {
            let overwrites = |later: &Event<Self>| !matches!(later.intent, Intent::SetBlind(_));
            visible.iter().any(|later| overwrites(later) && event.happened_before(later))
        };
        let mut expected = Vec::new();
        for event in visible {
            let (Intent::Set(value) | Intent::SetBlind(value), Op::Set(Sibling { hlc, .. }, _)) =
                (&event.intent, &event.op)
            else {
                continue;
            };
            if !overwritten(event) {
                expected.push((event.dot, Sibling { hlc: *hlc, value: value.clone() }));
            }
        }
        expected.sort_unstable_by_key(|(dot, _)| *dot);
        assert!(state.siblings().eq(expected.iter().map(|(dot, sibling)| (dot, sibling))));
        assert_eq!((state.len(), state.is_empty()), (expected.len(), expected.is_empty()));
        assert_views(state, &expected);
        let values: usize = expected.iter().map(|(_, sibling)| sibling.value.to_bytes().len()).sum();
        assert!(bytes::<Self>(state).len() <= 1 + values + expected.len() * (16 + 2 + 1 + 8));
    }
}

/// The policies, from the sorted siblings alone.
fn assert_views(state: &MvRegister, siblings: &[(Dot, Sibling)]) {
    let [(_, first), rest @ ..] = siblings else {
        for policy in [
            Policy::Lww,
            Policy::Siblings,
            Policy::Union,
            Policy::Min,
            Policy::Max,
            Policy::First,
            Policy::parse("custom:unknown:1").unwrap(),
        ] {
            assert_eq!(policy.view(state), RegisterView::Absent);
        }
        return;
    };
    let mut by_stamp = siblings.to_vec();
    by_stamp.sort_by_key(|(dot, sibling)| (sibling.hlc, *dot));
    let winner = &by_stamp[siblings.len() - 1].1.value;
    assert_eq!(Policy::Lww.view(state), RegisterView::Value(winner.clone()));
    let earliest = &by_stamp[0].1.value;
    assert_eq!(Policy::First.view(state), RegisterView::Value(earliest.clone()));
    let mut values: Vec<_> = siblings.iter().map(|(_, sibling)| &sibling.value).collect();
    values.sort();
    assert_eq!(Policy::Min.view(state), RegisterView::Value(values[0].clone()));
    assert_eq!(Policy::Max.view(state), RegisterView::Value(values[values.len() - 1].clone()));
    let all = if rest.is_empty() {
        RegisterView::Value(first.value.clone())
    } else {
        RegisterView::Siblings(siblings.to_vec())
    };
    assert_eq!(Policy::Siblings.view(state), all);
    assert_eq!(Policy::parse("custom:unknown:1").unwrap().view(state), all);
    let lists: Result<Vec<_>, _> =
        siblings.iter().map(|(_, sibling)| sibling.value.clone().into_list()).collect();
    let united = lists.map_or(all, |lists| {
        let mut items = lists.concat();
        items.sort();
        items.dedup();
        RegisterView::Value(Value::List(items))
    });
    assert_eq!(Policy::Union.view(state), united);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => (0..4_i64).prop_map(Value::from),
        4 => vec((0..4_i64).prop_map(Value::from), 0..4).prop_map(Value::from),
    ]
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        6 => value().prop_map(Intent::Set),
        1 => value().prop_map(Intent::SetBlind),
        1 => Just(Intent::Reset),
        1 => Just(Intent::Clear),
    ]
}

fn dot(replica: usize, seq: u64) -> Dot {
    Dot { origin: origin(replica), seq, index: 0 }
}

fn sibling(millis: u64, value: impl Into<Value>) -> Sibling {
    Sibling { hlc: Hlc::new(millis, 0), value: value.into() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn registers_keep_the_laws(skews in skews(), steps in steps(intent())) {
        run::<Register>(&skews, steps);
    }

    #[test]
    fn registers_have_one_encoding(
        writes in vec((dots(), any::<u64>(), value()), 1..5),
        at: prop::sample::Index,
        byte: u8,
        noise in vec(any::<u8>(), 0..60),
    ) {
        let mut register = MvRegister::new();
        for (dot, bits, value) in writes {
            register.set(dot, Sibling { hlc: Hlc::from_bits(bits), value }, &[]);
        }
        assert_canonical_around::<Register>(&register, at, byte, &noise);
    }
}

#[test]
fn a_reset_leaves_the_concurrent_write() {
    let mut register = MvRegister::new();
    register.set(dot(0, 1), sibling(1, "old"), &[]);
    register.set(dot(1, 1), sibling(2, "meanwhile"), &[]);
    assert_eq!(register.reset(&[dot(0, 1)]), [(dot(0, 1), sibling(1, "old"))]);
    assert_eq!(Policy::Lww.view(&register), RegisterView::Value("meanwhile".into()));
}

#[test]
fn equal_stamps_are_decided_by_the_dot() {
    let mut register = MvRegister::new();
    register.set(dot(0, 1), sibling(1, "greater origin"), &[]);
    register.set(dot(1, 9), sibling(1, "lesser origin"), &[]);
    assert!(origin(0) > origin(1));
    assert_eq!(Policy::Lww.view(&register), RegisterView::Value("greater origin".into()));
}

#[test]
fn a_write_after_one_from_the_far_future_still_wins() {
    let mut register = MvRegister::new();
    register.set(dot(0, 1), sibling(1 << 40, "far ahead"), &[]);
    let stamp = register.stamp(Hlc::new(5, 0));
    assert_eq!(stamp, Hlc::new(1 << 40, 1));
    assert_eq!(MvRegister::new().stamp(Hlc::new(5, 0)), Hlc::new(5, 0));
    let observed = register.dots();
    register.set(dot(1, 1), Sibling { hlc: stamp, value: "later".into() }, &observed);
    assert_eq!(Policy::Lww.view(&register), RegisterView::Value("later".into()));
}

#[test]
fn union_unites_lists_and_shows_what_it_cannot_unite() {
    let mut register = MvRegister::new();
    register.set(dot(0, 1), sibling(1, vec![Value::from(2), Value::from(1), Value::from(2)]), &[]);
    let sorted = RegisterView::Value(Value::from(vec![Value::from(1), Value::from(2)]));
    assert_eq!(Policy::Union.view(&register), sorted);
    register.set(dot(1, 1), sibling(2, "not a list"), &[]);
    assert_eq!(Policy::Union.view(&register), Policy::Siblings.view(&register));
    register.reset(&[dot(0, 1)]);
    assert_eq!(Policy::Union.view(&register), RegisterView::Value("not a list".into()));
}

#[test]
fn siblings_out_of_order_or_twice_do_not_decode() {
    let decode = |dots: [Dot; 2]| {
        let mut out = Writer::new();
        out.varint(2);
        for dot in dots {
            dot.encode(&mut out);
            out.bytes(&[0; 8]);
            Value::Null.encode(&mut out);
        }
        MvRegister::decode(&mut Reader::new(out.as_slice()))
    };
    assert_eq!(decode([dot(1, 1), dot(0, 1)]).map(|register| register.len()), Ok(2));
    for dots in [[dot(0, 1), dot(1, 1)], [dot(0, 1), dot(0, 1)]] {
        assert_eq!(decode(dots), Err(DecodeError::NotCanonical { what: "siblings" }));
    }
}
