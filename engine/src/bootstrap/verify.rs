//! Checking what was staged, over a view and outside the core: it must be one whole walk, every row of it sound, and the
//! state that it makes up must have the digest that was offered. Lanes must be those of their owners, and signatures theirs.

use comity_crdts::limits::LANES_MAX;
use comity_crdts::{Document, Frontier, Kind, LaneId, ObjectId, OriginId, ReplicaId, SpaceId, canary};

use crate::bootstrap::Offer;
use crate::bootstrap::piece::{piece_hash, rows_of, unpack};
use crate::bootstrap::staged::{staged, staged_rows};
use crate::bootstrap::walk::{END, LanePart, OBJECTS, Path, TAIL, field_of, frontier_of, nested};
use crate::conflicts::LocationRow;
use crate::documents::{DocumentTailRow, QuarantineRow, decode_latest};
use crate::held::HeldRows;
use crate::journal::check_journal_row;
use crate::keys;
use crate::members::Roster;
use crate::proof::Proof;
use crate::rows::{
    DocumentHeader, Object, Parts, damaged, element_row_share, held_share, member_digest,
    rw_element_row_share,
};
use crate::space::decode;
use crate::store::{LogRead, StoreError};
use crate::unstable::check_unstable;

/// What was found to be as it was offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Why it is not what was offered; nothing of it is kept then.
    pub(crate) fault: Option<String>,
}

/// Checks everything that is staged in a space. O(rows).
pub(crate) fn verify(read: &dyn LogRead, space: &SpaceId, offer: &Offer) -> Result<Verified, StoreError> {
    let mut verifier = Verifier::new(space);
    match verifier.all(read).and_then(|()| verifier.finish(offer)) {
        Ok(()) => Ok(Verified::default()),
        Err(StoreError::Corrupt { detail }) => Ok(Verified { fault: Some(detail) }),
        Err(error) => Err(error),
    }
}

/// An object whose parts are being gone through.
struct Open {
    /// The walk key of its header.
    at: Vec<u8>,
    id: ObjectId,
    kind: Kind,
    expected: Parts,
    found: Parts,
    document: Option<Box<OpenDocument>>,
}

#[derive(Default)]
struct OpenDocument {
    header: DocumentHeader,
    snapshot: Vec<u8>,
    tail: Vec<comity_crdts::RawChange>,
}

struct Verifier<'a> {
    space: &'a SpaceId,
    open: Vec<Open>,
    lanes: Vec<(LaneId, LanePart)>,
    held: HeldRows,
    digest: u128,
}

/// No count of anything comes near this.
const NUMBER_MAX: u64 = 1 << 56;

fn fault<T>(what: &str) -> Result<T, StoreError> {
    Err(damaged("snapshot", &what))
}

impl<'a> Verifier<'a> {
    fn new(space: &'a SpaceId) -> Self {
        Self { space, open: Vec::new(), lanes: Vec::new(), held: HeldRows::default(), digest: 0 }
    }

    fn all(&mut self, read: &dyn LogRead) -> Result<(), StoreError> {
        let mut at: Vec<u8> = Vec::new();
        for (until, piece) in staged(read, self.space)? {
            if piece.from != at {
                return fault("a piece is missing");
            }
            let packed = staged_rows(read, self.space, &until)?;
            let rows = unpack(&packed).map_err(|error| damaged("piece", &error))?;
            if piece_hash(&at, &until, &rows) != piece.hash {
                return fault("a piece is not what it was");
            }
            for row in rows_of(&at, &until, &rows) {
                let (key, value) = row.map_err(|error| damaged("piece", &error))?;
                self.row(&key, value)?;
            }
            at = until;
        }
        if at == END { Ok(()) } else { fault("the last piece is missing") }
    }

    fn finish(&mut self, offer: &Offer) -> Result<(), StoreError> {
        self.close_beside(&[])?;
        self.held.finish()?;
        if canary!(PieceOfAnotherView) {
            return Ok(());
        }
        let applied = self.lanes.iter().fold(0_u64, |sum, (_, part)| sum.saturating_add(part.tip.lsn));
        if frontier_of(&self.lanes) != offer.frontier || applied != offer.applied {
            return fault("its lanes are not as they were offered");
        }
        if self.digest != offer.digest.0 { fault("its digest is not that which was offered") } else { Ok(()) }
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let Some((section, tail)) = key.split_first() else { return fault("a row without a key") };
        match *section {
            0x21 => self.lane(tail, value),
            0x23 if tail.len() == 16 => decode::<Frontier>("announcement row", value).map(drop),
            0x24 if tail.is_empty() => decode::<Frontier>("row of what is forgotten", value).map(drop),
            keys::HELD_CHANGES => self.held.change(tail, value),
            keys::HELD => {
                let key = [keys::with_space(keys::HELD, self.space).as_slice(), tail].concat();
                let object = self.held.ops(self.space, &key, value)?;
                self.digest = self.digest.wrapping_add(object.map_or(0, |id| held_share(&id)));
                Ok(())
            }
            OBJECTS => self.object(key, value),
            0x36 => self.member(key, tail, value),
            0x37 if tail.len() > 24 => check_unstable(self.space, &tail[24..], value),
            0x38 if !tail.is_empty() => {
                decode::<LocationRow>("conflict row", value)?.location("conflict row").map(drop)
            }
            0x39 if tail.len() == 48 => {
                decode::<QuarantineRow>("quarantine row", value)?.object.location("quarantine row").map(drop)
            }
            0x40 if tail.len() == 50 => check_journal_row(value),
            0x4b if tail.len() == 16 => decode::<(LaneId, u64, u64)>("operation row", value).map(drop),
            _ => fault("a row of no sort that is known"),
        }
    }

    fn lane(&mut self, tail: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let part: LanePart = decode("lane of a snapshot", value)?;
        let lane = part.owner.lane(self.space);
        let is_own = <[u8; 16]>::try_from(tail).is_ok_and(|id| OriginId(id) == lane);
        let is_counted = part.changed <= part.tip.lsn && part.tip.lsn.max(part.tip.seq) < NUMBER_MAX;
        if !is_own || self.lanes.len() >= LANES_MAX || !is_counted {
            return fault("a lane is not its owner's");
        }
        if let Some(proof) = &part.proof {
            let proof = Proof::from_bytes(proof).map_err(|error| damaged("proof of a lane", &error))?;
            if !proof.holds(&part.owner.replica, self.space, &lane, (part.tip.lsn, &part.tip.hash)) {
                return fault("a lane is not signed by its owner");
            }
        } else if part.tip.lsn > 0 {
            return fault("a lane is not proved");
        }
        self.lanes.push((lane, part));
        Ok(())
    }

    fn member(&mut self, key: &[u8], tail: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.close_beside(key)?;
        let Ok(replica) = <[u8; 32]>::try_from(tail) else { return fault("a member row's key is none") };
        let again = Roster::row_again(value).map_err(|error| damaged("member row", &error))?;
        if again != value {
            return fault("a member row is not as it is written");
        }
        self.digest = self.digest.wrapping_add(member_digest(&ReplicaId(replica), value));
        Ok(())
    }

    /// Ends the objects that a row is no part of.
    fn close_beside(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let is_part =
            |open: &Open| key.strip_prefix(open.at.as_slice()).is_some_and(|rest| rest.first() == Some(&0));
        while let Some(open) = self.open.pop_if(|open| !is_part(open)) {
            if open.expected != open.found {
                return fault("an object has not the parts that its header says");
            }
            if let Some(document) = open.document {
                document.check()?;
            }
        }
        Ok(())
    }

    fn object(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.close_beside(key)?;
        let Some(path) = Path::parse(&key[1..]) else { return fault("an object row's key is none") };
        let Some(last) = path.steps.last() else {
            let id = ObjectId::derive(self.space, &path.address);
            let object = Object::from_bytes(path.address.kind(), value)?;
            if !self.held.objects.contains(&id) {
                self.digest = self.digest.wrapping_add(object.share(&id).digest);
            }
            self.open(key, (id, path.address.kind()), object);
            return Ok(());
        };
        let Some(open) = self.open.last_mut() else { return fault("a part without its object") };
        if open.at.len() + 2 + last.tail.len() != key.len()
            || !crate::bootstrap::walk::parts_of(open.kind).contains(&last.prefix)
        {
            return fault("a part of another object");
        }
        match open.kind {
            Kind::Set => {
                let share = element_row_share(&open.id, &last.tail, value)?;
                open.found.exchange(Default::default(), share);
            }
            Kind::RwSet => {
                let share = rw_element_row_share(&open.id, &last.tail, value)?;
                open.found.exchange(Default::default(), share);
            }
            Kind::Map => {
                let (Some((_, kind)), Some(id)) = (field_of(last), nested(&open.id, last)) else {
                    return fault("a field's key is none");
                };
                let object = Object::from_bytes(kind, value)?;
                open.found.exchange(Default::default(), object.share(&id));
                self.open(key, (id, kind), object);
            }
            Kind::Document => {
                if let Some(document) = &mut open.document {
                    document.part((last.prefix, &last.tail), value)?;
                }
            }
            _ => return fault("a part of an object that has none"),
        }
        Ok(())
    }

    fn open(&mut self, at: &[u8], (id, kind): (ObjectId, Kind), object: Object) {
        let (expected, document) = match object {
            Object::Set(parts) | Object::RwSet(parts) | Object::Map(parts) => (parts, None),
            Object::Document(header) => {
                (Parts::default(), Some(Box::new(OpenDocument { header, ..OpenDocument::default() })))
            }
            _ => return,
        };
        self.open.push(Open { at: at.to_vec(), id, kind, expected, found: Parts::default(), document });
    }
}

impl OpenDocument {
    fn part(&mut self, (prefix, tail): (u8, &[u8]), value: &[u8]) -> Result<(), StoreError> {
        match prefix {
            TAIL => {
                let index = <[u8; 8]>::try_from(tail).map(u64::from_be_bytes);
                let expected = self.header.snapshot.through.saturating_add(self.tail.len() as u64);
                let (row, carried) = DocumentTailRow::from_bytes(expected, value)?;
                let Some(carried) = carried else { return fault("a change of a document is not carried") };
                if index.ok() != Some(expected) || row.max_op != carried.change.max_op() {
                    return fault("a change of a document is missing");
                }
                self.tail.push(carried.change);
            }
            0x34 => {
                let latest = decode_latest(value)?;
                if latest.seq.max(latest.max_op) >= NUMBER_MAX {
                    return fault("a change of a document has a number out of bounds");
                }
            }
            _ => {
                let number = tail.first_chunk::<8>().map(|number| u64::from_be_bytes(*number));
                if number != Some(self.header.snapshot.number) || tail.len() != 12 {
                    return fault("a piece of another version of a document");
                }
                self.snapshot.extend_from_slice(value);
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        let header = &self.header;
        let numbers = [header.changes, header.bytes, header.snapshot.number, header.snapshot.raw_bytes];
        let numbers = numbers.iter().chain(header.heads.values());
        if numbers.max().is_some_and(|number| *number >= NUMBER_MAX)
            || header.bytes < header.snapshot.raw_bytes
        {
            return fault("a document has numbers out of bounds");
        }
        let is_whole = header.changes.checked_sub(header.snapshot.through) == Some(self.tail.len() as u64)
            && header.snapshot.bytes == self.snapshot.len() as u64;
        if !is_whole {
            return fault("a document is not whole");
        }
        if header.changes > 0 {
            let snapshot = (header.snapshot.number > 0).then_some(self.snapshot.as_slice());
            Document::load(snapshot, &self.tail, [0; 16]).map_err(|error| damaged("document", &error))?;
        }
        Ok(())
    }
}
