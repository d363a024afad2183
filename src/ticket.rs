//! Tickets: one printable string that lets a replica find another and take part in a space.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use comity_crdts::{ReplicaId, SpaceId};
use comity_engine::Role;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

/// What every ticket starts with; the digit is its version.
const PREFIX: &str = "comity1";
const CHECKSUM_BYTES: usize = 4;
/// A ticket string, characters.
const TICKET_CHARS_MAX: usize = 1_024;
/// Addresses in one ticket.
const ADDRESSES_MAX: usize = 8;

/// Where a replica can be reached, who it is, which space is meant and, for a replica that is no member yet,
/// the one-time secret that makes it one. Whoever holds a ticket with a secret can join: treat it as a
/// password until it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The replica to dial; whoever answers must prove to be it.
    pub replica: ReplicaId,
    /// Where to dial, in order of preference.
    pub addresses: Vec<SocketAddr>,
    /// The space.
    pub space: SpaceId,
    /// The invitation's secret; none when the bearer is a member already.
    pub secret: Option<[u8; 16]>,
    /// What the bearer is to be, so that a follower writes nothing before it is let in.
    pub role: Role,
}

/// Why a string is not a ticket. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not start as a ticket of a known version does.
    #[error("a ticket starts with {PREFIX:?}")]
    Prefix,
    /// It is longer than any ticket.
    #[error("the ticket has {chars} characters; the limit is {chars_max}")]
    TooLong {
        /// Its length.
        chars: usize,
        /// The limit.
        chars_max: usize,
    },
    /// A character was lost or changed on the way.
    #[error("the ticket is damaged: copy all of it")]
    Damaged,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_allocvec(self).map_err(|_| fmt::Error)?;
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("replica", &self.replica)
            .field("addresses", &self.addresses)
            .field("space", &self.space)
            .field("secret", &self.secret.map(|_| "redacted"))
            .field("role", &self.role)
            .finish()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong { chars: text.len(), chars_max: TICKET_CHARS_MAX });
        }
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        let bytes =
            BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).map_err(|_| TicketError::Damaged)?;
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TicketError::Damaged)?;
        let (body, sum) = bytes.split_at(split);
        if checksum(body) != sum {
            return Err(TicketError::Damaged);
        }
        let (ticket, rest): (Self, _) = postcard::take_from_bytes(body).map_err(|_| TicketError::Damaged)?;
        if !rest.is_empty() || ticket.addresses.len() > ADDRESSES_MAX {
            return Err(TicketError::Damaged);
        }
        Ok(ticket)
    }
}

/// Catches a character lost or changed in copying; it is no protection against intent.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            replica: ReplicaId([7; 32]),
            addresses: vec!["127.0.0.1:4433".parse().unwrap(), "[::1]:4433".parse().unwrap()],
            space: SpaceId([9; 16]),
            secret: Some([3; 16]),
            role: Role::Writer,
        }
    }

    #[test]
    fn a_ticket_survives_printing_and_reading() {
        assert_eq!(ticket().to_string().parse(), Ok(ticket()));
    }

    #[test]
    fn every_single_changed_character_is_noticed() {
        let text = ticket().to_string();
        for index in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[index] = if changed[index] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<Ticket>().is_err(), "{changed}");
        }
        assert_eq!(text[..text.len() - 1].parse::<Ticket>(), Err(TicketError::Damaged));
    }

    #[test]
    fn the_secret_is_not_shown_by_debug() {
        assert!(!format!("{:?}", ticket()).contains("3, 3"));
    }
}
