//! Which builds replicas run: the protocol versions that each speaks from one start to the next, and from when on it knows
//! the operations of a version that does not exist.

use comity_engine::{Extensions, VersionRange};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::random::{Dice, Domain};
use crate::world::World;

/// What is different between replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Nothing.
    Same,
    /// The versions that they speak.
    Versions,
    /// Whether they know certain operations.
    Operations,
}

impl Mix {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Versions => "versions",
            Self::Operations => "operations",
        }
    }

    /// The mix with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "same" => Some(Self::Same),
            "versions" => Some(Self::Versions),
            "operations" => Some(Self::Operations),
            _ => None,
        }
    }
}

/// One build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Build {
    /// The versions that it speaks.
    pub(crate) versions: VersionRange,
    /// Whether it knows the operations of the version that does not exist.
    pub(crate) knows: bool,
}

impl Build {
    /// The newest, and what everybody runs where nothing is said.
    pub(crate) const NEWEST: Self = Self { versions: VersionRange::ALL, knows: true };

    pub(crate) fn extensions(self) -> Extensions {
        if self.knows { Extensions::FUTURE } else { Extensions::NONE }
    }
}

/// What replicas run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Builds {
    /// Of each replica, by its starts; the last one stays.
    pub(crate) of: Vec<Vec<Build>>,
    /// Whether clients at replicas that know the operations use them.
    pub(crate) are_used: bool,
}

const OLD: VersionRange = VersionRange { min: 4, max: 4 };
const NEW: VersionRange = VersionRange { min: 5, max: 5 };
const ALL: VersionRange = VersionRange::ALL;

/// How many starts of a replica have a build of their own.
const STARTS: usize = 3;

/// Draws what replicas run, in about a third of the runs. Draws from dice of its own, so that all else stays.
pub(crate) fn builds(plan: &Plan, mix: Option<Mix>) -> Option<Builds> {
    let mut dice = Dice::keyed(plan.seed, Domain::Menu, 0, 3);
    let drawn = match dice.below(100) {
        0..15 => Mix::Versions,
        15..40 => Mix::Operations,
        _ => Mix::Same,
    };
    // Who speaks 4 only and who speaks 5 only meet through others.
    let ranges: &[VersionRange] = match dice.below(3) {
        0 => &[OLD, ALL],
        1 => &[ALL, NEW],
        _ if plan.bare => &[ALL, OLD],
        _ => &[OLD, ALL, NEW],
    };
    let are_used = match mix.unwrap_or(drawn) {
        Mix::Same => return None,
        Mix::Versions => false,
        Mix::Operations => true,
    };
    let founders: Vec<usize> = plan.spaces.iter().filter_map(|members| members.first().copied()).collect();
    let of = (0..plan.nodes).map(|node| {
        let knows_from = if are_used { dice.index(STARTS + 1) } else { STARTS };
        let build = |start: usize| {
            let drawn = ranges[dice.index(ranges.len())];
            let versions = if founders.contains(&node) { ALL } else { drawn };
            Build { versions, knows: start >= knows_from }
        };
        (0..STARTS).map(build).collect()
    });
    Some(Builds { of: of.collect(), are_used })
}

impl Builds {
    /// Whether some replicas share no version with others.
    pub(crate) fn have_strangers(&self) -> bool {
        let speaks = |range: VersionRange| self.of.iter().flatten().any(|build| build.versions == range);
        speaks(OLD) && speaks(NEW)
    }

    /// Whether some replicas cannot be told what others write.
    pub(crate) fn leave_behind(&self) -> bool {
        self.are_used && self.of.iter().flatten().any(|build| build.versions == OLD)
    }
}

impl World {
    /// What a replica runs at its next start.
    pub(crate) fn next_build(&self, node: usize) -> Build {
        let Some(builds) = &self.plan.builds else { return Build { knows: false, ..Build::NEWEST } };
        if self.is_upgraded {
            return Build::NEWEST;
        }
        let starts = self.nodes[node].starts;
        let of = builds.of.get(node).and_then(|starts_of| starts_of.get(starts).or(starts_of.last()));
        // A copy of a directory is opened by the build that had it.
        of.copied().unwrap_or(self.nodes[node].build)
    }

    /// Everybody who runs another build than the newest is started again with that.
    pub(crate) fn upgrade_all(&mut self) -> Result<(), crate::oracle::Violation> {
        if self.plan.builds.is_none() {
            return Ok(());
        }
        self.is_upgraded = true;
        for node in 0..self.nodes.len() {
            if self.nodes[node].build != Build::NEWEST {
                self.crash(node, 1_000 * (1 + node as u64), true)?;
            }
        }
        self.run_until(self.now + 1_000 * (2 + self.nodes.len() as u64))
    }

    /// Whether clients' writes at a replica are in operations of the version that does not exist.
    pub(crate) fn speaks_of_the_future(&self, event: u32) -> bool {
        event.is_multiple_of(3) && self.plan.builds.as_ref().is_some_and(|builds| builds.are_used)
    }

    /// Whether a replica holds something that it knows, or has yet to look at what it holds.
    pub(crate) fn is_releasing(&self, node: usize) -> bool {
        let holds = |status: comity_engine::SpaceStatus| status.held > 0;
        let is_asked = self.nodes[node].build.knows && self.plan.builds.is_some();
        is_asked && (0..self.truth.spaces.len()).any(|space| self.status(node, space).is_some_and(holds))
    }
}
