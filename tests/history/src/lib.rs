//! Checks recorded histories of client operations for causal consistency.
//!
//! [`check`] is given what clients wrote to and read from a store of multi-value registers, and nothing about
//! replicas, messages or clocks. It decides whether a causally consistent store can have answered so. The
//! method is that of Bouajjani, Enea, Guerraoui and Hamza, *On Verifying Causal Consistency* (POPL 2017):
//! when every value is written once, the answers tell which write each read saw, and a history is consistent
//! exactly when none of a few patterns occurs in the causal order, the closure of each session's order and of
//! a write coming before whatever saw its value. Here a read returns a set of values, and a write sees the
//! values that it replaces.
//!
//! # What is checked
//!
//! An operation sees of its key exactly the values of those writes in its causal past that no other write
//! there has in its own. Either there is one of these [`Pattern`]s, or the history is consistent:
//!
//! - the causal order has a cycle;
//! - a value was seen that nobody wrote to the key, or twice at once;
//! - a value was seen beside one that had replaced it, directly or by way of other writes;
//! - a write of the key in the causal past was neither seen nor replaced by something that was seen: nothing
//!   was seen at all, or what it replaced, or something unrelated.
//!
//! [`is_causal_by_brute_force`] is the definition without the patterns: it tries every visibility there can be.
//! Both give the same verdict on all small histories.
//!
//! The paper's `CyclicCF`, by which a convergent store differs from a merely causal one, has no counterpart:
//! siblings are not arbitrated, and what is seen follows from what is visible. That also makes the paper's two
//! weaker and stronger models, causal memory and causal convergence, the same here.
//!
//! Writes without a reply:
//!
//! - one that something saw happened, and what it saw is judged; it comes after its session's earlier
//!   operations, and before only what saw it;
//! - one that nothing saw may not have happened, and is not judged;
//! - of an [`Outcome::Unstated`] one, what it replaced is concluded from what was no longer seen beside it.
//!   Where one of several such writes must have replaced a value, the omission is excused and counted in
//!   [`Summary::excused`]; an anomaly is never reported in error, but with excuses one may be missed.
//!
//! # What is not checked
//!
//! - That writes arrive: a store that shows each session nothing but its own writes is causally consistent. A
//!   run should end with every session reading every key after the network has healed, and the caller should
//!   compare these reads. An acknowledged write that was lost is found only if something had seen it, or the
//!   session that wrote it reads on.
//! - Real time: an operation that began after another had ended is not thereby after it.
//! - Convergence of what is shown under a policy, such as the latest of the siblings.
//! - Operations on several keys at once, deletions, and other types than registers.
//! - What a session saw in an operation that is not recorded.
//!
//! # Text
//!
//! [`History`] displays as, and parses from, lines of decimal numbers and words separated by spaces; empty
//! lines and lines that begin with `#` are skipped. The operations of one session are in their order; those
//! of different sessions may be mixed in any way.
//!
//! ```text
//! SESSION KEY W VALUE ok|unknown|unstated REPLACED...
//! SESSION KEY R VALUES...
//! ```
//!
//! ```
//! let history: comity_history::History = "\
//! 0 7 W 1 ok
//! 1 7 W 2 ok
//! 1 7 R 1 2
//! 1 7 R 2
//! ".parse()?;
//! let anomaly = comity_history::check(&history).expect_err("session 1 no longer sees 1");
//! assert_eq!(
//!     anomaly.to_string(),
//!     "OmittedWrite: session 1 operation 2 saw [2] in key 7, although 1 is in its causal past and none of \
//!      these replaced it (session 0 operation 0 -> session 1 operation 1 -> session 1 operation 2)"
//! );
//! # Ok::<(), comity_history::ParseError>(())
//! ```

mod anomaly;
mod brute_force;
mod check;
mod graph;
mod history;
mod order;
mod text;

pub use anomaly::{Anomaly, Pattern};
pub use brute_force::{BRUTE_FORCE_OPERATIONS_MAX, is_causal_by_brute_force};
pub use check::{Summary, check};
pub use history::{History, Operation, Outcome, Place};
pub use text::{Line, ParseError, ParseErrorReason, TEXT_SESSIONS_MAX};
