//! The helper with which applications test policies of their own.

use super::custom::resolve;
use super::{ConflictPolicy, CustomPolicy, PolicyNameError};
use crate::dot::Dot;
use crate::hlc::Hlc;
use crate::id::OriginId;
use crate::limits::VALUE_BYTES_MAX;
use crate::register::Sibling;
use crate::value::{Value, ValueError};

/// What every policy must keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyLaw {
    /// It answers without a panic.
    Answers,
    /// It gives the same answer when it is asked the same again, at once or after other questions.
    Repeats,
    /// It gives the same answer for an equal copy of its input.
    LooksAtValuesOnly,
    /// Its answer could be written to a register.
    Storable(ValueError),
}

/// What [`check_policy`] found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFault {
    /// It could not be registered.
    #[error(transparent)]
    Name(#[from] PolicyNameError),
    /// A sample has fewer than two values, and policies are never asked about those. The fault of whoever
    /// made the samples.
    #[error("sample {sample} has fewer than two values; a policy is asked about two or more")]
    SampleTooSmall {
        /// The index of the sample.
        sample: usize,
    },
    /// It breaks a law.
    #[error("with sample {sample} it breaks the law {law:?}")]
    Broken {
        /// The index of the sample.
        sample: usize,
        /// The law.
        law: PolicyLaw,
        /// The siblings it was asked about.
        siblings: Vec<(Dot, Sibling)>,
    },
}

/// Checks a policy on samples, each the values of two or more siblings, as registers could hold them: written
/// by different origins in every order of dots and stamps that a rotation or a reversal gives, and with equal
/// stamps. The policy must have a name that can be registered, must not panic, must give the same answer
/// when asked again, later, and about a copy, and its answers must be such as could be written to a register
/// ([`VALUE_BYTES_MAX`], [`crate::limits::VALUE_DEPTH_MAX`]).
///
/// What it cannot show: that answers are the same in another process, on another machine or tomorrow, which
/// a policy that reads the clock, the locale, the environment or a hash map's order fails only by chance
/// here; that a policy ends, or does not exhaust the stack; that panics are caught in a program in which they
/// abort; anything about values unlike the samples; nor that the answer is the one the application wants.
///
/// O(samples · values) questions.
///
/// # Errors
/// The first [`PolicyFault`] in the order of the samples; faults that show up only when everything is asked
/// once more come last.
pub fn check_policy(policy: &dyn ConflictPolicy, samples: &[Vec<Value>]) -> Result<(), PolicyFault> {
    CustomPolicy::new(policy.name(), policy.version())?;
    let mut asked = Vec::new();
    for (sample, values) in samples.iter().enumerate() {
        if values.len() < 2 {
            return Err(PolicyFault::SampleTooSmall { sample });
        }
        for siblings in arrangements(values) {
            let broken = |law| PolicyFault::Broken { sample, law, siblings: siblings.clone() };
            let answer = check_answers(policy, &siblings).map_err(broken)?;
            asked.push((sample, siblings, answer));
        }
    }
    // In the opposite order, so that whatever it remembers is not what it remembered.
    for (sample, siblings, answer) in asked.into_iter().rev() {
        if !matches!(resolve(policy, &siblings), Ok(again) if again == answer) {
            return Err(PolicyFault::Broken { sample, law: PolicyLaw::Repeats, siblings });
        }
    }
    Ok(())
}

fn check_answers(
    policy: &dyn ConflictPolicy,
    siblings: &[(Dot, Sibling)],
) -> Result<Option<Value>, PolicyLaw> {
    let ask = |siblings| resolve(policy, siblings).map_err(|_| PolicyLaw::Answers);
    let answer = ask(siblings)?;
    if ask(siblings)? != answer {
        return Err(PolicyLaw::Repeats);
    }
    let copy = siblings.to_vec();
    if ask(&copy)? != answer {
        return Err(PolicyLaw::LooksAtValuesOnly);
    }
    if let Some(value) = &answer {
        value.check(VALUE_BYTES_MAX).map_err(PolicyLaw::Storable)?;
    }
    Ok(answer)
}

/// The values in dot order as they are, reversed and rotated, each with rising, falling and equal stamps.
fn arrangements(values: &[Value]) -> Vec<Vec<(Dot, Sibling)>> {
    let count = values.len();
    let reversed = values.iter().rev().cloned().collect();
    let rotated = (0..count).map(|by| [&values[by..], &values[..by]].concat());
    let mut arrangements = Vec::new();
    for order in rotated.chain([reversed]) {
        for stamps in [|position, _| position, |position, count| count - position, |_, _| 7] {
            let siblings = order.iter().enumerate().map(|(position, value)| {
                let hlc = Hlc::new(1_000_000 + stamps(position as u64, count as u64), position as u16);
                (dot(position), Sibling { hlc, value: value.clone() })
            });
            arrangements.push(siblings.collect());
        }
    }
    arrangements
}

/// Ascending, from different origins, with sequence numbers that are not.
fn dot(position: usize) -> Dot {
    let mut origin = [0x5a; 16];
    origin[..8].copy_from_slice(&(position as u64).to_be_bytes());
    Dot { origin: OriginId(origin), seq: 1 + (position as u64 * 7) % 5, index: (position % 3) as u16 }
}
