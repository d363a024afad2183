//! Checks recorded histories of client operations for causal consistency.
