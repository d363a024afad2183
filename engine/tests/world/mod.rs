//! A few cores wired by hand: every frame in order per session and stream, every sync when it is asked for.
//! An [`Observer`] reads along on every wire and fails the test when a core breaks its word.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

pub(crate) mod audits;
pub(crate) mod disk;
pub(crate) mod ghost;
pub(crate) mod link;
pub(crate) mod model;
pub(crate) mod observer;
pub(crate) mod removals;
pub(crate) mod spec;
pub(crate) mod unrest;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::{LaneId, Nonce, ReplicaId, SpaceId};
use comity_engine::{
    Acknowledgement, AuditLimits, BootstrapLimits, Class, CloseReason, Command, CommandError, Durability,
    Engine, EngineOptions, Extensions, Input, JournalLimits, LagLimits, Notice, Now, Output, Reply,
    RequestId, Retention, Role, SessionId, SnapshotSource, SpaceStatus, StoreError, Throttle, TransactError,
    Tx, TxError, VersionRange, WriteOptions,
};

use disk::{Backup, Disk};
use link::{End, Link, Traffic};
use observer::Observer;

/// The instance token of every directory that was neither copied nor restored.
pub(crate) const INSTANCE: [u8; 32] = [1; 32];

/// A core with its disk, and what came out of it.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) disk: Disk,
    pub(crate) replies: BTreeMap<RequestId, Result<Reply, CommandError>>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) closed: Vec<(SessionId, CloseReason)>,
    pub(crate) sync_wanted: bool,
    /// Syncs wait until asked for by hand.
    pub(crate) manual_sync: bool,
    /// The next sync fails.
    pub(crate) fail_sync: Option<StoreError>,
    pub(crate) wall_ms: u64,
    /// What the core is opened with when it starts again.
    pub(crate) instance: [u8; 32],
    pub(crate) region: Option<String>,
    pub(crate) journal: JournalLimits,
    pub(crate) lag: LagLimits,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) retention: Retention,
    pub(crate) bootstrap: BootstrapLimits,
    pub(crate) versions: VersionRange,
    pub(crate) extensions: Extensions,
    pub(crate) audit: AuditLimits,
    pub(crate) open_at_once: usize,
    pub(crate) segment_entries: u64,
    pub(crate) snapshots: SnapshotSource<comity_store::MemorySnapshot>,
    next_request: u64,
}

/// Bytes that cannot be compressed, the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// Everything at once, run by one thread.
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    links: BTreeMap<SessionId, Link>,
    pub(crate) clock: Duration,
    /// Which stream of a session is delivered first.
    pub(crate) class_order: [Class; 3],
    pub(crate) observer: Observer,
    entropy: u128,
    next_session: u64,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            links: BTreeMap::new(),
            clock: Duration::from_secs(1),
            class_order: [Class::Control, Class::Live, Class::CatchUp],
            observer: Observer::default(),
            entropy: 0,
            next_session: 0,
        };
        for index in 0..count {
            world.add_node([index as u8 + 1; 32], Disk::default());
        }
        world.run();
        world
    }

    /// A world of nodes that all are members of one space and connected pairwise; node 0 founded it.
    pub(crate) fn mesh(count: usize) -> (Self, SpaceId) {
        let mut world = Self::new(count);
        let space = world.create_space(0);
        for node in 1..count {
            world.join(0, node, space);
        }
        for a in 1..count {
            for b in a + 1..count {
                world.connect(a, b);
            }
        }
        world.run();
        (world, space)
    }

    /// Starts another core.
    pub(crate) fn add_node(&mut self, fresh_key: [u8; 32], mut disk: Disk) -> usize {
        let engine = Engine::open(&EngineOptions::new(fresh_key, INSTANCE), &mut disk).unwrap();
        self.nodes.push(Node {
            engine,
            disk,
            replies: BTreeMap::new(),
            notices: Vec::new(),
            closed: Vec::new(),
            sync_wanted: false,
            manual_sync: false,
            fail_sync: None,
            wall_ms: 1_700_000_000_000,
            instance: INSTANCE,
            region: None,
            journal: JournalLimits::USUAL,
            lag: LagLimits::NONE,
            throttle: None,
            retention: Retention::OFF,
            bootstrap: BootstrapLimits::USUAL,
            versions: VersionRange::ALL,
            extensions: Extensions::NONE,
            audit: AuditLimits::OFF,
            open_at_once: EngineOptions::new([0; 32], INSTANCE).open_at_once,
            segment_entries: EngineOptions::new([0; 32], INSTANCE).segment_entries,
            snapshots: SnapshotSource::default(),
            next_request: 0,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn now(&mut self, node: usize) -> Now {
        self.entropy += 1;
        let mut fresh = [0; 16];
        fresh.copy_from_slice(&blake3::hash(&self.entropy.to_le_bytes()).as_bytes()[..16]);
        Now { monotonic: self.clock, wall_ms: self.nodes[node].wall_ms, fresh: Nonce(fresh) }
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let now = self.now(node);
        let target = &mut self.nodes[node];
        target.engine.handle(&now, input, &mut target.disk);
        self.drain(node);
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].engine.poll_output() {
            let node = &mut self.nodes[index];
            match output {
                Output::Reply { request, reply } => {
                    assert!(node.replies.insert(request, reply).is_none(), "one reply per request");
                }
                Output::Notify(notice) => node.notices.push(notice),
                Output::Settle { space, object } => {
                    let result = comity_engine::settle(&node.disk.view(), &space, &object);
                    self.input(index, Input::Settled { result });
                }
                Output::Snapshot(task) => {
                    let (now, view) = (self.clock, node.disk.view());
                    if let Some(answer) = node.snapshots.handle(now, task, || Ok(view)) {
                        self.input(index, Input::Snapshot { answer });
                    }
                }
                Output::RequestSync => {
                    assert!(!node.sync_wanted, "at most one sync is outstanding");
                    node.sync_wanted = true;
                }
                Output::CloseSession { session, reason } => {
                    node.closed.push((session, reason));
                    self.cut(session, Some(index));
                }
                Output::SendFrame { session, class, frame } => {
                    let Some(link) = self.links.get_mut(&session) else { continue };
                    if let End::Node(to) = link.other_end(index) {
                        self.observer.sent(session, (index, to), &frame, &node.disk);
                    }
                    link.sent_mut(index).send(class, frame);
                }
            }
        }
    }

    /// Ends a session; everything on its way is lost. The end that asked for it learns nothing more.
    fn cut(&mut self, session: SessionId, by: Option<usize>) {
        let Some(link) = self.links.remove(&session) else { return };
        for end in link.ends {
            match end {
                End::Node(node) if Some(node) != by => self.input(node, Input::SessionClosed { session }),
                End::Node(_) | End::Ghost(_) => {}
            }
        }
    }

    /// Ends the sync that a node asked for.
    pub(crate) fn sync(&mut self, node: usize) {
        let target = &mut self.nodes[node];
        if std::mem::take(&mut target.sync_wanted) {
            let result = match target.fail_sync.take() {
                None => Ok(target.disk.sync()),
                Some(error) => Err(error),
            };
            self.input(node, Input::Synced { result });
        }
    }

    /// Every session and direction with something on its way.
    pub(crate) fn deliverable(&self) -> Vec<(SessionId, usize)> {
        let busy = |(session, link): (&SessionId, &Link)| {
            let link = (!link.stalled).then_some(link)?;
            let sides = (0..2).filter(|side| !link.wires[*side].is_idle() && link.ends[1 - *side].is_node());
            Some(sides.map(|side| (*session, side)).collect::<Vec<_>>())
        };
        self.links.iter().filter_map(busy).flatten().collect()
    }

    /// One link delay: everything that is on its way arrives, and nothing that is sent in answer.
    pub(crate) fn hop(&mut self) {
        let ways = self.deliverable();
        let waiting = ways.into_iter().map(|(session, side)| {
            (session, side, self.link(session).wires[side].queues.values().map(|queue| queue.len()).sum())
        });
        for (session, side, count) in waiting.collect::<Vec<(SessionId, usize, usize)>>() {
            for _ in 0..count {
                self.deliver(session, side);
            }
        }
        for node in 0..self.nodes.len() {
            if !self.nodes[node].manual_sync {
                self.sync(node);
            }
        }
    }

    /// A link delay that takes time.
    pub(crate) fn slow_hop(&mut self, delay: Duration) {
        self.hop();
        self.clock += delay;
        for node in 0..self.nodes.len() {
            self.input(node, Input::DeadlineReached);
        }
    }

    /// Delivers the next frame that one side of a session sent.
    pub(crate) fn deliver(&mut self, session: SessionId, side: usize) -> bool {
        let Some(link) = self.links.get_mut(&session) else { return false };
        let End::Node(to) = link.ends[1 - side] else { return false };
        let Some(frame) = link.wires[side].next(&self.class_order) else { return false };
        self.input(to, Input::FrameReceived { session, frame });
        true
    }

    /// Ends one sync or delivers one frame; `false` when nothing is under way.
    pub(crate) fn step(&mut self) -> bool {
        let syncing = self.nodes.iter().position(|node| node.sync_wanted && !node.manual_sync);
        if let Some(node) = syncing {
            self.sync(node);
            return true;
        }
        let next = self.deliverable().first().copied();
        next.is_some_and(|(session, side)| self.deliver(session, side))
    }

    /// Does what is due without letting time pass.
    pub(crate) fn drain_steps(&mut self) {
        while self.step() {}
    }

    /// Runs until nothing is under way, letting time pass where the cores wait for it, two seconds at most.
    pub(crate) fn run(&mut self) {
        let end = self.clock + Duration::from_secs(2);
        loop {
            self.drain_steps();
            let deadlines = self.nodes.iter().enumerate();
            let due = deadlines.filter_map(|(i, node)| Some((node.engine.next_deadline()?, i))).min();
            let Some((due, node)) = due.filter(|(due, _)| *due <= end) else { return };
            self.clock = self.clock.max(due);
            self.input(node, Input::DeadlineReached);
        }
    }

    /// Lets time pass, then runs.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.clock += time;
        for node in 0..self.nodes.len() {
            self.input(node, Input::DeadlineReached);
        }
        self.run();
    }

    fn new_session(&mut self, ends: [End; 2]) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.links.insert(session, Link::new(ends));
        session
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) -> SessionId {
        let session = self.new_session([End::Node(a), End::Node(b)]);
        let (replica_a, replica_b) = (self.replica(a), self.replica(b));
        self.input(a, Input::SessionOpened { session, peer: replica_b });
        self.input(b, Input::SessionOpened { session, peer: replica_a });
        session
    }

    /// Seconds go by, on all clocks.
    pub(crate) fn pass_for(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.nodes.iter_mut().for_each(|node| node.wall_ms += 1_000);
            self.pass(Duration::from_secs(1));
        }
    }

    /// Connects every two nodes that have no session, and lets all be said.
    pub(crate) fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                if self.session_between(a, b).is_none() {
                    self.connect(a, b);
                }
            }
        }
        self.run();
    }

    /// Connects somebody who is no core; the test speaks for it.
    pub(crate) fn connect_ghost(&mut self, node: usize, replica: ReplicaId) -> SessionId {
        let session = self.new_session([End::Node(node), End::Ghost(replica)]);
        self.input(node, Input::SessionOpened { session, peer: replica });
        session
    }

    /// Hands a node a frame as if it came over a session.
    pub(crate) fn inject(&mut self, node: usize, session: SessionId, frame: Vec<u8>) {
        self.input(node, Input::FrameReceived { session, frame });
    }

    pub(crate) fn disconnect(&mut self, session: SessionId) {
        self.cut(session, None);
    }

    /// Cuts every session of a node, or of all nodes.
    pub(crate) fn disconnect_all(&mut self, of: Option<usize>) {
        for session in self.links.keys().copied().collect::<Vec<_>>() {
            let touches = |node| self.links[&session].ends.contains(&End::Node(node));
            if of.is_none_or(touches) {
                self.disconnect(session);
            }
        }
    }

    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.links.keys().copied().collect()
    }

    pub(crate) fn is_connected(&self, session: SessionId) -> bool {
        self.links.contains_key(&session)
    }

    /// The session between two nodes, if there is one.
    pub(crate) fn session_between(&self, a: usize, b: usize) -> Option<SessionId> {
        let joins = |link: &Link| link.ends.contains(&End::Node(a)) && link.ends.contains(&End::Node(b));
        self.links.iter().find(|(_, link)| joins(link)).map(|(session, _)| *session)
    }

    /// A session's frames so far, by the end that sent them.
    pub(crate) fn link(&self, session: SessionId) -> &Link {
        &self.links[&session]
    }

    /// As [`World::link`], to tamper with what is on its way.
    pub(crate) fn link_mut(&mut self, session: SessionId) -> &mut Link {
        self.links.get_mut(&session).expect("the session is open")
    }

    /// Traffic of a session: from its first end, from its second end.
    pub(crate) fn traffic(&self, session: SessionId) -> (Traffic, Traffic) {
        let link = self.link(session);
        (link.wires[0].traffic(), link.wires[1].traffic())
    }

    pub(crate) fn request(&mut self, node: usize) -> RequestId {
        self.nodes[node].next_request += 1;
        RequestId(self.nodes[node].next_request)
    }

    /// Asks without waiting for the answer.
    pub(crate) fn ask(&mut self, node: usize, command: Command) -> RequestId {
        let request = self.request(node);
        self.input(node, Input::Command { request, command });
        request
    }

    pub(crate) fn command(&mut self, node: usize, command: Command) -> Result<Reply, CommandError> {
        let request = self.ask(node, command);
        self.run();
        self.nodes[node].replies.remove(&request).expect("the command was answered")
    }

    pub(crate) fn create_space(&mut self, node: usize) -> SpaceId {
        match self.command(node, Command::CreateSpace { name: "test".to_owned() }) {
            Ok(Reply::SpaceCreated(space)) => space,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn invite(&mut self, node: usize, space: SpaceId, role: Role) -> [u8; 16] {
        let valid_for = Duration::from_secs(60);
        match self.command(node, Command::Invite { space, role, valid_for }) {
            Ok(Reply::Invited(secret)) => secret,
            other => panic!("{other:?}"),
        }
    }

    /// Lets `node` join through `inviter`, over a session that stays.
    pub(crate) fn join(&mut self, inviter: usize, node: usize, space: SpaceId) -> SessionId {
        let secret = self.invite(inviter, space, Role::Writer);
        self.prepare_join(inviter, node, space, secret);
        let session = self.connect(node, inviter);
        self.run();
        session
    }

    /// Tells `node` of a space and who lets it in.
    pub(crate) fn prepare_join(&mut self, inviter: usize, node: usize, space: SpaceId, secret: [u8; 16]) {
        let inviter = self.replica(inviter);
        self.command(node, Command::JoinSpace { space, inviter, secret: Some(secret) }).unwrap();
    }

    pub(crate) fn write<R>(
        &mut self,
        node: usize,
        space: SpaceId,
        body: impl FnOnce(&mut Tx<'_>) -> Result<R, TxError>,
    ) -> Result<R, TransactError<TxError>> {
        let (result, _) = self.write_with(node, space, Durability::Local, body);
        self.run();
        result
    }

    /// Runs a transaction and nothing else: no sync, no delivery.
    pub(crate) fn write_with<R, E: From<TxError>>(
        &mut self,
        node: usize,
        space: SpaceId,
        durability: Durability,
        body: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> (Result<R, TransactError<E>>, RequestId) {
        let options = WriteOptions { durability, ..self.write_options(node) };
        self.write_as(node, space, options, body)
    }

    /// A write of its own request that waits for a second.
    pub(crate) fn write_options(&mut self, node: usize) -> WriteOptions {
        WriteOptions { within: Duration::from_secs(1), ..WriteOptions::new(self.request(node)) }
    }

    /// As [`World::write_with`], with all that can be asked for.
    pub(crate) fn write_as<R, E: From<TxError>>(
        &mut self,
        node: usize,
        space: SpaceId,
        options: WriteOptions,
        body: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> (Result<R, TransactError<E>>, RequestId) {
        let now = self.now(node);
        let request = options.request;
        let target = &mut self.nodes[node];
        let result = target.engine.transact(&now, space, options, &mut target.disk, body);
        self.drain(node);
        (result, request)
    }

    pub(crate) fn acknowledgement(&mut self, node: usize, request: RequestId) -> Option<Acknowledgement> {
        match self.nodes[node].replies.remove(&request)? {
            Ok(Reply::Acknowledged(acknowledgement)) => Some(acknowledgement),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn add(&mut self, node: usize, space: SpaceId, delta: i64) {
        self.write(node, space, |tx| tx.counter_add("stats", "likes", delta)).unwrap();
    }

    /// As [`World::add`], but nothing happens after the commit.
    pub(crate) fn add_unsent(&mut self, node: usize, space: SpaceId, delta: i64) {
        let (result, _) = self.write_with::<_, TxError>(node, space, Durability::Local, |tx| {
            tx.counter_add("stats", "likes", delta)
        });
        result.unwrap();
    }

    /// As [`World::add`], but no time passes: what needs a timer does not happen yet.
    pub(crate) fn add_without_time(&mut self, node: usize, space: SpaceId, delta: i64) {
        self.add_unsent(node, space, delta);
        self.drain_steps();
    }

    /// How many link delays pass until `node` has applied everything that `other` has.
    pub(crate) fn hops_until_equal(&mut self, space: SpaceId, (node, other): (usize, usize)) -> usize {
        let goal = self.status(other, space).frontier;
        let mut hops = 0;
        while !self.status(node, space).frontier.covers(&goal) {
            self.hop();
            hops += 1;
            assert!(hops < 20, "twenty delays are plenty");
        }
        hops
    }

    /// The counter that `add` adds to, as readers see it.
    pub(crate) fn likes(&self, node: usize, space: SpaceId) -> i128 {
        comity_engine::counter(&self.nodes[node].disk.view(), &space, "stats", "likes").unwrap()
    }

    pub(crate) fn status(&self, node: usize, space: SpaceId) -> SpaceStatus {
        let status = self.nodes[node].engine.status();
        status.spaces.into_iter().find(|s| s.space == space).expect("the space is held")
    }

    /// The lane a node writes to at present.
    pub(crate) fn own_lane(&self, node: usize, space: SpaceId) -> LaneId {
        self.status(node, space).lanes.iter().find(|lane| lane.is_own).expect("the node has written").lane
    }

    pub(crate) fn assert_converged(&self, space: SpaceId) {
        let first = self.status(0, space);
        for node in 1..self.nodes.len() {
            let other = self.status(node, space);
            assert_eq!(first.frontier, other.frontier, "node {node}");
            assert_eq!(first.digest, other.digest, "node {node}");
            assert_eq!(first.members, other.members, "node {node}");
        }
        assert_eq!(self.observer.forks, BTreeSet::new(), "no entry has two contents on the wire");
    }

    /// Two replicas that have applied the same and know the same have the same digest, also where they hold something.
    pub(crate) fn assert_held_alike(&self, space: SpaceId, (node, other): (usize, usize)) {
        let (status, status_of_other) = (self.status(node, space), self.status(other, space));
        assert_eq!(status.frontier, status_of_other.frontier);
        assert_eq!(status.digest, status_of_other.digest);
        assert!(status.held > 0 && status_of_other.held > 0);
    }

    /// Ends the process: everything unsynced is lost, then the core starts again over what is left.
    pub(crate) fn crash(&mut self, node: usize) {
        self.disconnect_all(Some(node));
        self.nodes[node].disk.crash();
        self.restart(node);
    }

    /// Nothing that is stored contradicts anything else.
    pub(crate) fn assert_verified(&self, node: usize) {
        let mut faults = Vec::new();
        comity_engine::verify(&self.nodes[node].disk.view(), |fault| faults.push(fault), |_| {}).unwrap();
        assert_eq!(faults, [], "at {node}");
    }

    /// A copy of a node's disk as a crash would leave it.
    pub(crate) fn backup(&self, node: usize) -> Backup {
        self.nodes[node].disk.backup()
    }

    /// Puts an old copy of the disk back and starts the core again.
    pub(crate) fn restore(&mut self, node: usize, backup: Backup, instance: [u8; 32]) {
        self.disconnect_all(Some(node));
        self.nodes[node].disk = Disk::restored(backup);
        self.nodes[node].instance = instance;
        self.restart(node);
    }

    /// Starts the core of a node again over its disk, of which a row has another value now; `None` for none.
    pub(crate) fn rot(&mut self, node: usize, key: &[u8], value: Option<Vec<u8>>) {
        self.disconnect_all(Some(node));
        self.nodes[node].disk.rot(key, value);
        self.restart(node);
    }

    fn restart(&mut self, node: usize) {
        let target = &mut self.nodes[node];
        target.sync_wanted = false;
        target.fail_sync = None;
        let fresh_key = target.engine.secret_key();
        let (region, journal, lag, throttle) =
            (target.region.clone(), target.journal, target.lag, target.throttle);
        let options = EngineOptions {
            region,
            journal,
            lag,
            throttle,
            retention: target.retention,
            bootstrap: target.bootstrap,
            versions: target.versions,
            extensions: target.extensions,
            audit: target.audit,
            open_at_once: target.open_at_once,
            segment_entries: target.segment_entries,
            ..EngineOptions::new(fresh_key, target.instance)
        };
        target.snapshots = SnapshotSource::default();
        target.engine = Engine::open(&options, &mut target.disk).unwrap();
        self.drain(node);
    }

    pub(crate) fn replica(&self, node: usize) -> ReplicaId {
        self.nodes[node].engine.replica()
    }
}
