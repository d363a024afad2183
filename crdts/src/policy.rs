//! What a register shows when it holds concurrent writes.

use std::collections::BTreeSet;

use crate::dot::Dot;
use crate::register::{MvRegister, Sibling};
use crate::value::Value;

/// How a register's siblings become what an application reads. A policy is a view: it never changes what
/// is stored, and two replicas with the same register and policy show the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// What a register shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterView {
    /// The register has no value.
    Absent,
    /// One value: the only one, the winner, or the union.
    Value(Value),
    /// Two or more concurrent values in dot order; under [`Policy::Lww`] never.
    Siblings(Vec<(Dot, Sibling)>),
}

impl Policy {
    /// What `register` shows under this policy. O(siblings); [`Policy::Union`] O(items · log items).
    pub fn view(self, register: &MvRegister) -> RegisterView {
        let Some(winner) = winner(register) else {
            return RegisterView::Absent;
        };
        match self {
            Self::Lww => RegisterView::Value(winner.value.clone()),
            Self::Siblings if register.len() == 1 => RegisterView::Value(winner.value.clone()),
            Self::Siblings => all(register),
            Self::Union => match union(register) {
                Some(items) => RegisterView::Value(Value::List(items)),
                None if register.len() == 1 => RegisterView::Value(winner.value.clone()),
                None => all(register),
            },
        }
    }
}

fn winner(register: &MvRegister) -> Option<&Sibling> {
    register.siblings().max_by_key(|(dot, sibling)| (sibling.hlc, **dot)).map(|(_, sibling)| sibling)
}

fn all(register: &MvRegister) -> RegisterView {
    RegisterView::Siblings(register.siblings().map(|(dot, sibling)| (*dot, sibling.clone())).collect())
}

/// The items of all siblings, sorted, each once; `None` when a sibling is not a list.
fn union(register: &MvRegister) -> Option<Vec<Value>> {
    let mut items = BTreeSet::new();
    for (_, sibling) in register.siblings() {
        let Value::List(list) = &sibling.value else {
            return None;
        };
        items.extend(list);
    }
    Some(items.into_iter().cloned().collect())
}
