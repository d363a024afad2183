//! Comity.
