//! The core: one value that is driven by inputs and drained of outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use comity_crdts::limits::SPACE_NAME_BYTES_MAX;
use comity_crdts::{Frontier, LaneId, Nonce, ReplicaId, SpaceId};
use ed25519_dalek::SigningKey;

use crate::acks::Waits;
use crate::apply::Effects;
use crate::change::LaneOwner;
use crate::hash::hash;
use crate::invitations::Invitation;
use crate::io::{
    Applied, CloseReason, Command, CommandError, Durability, Input, Notice, Now, Output, Reply, RequestId,
    SessionId,
};
use crate::keys;
use crate::limits::SYNC_RETRY;
use crate::op::Role;
use crate::session::Session;
use crate::space::{Founder, Incarnation, InstanceToken, Lane, Space, SpaceRow, decode};
use crate::store::{Position, StateRead, Store, StoreError};
use crate::tx::{Finished, Tx, TxError};
use crate::work::Work;

/// What the core is opened with.
pub struct EngineOptions {
    /// The secret half of the replica's key, used when the store holds none yet.
    pub fresh_key: [u8; 32],
    /// The instance token of the data directory.
    pub instance: InstanceToken,
}

/// Why a transaction failed; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError<E> {
    /// The closure said so.
    #[error("{0}")]
    Refused(E),
    /// The closure panicked.
    #[error("the transaction panicked; it was rolled back")]
    Panicked,
    /// The change set was refused as a whole.
    #[error(transparent)]
    Tx(TxError),
    /// The caller named a space this replica does not hold.
    #[error("there is no space {0} at this replica")]
    UnknownSpace(SpaceId),
}

/// Whom a listener lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Members and pinned peers of any space.
    pub peers: BTreeSet<ReplicaId>,
    /// Whether somebody unknown may come with an invitation.
    pub invitations_open: bool,
}

/// A commit that is not known to be durable yet.
pub(crate) struct Unsynced {
    pub(crate) position: Position,
    pub(crate) space: SpaceId,
    pub(crate) frontier: Frontier,
    pub(crate) events: Vec<Applied>,
}

/// What a deadline is for. A timer that finds nothing to do is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Have(SessionId, SpaceId),
    Parents(SpaceId),
    Wait(RequestId),
    Sync,
}

/// The deterministic core of a replica. It owns no thread, clock, socket or file.
pub struct Engine {
    pub(crate) key: SigningKey,
    pub(crate) replica: ReplicaId,
    pub(crate) instance: InstanceToken,
    pub(crate) spaces: BTreeMap<SpaceId, Space>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) invitations: BTreeMap<(SpaceId, [u8; 32]), Invitation>,
    pub(crate) waits: Waits,
    pub(crate) unsynced: VecDeque<Unsynced>,
    pub(crate) timers: BTreeSet<(Duration, Timer)>,
    pub(crate) dirty: BTreeSet<SpaceId>,
    /// Spaces whose staged entries wait for the sync under way.
    pub(crate) postponed: BTreeSet<SpaceId>,
    pub(crate) committed: Position,
    pub(crate) synced: Position,
    pub(crate) sync_in_flight: bool,
    pub(crate) failed: Option<StoreError>,
    outputs: VecDeque<Output>,
}

impl Engine {
    /// Opens the core over a store. O(spaces × lanes).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails or what it holds is damaged.
    pub fn open(options: &EngineOptions, store: &mut dyn Store) -> Result<Self, StoreError> {
        let stored = store.get(keys::REPLICA_KEY)?;
        let secret = match &stored {
            Some(bytes) => <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| StoreError::Corrupt {
                detail: "the replica's key has not 32 bytes".to_owned(),
            })?,
            None => options.fresh_key,
        };
        let key = SigningKey::from_bytes(&secret);
        let replica = ReplicaId(key.verifying_key().to_bytes());
        let mut engine = Self {
            key,
            replica,
            instance: options.instance,
            spaces: BTreeMap::new(),
            sessions: BTreeMap::new(),
            invitations: BTreeMap::new(),
            waits: Waits::default(),
            unsynced: VecDeque::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            postponed: BTreeSet::new(),
            committed: Position(0),
            synced: Position(0),
            sync_in_flight: false,
            failed: None,
            outputs: VecDeque::new(),
        };
        if stored.is_none() {
            let mut work = Work::over(store);
            work.put_fact(keys::REPLICA_KEY.to_vec(), secret.to_vec());
            let batch = work.into_batch();
            engine.committed = store.commit(batch)?;
            engine.request_sync();
        }
        engine.load(store)?;
        Ok(engine)
    }

    fn load(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let (from, until) = keys::spaces();
        for (key, bytes) in store.scan(&from, &until, usize::MAX)? {
            let id: [u8; 16] = key[1..]
                .try_into()
                .map_err(|_| StoreError::Corrupt { detail: "a space row's key is not one".to_owned() })?;
            let row: SpaceRow = decode("space row", &bytes)?;
            let space = Space::load(store, SpaceId(id), row, &self.replica, &self.instance)?;
            self.spaces.insert(SpaceId(id), space);
        }
        self.load_invitations(store)
    }

    /// Who this replica is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The secret half of the replica's key, for the transport.
    pub fn secret_key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Whom a listener lets in at present. O(members).
    pub fn trust(&self) -> Trust {
        let mut trust = Trust { peers: BTreeSet::new(), invitations_open: !self.invitations.is_empty() };
        for space in self.spaces.values() {
            trust.peers.extend(space.members.keys().chain(&space.row.pinned));
        }
        trust
    }

    /// The spaces held here, with their names.
    pub fn spaces(&self) -> impl Iterator<Item = (SpaceId, &str)> + '_ {
        self.spaces.values().map(|space| (space.id, space.row.name.as_str()))
    }

    /// The peers whose addresses are remembered.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn remembered_peers(&self, store: &dyn Store) -> Result<Vec<(ReplicaId, String)>, StoreError> {
        let (from, until) = keys::peer_addresses();
        let rows = store.scan(&from, &until, usize::MAX)?;
        let decode = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let replica = ReplicaId(key[1..].try_into().ok()?);
            Some((replica, String::from_utf8(value.clone()).ok()?))
        };
        Ok(rows.iter().filter_map(decode).collect())
    }

    /// Takes in what happened. Never fails and never blocks; what is to be done comes out of
    /// [`Engine::poll_output`], in order.
    pub fn handle(&mut self, now: &Now, input: Input, store: &mut dyn Store) {
        match input {
            Input::Command { request, command } => self.on_command(now, request, command, store),
            Input::SessionOpened { session, peer } => self.on_session_opened(now, session, peer, store),
            Input::SessionClosed { session } => self.on_session_closed(session),
            Input::FrameReceived { session, frame } => self.on_frame(now, session, &frame, store),
            Input::Synced { result } => self.on_synced(now, result),
            Input::DeadlineReached => self.on_deadline(now),
        }
        self.settle(now, store);
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::DeadlineReached`] is wanted next.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Runs a transaction and commits what it did as one change set. The reply to `request` comes when the
    /// durability is reached, or `within` is over.
    ///
    /// # Errors
    /// [`TransactError`]; nothing was kept then and no reply will come.
    pub fn transact<R, E: From<TxError>>(
        &mut self,
        now: &Now,
        space: SpaceId,
        write: WriteOptions,
        store: &mut dyn Store,
        body: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<R, TransactError<E>> {
        if let Some(error) = &self.failed {
            return Err(TransactError::Tx(error.clone().into()));
        }
        let held = self.spaces.get_mut(&space).ok_or(TransactError::UnknownSpace(space))?;
        let mut tx = Tx::begin(held, &*store, self.replica, now);
        let result = match catch_unwind(AssertUnwindSafe(|| body(&mut tx))) {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                tx.roll_back();
                return Err(TransactError::Refused(error));
            }
            Err(_) => {
                tx.roll_back();
                return Err(TransactError::Panicked);
            }
        };
        let finished = tx.finish(&self.instance).map_err(TransactError::Tx)?;
        let written = match finished {
            Some(finished) => Some(
                self.commit_local(space, finished, store).map_err(|error| TransactError::Tx(error.into()))?,
            ),
            None => None,
        };
        self.await_write(now, space, write, written);
        self.settle(now, store);
        Ok(result)
    }

    /// Commits a finished transaction; returns its place in the own lane.
    pub(crate) fn commit_local(
        &mut self,
        id: SpaceId,
        finished: Finished,
        store: &mut dyn Store,
    ) -> Result<(LaneId, u64), StoreError> {
        let Finished { batch, incarnation, minted, tip, progress, space_row, objects, members_changed } =
            finished;
        let space = self.spaces.get_mut(&id).expect("the transaction ran on this space");
        let position = match store.commit(batch) {
            Ok(position) => position,
            Err(error) => {
                // Documents edited by the transaction are ahead of their rows.
                space.documents.clear();
                return Err(error);
            }
        };
        let Incarnation { origin, nonce } = incarnation;
        if minted {
            space.incarnation = Some(incarnation);
            space
                .lanes
                .entry(origin)
                .or_insert_with(|| Lane::new(&id, LaneOwner { replica: self.replica, nonce }));
        }
        if let Some(row) = space_row {
            space.row = row;
        }
        let (hlc, lsn) = (tip.hlc, tip.lsn);
        space.lanes.get_mut(&origin).expect("the own lane exists once an incarnation does").row.tip = tip;
        space.frontier.advance(origin, lsn);
        space.progress = progress;
        let frontier = space.frontier.clone();
        let event = Applied { space: id, author: self.replica, hlc, objects, frontier: frontier.clone() };
        if members_changed {
            self.reload_members(id, store)?;
        }
        self.note_commit(position, id, frontier, vec![event]);
        Ok((origin, lsn))
    }

    /// Reads the member list again after it changed.
    pub(crate) fn reload_members(&mut self, id: SpaceId, store: &dyn StateRead) -> Result<(), StoreError> {
        if let Some(space) = self.spaces.get_mut(&id) {
            let members = crate::read::members(store, &id);
            space.members =
                members.map_err(|error| crate::rows::damaged("member rows", &error))?.into_iter().collect();
            space.strangers.clear();
            self.push(Output::Notify(Notice::TrustChanged));
        }
        Ok(())
    }

    /// A batch was committed: what depends on it waits for the sync that covers it.
    pub(crate) fn note_commit(
        &mut self,
        position: Position,
        space: SpaceId,
        frontier: Frontier,
        events: Vec<Applied>,
    ) {
        self.committed = position;
        self.unsynced.push_back(Unsynced { position, space, frontier, events });
        self.dirty.insert(space);
        self.request_sync();
    }

    pub(crate) fn request_sync(&mut self) {
        if !self.sync_in_flight && self.failed.is_none() && self.committed > self.synced {
            self.sync_in_flight = true;
            self.push(Output::RequestSync);
        }
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn reply(&mut self, request: RequestId, reply: Result<Reply, CommandError>) {
        self.push(Output::Reply { request, reply });
    }

    fn on_synced(&mut self, now: &Now, result: Result<Position, StoreError>) {
        self.sync_in_flight = false;
        let position = match result {
            Ok(position) => position,
            Err(error) => return self.on_sync_failed(now, error),
        };
        self.synced = self.synced.max(position);
        while self.unsynced.front().is_some_and(|unsynced| unsynced.position <= position) {
            let Some(unsynced) = self.unsynced.pop_front() else { break };
            if let Some(space) = self.spaces.get_mut(&unsynced.space) {
                space.durable.merge(&unsynced.frontier);
                self.dirty.insert(unsynced.space);
            }
            for event in unsynced.events {
                self.push(Output::Notify(Notice::Applied(event)));
            }
        }
        self.dirty.append(&mut self.postponed);
        self.resolve_synced(now);
    }

    /// A full disk is waited out: what was committed is still in memory. Anything else ends the writing:
    /// what is on disk is unknown until the store is reopened.
    fn on_sync_failed(&mut self, now: &Now, error: StoreError) {
        self.fail_waits(&error);
        if error == StoreError::NoSpace {
            self.timers.insert((now.monotonic + SYNC_RETRY, Timer::Sync));
            return;
        }
        self.failed = Some(error);
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.close(session, CloseReason::Storage);
        }
    }

    fn on_deadline(&mut self, now: &Now) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now.monotonic {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Have(session, space) => self.send_have(now, session, space),
                Timer::Parents(space) => {
                    self.dirty.insert(space);
                }
                Timer::Wait(request) => self.expire_wait(request),
                Timer::Sync => self.request_sync(),
            }
        }
    }

    /// Brings everything this input touched to rest: applies what became ready, asks for a sync, serves
    /// subscribers, chooses parents.
    fn settle(&mut self, now: &Now, store: &mut dyn Store) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.settle_spaces(now, store) {
            self.on_sync_failed(now, error);
        }
    }

    fn settle_spaces(&mut self, now: &Now, store: &mut dyn Store) -> Result<(), StoreError> {
        let mut touched = BTreeSet::new();
        while let Some(space) = self.dirty.pop_first() {
            touched.insert(space);
            self.apply_ready(now, space, store)?;
            self.choose_parents(now, space);
        }
        self.request_sync();
        for space in touched {
            self.serve_subscribers(now, space, store)?;
            if cfg!(debug_assertions)
                && let Some(space) = self.spaces.get(&space)
            {
                space.assert_invariants();
            }
        }
        Ok(())
    }

    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason) {
        if self.sessions.contains_key(&session) {
            self.on_session_closed(session);
            self.push(Output::CloseSession { session, reason });
        }
    }

    fn on_command(&mut self, now: &Now, request: RequestId, command: Command, store: &mut dyn Store) {
        if let Some(error) = self.failed.clone() {
            return self.reply(request, Err(error.into()));
        }
        let result = match command {
            Command::CreateSpace { name } => self.create_space(now, request, &name, store),
            Command::JoinSpace { space, inviter, secret } => {
                self.join_space(now, request, (space, inviter, secret), store)
            }
            Command::Invite { space, role, valid_for } => {
                self.invite(now, request, (space, role, valid_for), store)
            }
            Command::RememberPeer { replica, address } => {
                let mut work = Work::over(store);
                work.put_fact(keys::peer_address(&replica), address.into_bytes());
                let batch = work.into_batch();
                self.commit_facts(now, request, Reply::Remembered, batch, store)
            }
            Command::AwaitToken { token, within } => self.await_token(now, request, token, within),
            Command::Status => {
                let status = self.status();
                self.reply(request, Ok(Reply::Status(Box::new(status))));
                Ok(())
            }
        };
        if let Err(error) = result {
            self.reply(request, Err(error));
        }
    }

    /// Commits a batch without lane entries; the reply waits for its sync.
    pub(crate) fn commit_facts(
        &mut self,
        now: &Now,
        request: RequestId,
        reply: Reply,
        batch: crate::store::Batch,
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        self.committed = store.commit(batch)?;
        self.await_facts(now, request, reply);
        self.request_sync();
        Ok(())
    }

    fn create_space(
        &mut self,
        now: &Now,
        request: RequestId,
        name: &str,
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        if name.is_empty() || name.len() > SPACE_NAME_BYTES_MAX {
            let (bytes, bytes_max) = (name.len(), SPACE_NAME_BYTES_MAX);
            return Err(CommandError::SpaceName { name: name.chars().take(24).collect(), bytes, bytes_max });
        }
        let founder = Founder { replica: self.replica, nonce: now.fresh };
        let id = SpaceId::derive(&founder.replica, &founder.nonce);
        let mut space = Space::new(id, empty_row());
        let mut work = Work::over(store);
        let mut effects = Effects::default();
        space.found(&mut work, &mut effects, founder, name.to_owned());
        space.progress.digest.0 = effects.digest;
        space.put_row(&mut work);
        space.put_progress(&mut work, &space.progress);
        let batch = work.into_batch();
        self.commit_facts(now, request, Reply::SpaceCreated(id), batch, store)?;
        self.spaces.insert(id, space);
        self.push(Output::Notify(Notice::TrustChanged));
        Ok(())
    }

    fn join_space(
        &mut self,
        now: &Now,
        request: RequestId,
        (id, inviter, secret): (SpaceId, ReplicaId, Option<[u8; 16]>),
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        let space = self.spaces.entry(id).or_insert_with(|| Space::new(id, empty_row()));
        space.row.pinned.insert(inviter);
        let is_member = space.members.contains_key(&self.replica);
        if let Some(secret) = secret.filter(|_| !is_member) {
            space.row.invitation = Some((inviter, secret));
        }
        let mut work = Work::over(store);
        space.put_row(&mut work);
        let batch = work.into_batch();
        self.commit_facts(now, request, Reply::Joined(id), batch, store)?;
        self.push(Output::Notify(Notice::TrustChanged));
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.peer == inviter).map(|(id, _)| *id).collect();
        for session in sessions {
            self.open_space(now, session, id, store)?;
        }
        Ok(())
    }
}

/// What a write asks for.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Carried back by the reply.
    pub request: RequestId,
    /// How durable it must be.
    pub durability: Durability,
    /// How long to wait for other replicas.
    pub within: Duration,
}

fn empty_row() -> SpaceRow {
    SpaceRow {
        name: String::new(),
        founder: None,
        incarnation: None,
        pinned: BTreeSet::new(),
        invitation: None,
    }
}

/// The hash under which an invitation's secret is kept.
pub(crate) fn secret_hash(space: &SpaceId, secret: &[u8; 16]) -> [u8; 32] {
    hash("comity 2026 invitation\0", &[&space.0, secret]).0
}

/// A nonce as an invitation's secret.
pub(crate) fn secret_of(fresh: &Nonce) -> [u8; 16] {
    fresh.0
}

/// The role a member list gives a replica.
pub(crate) fn is_admin(space: &Space, replica: &ReplicaId) -> bool {
    space.members.get(replica) == Some(&Role::Admin)
}
