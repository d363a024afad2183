//! Documents for reading: one instance of each, kept up with the log.

use std::collections::VecDeque;
use std::sync::Arc;

use comity_crdts::automerge::Patch;
use comity_crdts::{Document, ObjectAddress, SpaceId};

use crate::documents::{DocumentPlace, Reached, load, read_tail};
use crate::rows::{DocumentHeader, damaged};
use crate::site::Site;
use crate::store::{LogRead, StoreError};

/// Patches that are kept of a document which is followed, for followers that are a little behind.
const RECENT_PATCHES_MAX: usize = 4_096;

/// In how many steps.
const RECENT_STEPS_MAX: usize = 64;

/// A document as a view shows it. Whoever holds on to it holds that version.
#[derive(Clone, Debug)]
pub struct ReadDocument {
    /// The document.
    pub document: Arc<Document>,
    /// Changes that were found just now to be refused by the document library.
    pub refused: usize,
}

/// A version of a document, for who follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentPosition(Reached);

/// A document and what changed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The document.
    pub read: ReadDocument,
    /// Which version that is.
    pub position: DocumentPosition,
    /// What changed, in order; `None` when that is not known any more.
    pub patches: Option<Vec<Patch>>,
}

/// A document that is read at one replica: an instance of it that goes on with the log. Readers share it.
#[derive(Debug, Default)]
pub struct DocumentReader(Option<Held>);

/// An instance and how far it has come.
#[derive(Debug)]
struct Held {
    document: Arc<Document>,
    reached: Reached,
    /// Somebody wants to know what changes.
    is_followed: bool,
    recent: Recent,
}

/// What changed lately: each step from a version to the next.
#[derive(Clone, Debug, Default)]
struct Recent(VecDeque<(Reached, Arc<[Patch]>)>);

impl Recent {
    fn push(&mut self, from: Reached, patches: Vec<Patch>) {
        self.0.push_back((from, patches.into()));
        let mut held: usize = self.0.iter().map(|(_, patches)| patches.len()).sum();
        while self.0.len() > RECENT_STEPS_MAX || held > RECENT_PATCHES_MAX {
            held -= self.0.pop_front().map_or(0, |(_, patches)| patches.len());
        }
    }

    /// What changed from one version to the newest, if that is known.
    fn since(&self, from: Reached, to: Reached) -> Option<Vec<Patch>> {
        if from == to {
            return Some(Vec::new());
        }
        let first = self.0.iter().position(|(step, _)| *step == from)?;
        Some(self.0.range(first..).flat_map(|(_, patches)| patches.iter().cloned()).collect())
    }
}

impl DocumentReader {
    /// The document as `read` shows it. O(document) the first time; then what applying the changes takes that came
    /// since. A view older than what was read before is served on its own.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails or what it holds is damaged.
    pub fn read(
        &mut self,
        read: &dyn LogRead,
        space: &SpaceId,
        address: &ObjectAddress,
    ) -> Result<ReadDocument, StoreError> {
        Ok(self.advance(read, space, address, false)?.read)
    }

    /// As [`DocumentReader::read`], with what changed since a position, if that is still known.
    ///
    /// # Errors
    /// As [`DocumentReader::read`].
    pub fn follow(
        &mut self,
        read: &dyn LogRead,
        space: &SpaceId,
        address: &ObjectAddress,
        after: Option<DocumentPosition>,
    ) -> Result<Followed, StoreError> {
        let Advanced { read, reached, recent } = self.advance(read, space, address, true)?;
        let patches = after.and_then(|after| recent.since(after.0, reached));
        Ok(Followed { read, position: DocumentPosition(reached), patches })
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> u64 {
        self.0.as_ref().map_or(0, |held| held.document.weight())
    }

    fn advance(
        &mut self,
        read: &dyn LogRead,
        space: &SpaceId,
        address: &ObjectAddress,
        is_followed: bool,
    ) -> Result<Advanced, StoreError> {
        let site = Site::top(space, address);
        let place = DocumentPlace { space, address, site: &site };
        let header = place.header(read)?;
        let reached = Reached::of(&header);
        if self.0.as_ref().is_some_and(|held| held.reached.is_beyond(reached)) {
            let (document, refused) = load(read, &place, &header, [0; 16])?;
            let read = ReadDocument { document: Arc::new(document), refused };
            return Ok(Advanced { read, reached, recent: Recent::default() });
        }
        let (mut now, refused) = match self.0.take() {
            Some(old) if old.reached.can_go_on(&header) => go_on(read, &place, &header, old)?,
            _ => {
                let (document, refused) = load(read, &place, &header, [0; 16])?;
                let (document, recent) = (Arc::new(document), Recent::default());
                (Held { document, reached, is_followed, recent }, refused)
            }
        };
        now.is_followed |= is_followed;
        let (document, recent) = (Arc::clone(&now.document), now.recent.clone());
        self.0 = Some(now);
        Ok(Advanced { read: ReadDocument { document, refused }, reached, recent })
    }
}

/// A document that was brought up to date.
struct Advanced {
    read: ReadDocument,
    reached: Reached,
    recent: Recent,
}

/// Applies what was admitted since; returns how many changes were refused, too.
fn go_on(
    read: &dyn LogRead,
    place: &DocumentPlace<'_>,
    header: &DocumentHeader,
    mut held: Held,
) -> Result<(Held, usize), StoreError> {
    if held.reached.changes == header.changes {
        return Ok((held, 0));
    }
    let changes = read_tail(read, place, held.reached.changes..header.changes)?;
    // Copied if somebody holds on to the version before.
    let document = Arc::make_mut(&mut held.document);
    let applied = if held.is_followed {
        let applied = document.apply_with_patches(&changes);
        applied.map(|(applied, patches)| {
            held.recent.push(held.reached, patches);
            applied
        })
    } else {
        document.apply(&changes)
    };
    let applied = applied.map_err(|error| damaged("document", &error))?;
    held.reached = Reached::of(header);
    Ok((held, applied.refused.len()))
}
