//! Who is reached where. Every node sees every other one at an address of the shaper's, so that nothing can go
//! past it: what is sent to such a *gate* comes out of the gate at which the receiver sees the sender.

use std::net::{Ipv4Addr, SocketAddr};

/// The UDP port that every node listens on.
pub const PORT: u16 = 4_433;
/// Nodes, at most: more have no addresses of their own.
pub const NODES_MAX: usize = 16;

const NODE_HOST: u8 = 2;
const HUB_HOST: u8 = 1;
const GATE_HOST: u8 = 100;

/// The addresses of one run: `a.b.<node>.<host>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streets {
    /// The first two bytes of every address.
    pub prefix: [u8; 2],
}

impl Streets {
    /// On the loopback device, where nothing has to be set up.
    pub const LOOPBACK: Self = Self { prefix: [127, 77] };
    /// In namespaces of their own.
    pub const NAMESPACES: Self = Self { prefix: [10, 77] };

    fn address(self, node: usize, host: u8) -> Ipv4Addr {
        assert!(node < NODES_MAX, "there are no streets for node {node}");
        let street = u8::try_from(node).expect("there are few nodes");
        Ipv4Addr::new(self.prefix[0], self.prefix[1], street, host)
    }

    /// Where a node is.
    pub fn node(self, node: usize) -> Ipv4Addr {
        self.address(node, NODE_HOST)
    }

    /// Where a node listens.
    pub fn listens(self, node: usize) -> SocketAddr {
        SocketAddr::new(self.node(node).into(), PORT)
    }

    /// The shaper's own end of the cable to a node.
    pub fn hub(self, node: usize) -> Ipv4Addr {
        self.address(node, HUB_HOST)
    }

    /// Where `viewer` sees `seen`.
    pub fn gate(self, viewer: usize, seen: usize) -> Ipv4Addr {
        self.address(viewer, GATE_HOST + u8::try_from(seen).expect("there are few nodes"))
    }

    /// Where `viewer` dials `seen`.
    pub fn dials(self, viewer: usize, seen: usize) -> SocketAddr {
        SocketAddr::new(self.gate(viewer, seen).into(), PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_one_meaning() {
        let mut seen = std::collections::BTreeSet::new();
        for viewer in 0..NODES_MAX {
            assert!(seen.insert(Streets::NAMESPACES.node(viewer)));
            assert!(seen.insert(Streets::NAMESPACES.hub(viewer)));
            for other in (0..NODES_MAX).filter(|other| *other != viewer) {
                assert!(seen.insert(Streets::NAMESPACES.gate(viewer, other)));
            }
        }
    }
}
