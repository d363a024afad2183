//! A link between two regions: a UDP relay on loopback that holds every datagram for a while, or loses it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// More than any datagram of QUIC has.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Datagrams that are on their way at once in one direction; more are lost, as on any network.
const ON_THE_WAY_MAX: usize = 16_384;

/// Addresses that send through one link: one for each socket of the region that dials. More are not heard.
const SENDERS_MAX: usize = 64;

/// How many times as long as it should a datagram takes on a slow link.
const SLOW_FACTOR: u32 = 15;

/// How a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Condition {
    #[default]
    Live,
    Slow,
    Cut,
}

/// What a datagram goes through.
#[derive(Clone, Copy, Debug)]
struct Way {
    condition: Condition,
    delay: Duration,
}

impl Way {
    fn delay(self) -> Duration {
        match self.condition {
            Condition::Slow => self.delay * SLOW_FACTOR,
            Condition::Live | Condition::Cut => self.delay,
        }
    }
}

/// The near end of the way to a region. The way is gone with it.
pub(super) struct Link {
    near: SocketAddr,
    way: watch::Sender<Way>,
    relay: JoinHandle<()>,
}

impl Link {
    /// A way to `far` that takes `delay`, and as long back.
    pub(super) async fn to(far: SocketAddr, delay: Duration) -> std::io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let near = socket.local_addr()?;
        let (way, ways) = watch::channel(Way { condition: Condition::default(), delay });
        Ok(Self { near, way, relay: tokio::spawn(relay(socket, far, ways)) })
    }

    pub(super) fn near(&self) -> SocketAddr {
        self.near
    }

    pub(super) fn condition(&self) -> Condition {
        self.way.borrow().condition
    }

    /// How long a datagram takes one way.
    pub(super) fn delay(&self) -> Duration {
        self.way.borrow().delay()
    }

    /// Makes it so.
    pub(super) fn set(&self, condition: Condition) {
        self.way.send_modify(|way| way.condition = condition);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

type OnTheWay = (Instant, Vec<u8>);

/// Gives every peer that sends something a socket of its own towards `far`, so that answers find the way back.
async fn relay(near: Arc<UdpSocket>, far: SocketAddr, way: watch::Receiver<Way>) {
    let mut outward: BTreeMap<SocketAddr, mpsc::Sender<OnTheWay>> = BTreeMap::new();
    // They end with this.
    let mut tasks = JoinSet::new();
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        // A datagram that could not be received is one that was lost.
        let Ok((length, peer)) = near.recv_from(&mut datagram).await else { continue };
        let due = Instant::now() + way.borrow().delay();
        let sender = match outward.get(&peer) {
            Some(sender) => sender.clone(),
            None if outward.len() == SENDERS_MAX => continue,
            None => {
                let Ok(beyond) = UdpSocket::bind("127.0.0.1:0").await else { continue };
                let beyond = Arc::new(beyond);
                let (sender, waiting) = mpsc::channel(ON_THE_WAY_MAX);
                tasks.spawn(deliver(waiting, (Arc::clone(&beyond), far), way.clone()));
                let (back, returning) = mpsc::channel(ON_THE_WAY_MAX);
                tasks.spawn(deliver(returning, (Arc::clone(&near), peer), way.clone()));
                tasks.spawn(hold(beyond, back, way.clone()));
                outward.insert(peer, sender.clone());
                sender
            }
        };
        // What has no room is lost.
        let _ = sender.try_send((due, datagram[..length].to_vec()));
    }
}

async fn hold(socket: Arc<UdpSocket>, onward: mpsc::Sender<OnTheWay>, way: watch::Receiver<Way>) {
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    while !onward.is_closed() {
        if let Ok((length, _)) = socket.recv_from(&mut datagram).await {
            let due = Instant::now() + way.borrow().delay();
            let _ = onward.try_send((due, datagram[..length].to_vec()));
        }
    }
}

/// Delivers in order. What is due while the link is cut is lost, but for the last datagram, which arrives when it
/// heals: QUIC learns from it at once that the way is open, where it would wait for its next probe otherwise.
async fn deliver(
    mut waiting: mpsc::Receiver<OnTheWay>,
    (socket, to): (Arc<UdpSocket>, SocketAddr),
    mut way: watch::Receiver<Way>,
) {
    let mut last: Option<Vec<u8>> = None;
    loop {
        tokio::select! {
            biased;
            changed = way.changed() => {
                if changed.is_err() {
                    return;
                }
                let is_open = way.borrow_and_update().condition != Condition::Cut;
                if let Some(datagram) = last.take_if(|_| is_open) {
                    let _ = socket.send_to(&datagram, to).await;
                }
            }
            next = waiting.recv() => {
                let Some((due, datagram)) = next else { return };
                tokio::time::sleep_until(due).await;
                if way.borrow().condition == Condition::Cut {
                    last = Some(datagram);
                } else {
                    let _ = socket.send_to(&datagram, to).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive(socket: &UdpSocket) -> Option<u8> {
        let mut byte = [0];
        let received = tokio::time::timeout(Duration::from_millis(300), socket.recv_from(&mut byte)).await;
        received.ok().map(|received| {
            received.unwrap();
            byte[0]
        })
    }

    #[tokio::test]
    async fn a_cut_link_delivers_nothing_and_then_the_last_datagram() {
        let (here, there) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let delay = Duration::from_millis(5);
        let link = Link::to(there.local_addr().unwrap(), delay).await.unwrap();
        let sent = Instant::now();
        here.send_to(&[1], link.near()).await.unwrap();
        assert_eq!(receive(&there).await, Some(1));
        assert!(sent.elapsed() >= delay);
        link.set(Condition::Cut);
        here.send_to(&[2], link.near()).await.unwrap();
        here.send_to(&[3], link.near()).await.unwrap();
        assert_eq!(receive(&there).await, None);
        link.set(Condition::Live);
        assert_eq!(receive(&there).await, Some(3));
        assert_eq!(receive(&there).await, None);
    }
}
