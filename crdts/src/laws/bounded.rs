//! The counter is what was visibly created less what was visibly used up, never below 0, and all of it is in
//! somebody's hands.

use super::*;
use crate::{BoundedCounter, BoundedError};

const HONEST: u8 = 0;
/// Decrements are not checked.
const OVERDRAWN: u8 = 1;
/// Transfers are not checked.
const GENEROUS: u8 = 2;
/// Decrements are checked against the value instead of the author's rights.
const WITHOUT_RIGHTS: u8 = 3;

struct Counter<const BUG: u8>;

#[derive(Clone, Debug)]
enum Intent {
    Increment(u64),
    Decrement(u64),
    Transfer(usize, u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Op {
    Increment(u64),
    Decrement(u64),
    Transfer(OriginId, u64),
    Refused(BoundedError),
}

impl<const BUG: u8> Law for Counter<BUG> {
    type State = BoundedCounter;
    type Intent = Intent;
    type Op = Op;

    fn write(state: &BoundedCounter, intent: &Intent, x: &Context<'_>, _now: Hlc) -> Op {
        let by = x.dot.origin;
        let (check, op) = match *intent {
            Intent::Increment(amount) => (state.check_increment(amount), Op::Increment(amount)),
            Intent::Decrement(amount) => (state.check_decrement(by, amount), Op::Decrement(amount)),
            Intent::Transfer(to, amount) => {
                (state.check_transfer(by, origin(to), amount), Op::Transfer(origin(to), amount))
            }
        };
        let is_let_pass = match op {
            Op::Decrement(amount) => {
                BUG == OVERDRAWN || BUG == WITHOUT_RIGHTS && state.value() >= i128::from(amount)
            }
            Op::Transfer(..) => BUG == GENEROUS,
            Op::Increment(_) | Op::Refused(_) => false,
        };
        match check {
            Err(refusal) if !is_let_pass => Op::Refused(refusal),
            Err(_) | Ok(()) => op,
        }
    }

    fn apply(state: &mut BoundedCounter, x: &Context<'_>, op: &Op) {
        match op {
            Op::Increment(amount) => state.increment(x.dot.origin, *amount),
            Op::Decrement(amount) => state.decrement(x.dot.origin, *amount),
            Op::Transfer(to, amount) => state.transfer(x.dot.origin, *to, *amount),
            Op::Refused(_) => {}
        }
    }

    fn encode(state: &BoundedCounter, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<BoundedCounter, DecodeError> {
        BoundedCounter::decode(reader)
    }

    fn assert_specification(state: &BoundedCounter, visible: &[&Event<Self>]) {
        let (mut value, mut rights) = (0, BTreeMap::from([0, 1, 2, 3].map(|replica| (origin(replica), 0))));
        let mut change = |origin: OriginId, amount: i128| *rights.entry(origin).or_insert(0) += amount;
        for event in visible {
            let by = event.dot.origin;
            match event.op {
                Op::Increment(amount) => {
                    value += i128::from(amount);
                    change(by, i128::from(amount));
                }
                Op::Decrement(amount) => {
                    value -= i128::from(amount);
                    change(by, -i128::from(amount));
                }
                Op::Transfer(to, amount) => {
                    change(to, i128::from(amount));
                    change(by, -i128::from(amount));
                }
                Op::Refused(refusal) => assert_refusal(refusal),
            }
        }
        assert_eq!(state.value(), value);
        assert!(rights.iter().all(|(origin, held)| state.rights(origin) == *held));
        assert!(value >= 0, "the bound");
        assert!(rights.values().all(|held| *held >= 0), "nobody passes on or uses what it does not hold");
        assert_eq!(rights.values().sum::<i128>(), value, "every right is in somebody's hands");
        let mut holders: Vec<_> = rights.into_iter().filter(|(_, held)| *held > 0).collect();
        holders.sort_by_key(|(origin, held)| (-*held, *origin));
        assert_eq!(state.holders().collect::<Vec<_>>(), holders);
        // L9: a number for each origin that holds rights.
        let holders = state.holders().count();
        assert!(bytes::<Self>(state).len() <= 1 + holders * (16 + 10));
        assert_eq!(state.is_empty(), holders == 0);
    }
}

fn assert_refusal(refusal: BoundedError) {
    match refusal {
        BoundedError::Insufficient { needed, rights, value } => {
            assert!(rights < i128::from(needed) && rights <= value);
        }
        BoundedError::Range { added, value, bits_max } => assert!(value + i128::from(added) >= 1 << bits_max),
    }
}

fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 20 => 1..9_u64, 1 => any::<u64>()]
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        2 => amount().prop_map(Intent::Increment),
        3 => amount().prop_map(Intent::Decrement),
        2 => (0..REPLICAS_MAX, amount()).prop_map(|(to, amount)| Intent::Transfer(to, amount)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn bounded_counters_keep_the_laws(skews in skews(), steps in steps(intent())) {
        run::<Counter<HONEST>>(&skews, steps);
    }

    #[test]
    fn bounded_counters_have_one_encoding(
        ops in vec((0..REPLICAS_MAX, intent()), 0..8),
        at: prop::sample::Index,
        byte: u8,
        noise in vec(any::<u8>(), 0..80),
    ) {
        let (mut counter, nothing) = (BoundedCounter::new(), Frontier::new());
        for (replica, intent) in ops {
            let x = context(replica, 1, &nothing);
            let op = Counter::<OVERDRAWN>::write(&counter, &intent, &x, Hlc::ZERO);
            Counter::<OVERDRAWN>::apply(&mut counter, &x, &op);
        }
        assert_canonical_around::<Counter<HONEST>>(&counter, at, byte, &noise);
    }
}

#[test]
fn the_laws_notice_counters_that_are_wrong() {
    assert!(!is_caught::<Counter<HONEST>>(500, intent()));
    assert!(is_caught::<Counter<OVERDRAWN>>(500, intent()));
    assert!(is_caught::<Counter<GENEROUS>>(500, intent()));
    assert!(is_caught::<Counter<WITHOUT_RIGHTS>>(500, intent()));
}

#[test]
fn rights_come_from_increments_and_transfers_and_go_with_use() {
    let [one, other] = [0, 1].map(origin);
    let mut counter = BoundedCounter::new();
    counter.increment(one, 10);
    let refused = BoundedError::Insufficient { needed: 1, rights: 0, value: 10 };
    assert_eq!(counter.check_decrement(other, 1), Err(refused));
    assert_eq!(counter.check_transfer(one, other, 4), Ok(()));
    counter.transfer(one, other, 4);
    assert_eq!(counter.check_decrement(other, 4), Ok(()));
    counter.decrement(other, 3);
    assert_eq!(counter.holders().collect::<Vec<_>>(), [(one, 6), (other, 1)]);
    assert_eq!(counter.value(), 7);
    let refused = BoundedError::Insufficient { needed: 7, rights: 6, value: 7 };
    assert_eq!(counter.check_transfer(one, other, 7), Err(refused));
}

/// Each checks against all it knows, and neither knows of the other.
#[test]
fn two_that_take_the_last_at_once_cannot_both_hold_the_right_to() {
    let [one, other] = [0, 1].map(origin);
    let mut counter = BoundedCounter::new();
    counter.increment(one, 1);
    assert_eq!(counter.check_decrement(one, 1), Ok(()));
    assert!(counter.check_decrement(other, 1).is_err());
    counter.transfer(one, other, 1);
    assert!(counter.check_decrement(one, 1).is_err());
    assert_eq!(counter.check_decrement(other, 1), Ok(()));
}

#[test]
fn equal_holders_stand_in_the_order_of_their_origins() {
    let [one, other] = [0, 1].map(origin);
    let mut counter = BoundedCounter::new();
    counter.increment(one, 5);
    counter.increment(other, 5);
    assert!(other < one);
    assert_eq!(counter.holders().collect::<Vec<_>>(), [(other, 5), (one, 5)]);
}

#[test]
fn increments_stop_before_the_range_ends() {
    let one = origin(0);
    let mut counter = BoundedCounter::new();
    counter.increment(one, (1 << 63) - 2);
    assert_eq!(counter.check_increment(1), Ok(()));
    let refused = BoundedError::Range { added: 2, value: (1 << 63) - 2, bits_max: 63 };
    assert_eq!(counter.check_increment(2), Err(refused));
    counter.decrement(one, 1 << 62);
    assert_eq!(counter.check_increment(1 << 62), Ok(()), "what was used up makes room");
}

#[test]
fn a_transfer_to_oneself_moves_nothing_and_amounts_of_nothing_leave_no_trace() {
    let one = origin(0);
    let mut counter = BoundedCounter::new();
    counter.transfer(one, one, 5);
    counter.transfer(one, origin(1), 0);
    counter.increment(one, 0);
    counter.decrement(one, 0);
    assert!(counter.is_empty());
}

#[test]
fn what_is_overdrawn_is_missing_from_the_rights_of_whoever_did_it() {
    let [one, other] = [0, 1].map(origin);
    let mut counter = BoundedCounter::new();
    counter.increment(one, 5);
    counter.decrement(other, 3);
    assert_eq!((counter.rights(&one), counter.rights(&other), counter.value()), (5, -3, 2));
    assert_eq!(counter.holders().collect::<Vec<_>>(), [(one, 5)]);
}

#[test]
fn amounts_out_of_order_or_of_nothing_do_not_decode() {
    let decode = |rights: &[(usize, i128)]| {
        let mut out = Writer::new();
        out.varint(rights.len() as u64);
        for (holder, held) in rights {
            out.bytes(&origin(*holder).0);
            out.varint_wide_signed(*held);
        }
        BoundedCounter::decode(&mut Reader::new(out.as_slice())).map(|_| ())
    };
    let disorder = Err(DecodeError::NotCanonical { what: "holders" });
    assert_eq!(decode(&[(1, 5), (0, -2)]), Ok(()));
    assert_eq!(decode(&[(0, 5), (1, 2)]), disorder);
    assert_eq!(decode(&[(1, 5), (1, 5)]), disorder);
    assert_eq!(decode(&[(1, 0)]), disorder);
}

#[test]
fn nothing_is_left_of_a_counter_whose_rights_are_used_up() {
    let [one, other] = [0, 1].map(origin);
    let mut counter = BoundedCounter::new();
    counter.increment(one, 5);
    counter.transfer(one, other, 2);
    counter.decrement(other, 2);
    assert!(!counter.is_empty());
    counter.decrement(one, 3);
    assert!(counter.is_empty());
}
