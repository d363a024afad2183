//! A few cores wired by hand: every frame in order per session and stream, every sync when it is asked for.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use comity_crdts::{Nonce, ReplicaId, SpaceId};
use comity_engine::{
    Acknowledgement, Class, CloseReason, Command, CommandError, Durability, Engine, EngineOptions, Input, Notice,
    Now, Output, Reply, RequestId, Role, SessionId, SpaceStatus, TransactError, Tx, TxError, WriteOptions,
};
use comity_store::MemoryStore;

/// What went over one session in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) store: MemoryStore,
    pub(crate) replies: BTreeMap<RequestId, Result<Reply, CommandError>>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) closed: Vec<(SessionId, CloseReason)>,
    pub(crate) sync_wanted: bool,
    /// Syncs wait until asked for by hand.
    pub(crate) manual_sync: bool,
    pub(crate) wall_ms: u64,
    next_request: u64,
}

/// One direction of one connection.
#[derive(Default)]
struct Wire {
    queues: BTreeMap<Class, VecDeque<Vec<u8>>>,
    traffic: Traffic,
    log: Vec<(Class, Vec<u8>)>,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    /// Session number (the same at both ends) to (a, b, a→b, b→a).
    links: BTreeMap<SessionId, (usize, usize, Wire, Wire)>,
    pub(crate) clock: Duration,
    entropy: u128,
    next_session: u64,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        let mut world =
            Self { nodes: Vec::new(), links: BTreeMap::new(), clock: Duration::from_secs(1), entropy: 0, next_session: 0 };
        for index in 0..count {
            let options = options(index, [1; 32]);
            let mut store = MemoryStore::new();
            let engine = Engine::open(&options, &mut store).unwrap();
            world.nodes.push(Node {
                engine,
                store,
                replies: BTreeMap::new(),
                notices: Vec::new(),
                closed: Vec::new(),
                sync_wanted: false,
                manual_sync: false,
                wall_ms: 1_700_000_000_000,
                next_request: 0,
            });
        }
        world.run();
        world
    }

    pub(crate) fn now(&mut self, node: usize) -> Now {
        self.entropy += 1;
        let fresh = blake3_16(self.entropy);
        Now { monotonic: self.clock, wall_ms: self.nodes[node].wall_ms, fresh: Nonce(fresh) }
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let now = self.now(node);
        let target = &mut self.nodes[node];
        target.engine.handle(&now, input, &mut target.store);
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
                Output::RequestSync => {
                    assert!(!node.sync_wanted, "at most one sync is outstanding");
                    node.sync_wanted = true;
                }
                Output::CloseSession { session, reason } => {
                    node.closed.push((session, reason));
                    self.cut_session(session);
                }
                Output::SendFrame { session, class, frame } => {
                    if let Some((a, _, forth, back)) = self.links.get_mut(&session) {
                        let wire = if *a == index { forth } else { back };
                        wire.traffic.frames += 1;
                        wire.traffic.bytes += frame.len();
                        wire.log.push((class, frame.clone()));
                        wire.queues.entry(class).or_default().push_back(frame);
                    }
                }
            }
        }
    }

    pub(crate) fn sync(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].sync_wanted) {
            let position = self.nodes[node].store.sync();
            self.input(node, Input::Synced { result: Ok(position) });
        }
    }

    /// Delivers one frame of the lowest class that has one; `false` when nothing is under way.
    pub(crate) fn step(&mut self) -> bool {
        for index in 0..self.nodes.len() {
            if self.nodes[index].sync_wanted && !self.nodes[index].manual_sync {
                self.sync(index);
                return true;
            }
        }
        let sessions: Vec<SessionId> = self.links.keys().copied().collect();
        for session in sessions {
            for forward in [true, false] {
                let Some((a, b, forth, back)) = self.links.get_mut(&session) else { continue };
                let (to, wire) = if forward { (*b, forth) } else { (*a, back) };
                if let Some(frame) = wire.queues.values_mut().find_map(VecDeque::pop_front) {
                    self.input(to, Input::FrameReceived { session, frame });
                    return true;
                }
            }
        }
        false
    }

    /// Runs until nothing is under way, letting time pass where the cores wait for it, two seconds at most.
    pub(crate) fn run(&mut self) {
        let end = self.clock + Duration::from_secs(2);
        loop {
            while self.step() {}
            let due = self.nodes.iter().enumerate().filter_map(|(i, n)| Some((n.engine.next_deadline()?, i))).min();
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

    pub(crate) fn connect(&mut self, a: usize, b: usize) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.links.insert(session, (a, b, Wire::default(), Wire::default()));
        let (replica_a, replica_b) = (self.nodes[a].engine.replica(), self.nodes[b].engine.replica());
        self.input(a, Input::SessionOpened { session, peer: replica_b });
        self.input(b, Input::SessionOpened { session, peer: replica_a });
        session
    }

    fn cut_session(&mut self, session: SessionId) -> Option<(usize, usize)> {
        self.links.remove(&session).map(|(a, b, _, _)| (a, b))
    }

    pub(crate) fn disconnect(&mut self, session: SessionId) {
        if let Some((a, b)) = self.cut_session(session) {
            self.input(a, Input::SessionClosed { session });
            self.input(b, Input::SessionClosed { session });
        }
    }

    pub(crate) fn is_connected(&self, session: SessionId) -> bool {
        self.links.contains_key(&session)
    }

    /// Traffic of a session: from its first end, from its second end.
    pub(crate) fn traffic(&self, session: SessionId) -> (Traffic, Traffic) {
        let (_, _, forth, back) = &self.links[&session];
        (forth.traffic, back.traffic)
    }

    /// Every frame sent on a session so far: by its first end, by its second end.
    pub(crate) fn frames(&self, session: SessionId) -> (Vec<(Class, Vec<u8>)>, Vec<(Class, Vec<u8>)>) {
        let (_, _, forth, back) = &self.links[&session];
        (forth.log.clone(), back.log.clone())
    }

    pub(crate) fn request(&mut self, node: usize) -> RequestId {
        self.nodes[node].next_request += 1;
        RequestId(self.nodes[node].next_request)
    }

    pub(crate) fn command(&mut self, node: usize, command: Command) -> Result<Reply, CommandError> {
        let request = self.request(node);
        self.input(node, Input::Command { request, command });
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
        let inviter_id = self.nodes[inviter].engine.replica();
        let join = Command::JoinSpace { space, inviter: inviter_id, secret: Some(secret) };
        self.command(node, join).unwrap();
        let session = self.connect(node, inviter);
        self.run();
        session
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
    pub(crate) fn write_with<R>(
        &mut self,
        node: usize,
        space: SpaceId,
        durability: Durability,
        body: impl FnOnce(&mut Tx<'_>) -> Result<R, TxError>,
    ) -> (Result<R, TransactError<TxError>>, RequestId) {
        let now = self.now(node);
        let request = self.request(node);
        let options = WriteOptions { request, durability, within: Duration::from_secs(1) };
        let target = &mut self.nodes[node];
        let result = target.engine.transact(&now, space, options, &mut target.store, body);
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

    /// The counter that `add` adds to, as readers see it.
    pub(crate) fn likes(&self, node: usize, space: SpaceId) -> i128 {
        comity_engine::counter(&self.nodes[node].store.view(), &space, "stats", "likes").unwrap()
    }

    pub(crate) fn status(&self, node: usize, space: SpaceId) -> SpaceStatus {
        let status = self.nodes[node].engine.status();
        status.spaces.into_iter().find(|s| s.space == space).expect("the space is held")
    }

    pub(crate) fn assert_converged(&self, space: SpaceId) {
        let first = self.status(0, space);
        for node in 1..self.nodes.len() {
            let other = self.status(node, space);
            assert_eq!(first.frontier, other.frontier, "node {node}");
            assert_eq!(first.digest, other.digest, "node {node}");
        }
    }

    /// Ends the process: everything unsynced is lost, then the core starts again over what is left.
    pub(crate) fn crash(&mut self, node: usize) {
        self.reopen(node, [1; 32], true);
    }

    /// Starts the core again, possibly in a directory with another instance token.
    pub(crate) fn reopen(&mut self, node: usize, instance: [u8; 32], lose_unsynced: bool) {
        let of_node = |(_, (a, b, _, _)): &(&SessionId, &(usize, usize, Wire, Wire))| *a == node || *b == node;
        let sessions: Vec<SessionId> = self.links.iter().filter(of_node).map(|(s, _)| *s).collect();
        for session in sessions {
            let (a, b) = self.cut_session(session).unwrap();
            let other = if a == node { b } else { a };
            self.input(other, Input::SessionClosed { session });
        }
        if lose_unsynced {
            self.nodes[node].store.crash();
        }
        let options = options(node, instance);
        let target = &mut self.nodes[node];
        target.sync_wanted = false;
        target.engine = Engine::open(&options, &mut target.store).unwrap();
        self.drain(node);
        self.run();
    }

    pub(crate) fn replica(&self, node: usize) -> ReplicaId {
        self.nodes[node].engine.replica()
    }
}

fn options(index: usize, instance: [u8; 32]) -> EngineOptions {
    EngineOptions { fresh_key: [index as u8 + 1; 32], instance }
}

fn blake3_16(number: u128) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
    bytes
}
