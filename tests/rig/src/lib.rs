//! Real replicas in network namespaces behind a faulty network and on faulty disks.
//!
//! `tests/rig/run` is the way in: it looks what can be injected on this machine, reports the rest as NOT RUN, and
//! runs seeds. One run is one program in three roles:
//!
//! * a [`node`] is a replica on the public API, which answers questions that come as [`lines`];
//! * the [`relay`] is the only way from one node to another, and treats datagrams as a [`shaper`] says;
//! * the controller ([`mod@run`]) sets up a [`lab`], has the replicas [found](founding) a space, lets client
//!   [sessions](session) work, [torments](torment) the [`fleet`] by a [`plan`], heals, and [audits](audit).
//!
//! [`wan`] has replicas on long paths, with everything else in order: what that costs, and what it must not.
//!
//! What clients were told goes into a [`ledger`] and a history for `comity-history`. A seed draws the map, the
//! weather, the faults and what clients ask; processes and the kernel are as they are, so a seed repeats the plan
//! and not every interleaving.
//!
//! *Invariant:* nothing is judged by a clock but the absence of an answer, and every wait for one has a limit.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod audit;
pub mod draws;
pub mod error;
pub mod fleet;
pub mod founding;
pub mod lab;
pub mod ledger;
pub mod lines;
pub mod node;
pub mod plan;
pub mod process;
pub mod relay;
pub mod run;
pub mod session;
pub mod shaper;
pub mod streets;
pub mod torment;
pub mod wan;
