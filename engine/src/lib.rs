//! The deterministic core of Comity.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod store;

pub use store::{Batch, LaneRecord, Position, Put, Row, StateRead, Store, StoreError};
