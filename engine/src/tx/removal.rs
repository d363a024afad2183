//! Removing whole objects: what the author saw of them goes, what others do at the same time stays.

use comity_crdts::limits::{ELEMENT_BYTES_MAX, LANES_MAX};
use comity_crdts::{Dot, Kind, Observed, Value};

use crate::conflicts::Location;
use crate::keys;
use crate::op::Op;
use crate::rows::{Object, damaged, decode_element, decode_rw_element};
use crate::site::Site;
use crate::tx::objects::checked_dots;
use crate::tx::{Tx, TxError};

impl Tx<'_> {
    /// Removes an object, or what a map holds under a key, whatever its kind. Costs as much as it holds, in time;
    /// in the change set one operation for each nested object, and for each element of a remove-wins set.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or the change set would be too large;
    /// [`TxError::NotRemovable`] for bounded counters.
    pub fn remove_at(&mut self, at: &Location) -> Result<(), TxError> {
        let Some((key, maps)) = at.path.split_last() else {
            return self.remove_kind_at(at, at.object.kind());
        };
        super::objects::check_path(at, Kind::Map)?;
        let map = Site::top(&self.space.id, &at.object).at_path(maps, Kind::Map);
        for kind in crate::conflicts::kinds_under(&self.work, &map, key)? {
            self.remove_kind_at(at, kind)?;
        }
        Ok(())
    }

    /// As [`Tx::remove_at`], and what a map holds under the key that is of another kind stays.
    ///
    /// # Errors
    /// As [`Tx::remove_at`].
    pub fn remove_kind_at(&mut self, at: &Location, kind: Kind) -> Result<(), TxError> {
        match self.load(at, kind)? {
            Object::Counter(counter) => {
                let columns = counter.observed();
                if columns.is_empty() { Ok(()) } else { self.push(at, Op::CounterReset { columns }) }
            }
            Object::Set(_) => self.clear_set_at(at),
            Object::Register(register) => {
                let observed = checked_dots(at, register.dots())?;
                if observed.is_empty() { Ok(()) } else { self.push(at, Op::RegisterReset { observed }) }
            }
            Object::Flag(_) => self.flag_disable_at(at),
            Object::DwFlag(row) => {
                if row.is_member() {
                    self.push(at, Op::DwFlagDisable)
                } else {
                    Ok(())
                }
            }
            Object::RwSet(_) => self.clear_rw_set(at),
            Object::Map(_) => self.clear_map(at),
            Object::Bounded(_) => Err(TxError::NotRemovable {
                object: at.clone(),
                rule: "others may be using up their rights to it; use up those held here instead",
            }),
            Object::Document(_) => self.remove_document(at),
        }
    }

    /// Removes every element of a set as it is known here. O(elements).
    ///
    /// # Errors
    /// [`TxError`] when the name is out of limits.
    pub fn clear_set_at(&mut self, at: &Location) -> Result<(), TxError> {
        let (from, until) = keys::elements(&self.site(at, Kind::Set)?.id);
        let mut dots: Vec<Dot> = Vec::new();
        for (_, bytes) in crate::store::StateRead::scan(&self.work, &from, &until, usize::MAX)? {
            dots.extend(decode_element(&bytes)?.dots());
        }
        let observed = Observed::from_dots(dots.into_iter());
        if observed.len() > LANES_MAX {
            let (object, dots) = (at.clone(), observed.len());
            return Err(TxError::TooManySiblings { object, dots, dots_max: LANES_MAX });
        }
        if observed.is_empty() { Ok(()) } else { self.push(at, Op::SetClear { observed }) }
    }

    fn clear_rw_set(&mut self, at: &Location) -> Result<(), TxError> {
        let (from, until) = keys::elements(&self.site(at, Kind::RwSet)?.id);
        for (key, bytes) in crate::store::StateRead::scan(&self.work, &from, &until, usize::MAX)? {
            if decode_rw_element(&bytes)?.is_member() {
                let element = Value::from_bytes(keys::element_bytes(&key), ELEMENT_BYTES_MAX);
                let element = element.map_err(|error| damaged("element row", &error))?;
                self.push(at, Op::RwSetRemove { element })?;
            }
        }
        Ok(())
    }

    fn clear_map(&mut self, at: &Location) -> Result<(), TxError> {
        let (from, until) = keys::fields(&self.site(at, Kind::Map)?.id);
        for (row, _) in crate::store::StateRead::scan(&self.work, &from, &until, usize::MAX)? {
            let (key, kind) =
                keys::field_parts(&row).ok_or_else(|| damaged("map row", &"its key is none"))?;
            let mut within = at.clone();
            within.path.push(key.to_owned());
            self.remove_kind_at(&within, kind)?;
        }
        Ok(())
    }
}
