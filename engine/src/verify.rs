//! Checking everything that is stored against itself: chains and signatures of lanes, the order of applying, the
//! digest of the state, and every index. Nothing is changed.

mod indexes;
mod lanes;
mod objects;

use std::fmt;

use comity_crdts::SpaceId;

use crate::bootstrap::is_installing;
use crate::catalog::spaces;
use crate::store::{LogRead, PAGE_ROWS, Row, StateRead, StoreError, each_row};

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Matters {
    /// An entry of a lane: missing, unreadable, or not what the chain of hashes says.
    Chain,
    /// A signature over a lane's head.
    Signature,
    /// The order in which entries were applied.
    Order,
    /// The digest of the state, or what a set or a map says of its parts.
    Digest,
    /// A row that cannot be read.
    Row,
    /// A document that cannot be loaded, or is another one than its header says.
    Document,
    /// The index of conflicts.
    Conflicts,
    /// The journal, its index, or its totals.
    Journal,
    /// The operation ids that are remembered, and their index.
    Operations,
    /// What is remembered of additions that removals may beat.
    Additions,
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The space.
    pub space: SpaceId,
    /// What it is about.
    pub matters: Matters,
    /// The lane, the object or the row.
    pub place: String,
    /// What is wrong with it.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "space {}: {:?}: {}: {}", self.space, self.matters, self.place, self.detail)
    }
}

/// What was walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Spaces.
    pub spaces: u64,
    /// Those of them whose state is being taken over from another replica, which were not looked at.
    pub installing: u64,
    /// Lanes.
    pub lanes: u64,
    /// Entries of lanes, each hashed.
    pub entries: u64,
    /// Signatures over heads, each checked.
    pub signatures: u64,
    /// Objects, nested ones included.
    pub objects: u64,
    /// Elements of sets.
    pub elements: u64,
    /// Documents that were loaded.
    pub documents: u64,
    /// Entries of journals.
    pub journal: u64,
    /// Faults that were found.
    pub faults: u64,
}

/// One space being walked.
struct Walk<'a> {
    read: &'a dyn LogRead,
    space: SpaceId,
    verified: &'a mut Verified,
    found: &'a mut dyn FnMut(Fault),
    looked: &'a mut dyn FnMut(u64),
}

/// Rows and entries between two reports of how many were looked at.
const TOLD_EVERY: u64 = 1_024;

impl Walk<'_> {
    fn fault(&mut self, matters: Matters, place: impl fmt::Display, detail: impl fmt::Display) {
        self.verified.faults += 1;
        let (place, detail) = (place.to_string(), detail.to_string());
        (self.found)(Fault { space: self.space, matters, place, detail });
    }

    /// What was read, or a fault in place of what cannot be.
    fn readable<R>(
        &mut self,
        place: impl fmt::Display,
        read: Result<R, StoreError>,
    ) -> Result<Option<R>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(StoreError::Corrupt { detail }) => {
                self.fault(Matters::Row, place, detail);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Does something with every row of a range. O(rows).
    fn each_row(
        &mut self,
        range: (Vec<u8>, Vec<u8>),
        mut visit: impl FnMut(&mut Self, Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        each_row(self.read, range, |row| {
            self.looked_at(1);
            visit(self, row)
        })
    }

    /// So many rows or entries more were looked at.
    fn looked_at(&mut self, rows: u64) {
        (self.looked)(rows);
    }
}

/// Walks everything that is stored and tells what is wrong, as it is found, and now and then how many rows and entries
/// were looked at: in the end about as many as there are. O(everything), with a page of rows and one document in memory.
///
/// Of lanes whose log was shortened, what is kept is walked. A space whose state is being taken over from another replica
/// is counted and not looked at: it is put in place step by step.
///
/// It finds what differs from what was written, by a fault of a disk or of this program. It cannot find what was
/// changed on purpose and made to agree, apart from lanes, which their owners signed.
///
/// # Errors
/// [`StoreError`] when storage fails; what is damaged is no failure, but a fault that is told.
pub fn verify(
    read: &dyn LogRead,
    mut found: impl FnMut(Fault),
    mut looked: impl FnMut(u64),
) -> Result<Verified, StoreError> {
    let (mut rows, mut told) = (0, 0);
    let mut looked = |count| {
        rows += count;
        if rows >= told + TOLD_EVERY {
            told = rows;
            looked(rows);
        }
    };
    let mut verified = Verified::default();
    let mut after = None;
    loop {
        let page = spaces(read as &dyn StateRead, after.as_ref(), PAGE_ROWS)?;
        let is_last = page.len() < PAGE_ROWS;
        after = page.last().map(|(space, _)| *space).or(after);
        for (space, _) in page {
            verified.spaces += 1;
            if is_installing(read, &space)? {
                verified.installing += 1;
                continue;
            }
            let mut walk =
                Walk { read, space, verified: &mut verified, found: &mut found, looked: &mut looked };
            let (floors, frontier) = walk.lanes()?;
            walk.order(floors, &frontier)?;
            walk.objects()?;
            walk.indexes()?;
        }
        if is_last {
            return Ok(verified);
        }
    }
}
