//! The daemon: opening the replica, listening, and going down in order.

pub(crate) mod history;
mod listen;
pub(crate) mod readiness;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comity::{
    BindError, DirectoryError, JournalLimits, OpenError, OpenOptions, Replica, Retention, StoreError,
    StoreOptions,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::http::{App, router};
use history::History;
pub(crate) use listen::{Listener, Listening};
use readiness::Readiness;

/// Why the daemon did not start. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{error}. {advice}")]
    Open { error: OpenError, advice: &'static str },
    #[error("cannot listen for peers on {address}: {error}. Choose another address in peers.listen")]
    Peers { address: SocketAddr, error: BindError },
    #[error("cannot listen on {at}: {error}. {advice}")]
    Http { at: String, error: std::io::Error, advice: &'static str },
    #[error("{}: {detail}", path.display())]
    Tls { path: PathBuf, detail: String },
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        let advice = advice(&error);
        Self::Open { error, advice }
    }
}

/// What to do about a directory that does not open.
pub(crate) fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::Directory(DirectoryError::Locked { .. }) => {
            "Stop that process first, or name another directory in data_dir; two daemons never share one"
        }
        OpenError::Directory(DirectoryError::Foreign { .. }) => {
            "Nothing was changed. Name the directory of a replica in data_dir, or an empty one to start a replica"
        }
        OpenError::Directory(DirectoryError::NewerFormat { .. })
        | OpenError::Store(StoreError::Version { .. }) => {
            "Nothing was changed. Run the version of comity that wrote it, or a later one"
        }
        OpenError::Directory(DirectoryError::NoSpace { .. }) | OpenError::Store(StoreError::NoSpace) => {
            "Free some space and start again; nothing that was acknowledged is lost"
        }
        OpenError::Directory(DirectoryError::Damaged { .. })
        | OpenError::Store(StoreError::Corrupt { .. }) => {
            "Keep a copy of the directory, then restore a backup with `comity restore`; peers send what it lacks"
        }
        OpenError::Directory(DirectoryError::DataMissing { .. }) => {
            "Put the file back or restore a backup with `comity restore`; remove the directory only to start anew"
        }
        OpenError::Directory(DirectoryError::Denied { .. } | DirectoryError::NotADirectory { .. }) => {
            "Name a directory in data_dir that this user may write"
        }
        _ => "Nothing was changed",
    }
}

/// How a replica is opened by a configuration.
pub(crate) fn open_options(config: &Config) -> OpenOptions {
    const DAY_SECONDS: u64 = 24 * 60 * 60;
    let journal = JournalLimits {
        age_ms_max: config.journal.days_max.saturating_mul(DAY_SECONDS * 1_000),
        bytes_max: config.journal.bytes_max,
    };
    let retention = Retention {
        age: Duration::from_secs(config.storage.log_days_max.saturating_mul(DAY_SECONDS)),
        bytes_max: match config.storage.log_bytes_max {
            0 => u64::MAX,
            bytes_max => bytes_max,
        },
        ..Retention::USUAL
    };
    let mut options = OpenOptions::default().journal(journal).retention(retention);
    options.store = StoreOptions {
        cache_bytes: config.storage.cache_bytes,
        headroom_bytes: config.storage.headroom_bytes,
        ..StoreOptions::default()
    };
    match &config.region {
        Some(region) => options.region(region.clone()),
        None => options,
    }
}

/// A daemon that runs.
pub(crate) struct Daemon {
    app: Arc<App>,
    drain: watch::Sender<bool>,
    listening: JoinSet<()>,
    http: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
}

impl Daemon {
    /// Opens the replica and listens. When it returns, requests are answered.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then, and the directory is unlocked.
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let tls = config.http.tls.as_ref().map(tls::acceptor).transpose()?;
        let replica = Replica::open_with(&config.data_dir, open_options(&config)).await?;
        match Self::listen(Arc::clone(&config), replica.clone(), tls).await {
            Ok(daemon) => Ok(daemon),
            Err(error) => {
                replica.shutdown().await;
                Err(error)
            }
        }
    }

    async fn listen(
        config: Arc<Config>,
        replica: Replica,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for address in &config.http.listen {
            listeners.push(Listener::tcp(*address, tls.clone()).await?);
        }
        if let Some(path) = &config.http.unix {
            listeners.push(Listener::unix(path)?);
        }
        let http = listeners.iter().filter_map(Listener::address).collect();
        let mut peers = Vec::new();
        for address in &config.peers.listen {
            let bound = replica.listen(*address).await;
            peers.push(bound.map_err(|error| StartError::Peers { address: *address, error })?);
        }
        for address in &config.peers.advertise {
            replica.advertise(*address);
        }
        let (drain, draining) = watch::channel(false);
        let app = Arc::new(App {
            replica,
            started: Instant::now(),
            readiness: Readiness::new(draining.clone()),
            history: History::default(),
            draining: draining.clone(),
            streams: Arc::new(Semaphore::new(config.http.streams_max)),
            jobs: Default::default(),
            served: Default::default(),
            config,
        });
        let listening = Listening {
            router: router(&app),
            connections_max: app.config.http.connections_max,
            header_time_max: Duration::from_millis(app.config.http.header_ms_max),
            draining,
        };
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(listening.clone().run(listener));
        }
        let sampled = Arc::clone(&app);
        tasks.spawn(async move { sampled.history.keep(&sampled.replica, sampled.draining.clone()).await });
        Ok(Self { app, drain, listening: tasks, http, peers })
    }

    /// The TCP addresses on which the API is, with the ports that were chosen.
    pub(crate) fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The addresses on which peers are awaited.
    pub(crate) fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// What its handlers share.
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Every route of the API.
    pub(crate) fn router(&self) -> axum::Router {
        router(&self.app)
    }

    /// The replica.
    pub(crate) fn replica(&self) -> &Replica {
        &self.app.replica
    }

    /// Begins to go down: it is not ready any more, nothing is accepted, and feeds end.
    pub(crate) fn begin_drain(&self) {
        self.drain.send_replace(true);
    }

    /// Goes down in order:
    ///
    /// 1. it is not ready any more;
    /// 2. no connection is accepted, feeds end, and connections are closed after the request under way;
    /// 3. after `drain_ms_max`, those that are left are cut;
    /// 4. the replica is shut down: what was committed is synced, peers are told, the directory is unlocked.
    pub(crate) async fn drain(mut self) {
        self.begin_drain();
        let all_done = async { while self.listening.join_next().await.is_some() {} };
        let time_max = Duration::from_millis(self.app.config.drain_ms_max);
        if tokio::time::timeout(time_max, all_done).await.is_err() {
            tracing::warn!("requests were cut after drain_ms_max, {} ms", time_max.as_millis());
            self.listening.shutdown().await;
        }
        self.app.replica.clone().shutdown().await;
    }
}

/// Runs until SIGTERM or SIGINT. A second signal cuts what is still under way.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn run(config: Config) -> Result<(), StartError> {
    let started = Instant::now();
    let daemon = Daemon::start(config).await?;
    if let Some(damage) = daemon.replica().damage() {
        tracing::error!(?damage, "stored data was damaged; peers are asked for what is missing");
    }
    tracing::info!(
        replica = %daemon.replica().id(),
        http = ?daemon.http(),
        unix = daemon.app.config.http.unix.as_ref().map(|path| tracing::field::display(path.display())),
        peers = ?daemon.peers(),
        ms = started.elapsed().as_millis() as u64,
        "started"
    );
    notify("READY=1");
    let signal_name = wait_for_signal().await;
    tracing::info!(signal = signal_name, "going down");
    notify("STOPPING=1");
    tokio::select! {
        () = daemon.drain() => tracing::info!("stopped"),
        _ = wait_for_signal() => tracing::warn!("stopped at once by a second signal; nothing acknowledged is lost"),
    }
    Ok(())
}

/// Waits until the process is to end, and says by what.
pub(crate) async fn wait_for_signal() -> &'static str {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            // Without a handler the signal ends the process as it does by default.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => "SIGTERM",
        () = wait(SignalKind::interrupt()) => "SIGINT",
    }
}

/// Tells systemd, where it asks to be told (`Type=notify`).
fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent =
        std::os::unix::net::UnixDatagram::unbound().and_then(|from| from.send_to(state.as_bytes(), socket));
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd was not told {state}");
    }
}
