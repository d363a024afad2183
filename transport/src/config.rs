//! The transport's limits and timers, and their translation to QUIC's.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{IdleTimeout, VarInt};

use crate::error::BindError;
use crate::frame::FRAME_BYTES_LIMIT;

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// Unidirectional streams a peer may have open. One for each class, and one more so that a surplus stream is
/// answered with a close code instead of waiting for ever on the peer's side.
pub(crate) const STREAMS_MAX: u32 = 4;

/// Largest value of any limit in bytes, so that it fits the 32-bit budgets behind it.
const LIMIT_BYTES_MAX: usize = 1 << 30;

/// How fast a connection may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// Cubic (RFC 9438): backs off when packets are lost.
    Cubic,
    /// BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016): models the path's bandwidth instead of
    /// taking each loss for congestion. Marked experimental in quinn; `docs/decisions.md` says why it is the default.
    #[default]
    Bbr,
}

/// Limits and timers of an endpoint and all its connections. Memory is at most, for each connection,
/// `connection_window_bytes + send_window_bytes + 3 · (queue_bytes + inbound_bytes + frame_bytes_max)`, to which
/// the bytes of one write per class add.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Largest frame taken from the caller or the peer, in bytes. At most 2^28 − 1; equal on all replicas.
    pub frame_bytes_max: usize,
    /// Silence after which a connection is dead.
    pub idle_timeout: Duration,
    /// Pause between keep-alive packets; well below `idle_timeout`.
    pub keep_alive: Duration,
    /// Longest handshake, on either side.
    pub handshake_timeout: Duration,
    /// Bytes a peer may have in flight or unread on one stream. QUIC has one default for all streams, so it is
    /// what catch-up needs to fill a long path: where packets are lost, what follows them is held back for a round trip, so
    /// twice the product of bandwidth and delay, and twice that for variation.
    pub stream_window_bytes: usize,
    /// Bytes a peer may have in flight or unread on all streams. At least `stream_window_bytes` for each class,
    /// or an unread class would block the others.
    pub connection_window_bytes: usize,
    /// Bytes sent and not yet acknowledged, on all streams. At least the peer's `stream_window_bytes` for each
    /// class, for the same reason; replicas are therefore configured alike.
    pub send_window_bytes: usize,
    /// Bytes queued to be sent, for each class. Beyond it [`SendError::Full`](crate::SendError::Full); so it is at least
    /// what the caller sends before it waits for the peer.
    pub queue_bytes: usize,
    /// Bytes of received frames not yet taken by the caller, for each class. Beyond it the stream is not read
    /// and QUIC holds the peer back.
    pub inbound_bytes: usize,
    /// Incoming handshakes under way or not yet accepted by the caller. Beyond it, and beyond a quarter of it
    /// from one IP address, dials are refused; above a quarter in total, addresses must prove themselves.
    pub incoming_max: usize,
    /// Connections of the endpoint, both ways. Beyond it, incoming dials are refused.
    pub connections_max: usize,
    /// Bytes that the kernel is asked to keep for the endpoint's socket in each direction, so that a burst is not lost
    /// while the process waits for its turn. The kernel may keep fewer.
    pub socket_bytes: usize,
    /// The congestion controller.
    pub congestion: Congestion,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig {
            frame_bytes_max: 256 * KIB,
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(5),
            stream_window_bytes: 8 * MIB,
            connection_window_bytes: 24 * MIB,
            send_window_bytes: 24 * MIB,
            queue_bytes: 20 * MIB,
            inbound_bytes: MIB,
            incoming_max: 256,
            connections_max: 1024,
            socket_bytes: 4 * MIB,
            congestion: Congestion::default(),
        }
    }
}

impl TransportConfig {
    pub(crate) fn validate(&self) -> Result<(), BindError> {
        let windows = 3 * self.stream_window_bytes.min(LIMIT_BYTES_MAX);
        let limits = [
            self.stream_window_bytes,
            self.connection_window_bytes,
            self.send_window_bytes,
            self.queue_bytes,
            self.inbound_bytes,
            self.socket_bytes,
        ];
        let checks = [
            (
                limits.iter().all(|limit| (1..=LIMIT_BYTES_MAX).contains(limit)),
                "a limit in bytes is out of range",
            ),
            ((1..=FRAME_BYTES_LIMIT).contains(&self.frame_bytes_max), "frame_bytes_max is out of range"),
            (windows <= self.connection_window_bytes, "connection_window_bytes lets one class block another"),
            (windows <= self.send_window_bytes, "send_window_bytes lets one class block another"),
            (self.keep_alive < self.idle_timeout, "keep_alive does not beat idle_timeout"),
            (self.idle_timeout <= Duration::from_secs(3600), "idle_timeout is over an hour"),
            (!self.handshake_timeout.is_zero(), "handshake_timeout is zero"),
            (self.incoming_max > 0, "incoming_max is zero"),
            (self.connections_max > 0, "connections_max is zero"),
        ];
        match checks.iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(BindError::Config(broken)),
            None => Ok(()),
        }
    }

    /// QUIC's parameters. `self` is valid.
    pub(crate) fn quic(&self) -> quinn::TransportConfig {
        let mut quic = quinn::TransportConfig::default();
        quic.max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0)
            .stream_receive_window(varint(self.stream_window_bytes))
            .receive_window(varint(self.connection_window_bytes))
            .send_window(self.send_window_bytes as u64)
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(
                IdleTimeout::try_from(self.idle_timeout).expect("validated to be at most an hour"),
            ));
        match self.congestion {
            Congestion::Cubic => quic.congestion_controller_factory(Arc::new(CubicConfig::default())),
            Congestion::Bbr => quic.congestion_controller_factory(Arc::new(BbrConfig::default())),
        };
        quic
    }
}

fn varint(bytes: usize) -> VarInt {
    VarInt::from_u32(u32::try_from(bytes).expect("limits are validated to fit 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert!(TransportConfig::default().validate().is_ok());
    }

    #[test]
    fn contradictory_limits_are_refused() {
        let default = TransportConfig::default;
        let broken = [
            TransportConfig { frame_bytes_max: 0, ..default() },
            TransportConfig { frame_bytes_max: FRAME_BYTES_LIMIT + 1, ..default() },
            TransportConfig { connection_window_bytes: 8 * MIB, ..default() },
            TransportConfig { send_window_bytes: 8 * MIB, ..default() },
            TransportConfig { queue_bytes: usize::MAX, ..default() },
            TransportConfig { stream_window_bytes: usize::MAX, ..default() },
            TransportConfig { keep_alive: Duration::from_secs(10), ..default() },
            TransportConfig { incoming_max: 0, ..default() },
        ];
        for config in broken {
            assert!(matches!(config.validate(), Err(BindError::Config(_))), "{config:?}");
        }
    }
}
