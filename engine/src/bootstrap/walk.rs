//! The walk: every row that makes up the state of a space, in one order that every replica with the same state has.
//!
//! A row is known by its *walk key*: the prefix of its key in the store and what follows the space there. The parts of an
//! object come right after its header: their walk keys are the header's, a zero byte, and for each step down a prefix and
//! what follows the object's id. Names hold no zero byte, so walk keys sort as the rows are walked.

use std::ops::ControlFlow;

use comity_crdts::{Frontier, Kind, LaneId, ObjectAddress, ObjectId, OriginId, SpaceId};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::change::{LaneOwner, LaneTip};
use crate::documents::carried_tail_row;
use crate::head::{HeadSignature, sign};
use crate::keys;
use crate::rows::damaged;
use crate::site::Site;
use crate::space::{LaneRow, decode, encode};
use crate::status::Freeze;
use crate::store::{LogRead, StoreError};

/// The first bytes of the walk keys, in order: lanes, announcements, what is forgotten, what is held, objects, members, what can be
/// forgotten, conflicts, quarantine, journal, operation ids.
pub(crate) const SECTIONS: [u8; 12] =
    [0x21, 0x23, 0x24, keys::HELD_CHANGES, keys::HELD, OBJECTS, 0x36, 0x37, 0x38, 0x39, 0x40, 0x4b];
pub(crate) const OBJECTS: u8 = 0x30;
/// The parts of an object: elements, fields, a document's tail, its actors, its snapshot.
const PARTS: [u8; 5] = [0x31, FIELD, TAIL, 0x34, 0x35];
const FIELD: u8 = 0x32;
pub(crate) const TAIL: u8 = 0x33;
/// After every walk key.
pub(crate) const END: &[u8] = &[0xff];

/// Rows that are read in one go.
const ROWS_AT_ONCE: usize = 64;
/// Maps within maps.
pub(crate) const STEPS_MAX: usize = 8;
/// The longest walk key: an address and a path of names, or an element of a set.
pub(crate) const WALK_KEY_BYTES_MAX: usize = 16 * 1024;

/// A lane as a snapshot has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LanePart {
    pub(crate) owner: LaneOwner,
    pub(crate) tip: LaneTip,
    pub(crate) changed: u64,
    pub(crate) frozen: Option<Freeze>,
    /// What proves the lane up to its tip, where that is held.
    pub(crate) proof: Option<Vec<u8>>,
}

/// A step from an object to one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) prefix: u8,
    /// What follows the object's id in the key of the row.
    pub(crate) tail: Vec<u8>,
}

/// An object's header, or a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) address: ObjectAddress,
    pub(crate) steps: Vec<Step>,
}

impl Path {
    /// The path in a walk key of the section of objects, without its first byte.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (collection, rest) = split_at_zero(rest)?;
        let (key, mut rest) = split_at_zero(rest).unwrap_or((rest, &[]));
        let has_steps = bytes.len() > 1 + collection.len() + 1 + key.len();
        let (collection, key) = (std::str::from_utf8(collection).ok()?, std::str::from_utf8(key).ok()?);
        let address = ObjectAddress::new(Kind::from_tag(*kind)?, collection, key).ok()?;
        let mut steps = Vec::new();
        let mut goes_on = has_steps;
        while goes_on {
            let (prefix, tail) = rest.split_first()?;
            let length = match *prefix {
                FIELD => split_at_zero(tail)?.0.len() + 2,
                prefix if PARTS.contains(&prefix) => tail.len(),
                _ => return None,
            };
            let (tail, after) = tail.split_at_checked(length)?;
            steps.push(Step { prefix: *prefix, tail: tail.to_vec() });
            goes_on = !after.is_empty();
            rest = if goes_on { after.strip_prefix(&[0])? } else { after };
            if steps.len() > STEPS_MAX {
                return None;
            }
        }
        Some(Self { address, steps })
    }

    /// The key in the store of the row it leads to, and the id of the object in which it is.
    pub(crate) fn row(&self, space: &SpaceId) -> Option<(Vec<u8>, ObjectId)> {
        let site = Site::top(space, &self.address);
        let Some((last, within)) = self.steps.split_last() else { return Some((site.row, site.id)) };
        let id = within.iter().try_fold(site.id, |id, step| nested(&id, step))?;
        Some((keys::part(last.prefix, &id, &last.tail), id))
    }
}

/// The id of the object under a field.
pub(crate) fn nested(map: &ObjectId, field: &Step) -> Option<ObjectId> {
    let (key, kind) = field_of(field)?;
    Some(map.nested(key, kind))
}

/// The name and kind of a field.
pub(crate) fn field_of(step: &Step) -> Option<(&str, Kind)> {
    let (name, kind) = step.tail.split_last_chunk::<2>().filter(|_| step.prefix == FIELD)?;
    Some((std::str::from_utf8(name).ok()?, Kind::from_tag(kind[1]).filter(|_| kind[0] == 0)?))
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Takes a row; says whether to go on.
type Emit<'e> = dyn FnMut(&[u8], Vec<u8>) -> ControlFlow<()> + 'e;

/// Going on, or the end that was asked for.
type Flow = Result<ControlFlow<()>, StoreError>;

/// A walk over one state.
pub(crate) struct Walk<'a> {
    pub(crate) read: &'a dyn LogRead,
    pub(crate) space: &'a SpaceId,
}

impl Walk<'_> {
    /// Visits the rows after a walk key, all of them for an empty one. A key that is none ends it at once, with an error that
    /// says so. O(rows · log n).
    pub(crate) fn rows(&self, after: &[u8], emit: &mut Emit<'_>) -> Flow {
        let first = after.first().copied().unwrap_or(0);
        for section in SECTIONS.into_iter().filter(|section| *section >= first) {
            let after = (section == first).then(|| &after[1..]);
            let flow = match section {
                OBJECTS => self.objects(after, emit)?,
                section => self.section(section, after, emit)?,
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn section(&self, section: u8, after: Option<&[u8]>, emit: &mut Emit<'_>) -> Flow {
        let base = keys::with_space(section, self.space);
        let (mut from, until) = keys::within(&base);
        if let Some(after) = after {
            from = [base.as_slice(), after, &[0]].concat();
        }
        self.pages((from, until), &mut |key, value| {
            let mut walk_key = vec![section];
            walk_key.extend_from_slice(&key[base.len()..]);
            let value = if section == 0x21 { self.lane(key, &value)? } else { value };
            Ok(emit(&walk_key, value))
        })
    }

    /// Visits every row of a range of the store.
    fn pages(
        &self,
        (mut from, until): (Vec<u8>, Vec<u8>),
        visit: &mut dyn FnMut(&[u8], Vec<u8>) -> Flow,
    ) -> Flow {
        loop {
            let rows = self.read.scan(&from, &until, ROWS_AT_ONCE)?;
            let is_last = rows.len() < ROWS_AT_ONCE;
            if let Some((last, _)) = rows.last() {
                from = [last.as_slice(), &[0]].concat();
            }
            for (key, value) in rows {
                if visit(&key, value)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if is_last {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// What is sent of a lane. The head of an own lane is signed for it.
    fn lane(&self, key: &[u8], row: &[u8]) -> Result<Vec<u8>, StoreError> {
        let LaneRow { owner, tip, changed, frozen, .. } = decode("lane row", row)?;
        let lane = key.get(17..33).and_then(|lane| lane.try_into().ok()).map(OriginId);
        let lane = lane.ok_or_else(|| damaged("lane row", &"its key is none"))?;
        let kept = self.read.get(&keys::head(self.space, &lane, tip.lsn))?;
        let proof = match kept {
            Some(kept) => Some(kept),
            None => self.own_signature((&owner, &lane), &tip)?.map(|signature| signature.to_vec()),
        };
        Ok(encode(&LanePart { owner, tip, changed, frozen, proof }))
    }

    fn own_signature(
        &self,
        (owner, lane): (&LaneOwner, &LaneId),
        tip: &LaneTip,
    ) -> Result<Option<HeadSignature>, StoreError> {
        let secret = self.read.get(keys::REPLICA_KEY)?.and_then(|secret| <[u8; 32]>::try_from(secret).ok());
        let key = secret.map(|secret| SigningKey::from_bytes(&secret));
        let key = key.filter(|key| key.verifying_key().to_bytes() == owner.replica.0 && tip.lsn > 0);
        Ok(key.map(|key| sign(&key, self.space, lane, tip.lsn, &tip.hash)))
    }

    fn objects(&self, after: Option<&[u8]>, emit: &mut Emit<'_>) -> Flow {
        let base = keys::with_space(OBJECTS, self.space);
        let (mut from, until) = keys::within(&base);
        if let Some(after) = after {
            let path = Path::parse(after).ok_or_else(|| damaged("walk key", &"it leads nowhere"))?;
            let site = Site::top(self.space, &path.address);
            from = [site.row.as_slice(), &[0]].concat();
            let at = [&[OBJECTS], &site.row[base.len()..]].concat();
            let holder = Holder { address: &path.address, id: site.id, kind: site.kind };
            if self.parts(&holder, &at, &path.steps, emit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.pages((from, until), &mut |key, value| {
            let at = [&[OBJECTS], &key[base.len()..]].concat();
            let path = Path::parse(&at[1..]).ok_or_else(|| damaged("object row", &"its key is none"))?;
            if emit(&at, value).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let id = ObjectId::derive(self.space, &path.address);
            let holder = Holder { address: &path.address, id, kind: path.address.kind() };
            self.parts(&holder, &at, &[], emit)
        })
    }

    /// Visits the parts of an object after a path.
    fn parts(&self, holder: &Holder<'_>, at: &[u8], after: &[Step], emit: &mut Emit<'_>) -> Flow {
        for prefix in parts_of(holder.kind) {
            let (mut from, until) = keys::within(&keys::part(*prefix, &holder.id, &[]));
            match after.first() {
                Some(step) if step.prefix > *prefix => continue,
                Some(step) if step.prefix == *prefix => {
                    from = [keys::part(*prefix, &holder.id, &step.tail).as_slice(), &[0]].concat();
                    if *prefix == FIELD && self.within(holder, at, (step, &after[1..]), emit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                _ => {}
            }
            let flow = self.pages((from, until), &mut |key, value| {
                let step = Step { prefix: *prefix, tail: key[1 + 16..].to_vec() };
                let value = match *prefix {
                    TAIL => carried_tail_row(self.read, self.space, holder.address, (key, value))?,
                    _ => value,
                };
                let part = part_key(at, &step);
                if emit(&part, value).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                if *prefix == FIELD {
                    self.within(holder, at, (&step, &[]), emit)
                } else {
                    Ok(ControlFlow::Continue(()))
                }
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Visits the parts of what is under a field, after a path.
    fn within(
        &self,
        map: &Holder<'_>,
        at: &[u8],
        (field, after): (&Step, &[Step]),
        emit: &mut Emit<'_>,
    ) -> Flow {
        let (name, kind) = field_of(field).ok_or_else(|| damaged("map row", &"its key is none"))?;
        let holder = Holder { address: map.address, id: map.id.nested(name, kind), kind };
        self.parts(&holder, &part_key(at, field), after, emit)
    }
}

/// An object whose parts are walked.
struct Holder<'a> {
    address: &'a ObjectAddress,
    id: ObjectId,
    kind: Kind,
}

fn part_key(at: &[u8], step: &Step) -> Vec<u8> {
    [at, &[0, step.prefix], &step.tail].concat()
}

/// Of which sorts the parts of an object are.
pub(crate) fn parts_of(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Set | Kind::RwSet => &PARTS[..1],
        Kind::Map => &PARTS[1..2],
        Kind::Document => &PARTS[2..],
        _ => &[],
    }
}

/// What the lanes of a state hold.
pub(crate) fn frontier_of(lanes: &[(LaneId, LanePart)]) -> Frontier {
    lanes.iter().filter(|(_, part)| part.tip.lsn > 0).map(|(lane, part)| (*lane, part.tip.lsn)).collect()
}
