//! JSON and documents.
//!
//! Reading gives a [`Value`] for whatever is at a JSON Pointer (RFC 6901). Writing makes what is there equal to a
//! value by as few operations as it can, so that what did not change is not written and concurrent edits of it
//! survive: texts and lists are diffed, keys that are absent are deleted. Strings become collaborative text.
//!
//! What JSON lacks has tags: `{"$counter": 5}`, `{"$bytes": "<base64>"}`, `{"$timestamp": <ms>}`,
//! `{"$float": "NaN"}` (or `inf`, `-inf`). `{"$string": "…"}` writes a string that is replaced as a whole; it reads
//! as a plain string. A map with a tag as its only key is `{"$map": {…}}`. Numbers written as integers are integers
//! where they fit 64 bits, all others are floats.

mod pointer;
mod scalar;

use automerge::AutomergeError;

pub(crate) use pointer::Pointer;
pub(crate) use scalar::to_json as scalar_to_json;

/// Lists and maps within lists and maps, counted from the document's root, that are read or written.
pub const DEPTH_MAX: usize = 64;

/// How values are shown that JSON lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonForm {
    /// By tags: what is read can be written again and is the same then.
    #[default]
    Tagged,
    /// As what is nearest: counters and timestamps as numbers, bytes as base64, floats that are no numbers as null.
    Plain,
}

/// Why JSON could not be read from a document or written to one. What an edit did before is rolled back with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The pointer is not one.
    #[error("the JSON pointer {pointer:?}: {rule}")]
    Pointer {
        /// What was given.
        pointer: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// Nothing is there.
    #[error("there is nothing at {pointer:?}")]
    NotFound {
        /// Where.
        pointer: String,
    },
    /// What is there has neither keys nor elements.
    #[error("what is at {pointer:?} is neither a map nor a list")]
    NotContainer {
        /// Where.
        pointer: String,
    },
    /// The last part of the pointer is no index of the list it leads to.
    #[error("{pointer:?} is no place in its list, which has {length} elements")]
    Index {
        /// Where.
        pointer: String,
        /// The length of the list.
        length: usize,
    },
    /// A document's root is a map; it can be neither replaced by anything else, nor removed.
    #[error("the root of a document is a map and stays one")]
    Root,
    /// The nesting is too deep.
    #[error("{pointer:?} is nested deeper than {depth_max} lists and maps")]
    TooDeep {
        /// Where the limit is passed.
        pointer: String,
        /// The limit, [`DEPTH_MAX`].
        depth_max: usize,
    },
    /// A tagged value is none.
    #[error("{tag} at {pointer:?}: {rule}")]
    Tag {
        /// Where.
        pointer: String,
        /// The tag.
        tag: String,
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The document library refused an operation.
    #[error(transparent)]
    Automerge(Box<AutomergeError>),
}

impl From<AutomergeError> for JsonError {
    fn from(error: AutomergeError) -> Self {
        Self::Automerge(Box::new(error))
    }
}
