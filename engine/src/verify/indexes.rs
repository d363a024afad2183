//! Indexes that lead to what was walked already: each of their rows must lead somewhere.

use comity_crdts::Kind;

use super::{Matters, Walk};
use crate::beaten::{Addition, decode_additions};
use crate::change::Body;
use crate::changes::entry;
use crate::conflicts::{LocationRow, kinds_under};
use crate::journal::journal_totals;
use crate::keys;
use crate::op::{Group, Op};
use crate::recall::adds_to;
use crate::rows::Object;
use crate::site::Site;
use crate::space::decode;
use crate::store::StoreError;

impl Walk<'_> {
    pub(super) fn indexes(&mut self) -> Result<(), StoreError> {
        self.conflicts()?;
        self.additions()?;
        self.journal()?;
        self.operations()
    }

    /// Conflicts that are noted must be there. That those that are there are noted was checked with the objects.
    fn conflicts(&mut self) -> Result<(), StoreError> {
        let space = self.space;
        self.each_row(keys::conflicts(&space), |walk, (key, bytes)| {
            let location =
                decode::<LocationRow>("conflict row", &bytes).and_then(|row| row.location("conflict row"));
            let Some(location) = walk.readable("the index of conflicts", location)? else { return Ok(()) };
            let top = Site::top(&space, &location.object);
            let count = match (key.last().copied(), location.path.split_last()) {
                (Some(keys::CONFLICT_KINDS), Some((name, maps))) => {
                    kinds_under(walk.read, &top.at_path(maps, Kind::Map), name).map(|kinds| kinds.len())
                }
                _ => top
                    .at_path(
                        &location.path,
                        if location.path.is_empty() { location.object.kind() } else { Kind::Register },
                    )
                    .load(walk.read)
                    .map(|object| match object {
                        Object::Register(register) => register.len(),
                        _ => 0,
                    }),
            };
            if let Some(count) = walk.readable(&location, count)?
                && count < 2
            {
                walk.fault(Matters::Conflicts, &location, "a conflict is noted, and there is none");
            }
            Ok(())
        })
    }

    /// Additions that are remembered are those of entries, which lead to them.
    fn additions(&mut self) -> Result<(), StoreError> {
        let space = self.space;
        self.each_row(keys::all_additions(&space), |walk, (key, bytes)| {
            let row = &key[17..];
            let Some(additions) = walk.readable("additions", decode_additions(&bytes))? else {
                return Ok(());
            };
            for Addition { place, at } in &additions {
                let is_found = walk.read.get(&keys::adding_entry(&space, (place.lane, place.lsn)))?.is_some();
                let entry = entry(walk.read, &space, (place.lane, place.lsn));
                let Some(entry) = walk.readable("additions", entry)? else { return Ok(()) };
                // What the log does not keep any more cannot be compared, nor what a later version did.
                let is_made = entry.is_none_or(|(_, entry)| {
                    let Body::Change(change) = &entry.body else { return false };
                    let made = |group: &Group| match group.ops.get(usize::from(place.dot.index)) {
                        Some(Op::Extension { .. }) => true,
                        Some(op) => adds_to(&space, &group.address, op).is_some_and(|to| to == row),
                        None => false,
                    };
                    let dot = (change.origin, change.seq, change.hlc);
                    dot == (place.dot.origin, place.dot.seq, *at) && change.groups.iter().any(made)
                });
                if !(is_found && is_made) {
                    let place = format!("entry {} of lane {}", place.lsn, place.lane);
                    walk.fault(
                        Matters::Additions,
                        place,
                        "what is remembered of an addition is not what was made",
                    );
                }
            }
            Ok(())
        })?;
        self.each_row(keys::adding_entries(&space), |walk, (key, bytes)| {
            if keys::unstable_place(&key).is_none() || !bytes.is_empty() {
                walk.fault(Matters::Additions, "the entries that add", "a row names none");
            }
            Ok(())
        })
    }

    fn journal(&mut self) -> Result<(), StoreError> {
        let (space, mut entries, mut bytes_all) = (self.space, 0_u64, 0_u64);
        self.each_row(keys::journal(&space), |walk, (key, bytes)| {
            entries += 1;
            bytes_all += (key.len() + bytes.len()) as u64;
            let entry = crate::journal::decode_row(walk.read, &space, &bytes);
            walk.readable(format!("the journal's entry {entries}"), entry)?;
            if walk.read.get(&keys::journal_by_object(&key))?.is_none() {
                walk.fault(Matters::Journal, format!("entry {entries}"), "it is not found by its object");
            }
            Ok(())
        })?;
        self.verified.journal += entries;
        self.each_row(keys::all_journal_of(&space), |walk, (key, _)| {
            let row = keys::journal_from_object(&key);
            let is_there = match row {
                Some(row) => walk.read.get(&row)?.is_some(),
                None => false,
            };
            if !is_there {
                walk.fault(Matters::Journal, "the index by object", "a row leads to no entry");
            }
            Ok(())
        })?;
        let totals = journal_totals(self.read, &space);
        let Some(totals) = self.readable("the journal's totals", totals)? else { return Ok(()) };
        if (totals.entries, totals.bytes) != (entries, bytes_all) {
            let detail = format!(
                "{entries} entries of {bytes_all} bytes are there, and it says {} of {}",
                totals.entries, totals.bytes
            );
            self.fault(Matters::Journal, "the totals", detail);
        }
        Ok(())
    }

    fn operations(&mut self) -> Result<(), StoreError> {
        let (space, mut count) = (self.space, 0_u64);
        self.each_row(keys::operations(&space), |walk, (key, _)| {
            count += 1;
            let is_there = match keys::operation_parts(&key) {
                Some((_, operation)) => walk.read.get(&keys::operation(&space, &operation))?.is_some(),
                None => false,
            };
            if !is_there {
                walk.fault(Matters::Operations, "the index by time", "a row leads to no operation");
            }
            Ok(())
        })?;
        let kept = crate::operations::count(self.read, &space);
        let Some(kept) = self.readable("the number of operations", kept)? else { return Ok(()) };
        if kept != count {
            let detail = format!("{count} are there, and it says {kept}");
            self.fault(Matters::Operations, "the number of operation ids", detail);
        }
        Ok(())
    }
}
