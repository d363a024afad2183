//! Settings of a space, which are replicated like everything else: registers that the last writer wins.

use comity_crdts::{
    AddressError, Kind, MvRegister, ObjectAddress, Policy, RegisterView, ReplicaId, Sibling, SpaceId, Value,
};

use crate::read::author_of;
use crate::rows::Object;
use crate::site::Site;
use crate::store::{StateRead, StoreError};

/// A region's name, UTF-8 bytes.
pub const REGION_BYTES_MAX: usize = 64;

/// The setting that says under which policy the registers of a collection are read.
pub(crate) fn policy_address(collection: &str) -> Result<ObjectAddress, AddressError> {
    ObjectAddress::new(Kind::Settings, "policy", collection)
}

/// The setting that says where a replica is.
pub(crate) fn region_address(replica: &ReplicaId) -> ObjectAddress {
    let name: String = replica.0.iter().map(|byte| format!("{byte:02x}")).collect();
    ObjectAddress::new(Kind::Settings, "region", &name).expect("64 hexadecimal digits are a key")
}

fn setting(read: &dyn StateRead, space: &SpaceId, address: &ObjectAddress) -> Result<MvRegister, StoreError> {
    match Site::top(space, address).load(read)? {
        Object::Register(register) => Ok(register),
        _ => Ok(MvRegister::default()),
    }
}

/// The policy of a collection: the last one that was set, or last-writer-wins. What does not name a policy that
/// this build knows surfaces siblings. O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn policy_of(read: &dyn StateRead, space: &SpaceId, collection: &str) -> Result<Policy, StoreError> {
    let Ok(address) = policy_address(collection) else { return Ok(Policy::default()) };
    Ok(match &Policy::Lww.view(&setting(read, space, &address)?) {
        RegisterView::Absent => Policy::default(),
        RegisterView::Value(Value::Text(name)) => Policy::parse(name).unwrap_or(Policy::Siblings),
        RegisterView::Value(_) | RegisterView::Siblings(_) => Policy::Siblings,
    })
}

/// The region that a replica says it is in. What others say of it does not count. O(log n).
///
/// # Errors
/// [`StoreError`] when storage fails or a row is damaged.
pub fn region_of(
    read: &dyn StateRead,
    space: &SpaceId,
    replica: &ReplicaId,
) -> Result<Option<String>, StoreError> {
    let register = setting(read, space, &region_address(replica))?;
    let mut last: Option<Sibling> = None;
    for (dot, sibling) in register.siblings() {
        let is_own = author_of(read, space, &dot.origin)? == Some(*replica);
        if is_own && last.as_ref().is_none_or(|last| last.hlc < sibling.hlc) {
            last = Some(sibling.clone());
        }
    }
    Ok(last.and_then(|sibling| match &sibling.value {
        Value::Text(name) => Some(name.clone()),
        _ => None,
    }))
}
