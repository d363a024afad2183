//! An enable-wins flag is enabled if some visible enabling is not followed by a visible disabling, a
//! disable-wins flag if every visible disabling is followed by a visible enabling, and there is one.

use super::*;
use crate::{DwFlag, EwFlag, Observed};

struct EnableWins;
struct DisableWins;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    Enable,
    Disable,
    /// A disabling that names intervals; the same to a disable-wins flag.
    Clear,
}

#[derive(Clone, Debug)]
enum Op {
    Enable(Vec<Dot>),
    Disable(Vec<Dot>),
    Clear(Observed),
}

impl Law for EnableWins {
    type State = EwFlag;
    type Intent = Intent;
    type Op = Op;

    fn write(state: &EwFlag, intent: &Intent, _x: &Context<'_>, _now: Hlc) -> Op {
        match intent {
            Intent::Enable => Op::Enable(state.dots().collect()),
            Intent::Disable => Op::Disable(state.dots().collect()),
            Intent::Clear => Op::Clear(Observed::from_dots(state.dots())),
        }
    }

    fn apply(state: &mut EwFlag, x: &Context<'_>, op: &Op) {
        match op {
            Op::Enable(observed) => state.enable(x.dot, observed),
            Op::Disable(observed) => state.disable(observed),
            Op::Clear(observed) => state.clear(observed),
        }
    }

    fn encode(state: &EwFlag, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<EwFlag, DecodeError> {
        EwFlag::decode(reader)
    }

    fn assert_specification(state: &EwFlag, visible: &[&Event<Self>]) {
        let is_enabling = |event: &&&Event<Self>| event.intent == Intent::Enable;
        let disabled = |enabling: &Event<Self>| {
            visible.iter().any(|x| x.intent != Intent::Enable && enabling.happened_before(x))
        };
        assert_eq!(
            state.is_enabled(),
            visible.iter().filter(is_enabling).any(|enabling| !disabled(enabling))
        );
        // L9: a dot for each enabling that no later operation has observed.
        let observed = |enabling: &Event<Self>| visible.iter().any(|x| enabling.happened_before(x));
        let live = visible.iter().filter(is_enabling).filter(|enabling| !observed(enabling));
        let mut live: Vec<Dot> = live.map(|enabling| enabling.dot).collect();
        live.sort_unstable();
        assert!(state.dots().eq(live));
        assert_eq!(state.is_empty(), !state.is_enabled());
    }
}

impl Law for DisableWins {
    type State = DwFlag;
    type Intent = Intent;
    type Op = Intent;

    fn write(_state: &DwFlag, intent: &Intent, _x: &Context<'_>, _now: Hlc) -> Intent {
        *intent
    }

    fn apply(state: &mut DwFlag, x: &Context<'_>, op: &Intent) {
        match op {
            Intent::Enable => state.enable(x),
            Intent::Disable | Intent::Clear => state.disable(x),
        }
    }

    fn compact(state: &mut DwFlag, cut: &Frontier) {
        state.compact(cut);
    }

    fn project(state: &DwFlag, out: &mut Writer) {
        out.u8(u8::from(state.is_enabled()));
    }

    fn encode(state: &DwFlag, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<DwFlag, DecodeError> {
        DwFlag::decode(reader)
    }

    fn assert_specification(state: &DwFlag, visible: &[&Event<Self>]) {
        let enablings = || visible.iter().filter(|event| event.intent == Intent::Enable);
        let mut disablings = visible.iter().filter(|event| event.intent != Intent::Enable);
        let undone = |disabling: &Event<Self>| enablings().any(|x| disabling.happened_before(x));
        assert_eq!(state.is_enabled(), enablings().count() > 0 && disablings.all(|event| undone(event)));
    }

    /// L9: a token for each disabling that no later operation has observed.
    fn assert_uncompacted(state: &DwFlag, visible: &[&Event<Self>]) {
        let observed = |event: &Event<Self>| visible.iter().any(|x| event.happened_before(x));
        let tokens = visible.iter().filter(|event| event.intent != Intent::Enable && !observed(event));
        let mut tokens: Vec<Place> = tokens.map(|event| event.place()).collect();
        tokens.sort_unstable();
        assert!(state.tokens().eq(tokens));
    }

    fn assert_settled(state: &DwFlag) {
        assert_eq!(state.is_empty(), !state.is_enabled());
        assert_eq!(state.tokens().count(), 0);
    }
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![3 => Just(Intent::Enable), 2 => Just(Intent::Disable), 1 => Just(Intent::Clear)]
}

#[test]
fn disable_wins_flags_keep_the_laws() {
    assert_laws_with_compaction::<DisableWins>(2_000, intent());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn enable_wins_flags_keep_the_laws(skews in skews(), steps in steps(intent())) {
        run::<EnableWins>(&skews, steps);
    }

    #[test]
    fn flags_have_one_encoding(
        dots in vec((dots(), 1..9_u64), 0..4),
        enabled: bool,
        at: prop::sample::Index,
        byte: u8,
        noise in vec(any::<u8>(), 0..60),
    ) {
        let (mut enable_wins, mut disable_wins, nothing) = (EwFlag::new(), DwFlag::new(), Frontier::new());
        if enabled {
            disable_wins.enable(&context(0, 1, &nothing));
        }
        for (dot, lsn) in dots {
            enable_wins.enable(dot, &[]);
            disable_wins.disable(&Context { dot, frontier: &nothing, lane: dot.origin, lsn });
        }
        assert_canonical_around::<EnableWins>(&enable_wins, at, byte, &noise);
        assert_canonical_around::<DisableWins>(&disable_wins, at, byte, &noise);
    }
}

#[test]
fn of_a_concurrent_enabling_and_disabling_each_flag_keeps_its_own() {
    let nothing = Frontier::new();
    let (enabling, disabling) = (context(0, 2, &nothing), context(1, 1, &nothing));
    let mut enable_wins = EwFlag::new();
    let mut disable_wins = DwFlag::new();
    assert!(!enable_wins.is_enabled() && !disable_wins.is_enabled());
    enable_wins.enable(enabling.dot, &[]);
    disable_wins.enable(&enabling);
    assert!(enable_wins.is_enabled() && disable_wins.is_enabled());
    enable_wins.disable(&[]);
    disable_wins.disable(&disabling);
    assert!(enable_wins.is_enabled() && !disable_wins.is_enabled());
}
