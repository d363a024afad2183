//! Policies that applications register.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{CustomPolicy, PolicyNameError, RegisterView, siblings};
use crate::dot::Dot;
use crate::register::{MvRegister, Sibling};
use crate::value::Value;

/// A policy of an application's own. [`super::check_policy`] helps to test one.
pub trait ConflictPolicy: Send + Sync {
    /// Its name: 1 to [`crate::limits::POLICY_NAME_BYTES_MAX`] bytes of a-z, 0-9, `-`, `_` and `.`.
    fn name(&self) -> &str;

    /// Its version. Whatever changes an answer needs a new one, because replicas with different answers
    /// under one name would show different values.
    fn version(&self) -> u32;

    /// The value to show for `siblings`, which are two or more in dot order; `None` when it cannot decide,
    /// and then all are shown. Must be a pure function: the same siblings, the same answer, on every machine
    /// and for ever. It reads no clock, no randomness and nothing else from outside, and iterates over no
    /// hash map. A panic counts as `None` where panics unwind.
    fn resolve(&self, siblings: &[(Dot, Sibling)]) -> Option<Value>;
}

/// The policies that an application has registered, by name and version.
#[derive(Clone, Default)]
pub struct PolicyRegistry {
    policies: BTreeMap<CustomPolicy, Arc<dyn ConflictPolicy>>,
}

/// Why a policy cannot be registered. The caller's fault; the registry is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Its name breaks the rule.
    #[error(transparent)]
    Name(#[from] PolicyNameError),
    /// One with the same name and version is registered already.
    #[error("a policy {name:?} of version {version} is registered already")]
    Duplicate {
        /// The name.
        name: String,
        /// The version.
        version: u32,
    },
}

impl PolicyRegistry {
    /// A registry without policies.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a policy under the name and version it gives itself.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn register(&mut self, policy: Arc<dyn ConflictPolicy>) -> Result<(), RegistryError> {
        let (name, version) = (policy.name().to_owned(), policy.version());
        match self.policies.entry(CustomPolicy::new(&name, version)?) {
            Entry::Occupied(_) => Err(RegistryError::Duplicate { name, version }),
            Entry::Vacant(vacant) => {
                vacant.insert(policy);
                Ok(())
            }
        }
    }

    /// The policy registered as `custom`.
    pub fn get(&self, custom: &CustomPolicy) -> Option<&Arc<dyn ConflictPolicy>> {
        self.policies.get(custom)
    }

    /// The names and versions registered, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &CustomPolicy> {
        self.policies.keys()
    }

    /// What `custom` makes of the two or more siblings of `register`.
    pub(super) fn view(&self, custom: &CustomPolicy, register: &MvRegister) -> RegisterView {
        let siblings = siblings(register);
        let resolved = self.get(custom).and_then(|policy| resolve(policy.as_ref(), &siblings).ok().flatten());
        resolved.map_or(RegisterView::Siblings(siblings), RegisterView::Value)
    }
}

impl fmt::Debug for PolicyRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The policy panicked.
#[derive(Debug)]
pub(super) struct Panicked;

pub(super) fn resolve(
    policy: &dyn ConflictPolicy,
    siblings: &[(Dot, Sibling)],
) -> Result<Option<Value>, Panicked> {
    catch_unwind(AssertUnwindSafe(|| policy.resolve(siblings))).map_err(|_| Panicked)
}
