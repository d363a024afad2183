//! The definition of causal consistency, applied to tiny histories as it stands.

use crate::history::{History, Operation, Place};

/// How many operations [`is_causal_by_brute_force`] takes at most; it is exponential in their square.
pub const BRUTE_FORCE_OPERATIONS_MAX: usize = 8;

/// Whether `history` is causally consistent, by trying every way in which it may have come about.
///
/// It is when some of the writes without a reply happened, the others did not, and to each operation that
/// happened some writes that happened are *visible*, so that
///
/// - to an operation is visible what its session's earlier ones (other than writes without a reply) wrote, and
///   whatever was visible to them;
/// - to an operation is visible whatever was visible to a write that is visible to it;
/// - no write is visible to itself;
/// - an operation sees of its key exactly the values of those visible writes that are not visible to another
///   visible write of the key. A write sees what it replaces; of an [`crate::Outcome::Unstated`] one it is
///   only demanded that what it says it replaced was visible.
///
/// Every value is written once. Shares nothing with [`crate::check`] but the types. For tests.
///
/// # Panics
///
/// When there are more operations than [`BRUTE_FORCE_OPERATIONS_MAX`].
pub fn is_causal_by_brute_force(history: &History) -> bool {
    let mut operations = operations(history);
    assert!(operations.len() <= BRUTE_FORCE_OPERATIONS_MAX, "too many operations to try everything");
    if has_repetition(operations.iter().filter_map(|(_, operation)| written(operation))) {
        return false;
    }
    operations.sort_by_key(|(place, operation)| (written(operation).is_none(), *place));
    let all = (1_u16 << operations.len()) - 1;
    let certain = set(operations.iter().map(|(_, operation)| operation.is_certain()));
    (0..=all)
        .filter(|happened| happened & certain == certain)
        .any(|happened| World::new(&operations, happened).is_some_and(|world| world.has_visibility()))
}

/// A choice of operations that happened, the writes first. A set of operations is a mask of their positions.
struct World<'o> {
    operations: &'o [(Place, &'o Operation)],
    happened: u16,
    /// How many of the operations are writes.
    writes: usize,
    /// By operation: those that its session did before.
    earlier: Vec<u16>,
    /// By operation: the writes of what it saw.
    seen: Vec<u16>,
    /// By operation: what is before it however the history came about.
    required: Vec<u16>,
}

impl<'o> World<'o> {
    /// `None` when an operation saw something that did not happen, or twice, or would be before itself.
    fn new(operations: &'o [(Place, &'o Operation)], happened: u16) -> Option<Self> {
        let writes = operations.iter().filter(|(_, operation)| written(operation).is_some()).count();
        let (earlier, seen, required) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { operations, happened, writes, earlier, seen, required };
        for (at, (place, operation)) in operations.iter().enumerate() {
            let mut seen = 0;
            if contains(happened, at) {
                if has_repetition(operation.seen().iter().copied()) {
                    return None;
                }
                for value in operation.seen() {
                    seen |= 1 << world.write_of(operation.key(), *value)?;
                }
            }
            let earlier = set(operations.iter().map(|(other, operation)| {
                other.session == place.session && other.index < place.index && operation.is_certain()
            }));
            world.earlier.push(earlier);
            world.seen.push(seen);
            world.required.push(earlier | seen);
        }
        for _ in operations {
            for at in 0..operations.len() {
                for other in 0..operations.len() {
                    if contains(world.required[at], other) {
                        world.required[at] |= world.required[other];
                    }
                }
            }
        }
        let is_circular = (0..operations.len()).any(|at| contains(world.required[at], at));
        (!is_circular).then_some(world)
    }

    fn write_of(&self, key: u32, value: u64) -> Option<usize> {
        self.operations.iter().enumerate().position(|(at, (_, operation))| {
            contains(self.happened, at) && operation.key() == key && written(operation) == Some(value)
        })
    }

    fn has_visibility(&self) -> bool {
        self.extend(&mut vec![0; self.operations.len()], 0)
    }

    /// Whether the visibility of the operations before `at` can be extended to all.
    fn extend(&self, visible: &mut Vec<u16>, at: usize) -> bool {
        // What an operation should have seen is settled by the visibility of the writes.
        let is_right = |at: usize| !contains(self.happened, at) || self.is_right(visible, at);
        if at >= self.writes && !(0..at).all(is_right) {
            return false;
        }
        if at == self.operations.len() {
            return true;
        }
        if !contains(self.happened, at) {
            return self.extend(visible, at + 1);
        }
        let writes = self.happened & ((1 << self.writes) - 1);
        let required = self.required[at] & writes;
        (required..=writes).any(|candidate| {
            visible[at] = candidate;
            candidate & required == required
                && candidate & !writes == 0
                && !contains(candidate, at)
                && (0..at).all(|other| self.agree(visible, other, at) && self.agree(visible, at, other))
                && self.extend(visible, at + 1)
        })
    }

    /// Whether all that must follow from `before` being before `after`, if it is, does.
    fn agree(&self, visible: &[u16], before: usize, after: usize) -> bool {
        let writes = (1 << self.writes) - 1;
        let is_before = contains(self.earlier[after] | visible[after], before);
        !is_before
            || !contains(self.happened, before)
            || !contains(self.happened, after)
            || (visible[before] | (1 << before & writes)) & !visible[after] == 0
    }

    /// Whether `at` saw exactly the maximal visible writes of its key.
    fn is_right(&self, visible: &[u16], at: usize) -> bool {
        let key = self.operations[at].1.key();
        let is_visible = |write: usize| contains(visible[at], write) && self.operations[write].1.key() == key;
        let is_maximal = |write: usize| {
            is_visible(write)
                && !(0..self.writes).any(|other| is_visible(other) && contains(visible[other], write))
        };
        self.operations[at].1.is_unstated() || self.seen[at] == set((0..self.writes).map(is_maximal))
    }
}

fn operations(history: &History) -> Vec<(Place, &Operation)> {
    let sessions = history.sessions.iter().enumerate();
    sessions
        .flat_map(|(session, operations)| {
            operations.iter().enumerate().map(move |(index, one)| (Place { session, index }, one))
        })
        .collect()
}

fn written(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::Write { value, .. } => Some(*value),
        Operation::Read { .. } => None,
    }
}

fn has_repetition(values: impl Iterator<Item = u64>) -> bool {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.windows(2).any(|pair| pair[0] == pair[1])
}

fn set(members: impl Iterator<Item = bool>) -> u16 {
    members.enumerate().fold(0, |set, (at, member)| set | (u16::from(member) << at))
}

fn contains(set: u16, at: usize) -> bool {
    set & (1 << at) != 0
}
