//! What the runs of a lane leave out of document changes: what their receiver knows from those before.

use std::collections::VecDeque;

use comity_crdts::limits::CHANGE_SET_BYTES_MAX;
use comity_crdts::{DecodeError, DocumentError, Expected, Hlc, RawChange, Reader, RecentChanges, Writer};

/// Documents whose recent changes are kept; those of the one changed longest ago make room.
pub(crate) const ELIDED_DOCUMENTS_MAX: usize = 64;

/// The recent changes of documents, by their references. Writer and reader keep theirs in step. At most
/// 1 MiB; for documents in which people type, some 500 bytes each.
#[derive(Clone, Debug)]
pub(crate) struct Elision {
    /// As whom the lane's owner edits documents.
    actor: [u8; 16],
    /// The one changed last at the end.
    documents: VecDeque<(u64, RecentChanges)>,
    /// Bytes of changes that the change set being read may still have: a few stand for many.
    room: usize,
}

impl Elision {
    pub(crate) fn new(actor: [u8; 16]) -> Self {
        Self { actor, documents: VecDeque::new(), room: CHANGE_SET_BYTES_MAX }
    }

    /// The next change set begins.
    pub(crate) fn begin_change_set(&mut self) {
        self.room = CHANGE_SET_BYTES_MAX;
    }

    /// Writes a change to a document that is made at `at`. O(bytes).
    pub(crate) fn write(&mut self, document: u64, at: Hlc, change: &RawChange, out: &mut Writer) {
        let mut recent = self.take(document);
        change.encode_elided(&self.expected(&recent, at), out);
        recent.note(change);
        self.documents.push_back((document, recent));
    }

    /// Reads a change to a document. O(bytes of the change).
    pub(crate) fn read(
        &mut self,
        document: u64,
        at: Hlc,
        reader: &mut Reader<'_>,
    ) -> Result<RawChange, DecodeError> {
        let mut recent = self.take(document);
        let change = RawChange::decode_elided(&self.expected(&recent, at), reader).map_err(refused)?;
        let bytes = change.bytes().len();
        self.room = self.room.checked_sub(bytes).ok_or(DecodeError::OverLimit {
            what: "document changes of a change set",
            value: (CHANGE_SET_BYTES_MAX - self.room + bytes) as u64,
            value_max: CHANGE_SET_BYTES_MAX as u64,
        })?;
        recent.note(&change);
        self.documents.push_back((document, recent));
        Ok(change)
    }

    /// Takes out what is kept of a document; of a new one, nothing, at the cost of the oldest.
    fn take(&mut self, document: u64) -> RecentChanges {
        let known = self.documents.iter().rposition(|(kept, _)| *kept == document);
        if let Some((_, recent)) = known.and_then(|place| self.documents.remove(place)) {
            return recent;
        }
        if self.documents.len() >= ELIDED_DOCUMENTS_MAX {
            self.documents.pop_front();
        }
        RecentChanges::default()
    }

    fn expected<'a>(&'a self, recent: &'a RecentChanges, at: Hlc) -> Expected<'a> {
        Expected { recent, actor: &self.actor, time_seconds: (at.millis() / 1_000) as i64 }
    }
}

/// What is wrong with a document change, as the fault of a run.
pub(crate) fn refused(error: DocumentError) -> DecodeError {
    match error {
        DocumentError::Malformed(error) => error,
        _ => DecodeError::Invalid { what: "document change", rule: "must be one sound change" },
    }
}
