//! The world: one queue of happenings in the order of their times, and everything that they touch.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use comity_crdts::Nonce;
use comity_engine::{
    Class, Engine, Freeze, Input, Notice, Now, Output, SessionId, Settled, SnapshotAnswer, SnapshotTask,
    Store, StoreError,
};

use crate::calm::Copies;
use crate::clients::Client;
use crate::decay::Decayed;
use crate::disk::View;
use crate::enrolment::Enrolment;
use crate::network::{Connection, Link};
use crate::node::{Node, Waiting};
use crate::observer::Observer;
use crate::oracle::{Oracle, Violation};
use crate::plan::{FaultClass, Plan};
use crate::promises::Operations;
use crate::random::{Dice, Domain, mix};
use crate::reference::Deed;
use crate::roster::Statement;
#[cfg(doc)]
use crate::topology::Topology;
use crate::truth::{Counts, Truth, WriteRef};

/// More outputs of one input than this are no bounded work.
const OUTPUTS_MAX: usize = 100_000;

/// More than this at one moment is a world that does not go on.
const AT_ONCE_MAX: u32 = 1_000_000;

/// Something that comes due.
#[derive(Debug)]
pub(crate) enum Happening {
    /// An event of the plan.
    Planned(usize),
    /// A client goes on with an event after its token was reached.
    Resume {
        event: usize,
        node: usize,
        boot: u32,
        seen: Counts,
    },
    /// A writer that waited for others to follow writes.
    Room {
        event: usize,
        node: usize,
        boot: u32,
    },
    Frame {
        session: u64,
        end: usize,
        frame: Vec<u8>,
    },
    Opened {
        session: u64,
        end: usize,
    },
    Closed {
        session: u64,
        end: usize,
    },
    Dial {
        link: usize,
    },
    Sync {
        node: usize,
        boot: u32,
        through: u64,
    },
    Settled {
        node: usize,
        boot: u32,
        result: Result<Box<Settled>, StoreError>,
    },
    Snapshot {
        node: usize,
        boot: u32,
        answer: Box<SnapshotAnswer>,
    },
    Wake {
        node: usize,
        boot: u32,
    },
    Start {
        node: usize,
    },
    Crash {
        node: usize,
        boot: u32,
        down_us: u64,
    },
    Enrol {
        enrolment: usize,
    },
    /// A process that stood still goes on, unless it is to stand still for longer.
    GoOn {
        node: usize,
    },
}

struct Due {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What was done in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Reads and transactions that clients asked for and that were carried out.
    pub operations: u64,
    /// Of those, transactions.
    pub writes: u64,
    /// Transactions that were not made, because they had been under the same operation id.
    pub repeated: u64,
    /// Reads that showed what others had.
    pub fresh: u64,
    /// Transactions acknowledged.
    pub acknowledged: u64,
    /// Operations that were not carried out: the replica was down, failed, or behind the client's token.
    pub refused: u64,
    /// States that were taken over.
    pub installed: u64,
    /// Entries that were let go of.
    pub dropped: u64,
    /// Faults that took place.
    pub faults: u64,
    /// Processes started.
    pub starts: u64,
    /// Frames sent.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often readers' state was compared with the reference model, object by object.
    pub comparisons: u64,
    /// How often what replicas say of lag was held against the truth, apart from when all was calm.
    pub lag_checks: u64,
    /// Writers that waited for others to follow, in vain.
    pub throttled: u64,
    /// Rows that changed by themselves and were found by audits.
    pub decayed: u64,
    /// Of these, rows that peers sent because the log was shortened.
    pub lent: u64,
    /// What was received in calm, by [`Topology`].
    pub copies: [Copies; 6],
    /// Simulated time, microseconds.
    pub virtual_us: u64,
    /// Simulated time summed over replicas, microseconds.
    pub replica_us: u64,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.writes += other.writes;
        self.repeated += other.repeated;
        self.fresh += other.fresh;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.installed += other.installed;
        self.dropped += other.dropped;
        self.faults += other.faults;
        self.starts += other.starts;
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.comparisons += other.comparisons;
        self.lag_checks += other.lag_checks;
        self.throttled += other.throttled;
        self.decayed += other.decayed;
        self.lent += other.lent;
        self.copies.iter_mut().zip(other.copies).for_each(|(copies, other)| copies.add(other));
        self.virtual_us += other.virtual_us;
        self.replica_us += other.replica_us;
    }
}

/// Everything at once, run by one thread.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    /// When the preparations ended.
    pub(crate) origin: u64,
    queue: BinaryHeap<Reverse<Due>>,
    orders: u64,
    /// What has happened at the present moment.
    at_once: u32,
    /// Frames, handshakes and syncs in the queue.
    pub(crate) under_way: usize,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) sessions: u64,
    /// Until when nothing gets from one replica to another.
    pub(crate) cuts: BTreeMap<(usize, usize), u64>,
    pub(crate) truth: Truth,
    /// Who may hold each space.
    pub(crate) members: Vec<BTreeSet<usize>>,
    pub(crate) clients: BTreeMap<(u16, usize), Client>,
    pub(crate) operations: Operations,
    pub(crate) enrolments: Vec<Enrolment>,
    /// What was said about members, in the order in which it was said.
    pub(crate) statements: Vec<Statement>,
    /// Who has left which space for good.
    pub(crate) left: BTreeSet<(usize, usize)>,
    pub(crate) observer: Option<Observer>,
    /// Whether the plan has faults after which a lane may have two contents.
    pub(crate) may_fork: bool,
    /// Whether the plan has peers that do wrong.
    pub(crate) may_lie: bool,
    /// Frames of earlier connections, for whoever replays them.
    pub(crate) recorded: Vec<(Class, Vec<u8>)>,
    /// A row that is not what was written.
    pub(crate) decayed: Option<Decayed>,
    /// Whoever starts from now on compares nothing.
    pub(crate) audits_over: bool,
    pub(crate) trace: u64,
    pub(crate) tally: Tally,
    /// Everybody runs the newest build from the next start on.
    pub(crate) is_upgraded: bool,
    /// Is told of everything that happens, if somebody wants to read it.
    pub(crate) log: Option<Log>,
}

/// Takes one line of what happens.
pub(crate) type Log = fn(&str);

impl World {
    pub(crate) fn new(plan: Plan, log: Option<Log>) -> Self {
        Self {
            log,
            is_upgraded: false,
            may_fork: plan.has(FaultClass::Rollback),
            may_lie: plan.has(FaultClass::Tamper),
            observer: plan.observed.then(Observer::default),
            plan,
            now: 0,
            origin: 0,
            queue: BinaryHeap::new(),
            orders: 0,
            at_once: 0,
            under_way: 0,
            nodes: Vec::new(),
            links: Vec::new(),
            connections: BTreeMap::new(),
            sessions: 0,
            cuts: BTreeMap::new(),
            truth: Truth::default(),
            members: Vec::new(),
            clients: BTreeMap::new(),
            operations: Operations::new(),
            enrolments: Vec::new(),
            statements: Vec::new(),
            left: BTreeSet::new(),
            recorded: Vec::new(),
            decayed: None,
            audits_over: false,
            trace: 0,
            tally: Tally::default(),
        }
    }

    pub(crate) fn dice(&self, domain: Domain, entity: u64, index: u64) -> Dice {
        Dice::keyed(self.plan.seed, domain, entity, index)
    }

    pub(crate) fn violation(&self, oracle: Oracle, detail: impl Into<String>) -> Violation {
        Violation { oracle, detail: detail.into(), at_us: self.now }
    }

    /// Makes something happen at a time, or now when that has passed.
    pub(crate) fn at(&mut self, at: u64, what: Happening) {
        self.under_way += usize::from(what.is_under_way());
        self.orders += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), order: self.orders, what }));
    }

    /// Makes what was put off happen now, in its old place among everything that is due now.
    pub(crate) fn resume_at_once(&mut self, order: u64, what: Happening) {
        self.under_way += usize::from(what.is_under_way());
        self.queue.push(Reverse(Due { at: self.now, order, what }));
    }

    /// Lets what is due next happen, unless that is later than `until`.
    pub(crate) fn step(&mut self, until: u64) -> Result<bool, Violation> {
        if self.queue.peek().is_none_or(|Reverse(due)| due.at > until) {
            self.now = self.now.max(until);
            return Ok(false);
        }
        let Some(Reverse(due)) = self.queue.pop() else { return Ok(false) };
        self.at_once = if due.at == self.now { self.at_once + 1 } else { 0 };
        if self.at_once > AT_ONCE_MAX {
            return Err(self.violation(Oracle::Robustness, format!("time stands still with {:?}", due.what)));
        }
        self.now = due.at;
        self.under_way -= usize::from(due.what.is_under_way());
        if let Some(node) = due.what.node(self)
            && self.nodes[node].paused_until > self.now
        {
            self.nodes[node].deferred.push((due.order, due.what));
            return Ok(true);
        }
        self.happen(due.what)?;
        Ok(true)
    }

    /// Writes a line about what happens.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(log) = self.log {
            log(&format!("{:>14} µs  {}", self.now, line()));
        }
    }

    /// Lets everything happen that is due until a time.
    pub(crate) fn run_until(&mut self, until: u64) -> Result<(), Violation> {
        while self.step(until)? {}
        Ok(())
    }

    fn happen(&mut self, what: Happening) -> Result<(), Violation> {
        match what {
            Happening::Planned(index) => self.planned(index),
            Happening::Resume { event, node, boot, seen } if self.nodes[node].boot == boot => {
                self.resume(event, node, &seen)
            }
            Happening::Room { event, node, boot } if self.nodes[node].boot == boot => {
                self.write_in_room(event, node)
            }
            Happening::Frame { session, end, frame } => self.arrive(session, end, frame),
            Happening::Opened { session, end } => self.opened(session, end),
            Happening::Closed { session, end } => self.closed(session, end),
            Happening::Dial { link } => {
                self.dial(link);
                Ok(())
            }
            Happening::Settled { node, boot, result } if self.nodes[node].boot == boot => {
                self.input(node, Input::Settled { result })
            }
            Happening::Snapshot { node, boot, answer } if self.nodes[node].boot == boot => {
                self.input(node, Input::Snapshot { answer: *answer })
            }
            Happening::Sync { node, boot, through } if self.nodes[node].boot == boot => {
                self.sync(node, through)
            }
            Happening::Wake { node, boot } if self.nodes[node].boot == boot => self.wake(node),
            Happening::Start { node } => self.start(node),
            Happening::Crash { node, boot, down_us } if self.nodes[node].boot == boot => {
                self.crash(node, down_us, true)
            }
            Happening::Enrol { enrolment } => self.enrol(enrolment),
            Happening::GoOn { node } => {
                self.go_on(node);
                Ok(())
            }
            Happening::Resume { .. }
            | Happening::Room { .. }
            | Happening::Sync { .. }
            | Happening::Settled { .. }
            | Happening::Snapshot { .. }
            | Happening::Wake { .. }
            | Happening::Crash { .. } => Ok(()),
        }
    }

    fn wake(&mut self, node: usize) -> Result<(), Violation> {
        self.nodes[node].wake = None;
        self.input(node, Input::DeadlineReached)
    }

    /// Hands a core what happened and does what it asks for.
    pub(crate) fn input(&mut self, node: usize, input: Input) -> Result<(), Violation> {
        let called = self.call(node, |engine, now, store| engine.handle(now, input, store))?;
        if let Some((_, fresh)) = called {
            self.note_appended(node, &fresh, None)?;
            self.drain(node)?;
        }
        Ok(())
    }

    /// The fresh bits of the next call of a core.
    pub(crate) fn fresh(&self, node: usize) -> Nonce {
        let mut dice = self.dice(Domain::Fresh, node as u64, self.nodes[node].calls);
        let mut fresh = [0; 16];
        fresh[..8].copy_from_slice(&dice.roll().to_be_bytes());
        fresh[8..].copy_from_slice(&dice.roll().to_be_bytes());
        Nonce(fresh)
    }

    /// Calls a core, if it runs. Returns the fresh bits of the call as well.
    pub(crate) fn call<R>(
        &mut self,
        node: usize,
        f: impl FnOnce(&mut Engine, &Now, &mut dyn Store) -> R,
    ) -> Result<Option<(R, Nonce)>, Violation> {
        let fresh = self.fresh(node);
        let target = &mut self.nodes[node];
        let (monotonic, wall_ms) = (target.monotonic(self.now), target.wall_ms(self.now));
        let now = Now { monotonic, wall_ms, fresh };
        let Some(engine) = &mut target.engine else { return Ok(None) };
        target.calls += 1;
        let disk = &mut target.disk;
        match catch_unwind(AssertUnwindSafe(|| f(engine, &now, disk))) {
            Ok(result) => Ok(Some((result, now.fresh))),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let text = text.unwrap_or_else(|| "a panic without a message".to_owned());
                Err(self.violation(Oracle::Robustness, format!("replica {node} panicked: {text}")))
            }
        }
    }

    /// Does what a core asks for.
    pub(crate) fn drain(&mut self, node: usize) -> Result<(), Violation> {
        let mut count = 0;
        while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll_output) {
            count += 1;
            if count > OUTPUTS_MAX {
                return Err(self.violation(Oracle::Robustness, format!("replica {node} asks without end")));
            }
            match output {
                Output::Reply { request, reply } => {
                    self.trace = mix(self.trace, &request.0.to_le_bytes());
                    self.replied(node, request.0, reply)?;
                }
                Output::SendFrame { session: SessionId(session), class, frame } => {
                    self.send(node, session, class, frame)?;
                }
                Output::CloseSession { session: SessionId(session), reason } => {
                    self.closed_by(node, session, reason)?;
                }
                Output::RequestSync => {
                    let (boot, through) = (self.nodes[node].boot, self.nodes[node].disk.committed());
                    let mut dice = self.dice(Domain::Disk, node as u64, self.nodes[node].calls);
                    let (least, most) = self.plan.sync_us;
                    let at = self.now + dice.between(least, most);
                    self.at(at, Happening::Sync { node, boot, through });
                }
                Output::Settle { space, object } => {
                    let boot = self.nodes[node].boot;
                    let view = self.nodes[node].disk.view();
                    let result = comity_engine::settle(view.as_ref(), &space, &object);
                    let mut dice = self.dice(Domain::Disk, node as u64, self.nodes[node].calls);
                    let (least, most) = self.plan.sync_us;
                    let at = self.now + dice.between(least, most);
                    self.at(at, Happening::Settled { node, boot, result });
                }
                Output::Snapshot(task) => self.snapshot(node, task),
                Output::Notify(notice) => self.noticed(node, notice)?,
            }
        }
        self.plan_wake(node);
        Ok(())
    }

    /// Does what a core wants done with snapshots, one thing after the other.
    fn snapshot(&mut self, node: usize, task: SnapshotTask) {
        let mut dice = self.dice(Domain::Disk, node as u64, self.nodes[node].calls);
        let (least, most) = self.plan.sync_us;
        let target = &mut self.nodes[node];
        let (now, boot) = (target.monotonic(self.now), target.boot);
        let view = View(target.disk.view());
        let answer = target.snapshots.handle(now, task, || Ok(view));
        target.snapshot_at = target.snapshot_at.max(self.now) + dice.between(least, most);
        let at = target.snapshot_at;
        if let Some(answer) = answer {
            self.at(at, Happening::Snapshot { node, boot, answer: Box::new(answer) });
        }
    }

    fn plan_wake(&mut self, node: usize) {
        let target = &self.nodes[node];
        let Some(due) = target.engine.as_ref().and_then(Engine::next_deadline) else { return };
        let at = target.when(due).max(self.now);
        if target.wake.is_none_or(|wake| at < wake) {
            let boot = target.boot;
            self.nodes[node].wake = Some(at);
            self.at(at, Happening::Wake { node, boot });
        }
    }

    fn noticed(&mut self, node: usize, notice: Notice) -> Result<(), Violation> {
        match notice {
            Notice::Applied(applied) => self.announced(node, &applied),
            Notice::Audit(event) => self.audited(node, &event),
            // A founder knows nobody whom only its copy has let in, takes itself to be alone, and lets go of what they lack.
            Notice::Frozen { space, why: Freeze::Late { .. }, .. }
                if self.plan.keeping.is_some() && self.plan.is_copied() =>
            {
                self.nodes[node].reported = true;
                if let Some(space) = self.truth.space(&space) {
                    self.truth.spaces[space].forked = true;
                }
                Ok(())
            }
            Notice::Frozen { .. } => {
                self.nodes[node].reported = true;
                if self.may_fork || self.may_lie {
                    return Ok(());
                }
                Err(self.violation(Oracle::Acceptance, format!("replica {node} froze a lane: {notice:?}")))
            }
            Notice::PartUnfit { .. } if !self.may_fork && !self.may_lie => {
                Err(self.violation(Oracle::Acceptance, format!("replica {node}: {notice:?}")))
            }
            _ => Ok(()),
        }
    }

    /// A number for a request to a core.
    pub(crate) fn request(&mut self, node: usize, waiting: Waiting) -> u64 {
        let target = &mut self.nodes[node];
        target.requests += 1;
        target.waiting.insert(target.requests, waiting);
        target.requests
    }

    /// Takes in what a call wrote to the log. `authored` is what the call was asked to write. Returns that
    /// write, if there is one.
    pub(crate) fn note_appended(
        &mut self,
        node: usize,
        fresh: &Nonce,
        mut authored: Option<(u32, Vec<Deed>)>,
    ) -> Result<Option<WriteRef>, Violation> {
        let mut own = None;
        let written = self.nodes[node].disk.take_written();
        self.note_flips(node, &written);
        for entry in written.entries {
            let write = self.identify(node, fresh, &entry, &mut authored, &mut own)?;
            self.judge_application(node, &entry, write)?;
        }
        self.note_dropped(node, &written.dropped)?;
        Ok(own)
    }
}

impl Happening {
    /// Whether nothing has come to rest while this is due.
    fn is_under_way(&self) -> bool {
        match self {
            Self::Frame { .. } | Self::Opened { .. } | Self::Closed { .. } | Self::Sync { .. } => true,
            Self::Settled { .. } | Self::Snapshot { .. } => true,
            Self::Resume { .. } | Self::Room { .. } | Self::Start { .. } | Self::Crash { .. } => true,
            Self::Planned(_)
            | Self::Wake { .. }
            | Self::Dial { .. }
            | Self::Enrol { .. }
            | Self::GoOn { .. } => false,
        }
    }

    /// The process that takes part in it.
    fn node(&self, world: &World) -> Option<usize> {
        match self {
            Self::Frame { session, end, .. }
            | Self::Opened { session, end }
            | Self::Closed { session, end } => {
                world.connections.get(session).map(|connection| connection.ends[*end])
            }
            Self::Resume { node, .. }
            | Self::Room { node, .. }
            | Self::Sync { node, .. }
            | Self::Wake { node, .. } => Some(*node),
            Self::Settled { node, .. } | Self::Snapshot { node, .. } => Some(*node),
            Self::Planned(_)
            | Self::Dial { .. }
            | Self::Start { .. }
            | Self::Crash { .. }
            | Self::Enrol { .. }
            | Self::GoOn { .. } => None,
        }
    }
}
