//! How many incoming handshakes may be under way, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One address may hold this fraction of all handshakes, so that it alone cannot keep others out.
const ADDRESS_SHARE: usize = 4;

/// Above this fraction of all handshakes, addresses must prove themselves first: spoofed ones then cost
/// nothing.
const PROOF_SHARE: usize = 4;

/// Bounds the handshakes under way.
#[derive(Clone)]
pub(crate) struct Admission {
    handshakes_max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One handshake's place, freed when this is dropped.
pub(crate) struct Ticket {
    address: IpAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The address has to prove itself with a retry token.
    ProveAddress,
    /// No place is free.
    Busy,
}

impl Admission {
    pub(crate) fn new(handshakes_max: usize) -> Admission {
        Admission { handshakes_max, state: Arc::default() }
    }

    /// A place for a handshake from `address`.
    pub(crate) fn admit(&self, address: IpAddr, proof: AddressProof) -> Result<Ticket, Refusal> {
        let address = network_of(address);
        let mut state = lock(&self.state);
        if proof == AddressProof::None && state.total >= self.handshakes_max / PROOF_SHARE {
            return Err(Refusal::ProveAddress);
        }
        let of_address = state.by_address.get(&address).copied().unwrap_or(0);
        if state.total >= self.handshakes_max || of_address >= (self.handshakes_max / ADDRESS_SHARE).max(1) {
            return Err(Refusal::Busy);
        }
        state.total += 1;
        state.by_address.insert(address, of_address + 1);
        drop(state);
        Ok(Ticket { address, state: Arc::clone(&self.state) })
    }
}

/// Whether a dialer has shown that it receives at its address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressProof {
    None,
    RetryToken,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.total -= 1;
        let of_address = state.by_address.get_mut(&self.address).expect("every ticket is counted");
        *of_address -= 1;
        if *of_address == 0 {
            state.by_address.remove(&self.address);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one party controls: an IPv4 address or an IPv6 /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_gets_a_quarter_and_leaves_room_for_others() {
        let admission = Admission::new(16);
        let admit = |last| admission.admit(address(last), AddressProof::RetryToken);
        let tickets = (0..4).map(|_| admit(1)).collect::<Result<Vec<_>, _>>().expect("a quarter of 16");
        assert_eq!(admit(1).err(), Some(Refusal::Busy));
        assert!(admit(2).is_ok());
        drop(tickets);
        assert!(admit(1).is_ok());
    }

    #[test]
    fn above_a_quarter_addresses_must_prove_themselves() {
        let admission = Admission::new(8);
        let first = admission.admit(address(1), AddressProof::None).expect("empty");
        let _second = admission.admit(address(1), AddressProof::None).expect("still below two");
        assert_eq!(admission.admit(address(2), AddressProof::None).err(), Some(Refusal::ProveAddress));
        assert!(admission.admit(address(2), AddressProof::RetryToken).is_ok());
        drop(first);
        assert!(admission.admit(address(2), AddressProof::None).is_ok());
    }

    #[test]
    fn the_total_is_bounded_and_nothing_is_remembered_about_past_handshakes() {
        let admission = Admission::new(8);
        let tickets = (0..100)
            .filter_map(|last| admission.admit(address(last), AddressProof::RetryToken).ok())
            .collect::<Vec<_>>();
        assert_eq!(tickets.len(), 8);
        drop(tickets);
        let state = lock(&admission.state);
        assert_eq!((state.total, state.by_address.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_a_mapped_ipv4_as_itself() {
        let network = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }
}
