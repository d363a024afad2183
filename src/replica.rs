//! The replica: opening, connecting, shutting down.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use comity_crdts::{ConflictPolicy, PolicyRegistry, ReplicaId, SpaceId};
use comity_engine::{
    AuditEvent, AuditLimits, BootstrapLimits, Command, Engine, EngineOptions, Fault, JournalLimits, LagEvent,
    LagLimits, REGION_BYTES_MAX, Reply, Retention, Role, Status, StoreError, Throttle, Verified,
    VersionRange,
};
use comity_store::{
    BackupError, BackupProgress, BackupReport, CompactReport, Damage, EmbeddedStore, Reader, Snapshot,
    StoreOptions,
};
use comity_transport::{BindError, CloseCode, ConnectionStats, Identity, TransportConfig};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::audit::AUDIT_EVENTS_MAX;
use crate::core::{
    Core, EVENTS_MAX, Event, Numbers, STORAGE_REQUESTS_MAX, Signals, TrustSet, fresh, run_syncer,
};
use crate::documents::{Documents, SETTLE_REQUESTS_MAX, run_settling};
use crate::error::{CompactError, ConnectedError, OpenError, RequestError};
use crate::lag::LAG_EVENTS_MAX;
use crate::meters::{Measured, Meters};
use crate::network::Network;
use crate::snapshots::{SNAPSHOT_TASKS_MAX, run_snapshots};
use crate::space::Space;
use crate::ticket::Ticket;
use crate::watch::Visible;

/// How a replica is opened.
///
/// ```no_run
/// # async fn example() -> Result<(), comity::OpenError> {
/// use comity::{OpenOptions, Replica};
///
/// let mut options = OpenOptions::default().region("eu");
/// options.stay_offline = true;
/// let replica = Replica::open_with("app.comity", options).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Storage.
    pub store: StoreOptions,
    /// The network.
    pub transport: TransportConfig,
    /// Do not dial remembered peers by itself.
    pub stay_offline: bool,
    pub(crate) region: Option<String>,
    pub(crate) journal: JournalLimits,
    pub(crate) lag: Option<LagLimits>,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) retention: Retention,
    pub(crate) bootstrap: BootstrapLimits,
    pub(crate) versions: VersionRange,
    pub(crate) audit: AuditLimits,
    pub(crate) policies: Policies,
}

/// Not known yet to be such as can be registered.
#[derive(Clone, Default)]
pub(crate) struct Policies(Vec<Arc<dyn ConflictPolicy>>);

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|policy| (policy.name(), policy.version()))).finish()
    }
}

impl OpenOptions {
    /// Where this replica is, 1 to [`REGION_BYTES_MAX`] bytes. Others learn it with the replica's next write in each
    /// space, and see it in conflicts and change events.
    #[must_use]
    pub fn region(mut self, name: impl Into<String>) -> Self {
        self.region = Some(name.into());
        self
    }

    /// How much the journal of each space may hold; ninety days and 64 MiB otherwise.
    #[must_use]
    pub fn journal(mut self, limits: JournalLimits) -> Self {
        self.journal = limits;
        self
    }

    /// Tells [`Space::lag_events`](crate::Space::lag_events) when a replica is behind by more than this, or is back
    /// within half of it. Nothing is told otherwise.
    #[must_use]
    pub fn lag_limits(mut self, limits: LagLimits) -> Self {
        self.lag = Some(limits);
        self
    }

    /// Lets local writes wait while others do not follow what is written here: for as long as the write may take
    /// ([`Transact::within`](crate::Transact::within)), and then they fail as
    /// [`WriteError::Throttled`](crate::WriteError::Throttled), with nothing written. Off otherwise. What others write
    /// is never held up, nor what a replica writes on its own behalf. A transaction that would change nothing waits
    /// too. With [`Away::Ignored`](crate::Away::Ignored), whoever is connected to nobody writes freely.
    ///
    /// Who may write is looked at before each write, so the bound is passed by one write at most.
    #[must_use]
    pub fn throttle(mut self, throttle: Throttle) -> Self {
        self.throttle = Some(throttle);
        self
    }

    /// How long entries of the log are kept that all writers have announced to have applied; seven days otherwise. Who comes
    /// later, or was away for longer with a lane that nobody waits for, takes over the state instead.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Which protocol versions this replica speaks: all that this build knows otherwise. The highest that a peer speaks as
    /// well is used with it; with a peer that speaks none there is no session, which
    /// [`Status::refused`](crate::Status::refused) shows, and it is dialed again with waits that grow.
    #[must_use]
    pub fn versions(mut self, versions: VersionRange) -> Self {
        self.versions = versions;
        self
    }

    /// When this replica takes over the state of another one instead of its log, and how much it takes.
    #[must_use]
    pub fn bootstrap(mut self, limits: BootstrapLimits) -> Self {
        self.bootstrap = limits;
        self
    }

    /// How often the state of each space is compared with that of others, and checked against itself; once a day
    /// otherwise. What is found is told to [`Space::audit_events`](crate::Space::audit_events).
    #[must_use]
    pub fn audit(mut self, limits: AuditLimits) -> Self {
        self.audit = limits;
        self
    }

    /// Makes a policy of the application's own known here, as [`Policy::Custom`](crate::Policy::Custom) of its name
    /// and version. Register it at every replica that reads the registers; [`check_policy`](crate::check_policy) helps
    /// to test it.
    #[must_use]
    pub fn policy(mut self, policy: Arc<dyn ConflictPolicy>) -> Self {
        self.policies.0.push(policy);
        self
    }

    /// Checks what can be checked before anything is touched.
    fn check(&self) -> Result<PolicyRegistry, OpenError> {
        let allowed = 1..=REGION_BYTES_MAX;
        if let Some(region) = self.region.as_ref().filter(|region| !allowed.contains(&region.len())) {
            let (name, bytes) = (region.chars().take(24).collect(), region.len());
            return Err(OpenError::Region { name, bytes, bytes_max: REGION_BYTES_MAX });
        }
        let mut registry = PolicyRegistry::new();
        self.policies.0.iter().try_for_each(|policy| registry.register(Arc::clone(policy)))?;
        Ok(registry)
    }
}

/// One installation that accepts writes, with its own durable store. Cheap to clone; all clones are the same
/// replica. It works without a network; where there is one, it keeps its spaces in step with its peers.
///
/// Shut it down with [`Replica::shutdown`]. A replica that is only dropped stops as after a power cut: nothing
/// acknowledged is lost.
#[derive(Clone)]
pub struct Replica {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) id: ReplicaId,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) reader: Reader,
    pub(crate) registry: Arc<PolicyRegistry>,
    pub(crate) documents: Arc<Documents>,
    damage: Option<Damage>,
    pub(crate) visible: watch::Receiver<Visible>,
    pub(crate) network: Arc<Network>,
    connected: watch::Receiver<BTreeSet<ReplicaId>>,
    /// To subscribe with; nothing is taken from it.
    pub(crate) lag: broadcast::Receiver<LagEvent>,
    /// As well.
    pub(crate) audit: broadcast::Receiver<AuditEvent>,
    /// Whether writers may have to wait for others to follow.
    pub(crate) is_throttled: bool,
    measured: Arc<Measured>,
    pub(crate) numbers: Numbers,
    stop: watch::Sender<bool>,
    /// Locked by whoever waits for them to end.
    threads: std::sync::Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Replica {
    /// Opens the replica kept in `dir`, and makes it where there is none. Peers that were connected to before
    /// are dialed again. Needs a tokio runtime, on which the network tasks run.
    ///
    /// # Errors
    /// [`OpenError`]; an existing replica is unchanged.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(dir, OpenOptions::default()).await
    }

    /// As [`Replica::open`], with options.
    ///
    /// # Errors
    /// [`OpenError`]; an existing replica is unchanged.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open_with(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, OpenError> {
        let dir = dir.as_ref().to_owned();
        let registry = Arc::new(options.check()?);
        let opening = options.clone();
        let opened = tokio::task::spawn_blocking(move || open_core(&dir, opening))
            .await
            .expect("opening a store does not panic and is not cancelled")?;
        let OpenedCore { engine, store, syncer, reader, damage, remembered } = opened;
        let id = engine.replica();
        let identity = Identity::from_secret(&engine.secret_key());
        let (events, inputs) = mpsc::channel(EVENTS_MAX);
        let (stop, stopped) = watch::channel(false);
        let (connected_sender, connected) = watch::channel(BTreeSet::new());
        let (online_sender, online) = watch::channel(true);
        let (visible_sender, visible) = watch::channel(Visible::default());
        let (lag_sender, lag) = broadcast::channel(LAG_EVENTS_MAX);
        let (audit_sender, audit) = broadcast::channel(AUDIT_EVENTS_MAX);
        let trust = Arc::new(TrustSet::default());
        let measured = Arc::new(Measured::default());
        let numbers = Numbers::default();
        let signals = Signals {
            visible: visible_sender,
            connected: connected_sender,
            online,
            trust: Arc::clone(&trust),
            lag: lag_sender,
            audit: audit_sender,
            events: events.downgrade(),
            measured: Arc::clone(&measured),
            numbers: numbers.clone(),
        };
        let (storage, storage_requests) = std_mpsc::sync_channel(STORAGE_REQUESTS_MAX);
        let (settling, settle_requests) = std_mpsc::sync_channel(SETTLE_REQUESTS_MAX);
        let (tasks, snapshot_tasks) = std_mpsc::sync_channel(SNAPSHOT_TASKS_MAX);
        let core = Core::new(engine, store, signals, storage, (settling, tasks));
        let (weak, views) = (events.downgrade(), reader.clone());
        let bootstraps = spawn("comity-snapshots", move || run_snapshots(&views, &snapshot_tasks, &weak))?;
        let (weak, snapshots) = (events.downgrade(), reader.clone());
        let settling = spawn("comity-documents", move || run_settling(&snapshots, &settle_requests, &weak))?;
        let weak = events.downgrade();
        let timed = Arc::clone(&measured);
        let syncing = spawn("comity-storage", move || {
            run_syncer(syncer, &storage_requests, (&weak, &timed.syncs));
        })?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(OpenError::Thread)?;
        let core_stop = stopped.clone();
        let running = spawn("comity-core", move || runtime.block_on(core.run(inputs, core_stop)))?;
        let weak = events.downgrade();
        let switches = (online_sender, stopped);
        let network = Network::new(identity, trust, options.transport, weak, connected.clone(), switches);
        let threads = std::sync::Mutex::new(vec![running, syncing, settling, bootstraps]);
        let documents = Arc::new(Documents::new(events.downgrade()));
        let shared = Shared {
            id,
            events,
            reader,
            registry,
            documents,
            damage,
            visible,
            network,
            connected,
            lag,
            audit,
            is_throttled: options.throttle.is_some(),
            measured,
            numbers,
            stop,
            threads,
        };
        let replica = Self { shared: Arc::new(shared) };
        if !options.stay_offline {
            for (peer, addresses) in remembered {
                replica.shared.network.dial(peer, addresses);
            }
        }
        Ok(replica)
    }

    /// What could not be read back when the replica was opened, of what had been durable. The replica goes on
    /// under a new incarnation, and its peers send it what they have of the loss.
    pub fn damage(&self) -> Option<&Damage> {
        self.shared.damage.as_ref()
    }

    /// Who this replica is.
    pub fn id(&self) -> ReplicaId {
        self.shared.id
    }

    /// Founds a space, of which this replica is the first admin.
    ///
    /// # Errors
    /// [`RequestError`] when the name is out of limits or storage fails.
    pub async fn create_space(&self, name: &str) -> Result<Space, RequestError> {
        match self.request(Command::CreateSpace { name: name.to_owned() }).await? {
            Reply::SpaceCreated(id) => Ok(Space::new(self.clone(), id)),
            other => unreachable!("a space was asked for, not {other:?}"),
        }
    }

    /// A space that this replica holds. O(log n).
    ///
    /// # Errors
    /// [`RequestError`] when it holds no such space.
    pub async fn space(&self, id: SpaceId) -> Result<Space, RequestError> {
        self.space_now(id)?.ok_or_else(|| comity_engine::CommandError::UnknownSpace(id).into())
    }

    /// As [`Replica::space`], without waiting; `None` when this replica holds no such space.
    ///
    /// # Errors
    /// [`RequestError`] when storage fails or the replica is shut down.
    pub fn space_now(&self, id: SpaceId) -> Result<Option<Space>, RequestError> {
        Ok(self.space_name(&id)?.map(|_| Space::new(self.clone(), id)))
    }

    /// The name of a space, empty until the founder's record arrived; `None` when this replica does not hold it.
    /// O(log n).
    ///
    /// # Errors
    /// [`RequestError`] when storage fails or the replica is shut down.
    pub fn space_name(&self, id: &SpaceId) -> Result<Option<String>, RequestError> {
        self.catalog(|snapshot| comity_engine::space_name(snapshot, id))
    }

    /// The spaces this replica holds, with their names. O(spaces); [`Replica::spaces_after`] pages.
    ///
    /// # Errors
    /// [`RequestError`] when storage fails or the replica is shut down.
    pub async fn spaces(&self) -> Result<Vec<(SpaceId, String)>, RequestError> {
        self.spaces_after(None, usize::MAX)
    }

    /// At most `limit` spaces after the space `after`, in the order of their ids, with their names. O(log n + spaces).
    ///
    /// # Errors
    /// [`RequestError`] when storage fails or the replica is shut down.
    pub fn spaces_after(
        &self,
        after: Option<&SpaceId>,
        limit: usize,
    ) -> Result<Vec<(SpaceId, String)>, RequestError> {
        self.catalog(|snapshot| comity_engine::spaces(snapshot, after, limit))
    }

    /// What is read of the newest durable state.
    fn catalog<R>(&self, read: impl FnOnce(&Snapshot) -> Result<R, StoreError>) -> Result<R, RequestError> {
        let failed = |error: StoreError| match self.shared.visible.has_changed() {
            // A replica that is shut down closes its store.
            Err(_) => RequestError::Stopped,
            Ok(_) => RequestError::Command(error.into()),
        };
        let snapshot = self.shared.reader.snapshot().map_err(failed)?;
        read(&snapshot).map_err(failed)
    }

    /// Takes part in the space a ticket names, and keeps a connection to the replica it names. The space can be
    /// written to at once, unless the ticket makes a follower of its bearer; joining and catching up go on in the background, also after a restart.
    ///
    /// # Errors
    /// [`RequestError`] when storage fails.
    pub async fn connect(&self, ticket: &Ticket) -> Result<Space, RequestError> {
        let Ticket { replica, addresses, space, secret, role } = ticket.clone();
        let inviter = replica;
        self.request(match role {
            Role::Follower => Command::FollowSpace { space, inviter, secret },
            Role::Writer | Role::Admin => Command::JoinSpace { space, inviter, secret },
        })
        .await?;
        if !addresses.is_empty() {
            let text: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            self.request(Command::RememberPeer { replica, address: text.join(",") }).await?;
            self.shared.network.dial(replica, addresses);
        }
        Ok(Space::new(self.clone(), space))
    }

    /// Listens for peers; returns the address, with the port that was chosen when 0 was asked for.
    ///
    /// # Errors
    /// [`BindError`] when the socket cannot be had, or the replica is shut down.
    pub async fn listen(&self, addr: SocketAddr) -> Result<SocketAddr, BindError> {
        self.shared.network.listen(addr)
    }

    /// Puts `addr` into tickets instead of the addresses listened on: for a replica that listens on every
    /// interface, or behind a forwarded port.
    pub fn advertise(&self, addr: SocketAddr) {
        self.shared.network.advertise(addr);
    }

    /// Ends every connection and makes no more until [`Replica::go_online`]. Writing goes on.
    ///
    /// # Errors
    /// [`RequestError`] when the replica is shut down.
    pub async fn go_offline(&self) -> Result<(), RequestError> {
        self.shared.network.set_online(false);
        self.send(Event::DropSessions(CloseCode::NORMAL)).await?;
        let mut connected = self.shared.connected.clone();
        connected.wait_for(BTreeSet::is_empty).await.map(|_| ()).map_err(|_| RequestError::Stopped)
    }

    /// Connects again after [`Replica::go_offline`].
    pub fn go_online(&self) {
        self.shared.network.set_online(true);
    }

    /// The peers connected at present.
    pub fn connected(&self) -> BTreeSet<ReplicaId> {
        self.shared.connected.borrow().clone()
    }

    /// Waits until `peer` is connected.
    ///
    /// # Errors
    /// [`ConnectedError`]; dialing goes on when the time is over.
    pub async fn wait_connected(&self, peer: ReplicaId, within: Duration) -> Result<(), ConnectedError> {
        let mut connected = self.shared.connected.clone();
        let arrival = connected.wait_for(|peers| peers.contains(&peer));
        match tokio::time::timeout(within, arrival).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ConnectedError::Stopped),
            Err(_) => Err(ConnectedError::TimedOut(within)),
        }
    }

    /// The report on every space, lane and peer.
    ///
    /// # Errors
    /// [`RequestError`] when the replica is shut down.
    pub async fn status(&self) -> Result<Status, RequestError> {
        match self.request(Command::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => unreachable!("a report was asked for, not {other:?}"),
        }
    }

    /// What went over every connection at present, by peer.
    ///
    /// # Errors
    /// [`RequestError`] when the replica is shut down.
    pub async fn traffic(&self) -> Result<Vec<(ReplicaId, ConnectionStats)>, RequestError> {
        let (answer, traffic) = oneshot::channel();
        // A caller that stopped waiting does not want the answer.
        let job = move |core: &mut Core| drop(answer.send(core.traffic()));
        self.send(Event::Job(Box::new(job))).await?;
        traffic.await.map_err(|_| RequestError::Stopped)
    }

    /// What the replica was busy with since it was opened. O(1); asks nobody.
    pub fn meters(&self) -> Meters {
        let (events, measured) = (&self.shared.events, &self.shared.measured);
        Meters {
            syncs: measured.syncs.read(),
            frames: measured.frames.read(),
            jobs: measured.jobs.read(),
            waiting: events.max_capacity() - events.capacity(),
            waiting_max: events.max_capacity(),
        }
    }

    /// Writes a copy of everything that is durable here at one moment into `dir`, which must be missing or empty, while
    /// the replica goes on: see [`Reader::back_up`](comity_store::Reader::back_up). What opens the copy is this replica
    /// under a new incarnation; the key is in it, so keep it as safe as the directory.
    ///
    /// `progress` is called for every portion, on another thread. Takes O(rows) time, and keeps the pages of that
    /// moment from being used again until it ends. Cancelling it does not stop it.
    ///
    /// # Errors
    /// [`BackupError`]; what was begun has no data file then, and can be removed.
    pub async fn back_up(
        &self,
        dir: impl AsRef<Path>,
        progress: impl FnMut(BackupProgress) + Send + 'static,
    ) -> Result<BackupReport, BackupError> {
        let (reader, dir) = (self.shared.reader.clone(), dir.as_ref().to_owned());
        tokio::task::spawn_blocking(move || reader.back_up(&dir, progress))
            .await
            .expect("a backup does not panic and is not cancelled")
    }

    /// Walks everything that is durable here at one moment and checks it against itself: chains, signatures, digests
    /// and indexes; see [`comity_engine::verify`]. `found` is given the faults as they are found, and `progress` now and
    /// then how many rows were looked at, and of how many, about; both on another thread.
    /// O(everything); views expire meanwhile for others as ever. Cancelling it does not stop it.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub async fn verify(
        &self,
        found: impl FnMut(Fault) + Send + 'static,
        mut progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Verified, StoreError> {
        let reader = self.shared.reader.clone();
        let verify = move || {
            let pinned = reader.pin()?;
            let all = pinned.rows()?;
            progress(0, all);
            let verified = comity_engine::verify(&pinned, found, |looked| progress(looked.min(all), all))?;
            progress(all, all);
            Ok(verified)
        };
        tokio::task::spawn_blocking(verify).await.expect("verifying does not panic and is not cancelled")
    }

    /// Gives the space that the data file does not use any more back to the file system, by copying what it
    /// holds into a new file that takes its place. Writes and reads go on; a write waits for one portion of the
    /// copy at most, some milliseconds, or once for its end, some tenths of a second. Views from before read on;
    /// the space is free once they are dropped or have expired. A crash at any moment loses nothing. Who asks
    /// while it is under way gets the same answer.
    ///
    /// Takes O(rows) time, a second or two for a million small ones, and until the end as much free space as the
    /// rows take. Cancelling it loses the answer only; shutting down ends it.
    ///
    /// # Errors
    /// [`CompactError`]; the data is as it was.
    pub async fn compact(&self) -> Result<CompactReport, CompactError> {
        let (answer, report) = oneshot::channel();
        let job = move |core: &mut Core| core.compact(answer);
        let mut stopped = self.shared.stop.subscribe();
        self.send(Event::Job(Box::new(job))).await.map_err(|_| CompactError::Stopped)?;
        tokio::select! {
            biased;
            report = report => Ok(report.map_err(|_| CompactError::Stopped)??),
            // A channel may keep for good what is put into it while its receiver goes away.
            _ = stopped.wait_for(|stopped| *stopped) => Err(CompactError::Stopped),
        }
    }

    pub(crate) async fn send(&self, event: Event) -> Result<(), RequestError> {
        self.shared.events.send(event).await.map_err(|_| RequestError::Stopped)
    }

    /// Asks the core and waits for the answer. Cancelling it loses the answer, and the core stops waiting for others.
    pub(crate) async fn request(&self, command: Command) -> Result<Reply, RequestError> {
        let (asked, answer) = oneshot::channel();
        let job = move |core: &mut Core| {
            let ((request, answer), now) = (core.ask(), core.now());
            let (engine, store) = core.parts();
            engine.handle(&now, comity_engine::Input::Command { request, command }, store);
            // When nobody takes it, the answer is dropped, which cancels the question.
            let _ = asked.send(answer);
        };
        self.send(Event::Job(Box::new(job))).await?;
        let answer = answer.await.map_err(|_| RequestError::Stopped)?;
        Ok(answer.wait().await.ok_or(RequestError::Stopped)??)
    }

    /// Ends the replica in order:
    ///
    /// 1. go offline: no connection is made or accepted, those that exist are closed;
    /// 2. wait for the sync of everything committed so far;
    /// 3. stop the core and the network tasks;
    /// 4. close the sockets, and wait until peers were told;
    /// 5. wait for the threads to end, which closes the store and unlocks the directory.
    ///
    /// Other clones of the replica answer [`RequestError::Stopped`] from then on.
    pub async fn shutdown(self) {
        // Each step holds also when the replica is already stopped, so their errors change nothing.
        let _ = self.go_offline().await;
        let _ = self.request(Command::Flush).await;
        self.shared.stop.send_replace(true);
        self.shared.network.close().await;
        let shared = Arc::clone(&self.shared);
        let joined = tokio::task::spawn_blocking(move || {
            // Locked until they have ended: no other shutdown returns sooner, even when this one is abandoned.
            let mut threads = shared.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for thread in threads.drain(..) {
                // A thread that panicked has said so on its way out.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

struct OpenedCore {
    engine: Engine,
    store: EmbeddedStore,
    syncer: comity_store::Syncer,
    reader: Reader,
    damage: Option<Damage>,
    remembered: Vec<(ReplicaId, Vec<SocketAddr>)>,
}

fn open_core(dir: &Path, options: OpenOptions) -> Result<OpenedCore, OpenError> {
    let OpenOptions { store, region, journal, lag, throttle, retention, bootstrap, versions, audit, .. } =
        options;
    let opened = EmbeddedStore::open(dir, store)?;
    let (mut store, syncer, reader, damage) = (opened.store, opened.syncer, opened.reader, opened.damage);
    if let Some(damage) = &damage {
        tracing::error!(?damage, "stored data is damaged; peers are asked for what is missing");
    }
    let options = EngineOptions {
        region,
        journal,
        lag: lag.unwrap_or(LagLimits::NONE),
        throttle,
        retention,
        bootstrap,
        versions,
        audit,
        ..EngineOptions::new(fresh(), opened.instance.0)
    };
    let engine = Engine::open(&options, &mut store)?;
    let parse = |text: &str| text.split(',').filter_map(|addr| addr.parse().ok()).collect();
    let remembered = engine.remembered_peers(&store)?;
    let remembered = remembered.into_iter().map(|(peer, text)| (peer, parse(&text))).collect();
    Ok(OpenedCore { engine, store, syncer, reader, damage, remembered })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(OpenError::Thread)
}
