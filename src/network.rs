//! Connections: listening, dialing with back-off, and the task behind each session.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use comity_crdts::ReplicaId;
use comity_engine::Input;
use comity_transport::{
    Backoff, BindError, Class, CloseCode, ConnectError, Connection, Endpoint, FrameReceiver, Identity,
    PeerKey, RecvError, TransportConfig,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::core::{Connected, Event, TrustSet, fresh};
use crate::error::RequestError;

/// A connection that lasted this long was a good one: the next dial starts over with short waits.
const SETTLED_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// How long closing waits for peers to be told. The word goes out at once; QUIC only repeats it to a peer that
/// did not hear it, and for a dial that nobody answered it would do so for seconds.
const CLOSING_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// Frames of a catch-up that wait for the core, of each connection. The core takes in what comes in its order, so what is
/// urgent waits behind no more of them; each takes it about a millisecond.
const CATCH_UP_WAITING_MAX: usize = 8;

/// The network side of a replica. Every task it starts ends when `stop` turns true.
pub(crate) struct Network {
    identity: Identity,
    trust: Arc<TrustSet>,
    config: TransportConfig,
    events: mpsc::WeakSender<Event>,
    connected: watch::Receiver<BTreeSet<ReplicaId>>,
    online: watch::Sender<bool>,
    stop: watch::Receiver<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    endpoints: Vec<Arc<Endpoint>>,
    listening: Vec<SocketAddr>,
    advertised: Vec<SocketAddr>,
    /// Peers that are dialed, with the addresses that are tried.
    dialed: BTreeMap<ReplicaId, watch::Sender<Vec<SocketAddr>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Network {
    pub(crate) fn new(
        identity: Identity,
        trust: Arc<TrustSet>,
        config: TransportConfig,
        events: mpsc::WeakSender<Event>,
        connected: watch::Receiver<BTreeSet<ReplicaId>>,
        (online, stop): (watch::Sender<bool>, watch::Receiver<bool>),
    ) -> Arc<Self> {
        Arc::new(Self { identity, trust, config, events, connected, online, stop, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a socket that peers can dial.
    pub(crate) fn listen(self: &Arc<Self>, addr: SocketAddr) -> Result<SocketAddr, BindError> {
        let endpoint = self.bind(addr)?;
        let local = endpoint.local_addr();
        self.state().listening.push(local);
        Ok(local)
    }

    fn bind(self: &Arc<Self>, addr: SocketAddr) -> Result<Arc<Endpoint>, BindError> {
        if *self.stop.borrow() {
            return Err(BindError::Socket(std::io::Error::other(RequestError::Stopped)));
        }
        let trust: Arc<dyn comity_transport::Trust> = Arc::<TrustSet>::clone(&self.trust);
        let endpoint = Arc::new(Endpoint::bind(addr, &self.identity, trust, self.config.clone())?);
        let accepting = tokio::spawn(Arc::clone(self).accept(Arc::clone(&endpoint)));
        let mut state = self.state();
        state.endpoints.push(Arc::clone(&endpoint));
        state.tasks.push(accepting);
        Ok(endpoint)
    }

    /// The addresses to put into tickets: those advertised, otherwise those listened on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let state = self.state();
        if !state.advertised.is_empty() {
            return state.advertised.clone();
        }
        state.listening.iter().filter(|addr| !addr.ip().is_unspecified()).copied().collect()
    }

    pub(crate) fn advertise(&self, addr: SocketAddr) {
        self.state().advertised.push(addr);
    }

    pub(crate) fn is_online(&self) -> bool {
        *self.online.borrow()
    }

    pub(crate) fn set_online(&self, online: bool) {
        self.online.send_replace(online);
    }

    async fn accept(self: Arc<Self>, endpoint: Arc<Endpoint>) {
        let mut stop = self.stop.clone();
        loop {
            let incoming = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                incoming = endpoint.accept() => incoming,
            };
            match incoming {
                None => return,
                Some(Err(error)) => tracing::info!(%error, "a handshake failed"),
                Some(Ok(connection)) => {
                    let session = tokio::spawn(Arc::clone(&self).run_session(connection));
                    self.keep_task(session);
                }
            }
        }
    }

    fn keep_task(&self, task: JoinHandle<()>) {
        let mut state = self.state();
        state.tasks.retain(|task| !task.is_finished());
        state.tasks.push(task);
    }

    /// Keeps a connection to a peer for as long as the replica lives. Without an address, or to this very
    /// replica, there is none to keep.
    pub(crate) fn dial(self: &Arc<Self>, peer: ReplicaId, addresses: Vec<SocketAddr>) {
        if addresses.is_empty() || peer.0 == self.identity.public().0 {
            return;
        }
        let mut state = self.state();
        if let Some(known) = state.dialed.get(&peer) {
            known.send_replace(addresses);
            return;
        }
        let (sender, receiver) = watch::channel(addresses);
        state.dialed.insert(peer, sender);
        let dialing = tokio::spawn(Arc::clone(self).keep_dialing(peer, receiver));
        state.tasks.push(dialing);
    }

    async fn keep_dialing(self: Arc<Self>, peer: ReplicaId, mut addresses: watch::Receiver<Vec<SocketAddr>>) {
        let mut stop = self.stop.clone();
        let mut backoff = Backoff::new(u64::from_le_bytes(fresh()));
        let mut attempt = 0_usize;
        loop {
            let wanted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                wanted = self.wanted(peer) => wanted,
            };
            if !wanted {
                return;
            }
            let known = addresses.borrow_and_update().clone();
            let addr = known[attempt % known.len()];
            attempt += 1;
            let dialed = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                dialed = self.dial_once(addr, peer) => dialed,
            };
            match dialed {
                Ok(connection) => {
                    let lived = std::time::Instant::now();
                    Arc::clone(&self).run_session(connection).await;
                    // A peer that closes at once is as good as one that does not answer.
                    if lived.elapsed() > SETTLED_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => tracing::debug!(%peer, %addr, %error, "dialing failed"),
            }
            let wait = backoff.next();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                _ = addresses.changed() => {}
                () = self.came_online() => backoff.reset(),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Waits until dialing makes sense: online, and no session with the peer. `false` when the core is gone.
    async fn wanted(&self, peer: ReplicaId) -> bool {
        let (mut online, mut connected) = (self.online.subscribe(), self.connected.clone());
        loop {
            if online.wait_for(|online| *online).await.is_err() {
                return false;
            }
            if connected.wait_for(|peers| !peers.contains(&peer)).await.is_err() {
                return false;
            }
            if *online.borrow() {
                return true;
            }
        }
    }

    /// Waits for the moment at which the replica comes online.
    async fn came_online(&self) {
        let mut online = self.online.subscribe();
        while online.changed().await.is_ok() {
            if *online.borrow_and_update() {
                return;
            }
        }
        std::future::pending().await
    }

    async fn dial_once(
        self: &Arc<Self>,
        addr: SocketAddr,
        peer: ReplicaId,
    ) -> Result<Connection, ConnectError> {
        let endpoint = {
            let fits = |endpoint: &&Arc<Endpoint>| endpoint.local_addr().is_ipv4() == addr.is_ipv4();
            self.state().endpoints.iter().find(fits).cloned()
        };
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => {
                let any =
                    if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                self.bind(SocketAddr::new(any, 0)).map_err(|_| ConnectError::BadAddress(addr))?
            }
        };
        // The first frames leave with the last flight of the handshake, which saves a round trip.
        endpoint.connect_unconfirmed(addr, PeerKey(peer.0)).await
    }

    /// Feeds the core with a connection's frames until it ends.
    async fn run_session(self: Arc<Self>, connection: Connection) {
        if !self.is_online() {
            connection.close(CloseCode::NORMAL, "this replica is offline for now");
            return;
        }
        let handle = connection.handle();
        let (sender, mut receiver) = connection.split();
        let Some(events) = self.events.upgrade() else { return };
        let (answer, session) = oneshot::channel();
        let connected = Connected { sender, handle: handle.clone(), answer };
        if events.send(Event::Connected(Box::new(connected))).await.is_err() {
            return;
        }
        let Ok(Some(session)) = session.await else { return };
        let mut stop = self.stop.clone();
        let waiting = Arc::new(Semaphore::new(CATCH_UP_WAITING_MAX));
        loop {
            let received = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                received = next_frame(&mut receiver, &waiting) => received,
            };
            let Ok((frame, room)) = received else { break };
            if events.send(Event::Frame { session, frame, room }).await.is_err() {
                return;
            }
        }
        // The core may be gone by now, and its sessions with it.
        let _ = events.send(Event::Input(Input::SessionClosed { session })).await;
    }

    /// Closes every socket and waits until peers were told.
    pub(crate) async fn close(&self) {
        let (endpoints, tasks) = {
            let mut state = self.state();
            (std::mem::take(&mut state.endpoints), std::mem::take(&mut state.tasks))
        };
        for endpoint in &endpoints {
            endpoint.close(CloseCode::SHUTTING_DOWN, "this replica is shutting down");
        }
        let told = async {
            for endpoint in &endpoints {
                endpoint.wait_idle().await;
            }
        };
        // Who was not told by then finds out by silence.
        let _ = tokio::time::timeout(CLOSING_TIME_MAX, told).await;
        for endpoint in &endpoints {
            endpoint.release_port().await;
        }
        for task in tasks {
            // A task that panicked has logged it and holds nothing any more.
            let _ = task.await;
        }
    }
}

/// The next frame, and its share of what may wait for the core if it belongs to a catch-up. Cancel safe: what was received
/// is returned without another wait.
async fn next_frame(
    receiver: &mut FrameReceiver,
    waiting: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), RecvError> {
    let room = match Arc::clone(waiting).try_acquire_owned() {
        Ok(room) => room,
        Err(_) => tokio::select! {
            biased;
            frame = receiver.recv_urgent() => return frame.map(|(_, frame)| (frame, None)),
            room = Arc::clone(waiting).acquire_owned() => room.expect("the semaphore is never closed"),
        },
    };
    let (class, frame) = receiver.recv().await?;
    Ok((frame, (class == Class::CatchUp).then_some(room)))
}
