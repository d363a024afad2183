//! The member list as something that is audited: an object under its reserved address, whose parts are the member rows. It has
//! no header, and what it adds to the digest of the space is what its rows add.

use std::time::Duration;

use comity_crdts::{ObjectAddress, ReplicaId, SpaceId};

use crate::apply::Effects;
use crate::audit::AuditEvent;
use crate::audit::inspect::Inspected;
use crate::audit::rebuild::{Outcome, clear, rebuild};
use crate::engine::{Engine, Timer};
use crate::extension::Extensions;
use crate::keys;
use crate::members::{self, Roster};
use crate::rows::{damaged, member_digest};
use crate::space::{Space, SpaceRow, decode};
use crate::store::{LogRead, Put, Row, StateRead, StoreError};
use crate::work::Work;

/// The first byte of the keys of member rows.
const PREFIX: u8 = 0x36;

/// Whether an object is the member list.
pub(crate) fn is_member_list(object: &ObjectAddress) -> bool {
    *object == ObjectAddress::members()
}

/// Whether a row is one of a member.
pub(crate) fn is_member_row(key: &[u8]) -> bool {
    key.first() == Some(&PREFIX)
}

/// Every row of the member list.
pub(crate) fn member_rows(read: &dyn StateRead, space: &SpaceId) -> Result<Vec<Row>, StoreError> {
    let (from, until) = keys::members(space);
    read.scan(&from, &until, usize::MAX)
}

/// Of some rows those of the member list.
pub(crate) fn member_rows_of(space: &SpaceId, rows: &[Put]) -> Vec<Put> {
    let prefix = keys::with_space(PREFIX, space);
    rows.iter().filter(|(key, value)| value.is_some() && key.starts_with(&prefix)).cloned().collect()
}

/// Checks the member list against itself.
///
/// # Errors
/// [`StoreError`] when storage fails; rows that cannot be read are no failure, but a fault that is found.
pub(crate) fn inspect_members(read: &dyn StateRead, space: &SpaceId) -> Result<Inspected, StoreError> {
    let rows = member_rows(read, space)?;
    let fault = fault(read, space, &rows)?;
    Ok(Inspected { digest: share_of(&rows), fault, rows: rows.len() })
}

/// What the member list adds to the digest of the space. O(members).
pub(crate) fn members_share(read: &dyn StateRead, space: &SpaceId) -> Result<u128, StoreError> {
    Ok(share_of(&member_rows(read, space)?))
}

/// Rows whose keys name nobody add nothing.
fn share_of(rows: &[Row]) -> u128 {
    let share = |(key, value): &Row| member_of(key).map_or(0, |replica| member_digest(&replica, value));
    rows.iter().fold(0, |sum, row| sum.wrapping_add(share(row)))
}

fn member_of(key: &[u8]) -> Option<ReplicaId> {
    key.get(1 + 16..).and_then(|replica| replica.try_into().ok()).map(ReplicaId)
}

fn fault(read: &dyn StateRead, space: &SpaceId, rows: &[Row]) -> Result<Option<String>, StoreError> {
    for (key, value) in rows {
        if member_of(key).is_none() {
            return Ok(Some("the key of a member row names nobody".to_owned()));
        }
        match Roster::row_again(value) {
            Ok(again) if again == *value => {}
            Ok(_) => return Ok(Some("a member row is not as it is written".to_owned())),
            Err(error) => return Ok(Some(format!("member row: {error}"))),
        }
    }
    let is_founder = |founder: &ReplicaId| rows.iter().any(|(key, _)| member_of(key) == Some(*founder));
    let is_missing = founder(read, space)?.is_some_and(|founder| !is_founder(&founder));
    Ok(is_missing.then(|| "the founder has no row".to_owned()))
}

/// Who founded a space, if that is known here.
pub(crate) fn founder(read: &dyn StateRead, space: &SpaceId) -> Result<Option<ReplicaId>, StoreError> {
    let Some(bytes) = read.get(&keys::space(space))? else { return Ok(None) };
    let founder = decode::<SpaceRow>("space row", &bytes)?.founder;
    let is_it = |replica: &ReplicaId, nonce: &_| SpaceId::derive(replica, nonce) == *space;
    match founder {
        Some(founder) if !is_it(&founder.replica, &founder.nonce) => {
            Err(damaged("space row", &"it names another founder than the id of the space"))
        }
        founder => Ok(founder.map(|founder| founder.replica)),
    }
}

/// What is stored, with the member list that the log of record makes. `None` where the list that is stored can be read, or
/// that cannot be told. O(log).
fn as_logged<'a>(
    store: &'a dyn LogRead,
    space: &SpaceId,
    extensions: Extensions,
) -> Result<Option<(Work<'a>, String)>, StoreError> {
    let Some(detail) = inspect_members(store, space)?.fault else { return Ok(None) };
    let list = ObjectAddress::members();
    let rebuilt = rebuild(store, space, std::slice::from_ref(&list), extensions)?;
    let outcome = rebuilt.and_then(|rebuilt| rebuilt.outcomes.into_iter().next());
    let Some((_, Outcome::Wrong(wrong))) = outcome else { return Ok(None) };
    let mut work = Work::over(store);
    let mut room = usize::MAX;
    clear(&mut work, space, &list, &mut room)?;
    for (key, value) in wrong.rows {
        if let Some(value) = value {
            work.put(key, value);
        }
    }
    Ok(Some((work, detail)))
}

impl Engine {
    /// Loads a space of which a row cannot be read, if that is one of a member. Who takes part is never guessed: the list is what
    /// the log of record says, and the rows are about to be made again.
    ///
    /// # Errors
    /// That error, when it was another row, or the log does not tell.
    pub(crate) fn load_listed(
        &mut self,
        store: &dyn LogRead,
        (id, row): (SpaceId, SpaceRow),
        error: StoreError,
    ) -> Result<Space, StoreError> {
        let Some((work, detail)) = as_logged(store, &id, self.extensions)? else { return Err(error) };
        let space = self.load_space(&work, (id, row))?;
        let object = ObjectAddress::members();
        self.suspect(id, object.clone());
        self.audits.status_mut(id).damaged += 1;
        self.tell(AuditEvent::Damaged { space: id, object, detail });
        self.timers.insert((Duration::ZERO, Timer::Audit(id)));
        Ok(space)
    }
}

/// Puts the row there with which the list of a space begins, which no entry tells.
pub(crate) fn begin_members(work: &mut Work<'_>, space: &SpaceId) -> Result<(), StoreError> {
    let founder = founder(work, space)?;
    let founder = founder.ok_or_else(|| damaged("space row", &"it names no founder"))?;
    members::found(work, &mut Effects::default(), space, &founder);
    Ok(())
}
