//! The deterministic simulator of Comity: seeded worlds with faults, oracles, shrinking.
