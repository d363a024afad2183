//! Histories of an honest store are accepted, and each anomaly that is put into them is found.

use std::collections::BTreeMap;
use std::time::Instant;

use comity_history::{
    Anomaly, History, Operation, Outcome, Pattern, Place, Summary, check, is_causal_by_brute_force,
};

/// SplitMix64.
struct Random(u64);

/// What to simulate.
#[derive(Clone, Copy)]
struct Plan {
    sessions: usize,
    replicas: usize,
    keys: u32,
    operations: usize,
    /// Of a hundred writes, how many get no reply.
    lost: u64,
    /// What is recorded of those.
    outcome: Outcome,
}

/// By replica, how many of its writes.
type Clock = Vec<u64>;

/// What a replica has: some writes, and all in the causal past of these.
#[derive(Clone, Default)]
struct State {
    clock: Clock,
    /// By key: the values that nothing replaced, with the replica that wrote each and its number there.
    siblings: BTreeMap<u32, Vec<(usize, u64, u64)>>,
}

struct Store {
    random: Random,
    plan: Plan,
    replicas: Vec<State>,
    /// By session, its token.
    sessions: Vec<Clock>,
    history: History,
    values: u64,
}

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn percent(&mut self, chance: u64) -> bool {
        (self.below(100) as u64) < chance
    }
}

impl State {
    fn new(replicas: usize) -> Self {
        Self { clock: vec![0; replicas], siblings: BTreeMap::new() }
    }

    fn covers(&self, clock: &Clock) -> bool {
        self.clock.iter().zip(clock).all(|(mine, other)| mine >= other)
    }

    fn merge(&mut self, other: &Self) {
        for (key, others) in &other.siblings {
            let mine = self.siblings.entry(*key).or_default();
            if mine == others {
                continue;
            }
            let is_new = |one: &(usize, u64, u64)| one.1 > self.clock[one.0];
            let new: Vec<_> = others.iter().filter(|one| is_new(one)).copied().collect();
            mine.retain(|one| others.contains(one) || one.1 > other.clock[one.0]);
            mine.extend(new);
        }
        for (mine, other) in self.clock.iter_mut().zip(&other.clock) {
            *mine = (*mine).max(*other);
        }
    }

    fn values(&self, key: u32) -> Vec<u64> {
        self.siblings.get(&key).into_iter().flatten().map(|sibling| sibling.2).collect()
    }
}

impl Store {
    fn new(seed: u64, plan: Plan) -> Self {
        Self {
            random: Random(seed),
            plan,
            replicas: vec![State::new(plan.replicas); plan.replicas],
            sessions: vec![vec![0; plan.replicas]; plan.sessions],
            history: History { sessions: vec![Vec::new(); plan.sessions] },
            values: 0,
        }
    }

    fn run(seed: u64, plan: Plan) -> History {
        let mut store = Self::new(seed, plan);
        store.steps(plan.operations);
        store.history
    }

    fn steps(&mut self, operations: usize) {
        for _ in 0..operations {
            self.step();
        }
    }

    fn step(&mut self) {
        let session = self.random.below(self.plan.sessions);
        let moves = self.random.percent(20);
        let replica =
            if moves { self.random.below(self.plan.replicas) } else { session % self.plan.replicas };
        let key = self.random.below(self.plan.keys as usize) as u32;
        if self.random.percent(20) {
            let other = self.random.below(self.plan.replicas);
            self.gossip(other, replica);
        }
        if self.random.percent(50) {
            self.read(session, replica, key);
        } else {
            let lost = self.random.percent(self.plan.lost);
            self.write(session, replica, key, if lost { self.plan.outcome } else { Outcome::Acknowledged });
        }
    }

    /// What the replica shows to the session.
    fn show(&mut self, session: usize, replica: usize, key: u32) -> Vec<u64> {
        while !self.replicas[replica].covers(&self.sessions[session]) {
            let other = self.random.below(self.plan.replicas);
            self.gossip(other, replica);
        }
        self.replicas[replica].values(key)
    }

    fn read(&mut self, session: usize, replica: usize, key: u32) -> Vec<u64> {
        let values = self.show(session, replica, key);
        self.sessions[session] = self.replicas[replica].clock.clone();
        self.record(session, Operation::Read { key, values: values.clone() });
        values
    }

    fn write(&mut self, session: usize, replica: usize, key: u32, outcome: Outcome) -> u64 {
        let value = self.fresh();
        let seen = self.show(session, replica, key);
        if outcome == Outcome::Acknowledged || self.random.percent(50) {
            let state = &mut self.replicas[replica];
            state.clock[replica] += 1;
            state.siblings.insert(key, vec![(replica, state.clock[replica], value)]);
        }
        if outcome == Outcome::Acknowledged {
            self.sessions[session] = self.replicas[replica].clock.clone();
        }
        let replaced = if outcome == Outcome::Unstated { Vec::new() } else { seen };
        self.record(session, Operation::Write { key, value, replaced, outcome });
        value
    }

    fn gossip(&mut self, from: usize, to: usize) {
        let state = std::mem::take(&mut self.replicas[from]);
        if from != to {
            self.replicas[to].merge(&state);
        }
        self.replicas[from] = state;
    }

    /// Records an operation, whether it is true or not, and tells where.
    fn record(&mut self, session: usize, operation: Operation) -> Place {
        self.history.sessions[session].push(operation);
        Place { session, index: self.history.sessions[session].len() - 1 }
    }

    fn fresh(&mut self) -> u64 {
        self.values += 1;
        self.values
    }
}

const PLAN: Plan =
    Plan { sessions: 6, replicas: 4, keys: 3, operations: 400, lost: 0, outcome: Outcome::Unknown };

fn accepted(history: &History) -> Summary {
    check(history).unwrap_or_else(|anomaly| panic!("{anomaly}\n{history}"))
}

#[test]
fn what_an_honest_store_does_is_accepted() {
    for seed in 0..50 {
        let summary = accepted(&Store::run(seed, PLAN));
        assert_eq!((summary.sessions, summary.reads + summary.writes), (6, 400));
        assert_eq!((summary.unseen, summary.excused), (0, 0));
        assert!(summary.edges > 400);
    }
}

#[test]
fn writes_without_a_reply_are_accepted_whether_they_happened_or_not() {
    let mut unseen = 0;
    for seed in 0..50 {
        let summary = accepted(&Store::run(seed, Plan { lost: 30, ..PLAN }));
        assert_eq!(summary.excused, 0);
        unseen += summary.unseen;
        accepted(&Store::run(seed, Plan { lost: 30, outcome: Outcome::Unstated, ..PLAN }));
        accepted(&Store::run(seed, Plan { lost: 3, outcome: Outcome::Unstated, ..PLAN }));
    }
    assert!(unseen > 50);
}

#[test]
fn a_large_history_is_accepted() {
    let plan = Plan { sessions: 32, replicas: 8, keys: 50, operations: 100_000, lost: 2, ..PLAN };
    for (outcome, operations) in [(Outcome::Unknown, 100_000), (Outcome::Unstated, 10_000)] {
        let history = Store::run(1, Plan { outcome, operations, ..plan });
        let start = Instant::now();
        let summary = accepted(&history);
        println!("{operations} operations in {:?}: {summary}", start.elapsed());
        assert_eq!(summary.reads + summary.writes, operations);
    }
}

/// Puts something that cannot be into the middle of what an honest store does, and returns what the checker
/// says. `lie` tells which operation shows it, of the keys from 1000, which are untouched otherwise; for most,
/// a read or a write may show it.
fn injected(seed: u64, lie: impl Fn(&mut Store) -> (Place, Vec<u64>)) -> (Anomaly, Place, Vec<u64>) {
    let mut store = Store::new(seed, Plan { lost: 10, ..PLAN });
    store.steps(200);
    let (place, values) = lie(&mut store);
    store.steps(200);
    let anomaly = check(&store.history).expect_err("an anomaly was put in");
    (anomaly, place, values)
}

/// Injects many times, shown by a read and by what a write replaced.
fn assert_found(pattern: Pattern, lie: impl Fn(&mut Store, Show) -> (Place, Vec<u64>)) {
    for seed in 0..20 {
        for show in [Store::show_by_read, Store::show_by_write] {
            let (anomaly, at, values) = injected(seed, |store| lie(store, show));
            assert_eq!((anomaly.pattern, anomaly.at), (pattern, at), "{anomaly}");
            assert_eq!(anomaly.values, values, "{anomaly}");
        }
    }
}

/// Records that a session saw these values of a key.
type Show = fn(&mut Store, usize, u32, Vec<u64>) -> Place;

impl Store {
    fn show_by_read(&mut self, session: usize, key: u32, values: Vec<u64>) -> Place {
        self.record(session, Operation::Read { key, values })
    }

    fn show_by_write(&mut self, session: usize, key: u32, replaced: Vec<u64>) -> Place {
        let value = self.fresh();
        self.record(session, Operation::Write { key, value, replaced, outcome: Outcome::Acknowledged })
    }

    /// Session 0 writes, session 1 sees that and replaces it, session 2 sees what it wrote.
    fn replace(&mut self, key: u32) -> (u64, u64) {
        let old = self.write(0, 0, key, Outcome::Acknowledged);
        self.read(1, 0, key);
        let new = self.write(1, 0, key, Outcome::Acknowledged);
        self.read(2, 0, key);
        (old, new)
    }

    /// Sessions 0 and 1 write without knowing of each other; session 2 sees both values.
    fn diverge(&mut self, key: u32) -> (u64, u64) {
        self.read(0, 0, key);
        self.read(1, 1, key);
        let one = self.write(0, 0, key, Outcome::Acknowledged);
        let other = self.write(1, 1, key, Outcome::Acknowledged);
        self.gossip(1, 0);
        assert_eq!(self.read(2, 0, key).len(), 2);
        (one, other)
    }
}

#[test]
fn a_cycle_is_found() {
    assert_found(Pattern::CyclicCO, |store, show| {
        let (one, other) = (store.fresh(), store.fresh());
        let outcome = Outcome::Acknowledged;
        let at = show(store, 0, 1000, vec![one]);
        store.record(0, Operation::Write { key: 1001, value: other, replaced: Vec::new(), outcome });
        store.record(1, Operation::Read { key: 1001, values: vec![other] });
        store.record(1, Operation::Write { key: 1000, value: one, replaced: Vec::new(), outcome });
        (at, Vec::new())
    });
}

#[test]
fn a_key_without_a_value_after_a_write_is_found() {
    assert_found(Pattern::WriteCOInitRead, |store, show| {
        let value = store.write(0, 0, 1000, Outcome::Acknowledged);
        (show(store, 0, 1000, Vec::new()), vec![value])
    });
    // By way of another key.
    assert_found(Pattern::WriteCOInitRead, |store, show| {
        let value = store.write(0, 0, 1000, Outcome::Acknowledged);
        store.write(0, 0, 1001, Outcome::Acknowledged);
        store.read(1, 0, 1001);
        (show(store, 1, 1000, Vec::new()), vec![value])
    });
}

#[test]
fn a_value_that_was_replaced_is_found() {
    assert_found(Pattern::WriteCORead, |store, show| {
        let (old, new) = store.replace(1000);
        (show(store, 2, 1000, vec![old]), vec![old, new])
    });
    // By way of values that only the writes saw.
    assert_found(Pattern::WriteCORead, |store, show| {
        let old = store.write(0, 0, 1000, Outcome::Acknowledged);
        store.write(1, 0, 1000, Outcome::Acknowledged);
        store.write(2, 0, 1000, Outcome::Acknowledged);
        let new = store.write(3, 0, 1000, Outcome::Acknowledged);
        store.read(4, 0, 1000);
        (show(store, 4, 1000, vec![old]), vec![old, new])
    });
}

#[test]
fn a_value_beside_the_one_that_replaced_it_is_found() {
    assert_found(Pattern::DominatedRead, |store, show| {
        let (old, new) = store.replace(1000);
        (show(store, 2, 1000, vec![new, old]), vec![old, new])
    });
    // To a session that knew of neither.
    assert_found(Pattern::DominatedRead, |store, show| {
        let (old, new) = store.replace(1000);
        (show(store, 5, 1000, vec![new, old]), vec![old, new])
    });
}

#[test]
fn an_omitted_sibling_is_found() {
    assert_found(Pattern::OmittedWrite, |store, show| {
        let (one, other) = store.diverge(1000);
        (show(store, 2, 1000, vec![other]), vec![one])
    });
    // By way of a write that replaced both.
    assert_found(Pattern::OmittedWrite, |store, show| {
        let (one, _) = store.diverge(1000);
        let both = store.write(2, 0, 1000, Outcome::Acknowledged);
        store.record(3, Operation::Read { key: 1000, values: vec![both] });
        store.read(5, 0, 1001);
        let alone = store.fresh();
        let replaced = vec![one];
        let outcome = Outcome::Acknowledged;
        store.record(5, Operation::Write { key: 1000, value: alone, replaced, outcome });
        (show(store, 3, 1000, vec![alone]), vec![both])
    });
}

#[test]
fn a_value_that_is_there_twice_is_found() {
    assert_found(Pattern::RepeatedValue, |store, show| {
        let value = store.write(0, 0, 1000, Outcome::Acknowledged);
        (show(store, 0, 1000, vec![value, value]), vec![value])
    });
}

#[test]
fn a_value_that_was_written_twice_is_found() {
    let (anomaly, at, values) = injected(0, |store| {
        let value = store.write(0, 0, 1000, Outcome::Acknowledged);
        let outcome = Outcome::Unknown;
        (store.record(1, Operation::Write { key: 1001, value, replaced: Vec::new(), outcome }), vec![value])
    });
    assert_eq!((anomaly.pattern, anomaly.at, anomaly.values), (Pattern::WrittenTwice, at, values));
}

#[test]
fn a_value_out_of_thin_air_is_found() {
    assert_found(Pattern::ThinAirRead, |store, show| (show(store, 3, 1000, vec![999_999]), vec![999_999]));
    assert_found(Pattern::ThinAirRead, |store, show| {
        let elsewhere = store.write(0, 0, 1000, Outcome::Acknowledged);
        (show(store, 0, 1001, vec![elsewhere]), vec![elsewhere])
    });
}

/// Changes what one operation saw.
fn tamper(history: &mut History, random: &mut Random) {
    let sessions = history.sessions.len();
    let operations = &mut history.sessions[random.below(sessions)];
    if operations.is_empty() {
        return;
    }
    let at = random.below(operations.len());
    let (Operation::Write { replaced: seen, .. } | Operation::Read { values: seen, .. }) =
        &mut operations[at];
    let value = 1 + random.below(8) as u64;
    match seen.iter().position(|&one| one == value) {
        Some(at) => drop(seen.remove(at)),
        None if seen.is_empty() || random.percent(50) => seen.push(value),
        None => drop(seen.pop()),
    }
}

#[test]
fn tampered_histories_are_judged_as_by_brute_force() {
    let mut verdicts = [0; 2];
    for seed in 0..2000 {
        let mut random = Random(seed);
        let outcome = if random.percent(50) { Outcome::Unknown } else { Outcome::Unstated };
        let (sessions, keys) = (2 + random.below(3), 1 + random.below(2) as u32);
        let plan = Plan { sessions, replicas: 3, keys, operations: 7, lost: 30, outcome };
        let mut history = Store::run(seed, plan);
        for _ in 0..random.below(4) {
            tamper(&mut history, &mut random);
        }
        let verdict = check(&history);
        match (is_causal_by_brute_force(&history), &verdict) {
            (true, Ok(_)) => verdicts[0] += 1,
            (false, Err(_)) => verdicts[1] += 1,
            (causal, _) => panic!("seed {seed} is causal: {causal}, and judged {verdict:?}\n{history}"),
        }
    }
    assert!(verdicts[0] > 300 && verdicts[1] > 300);
}
