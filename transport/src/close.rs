//! Why connections end: the table of close codes and the reason both sides observe.

use std::fmt;

use quinn::{ConnectionError, TransportErrorCode, VarInt};

/// Longest reason text sent or kept, in bytes. The text is for logs only; the code is the contract.
const REASON_BYTES_MAX: usize = 256;

/// TLS alert `access_denied` (RFC 8446 §6.2), with which a listener refuses a key it does not trust.
const ALERT_ACCESS_DENIED: u8 = 49;

/// The application error code of a QUIC CONNECTION_CLOSE.
///
/// 0 to 0xFF belong to the transport and are in the table below; 0x100 and above belong to the engine and
/// pass through untouched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u32);

macro_rules! close_codes {
    ($($code:literal $constant:ident $name:literal $sentence:literal)*) => {
        impl CloseCode {
            $(#[doc = $sentence] pub const $constant: CloseCode = CloseCode($code);)*

            /// The transport's table: code, stable name, sentence.
            pub const TABLE: &'static [(CloseCode, &'static str, &'static str)] =
                &[$((CloseCode($code), $name, $sentence)),*];
        }
    };
}

close_codes! {
    0 NORMAL           "normal"            "The connection was no longer needed."
    1 UNKNOWN_PEER     "unknown-peer"      "The peer's key is not, or no longer, trusted here."
    2 FRAME_TOO_LARGE  "frame-too-large"   "A frame announced more bytes than this side accepts."
    3 MALFORMED_FRAME  "malformed-frame"   "A stream did not hold a sequence of whole, non-empty frames."
    4 UNEXPECTED_STREAM "unexpected-stream" "A stream had an unknown class, or its class already had a stream."
    5 SLOW_PEER        "slow-peer"         "The peer stopped reading and its queue filled up."
    6 DUPLICATE        "duplicate"         "Another connection to the same peer is kept."
    7 SHUTTING_DOWN    "shutting-down"     "The endpoint is shutting down."
}

impl CloseCode {
    /// First code of the range that belongs to the engine.
    pub const ENGINE_FIRST: CloseCode = CloseCode(0x100);

    /// The stable name of a transport code; `None` for the engine's codes and for unassigned ones.
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.iter().find(|(code, ..)| *code == self).map(|(_, name, _)| *name)
    }

    pub(crate) fn to_varint(self) -> VarInt {
        VarInt::from_u32(self.0)
    }

    /// Codes beyond 32 bits are foreign; they saturate, which no table assigns.
    fn from_varint(code: VarInt) -> CloseCode {
        CloseCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({:#x} {self})", self.0)
    }
}

/// Why a connection ended, as seen from this side.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it, or the transport did because of a violation by the peer.
    Local {
        /// The code the peer was sent.
        code: CloseCode,
        /// The text the peer was sent.
        reason: String,
    },
    /// The peer closed it. A listener that does not trust this side's key reports as
    /// [`CloseCode::UNKNOWN_PEER`].
    Peer {
        /// The code the peer sent.
        code: CloseCode,
        /// The peer's text, cut to 256 bytes. Untrusted: for logs only.
        reason: String,
    },
    /// Nothing arrived for the idle timeout: the network or the peer is down.
    TimedOut,
    /// The peer has no memory of the connection; it has probably restarted. Dial again.
    Reset,
    /// QUIC or TLS itself failed, by the peer's fault or a difference in versions.
    Protocol {
        /// What failed, for logs only.
        detail: String,
    },
}

impl CloseReason {
    /// The reason behind `error`; `local` is what this side closed with, should it be the one that closed.
    pub(crate) fn of(error: &ConnectionError, local: impl FnOnce() -> (CloseCode, String)) -> CloseReason {
        match error {
            ConnectionError::LocallyClosed => {
                let (code, reason) = local();
                CloseReason::Local { code, reason }
            }
            ConnectionError::ApplicationClosed(close) => CloseReason::Peer {
                code: CloseCode::from_varint(close.error_code),
                reason: String::from_utf8_lossy(truncated(&close.reason)).into_owned(),
            },
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::crypto(ALERT_ACCESS_DENIED) =>
            {
                CloseReason::Peer {
                    code: CloseCode::UNKNOWN_PEER,
                    reason: "refused during the handshake".to_owned(),
                }
            }
            ConnectionError::TimedOut => CloseReason::TimedOut,
            ConnectionError::Reset => CloseReason::Reset,
            other => CloseReason::Protocol { detail: other.to_string() },
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Local { code, reason } => write!(f, "closed here: {code}: {reason}"),
            CloseReason::Peer { code, reason } => write!(f, "closed by the peer: {code}: {reason}"),
            CloseReason::TimedOut => f.write_str("timed out"),
            CloseReason::Reset => f.write_str("reset: the peer does not know this connection"),
            CloseReason::Protocol { detail } => write!(f, "protocol failure: {detail}"),
        }
    }
}

/// At most [`REASON_BYTES_MAX`] bytes of a reason.
pub(crate) fn truncated(reason: &[u8]) -> &[u8] {
    &reason[..reason.len().min(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_codes_are_dense_named_once_and_below_the_engine() {
        for (index, (code, name, sentence)) in CloseCode::TABLE.iter().enumerate() {
            assert_eq!(code.0 as usize, index);
            assert!(*code < CloseCode::ENGINE_FIRST);
            assert!(sentence.ends_with('.'));
            assert_eq!(CloseCode::TABLE.iter().filter(|row| row.1 == *name).count(), 1);
        }
    }

    #[test]
    fn foreign_codes_beyond_32_bits_saturate() {
        let wide = VarInt::from_u64(1 << 40).expect("below 2^62");
        assert_eq!(CloseCode::from_varint(wide), CloseCode(u32::MAX));
        assert_eq!(CloseCode(0x1ff).to_string(), "0x1ff");
    }
}
