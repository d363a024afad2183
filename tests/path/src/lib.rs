//! A wide area path in user space, for machines whose kernel cannot delay packets: a UDP relay on loopback that
//! holds every datagram for a while, loses some, and lets no more through than a rate.
//!
//! [`Path::to`] opens a port; whoever sends there reaches the far end after the path's delay, and is answered the same
//! way. Datagrams are received and sent in the kernel's own batches (GRO and GSO), each direction on a thread of its
//! own, so that the path carries more than what is measured over it.
//!
//! [`transfer`] tells what plain QUIC moves over such a path, which is the measure of what is built on it.
//!
//! *Invariant:* the fate of a datagram depends on the seed, on how many came before it in its direction, and on when
//! it came; never on what is in it.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod direction;
mod plain;
mod relay;
mod socket;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use plain::{Setup, Transfer, transfer};
pub use tls::{client, server};

/// What a path does to the datagrams of either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// What every datagram takes.
    pub delay: Duration,
    /// Datagrams lost, of a million.
    pub loss_ppm: u32,
    /// Bytes of datagrams in a second, or as many as the relay can carry.
    pub rate: Option<u64>,
    /// Bytes that wait where the rate is the limit; more are lost, as at a router.
    pub queue_bytes: u64,
    /// Nothing passes.
    pub is_cut: bool,
}

impl Conditions {
    /// A path of so much delay each way, without loss and without a limit.
    pub fn after(delay: Duration) -> Self {
        Self { delay, loss_ppm: 0, rate: None, queue_bytes: 16 << 20, is_cut: false }
    }

    /// As this one, with so many of a million datagrams lost.
    #[must_use]
    pub fn losing(self, loss_ppm: u32) -> Self {
        Self { loss_ppm, ..self }
    }

    /// As this one, with so many bytes in a second.
    #[must_use]
    pub fn at_rate(self, rate: Option<u64>) -> Self {
        Self { rate, ..self }
    }
}

/// What went over a path so far, both ways together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Datagrams that arrived at the other end.
    pub datagrams: u64,
    /// Their bytes, without the headers of UDP and IP.
    pub bytes: u64,
    /// Datagrams lost by chance.
    pub lost: u64,
    /// Datagrams for which there was no room in the queue.
    pub overflowed: u64,
    /// Datagrams that met a path that was cut.
    pub cut: u64,
}

/// What the threads of a path share.
#[derive(Debug)]
pub(crate) struct Shared {
    conditions: Mutex<Conditions>,
    pub(crate) datagrams: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) overflowed: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) is_over: AtomicBool,
}

impl Shared {
    pub(crate) fn conditions(&self) -> Conditions {
        *self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to one far end. It ends when it is dropped.
#[derive(Debug)]
pub struct Path {
    near: SocketAddr,
    shared: Arc<Shared>,
    relay: Option<JoinHandle<()>>,
}

impl Path {
    /// Opens the way to `far`. The near end is a port of loopback that the system chooses.
    ///
    /// # Errors
    /// No socket, or no thread.
    pub fn to(far: SocketAddr, conditions: Conditions, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            conditions: Mutex::new(conditions),
            datagrams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let (near, relay) = relay::start(far, Arc::clone(&shared), seed)?;
        Ok(Self { near, shared, relay: Some(relay) })
    }

    /// Where to send what is to arrive at the far end.
    pub fn near(&self) -> SocketAddr {
        self.near
    }

    /// Changes the conditions for what arrives from now on; what is under way keeps its time.
    pub fn set(&self, conditions: Conditions) {
        *self.shared.conditions.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
    }

    /// The conditions at present.
    pub fn conditions(&self) -> Conditions {
        self.shared.conditions()
    }

    /// Cuts the path both ways, or mends it.
    pub fn cut(&self, is_cut: bool) {
        self.set(Conditions { is_cut, ..self.conditions() });
    }

    /// What went over it so far.
    pub fn carried(&self) -> Carried {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Carried {
            datagrams: read(&self.shared.datagrams),
            bytes: read(&self.shared.bytes),
            lost: read(&self.shared.lost),
            overflowed: read(&self.shared.overflowed),
            cut: read(&self.shared.cut),
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(relay) = self.relay.take() {
            // A thread that panicked has said so.
            let _ = relay.join();
        }
    }
}

#[cfg(test)]
mod tests;
