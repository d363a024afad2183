//! Removing whole objects: what the author saw of them goes, what others do at the same time stays.

use comity_crdts::limits::{CHANGE_SET_OPS_MAX, ELEMENT_BYTES_MAX, LANES_MAX};
use comity_crdts::{Dot, Kind, Observed, Value};

use crate::conflicts::{Location, kinds_under, kinds_with_state};
use crate::keys;
use crate::op::Op;
use crate::rows::{Object, damaged, decode_element, decode_rw_element};
use crate::site::Site;
use crate::status::StateDigest;
use crate::store::StateRead;
use crate::tx::objects::{check_path, checked_dots};
use crate::tx::{Tx, TxError};

/// The operations that a removal takes, none of them made yet.
type Removals = Vec<(Location, Op)>;

impl Tx<'_> {
    /// Removes an object, or what a map holds under a key, whatever its kind. A bounded counter loses the rights that
    /// are held here; what others hold is theirs to remove, and with the last of it the counter is gone. Costs as much as it holds, in time;
    /// in the change set one operation for each nested object, and for each element of a remove-wins set. All of
    /// it is removed, or nothing.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or the change set would be too large, or the incarnation is not
    /// confirmed and the removal needs that; [`TxError::NotRemovable`] for the member list.
    pub fn remove_at(&mut self, at: &Location) -> Result<(), TxError> {
        let mut removals = Removals::new();
        if let Some((key, maps)) = at.path.split_last() {
            check_path(at, Kind::Map)?;
            self.check_known(at)?;
            let map = Site::top(&self.space.id, &at.object).at_path(maps, Kind::Map);
            for kind in kinds_under(&self.work, &map, key)? {
                self.gather(&mut removals, at, kind)?;
            }
        } else if at.object.kind() == Kind::Document {
            return self.remove_document(at);
        } else {
            self.gather(&mut removals, at, at.object.kind())?;
        }
        self.push_all(removals)
    }

    /// As [`Tx::remove_at`], and what a map holds under the key that is of another kind stays.
    ///
    /// # Errors
    /// As [`Tx::remove_at`].
    pub fn remove_kind_at(&mut self, at: &Location, kind: Kind) -> Result<(), TxError> {
        if at.path.is_empty() {
            return self.remove_at(at);
        }
        self.remove_kinds_at(at, &[kind])
    }

    /// As [`Tx::remove_at`], of some of the kinds that a map holds under a key.
    ///
    /// # Errors
    /// As [`Tx::remove_at`].
    pub fn remove_kinds_at(&mut self, at: &Location, kinds: &[Kind]) -> Result<(), TxError> {
        let mut removals = Removals::new();
        for kind in kinds {
            check_path(at, *kind)?;
            self.gather(&mut removals, at, *kind)?;
        }
        self.push_all(removals)
    }

    /// The kinds that a map holds under a key, and the digest of what they hold.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn kinds_at(&self, at: &Location) -> Result<(Vec<Kind>, StateDigest), TxError> {
        check_path(at, Kind::Map)?;
        let Some((key, maps)) = at.path.split_last() else { return Ok((Vec::new(), StateDigest::default())) };
        self.check_known(at)?;
        let map = Site::top(&self.space.id, &at.object).at_path(maps, Kind::Map);
        Ok(kinds_with_state(&self.work, &map, key)?)
    }

    /// Makes all operations, or none when one of them would be refused.
    fn push_all(&mut self, removals: Removals) -> Result<(), TxError> {
        if self.ops + removals.len() > CHANGE_SET_OPS_MAX {
            return Err(TxError::TooManyOps { ops_max: CHANGE_SET_OPS_MAX });
        }
        let needing = removals.iter().find(|(_, op)| op.needs_confirmation());
        if let Some((within, _)) = needing {
            self.check_confirmed(within)?;
        }
        let paths = removals.iter().flat_map(|(within, _)| &within.path).map(String::len);
        let values = removals.iter().map(|(_, op)| op.value_bytes());
        self.check_size(paths.sum::<usize>() + values.sum::<usize>())?;
        removals.into_iter().try_for_each(|(within, op)| self.push(&within, op))
    }

    /// What it takes to remove something of this kind.
    fn gather(&self, removals: &mut Removals, at: &Location, kind: Kind) -> Result<(), TxError> {
        let not_removable = |rule| Err(TxError::NotRemovable { object: at.clone(), rule });
        if kind == Kind::Members {
            return not_removable("a space always has members");
        }
        let op = match self.load(at, kind)? {
            Object::Counter(counter) => {
                let columns = counter.observed();
                (!columns.is_empty()).then_some(Op::CounterReset { columns })
            }
            Object::Set(_) => self.clearing(at)?,
            Object::Register(register) => {
                let observed = checked_dots(at, register.dots())?;
                (!observed.is_empty()).then_some(Op::RegisterReset { observed })
            }
            Object::Flag(dots) => {
                let observed = checked_dots(at, dots.dots().collect())?;
                (!observed.is_empty()).then_some(Op::FlagDisable { observed })
            }
            Object::DwFlag(row) => row.is_member().then_some(Op::DwFlagDisable),
            Object::RwSet(_) => return self.gather_elements(removals, at),
            Object::Map(_) => return self.gather_fields(removals, at),
            // What others hold they may be using up.
            Object::Bounded(counter) => {
                let held = counter.rights(&self.incarnation.origin).max(0);
                (held > 0).then_some(Op::BoundedDecrement(u64::try_from(held).unwrap_or(u64::MAX)))
            }
            Object::Document(_) => None,
        };
        removals.extend(op.map(|op| (at.clone(), op)));
        Ok(())
    }

    fn gather_elements(&self, removals: &mut Removals, at: &Location) -> Result<(), TxError> {
        let (from, until) = keys::elements(&self.site(at, Kind::RwSet)?.id);
        for (key, bytes) in self.work.scan(&from, &until, usize::MAX)? {
            if decode_rw_element(&bytes)?.is_member() {
                let element = Value::from_bytes(keys::element_bytes(&key), ELEMENT_BYTES_MAX);
                let element = element.map_err(|error| damaged("element row", &error))?;
                removals.push((at.clone(), Op::RwSetRemove { element }));
            }
        }
        Ok(())
    }

    fn gather_fields(&self, removals: &mut Removals, at: &Location) -> Result<(), TxError> {
        let (from, until) = keys::fields(&self.site(at, Kind::Map)?.id);
        for (row, _) in self.work.scan(&from, &until, usize::MAX)? {
            let (key, kind) =
                keys::field_parts(&row).ok_or_else(|| damaged("map row", &"its key is none"))?;
            let mut within = at.clone();
            within.path.push(key.to_owned());
            self.gather(removals, &within, kind)?;
        }
        Ok(())
    }

    /// Removes every element of a set as it is known here. O(elements).
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits.
    pub fn clear_set_at(&mut self, at: &Location) -> Result<(), TxError> {
        let clearing = self.clearing(at)?;
        clearing.map_or(Ok(()), |op| self.push(at, op))
    }

    /// The removal of every element of a set that has any.
    fn clearing(&self, at: &Location) -> Result<Option<Op>, TxError> {
        let (from, until) = keys::elements(&self.site(at, Kind::Set)?.id);
        let mut dots: Vec<Dot> = Vec::new();
        for (_, bytes) in self.work.scan(&from, &until, usize::MAX)? {
            dots.extend(decode_element(&bytes)?.dots());
        }
        let observed = Observed::from_dots(dots.into_iter());
        if observed.len() > LANES_MAX {
            let (object, dots) = (at.clone(), observed.len());
            return Err(TxError::TooManySiblings { object, dots, dots_max: LANES_MAX });
        }
        Ok((!observed.is_empty()).then_some(Op::SetClear { observed }))
    }
}
