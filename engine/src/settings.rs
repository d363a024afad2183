//! Settings of a space, which are replicated like everything else: registers that the last writer wins.

use std::collections::BTreeMap;

use comity_crdts::{
    AddressError, Kind, MvRegister, ObjectAddress, Policy, RegisterView, ReplicaId, Sibling, SpaceId, Value,
};

use crate::keys;
use crate::read::author_of;
use crate::rows::Object;
use crate::site::Site;
use crate::store::{StateRead, StoreError};

/// A region's name, UTF-8 bytes.
pub const REGION_BYTES_MAX: usize = 64;

/// The collection of the settings that say where replicas are.
const REGIONS: &str = "region";

/// The setting that says under which policy the registers of a collection are read.
pub(crate) fn policy_address(collection: &str) -> Result<ObjectAddress, AddressError> {
    ObjectAddress::new(Kind::Settings, "policy", collection)
}

/// The setting that says where a replica is.
pub(crate) fn region_address(replica: &ReplicaId) -> ObjectAddress {
    let name: String = replica.0.iter().map(|byte| format!("{byte:02x}")).collect();
    ObjectAddress::new(Kind::Settings, REGIONS, &name).expect("64 hexadecimal digits are a key")
}

/// Whether the object says where some replica is.
pub(crate) fn is_region(address: &ObjectAddress) -> bool {
    address.kind() == Kind::Settings && address.collection() == REGIONS
}

/// Where every replica says it is. O(replicas that say so).
pub(crate) fn regions(
    read: &dyn StateRead,
    space: &SpaceId,
) -> Result<BTreeMap<ReplicaId, String>, StoreError> {
    let (from, until) = keys::objects(space, Kind::Settings, REGIONS, "", None);
    let mut regions = BTreeMap::new();
    for (key, _) in read.scan(&from, &until, usize::MAX)? {
        let Some(replica) = replica_named(keys::object_key(&key, REGIONS)) else { continue };
        if let Some(region) = region_of(read, space, &replica)? {
            regions.insert(replica, region);
        }
    }
    Ok(regions)
}

/// The replica whose key these hexadecimal digits are. Anybody may write settings about what is none.
fn replica_named(digits: &[u8]) -> Option<ReplicaId> {
    let digits = std::str::from_utf8(digits).ok()?;
    let mut replica = [0; 32];
    if digits.len() != 2 * replica.len() {
        return None;
    }
    for (at, byte) in replica.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    (region_address(&ReplicaId(replica)).key() == digits).then_some(ReplicaId(replica))
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
