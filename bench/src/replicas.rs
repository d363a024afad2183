//! Replicas in one process: real cores over real stores on the disk, frames handed over in memory, and a clock
//! that moves only when nothing else is left to do.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use comity_crdts::{Nonce, SpaceId};
use comity_engine::{
    Command, Engine, EngineOptions, Input, Now, Output, Reply, RequestId, Retention, Role, SessionId,
    SnapshotSource, Status, Tx, TxError, WriteOptions,
};
use comity_store::{EmbeddedStore, KeptSnapshot, Reader, StoreOptions, Syncer};
use tempfile::TempDir;

use crate::Failure;

/// When the clock starts, as a wall clock.
const START_MS: u64 = 1_790_000_000_000;

/// A replica on a directory of its own.
pub(crate) struct Replica {
    pub(crate) engine: Engine,
    pub(crate) store: EmbeddedStore,
    pub(crate) syncer: Syncer,
    pub(crate) reader: Reader,
    dir: TempDir,
    inbox: VecDeque<Vec<u8>>,
    replies: Vec<Reply>,
    wants_sync: bool,
    snapshots: SnapshotSource<KeptSnapshot>,
}

impl Replica {
    fn open(key: u8, retention: Retention) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("comity-bench-").tempdir()?;
        let options = StoreOptions { view_age_max: Duration::from_secs(3_600), ..StoreOptions::default() };
        let opened = EmbeddedStore::open(dir.path(), options)?;
        let (mut store, syncer, reader) = (opened.store, opened.syncer, opened.reader);
        let options = EngineOptions { retention, ..EngineOptions::new([key; 32], opened.instance.0) };
        let engine = Engine::open(&options, &mut store)?;
        let (inbox, replies, snapshots) = Default::default();
        Ok(Self { engine, store, syncer, reader, dir, inbox, replies, wants_sync: false, snapshots })
    }

    /// The data file of the store.
    pub(crate) fn data_file(&self) -> PathBuf {
        self.dir.path().join("comity.redb")
    }
}

/// One replica, or two that are connected.
pub(crate) struct Replicas {
    pub(crate) all: Vec<Replica>,
    clock: Duration,
    drawn: u128,
    /// The one session, between the first replica and the second.
    session: SessionId,
    /// Of all frames that the first one sent.
    pub(crate) sent_bytes: u64,
    /// Of all frames that the others sent.
    pub(crate) answered_bytes: u64,
}

impl Replicas {
    /// Replicas that keep their logs.
    pub(crate) fn open(count: u8) -> Result<Self, Failure> {
        Self::keeping(count, Retention::OFF)
    }

    /// Replicas that keep their logs for so long.
    pub(crate) fn keeping(count: u8, retention: Retention) -> Result<Self, Failure> {
        let all = (1..=count).map(|key| Replica::open(key, retention)).collect::<Result<_, _>>()?;
        let mut replicas = Self {
            all,
            clock: Duration::from_secs(1),
            drawn: 0,
            session: SessionId(0),
            sent_bytes: 0,
            answered_bytes: 0,
        };
        replicas.settle()?;
        Ok(replicas)
    }

    /// A space that the first one founded and all take part in.
    pub(crate) fn found(&mut self) -> Result<SpaceId, Failure> {
        let space = self.found_alone()?;
        if self.all.len() > 1 {
            self.join(space)?;
            self.settle()?;
        }
        Ok(space)
    }

    /// A space that the first one founded.
    pub(crate) fn found_alone(&mut self) -> Result<SpaceId, Failure> {
        let Reply::SpaceCreated(space) = self.ask(0, Command::CreateSpace { name: "measured".to_owned() })?
        else {
            return Err("no space was founded".into());
        };
        Ok(space)
    }

    /// Lets the second one in, and connects the two.
    pub(crate) fn join(&mut self, space: SpaceId) -> Result<(), Failure> {
        let valid_for = Duration::from_secs(60);
        let Reply::Invited(secret) = self.ask(0, Command::Invite { space, role: Role::Writer, valid_for })?
        else {
            return Err("nobody was invited".into());
        };
        let inviter = self.all[0].engine.replica();
        self.ask(1, Command::JoinSpace { space, inviter, secret: Some(secret) })?;
        self.connect()
    }

    pub(crate) fn connect(&mut self) -> Result<(), Failure> {
        self.session.0 += 1;
        for (one, other) in [(0, 1), (1, 0)] {
            let peer = self.all[other].engine.replica();
            self.input(one, Input::SessionOpened { session: self.session, peer })?;
        }
        Ok(())
    }

    /// Cuts the connection, with what is on its way, and makes another one.
    pub(crate) fn reconnect(&mut self) -> Result<(), Failure> {
        self.disconnect()?;
        self.connect()
    }

    /// Cuts the connection, with what is on its way.
    pub(crate) fn disconnect(&mut self) -> Result<(), Failure> {
        self.all.iter_mut().for_each(|replica| replica.inbox.clear());
        for index in 0..2 {
            self.input(index, Input::SessionClosed { session: self.session })?;
        }
        self.all.iter_mut().for_each(|replica| replica.inbox.clear());
        Ok(())
    }

    /// Spaces that both take part in. They are not connected.
    pub(crate) fn found_many(&mut self, count: usize) -> Result<Vec<SpaceId>, Failure> {
        let name = || "measured".to_owned();
        let mut spaces = Vec::with_capacity(count);
        let created = self.ask_all(0, (0..count).map(|_| Command::CreateSpace { name: name() }))?;
        for reply in created {
            let Reply::SpaceCreated(space) = reply else { return Err("no space was founded".into()) };
            spaces.push(space);
        }
        let (inviter, replica) = (self.all[0].engine.replica(), self.all[1].engine.replica());
        let role = Role::Writer;
        self.ask_all(0, spaces.iter().map(|space| Command::Grant { space: *space, replica, role }))?;
        let join = |space: &SpaceId| Command::JoinSpace { space: *space, inviter, secret: None };
        self.ask_all(1, spaces.iter().map(join))?;
        self.connect()?;
        self.settle()?;
        self.disconnect()?;
        Ok(spaces)
    }

    /// Asks for much at once.
    fn ask_all(
        &mut self,
        index: usize,
        commands: impl Iterator<Item = Command>,
    ) -> Result<Vec<Reply>, Failure> {
        self.all[index].replies.clear();
        for command in commands {
            self.input(index, Input::Command { request: RequestId(1), command })?;
        }
        self.settle()?;
        Ok(std::mem::take(&mut self.all[index].replies))
    }

    /// Delivers what is on its way and no answers to it. Returns whether anything was.
    pub(crate) fn exchange(&mut self) -> Result<bool, Failure> {
        let waiting: Vec<VecDeque<Vec<u8>>> =
            self.all.iter_mut().map(|replica| std::mem::take(&mut replica.inbox)).collect();
        let was_any = waiting.iter().any(|frames| !frames.is_empty());
        for (index, frames) in waiting.into_iter().enumerate() {
            for frame in frames {
                self.input(index, Input::FrameReceived { session: self.session, frame })?;
            }
        }
        Ok(was_any)
    }

    pub(crate) fn now(&mut self) -> Now {
        self.drawn += 1;
        let wall_ms = START_MS + self.clock.as_millis() as u64;
        // Unique is all that is needed of it here.
        Now { monotonic: self.clock, wall_ms, fresh: Nonce(self.drawn.to_be_bytes()) }
    }

    /// Commits a transaction at the first replica; nothing else happens.
    pub(crate) fn transact(
        &mut self,
        space: SpaceId,
        body: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>,
    ) -> Result<(), Failure> {
        self.transact_at(0, space, body)
    }

    /// As [`Replicas::transact`], at one of them.
    pub(crate) fn transact_at(
        &mut self,
        index: usize,
        space: SpaceId,
        body: impl FnOnce(&mut Tx<'_>) -> Result<(), TxError>,
    ) -> Result<(), Failure> {
        self.clock += Duration::from_millis(1);
        let now = self.now();
        let replica = &mut self.all[index];
        replica.engine.transact(&now, space, write_options(), &mut replica.store, body)?;
        self.drain(index)
    }

    fn ask(&mut self, index: usize, command: Command) -> Result<Reply, Failure> {
        self.all[index].replies.clear();
        self.input(index, Input::Command { request: RequestId(1), command })?;
        self.settle()?;
        self.all[index].replies.pop().ok_or_else(|| "a command was not answered".into())
    }

    pub(crate) fn status(&mut self, index: usize) -> Result<Status, Failure> {
        match self.ask(index, Command::Status)? {
            Reply::Status(status) => Ok(*status),
            _ => Err("no status was reported".into()),
        }
    }

    fn input(&mut self, index: usize, input: Input) -> Result<(), Failure> {
        let now = self.now();
        let replica = &mut self.all[index];
        replica.engine.handle(&now, input, &mut replica.store);
        self.drain(index)
    }

    /// Takes what the core wants done.
    pub(crate) fn drain(&mut self, index: usize) -> Result<(), Failure> {
        while let Some(output) = self.all[index].engine.poll_output() {
            match output {
                Output::Reply { reply, .. } => self.all[index].replies.push(reply?),
                Output::SendFrame { frame, .. } => {
                    let sent = if index == 0 { &mut self.sent_bytes } else { &mut self.answered_bytes };
                    *sent += frame.len() as u64;
                    self.all[1 - index].inbox.push_back(frame);
                }
                Output::CloseSession { reason, .. } => return Err(reason.sentence().into()),
                Output::RequestSync => self.all[index].wants_sync = true,
                Output::Settle { space, object } => {
                    let result = comity_engine::settle(&self.all[index].store, &space, &object);
                    self.input(index, Input::Settled { result })?;
                }
                Output::Snapshot(task) => {
                    let clock = self.clock;
                    let Replica { reader, snapshots, .. } = &mut self.all[index];
                    if let Some(answer) = snapshots.handle(clock, task, || reader.keep()) {
                        self.input(index, Input::Snapshot { answer })?;
                    }
                }
                Output::Notify(_) => {}
            }
        }
        Ok(())
    }

    /// Syncs and delivers until nothing is left that does not wait for time.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        self.settle_until(&mut |_| false).map(drop)
    }

    /// As [`Replicas::settle`], or until something is so. Returns whether it is.
    fn settle_until(&mut self, stop: &mut dyn FnMut(&Self) -> bool) -> Result<bool, Failure> {
        loop {
            let mut idle = true;
            for index in 0..self.all.len() {
                let replica = &mut self.all[index];
                if std::mem::take(&mut replica.wants_sync) {
                    let result = replica.syncer.sync();
                    replica.syncer.maintain()?;
                    self.input(index, Input::Synced { result })?;
                    idle = false;
                }
                while let Some(frame) = self.all[index].inbox.pop_front() {
                    self.input(index, Input::FrameReceived { session: self.session, frame })?;
                    idle = false;
                    if stop(self) {
                        return Ok(true);
                    }
                }
            }
            // What is due now needs no time.
            let due: Vec<_> = (0..self.all.len()).filter(|index| self.is_due(*index)).collect();
            for index in due {
                self.input(index, Input::DeadlineReached)?;
                idle = false;
            }
            if stop(self) {
                return Ok(true);
            }
            if idle {
                return Ok(false);
            }
        }
    }

    fn is_due(&self, index: usize) -> bool {
        self.all[index].engine.next_deadline().is_some_and(|at| at <= self.clock)
    }

    /// Lets so much time pass, doing what is due at its moment.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), Failure> {
        self.pass_until(time, |_| false)
    }

    /// As [`Replicas::pass`], or until something is so.
    pub(crate) fn pass_until(
        &mut self,
        time: Duration,
        mut stop: impl FnMut(&Self) -> bool,
    ) -> Result<(), Failure> {
        let end = self.clock + time;
        if self.settle_until(&mut stop)? {
            return Ok(());
        }
        while let Some(due) = self.all.iter().filter_map(|replica| replica.engine.next_deadline()).min()
            && due <= end
        {
            self.clock = self.clock.max(due);
            if self.settle_until(&mut stop)? {
                return Ok(());
            }
        }
        self.clock = end;
        self.settle()
    }
}

pub(crate) fn write_options() -> WriteOptions {
    WriteOptions::new(RequestId(2))
}
