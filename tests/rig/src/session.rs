//! Client sessions: they hop between nodes with a token, and remember what they did and saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use comity_history::{Operation, Outcome};

use crate::draws::Draws;
use crate::fleet::{Fleet, PATIENCE};
use crate::ledger::{Fate, Oracle, Violation, check_whole};
use crate::lines::{Answer, Question, Sums, Why};
use crate::process::{Process, lock};

/// Registers that sessions contend for.
pub const KEYS: u32 = 6;
/// Between two operations of a session, at most. About 100 operations a second and session, at best.
const THINKING_MS_MAX: u64 = 10;

/// What a session counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Acknowledged writes of registers.
    pub writes: u64,
    /// Answered reads of registers.
    pub reads: u64,
    /// Acknowledged additions.
    pub additions: u64,
    /// Answered reads of sums.
    pub sums: u64,
    /// Writes and additions with an unknown outcome.
    pub unknown: u64,
    /// Operations that reached no node.
    pub nobody: u64,
    /// Refusals, by reason.
    pub refused: BTreeMap<Why, u64>,
    /// Indeterminate outcomes that the node itself reported, by reason.
    pub indeterminate: BTreeMap<Why, u64>,
}

impl Counts {
    /// Adds another session's.
    pub fn merge(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.additions += other.additions;
        self.sums += other.sums;
        self.unknown += other.unknown;
        self.nobody += other.nobody;
        for (why, count) in &other.refused {
            *self.refused.entry(*why).or_default() += count;
        }
        for (why, count) in &other.indeterminate {
            *self.indeterminate.entry(*why).or_default() += count;
        }
    }

    /// Everything that was answered as asked.
    pub fn done(&self) -> u64 {
        self.writes + self.reads + self.additions + self.sums
    }
}

/// One client.
pub struct Session {
    fleet: Arc<Fleet>,
    number: u64,
    draws: Draws,
    node: usize,
    token: Option<String>,
    next: u64,
    /// The least that the sum of all additions may show.
    floor: u64,
    /// What it did and saw.
    pub operations: Vec<Operation>,
    /// What it counted.
    pub counts: Counts,
}

impl Session {
    /// A client that has seen nothing yet.
    pub fn new(fleet: Arc<Fleet>, number: u64, seed: u64) -> Self {
        let mut draws = Draws::new(seed, 1_000 + number);
        let node = draws.index(fleet.count());
        Self {
            fleet,
            number,
            draws,
            node,
            token: None,
            next: 0,
            floor: 0,
            operations: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Works until told to stop.
    pub fn run(&mut self, stop: &Receiver<()>) {
        loop {
            let thinking = Duration::from_millis(self.draws.below(THINKING_MS_MAX + 1));
            match stop.recv_timeout(thinking) {
                Err(RecvTimeoutError::Timeout) => self.step(),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn step(&mut self) {
        if self.draws.permille(150) {
            self.node = self.draws.index(self.fleet.count());
        }
        let (kind, key) = (self.draws.below(100), self.draws.below(u64::from(KEYS)) as u32);
        let Some(process) = self.fleet.up(self.node) else {
            self.counts.nobody += 1;
            self.node = self.draws.index(self.fleet.count());
            return;
        };
        match kind {
            0..35 => self.write(&process, key),
            35..70 => self.read(&process, key),
            70..90 => self.add(&process),
            _ => self.sums(&process),
        }
    }

    /// The answer; `None` when the node died first. A node that lives and is silent is found out.
    fn await_answer(&self, process: &Process, answers: &Receiver<Answer>, what: &str) -> Option<Answer> {
        match answers.recv_timeout(PATIENCE) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let detail = format!("node {} did not answer {what} within {PATIENCE:?}", process.node);
                self.fleet.findings.add(Violation::new(Oracle::Alive, detail));
                None
            }
        }
    }

    fn unexpected(&self, process: &Process, what: &str, answer: &Answer) {
        let detail = format!("node {} answers {what} with {answer}", process.node);
        self.fleet.findings.add(Violation::new(Oracle::Alive, detail));
    }

    fn refused(&mut self, process: &Process, what: &str, why: Why, text: &str) {
        *self.counts.refused.entry(why).or_default() += 1;
        if matches!(why, Why::Other | Why::Damaged) {
            self.unexpected(process, what, &Answer::Refused(why, text.to_owned()));
        }
        // Perhaps somebody else is in a better state.
        if self.draws.permille(500) {
            self.node = self.draws.index(self.fleet.count());
        }
    }

    fn write(&mut self, process: &Process, key: u32) {
        self.next += 1;
        let value = (self.number + 1) << 32 | self.next;
        let answers = process.ask(&Question::Write(key, value, self.token.clone()));
        let mut replaced = None;
        let outcome = loop {
            match self.await_answer(process, &answers, "write") {
                Some(Answer::Replaces(values)) => replaced = Some(values),
                Some(Answer::Done(token)) => {
                    self.token = token;
                    self.counts.writes += 1;
                    break Some(Outcome::Acknowledged);
                }
                Some(Answer::Refused(why, text)) => {
                    self.refused(process, "write", why, &text);
                    break None;
                }
                Some(Answer::Unknown(why, _)) => {
                    *self.counts.indeterminate.entry(why).or_default() += 1;
                    break Some(Outcome::Unknown);
                }
                Some(other) => {
                    self.unexpected(process, "write", &other);
                    break Some(Outcome::Unknown);
                }
                None => break Some(Outcome::Unknown),
            }
        };
        // What the node did not announce, it did not do.
        if let (Some(outcome), Some(replaced)) = (outcome, replaced) {
            self.counts.unknown += u64::from(outcome == Outcome::Unknown);
            self.operations.push(Operation::Write { key, value, replaced, outcome });
        }
    }

    fn read(&mut self, process: &Process, key: u32) {
        let answers = process.ask(&Question::Read(key, self.token.clone()));
        match self.await_answer(process, &answers, "read") {
            Some(Answer::Values(token, values)) => {
                self.token = Some(token);
                self.counts.reads += 1;
                self.operations.push(Operation::Read { key, values });
            }
            Some(Answer::Refused(why, text)) => self.refused(process, "read", why, &text),
            Some(other) => self.unexpected(process, "read", &other),
            None => {}
        }
    }

    fn add(&mut self, process: &Process) {
        self.next += 1;
        let element = format!("s{}-{}", self.number, self.next);
        let note = |fate| lock(&self.fleet.ledger).note(&element, process.node, fate);
        note(Fate::Tried);
        let answers = process.ask(&Question::Add(element.clone(), self.token.clone()));
        match self.await_answer(process, &answers, "add") {
            Some(Answer::Done(token)) => {
                note(Fate::Acknowledged);
                self.token = token;
                self.floor += 1;
                self.counts.additions += 1;
            }
            Some(Answer::Refused(why, text)) => {
                note(Fate::Refused);
                self.refused(process, "add", why, &text);
            }
            Some(Answer::Unknown(why, _)) => {
                note(Fate::Unknown);
                self.counts.unknown += 1;
                *self.counts.indeterminate.entry(why).or_default() += 1;
            }
            Some(other) => self.unexpected(process, "add", &other),
            None => {
                note(Fate::Unknown);
                self.counts.unknown += 1;
            }
        }
    }

    fn sums(&mut self, process: &Process) {
        let answers = process.ask(&Question::Sums(self.token.clone()));
        match self.await_answer(process, &answers, "sums") {
            Some(Answer::Sums(token, sums)) => {
                self.token = Some(token);
                self.counts.sums += 1;
                self.take_in(process.node, &sums);
            }
            Some(Answer::Refused(why, text)) => self.refused(process, "sums", why, &text),
            Some(other) => self.unexpected(process, "sums", &other),
            None => {}
        }
    }

    fn take_in(&mut self, node: usize, sums: &Sums) {
        self.fleet.findings.add_all(check_whole(sums));
        if sums.all < self.floor {
            let (number, floor) = (self.number, self.floor);
            let detail =
                format!("session {number} has seen {floor} additions, and at node {node} {}", sums.all);
            self.fleet.findings.add(Violation::new(Oracle::Sessions, detail));
        }
        self.floor = sums.all.max(self.floor);
    }

    /// Reads everything once more, at a node that must have it by now.
    pub fn read_all(&mut self, node: usize) {
        let Some(process) = self.fleet.up(node) else { return };
        (0..KEYS).for_each(|key| self.read(&process, key));
        self.sums(&process);
    }
}
