//! The core: one value that is driven by inputs and drained of outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use comity_crdts::{Frontier, LaneId, ReplicaId, SpaceId, canary};
use ed25519_dalek::SigningKey;

use crate::acks::{Waits, Written};
use crate::audit::Audits;
use crate::deletion::Deletion;
use crate::extension::Extensions;
use crate::hash::hash;
use crate::invitations::Invitation;
use crate::io::{
    Applied, CloseReason, CommandError, Input, Notice, Now, Output, Reply, RequestId, SessionId,
};
use crate::journal::JournalLimits;
use crate::keys;
use crate::lag::{LagLimits, Moment};
use crate::limits::{APPLY_BYTES_TARGET, SYNC_RETRY};
use crate::membership::Farewell;
use crate::options::{BootstrapLimits, EngineOptions, ROWS_VERSION, TailLimits, WriteOptions, check_version};
use crate::quiet::Commons;
use crate::ranges::Ranged;
use crate::retention::Retention;
use crate::segments::Segments;
use crate::session::Session;
use crate::settings::is_region;
use crate::space::{InstanceToken, Space, SpaceRow, Terms, decode};
use crate::store::{Position, StateRead, Store, StoreError};
use crate::throttle::Throttle;
use crate::trust::Trusted;
use crate::tx::{Finished, TransactError, Tx, TxError};
use crate::version::VersionRange;
use crate::work::Work;

/// A commit that is not known to be durable yet.
pub(crate) struct Unsynced {
    pub(crate) position: Position,
    pub(crate) space: SpaceId,
    pub(crate) frontier: Frontier,
    pub(crate) events: Vec<Applied>,
    /// Of entries of others, in stored form.
    pub(crate) bytes: usize,
}

/// What a deadline is for. A timer that finds nothing to do is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Have(SessionId, SpaceId),
    Parents(SpaceId),
    Wait(RequestId),
    Invitations,
    Sync,
    Announce(SpaceId),
    Compact(SpaceId),
    Drop(SpaceId),
    Bootstrap(SpaceId),
    Install(SpaceId),
    Rights(RequestId),
    Part(SessionId),
    Delete(SpaceId),
    Lag(SpaceId),
    Release(SpaceId),
    Audit(SpaceId),
    Segments,
}

/// The deterministic core of a replica. It owns no thread, clock, socket or file.
pub struct Engine {
    pub(crate) key: SigningKey,
    pub(crate) replica: ReplicaId,
    pub(crate) instance: InstanceToken,
    pub(crate) region: Option<String>,
    pub(crate) journal: JournalLimits,
    pub(crate) tail: TailLimits,
    pub(crate) lag_limits: LagLimits,
    pub(crate) throttle: Option<Throttle>,
    /// When the last input was.
    pub(crate) latest: Moment,
    pub(crate) retention: Retention,
    pub(crate) bootstrap: BootstrapLimits,
    pub(crate) versions: VersionRange,
    pub(crate) extensions: Extensions,
    /// What peers speak with which no version is shared.
    pub(crate) refusals: BTreeMap<ReplicaId, VersionRange>,
    pub(crate) audits: Audits,
    /// Boxed, because a map reserves room for nearly twice as many as it holds.
    pub(crate) spaces: BTreeMap<SpaceId, Box<Space>>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) invitations: BTreeMap<(SpaceId, [u8; 32]), Invitation>,
    /// Whom spaces trust.
    pub(crate) trusted: Trusted,
    /// What is shared with whom.
    pub(crate) commons: Commons,
    pub(crate) open_at_once: usize,
    /// Encoded runs that somebody else may need as well.
    pub(crate) segments: Segments,
    pub(crate) waits: Waits,
    pub(crate) unsynced: VecDeque<Unsynced>,
    /// The bytes of these.
    pub(crate) unsynced_bytes: usize,
    pub(crate) timers: BTreeSet<(Duration, Timer)>,
    /// Spaces with something to apply or parents to choose.
    pub(crate) dirty: BTreeSet<SpaceId>,
    /// Sessions with something to send in a space.
    pub(crate) to_serve: BTreeSet<(SpaceId, SessionId)>,
    /// Spaces that a live session may be open for since.
    pub(crate) to_open: BTreeSet<(SessionId, SpaceId)>,
    /// Spaces whose staged entries wait for the sync under way.
    pub(crate) postponed: BTreeSet<SpaceId>,
    /// Former members that are to be told, oldest first.
    pub(crate) farewells: VecDeque<Farewell>,
    /// Spaces of which rows are still being removed.
    pub(crate) deletions: BTreeMap<SpaceId, Deletion>,
    pub(crate) committed: Position,
    pub(crate) synced: Position,
    pub(crate) sync_in_flight: bool,
    /// The disk was full: the next sync waits for its timer.
    pub(crate) sync_paused: bool,
    /// Spaces with documents that ought to be settled.
    pub(crate) to_settle: BTreeSet<SpaceId>,
    /// A document is being settled.
    pub(crate) settling: bool,
    /// Spaces that want a snapshot, receive or install one.
    pub(crate) brought_up: BTreeSet<SpaceId>,
    pub(crate) failed: Option<StoreError>,
    pub(crate) outputs: VecDeque<Output>,
}

impl Engine {
    /// Opens the core over a store. O(spaces × lanes).
    ///
    /// # Errors
    /// [`StoreError`] when storage fails or what it holds is damaged.
    pub fn open(options: &EngineOptions, store: &mut dyn Store) -> Result<Self, StoreError> {
        let stored = store.get(keys::REPLICA_KEY)?;
        if stored.is_some() {
            check_version(store)?;
        }
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
            region: options.region.clone(),
            journal: options.journal,
            tail: options.tail,
            lag_limits: options.lag,
            throttle: options.throttle,
            latest: Moment::default(),
            retention: options.retention,
            bootstrap: options.bootstrap,
            versions: options.versions,
            extensions: options.extensions,
            refusals: BTreeMap::new(),
            audits: Audits::new(options.audit),
            spaces: BTreeMap::new(),
            sessions: BTreeMap::new(),
            invitations: BTreeMap::new(),
            trusted: Trusted::default(),
            commons: Commons::default(),
            open_at_once: options.open_at_once,
            segments: Segments::new(options.segment_entries),
            waits: Waits::default(),
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            to_serve: BTreeSet::new(),
            to_open: BTreeSet::new(),
            postponed: BTreeSet::new(),
            farewells: VecDeque::new(),
            deletions: BTreeMap::new(),
            committed: Position(0),
            synced: Position(0),
            sync_in_flight: false,
            sync_paused: false,
            to_settle: BTreeSet::new(),
            settling: false,
            brought_up: BTreeSet::new(),
            failed: None,
            outputs: VecDeque::new(),
        };
        if stored.is_none() {
            let mut work = Work::over(store);
            work.put_fact(keys::REPLICA_KEY.to_vec(), secret.to_vec());
            work.put_fact(keys::ROWS_VERSION.to_vec(), vec![ROWS_VERSION]);
            let batch = work.into_batch();
            engine.committed = store.commit(batch)?;
            engine.request_sync();
        }
        engine.load(store)?;
        if !engine.invitations.is_empty() {
            engine.timers.insert((Duration::ZERO, Timer::Invitations));
        }
        Ok(engine)
    }

    pub(crate) fn load_space(
        &self,
        read: &dyn StateRead,
        (id, row): (SpaceId, SpaceRow),
    ) -> Result<Space, StoreError> {
        Space::load(read, (id, row), self.terms(), &self.replica, &self.instance)
    }

    pub(crate) fn terms(&self) -> Terms {
        let (tail, extensions, segment_entries) = (self.tail, self.extensions, self.segments.entries());
        Terms { tail, extensions, segment_entries }
    }

    fn load(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let (from, until) = keys::spaces();
        for (key, bytes) in store.scan(&from, &until, usize::MAX)? {
            let id: [u8; 16] = key[1..]
                .try_into()
                .map_err(|_| StoreError::Corrupt { detail: "a space row's key is not one".to_owned() })?;
            let row: SpaceRow = decode("space row", &bytes)?;
            let mut space = match self.load_space(store, (SpaceId(id), row.clone())) {
                Err(error @ StoreError::Corrupt { .. }) => {
                    self.load_listed(store, (SpaceId(id), row), error)?
                }
                loaded => loaded?,
            };
            space.note_shortening(&self.retention);
            if space.is_brought_up() {
                self.brought_up.insert(SpaceId(id));
            }
            if space.is_blocked() {
                self.timers.insert((Duration::ZERO, Timer::Install(SpaceId(id))));
            }
            space.compacting = true;
            self.timers.insert((Duration::ZERO, Timer::Compact(SpaceId(id))));
            // What was to be announced still is.
            self.dirty.insert(SpaceId(id));
            self.commons.touch(SpaceId(id));
            self.spaces.insert(SpaceId(id), Box::new(space));
            self.count_trusted(SpaceId(id));
        }
        self.load_deletions(store)?;
        self.load_invitations(store)
    }

    /// Why nothing is taken in and written any more, once storage has failed: the store has to be opened again.
    pub fn failure(&self) -> Option<&StoreError> {
        self.failed.as_ref()
    }

    /// Who this replica is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The secret half of the replica's key, for the transport.
    pub fn secret_key(&self) -> [u8; 32] {
        self.key.to_bytes()
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
        self.latest = Moment { monotonic: now.monotonic, wall_ms: now.wall_ms };
        match input {
            Input::Command { request, command } => self.on_command(now, request, command, store),
            Input::SessionOpened { session, peer } => self.on_session_opened(now, session, peer, store),
            Input::Cancelled { request } => self.cancel(request),
            Input::SessionClosed { session } => self.on_session_closed(session),
            Input::FrameReceived { session, frame } => self.on_frame(now, session, &frame, store),
            Input::Synced { result } => self.on_synced(now, result),
            Input::Unsettled { space, object } => self.on_unsettled(space, object),
            Input::Settled { result } => self.on_settled(now, result, store),
            Input::Snapshot { answer } => self.on_snapshot_answer(now, answer, store),
            Input::DeadlineReached => self.on_deadline(now, store),
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
    /// [`TransactError`]; nothing was kept then, and no reply will come but after [`TransactError::Duplicate`].
    pub fn transact<R, E: From<TxError>>(
        &mut self,
        now: &Now,
        space: SpaceId,
        write: WriteOptions,
        store: &mut dyn Store,
        body: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<R, TransactError<E>> {
        self.latest = Moment { monotonic: now.monotonic, wall_ms: now.wall_ms };
        if let Some(error) = &self.failed {
            return Err(TransactError::Tx(error.clone().into()));
        }
        if !self.spaces.contains_key(&space) {
            return Err(TransactError::UnknownSpace(space));
        }
        if self.spaces.get(&space).is_some_and(|space| space.is_blocked()) {
            return Err(TransactError::Installing(space));
        }
        if let Some(region) = self.unknown_region(&space, &write.durability) {
            return Err(TransactError::UnknownRegion(region));
        }
        if self.repeat(now, space, &write, store).map_err(|error| TransactError::Tx(error.into()))? {
            return Err(TransactError::Duplicate);
        }
        self.refuse_write(&space, store).map_err(TransactError::Tx)?;
        if let Some(throttled) = self.throttled(&space) {
            return Err(TransactError::Throttled(throttled));
        }
        let held = self.spaces.get_mut(&space).ok_or(TransactError::UnknownSpace(space))?;
        let mut tx = Tx::begin(held, &*store, (self.replica, self.region.as_deref()), now);
        tx.identify(write.operation);
        let result = match catch_unwind(AssertUnwindSafe(|| body(&mut tx))) {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                tx.roll_back();
                self.greet(now, space, store);
                return Err(TransactError::Refused(error));
            }
            Err(_) => {
                tx.roll_back();
                self.greet(now, space, store);
                return Err(TransactError::Panicked);
            }
        };
        let finished = match tx.finish(&self.instance) {
            Ok(finished) => finished,
            Err(error) => {
                self.greet(now, space, store);
                return Err(TransactError::Tx(error));
            }
        };
        let written = match finished {
            Some(finished) => match self.commit_local(space, finished, store) {
                Ok(place) => Some(place),
                Err(error) => {
                    self.on_store_error(now, error.clone());
                    return Err(TransactError::Tx(error.into()));
                }
            },
            None => None,
        };
        let frontier = self.spaces.get(&space).map(|space| space.frontier.clone()).unwrap_or_default();
        self.await_write(now, space, write, Written { place: written, frontier, deduplicated: false });
        self.greet(now, space, store);
        self.settle(now, store);
        Ok(result)
    }

    /// Lets a space be tended in which something was refused for want of a confirmation.
    fn greet(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) {
        if self.spaces.get(&id).is_some_and(|space| space.wants_confirmation) {
            self.dirty.insert(id);
            self.settle(now, store);
        }
    }

    /// Commits a finished transaction; returns its place in the own lane.
    pub(crate) fn commit_local(
        &mut self,
        id: SpaceId,
        finished: Finished,
        store: &mut dyn Store,
    ) -> Result<(LaneId, u64), StoreError> {
        let Finished { batch, own, objects, effects, region_said } = finished;
        let space = self.spaces.get_mut(&id).expect("the transaction ran on this space");
        let position = match store.commit(batch) {
            Ok(position) => position,
            Err(error) => {
                // Documents edited by the transaction are ahead of their rows.
                if !canary!(DocumentKeptLoaded) {
                    space.documents.clear();
                }
                return Err(error);
            }
        };
        let (origin, hlc, lsn) = (own.incarnation.origin, own.row.tip.hlc, own.row.tip.lsn);
        space.take_own(own);
        let frontier = space.frontier.clone();
        let says_region = objects.iter().any(is_region);
        let event = Applied { space: id, author: self.replica, hlc, objects, frontier: frontier.clone() };
        space.region_said |= region_said;
        space.hear(BTreeMap::new(), &effects);
        if effects.members_changed {
            self.reload_members(id, store)?;
        }
        self.note_commit(position, id, frontier, vec![event]);
        if says_region {
            self.reload_regions(id, store)?;
        }
        Ok((origin, lsn))
    }

    /// A batch was committed: what depends on it waits for the sync that covers it. That begins when everything is at rest, so
    /// that what is ready in other spaces goes with it.
    pub(crate) fn note_commit(
        &mut self,
        position: Position,
        space: SpaceId,
        frontier: Frontier,
        events: Vec<Applied>,
    ) {
        self.committed = position;
        self.unsynced.push_back(Unsynced { position, space, frontier, events, bytes: 0 });
        self.dirty.insert(space);
    }

    /// What was committed last has so many bytes of entries of others. From some on the disk has enough to do, and the rest
    /// waits for it.
    pub(crate) fn note_unsynced(&mut self, bytes: usize) {
        if let Some(unsynced) = self.unsynced.back_mut() {
            unsynced.bytes += bytes;
            self.unsynced_bytes += bytes;
        }
        if self.unsynced_bytes >= APPLY_BYTES_TARGET {
            self.request_sync();
        }
    }

    pub(crate) fn request_sync(&mut self) {
        let can_start = !self.sync_in_flight && !self.sync_paused && self.failed.is_none();
        if can_start && self.committed > self.synced {
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
        let mut moved = BTreeSet::new();
        while self.unsynced.front().is_some_and(|unsynced| unsynced.position <= position) {
            let Some(unsynced) = self.unsynced.pop_front() else { break };
            self.rouse(unsynced.space);
            self.commons.touch(unsynced.space);
            self.unsynced_bytes -= unsynced.bytes;
            if let Some(space) = self.spaces.get_mut(&unsynced.space) {
                space.durable.merge(&unsynced.frontier);
                moved.insert(unsynced.space);
            }
            for event in unsynced.events {
                self.push(Output::Notify(Notice::Applied(event)));
            }
        }
        if !canary!(PostponedForgotten) {
            self.dirty.append(&mut self.postponed);
        }
        if self.unsynced_bytes >= APPLY_BYTES_TARGET {
            // The disk goes on with what is committed while the next batch is applied.
            self.request_sync();
        }
        self.resolve_synced(now);
        self.audit_synced(now);
        self.say_farewells(now);
        self.dirty.extend(&self.brought_up);
        for id in moved {
            if let Some(space) = self.spaces.get_mut(&id) {
                for (lane_id, lane) in &mut space.lanes {
                    lane.forget_heads(space.durable.at(lane_id));
                }
                if space.lanes.values().any(|lane| !lane.doubted_by.is_empty()) {
                    self.dirty.insert(id);
                }
            }
            self.resolve_tokens(id);
            self.resolve_fresh(now, id);
            self.plan_lag_look(id);
            self.serve_all(id);
            self.answer_audits(now, id);
        }
    }

    /// A sync failed: whether what waited for it is durable is not known.
    fn on_sync_failed(&mut self, now: &Now, error: StoreError) {
        self.sync_paused = true;
        if canary!(AckAfterFailedSync) {
            let synced = std::mem::replace(&mut self.synced, self.committed);
            self.resolve_synced(now);
            self.synced = synced;
        }
        self.fail_waits(&error);
        self.on_store_error(now, error);
    }

    /// A full or slow disk is waited out: what was committed is still in memory. Anything else ends the
    /// writing: what is on disk is unknown until the store is reopened.
    pub(crate) fn on_store_error(&mut self, now: &Now, error: StoreError) {
        if matches!(error, StoreError::NoSpace | StoreError::Overloaded) {
            if !canary!(FullDiskNotRetried) {
                self.timers.insert((now.monotonic + SYNC_RETRY, Timer::Sync));
            }
            return;
        }
        self.end_waits(now, &error);
        self.failed = Some(error);
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.close(session, CloseReason::Storage);
        }
    }

    fn on_deadline(&mut self, now: &Now, store: &mut dyn Store) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now.monotonic {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Have(session, space) => self.send_have(now, session, space),
                Timer::Parents(id) => {
                    if let Some(space) = self.spaces.get_mut(&id) {
                        space.review_parents();
                        self.dirty.insert(id);
                    }
                }
                Timer::Wait(request) => self.expire_wait(now, request),
                Timer::Invitations => {
                    if let Err(error) = self.expire_invitations(now, store) {
                        self.on_store_error(now, error);
                    }
                }
                Timer::Announce(id) => {
                    if let Err(error) = self.announce(now, id, store) {
                        self.on_store_error(now, error);
                    }
                }
                Timer::Compact(id) => {
                    if let Err(error) = self.compact(now, id, store) {
                        self.on_store_error(now, error);
                    }
                }
                Timer::Audit(id) => self.tend_audit(now, id),
                Timer::Lag(id) => self.look_at_lag(now, id),
                Timer::Release(id) => {
                    if let Err(error) = self.release(now, id, store) {
                        self.on_store_error(now, error);
                    }
                }
                Timer::Drop(id) => {
                    if let Err(error) = self.drop_old(now, id, store) {
                        self.on_store_error(now, error);
                    }
                }
                Timer::Bootstrap(id) => self.watch_bootstrap(now, id),
                Timer::Install(id) => {
                    if let Err(error) = self.install_step(now, id, store) {
                        self.on_store_error(now, error);
                    }
                }
                Timer::Rights(request) => self.pursue_rights(now, request, store),
                Timer::Segments => self.forget_segments(now),
                Timer::Part(session) => self.part(session),
                Timer::Delete(id) => {
                    if let Err(error) = self.delete_step(now, id, store) {
                        self.on_store_error(now, error);
                    }
                }
                Timer::Sync => {
                    self.sync_paused = false;
                    self.dirty.append(&mut self.postponed);
                    self.request_sync();
                }
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
            self.on_store_error(now, error);
        }
    }

    fn settle_spaces(&mut self, now: &Now, store: &mut dyn Store) -> Result<(), StoreError> {
        loop {
            if let Some(id) = self.dirty.pop_first() {
                self.settle_space(now, id, store)?;
            } else if let Some((session, id)) = self.to_open.pop_first() {
                self.open_space(now, session, id, store)?;
            } else if let Some((id, session)) = self.to_serve.pop_first() {
                self.serve(now, session, id, store)?;
            } else {
                self.start_settling();
                self.request_sync();
                return Ok(());
            }
        }
    }

    fn settle_space(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        self.commons.touch(id);
        let settled = self.settle_steps(now, id, store);
        self.count_trusted(id);
        if settled.is_err() {
            // After a full disk it is tried again.
            self.postponed.insert(id);
        } else if cfg!(debug_assertions)
            && let Some(space) = self.spaces.get(&id)
        {
            space.assert_invariants();
            self.assert_subscriptions(space);
            self.assert_trusted(space);
        }
        settled
    }

    fn settle_steps(&mut self, now: &Now, id: SpaceId, store: &mut dyn Store) -> Result<(), StoreError> {
        if let Some(space) = self.spaces.get_mut(&id) {
            space.note_shortening(&self.retention);
        }
        self.apply_ready(now, id, store)?;
        self.advance_ranges(now, id, store)?;
        self.tend_install(now, id, store)?;
        self.tend_bootstrap(now, id, store)?;
        if !self.spaces.get(&id).is_some_and(|space| space.is_brought_up()) {
            self.brought_up.remove(&id);
        }
        self.choose_parents(now, id);
        self.show_doubted(id, store)?;
        self.tend(now, id, store)?;
        self.ask_where(now, id);
        self.resolve_rights(id, store)?;
        self.plan_audit(now, id);
        if self.spaces.get(&id).is_some_and(|space| !space.documents.unsettled.is_empty()) {
            self.to_settle.insert(id);
        }
        Ok(())
    }

    /// Panics when a lane is received twice, or over a subscription that nobody made: what a debug build
    /// checks after every step.
    fn assert_subscriptions(&self, space: &Space) {
        for (lane, parent) in &space.parents {
            let incoming =
                self.sessions.get(&parent.session).and_then(|s| s.incoming.get(&parent.subscription));
            let fits = incoming.is_some_and(|incoming| (incoming.space, incoming.lane) == (space.id, *lane));
            assert!(fits, "invariant 12: the parent of a lane is a live subscription");
        }
        let live = self.sessions.values().flat_map(|session| session.incoming.values());
        let live = live.filter(|incoming| incoming.space == space.id).count();
        let parts: usize = space.ranges.values().map(Ranged::held).sum();
        assert_eq!(
            live,
            space.parents.len() + parts,
            "invariant 12: one live subscription per lane, or parts"
        );
    }

    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason) {
        if self.sessions.contains_key(&session) {
            self.on_session_closed(session);
            self.push(Output::CloseSession { session, reason });
        }
    }
}

/// The hash under which an invitation's secret is kept.
pub(crate) fn secret_hash(space: &SpaceId, secret: &[u8; 16]) -> [u8; 32] {
    hash("comity 2026 invitation\0", &[&space.0, secret]).0
}
