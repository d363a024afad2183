//! What operations do to rows. The same code applies local operations as they are made and remote change
//! sets as they become ready.

use comity_crdts::{
    Dot, ElementDots, Frontier, Hlc, LaneId, ObjectAddress, ObjectId, RawChange, ReplicaId, Sibling, SpaceId,
    Value, canary,
};

use crate::hash::hash;
use crate::journal::record_siblings;
use crate::keys;
use crate::members::{Grant, grant};
use crate::op::Op;
use crate::rows::{Object, decode_element, element_digest};
use crate::store::{StateRead, StoreError};
use crate::work::Work;

/// A document change that waits for the end of the batch, where changes of one document go in together.
#[derive(Clone, Debug)]
pub(crate) struct PendingChange {
    pub(crate) address: ObjectAddress,
    pub(crate) change: RawChange,
    pub(crate) dot: Dot,
    pub(crate) at: Hlc,
}

/// What applying changed besides rows.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To be added, wrapping, to the space's state digest.
    pub(crate) digest: u128,
    pub(crate) documents: Vec<PendingChange>,
    pub(crate) members_changed: bool,
}

/// One operation on its way into the state.
pub(crate) struct Application<'a> {
    pub(crate) space: &'a SpaceId,
    pub(crate) author: &'a ReplicaId,
    /// What its author had seen.
    pub(crate) context: &'a Frontier,
    /// The lane entry that carries it.
    pub(crate) place: (LaneId, u64),
    pub(crate) at: Hlc,
}

/// The header row of an object, or its bottom.
pub(crate) fn load_object(
    read: &dyn StateRead,
    space: &SpaceId,
    address: &ObjectAddress,
) -> Result<Object, StoreError> {
    match read.get(&keys::object(space, address))? {
        Some(bytes) => Object::from_bytes(address.kind(), &bytes),
        None => Object::bottom(address.kind())
            .ok_or_else(|| StoreError::Corrupt { detail: format!("{address} has no header row") }),
    }
}

/// Writes an object's header and keeps the space digest in step.
pub(crate) fn store_object(
    work: &mut Work<'_>,
    effects: &mut Effects,
    space: &SpaceId,
    address: &ObjectAddress,
    (before, after): (u128, &Object),
) {
    let id = ObjectId::derive(space, address);
    effects.digest = effects.digest.wrapping_sub(before).wrapping_add(after.digest(&id));
    let key = keys::object(space, address);
    if after.is_bottom() { work.delete(key) } else { work.put(key, after.to_bytes()) }
}

impl Application<'_> {
    /// Applies one operation.
    pub(crate) fn apply(
        &self,
        work: &mut Work<'_>,
        effects: &mut Effects,
        address: &ObjectAddress,
        dot: Dot,
        op: &Op,
    ) -> Result<(), StoreError> {
        match op {
            Op::DocumentChange(change) => {
                let (address, change) = (address.clone(), change.clone());
                effects.documents.push(PendingChange { address, change, dot, at: self.at });
                return Ok(());
            }
            Op::Grant { replica, role } => {
                let Self { author, context, place, .. } = *self;
                let step = Grant { author, context, place, replica, role: *role };
                return grant(work, effects, self.space, &step);
            }
            _ => {}
        }
        let id = ObjectId::derive(self.space, address);
        let mut object = load_object(work, self.space, address)?;
        let before = object.digest(&id);
        match (&mut object, op) {
            (Object::Counter(counter), Op::CounterAdd(delta)) => counter.apply(*delta),
            (Object::Register(register), Op::RegisterSet { value, hlc, observed }) => {
                let sibling = Sibling { hlc: *hlc, value: value.clone() };
                let removed = register.set(dot, sibling, observed);
                record_siblings(work, self.space, address, self.at, removed);
            }
            (Object::Register(register), Op::RegisterReset { observed }) => {
                let removed = register.reset(observed);
                record_siblings(work, self.space, address, self.at, removed);
            }
            (Object::Set(_), Op::SetAdd { element, observed }) => {
                self.update_element(work, &mut object, &id, element, |dots| dots.add(dot, observed))?;
            }
            (Object::Set(_), Op::SetRemove { element, observed }) => {
                self.update_element(work, &mut object, &id, element, |dots| {
                    dots.remove(observed);
                    if canary!(RemoveTakesConcurrent) {
                        *dots = ElementDots::default();
                    }
                })?;
            }
            // Decoding and the transaction both refuse an operation that is not of its object's kind.
            (object, op) => unreachable!("{op:?} reached {object:?}"),
        }
        store_object(work, effects, self.space, address, (before, &object));
        Ok(())
    }

    fn update_element(
        &self,
        work: &mut Work<'_>,
        object: &mut Object,
        id: &ObjectId,
        element: &Value,
        update: impl FnOnce(&mut ElementDots),
    ) -> Result<(), StoreError> {
        let Object::Set(set) = object else { return Ok(()) };
        let bytes = element.to_bytes();
        let key = keys::element(id, &bytes);
        let mut dots = load_element(work, &key)?;
        let (was_present, before) = (dots.is_present(), element_digest(id, &bytes, &dots));
        update(&mut dots);
        let is_present = dots.is_present();
        set.sum = set.sum.wrapping_sub(before).wrapping_add(element_digest(id, &bytes, &dots));
        set.elements = set.elements + u64::from(is_present) - u64::from(was_present);
        if is_present {
            let mut out = comity_crdts::Writer::new();
            dots.encode(&mut out);
            work.put(key, out.finish());
        } else {
            work.delete(key);
        }
        Ok(())
    }
}

/// The dots of an element, none when it has no row.
pub(crate) fn load_element(read: &dyn StateRead, key: &[u8]) -> Result<ElementDots, StoreError> {
    read.get(key)?.map_or_else(|| Ok(ElementDots::default()), |bytes| decode_element(&bytes))
}

/// The actor id under which an incarnation edits documents.
pub(crate) fn actor(origin: &comity_crdts::OriginId, nonce: &comity_crdts::Nonce) -> [u8; 16] {
    let hash = hash("comity 2026 actor\0", &[&origin.0, &nonce.0]);
    let mut actor = [0; 16];
    actor.copy_from_slice(&hash.0[..16]);
    actor
}
