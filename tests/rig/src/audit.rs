//! After the load: waiting until all nodes are the same, and judging what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::error::RigError;
use crate::fleet::Fleet;
use crate::ledger::{Oracle, Violation};
use crate::lines::{Answer, Question, State, Sums};
use crate::process::lock;
use crate::session::KEYS;

/// How long nodes may take to become the same once everything is healed: a dial may wait for half a minute, and
/// what it brings may have to be relayed.
const CONVERGENCE_MAX: Duration = Duration::from_secs(180);

/// What a node holds in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// What it counts.
    pub sums: Sums,
    /// The elements of its set.
    pub elements: BTreeSet<String>,
    /// The values of each register.
    pub registers: BTreeMap<u32, BTreeSet<u64>>,
}

/// Waits until every node has durably what each of the others has applied, and judges that they are the same.
/// Returns how long it took.
///
/// # Errors
/// [`RigError::Node`] when a node does not answer.
pub fn converge(fleet: &Fleet) -> Result<Duration, RigError> {
    let started = Instant::now();
    loop {
        for from in fleet.numbers() {
            let token = state(fleet, from)?.frontier;
            for to in fleet.numbers() {
                let left = CONVERGENCE_MAX.saturating_sub(started.elapsed());
                let question = Question::Await(token.clone(), left.as_millis() as u64);
                let process = fleet.up(to);
                let answer = process.and_then(|process| process.ask_within(&question, CONVERGENCE_MAX * 2));
                if !matches!(answer, Some(Answer::Done(_))) {
                    let what = format!("node {to} never gets what node {from} has: {answer:?}");
                    fleet.findings.add(Violation::new(Oracle::Convergence, what));
                    explain(fleet);
                    return Ok(started.elapsed());
                }
            }
        }
        let states = fleet.numbers().map(|node| state(fleet, node)).collect::<Result<Vec<_>, _>>()?;
        let is_at_rest =
            |state: &State| state.frontier == states[0].frontier && state.frontier == state.durable;
        if states.iter().all(is_at_rest) {
            judge(fleet, &states);
            return Ok(started.elapsed());
        }
        if started.elapsed() > CONVERGENCE_MAX {
            fleet.findings.add(Violation::new(Oracle::Convergence, "frontiers stay different".to_owned()));
            explain(fleet);
            return Ok(started.elapsed());
        }
    }
}

fn judge(fleet: &Fleet, states: &[State]) {
    let wrong = |oracle, node: usize, state: &State| {
        fleet
            .findings
            .add(Violation::new(oracle, format!("node {node}: {state:?}; node 0: {:?}", states[0])));
    };
    for (node, state) in states.iter().enumerate() {
        if state.digest != states[0].digest || state.staged > 0 {
            wrong(Oracle::Convergence, node, state);
        }
        if state.frozen > 0 || state.lanes > states.len() + fleet.restored() as usize {
            wrong(Oracle::Undamaged, node, state);
        }
    }
}

fn explain(fleet: &Fleet) {
    for node in fleet.numbers() {
        eprintln!("node {node}: {:?}", state(fleet, node));
    }
}

/// How a node sees the space.
///
/// # Errors
/// [`RigError::Node`] when it does not say.
pub fn state(fleet: &Fleet, node: usize) -> Result<State, RigError> {
    match fleet.ask(node, &Question::State)? {
        Answer::State(state) => Ok(state),
        other => Err(RigError::Node { node, what: format!("its state is {other}") }),
    }
}

/// Reads everything that a node holds.
///
/// # Errors
/// [`RigError::Node`] when it does not answer.
pub fn holdings(fleet: &Fleet, node: usize) -> Result<Holdings, RigError> {
    let strange = |answer: Answer| RigError::Node { node, what: format!("it answers {answer}") };
    let sums = match fleet.ask(node, &Question::Sums(None))? {
        Answer::Sums(_, sums) => sums,
        other => return Err(strange(other)),
    };
    let mut elements = BTreeSet::new();
    let mut after = None;
    loop {
        match fleet.ask(node, &Question::Elements(after.clone()))? {
            Answer::Elements(page) if page.is_empty() => break,
            Answer::Elements(page) => {
                after = page.last().cloned();
                elements.extend(page);
            }
            other => return Err(strange(other)),
        }
    }
    let mut registers = BTreeMap::new();
    for key in 0..KEYS {
        match fleet.ask(node, &Question::Read(key, None))? {
            Answer::Values(_, values) => registers.insert(key, values.into_iter().collect()),
            other => return Err(strange(other)),
        };
    }
    Ok(Holdings { sums, elements, registers })
}

/// Judges what every node holds against what clients were told. Returns what the first holds.
///
/// # Errors
/// As [`holdings`].
pub fn audit(fleet: &Fleet, spoil: impl Fn(&mut Holdings)) -> Result<Holdings, RigError> {
    let mut first = None;
    for node in fleet.numbers() {
        let mut found = holdings(fleet, node)?;
        spoil(&mut found);
        let ledger = lock(&fleet.ledger).clone();
        fleet.findings.add_all(ledger.check_sums(&found.sums));
        fleet.findings.add_all(ledger.check_elements(node, &found.elements));
        if found.elements.len() as u64 != found.sums.elements {
            let detail =
                format!("node {node} lists {} elements of {}", found.elements.len(), found.sums.elements);
            fleet.findings.add(Violation::new(Oracle::Elements, detail));
        }
        let first = first.get_or_insert_with(|| found.clone());
        if *first != found {
            let detail = format!("nodes 0 and {node} hold different things");
            fleet.findings.add(Violation::new(Oracle::Convergence, detail));
        }
    }
    first.ok_or_else(|| RigError::Arguments("there are no nodes".to_owned()))
}
