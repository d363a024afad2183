//! What went over a connection, counted by class.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::Class;

/// Frames and bytes of one class. Bytes are bodies, without length prefixes and QUIC overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// Frames handed to QUIC; a frame that is still queued does not count.
    pub frames_sent: u64,
    /// Bytes of those frames.
    pub bytes_sent: u64,
    /// Frames that arrived whole, whether or not they have been received by the caller.
    pub frames_received: u64,
    /// Bytes of those frames.
    pub bytes_received: u64,
}

/// A snapshot of a connection's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Counters of [`Class::Control`].
    pub control: ClassStats,
    /// Counters of [`Class::Live`].
    pub live: ClassStats,
    /// Counters of [`Class::CatchUp`].
    pub catch_up: ClassStats,
    /// Bytes of UDP payload sent, with everything QUIC adds.
    pub udp_bytes_sent: u64,
    /// Bytes of UDP payload received.
    pub udp_bytes_received: u64,
    /// Packets sent that were declared lost.
    pub packets_lost: u64,
}

impl ConnectionStats {
    /// The counters of one class.
    pub fn class(&self, class: Class) -> &ClassStats {
        match class {
            Class::Control => &self.control,
            Class::Live => &self.live,
            Class::CatchUp => &self.catch_up,
        }
    }
}

/// The live counters behind [`ClassStats`], one per class.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    classes: [ClassCounters; 3],
}

#[derive(Debug, Default)]
struct ClassCounters {
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
}

impl Counters {
    pub(crate) fn count_sent(&self, class: Class, bytes: usize) {
        let counters = &self.classes[class.index()];
        counters.frames_sent.fetch_add(1, Ordering::Relaxed);
        counters.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, class: Class, bytes: usize) {
        let counters = &self.classes[class.index()];
        counters.frames_received.fetch_add(1, Ordering::Relaxed);
        counters.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, quic: &quinn::ConnectionStats) -> ConnectionStats {
        let class = |class: Class| {
            let counters = &self.classes[class.index()];
            ClassStats {
                frames_sent: counters.frames_sent.load(Ordering::Relaxed),
                bytes_sent: counters.bytes_sent.load(Ordering::Relaxed),
                frames_received: counters.frames_received.load(Ordering::Relaxed),
                bytes_received: counters.bytes_received.load(Ordering::Relaxed),
            }
        };
        ConnectionStats {
            control: class(Class::Control),
            live: class(Class::Live),
            catch_up: class(Class::CatchUp),
            udp_bytes_sent: quic.udp_tx.bytes,
            udp_bytes_received: quic.udp_rx.bytes,
            packets_lost: quic.path.lost_packets,
        }
    }
}
