//! Making nodes members of one space and telling them of each other.

use crate::draws::Draws;
use crate::error::RigError;
use crate::fleet::Fleet;
use crate::lines::Question;

/// Who keeps a connection to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Each with the next: everything between the ends is relayed.
    Line,
    /// A line whose ends meet.
    Ring,
    /// Everybody with everybody.
    Mesh,
}

impl Map {
    /// The map of a seed.
    pub fn draw(seed: u64) -> Self {
        [Self::Line, Self::Ring, Self::Mesh][Draws::new(seed, 2).index(3)]
    }

    /// The pairs beyond each node and the next, which every map has.
    fn more_links(self, nodes: usize) -> Vec<(usize, usize)> {
        match self {
            Self::Line => Vec::new(),
            Self::Ring if nodes > 2 => vec![(0, nodes - 1)],
            Self::Ring => Vec::new(),
            Self::Mesh => {
                let pairs = (0..nodes).flat_map(|one| (one + 2..nodes).map(move |other| (one, other)));
                pairs.collect()
            }
        }
    }
}

/// Starts all nodes, founds the space at the first, and has the others join, each by its predecessor.
///
/// # Errors
/// [`RigError::Node`] when a node does not do it.
pub fn found(fleet: &Fleet, map: Map) -> Result<(), RigError> {
    for node in fleet.numbers() {
        fleet.start(node)?;
    }
    fleet.done(0, &Question::Found)?;
    let streets = fleet.lab.streets();
    for node in 1..fleet.count() {
        let ticket = fleet.ticket(node - 1, &Question::Invite(streets.dials(node, node - 1)))?;
        fleet.done(node, &Question::Join(ticket))?;
        connect(fleet, node - 1, node)?;
    }
    for (one, other) in map.more_links(fleet.count()) {
        connect(fleet, one, other)?;
        connect(fleet, other, one)?;
    }
    Ok(())
}

fn connect(fleet: &Fleet, from: usize, to: usize) -> Result<(), RigError> {
    let ticket = fleet.ticket(to, &Question::Ticket(fleet.lab.streets().dials(from, to)))?;
    fleet.done(from, &Question::Connect(ticket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_links_every_pair_once() {
        let more = Map::Mesh.more_links(4);
        assert_eq!(more, [(0, 2), (0, 3), (1, 3)]);
        assert_eq!(Map::Ring.more_links(4), [(0, 3)]);
        assert_eq!(Map::Line.more_links(4), []);
    }
}
