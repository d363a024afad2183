//! A list of inputs to a core.

use std::time::Duration;

use comity_crdts::{Nonce, ReplicaId, SpaceId};
use comity_engine::wire::{Message, Open, OpenLane};
use comity_engine::{
    Command, Durability, Engine, EngineOptions, Input, Now, Output, RequestId, Role, SessionId, TxError,
    WriteOptions,
};
use comity_store::MemoryStore;

use crate::owner;

/// A core that a member of its space, and the bytes, drive.
struct Driven {
    engine: Engine,
    store: MemoryStore,
    clock: Duration,
    drawn: u8,
    requests: u64,
    sessions: u64,
    sync_wanted: bool,
}

impl Driven {
    fn new() -> Self {
        let mut store = MemoryStore::new();
        let options = EngineOptions { fresh_key: [1; 32], instance: [2; 32] };
        let engine = Engine::open(&options, &mut store).expect("memory does not fail");
        let clock = Duration::from_secs(1);
        Self { engine, store, clock, drawn: 0, requests: 0, sessions: 0, sync_wanted: false }
    }

    fn now(&mut self) -> Now {
        self.drawn = self.drawn.wrapping_add(1);
        let wall_ms = 1_700_000_000_000 + self.clock.as_millis() as u64;
        Now { monotonic: self.clock, wall_ms, fresh: Nonce([self.drawn; 16]) }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(&now, input, &mut self.store);
        while let Some(output) = self.engine.poll_output() {
            self.sync_wanted |= matches!(output, Output::RequestSync);
        }
    }

    fn sync(&mut self) {
        if std::mem::take(&mut self.sync_wanted) {
            let position = self.store.sync();
            self.input(Input::Synced { result: Ok(position) });
        }
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn command(&mut self, command: Command) {
        let request = self.request();
        self.input(Input::Command { request, command });
        self.sync();
    }

    fn write(&mut self, space: SpaceId, delta: i64) {
        let (now, request) = (self.now(), self.request());
        let write = WriteOptions { request, durability: Durability::Local, within: Duration::ZERO };
        let body = |tx: &mut comity_engine::Tx<'_>| tx.counter_add("stats", "likes", delta);
        let written = self.engine.transact::<(), TxError>(&now, space, write, &mut self.store, body);
        assert!(written.is_ok(), "a small write succeeds whatever peers do");
        while let Some(output) = self.engine.poll_output() {
            self.sync_wanted |= matches!(output, Output::RequestSync);
        }
    }

    fn open_session(&mut self, space: SpaceId, peer: ReplicaId) -> SessionId {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.input(Input::SessionOpened { session, peer });
        let (_, _, owner) = owner();
        let lanes = vec![OpenLane { lane: owner.lane(&space), lsn: 9, hash: [0; 8], subscription: None }];
        let hello = comity_engine::wire::Hello { version_min: 1, version_max: 1, wall_ms: 0 };
        let open = Open { space_ref: 0, space, needs_genesis: true, lanes };
        for message in [Message::Hello(hello), Message::Open(open)] {
            self.input(Input::FrameReceived { session, frame: message.encode() });
        }
        session
    }
}

/// A list of inputs to a core: frames of a member, writes, syncs, deadlines, sessions. In a debug build the
/// core checks its invariants after each.
pub fn engine(bytes: &[u8]) {
    let mut driven = Driven::new();
    driven.command(Command::CreateSpace { name: "fuzz".to_owned() });
    let space = driven.engine.spaces().map(|(id, _)| id).next().expect("the space was founded");
    driven.command(Command::Invite { space, role: Role::Writer, valid_for: Duration::from_secs(60) });
    let (_, _, owner) = owner();
    driven.command(Command::JoinSpace { space, inviter: owner.replica, secret: None });
    let mut session = driven.open_session(space, owner.replica);
    let mut rest = bytes;
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        match step % 8 {
            0 => driven.write(space, i64::from(*step)),
            1 => driven.sync(),
            2 => {
                driven.clock += Duration::from_millis(50);
                driven.input(Input::DeadlineReached);
            }
            3 => {
                driven.input(Input::SessionClosed { session });
                session = driven.open_session(space, owner.replica);
            }
            _ => {
                let Some((length, after)) = rest.split_first() else { break };
                let (frame, after) = after.split_at(usize::from(*length).min(after.len()));
                rest = after;
                driven.input(Input::FrameReceived { session, frame: frame.to_vec() });
            }
        }
    }
    driven.write(space, 1);
    driven.sync();
}
