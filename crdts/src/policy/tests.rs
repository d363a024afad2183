//! What policies show, and what they are called.
