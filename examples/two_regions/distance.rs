//! A distance between two regions: a UDP relay on loopback that holds every datagram for a while, both ways.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::Failure;

/// More than any datagram of QUIC has.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Datagrams that are on their way at once in one direction; more are lost, as on any network.
const ON_THE_WAY_MAX: usize = 16_384;

/// The near end of the way to a replica. The way is gone with it.
pub(crate) struct Distance {
    near: SocketAddr,
    relay: JoinHandle<()>,
}

impl Distance {
    /// A way to `far` that takes `delay`, and as long back.
    pub(crate) async fn to(far: SocketAddr, delay: Duration) -> Result<Self, Failure> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let near = socket.local_addr()?;
        Ok(Self { near, relay: tokio::spawn(relay(socket, far, delay)) })
    }

    pub(crate) fn near(&self) -> SocketAddr {
        self.near
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

/// Gives every peer that sends something a socket of its own towards `far`, so that answers find the way back.
async fn relay(near: Arc<UdpSocket>, far: SocketAddr, delay: Duration) {
    let mut outward: BTreeMap<SocketAddr, mpsc::Sender<(Instant, Vec<u8>)>> = BTreeMap::new();
    // They end with this.
    let mut ways = JoinSet::new();
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        // A datagram that could not be received is one that was lost.
        let Ok((length, peer)) = near.recv_from(&mut datagram).await else { continue };
        let due = Instant::now() + delay;
        let sender = match outward.get(&peer) {
            Some(sender) => sender.clone(),
            None => {
                let Ok(beyond) = UdpSocket::bind("127.0.0.1:0").await else { continue };
                let beyond = Arc::new(beyond);
                let (sender, waiting) = mpsc::channel(ON_THE_WAY_MAX);
                ways.spawn(deliver(waiting, Arc::clone(&beyond), far));
                let (back, returning) = mpsc::channel(ON_THE_WAY_MAX);
                ways.spawn(deliver(returning, Arc::clone(&near), peer));
                ways.spawn(hold(beyond, back, delay));
                outward.insert(peer, sender.clone());
                sender
            }
        };
        // What has no room is lost.
        let _ = sender.try_send((due, datagram[..length].to_vec()));
    }
}

async fn hold(socket: Arc<UdpSocket>, onward: mpsc::Sender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    while !onward.is_closed() {
        if let Ok((length, _)) = socket.recv_from(&mut datagram).await {
            let _ = onward.try_send((Instant::now() + delay, datagram[..length].to_vec()));
        }
    }
}

/// All datagrams take equally long, so they are due in their order.
async fn deliver(mut waiting: mpsc::Receiver<(Instant, Vec<u8>)>, socket: Arc<UdpSocket>, to: SocketAddr) {
    while let Some((due, datagram)) = waiting.recv().await {
        tokio::time::sleep_until(due).await;
        let _ = socket.send_to(&datagram, to).await;
    }
}
