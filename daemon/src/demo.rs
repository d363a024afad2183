//! `comity demo`: three regions on this machine, and a page on which to write in each, to cut and slow the links
//! between them, to watch them diverge and heal, and to decide what only people can.
//!
//! Nothing of it is played: each region is a daemon with a directory of its own, and they meet over QUIC. Only the
//! distance between them is made, by relays that hold, or lose, every datagram.

mod arrivals;
mod link;
mod page;
mod state;
mod world;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::serve::{Listener, Listening, StartError, wait_for_signal};
use world::{World, WorldError};

/// Where the page is when nothing else is said.
pub(crate) const PORT_DEFAULT: u16 = 4470;

/// Connections to the page: a browser opens six.
const CONNECTIONS_MAX: usize = 256;

/// How long a connection may take to say what it wants.
const HEADER_TIME_MAX: Duration = Duration::from_secs(15);

/// How long going down waits for answers under way.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// What the demo is run with.
pub(crate) struct Demo {
    /// The port of the page; 0 for any.
    pub(crate) port: u16,
    /// Where the regions' directories are kept; somewhere temporary otherwise.
    pub(crate) keep: Option<PathBuf>,
}

/// Why the demo did not start. Whatever had started is stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("cannot make a directory for the regions: {0}")]
    Directory(std::io::Error),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error("the page cannot be shown at {address}: {error}. Choose another port by --port, or 0 for any")]
    Page { address: SocketAddr, error: std::io::Error },
}

impl DemoError {
    fn page(address: SocketAddr, error: StartError) -> Self {
        let error = match error {
            StartError::Http { error, .. } => error,
            other => std::io::Error::other(other),
        };
        Self::Page { address, error }
    }
}

/// Runs until Ctrl-C, and removes the regions' directories then, unless they are to be kept.
///
/// # Errors
/// [`DemoError`].
pub(crate) async fn run(demo: Demo) -> Result<(), DemoError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, demo.port));
    // Taken first: where it is in use, nothing else is begun.
    let listener = Listener::tcp(address, None).await.map_err(|error| DemoError::page(address, error))?;
    let at = listener.address().unwrap_or(address);
    let directory = Directory::new(demo.keep).map_err(DemoError::Directory)?;
    let world = Arc::new(World::open(&directory.path).await?);
    let (drain, draining) = watch::channel(false);
    let (shown, router) = page::open(&world, &draining);
    let listening =
        Listening { router, connections_max: CONNECTIONS_MAX, header_time_max: HEADER_TIME_MAX, draining };
    let serving = tokio::spawn(listening.run(listener));
    greet(&world, at);
    wait_for_signal().await;
    say("\nGoing down.\n");
    drain.send_replace(true);
    world.regions.iter().for_each(|region| region.daemon.begin_drain());
    shown.abort_all().await;
    let abort = serving.abort_handle();
    if tokio::time::timeout(DRAIN_TIME_MAX, serving).await.is_err() {
        abort.abort();
    }
    match Arc::into_inner(world) {
        Some(world) => world.close().await,
        // An answer that was cut still holds it; what it had acknowledged is on disk.
        None => tracing::warn!("the regions were stopped as by a power cut"),
    }
    Ok(())
}

fn greet(world: &World, at: SocketAddr) {
    let mut text =
        "Three regions run on this machine, each with its own disk, and meet over QUIC:\n\n".to_owned();
    for region in &world.regions {
        let http = region.daemon.http().first().map(ToString::to_string).unwrap_or_default();
        text += &format!("  {}  {:<10}  dashboard and API  http://{http}/\n", region.name, region.place);
    }
    text += &format!("\nOpen   http://{at}/   and follow the five steps there. Ctrl-C ends it.\n");
    say(&text);
}

/// Prints. Whoever stopped reading does not end the demo.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The directory of the regions, removed in the end unless it is to be kept.
struct Directory {
    path: PathBuf,
    is_temporary: bool,
}

impl Directory {
    fn new(keep: Option<PathBuf>) -> std::io::Result<Self> {
        if let Some(path) = keep {
            std::fs::create_dir_all(&path)?;
            return Ok(Self { path, is_temporary: false });
        }
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).map_err(std::io::Error::other)?;
        let path = std::env::temp_dir().join(format!("comity-demo-{}", crate::names::hex(&bits)));
        std::fs::create_dir(&path)?;
        Ok(Self { path, is_temporary: true })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("comity: {} is left behind: {error}", self.path.display());
        }
    }
}
