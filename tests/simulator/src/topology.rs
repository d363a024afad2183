//! Who is connected with whom: the shapes of a network, and what each of them costs in copies.

use serde::{Deserialize, Serialize};

use crate::random::Dice;

/// The shape of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Topology {
    /// Everybody with everybody.
    All,
    /// Everybody with the first.
    Star,
    /// Each with the next.
    Chain,
    /// Each with the one at half its number.
    Tree,
    /// A chain whose ends are connected; one of its links is broken for long, and in calm.
    Ring,
    /// A chain, and some of the others at random.
    #[default]
    Mixed,
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::All, Self::Star, Self::Chain, Self::Tree, Self::Ring, Self::Mixed];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Star => "star",
            Self::Chain => "chain",
            Self::Tree => "tree",
            Self::Ring => "ring",
            Self::Mixed => "mixed",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topology| topology.name() == name)
    }

    /// The links among so many replicas. The first of a pair has the smaller number.
    pub(crate) fn links(self, dice: &mut Dice, nodes: usize) -> Vec<(usize, usize)> {
        let all = || (0..nodes).flat_map(move |a| (a + 1..nodes).map(move |b| (a, b)));
        let line = || (1..nodes).map(|node| (node - 1, node));
        match self {
            Self::All => all().collect(),
            Self::Star => (1..nodes).map(|node| (0, node)).collect(),
            Self::Tree => (1..nodes).map(|node| ((node - 1) / 2, node)).collect(),
            Self::Ring if nodes > 2 => line().chain([(0, nodes - 1)]).collect(),
            Self::Chain | Self::Ring => line().collect(),
            Self::Mixed => all().filter(|(a, b)| b - a == 1 || dice.percent(40)).collect(),
        }
    }

    /// How many copies of what it needs a replica may receive in a calm stretch, in percent.
    pub(crate) fn copies_percent_max(self) -> u64 {
        match self {
            // There is one way only; what was on its way when a lane changed hands does not come in calm.
            Self::Star | Self::Chain | Self::Tree => 100,
            // There are several, and where a space was quiet the first entries show which is the soonest.
            Self::Ring | Self::All | Self::Mixed => 105,
        }
    }
}

/// Whether some replicas are connected among themselves.
pub(crate) fn are_connected(members: &[usize], links: &[(usize, usize)]) -> bool {
    let mut reached: Vec<usize> = members.iter().take(1).copied().collect();
    let mut next = 0;
    while let Some(node) = reached.get(next).copied() {
        next += 1;
        for (a, b) in links {
            let other = match node {
                node if node == *a => *b,
                node if node == *b => *a,
                _ => continue,
            };
            if members.contains(&other) && !reached.contains(&other) {
                reached.push(other);
            }
        }
    }
    reached.len() == members.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Domain;

    #[test]
    fn every_shape_connects_everybody() {
        let mut dice = Dice::keyed(1, Domain::Menu, 0, 0);
        for topology in Topology::ALL {
            assert_eq!(Topology::named(topology.name()), Some(topology));
            for nodes in 2..12 {
                let links = topology.links(&mut dice, nodes);
                let members: Vec<usize> = (0..nodes).collect();
                assert!(are_connected(&members, &links), "{topology:?} of {nodes}");
                assert!(links.iter().all(|(a, b)| a < b));
            }
        }
        assert!(!are_connected(&[0, 2], &[(0, 1), (1, 2)]));
    }
}
