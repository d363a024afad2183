//! What a register shows when it holds concurrent writes.

mod check;
mod custom;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use crate::dot::Dot;
use crate::limits::POLICY_NAME_BYTES_MAX;
use crate::register::{MvRegister, Sibling};
use crate::value::Value;

pub use check::{PolicyFault, PolicyLaw, check_policy};
pub use custom::{ConflictPolicy, PolicyRegistry, RegistryError};

/// How a register's siblings become what an application reads. A policy is a view: it never changes what
/// is stored, and two replicas with the same register and policy show the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// The last writer wins: the sibling with the greatest stamp, ties decided by the dot.
    #[default]
    Lww,
    /// All siblings, for the application to resolve.
    Siblings,
    /// Lists are taken as sets and united. When there are several siblings and one of them is not a list,
    /// nothing can be united and all are shown, as under [`Policy::Siblings`].
    Union,
    /// The least value, in the order of [`Value`].
    Min,
    /// The greatest value, in the order of [`Value`].
    Max,
    /// The first writer wins: the sibling with the least stamp, ties decided by the dot.
    First,
    /// What a policy that the application registered makes of the siblings. All are shown, as under
    /// [`Policy::Siblings`], where it is not registered, panics or cannot decide.
    Custom(CustomPolicy),
}

/// The name and version of a policy that applications register. Versions are policies of their own: replicas
/// show the same only if they use the same version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomPolicy {
    name: String,
    version: u32,
}

/// Why a text is not the name of a policy. The caller's fault; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyNameError {
    /// There is no such policy.
    #[error(
        "{input:?} is no policy; there are lww, siblings, union, min, max, first and custom:NAME:VERSION"
    )]
    Unknown {
        /// What was given.
        input: String,
    },
    /// The name of a registered policy breaks the rule.
    #[error(
        "{input:?} is no name of a policy, which has 1 to {bytes_max} bytes of a-z, 0-9, '-', '_' and '.'"
    )]
    Name {
        /// What was given as the name.
        input: String,
        /// The limit, [`POLICY_NAME_BYTES_MAX`].
        bytes_max: usize,
    },
    /// The version of a registered policy breaks the rule.
    #[error(
        "{input:?} is no version of a policy, which is a decimal number below 2^32 without leading zeros"
    )]
    Version {
        /// What was given as the version.
        input: String,
    },
}

/// What a register shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterView {
    /// The register has no value.
    Absent,
    /// One value: the only one, the winner, or what the policy made of all.
    Value(Value),
    /// Two or more concurrent values in dot order; never under a policy that always decides, which are
    /// [`Policy::Lww`], [`Policy::Min`], [`Policy::Max`] and [`Policy::First`].
    Siblings(Vec<(Dot, Sibling)>),
}

impl Policy {
    /// The policy's name: `lww`, `siblings`, `union`, `min`, `max`, `first`, or `custom:NAME:VERSION`.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// The policy with this name, the inverse of [`Policy::name`]. Whether a custom one is registered
    /// anywhere does not matter.
    ///
    /// # Errors
    /// [`PolicyNameError`], naming what was given and the rule that it breaks.
    pub fn parse(name: &str) -> Result<Self, PolicyNameError> {
        match name {
            "lww" => Ok(Self::Lww),
            "siblings" => Ok(Self::Siblings),
            "union" => Ok(Self::Union),
            "min" => Ok(Self::Min),
            "max" => Ok(Self::Max),
            "first" => Ok(Self::First),
            other => {
                let custom = other.strip_prefix("custom:").and_then(|rest| rest.split_once(':'));
                let (name, version) =
                    custom.ok_or_else(|| PolicyNameError::Unknown { input: other.to_owned() })?;
                CustomPolicy::parse(name, version).map(Self::Custom)
            }
        }
    }

    /// What `register` shows under this policy where no policy is registered. O(siblings);
    /// [`Policy::Union`] O(items · log items); [`Policy::Min`] and [`Policy::Max`] compare values.
    pub fn view(&self, register: &MvRegister) -> RegisterView {
        self.view_with(register, &PolicyRegistry::new())
    }

    /// As [`Policy::view`], with the registered policies of `registry`. What is alone is shown as it is,
    /// without asking any of them.
    pub fn view_with(&self, register: &MvRegister, registry: &PolicyRegistry) -> RegisterView {
        let shown = match self {
            Self::Lww => register.siblings().max_by_key(|(dot, sibling)| (sibling.hlc, **dot)),
            Self::First => register.siblings().min_by_key(|(dot, sibling)| (sibling.hlc, **dot)),
            Self::Min => register.siblings().min_by_key(|(_, sibling)| &sibling.value),
            Self::Max => register.siblings().max_by_key(|(_, sibling)| &sibling.value),
            Self::Union => return union(register).map_or_else(|| all(register), RegisterView::Value),
            Self::Siblings => return all(register),
            Self::Custom(custom) if register.len() > 1 => return registry.view(custom, register),
            Self::Custom(_) => return all(register),
        };
        shown.map_or(RegisterView::Absent, |(_, sibling)| RegisterView::Value(sibling.value.clone()))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lww => f.write_str("lww"),
            Self::Siblings => f.write_str("siblings"),
            Self::Union => f.write_str("union"),
            Self::Min => f.write_str("min"),
            Self::Max => f.write_str("max"),
            Self::First => f.write_str("first"),
            Self::Custom(CustomPolicy { name, version }) => write!(f, "custom:{name}:{version}"),
        }
    }
}

impl CustomPolicy {
    /// The policy `name` in `version`.
    ///
    /// # Errors
    /// [`PolicyNameError::Name`] when the name is not 1 to [`POLICY_NAME_BYTES_MAX`] bytes of a-z, 0-9, `-`,
    /// `_` and `.`.
    pub fn new(name: &str, version: u32) -> Result<Self, PolicyNameError> {
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if (1..=POLICY_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
            Ok(Self { name: name.to_owned(), version })
        } else {
            Err(PolicyNameError::Name { input: name.to_owned(), bytes_max: POLICY_NAME_BYTES_MAX })
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }

    fn parse(name: &str, version: &str) -> Result<Self, PolicyNameError> {
        let number = version.parse().ok().filter(|number: &u32| number.to_string() == version);
        Self::new(name, number.ok_or_else(|| PolicyNameError::Version { input: version.to_owned() })?)
    }
}

/// All siblings; what is alone as a value.
fn all(register: &MvRegister) -> RegisterView {
    let mut siblings = siblings(register);
    match siblings.len() {
        0 => RegisterView::Absent,
        1 => RegisterView::Value(siblings.remove(0).1.value),
        _ => RegisterView::Siblings(siblings),
    }
}

fn siblings(register: &MvRegister) -> Vec<(Dot, Sibling)> {
    register.siblings().map(|(dot, sibling)| (*dot, sibling.clone())).collect()
}

/// The items of all siblings, sorted, each once; `None` when there is none or one is not a list.
fn union(register: &MvRegister) -> Option<Value> {
    let mut items = BTreeSet::new();
    for (_, sibling) in register.siblings() {
        let Value::List(list) = &sibling.value else {
            return None;
        };
        items.extend(list);
    }
    (!register.is_empty()).then(|| Value::List(items.into_iter().cloned().collect()))
}
