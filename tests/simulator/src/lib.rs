//! The deterministic simulator: the real core, codec and stores in a world of virtual clocks, networks and
//! disks, with faults by plan and oracles that watch.
//!
//! A seed stands for a [`Plan`]: the replicas, what clients do, and what goes wrong when ([`plan`]). A plan
//! stands for a run ([`run`]): the same plan gives the same [`Outcome`], to the last byte on the wire. What a
//! run must not do is listed, with what each rule does not look at, in [`Oracle`].
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod audit;
mod builds;
mod calm;
#[cfg(feature = "canaries")]
mod canaries;
mod clients;
mod decay;
mod disk;
mod enrolment;
mod judge;
mod menu;
mod network;
mod node;
mod observer;
mod oracle;
mod plan;
mod process;
mod promises;
mod random;
mod reference;
mod roster;
mod run;
#[cfg(test)]
mod scenarios;
mod sectors;
mod shrink;
mod topology;
mod truth;
mod world;

pub use builds::Mix;
pub use calm::Copies;
#[cfg(feature = "canaries")]
pub use canaries::{expected, hunt, violation};
pub use menu::{Scale, plan};
pub use oracle::{Oracle, Violation};
pub use plan::Plan;
pub use run::{Outcome, run, run_logged};
pub use shrink::shrink;
pub use topology::Topology;
pub use world::Tally;
