//! Views: consistent reads of durable state.

use comity_crdts::{Document, Dot, MvRegister, Policy, RegisterView, SpaceId, Value};
use comity_engine::{JournalEntry, Listing, ReadError, StoreError, Token};
use comity_store::Snapshot;

/// The durable state of a space at one moment. It never changes, never shows part of a change set, and
/// expires after 30 s so that storage can be reclaimed; open another then.
pub struct View {
    snapshot: Snapshot,
    space: SpaceId,
}

impl View {
    pub(crate) fn new(snapshot: Snapshot, space: SpaceId) -> Self {
        Self { snapshot, space }
    }

    /// Exactly what this view shows, as a token: whoever presents it elsewhere sees at least as much. O(lanes).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn token(&self) -> Result<Token, ReadError> {
        let frontier = comity_engine::frontier(&self.snapshot, &self.space)?;
        Ok(Token { space: self.space, frontier })
    }

    /// A counter's value; 0 when nothing was ever added.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn counter(&self, collection: &str, key: &str) -> Result<i128, ReadError> {
        comity_engine::counter(&self.snapshot, &self.space, collection, key)
    }

    /// A register, to be read under a policy.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn register(&self, collection: &str, key: &str) -> Result<RegisterReader, ReadError> {
        Ok(RegisterReader(comity_engine::register(&self.snapshot, &self.space, collection, key)?))
    }

    /// Whether a set holds an element. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn set_contains(&self, collection: &str, key: &str, element: &Value) -> Result<bool, ReadError> {
        comity_engine::set_contains(&self.snapshot, &self.space, (collection, key), element)
    }

    /// The number of elements in a set. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn set_len(&self, collection: &str, key: &str) -> Result<u64, ReadError> {
        comity_engine::set_len(&self.snapshot, &self.space, collection, key)
    }

    /// At most `limit` elements of a set after `after`, in canonical order.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn set_elements(
        &self,
        collection: &str,
        key: &str,
        after: Option<&Value>,
        limit: usize,
    ) -> Result<Vec<Value>, ReadError> {
        comity_engine::set_elements(&self.snapshot, &self.space, (collection, key), after, limit)
    }

    /// A document, loaded for reading. O(history).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn document(&self, collection: &str, key: &str) -> Result<Document, ReadError> {
        comity_engine::document(&self.snapshot, &self.space, collection, key)
    }

    /// A document's heads, sorted. O(log n).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn document_heads(&self, collection: &str, key: &str) -> Result<Vec<[u8; 32]>, ReadError> {
        comity_engine::document_heads(&self.snapshot, &self.space, collection, key)
    }

    /// The keys of objects that hold something.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn list(&self, listing: Listing<'_>) -> Result<Vec<String>, ReadError> {
        comity_engine::list(&self.snapshot, &self.space, listing)
    }

    /// The oldest `limit` journal entries.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        comity_engine::journal(&self.snapshot, &self.space, limit)
    }
}

/// A register that was read: the siblings, under whichever policy is wanted. Reading changes nothing.
#[derive(Clone, Debug)]
pub struct RegisterReader(MvRegister);

impl RegisterReader {
    /// What the policy shows.
    pub fn under(&self, policy: &Policy) -> RegisterView {
        policy.view(&self.0)
    }

    /// The one value that last-writer-wins shows, or `None` when the register is empty.
    pub fn latest(&self) -> Option<Value> {
        match Policy::Lww.view(&self.0) {
            RegisterView::Value(value) => Some(value),
            RegisterView::Absent | RegisterView::Siblings(_) => None,
        }
    }

    /// Every concurrent value, with the dot by which a resolution names it.
    pub fn siblings(&self) -> Vec<(Dot, Value)> {
        self.0.siblings().map(|(dot, sibling)| (*dot, sibling.value.clone())).collect()
    }

    /// The register itself.
    pub fn register(&self) -> &MvRegister {
        &self.0
    }
}
