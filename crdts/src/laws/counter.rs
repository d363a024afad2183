//! The counter is the sum of the visible deltas.

use super::*;
use crate::PnCounter;

struct Counter;

impl Law for Counter {
    type State = PnCounter;
    type Intent = i64;
    type Op = i64;

    fn write(state: &PnCounter, intent: &i64, _x: &Context<'_>, _now: Hlc) -> i64 {
        assert_eq!(state.check_add(*intent), Ok(()));
        *intent
    }

    fn apply(state: &mut PnCounter, _x: &Context<'_>, delta: &i64) {
        state.apply(*delta);
    }

    fn encode(state: &PnCounter, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<PnCounter, DecodeError> {
        PnCounter::decode(reader)
    }

    fn assert_specification(state: &PnCounter, visible: &[&Event<Self>]) {
        assert_eq!(state.total(), visible.iter().map(|event| i128::from(event.intent)).sum::<i128>());
        assert_eq!(bytes::<Self>(state).len(), 16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn counters_keep_the_laws(skews in skews(), steps in steps(any::<i64>())) {
        run::<Counter>(&skews, steps);
    }

    #[test]
    fn counters_have_one_encoding(deltas in vec(any::<i64>(), 0..9), at: prop::sample::Index, byte: u8, noise: [u8; 20]) {
        let mut counter = PnCounter::new();
        deltas.into_iter().for_each(|delta| counter.apply(delta));
        assert_canonical_around::<Counter>(&counter, at, byte, &noise);
    }
}
