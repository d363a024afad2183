//! The laws every data type keeps, checked on random executions.
//!
//! An execution is a few replicas that write, exchange lane entries in any causal order, receive some again,
//! announce how far they have come, compact, go through snapshots and adopt one another's. Wall clocks are
//! skewed. Checked throughout:
//!
//! - L1, commutation: two deliverable entries give the same state in either order.
//! - L2, specification: after every step the state is what a declarative specification says, a function of
//!   the visible operations and happened-before that knows nothing of contexts.
//! - L3, convergence: replicas that have seen the same have the same projection; where nothing is compacted
//!   that is the whole state, and its encoding.
//! - L4, exactly-once: whatever arrives again changes nothing.
//! - L5, compaction transparency: beside each replica goes a twin that is never compacted, and the two show
//!   the same after every step. Authors compact before they write, too.
//! - L6, snapshot: a state that was encoded and decoded goes on like the one it was made from.
//! - L7, reset: resets are among the operations the specifications judge.
//! - L8, canonical encoding: beside each type and in [`assert_canonical`].
//! - L9, bounds: the specifications say exactly which dots are live, hence how much metadata there is, and
//!   how little is left once everybody has told everybody.

mod bounded;
mod counter;
mod flag;
mod register;
mod remove_wins;
mod resettable;
mod set;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::{Clock, Context, DecodeError, Dot, Frontier, Hlc, LaneId, OriginId, Place, Reader, Writer};

const REPLICAS_MAX: usize = 4;
/// How far a clock may follow others.
const AHEAD_MS_MAX: u64 = 500;

/// A data type, as the executions see it.
trait Law {
    type State: Clone + Default + PartialEq + Debug;
    /// What a user wants.
    type Intent: Clone + Debug;
    /// What is sent: the intent and what its author had observed.
    type Op: Clone + Debug;
    /// Whether announcements count before everything that stands before them in their lane has arrived.
    const OUT_OF_BAND: bool = false;

    fn write(state: &Self::State, intent: &Self::Intent, x: &Context<'_>, now: Hlc) -> Self::Op;
    fn apply(state: &mut Self::State, x: &Context<'_>, op: &Self::Op);
    fn encode(state: &Self::State, out: &mut Writer);
    fn decode(reader: &mut Reader<'_>) -> Result<Self::State, DecodeError>;
    /// Asserts that `state` is what the specification makes of the visible events.
    fn assert_specification(state: &Self::State, visible: &[&Event<Self>]);

    fn compact(_state: &mut Self::State, _cut: &Frontier) {}
    /// What replicas that have seen the same agree on.
    fn project(state: &Self::State, out: &mut Writer) {
        Self::encode(state, out);
    }
    /// As [`Law::assert_specification`], of a state that was never compacted.
    fn assert_uncompacted(_state: &Self::State, _visible: &[&Event<Self>]) {}
    /// Asserts that nothing but what is shown takes space, all operations being known everywhere.
    fn assert_settled(_state: &Self::State) {}
}

/// One operation, known by its place in the execution.
struct Event<L: Law + ?Sized> {
    id: usize,
    dot: Dot,
    lsn: u64,
    /// Every event its author had seen.
    past: BTreeSet<usize>,
    intent: L::Intent,
    op: L::Op,
}

impl<L: Law> Event<L> {
    fn happened_before(&self, other: &Self) -> bool {
        other.past.contains(&self.id)
    }

    fn place(&self) -> Place {
        Place { dot: self.dot, lane: self.dot.origin, lsn: self.lsn }
    }
}

/// What stands at one position of a replica's lane. Announcements stand between change sets, so positions
/// are not sequence numbers.
struct Entry {
    lane: usize,
    lsn: u64,
    /// What must have arrived before, the lane itself left out.
    context: Frontier,
    /// The stamp of its last event.
    hlc: Hlc,
    content: Content,
}

enum Content {
    ChangeSet(Vec<usize>),
    /// How far the lane's owner had come in all lanes.
    Announcement(Frontier),
}

impl Entry {
    fn events(&self) -> &[usize] {
        match &self.content {
            Content::ChangeSet(events) => events,
            Content::Announcement(_) => &[],
        }
    }

    fn context(&self, dot: Dot) -> Context<'_> {
        Context { dot, frontier: &self.context, lane: origin(self.lane), lsn: self.lsn }
    }
}

#[derive(Clone, Debug)]
enum Step<I> {
    Write {
        replica: usize,
        intents: Vec<I>,
    },
    Deliver {
        replica: usize,
        choice: prop::sample::Index,
    },
    DeliverAgain {
        replica: usize,
        choice: prop::sample::Index,
    },
    Snapshot {
        replica: usize,
    },
    Adopt {
        from: usize,
        to: usize,
    },
    Pass {
        millis: u64,
    },
    Announce {
        replica: usize,
    },
    CatchUp {
        replica: usize,
    },
    /// Everybody but one catches up, announces that, and hears the others' announcements.
    Meet {
        absent: Option<usize>,
    },
    Compact {
        replica: usize,
    },
}

fn steps<I: Clone + Debug + 'static>(
    intent: impl Strategy<Value = I> + 'static,
) -> impl Strategy<Value = Vec<Step<I>>> {
    let replica = || 0..REPLICAS_MAX;
    let choice = any::<prop::sample::Index>;
    let step = prop_oneof![
        6 => (replica(), vec(intent, 1..3)).prop_map(|(replica, intents)| Step::Write { replica, intents }),
        6 => (replica(), choice()).prop_map(|(replica, choice)| Step::Deliver { replica, choice }),
        1 => (replica(), choice()).prop_map(|(replica, choice)| Step::DeliverAgain { replica, choice }),
        1 => replica().prop_map(|replica| Step::Snapshot { replica }),
        1 => (replica(), replica()).prop_map(|(from, to)| Step::Adopt { from, to }),
        1 => (0..1_000_u64).prop_map(|millis| Step::Pass { millis }),
        2 => replica().prop_map(|replica| Step::Announce { replica }),
        2 => replica().prop_map(|replica| Step::CatchUp { replica }),
        3 => prop::option::of(replica()).prop_map(|absent| Step::Meet { absent }),
        6 => replica().prop_map(|replica| Step::Compact { replica }),
    ];
    vec(step, 1..40)
}

struct Replica<L: Law> {
    state: L::State,
    /// Never compacted, otherwise the same.
    twin: L::State,
    frontier: Frontier,
    /// The last announcement of each lane.
    announced: BTreeMap<usize, Frontier>,
    seen: BTreeSet<usize>,
    /// The number of change sets written here.
    seq: u64,
    clock: Clock,
    skew_ms: u64,
    /// Whether it compacts after whatever it does.
    is_eager: bool,
}

struct Execution<L: Law> {
    replicas: Vec<Replica<L>>,
    events: Vec<Event<L>>,
    sent: Vec<Entry>,
    now_ms: u64,
    /// How many compactions left less than there was.
    compactions: usize,
}

fn origin(replica: usize) -> OriginId {
    // Descending, so that the order of origins is not the order of creation.
    OriginId([200 - replica as u8; 16])
}

/// Runs `steps` on three or four replicas, delivers what is left, and checks every law on the way. Returns how
/// many of the compactions among the steps found something to forget.
fn run<L: Law>(skews_ms: &[u64], steps: Vec<Step<L::Intent>>) -> usize {
    let replicas = skews_ms.iter().map(|skew_ms| Replica {
        state: L::State::default(),
        twin: L::State::default(),
        frontier: Frontier::new(),
        announced: BTreeMap::new(),
        seen: BTreeSet::new(),
        seq: 0,
        clock: Clock::default(),
        skew_ms: *skew_ms,
        is_eager: skew_ms % 2 == 1,
    });
    let replicas = replicas.collect();
    let mut execution =
        Execution::<L> { replicas, events: Vec::new(), sent: Vec::new(), now_ms: 1, compactions: 0 };
    for step in steps {
        execution.step(step);
    }
    let compactions = execution.compactions;
    execution.settle();
    compactions
}

/// Checks the laws on `cases` random executions, and that compaction had something to do in them.
fn assert_laws_with_compaction<L: Law>(cases: u32, intent: impl Strategy<Value = L::Intent> + 'static)
where
    L::Intent: 'static,
{
    let compactions = Cell::new(0);
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let outcome = runner.run(&(skews(), steps(intent)), |(skews, steps)| {
        compactions.set(compactions.get() + run::<L>(&skews, steps));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    assert!(compactions.get() > cases as usize / 4, "{} compactions in {cases} runs", compactions.get());
}

/// Whether one of `cases` random executions, the same every time, shows that a law is broken.
fn is_caught<L: Law>(cases: u32, intent: impl Strategy<Value = L::Intent> + 'static) -> bool
where
    L::Intent: 'static,
{
    let config = Config { max_shrink_iters: 0, ..Config::with_cases(cases) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&(skews(), steps(intent)), |(skews, steps)| {
        run::<L>(&skews, steps);
        Ok(())
    });
    matches!(outcome, Err(TestError::Fail(..)))
}

impl<L: Law> Execution<L> {
    fn step(&mut self, step: Step<L::Intent>) {
        let count = self.replicas.len();
        match step {
            Step::Write { replica, intents } => self.write(replica % count, &intents),
            Step::Deliver { replica, choice } => {
                let deliverable = self.deliverable(replica % count);
                if !deliverable.is_empty() {
                    self.assert_commutation(replica % count, &deliverable);
                    self.deliver(replica % count, deliverable[choice.index(deliverable.len())]);
                }
            }
            Step::DeliverAgain { replica, choice } => {
                if !self.sent.is_empty() {
                    self.deliver_again(replica % count, choice.index(self.sent.len()));
                }
            }
            Step::Snapshot { replica } => {
                let replica = &mut self.replicas[replica % count];
                replica.state = through_bytes::<L>(&replica.state);
            }
            Step::Adopt { from, to } => self.adopt(from % count, to % count),
            Step::Pass { millis } => self.now_ms += millis,
            Step::Announce { replica } => self.announce(replica % count),
            Step::CatchUp { replica } => self.catch_up(replica % count),
            Step::Meet { absent } => {
                let present = || (0..count).filter(|replica| Some(*replica) != absent);
                present().for_each(|replica| self.catch_up(replica));
                present().for_each(|replica| self.announce(replica));
                present().for_each(|replica| self.catch_up(replica));
            }
            Step::Compact { replica } => self.compact(replica % count),
        }
        self.assert_convergence();
    }

    fn write(&mut self, replica: usize, intents: &[L::Intent]) {
        let mut entry = self.next_entry(replica, Content::ChangeSet(Vec::new()));
        let author = &mut self.replicas[replica];
        author.seq += 1;
        let mut events = Vec::new();
        for (index, intent) in intents.iter().enumerate() {
            let dot = Dot { origin: origin(replica), seq: author.seq, index: index as u16 };
            let x = entry.context(dot);
            let now = author.clock.tick(self.now_ms + author.skew_ms);
            let op = L::write(&author.state, intent, &x, now);
            L::apply(&mut author.state, &x, &op);
            L::apply(&mut author.twin, &x, &op);
            let (id, past) = (self.events.len(), author.seen.clone());
            self.events.push(Event { id, dot, lsn: entry.lsn, past, intent: intent.clone(), op });
            author.seen.insert(id);
            events.push(id);
        }
        entry.hlc = author.clock.last();
        entry.content = Content::ChangeSet(events);
        self.append(entry);
        self.assert_specification(replica);
        self.compact_if_eager(replica);
    }

    fn announce(&mut self, replica: usize) {
        let frontier = self.replicas[replica].frontier.clone();
        let mut entry = self.next_entry(replica, Content::Announcement(frontier.clone()));
        // Only the order of the lane holds it up.
        entry.context = Frontier::new();
        self.append(entry);
        self.replicas[replica].announced.insert(replica, frontier);
        self.compact_if_eager(replica);
    }

    fn next_entry(&self, replica: usize, content: Content) -> Entry {
        let Replica { frontier, clock, .. } = &self.replicas[replica];
        let lane = origin(replica);
        let context = frontier.iter().filter(|(other, _)| *other != lane).collect();
        Entry { lane: replica, lsn: frontier.at(&lane) + 1, context, hlc: clock.last(), content }
    }

    fn append(&mut self, entry: Entry) {
        self.replicas[entry.lane].frontier.advance(origin(entry.lane), entry.lsn);
        self.sent.push(entry);
    }

    /// The entries that causal delivery allows next at `replica`.
    fn deliverable(&self, replica: usize) -> Vec<usize> {
        let frontier = &self.replicas[replica].frontier;
        let ready = |entry: &Entry| {
            frontier.at(&origin(entry.lane)) + 1 == entry.lsn && frontier.covers(&entry.context)
        };
        (0..self.sent.len()).filter(|sent| ready(&self.sent[*sent])).collect()
    }

    fn applied(&self, state: &L::State, sent: usize) -> L::State {
        let mut state = state.clone();
        for event in self.sent[sent].events() {
            let Event { dot, op, .. } = &self.events[*event];
            L::apply(&mut state, &self.sent[sent].context(*dot), op);
        }
        state
    }

    fn deliver(&mut self, replica: usize, sent: usize) {
        self.assert_sight(replica, sent);
        let state = self.applied(&self.replicas[replica].state, sent);
        let twin = self.applied(&self.replicas[replica].twin, sent);
        let receiver = &mut self.replicas[replica];
        let entry = &self.sent[sent];
        (receiver.state, receiver.twin) = (state, twin);
        receiver.seen.extend(entry.events());
        receiver.frontier.advance(origin(entry.lane), entry.lsn);
        receiver.clock.observe(entry.hlc, self.now_ms + receiver.skew_ms, AHEAD_MS_MAX);
        if let Content::Announcement(frontier) = &entry.content {
            receiver.announced.insert(entry.lane, frontier.clone());
        }
        self.assert_specification(replica);
        self.compact_if_eager(replica);
    }

    fn catch_up(&mut self, replica: usize) {
        // From the back, so that replicas finish in orders of their own.
        while let Some(next) = self.deliverable(replica).pop() {
            self.deliver(replica, next);
        }
    }

    /// What the frontier covers never reaches the state (L4).
    fn deliver_again(&mut self, replica: usize, sent: usize) {
        if self.deliverable(replica).contains(&sent) {
            self.deliver(replica, sent);
        }
        let before = self.replicas[replica].state.clone();
        assert!(!self.deliverable(replica).contains(&sent));
        assert_eq!(self.replicas[replica].state, before);
    }

    /// A replica that is behind takes over another's snapshot.
    fn adopt(&mut self, from: usize, to: usize) {
        let Replica { state, twin, frontier, announced, seen, .. } = &self.replicas[from];
        if !frontier.covers(&self.replicas[to].frontier) {
            return;
        }
        let (state, twin, frontier) = (through_bytes::<L>(state), twin.clone(), frontier.clone());
        let (announced, seen) = (announced.clone(), seen.clone());
        let adopter = &mut self.replicas[to];
        (adopter.state, adopter.twin, adopter.frontier) = (state, twin, frontier);
        (adopter.announced, adopter.seen) = (announced, seen);
        self.assert_specification(to);
    }

    /// What every lane is known here to have reached: a lane without an announcement nothing.
    fn cut(&self, replica: usize) -> Frontier {
        let made = |lane: usize| {
            let announcement = |entry: &Entry| match &entry.content {
                Content::Announcement(frontier) if entry.lane == lane => Some(frontier.clone()),
                Content::Announcement(_) | Content::ChangeSet(_) => None,
            };
            self.sent.iter().rev().find_map(announcement)
        };
        let counted = |lane: usize| match L::OUT_OF_BAND {
            true => made(lane),
            false => self.replicas[replica].announced.get(&lane).cloned(),
        };
        let reached: Vec<_> =
            (0..self.replicas.len()).map(|lane| counted(lane).unwrap_or_default()).collect();
        let least = |lane: &LaneId| reached.iter().map(|frontier| frontier.at(lane)).min().unwrap_or(0);
        reached[0].iter().map(|(lane, _)| (lane, least(&lane))).collect()
    }

    fn compact(&mut self, replica: usize) {
        let cut = self.cut(replica);
        let before = self.replicas[replica].state.clone();
        L::compact(&mut self.replicas[replica].state, &cut);
        if self.replicas[replica].state != before {
            self.compactions += 1;
            self.assert_specification(replica);
        }
    }

    fn compact_if_eager(&mut self, replica: usize) {
        if self.replicas[replica].is_eager {
            self.compact(replica);
        }
    }

    /// Delivers what is left, and tells everybody that everybody has it.
    fn settle(&mut self) {
        for replica in 0..self.replicas.len() {
            self.catch_up(replica);
            assert_eq!(self.replicas[replica].seen.len(), self.events.len());
        }
        self.assert_convergence();
        (0..self.replicas.len()).for_each(|replica| self.announce(replica));
        for replica in 0..self.replicas.len() {
            self.catch_up(replica);
            self.compact(replica);
            L::assert_settled(&self.replicas[replica].state);
        }
        self.assert_convergence();
    }

    fn assert_specification(&self, replica: usize) {
        let Replica { state, twin, seen, .. } = &self.replicas[replica];
        let visible: Vec<_> = seen.iter().map(|event| &self.events[*event]).collect();
        L::assert_specification(state, &visible);
        L::assert_specification(twin, &visible);
        L::assert_uncompacted(twin, &visible);
        assert_eq!(projection::<L>(state), projection::<L>(twin));
    }

    /// A context says of every operation that arrived here whether its author had applied it, and nothing
    /// arrives before what its author had applied.
    fn assert_sight(&self, replica: usize, sent: usize) {
        for event in self.sent[sent].events().iter().map(|event| &self.events[*event]) {
            let x = self.sent[sent].context(event.dot);
            assert_eq!(x.place(), event.place());
            for seen in self.replicas[replica].seen.iter().map(|seen| &self.events[*seen]) {
                assert_eq!(x.sees(&seen.place()), seen.happened_before(event));
            }
            let arrived = |past: &usize| {
                self.replicas[replica].seen.contains(past) || self.sent[sent].events().contains(past)
            };
            assert!(event.past.iter().all(arrived));
        }
    }

    fn assert_commutation(&self, replica: usize, deliverable: &[usize]) {
        let state = &self.replicas[replica].state;
        let [first, .., last] = deliverable else { return };
        let one = self.applied(&self.applied(state, *first), *last);
        let other = self.applied(&self.applied(state, *last), *first);
        assert_eq!(one, other);
        assert_eq!(bytes::<L>(&one), bytes::<L>(&other));
    }

    fn assert_convergence(&self) {
        for (position, one) in self.replicas.iter().enumerate() {
            for other in &self.replicas[..position] {
                if one.seen == other.seen {
                    assert_eq!(one.twin, other.twin);
                    assert_eq!(bytes::<L>(&one.twin), bytes::<L>(&other.twin));
                    assert_eq!(projection::<L>(&one.state), projection::<L>(&other.state));
                }
            }
        }
    }
}

fn projection<L: Law>(state: &L::State) -> Vec<u8> {
    let mut out = Writer::new();
    L::project(state, &mut out);
    out.finish()
}

fn bytes<L: Law>(state: &L::State) -> Vec<u8> {
    let mut out = Writer::new();
    L::encode(state, &mut out);
    out.finish()
}

fn through_bytes<L: Law>(state: &L::State) -> L::State {
    let encoded = bytes::<L>(state);
    let mut reader = Reader::new(&encoded);
    let decoded = L::decode(&mut reader).unwrap();
    reader.finish("state").unwrap();
    assert_eq!(&decoded, state);
    decoded
}

/// Whatever decodes is encoded in exactly one way (L8).
fn assert_canonical<L: Law>(candidate: &[u8]) {
    let mut reader = Reader::new(candidate);
    if let Ok(state) = L::decode(&mut reader) {
        assert_eq!(bytes::<L>(&state), &candidate[..candidate.len() - reader.remaining()]);
    }
}

/// A valid encoding with a byte changed, inserted or cut off, and plain noise.
fn assert_canonical_around<L: Law>(state: &L::State, at: prop::sample::Index, byte: u8, noise: &[u8]) {
    let encoded = bytes::<L>(state);
    assert_canonical::<L>(&encoded);
    assert_canonical::<L>(noise);
    let at = at.index(encoded.len());
    assert_canonical::<L>(&encoded[..at]);
    let mut altered = encoded.clone();
    altered[at] = byte;
    assert_canonical::<L>(&altered);
    altered.clone_from(&encoded);
    altered.insert(at, byte);
    assert_canonical::<L>(&altered);
}

/// The cut, `by` positions further in every lane.
fn further(cut: &Frontier, by: u64) -> Frontier {
    (0..REPLICAS_MAX).map(|replica| (origin(replica), cut.at(&origin(replica)) + by)).collect()
}

/// The cut up to `lsn` in every lane.
fn everywhere(lsn: u64) -> Frontier {
    (0..REPLICAS_MAX).map(|replica| (origin(replica), lsn)).collect()
}

/// The first operation of `replica`'s change set `seq`, which stands at twice that position in its lane, by
/// somebody who had applied `frontier`.
fn context(replica: usize, seq: u64, frontier: &Frontier) -> Context<'_> {
    let dot = Dot { origin: origin(replica), seq, index: 0 };
    Context { dot, frontier, lane: dot.origin, lsn: 2 * seq }
}

/// The lanes' positions of `seen`, change sets as in [`context`].
fn having_seen(seen: &[(usize, u64)]) -> Frontier {
    seen.iter().map(|(replica, seq)| (origin(*replica), 2 * seq)).collect()
}

fn skews() -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![Just(0), 0..5_000_u64], REPLICAS_MAX - 1..=REPLICAS_MAX)
}

fn dots() -> impl Strategy<Value = Dot> {
    (0..REPLICAS_MAX, 0..300_u64, 0..3_u16).prop_map(|(replica, seq, index)| Dot {
        origin: origin(replica),
        seq,
        index,
    })
}
