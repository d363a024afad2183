//! Which faults strike when, by the seed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::draws::Draws;
use crate::shaper::Weather;

/// What of the faults can be injected here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Network namespaces; without them all nodes share the loopback device.
    pub namespaces: bool,
    /// The kernel's packet filter in a namespace.
    pub nft: bool,
    /// A small disk of one node's own.
    pub disk: bool,
    /// Making system calls fail.
    pub strace: bool,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, then a start after a while.
    Kill {
        /// The victim.
        node: usize,
        /// How long it is down.
        down: Duration,
    },
    /// SIGKILL, and again while it recovers, so often.
    KillRecovering {
        /// The victim.
        node: usize,
        /// How long each of its lives lasts; the last one goes on.
        lives: Vec<Duration>,
    },
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGSTOP, and SIGCONT after a while.
    Pause {
        /// The victim.
        node: usize,
        /// How long it stands still.
        still: Duration,
    },
    /// Nothing passes from one node to the other.
    CutOneWay {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
    },
    /// Nothing passes between those below and those not, both ways.
    Split {
        /// By node: which side it is on.
        sides: Vec<bool>,
    },
    /// A node's network interface is down.
    Unplug {
        /// The victim.
        node: usize,
        /// For how long.
        off: Duration,
    },
    /// A node's kernel drops packets.
    Filter {
        /// The victim.
        node: usize,
        /// Whether it drops what comes in, rather than what goes out.
        inbound: bool,
        /// Of a hundred.
        percent: u64,
        /// For how long.
        during: Duration,
    },
    /// Every partition ends.
    Heal,
    /// Other weather on all links.
    Weather(Weather),
    /// The small disk is filled, and freed again.
    FillDisk {
        /// Whether its node is killed while the disk is full.
        kill: bool,
        /// Whether it fills up at once, perhaps within a sync, rather than after the node has noticed.
        at_once: bool,
    },
    /// A node's directory is put back to what it was a while ago, after everything of it had spread.
    Restore {
        /// The victim.
        node: usize,
        /// How old the copy is then, at least.
        age: Duration,
    },
    /// The n-th sync of a node's fails.
    FailSync {
        /// The victim.
        node: usize,
        /// Which sync, from 1.
        when: u64,
    },
}

/// The kinds of faults, with how often each is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    KillRecovering,
    KillAll,
    Pause,
    CutOneWay,
    Split,
    Unplug,
    Filter,
    Heal,
    Weather,
    FillDisk,
    Restore,
    FailSync,
}

const WEIGHTS: [(Kind, u64); 13] = [
    (Kind::Kill, 8),
    (Kind::KillRecovering, 4),
    (Kind::KillAll, 1),
    (Kind::Pause, 2),
    (Kind::CutOneWay, 3),
    (Kind::Split, 3),
    (Kind::Unplug, 1),
    (Kind::Filter, 2),
    (Kind::Heal, 3),
    (Kind::Weather, 4),
    (Kind::FillDisk, 1),
    (Kind::Restore, 1),
    (Kind::FailSync, 2),
];

/// An endless sequence of faults, each with the pause before it. Every kind that is possible comes once before
/// any comes by chance.
#[derive(Clone, Debug)]
pub struct Plan {
    draws: Draws,
    nodes: usize,
    kinds: Vec<(Kind, u64)>,
    first: VecDeque<Kind>,
}

impl Plan {
    /// The faults of a seed.
    pub fn new(seed: u64, nodes: usize, abilities: Abilities) -> Self {
        let mut draws = Draws::new(seed, 1);
        let is_possible = |kind: Kind| match kind {
            Kind::Unplug => abilities.namespaces,
            Kind::Filter => abilities.namespaces && abilities.nft,
            Kind::FillDisk => abilities.disk,
            Kind::FailSync => abilities.strace,
            _ => true,
        };
        let kinds: Vec<_> = WEIGHTS.into_iter().filter(|(kind, _)| is_possible(*kind)).collect();
        let mut first: Vec<Kind> = kinds.iter().map(|(kind, _)| *kind).collect();
        draws.shuffle(&mut first);
        Self { draws, nodes, kinds, first: first.into() }
    }

    /// The next fault and the pause before it.
    pub fn next_fault(&mut self) -> (Duration, Fault) {
        let pause = Duration::from_millis(self.draws.between(20, 600));
        let kind = self.first.pop_front().unwrap_or_else(|| self.draw_kind());
        (pause, self.draw(kind))
    }

    fn draw_kind(&mut self) -> Kind {
        let total = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut at = self.draws.below(total);
        for (kind, weight) in &self.kinds {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    fn draw(&mut self, kind: Kind) -> Fault {
        let draws = &mut self.draws;
        let node = draws.index(self.nodes);
        let mut ms = |low, high| Duration::from_millis(draws.between(low, high));
        match kind {
            Kind::Kill => Fault::Kill { node, down: ms(0, 1_500) },
            Kind::KillRecovering => {
                let lives = (0..3).map(|_| ms(0, 60)).collect();
                Fault::KillRecovering { node, lives }
            }
            Kind::KillAll => Fault::KillAll,
            Kind::Pause => Fault::Pause { node, still: ms(200, 3_000) },
            Kind::CutOneWay => {
                let to = (node + 1 + draws.index(self.nodes - 1)) % self.nodes;
                Fault::CutOneWay { from: node, to }
            }
            Kind::Split => {
                let mut sides: Vec<bool> = (0..self.nodes).map(|_| draws.permille(500)).collect();
                // Nobody is cut off otherwise.
                sides[node] = !sides[(node + 1) % self.nodes];
                Fault::Split { sides }
            }
            Kind::Unplug => Fault::Unplug { node, off: ms(300, 3_000) },
            Kind::Filter => {
                let during = ms(500, 3_000);
                let inbound = draws.permille(500);
                Fault::Filter { node, inbound, percent: [30, 60, 100][draws.index(3)], during }
            }
            Kind::Heal => Fault::Heal,
            Kind::Weather => Fault::Weather(draw_weather(draws)),
            Kind::FillDisk => Fault::FillDisk { kill: draws.permille(400), at_once: draws.permille(300) },
            Kind::Restore => Fault::Restore { node, age: ms(200, 2_000) },
            Kind::FailSync => Fault::FailSync { node, when: draws.between(1, 40) },
        }
    }
}

fn draw_weather(draws: &mut Draws) -> Weather {
    let mut often = |high| if draws.permille(500) { draws.between(1, high) } else { 0 };
    Weather {
        delay_us: often(60_000),
        jitter_us: often(30_000),
        loss: often(250),
        reorder: often(200),
        duplicate: often(200),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Abilities = Abilities { namespaces: true, nft: true, disk: true, strace: true };
    const NONE: Abilities = Abilities { namespaces: false, nft: false, disk: false, strace: false };

    fn faults(seed: u64, abilities: Abilities, count: usize) -> Vec<(Duration, Fault)> {
        let mut plan = Plan::new(seed, 4, abilities);
        (0..count).map(|_| plan.next_fault()).collect()
    }

    #[test]
    fn a_seed_repeats_its_faults() {
        assert_eq!(faults(5, ALL, 100), faults(5, ALL, 100));
        assert_ne!(faults(5, ALL, 100), faults(6, ALL, 100));
    }

    #[test]
    fn every_kind_comes_soon() {
        let kinds: Vec<_> =
            faults(1, ALL, WEIGHTS.len()).iter().map(|(_, fault)| std::mem::discriminant(fault)).collect();
        assert!(kinds.iter().enumerate().all(|(at, kind)| !kinds[..at].contains(kind)));
    }

    #[test]
    fn nothing_impossible_is_planned() {
        for (_, fault) in faults(1, NONE, 300) {
            let impossible = matches!(
                fault,
                Fault::Unplug { .. } | Fault::Filter { .. } | Fault::FillDisk { .. } | Fault::FailSync { .. }
            );
            assert!(!impossible, "{fault:?}");
        }
    }

    #[test]
    fn a_partition_parts_somebody() {
        for (_, fault) in faults(1, ALL, 500) {
            match fault {
                Fault::Split { sides } => assert!(sides.contains(&true) && sides.contains(&false)),
                Fault::CutOneWay { from, to } => assert!(from != to && from < 4 && to < 4),
                _ => {}
            }
        }
    }
}
