//! A list of inputs to a core.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_crdts::{Frontier, Kind, LaneId, Nonce, ObjectAddress, SpaceId, Value};
use comity_engine::wire::{Data, Hello, Join, LaneTip, Message, Open, OpenLane, PROTOCOL_VERSION};
use comity_engine::{
    Command, Engine, EngineOptions, FRAME_BYTES_MAX, Input, Location, Now, Output, Reply, RequestId, Role,
    SessionId, SpaceStatus, StateDigest, Status, TransactError, TxError, WriteOptions, counter,
};
use comity_store::MemoryStore;

use crate::Choices;
use crate::peer::Peer;

const OPTIONS: EngineOptions = EngineOptions::new([1; 32], [2; 32]);

/// A list of inputs to a core with two sessions: frames of members, sound and not, writes, syncs, deadlines,
/// reconnects, power cuts. After each, the counter is what honest replicas made of it, the other space is as
/// it was, and nothing left that a power cut can take back; in a debug build the core checks its own
/// invariants too.
pub fn engine(bytes: &[u8]) {
    let mut driven = Driven::new();
    let mut choices = Choices(bytes);
    while !choices.is_empty() {
        driven.step(&mut choices);
        driven.check();
    }
    driven.write(1);
    driven.sync();
    driven.crash();
    driven.check();
}

/// A core that two members, and the bytes, drive.
struct Driven {
    engine: Engine,
    store: MemoryStore,
    clock: Duration,
    drawn: u8,
    requests: u64,
    sessions: u64,
    sync_wanted: bool,
    snapshots: comity_engine::SnapshotSource<comity_store::MemorySnapshot>,
    /// Sessions that neither side closed.
    open: BTreeSet<SessionId>,
    replies: Vec<Reply>,
    space: SpaceId,
    /// A space that no peer knows of, and what is to stay of it.
    other: (SpaceId, String),
    peers: Vec<Peer>,
    /// What a power cut leaves of each space.
    durable: BTreeMap<SpaceId, (Frontier, StateDigest)>,
    /// What the own writes add to the counter, and what a power cut leaves of it.
    own: (i64, i64),
    /// The lanes that the peers wanted under a number.
    wanted: BTreeMap<(SessionId, u32), BTreeSet<LaneId>>,
}

impl Driven {
    fn new() -> Self {
        let mut store = MemoryStore::new();
        let engine = Engine::open(&OPTIONS, &mut store).expect("memory does not fail");
        let nowhere = SpaceId([0; 16]);
        let mut driven = Self {
            engine,
            store,
            clock: Duration::from_secs(1),
            drawn: 0,
            requests: 0,
            sessions: 0,
            sync_wanted: false,
            snapshots: comity_engine::SnapshotSource::default(),
            open: BTreeSet::new(),
            replies: Vec::new(),
            space: nowhere,
            other: (nowhere, String::new()),
            peers: Vec::new(),
            durable: BTreeMap::new(),
            own: (0, 0),
            wanted: BTreeMap::new(),
        };
        driven.drain();
        driven.space = driven.found("fuzz");
        let other = driven.found("other");
        driven.other = (other, format!("{:?}", driven.space_status(other)));
        driven.peers = [7, 8].map(|seed| Peer::new(seed, driven.space)).into();
        (0..driven.peers.len()).for_each(|peer| driven.admit(peer));
        driven
    }

    fn found(&mut self, name: &str) -> SpaceId {
        match self.command(Command::CreateSpace { name: name.to_owned() }) {
            Some(Reply::SpaceCreated(space)) => space,
            other => panic!("a space is founded, not {other:?}"),
        }
    }

    fn admit(&mut self, peer: usize) {
        let valid_for = Duration::from_secs(60);
        let invite = Command::Invite { space: self.space, role: Role::Writer, valid_for };
        let Some(Reply::Invited(secret)) = self.command(invite) else { panic!("the founder may invite") };
        // A lane without an entry is not wanted.
        self.peers[peer].append(2, 1);
        self.connect(peer, Some(secret));
        assert!(self.peers[peer].subscription.is_some(), "the lane of a member is wanted");
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let step = choices.byte();
        let peer = usize::from(step >> 7);
        match step % 16 {
            0 => {
                self.write(i64::from(step));
                self.write_elsewhere(step >> 4);
            }
            1 => self.sync(),
            2 => {
                self.clock += Duration::from_millis(50);
                self.input(Input::DeadlineReached);
            }
            3 => self.connect(peer, None),
            4 => {
                let (what, delta) = (choices.byte(), choices.byte());
                self.peers[peer].append(what, i64::from(delta));
                self.send_lane(peer);
            }
            5 => self.crash(),
            6 => drop(self.command(Command::Flush)),
            7 => self.send_lane(peer),
            other => {
                let length = if other == 15 { choices.short() } else { usize::from(choices.byte()) };
                let frame = choices.bytes(length).to_vec();
                self.receive(peer, frame);
            }
        }
    }

    fn now(&mut self) -> Now {
        self.drawn = self.drawn.wrapping_add(1);
        let wall_ms = 1_700_000_000_000 + self.clock.as_millis() as u64;
        Now { monotonic: self.clock, wall_ms, fresh: Nonce([self.drawn; 16]) }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(&now, input, &mut self.store);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::RequestSync => self.sync_wanted = true,
                Output::SendFrame { session, frame, .. } => self.sent(session, &frame),
                Output::CloseSession { session, .. } => drop(self.open.remove(&session)),
                Output::Reply { reply, .. } => self.replies.extend(reply),
                Output::Notify(_) => {}
                Output::Snapshot(task) => {
                    let (now, view) = (self.clock, self.store.view());
                    if let Some(answer) = self.snapshots.handle(now, task, || Ok(view)) {
                        self.input(Input::Snapshot { answer });
                    }
                }
                Output::Settle { space, object } => {
                    let result = comity_engine::settle(&self.store, &space, &object);
                    self.input(Input::Settled { result });
                }
            }
        }
    }

    /// What leaves decodes, is for somebody, and speaks only of what is durable.
    fn sent(&mut self, session: SessionId, frame: &[u8]) {
        assert!(self.open.contains(&session), "nothing is sent on a session that ended");
        assert!(frame.len() <= FRAME_BYTES_MAX);
        let message = Message::decode(frame).expect("a core sends messages in canonical form");
        assert_eq!(message.encode(), frame);
        let (durable, _) = self.durable.get(&self.space).cloned().unwrap_or_default();
        let peer = self.peers.iter_mut().find(|peer| peer.session == session);
        let own_lane = |lane: &LaneId, peer: &Peer| *lane == peer.lane();
        match (message, peer) {
            (Message::Open(open), Some(peer)) => {
                assert_ne!(open.space, self.other.0, "nobody was let into the other space");
                for lane in open.lanes {
                    assert!(lane.lsn <= durable.at(&lane.lane), "Open speaks of what is not durable");
                    if own_lane(&lane.lane, peer) && lane.subscription.is_some() {
                        peer.subscription = lane.subscription;
                    }
                }
            }
            (Message::Subscribe(subscribe), Some(peer)) if own_lane(&subscribe.lane, peer) => {
                peer.subscription = Some(subscribe.subscription);
            }
            (Message::Data(data), _) => {
                let lanes = self.wanted.get(&(session, data.subscription)).expect("somebody wanted it");
                let known = lanes.iter().map(|lane| durable.at(lane)).max().unwrap_or(0);
                assert!(data.first <= known, "an entry left before it was durable");
            }
            _ => {}
        }
    }

    fn receive(&mut self, peer: usize, frame: Vec<u8>) {
        let session = self.peers[peer].session;
        let wants = |number: u32| (session, number);
        match Message::decode(&frame) {
            Ok(Message::Open(open)) => {
                for lane in open.lanes {
                    let number = lane.subscription.map(wants);
                    number.map(|number| self.wanted.entry(number).or_default().insert(lane.lane));
                }
            }
            Ok(Message::Subscribe(subscribe)) => {
                let number = wants(subscribe.subscription);
                self.wanted.entry(number).or_default().insert(subscribe.lane);
            }
            _ => {}
        }
        self.input(Input::FrameReceived { session, frame });
    }

    /// Ends the peer's session if there is one, and greets on another.
    fn connect(&mut self, peer: usize, secret: Option<[u8; 16]>) {
        let before = self.peers[peer].session;
        if self.open.remove(&before) {
            self.input(Input::SessionClosed { session: before });
        }
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.open.insert(session);
        let joined = &mut self.peers[peer];
        (joined.session, joined.subscription) = (session, None);
        let lsn = joined.len() as u64;
        let (lane, hash) = (joined.lane(), joined.tip(joined.len()).hash.prefix());
        let replica = joined.replica();
        self.input(Input::SessionOpened { session, peer: replica });
        let (version_min, version_max) = (PROTOCOL_VERSION, PROTOCOL_VERSION);
        let hello = Message::Hello(Hello { version_min, version_max, wall_ms: 0 });
        self.receive(peer, hello.encode());
        if let Some(secret) = secret {
            self.receive(peer, Message::Join(Join { space: self.space, secret }).encode());
            self.sync();
        }
        let mut lanes = vec![OpenLane { lane, lsn, hash, subscription: None }];
        let own = self.space_status(self.space).lanes.iter().find(|lane| lane.is_own).map(|own| own.lane);
        let start = own.map(|own| LaneTip::start(&self.space, &own));
        lanes.extend(own.zip(start).map(|(lane, start)| OpenLane {
            lane,
            lsn: 0,
            hash: start.hash.prefix(),
            subscription: Some(0),
        }));
        let open = Open { space_ref: 0, space: self.space, needs_genesis: true, lanes };
        self.receive(peer, Message::Open(open).encode());
        self.sync();
    }

    /// Sends what the core has not received of the peer's lane.
    fn send_lane(&mut self, peer: usize) {
        let lane = self.peers[peer].lane();
        let status = self.space_status(self.space);
        let received = status.lanes.iter().find(|status| status.lane == lane);
        let from = received.map_or(0, |lane| lane.applied + lane.staged) as usize;
        let sender = &self.peers[peer];
        let Some(subscription) = sender.subscription.filter(|_| from < sender.len()) else { return };
        let run = sender.run(from);
        let (first, bytes) = (from as u64 + 1, run.as_slice());
        let data = Data { subscription, more: false, awaited: false, ends: false, first, bytes };
        self.receive(peer, Message::Data(data).encode());
    }

    fn sync(&mut self) {
        if std::mem::take(&mut self.sync_wanted) {
            self.durable = self.states();
            self.own.1 = self.own.0;
            let position = self.store.sync();
            self.input(Input::Synced { result: Ok(position) });
        }
    }

    /// A power cut: what was not synced is gone, and so are the sessions.
    fn crash(&mut self) {
        self.store.crash();
        self.engine = Engine::open(&OPTIONS, &mut self.store).expect("what a core keeps can be opened");
        self.open.clear();
        self.own.0 = self.own.1;
        self.sync_wanted = false;
        self.drain();
        assert_eq!(self.states(), self.durable, "a power cut leaves what was synced");
    }

    fn states(&mut self) -> BTreeMap<SpaceId, (Frontier, StateDigest)> {
        let spaces = self.status().spaces.into_iter();
        spaces.map(|space| (space.space, (space.frontier, space.digest))).collect()
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// Runs a command to the end, and returns its reply if it succeeds.
    fn command(&mut self, command: Command) -> Option<Reply> {
        let request = self.request();
        self.replies.clear();
        self.input(Input::Command { request, command });
        self.sync();
        self.replies.pop()
    }

    fn write(&mut self, delta: i64) {
        let (now, request) = (self.now(), self.request());
        let write = WriteOptions::new(request);
        let body = |tx: &mut comity_engine::Tx<'_>| tx.counter_add("stats", "likes", delta);
        let written = self.engine.transact::<(), TxError>(&now, self.space, write, &mut self.store, body);
        assert!(written.is_ok(), "a small write succeeds whatever peers do: {written:?}");
        self.own.0 += delta;
        self.drain();
    }

    /// Something to an object of another kind, as far as it is allowed; rights are asked for.
    fn write_elsewhere(&mut self, what: u8) {
        let (now, request) = (self.now(), self.request());
        let write = WriteOptions::new(request);
        let at = |kind| Location::from(ObjectAddress::new(kind, "stats", "others").expect("a short name"));
        let body = |tx: &mut comity_engine::Tx<'_>| match what {
            0 => tx.rw_set_remove_at(&at(Kind::RwSet), Value::I64(1)),
            1 => tx.remove_at(&at(Kind::Map)),
            2 => tx.remove_at(&at(Kind::Counter)),
            3 => tx.dw_flag_disable_at(&at(Kind::DwFlag)),
            4 => tx.remove_at(&at(Kind::Set)),
            5 => tx.remove_at(&at(Kind::Document)),
            6 => tx.bounded_increment_at(&at(Kind::BoundedCounter), 9),
            _ => Ok(()),
        };
        let written = self.engine.transact::<(), TxError>(&now, self.space, write, &mut self.store, body);
        assert!(!matches!(written, Err(TransactError::Panicked)), "a transaction does not panic");
        self.drain();
        if what == 7 {
            let (collection, key) = ("stats".to_owned(), "others".to_owned());
            let (space, amount, within) = (self.space, 5, Duration::from_millis(200));
            self.command(Command::AcquireRights { space, collection, key, amount, within });
        }
    }

    fn status(&mut self) -> Status {
        let request = self.request();
        self.replies.clear();
        self.input(Input::Command { request, command: Command::Status });
        let status = self.replies.drain(..).find_map(|reply| match reply {
            Reply::Status(status) => Some(*status),
            _ => None,
        });
        status.expect("a report needs no sync")
    }

    fn space_status(&mut self, space: SpaceId) -> SpaceStatus {
        let spaces = self.status().spaces;
        spaces.into_iter().find(|status| status.space == space).expect("the space is held")
    }

    fn check(&mut self) {
        let status = self.space_status(self.space);
        let mut expected = i128::from(self.own.0);
        for peer in &self.peers {
            let lane = status.lanes.iter().find(|lane| lane.lane == peer.lane());
            let applied = lane.map_or(0, |lane| lane.applied) as usize;
            expected += peer.likes(applied);
            assert!(lane.is_none_or(|lane| lane.frozen.is_none()), "nobody forked: {lane:?}");
        }
        let likes = counter(&self.store, &self.space, "stats", "likes").expect("memory does not fail");
        assert_eq!(likes, expected, "the counter is what honest replicas made of it");
        let replicas = self.peers.iter().map(|peer| peer.replica()).chain([self.engine.replica()]);
        let replicas: BTreeSet<_> = replicas.collect();
        assert!(status.members.iter().all(|(member, _)| replicas.contains(member)));
        let (other, before) = self.other.clone();
        let after = format!("{:?}", self.space_status(other));
        assert_eq!(after, before, "no state is shared between spaces");
    }
}
