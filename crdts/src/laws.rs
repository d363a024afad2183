//! The laws every data type keeps, checked on random executions.
//!
//! An execution is a few replicas that write, exchange change sets in any causal order, receive some again,
//! go through snapshots and adopt one another's. Wall clocks are skewed. Checked throughout:
//!
//! - L1, commutation: two deliverable change sets give the same state in either order.
//! - L2, specification: after every step the state is what a declarative specification says, a function of
//!   the visible operations and happened-before that knows nothing of contexts.
//! - L3, convergence: replicas that have seen the same have the same state and encoding.
//! - L4, exactly-once: whatever arrives again changes nothing.
//! - L6, snapshot: a state that was encoded and decoded goes on like the one it was made from.
//! - L7, reset: resets are among the operations the specifications judge.
//! - L8, canonical encoding: beside each type and in [`assert_canonical`].
//! - L9, bounds: the specifications say exactly which dots are live, hence how much metadata there is.
//!
//! L5, compaction transparency, has no subject: nothing is compacted.

mod counter;
mod register;
mod set;

use std::collections::BTreeSet;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Clock, DecodeError, Dot, Frontier, Hlc, OriginId, Reader, Writer};

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

    fn write(state: &Self::State, intent: &Self::Intent, now: Hlc) -> Self::Op;
    fn apply(state: &mut Self::State, dot: Dot, op: &Self::Op);
    fn encode(state: &Self::State, out: &mut Writer);
    fn decode(reader: &mut Reader<'_>) -> Result<Self::State, DecodeError>;
    /// Asserts that `state` is what the specification makes of the visible events.
    fn assert_specification(state: &Self::State, visible: &[&Event<Self>]);
}

/// One operation, known by its place in the execution.
struct Event<L: Law + ?Sized> {
    id: usize,
    dot: Dot,
    /// Every event its author had seen.
    past: BTreeSet<usize>,
    intent: L::Intent,
    op: L::Op,
}

impl<L: Law> Event<L> {
    fn happened_before(&self, other: &Self) -> bool {
        other.past.contains(&self.id)
    }
}

struct ChangeSet {
    origin: usize,
    seq: u64,
    /// The stamp of its last event.
    hlc: Hlc,
    events: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Step<I> {
    Write { replica: usize, intents: Vec<I> },
    Deliver { replica: usize, choice: prop::sample::Index },
    DeliverAgain { replica: usize, choice: prop::sample::Index },
    Snapshot { replica: usize },
    Adopt { from: usize, to: usize },
    Pass { millis: u64 },
}

fn steps<I: Clone + Debug + 'static>(
    intent: impl Strategy<Value = I> + 'static,
) -> impl Strategy<Value = Vec<Step<I>>> {
    let replica = || 0..REPLICAS_MAX;
    let choice = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (replica(), vec(intent, 1..3)).prop_map(|(replica, intents)| Step::Write { replica, intents }),
        6 => (replica(), choice()).prop_map(|(replica, choice)| Step::Deliver { replica, choice }),
        1 => (replica(), choice()).prop_map(|(replica, choice)| Step::DeliverAgain { replica, choice }),
        1 => replica().prop_map(|replica| Step::Snapshot { replica }),
        1 => (replica(), replica()).prop_map(|(from, to)| Step::Adopt { from, to }),
        1 => (0..1_000_u64).prop_map(|millis| Step::Pass { millis }),
    ];
    vec(step, 1..40)
}

struct Replica<L: Law> {
    state: L::State,
    frontier: Frontier,
    seen: BTreeSet<usize>,
    clock: Clock,
    skew_ms: u64,
}

struct Execution<L: Law> {
    replicas: Vec<Replica<L>>,
    events: Vec<Event<L>>,
    sent: Vec<ChangeSet>,
    now_ms: u64,
}

fn origin(replica: usize) -> OriginId {
    // Descending, so that the order of origins is not the order of creation.
    OriginId([200 - replica as u8; 16])
}

/// Runs `steps` on three or four replicas, delivers what is left, and checks every law on the way.
fn run<L: Law>(skews_ms: &[u64], steps: Vec<Step<L::Intent>>) {
    let replicas = skews_ms.iter().map(|skew_ms| Replica {
        state: L::State::default(),
        frontier: Frontier::new(),
        seen: BTreeSet::new(),
        clock: Clock::default(),
        skew_ms: *skew_ms,
    });
    let mut execution =
        Execution::<L> { replicas: replicas.collect(), events: Vec::new(), sent: Vec::new(), now_ms: 1 };
    for step in steps {
        execution.step(step);
    }
    for replica in 0..execution.replicas.len() {
        // From the back, so that replicas finish in orders of their own.
        while let Some(next) = execution.deliverable(replica).pop() {
            execution.deliver(replica, next);
        }
        assert_eq!(execution.replicas[replica].seen.len(), execution.events.len());
    }
    execution.assert_convergence();
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
        }
        self.assert_convergence();
    }

    fn write(&mut self, replica: usize, intents: &[L::Intent]) {
        let author = &mut self.replicas[replica];
        let seq = author.frontier.at(&origin(replica)) + 1;
        let mut events = Vec::new();
        for (index, intent) in intents.iter().enumerate() {
            let dot = Dot { origin: origin(replica), seq, index: index as u16 };
            let now = author.clock.tick(self.now_ms + author.skew_ms);
            let op = L::write(&author.state, intent, now);
            L::apply(&mut author.state, dot, &op);
            let id = self.events.len();
            self.events.push(Event { id, dot, past: author.seen.clone(), intent: intent.clone(), op });
            author.seen.insert(id);
            events.push(id);
        }
        author.frontier.advance(origin(replica), seq);
        let hlc = author.clock.last();
        self.sent.push(ChangeSet { origin: replica, seq, hlc, events });
        self.assert_specification(replica);
    }

    /// The change sets that causal delivery allows next at `replica`.
    fn deliverable(&self, replica: usize) -> Vec<usize> {
        let Replica { frontier, seen, .. } = &self.replicas[replica];
        let ready = |set: &ChangeSet| {
            frontier.at(&origin(set.origin)) < set.seq && self.events[set.events[0]].past.is_subset(seen)
        };
        (0..self.sent.len()).filter(|sent| ready(&self.sent[*sent])).collect()
    }

    fn applied(&self, state: &L::State, sent: usize) -> L::State {
        let mut state = state.clone();
        for event in &self.sent[sent].events {
            L::apply(&mut state, self.events[*event].dot, &self.events[*event].op);
        }
        state
    }

    fn deliver(&mut self, replica: usize, sent: usize) {
        let state = self.applied(&self.replicas[replica].state, sent);
        let receiver = &mut self.replicas[replica];
        let ChangeSet { origin: author, seq, hlc, events } = &self.sent[sent];
        receiver.state = state;
        receiver.seen.extend(events);
        receiver.frontier.advance(origin(*author), *seq);
        receiver.clock.observe(*hlc, self.now_ms + receiver.skew_ms, AHEAD_MS_MAX);
        self.assert_specification(replica);
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
        let (state, frontier, seen) = {
            let Replica { state, frontier, seen, .. } = &self.replicas[from];
            (through_bytes::<L>(state), frontier.clone(), seen.clone())
        };
        let adopter = &mut self.replicas[to];
        if frontier.covers(&adopter.frontier) {
            (adopter.state, adopter.frontier, adopter.seen) = (state, frontier, seen);
            self.assert_specification(to);
        }
    }

    fn assert_specification(&self, replica: usize) {
        let Replica { state, seen, .. } = &self.replicas[replica];
        let visible: Vec<_> = seen.iter().map(|event| &self.events[*event]).collect();
        L::assert_specification(state, &visible);
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
                    assert_eq!(one.state, other.state);
                    assert_eq!(one.frontier, other.frontier);
                    assert_eq!(bytes::<L>(&one.state), bytes::<L>(&other.state));
                }
            }
        }
    }
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
