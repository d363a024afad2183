//! The thread that owns the core, and the thread that syncs storage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, mpsc as std_mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use comity_crdts::{Nonce, ObjectAddress, ReplicaId, SpaceId};
use comity_engine::{
    AuditEvent, Class, CommandError, Engine, Input, LagEvent, Notice, Now, Output, Reply, RequestId,
    SessionId, SnapshotTask, StoreError, Trust,
};
use comity_store::{CompactError as StoreCompactError, CompactReport, EmbeddedStore, Syncer};
use comity_transport::{
    CloseCode, ConnectionHandle, ConnectionStats, FrameSender, Keep, PeerKey, SendError, survivor,
};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};

use crate::meters::{Measured, Meter};
use crate::watch::Visible;

/// Inputs that wait for the core. Writers wait for room, which is how the core pushes back.
pub(crate) const EVENTS_MAX: usize = 1_024;
/// Transactions and frames that the core takes in before it is looked at what it wants done: so many that looking costs
/// little, and so few that what is wanted first waits for less than a millisecond.
const EVENTS_AT_ONCE: usize = 64;

/// Something for the core to do.
pub(crate) enum Event {
    Input(Input),
    /// A frame of a session, with its share of what the session may have waiting here.
    Frame {
        /// From which.
        session: SessionId,
        /// Its bytes.
        frame: Bytes,
        /// Returned once the core has taken it in.
        room: Option<OwnedSemaphorePermit>,
    },
    /// A transaction or a command, with its way back inside.
    Job(Box<dyn FnOnce(&mut Core) + Send>),
    /// A connection was established; the answer is its number, unless another to the same peer is kept.
    Connected(Box<Connected>),
    /// Close every connection.
    DropSessions(CloseCode),
    /// The storage thread has compacted, or not.
    Compacted(Compacted),
}

/// What compacting came to.
pub(crate) type Compacted = Result<CompactReport, StoreCompactError>;

/// Something for the storage thread to do.
pub(crate) enum StorageRequest {
    Sync,
    Compact,
}

/// Requests that wait for the storage thread: one of each kind.
pub(crate) const STORAGE_REQUESTS_MAX: usize = 2;

/// A connection that asks to become a session.
pub(crate) struct Connected {
    pub(crate) sender: FrameSender,
    pub(crate) handle: ConnectionHandle,
    pub(crate) answer: oneshot::Sender<Option<SessionId>>,
}

struct Sink {
    sender: FrameSender,
    handle: ConnectionHandle,
    peer: ReplicaId,
}

/// Whom the listener lets in, kept in step with the core.
#[derive(Default)]
pub(crate) struct TrustSet(RwLock<Trust>);

impl TrustSet {
    fn set(&self, trust: Trust) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = trust;
    }
}

impl comity_transport::Trust for TrustSet {
    fn accepts(&self, peer: &PeerKey) -> bool {
        let trust = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        trust.invitations_open || trust.peers.contains(&ReplicaId(peer.0))
    }
}

/// What the rest of the program sees of the core as it runs.
#[derive(Clone)]
pub(crate) struct Signals {
    /// Wakes watchers. They read what became visible from the store.
    pub(crate) visible: watch::Sender<Visible>,
    /// The peers with a session at present.
    pub(crate) connected: watch::Sender<BTreeSet<ReplicaId>>,
    /// Whether connections are wanted.
    pub(crate) online: watch::Receiver<bool>,
    pub(crate) trust: Arc<TrustSet>,
    /// Who falls behind; a slow listener misses the oldest.
    pub(crate) lag: broadcast::Sender<LagEvent>,
    /// What audits find; likewise.
    pub(crate) audit: broadcast::Sender<AuditEvent>,
    /// The way back to the core, for answers that nobody waits for any more.
    pub(crate) events: mpsc::WeakSender<Event>,
    pub(crate) measured: Arc<Measured>,
    pub(crate) numbers: Numbers,
}

/// Numbers for questions.
#[derive(Clone, Default)]
pub(crate) struct Numbers(Arc<AtomicU64>);

impl Numbers {
    /// One that no other question has.
    pub(crate) fn next(&self) -> RequestId {
        RequestId(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The answer to a question, to be waited for. Dropped before it came, it tells the core, which stops waiting for
/// others then; where the core has no room for that, it waits to the end of the time that was allowed.
pub(crate) struct Answer<T = Result<Reply, CommandError>> {
    request: RequestId,
    reply: oneshot::Receiver<T>,
    events: mpsc::WeakSender<Event>,
}

impl<T> Answer<T> {
    /// The answer that will come to the question with this number.
    pub(crate) fn new(
        request: RequestId,
        reply: oneshot::Receiver<T>,
        events: mpsc::WeakSender<Event>,
    ) -> Self {
        Self { request, reply, events }
    }

    /// Waits for it; `None` when the core is gone.
    pub(crate) async fn wait(mut self) -> Option<T> {
        (&mut self.reply).await.ok()
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if matches!(self.reply.try_recv(), Err(oneshot::error::TryRecvError::Empty))
            && let Some(events) = self.events.upgrade()
        {
            // Without room the core finds out when the time is over.
            let _ = events.try_send(Event::Input(Input::Cancelled { request: self.request }));
        }
    }
}

/// What is done with a reply. Dropped, it says that none will come.
type OnReply = Box<dyn FnOnce(Result<Reply, CommandError>) + Send>;

/// The ways to the threads that settle documents and read snapshots.
pub(crate) type Readers =
    (std_mpsc::SyncSender<(SpaceId, ObjectAddress)>, std_mpsc::SyncSender<SnapshotTask>);

/// The core and everything it commands. One thread owns it by value.
pub(crate) struct Core {
    engine: Engine,
    store: EmbeddedStore,
    replies: BTreeMap<RequestId, OnReply>,
    sinks: BTreeMap<SessionId, Sink>,
    signals: Signals,
    storage: std_mpsc::SyncSender<StorageRequest>,
    settling: std_mpsc::SyncSender<(SpaceId, ObjectAddress)>,
    snapshots: std_mpsc::SyncSender<SnapshotTask>,
    /// Who waits for the compaction under way.
    compactions: Vec<oneshot::Sender<Compacted>>,
    started: Instant,
    next_session: u64,
}

impl Core {
    pub(crate) fn new(
        engine: Engine,
        store: EmbeddedStore,
        signals: Signals,
        storage: std_mpsc::SyncSender<StorageRequest>,
        (settling, snapshots): Readers,
    ) -> Self {
        signals.trust.set(engine.trust());
        Self {
            engine,
            store,
            replies: BTreeMap::new(),
            sinks: BTreeMap::new(),
            signals,
            storage,
            settling,
            snapshots,
            compactions: Vec::new(),
            started: Instant::now(),
            next_session: 0,
        }
    }

    /// Runs until told to stop. What is committed but not synced by then is not acknowledged to anyone.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, mut stop: watch::Receiver<bool>) {
        self.drain();
        loop {
            let deadline = self.engine.next_deadline().and_then(|at| self.started.checked_add(at));
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                event = events.recv() => match event {
                    Some(event) => self.on_events(event, &mut events),
                    None => return,
                },
                () = sleep_until(deadline) => self.input(Input::DeadlineReached),
            }
            self.drain();
        }
    }

    /// Takes in what waits. What the core wants done is left to the caller after transactions and frames, and done before
    /// and after anything else, which has to do with sessions and answers themselves.
    fn on_events(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        let mut first = Some(first);
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = first.take().or_else(|| events.try_recv().ok()) else { return };
            let goes_along = matches!(event, Event::Job(_) | Event::Frame { .. });
            if !goes_along {
                self.drain();
            }
            self.on_event(event);
            if !goes_along {
                self.drain();
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Input(Input::SessionClosed { session }) => {
                if self.sinks.remove(&session).is_some() {
                    self.publish_connected();
                    self.input(Input::SessionClosed { session });
                }
            }
            Event::Input(Input::Cancelled { request }) => {
                self.withdraw(request);
                self.input(Input::Cancelled { request });
            }
            // Frames of a session that was closed here may still be in the channel; the core ignores them.
            Event::Frame { session, frame, room } => {
                let measured = Arc::clone(&self.signals.measured);
                let input = Input::FrameReceived { session, frame: frame.into() };
                measured.frames.time(|| self.input(input));
                drop(room);
            }
            Event::Input(input) => self.input(input),
            Event::Job(job) => {
                let measured = Arc::clone(&self.signals.measured);
                measured.jobs.time(|| job(self));
            }
            Event::Connected(connected) => self.on_connected(*connected),
            Event::Compacted(result) => {
                for waiting in self.compactions.drain(..) {
                    // Who stopped waiting does not want to know.
                    let _ = waiting.send(result.clone());
                }
            }
            Event::DropSessions(code) => {
                for session in self.sinks.keys().copied().collect::<Vec<_>>() {
                    self.end_session(session, code, code.name().unwrap_or_default());
                    self.input(Input::SessionClosed { session });
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(&now, input, &mut self.store);
    }

    /// The present moment, with fresh randomness.
    pub(crate) fn now(&self) -> Now {
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Now { monotonic: self.started.elapsed(), wall_ms, fresh: Nonce(fresh()) }
    }

    /// The core and its store, for a job.
    pub(crate) fn parts(&mut self) -> (&mut Engine, &mut EmbeddedStore) {
        (&mut self.engine, &mut self.store)
    }

    /// A number for a question, and its answer.
    pub(crate) fn ask(&mut self) -> (RequestId, Answer) {
        let request = self.signals.numbers.next();
        let (answer, reply) = oneshot::channel();
        // The caller may have stopped waiting; what it asked for stands all the same.
        self.on_reply(request, move |reply| drop(answer.send(reply)));
        (request, Answer::new(request, reply, self.signals.events.clone()))
    }

    /// Says what is to be done with the reply to a question.
    pub(crate) fn on_reply(
        &mut self,
        request: RequestId,
        then: impl FnOnce(Result<Reply, CommandError>) + Send + 'static,
    ) {
        self.replies.insert(request, Box::new(then));
    }

    /// Takes back a question that will not be answered.
    pub(crate) fn withdraw(&mut self, request: RequestId) {
        self.replies.remove(&request);
    }

    /// Has the storage compacted, once for all who ask while it is under way.
    pub(crate) fn compact(&mut self, answer: oneshot::Sender<Compacted>) {
        if self.compactions.is_empty() {
            // One is outstanding at most, so there is room; without a storage thread nobody is answered.
            drop(self.storage.try_send(StorageRequest::Compact));
        }
        self.compactions.push(answer);
    }

    /// Traffic of every session, by peer.
    pub(crate) fn traffic(&self) -> Vec<(ReplicaId, ConnectionStats)> {
        self.sinks.values().map(|sink| (sink.peer, sink.handle.stats())).collect()
    }

    fn on_connected(&mut self, connected: Connected) {
        let Connected { sender, handle, answer } = connected;
        let peer = ReplicaId(handle.peer().0);
        if let Some(reason) = self.unwanted(&peer) {
            handle.close(CloseCode::NORMAL, reason);
            // A receiver that is gone has given up on the connection, which is closed either way.
            let _ = answer.send(None);
            return;
        }
        let existing = self.sinks.iter().find(|(_, sink)| sink.peer == peer).map(|(session, _)| *session);
        if let Some(existing) = existing {
            let local = PeerKey(self.engine.replica().0);
            let kept = &self.sinks[&existing].handle;
            let verdict = survivor(&local, &handle.peer(), kept.dialed(), kept.age(), handle.dialed());
            if kept.close_reason().is_none() && verdict == Keep::Existing {
                handle.close(CloseCode::DUPLICATE, "another connection is kept");
                // A receiver that is gone has given up on the connection, which is closed either way.
                let _ = answer.send(None);
                return;
            }
            // The peer is connected all along: nobody is to dial it in between, which could end the new connection as well.
            if let Some(replaced) = self.sinks.remove(&existing) {
                replaced.handle.close(CloseCode::DUPLICATE, "another connection is kept");
            }
            self.input(Input::SessionClosed { session: existing });
        }
        self.next_session += 1;
        let session = SessionId(self.next_session);
        self.sinks.insert(session, Sink { sender, handle, peer });
        self.publish_connected();
        // When nobody takes the number, the connection's task is gone and its close follows by the handle.
        let _ = answer.send(Some(session));
        self.input(Input::SessionOpened { session, peer });
    }

    /// Why there is to be no session with a peer now.
    fn unwanted(&self, peer: &ReplicaId) -> Option<&'static str> {
        // Established before the network was told to go offline, and heard of after the sessions were ended.
        if !*self.signals.online.borrow() {
            return Some("this replica is offline for now");
        }
        // A copy of this data directory, or this very replica: it has the same key and the same name.
        (*peer == self.engine.replica()).then_some("a replica has no session with itself")
    }

    fn end_session(&mut self, session: SessionId, code: CloseCode, reason: &str) {
        if let Some(sink) = self.sinks.remove(&session) {
            sink.handle.close(code, reason);
            self.publish_connected();
        }
    }

    fn publish_connected(&self) {
        let peers = self.sinks.values().map(|sink| sink.peer).collect();
        self.signals.connected.send_replace(peers);
    }

    /// Carries out everything the core wants done.
    pub(crate) fn drain(&mut self) {
        let mut moved = BTreeSet::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Reply { request, reply } => {
                    if let Ok(Reply::Deleted(space)) = &reply {
                        // Who watches it is to learn that there is nothing to wait for.
                        moved.insert(*space);
                    }
                    if let Some(then) = self.replies.remove(&request) {
                        then(reply);
                    }
                }
                Output::SendFrame { session, class, frame } => self.send(session, class, frame),
                Output::CloseSession { session, reason } => {
                    tracing::warn!(session = session.0, reason = reason.sentence(), "closing a session");
                    self.end_session(session, CloseCode(reason.code()), reason.sentence());
                }
                // At most one is outstanding, so there is room; a storage thread that is gone has said why.
                Output::RequestSync => drop(self.storage.try_send(StorageRequest::Sync)),
                // As above.
                Output::Settle { space, object } => drop(self.settling.try_send((space, object))),
                Output::Snapshot(task) => {
                    let refused = match self.snapshots.try_send(task) {
                        Ok(()) | Err(std_mpsc::TrySendError::Disconnected(_)) => None,
                        Err(std_mpsc::TrySendError::Full(task)) => task.refused(),
                    };
                    if let Some(answer) = refused {
                        self.input(Input::Snapshot { answer });
                    }
                }
                Output::Notify(Notice::Applied(applied)) => drop(moved.insert(applied.space)),
                Output::Notify(Notice::Installed { space }) => {
                    tracing::info!(%space, "the state was taken over from another replica");
                    moved.insert(space);
                }
                Output::Notify(notice) => self.notify(&notice),
            }
        }
        if !moved.is_empty() {
            // Once for all that became visible together.
            self.signals.visible.send_modify(|visible| {
                moved.into_iter().for_each(|space| visible.note(space));
            });
        }
        self.tell_of_failure();
    }

    /// Once storage has failed nothing becomes visible any more, which watchers are told instead of waiting for good.
    fn tell_of_failure(&self) {
        let Some(error) = self.engine.failure() else { return };
        self.signals.visible.send_if_modified(|visible| {
            let is_news = visible.failed.is_none();
            if is_news {
                tracing::error!(%error, "storage failed: this replica goes on when it is opened again");
                visible.failed = Some(error.clone());
            }
            is_news
        });
    }

    fn send(&mut self, session: SessionId, class: Class, frame: Vec<u8>) {
        let Some(sink) = self.sinks.get_mut(&session) else { return };
        let class = match class {
            Class::Control => comity_transport::Class::Control,
            Class::Live => comity_transport::Class::Live,
            Class::CatchUp => comity_transport::Class::CatchUp,
        };
        match sink.sender.try_send(class, Bytes::from(frame)) {
            Ok(()) | Err(SendError::Closed) => {}
            // The core bounds what is unacknowledged, so a full queue is a peer that stopped reading.
            Err(error) => {
                tracing::warn!(peer = %sink.peer, %error, "closing a session that does not keep up");
                self.end_session(session, CloseCode::SLOW_PEER, "the peer does not keep up");
                self.input(Input::SessionClosed { session });
            }
        }
    }

    fn notify(&self, notice: &Notice) {
        match notice {
            Notice::TrustChanged => self.signals.trust.set(self.engine.trust()),
            Notice::Denied { space, peer } => {
                tracing::warn!(%space, %peer, "the peer will not serve the space")
            }
            Notice::Removed { space, peer } => {
                tracing::warn!(%space, %peer, "the peer says that this replica is no longer a member")
            }
            // Whether anybody listens is theirs to know.
            Notice::Lag(event) => drop(self.signals.lag.send(*event)),
            Notice::VersionRefused(refusal) => {
                tracing::error!(%refusal, "no protocol version is shared with a peer; one of the two has to be upgraded")
            }
            Notice::Released { space, objects } => {
                let objects = objects.len();
                tracing::info!(%space, objects, "operations that were held have been carried out")
            }
            Notice::Audit(event) => {
                match event {
                    AuditEvent::Upheld { .. } => tracing::info!(?event, "an audit"),
                    event => tracing::error!(?event, "an audit"),
                }
                drop(self.signals.audit.send(event.clone()));
            }
            Notice::PartUnfit { space, lane, peer } => {
                tracing::warn!(%space, %lane, %peer, "what a peer sent of a lane does not go on from what is held here")
            }
            Notice::Frozen { space, lane, why } => tracing::error!(%space, %lane, %why, "a lane is frozen"),
            _ => {}
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Bits from the operating system, drawn now.
pub(crate) fn fresh<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness for a running process");
    bytes
}

/// How often files from before a compaction are looked after while nothing else happens.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// How long the storage thread waits for the next sync before it lets the database follow the log: longer than one writer
/// takes between two writes, so that those share the work and none of them waits for it.
const FOLLOW_AFTER: Duration = Duration::from_millis(10);

/// Runs the storage barrier whenever asked, and compacts in between, until the core is gone.
pub(crate) fn run_syncer(
    mut syncer: Syncer,
    requests: &std_mpsc::Receiver<StorageRequest>,
    (events, syncs): (&mpsc::WeakSender<Event>, &Meter),
) {
    let (mut compacts, mut follows, mut reclaims) = (false, false, false);
    loop {
        let pause = match (compacts, follows, reclaims) {
            (true, ..) => Some(Duration::ZERO),
            (false, true, _) => Some(FOLLOW_AFTER),
            (false, false, true) => Some(RECLAIM_INTERVAL),
            (false, false, false) => None,
        };
        let request = match pause {
            Some(pause) => requests
                .recv_timeout(pause)
                .map_err(|error| error == std_mpsc::RecvTimeoutError::Disconnected),
            None => requests.recv().map_err(|_| true),
        };
        match request {
            Ok(StorageRequest::Sync) => {
                if !sync(&mut syncer, (events, syncs)) {
                    return;
                }
                follows = syncer.is_ahead();
            }
            Ok(StorageRequest::Compact) => compacts = true,
            Err(false) if follows && !compacts => {
                follows = false;
                maintained(syncer.follow());
            }
            Err(false) => {}
            // Nobody is left to ask.
            Err(true) => return,
        }
        if compacts {
            let Some(result) = syncer.compact_step().transpose() else { continue };
            (compacts, reclaims) = (false, true);
            if !tell(events, Event::Compacted(result)) {
                return;
            }
        } else if reclaims {
            reclaims = syncer.reclaim();
        }
    }
}

/// One barrier and what is to be done after it. Whether the core is still there.
fn sync(syncer: &mut Syncer, (events, syncs): (&mpsc::WeakSender<Event>, &Meter)) -> bool {
    let result = syncs.time(|| syncer.sync());
    if let Err(error) = &result {
        tracing::error!(%error, "sync failed");
    }
    if !tell(events, Event::Input(Input::Synced { result })) {
        return false;
    }
    // The database, checkpoints and the log's next file, while nobody waits.
    maintained(syncer.maintain());
    true
}

/// What failed, the next sync reports.
fn maintained(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(%error, "storage maintenance failed");
    }
}

/// Whether the core was still there to be told.
pub(crate) fn tell(events: &mpsc::WeakSender<Event>, event: Event) -> bool {
    events.upgrade().is_some_and(|events| events.blocking_send(event).is_ok())
}

/// How long a transaction may hold up its space.
pub(crate) const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(1);
