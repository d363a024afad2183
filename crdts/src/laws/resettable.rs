//! The counter is the sum of the visible additions that are in the past of no visible reset.

use super::*;
use crate::{ResetColumn, ResettableCounter, Step as At};

const HONEST: u8 = 0;
/// Announcements count when they are made.
const EARLY: u8 = 1;
/// Compacts what not everybody is known to have.
const TOO_FAR: u8 = 2;
/// Sums count from the last reset known to the receiver, not to the author.
const RECEIVERS_BASE: u8 = 3;
/// Sums count from the beginning.
const NO_BASE: u8 = 4;

struct Counter<const BUG: u8>;

/// Resets name whatever they like.
struct Lying;

#[derive(Clone, Debug)]
enum Intent {
    Add(i64),
    Reset,
    Lie(Vec<ResetColumn>),
}

#[derive(Clone, Debug)]
enum Op {
    Add(i64),
    Reset(Vec<ResetColumn>),
}

fn write(state: &ResettableCounter, intent: &Intent) -> Op {
    match intent {
        Intent::Add(delta) => {
            assert_eq!(state.check_add(*delta), Ok(()));
            Op::Add(*delta)
        }
        Intent::Reset => Op::Reset(state.observed()),
        Intent::Lie(columns) => Op::Reset(columns.clone()),
    }
}

fn apply(state: &mut ResettableCounter, x: &Context<'_>, op: &Op) {
    match op {
        Op::Add(delta) => state.add(x.dot, *delta),
        Op::Reset(columns) => state.reset(x, columns),
    }
}

impl<const BUG: u8> Law for Counter<BUG> {
    type State = ResettableCounter;
    type Intent = Intent;
    type Op = Op;
    const OUT_OF_BAND: bool = BUG == EARLY;

    fn write(state: &ResettableCounter, intent: &Intent, _x: &Context<'_>, _now: Hlc) -> Op {
        write(state, intent)
    }

    fn apply(state: &mut ResettableCounter, x: &Context<'_>, op: &Op) {
        let frontier = match BUG {
            RECEIVERS_BASE => &everywhere(u64::MAX),
            NO_BASE => &Frontier::new(),
            _ => x.frontier,
        };
        apply(state, &Context { frontier, ..*x }, op);
    }

    fn compact(state: &mut ResettableCounter, cut: &Frontier) {
        state.compact(&further(cut, u64::from(BUG == TOO_FAR)));
    }

    fn project(state: &ResettableCounter, out: &mut Writer) {
        state.digest_into(out);
    }

    fn encode(state: &ResettableCounter, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<ResettableCounter, DecodeError> {
        ResettableCounter::decode(reader)
    }

    fn assert_specification(state: &ResettableCounter, visible: &[&Event<Self>]) {
        let mut live: BTreeMap<OriginId, (At, i128)> = BTreeMap::new();
        let is_reset = |add: &Event<Self>| {
            visible.iter().any(|x| matches!(x.intent, Intent::Reset) && add.happened_before(x))
        };
        for event in visible {
            let Intent::Add(delta) = event.intent else { continue };
            if !is_reset(event) {
                let (through, sum) = live.entry(event.dot.origin).or_default();
                *through = (*through).max((event.dot.seq, event.dot.index));
                *sum += i128::from(delta);
            }
        }
        assert_eq!(state.value(), live.values().map(|(_, sum)| sum).sum::<i128>());
        assert_eq!(state.is_live(), !live.is_empty());
        let columns = live.into_iter().map(|(origin, (through, sum))| ResetColumn { origin, through, sum });
        assert_eq!(state.observed(), columns.collect::<Vec<_>>());
    }

    /// L9: a column for each origin that added, in it a point for each reset that found something there.
    fn assert_uncompacted(state: &ResettableCounter, visible: &[&Event<Self>]) {
        let adds = visible.iter().filter(|event| matches!(event.intent, Intent::Add(_)));
        let origins = adds.map(|add| add.dot.origin).collect::<BTreeSet<_>>().len();
        let named = |event: &&Event<Self>| match &event.op {
            Op::Reset(columns) => columns.len(),
            Op::Add(_) => 0,
        };
        let points: usize = visible.iter().map(named).sum();
        let sum_bytes = 10;
        let column_bytes = 16 + 2 + 2 + sum_bytes + 1;
        let point_bytes = 2 + (16 + 2 + 1) + sum_bytes;
        assert!(bytes::<Self>(state).len() <= 1 + origins * column_bytes + points * point_bytes);
    }

    /// Nothing is left of what was reset.
    fn assert_settled(state: &ResettableCounter) {
        assert_eq!(state.is_empty(), !state.is_live());
        let columns = state.observed().len();
        assert!(bytes::<Self>(state).len() <= 1 + columns * (16 + 2 + 2 + 10 + 1));
    }
}

impl Law for Lying {
    type State = ResettableCounter;
    type Intent = Intent;
    type Op = Op;

    fn write(state: &ResettableCounter, intent: &Intent, _x: &Context<'_>, _now: Hlc) -> Op {
        match intent {
            Intent::Add(delta) => Op::Add(*delta),
            Intent::Reset | Intent::Lie(_) => write(state, intent),
        }
    }

    fn apply(state: &mut ResettableCounter, x: &Context<'_>, op: &Op) {
        apply(state, x, op);
    }

    fn encode(state: &ResettableCounter, out: &mut Writer) {
        state.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<ResettableCounter, DecodeError> {
        ResettableCounter::decode(reader)
    }

    /// There is none: what is checked is that everybody is misled in the same way.
    fn assert_specification(_state: &ResettableCounter, _visible: &[&Event<Self>]) {}
}

fn delta() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -9..10_i64, 1 => any::<i64>()]
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![3 => delta().prop_map(Intent::Add), 2 => Just(Intent::Reset)]
}

fn column() -> impl Strategy<Value = ResetColumn> {
    let sum = prop_oneof![-9..10_i128, any::<i128>()];
    (0..REPLICAS_MAX, 0..9_u64, 0..3_u16, sum).prop_map(|(replica, seq, index, sum)| ResetColumn {
        origin: origin(replica),
        through: (seq, index),
        sum,
    })
}

fn lie() -> impl Strategy<Value = Intent> {
    prop_oneof![2 => intent(), 1 => vec(column(), 0..4).prop_map(Intent::Lie)]
}

#[test]
fn resettable_counters_keep_the_laws() {
    assert_laws_with_compaction::<Counter<HONEST>>(2_000, intent());
}

#[test]
fn the_laws_notice_counters_that_are_wrong() {
    assert!(!is_caught::<Counter<HONEST>>(500, intent()));
    assert!(is_caught::<Counter<EARLY>>(2_000, intent()));
    assert!(is_caught::<Counter<TOO_FAR>>(500, intent()));
    assert!(is_caught::<Counter<RECEIVERS_BASE>>(500, intent()));
    assert!(is_caught::<Counter<NO_BASE>>(500, intent()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_resets_name_replicas_agree(skews in skews(), steps in steps(lie())) {
        run::<Lying>(&skews, steps);
    }

    #[test]
    fn resettable_counters_have_one_encoding(
        ops in vec((0..REPLICAS_MAX, 1..300_u64, lie()), 1..8),
        cut in prop::option::of(0..300_u64),
        at: prop::sample::Index,
        byte: u8,
        noise in vec(any::<u8>(), 0..80),
    ) {
        let (mut counter, nothing) = (ResettableCounter::new(), Frontier::new());
        for (replica, seq, intent) in ops {
            let op = Lying::write(&counter, &intent, &context(replica, seq, &nothing), Hlc::ZERO);
            apply(&mut counter, &context(replica, seq, &nothing), &op);
        }
        if let Some(lsn) = cut {
            counter.compact(&everywhere(lsn));
        }
        assert_canonical_around::<Counter<HONEST>>(&counter, at, byte, &noise);
    }

    #[test]
    fn reset_columns_have_one_encoding(column in column(), noise in vec(any::<u8>(), 0..60)) {
        let mut out = Writer::new();
        column.encode(&mut out);
        let encoded = out.finish();
        for candidate in [&encoded, &noise] {
            let mut reader = Reader::new(candidate);
            if let Ok(decoded) = ResetColumn::decode(&mut reader) {
                let mut out = Writer::new();
                decoded.encode(&mut out);
                prop_assert_eq!(out.as_slice(), &candidate[..candidate.len() - reader.remaining()]);
            }
        }
        prop_assert_eq!(ResetColumn::decode(&mut Reader::new(&encoded)), Ok(column));
    }
}

fn dot(replica: usize, seq: u64) -> Dot {
    Dot { origin: origin(replica), seq, index: 0 }
}

fn adding(additions: &[(usize, u64, i64)]) -> ResettableCounter {
    let mut counter = ResettableCounter::new();
    additions.iter().for_each(|(replica, seq, delta)| counter.add(dot(*replica, *seq), *delta));
    counter
}

/// Not so in Riak's counters in maps, where an addition that is concurrent with the removal brings back
/// everything its author had added before.
#[test]
fn an_addition_concurrent_with_a_reset_survives_alone() {
    let mut counter = adding(&[(0, 1, 10), (1, 1, 7)]);
    let (seen, columns) = (having_seen(&[(0, 1), (1, 1)]), counter.observed());
    counter.add(dot(0, 2), 5);
    counter.reset(&context(2, 1, &seen), &columns);
    assert_eq!(counter.value(), 5);
    counter.reset(&context(0, 3, &having_seen(&[(1, 1), (2, 1)])), &counter.observed());
    assert_eq!((counter.value(), counter.is_live()), (0, false));
}

#[test]
fn concurrent_resets_take_away_nothing_twice_in_either_order() {
    let before = adding(&[(0, 1, 10)]);
    let (seen_little, little) = (having_seen(&[(0, 1)]), before.observed());
    let mut later = adding(&[(0, 1, 10), (0, 2, 20)]);
    let (seen_more, more) = (having_seen(&[(0, 2)]), later.observed());
    later.add(dot(0, 3), 3);
    let resets = [(context(1, 1, &seen_little), little), (context(2, 1, &seen_more), more)];
    for order in [[0, 1], [1, 0]] {
        let mut counter = later.clone();
        for (x, columns) in order.map(|reset| &resets[reset]) {
            counter.reset(x, columns);
        }
        assert_eq!(counter.value(), 3);
    }
}

/// The sum in a reset counts from where its author saw the last reset end, wherever others end that the
/// receiver knows of.
#[test]
fn a_reset_counts_from_what_its_author_saw_reset() {
    let seen_one = having_seen(&[(0, 1)]);
    let mut author = adding(&[(0, 1, 1)]);
    let first = author.observed();
    author.reset(&context(1, 1, &seen_one), &first);
    author.add(dot(0, 2), 2);
    let mut meanwhile = author.clone();
    let second = author.observed();
    assert_eq!(second, [ResetColumn { origin: origin(0), through: (2, 0), sum: 2 }]);
    author.add(dot(0, 3), 4);
    let third = author.observed();

    let (seen_two, seen_three) = (having_seen(&[(0, 2), (1, 1)]), having_seen(&[(0, 3), (1, 1)]));
    meanwhile.add(dot(0, 3), 4);
    meanwhile.add(dot(0, 4), 8);
    meanwhile.reset(&context(2, 1, &seen_two), &second);
    assert_eq!(meanwhile.value(), 12);
    meanwhile.reset(&context(3, 1, &seen_three), &third);
    assert_eq!(meanwhile.value(), 8);
}

#[test]
fn a_reset_takes_what_precedes_it_in_its_change_set_and_leaves_what_follows() {
    let nothing = Frontier::new();
    let at = |index| {
        let mut x = context(0, 1, &nothing);
        x.dot.index = index;
        x
    };
    let mut counter = ResettableCounter::new();
    counter.add(at(0).dot, 1);
    counter.reset(&at(1), &counter.observed());
    counter.add(at(2).dot, 2);
    assert_eq!(counter.value(), 2);
    counter.reset(&at(3), &counter.observed());
    counter.add(at(4).dot, 4);
    assert_eq!(counter.value(), 4);
}

#[test]
fn additions_that_sum_up_to_nothing_are_still_there() {
    let mut counter = adding(&[(0, 1, 5), (0, 2, -5)]);
    assert_eq!((counter.value(), counter.is_live()), (0, true));
    counter.reset(&context(1, 1, &having_seen(&[(0, 2)])), &counter.observed());
    assert!(!counter.is_live() && !counter.is_empty());
}

#[test]
fn a_stable_reset_leaves_nothing_and_its_column_starts_anew() {
    let mut counter = adding(&[(0, 1, 10)]);
    counter.reset(&context(1, 1, &having_seen(&[(0, 1)])), &counter.observed());
    counter.compact(&having_seen(&[(0, 1)]));
    assert!(!counter.is_empty(), "the reset is not known everywhere");
    let mut twin = counter.clone();
    counter.compact(&having_seen(&[(0, 1), (1, 1)]));
    assert!(counter.is_empty());
    let seen = having_seen(&[(0, 2), (1, 1)]);
    for counter in [&mut counter, &mut twin] {
        counter.add(dot(0, 2), 3);
        let columns = counter.observed();
        assert_eq!(columns, [ResetColumn { origin: origin(0), through: (2, 0), sum: 3 }]);
        counter.add(dot(0, 3), 4);
        counter.reset(&context(2, 1, &seen), &columns);
        assert_eq!(counter.value(), 4);
    }
}

/// Of two resets that end at the same addition one is stable. Who has seen only that one counts from there.
#[test]
fn a_point_beside_a_stable_one_stays_until_it_is_stable_itself() {
    let mut counter = adding(&[(0, 1, 10)]);
    let (seen, columns) = (having_seen(&[(0, 1)]), counter.observed());
    counter.reset(&context(1, 1, &seen), &columns);
    counter.reset(&context(2, 1, &seen), &columns);
    let mut twin = counter.clone();
    counter.compact(&having_seen(&[(0, 1), (2, 1)]));
    counter.compact(&having_seen(&[(0, 1), (1, 1)]));
    let seen = having_seen(&[(0, 2), (1, 1), (2, 1)]);
    for counter in [&mut counter, &mut twin] {
        counter.add(dot(0, 2), 7);
        assert_eq!(counter.value(), 7);
        counter.reset(&context(3, 1, &seen), &counter.observed());
        assert_eq!(counter.value(), 0);
    }
}

/// Were it ignored where the column has not got that far yet, replicas would differ for ever.
#[test]
fn a_reset_beyond_what_there_is_works_alike_before_and_after_what_it_names() {
    let nothing = Frontier::new();
    let lie = [ResetColumn { origin: origin(0), through: (2, 0), sum: 3 }];
    let mut early = ResettableCounter::new();
    early.reset(&context(1, 1, &nothing), &lie);
    assert_eq!((early.value(), early.is_live()), (0, false));
    early.add(dot(0, 1), 1);
    early.add(dot(0, 2), 2);
    let mut late = adding(&[(0, 1, 1), (0, 2, 2)]);
    late.reset(&context(1, 1, &nothing), &lie);
    assert_eq!(early, late);
    assert!(!early.is_live());
    early.add(dot(0, 3), 4);
    assert_eq!(early.value(), 4);
}

#[test]
fn a_reset_of_nothing_leaves_no_trace() {
    let mut counter = ResettableCounter::new();
    assert_eq!(counter.observed(), []);
    counter.reset(&context(0, 1, &Frontier::new()), &[]);
    counter.reset(
        &context(0, 2, &Frontier::new()),
        &[ResetColumn { origin: origin(1), through: (0, 0), sum: 9 }],
    );
    assert!(counter.is_empty());
}

#[test]
fn columns_and_points_out_of_order_or_without_content_do_not_decode() {
    let steps = |steps: &[At], out: &mut Writer| {
        for (seq, index) in steps {
            out.varint(*seq);
            out.varint(u64::from(*index));
        }
    };
    let column = |replica: usize, start: At, points: &[(At, u64)]| {
        let mut out = Writer::new();
        out.bytes(&origin(replica).0);
        steps(&[start, (4, 0)], &mut out);
        out.varint_wide_signed(0);
        out.varint(points.len() as u64);
        for (at, seq) in points {
            steps(&[*at], &mut out);
            context(2, *seq, &Frontier::new()).place().encode(&mut out);
            out.varint_wide_signed(1);
        }
        out.finish()
    };
    let decode = |columns: &[Vec<u8>]| {
        let encoded = [vec![columns.len() as u8], columns.concat()].concat();
        ResettableCounter::decode(&mut Reader::new(&encoded)).map(|_| ())
    };
    let (columns, points) = (
        Err(DecodeError::NotCanonical { what: "columns" }),
        Err(DecodeError::NotCanonical { what: "points" }),
    );
    assert_eq!(decode(&[column(1, (1, 0), &[((2, 0), 1), ((2, 0), 2), ((3, 0), 1)])]), Ok(()));
    assert_eq!(decode(&[column(1, (1, 0), &[]), column(0, (1, 0), &[])]), Ok(()));
    assert_eq!(decode(&[column(0, (1, 0), &[]), column(1, (1, 0), &[])]), columns);
    assert_eq!(decode(&[column(1, (1, 0), &[]), column(1, (1, 0), &[])]), columns);
    assert_eq!(decode(&[column(1, (4, 0), &[])]), columns, "a column that is spent");
    assert_eq!(decode(&[column(1, (2, 0), &[((2, 0), 1)])]), Ok(()));
    assert_eq!(decode(&[column(1, (2, 1), &[((2, 0), 1)])]), points, "a point that is forgotten");
    assert_eq!(decode(&[column(1, (1, 0), &[((3, 0), 1), ((2, 0), 1)])]), points);
    assert_eq!(decode(&[column(1, (1, 0), &[((2, 0), 1), ((2, 0), 1)])]), points);
}
