//! All nodes of a run, and the shaper between them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::RigError;
use crate::lab::Lab;
use crate::ledger::{Ledger, Oracle, Violation};
use crate::lines::{Answer, Greeting, Question, Why};
use crate::process::{Findings, Piped, Process, lock, next_line};
use crate::shaper::{Order, Tally};

/// How long a node may take for anything before it counts as stuck. Only failures take this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a start of a node ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Started {
    /// It is ready, and clients may use it.
    Ready,
    /// It refused to open its directory.
    Closed(Why, String),
}

/// The nodes and the shaper.
pub struct Fleet {
    /// What they stand in.
    pub lab: Lab,
    /// What clients were told.
    pub ledger: Mutex<Ledger>,
    /// What was found wrong.
    pub findings: Findings,
    nodes: Vec<Mutex<Option<Arc<Process>>>>,
    shaper: Mutex<(Piped, std::io::BufReader<std::process::ChildStdout>)>,
    kills: AtomicU64,
    starts: AtomicU64,
    restored: AtomicU64,
}

impl Fleet {
    /// Starts the shaper; no node runs yet.
    ///
    /// # Errors
    /// [`RigError`].
    pub fn new(lab: Lab, seed: u64) -> Result<Self, RigError> {
        let (piped, mut stdout) = Piped::start(lab.shaper_command(seed)?, &lab.directory.join("shaper.log"))?;
        match next_line(&mut stdout).as_deref() {
            Some("ready") => {}
            said => return Err(RigError::line(said.unwrap_or("the shaper ended: see shaper.log"))),
        }
        let nodes = (0..lab.nodes).map(|_| Mutex::new(None)).collect();
        Ok(Self {
            lab,
            ledger: Mutex::default(),
            findings: Findings::default(),
            nodes,
            shaper: Mutex::new((piped, stdout)),
            kills: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            restored: AtomicU64::new(0),
        })
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The numbers of all nodes.
    pub fn numbers(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// Processes killed so far.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Processes started so far.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Directories put back so far, each of which costs an incarnation.
    pub fn restored(&self) -> u64 {
        self.restored.load(Ordering::Relaxed)
    }

    /// The node's process, when it is ready for clients.
    pub fn up(&self, node: usize) -> Option<Arc<Process>> {
        lock(&self.nodes[node]).clone()
    }

    /// Tells the shaper what to do from now on.
    ///
    /// # Errors
    /// [`RigError::Line`] when the shaper is gone.
    pub fn shape(&self, order: Order) -> Result<Tally, RigError> {
        let mut shaper = lock(&self.shaper);
        shaper.0.tell(&order.to_string());
        let said = next_line(&mut shaper.1).unwrap_or_else(|| "the shaper ended: see shaper.log".to_owned());
        let numbers: Vec<u64> = said.split(' ').filter_map(|word| word.parse().ok()).collect();
        match *numbers.as_slice() {
            [forwarded, lost, cut, duplicated, reordered] => {
                Ok(Tally { forwarded, lost, cut, duplicated, reordered })
            }
            _ => Err(RigError::line(&said)),
        }
    }

    /// Starts a node's process, which opens its directory from then on.
    ///
    /// # Errors
    /// [`RigError`].
    pub fn begin_start(&self, node: usize, failing_sync: Option<u64>) -> Result<Arc<Process>, RigError> {
        let command = self.lab.node_command(node, failing_sync)?;
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Process::start(node, command, &self.lab.log(node), self.findings.clone())?))
    }

    /// Waits until a node that was started is ready, and judges what it found in its directory.
    ///
    /// # Errors
    /// [`RigError::Node`] when it says nothing.
    pub fn finish_start(&self, process: Arc<Process>) -> Result<Started, RigError> {
        let node = process.node;
        match self.greeted(&process)? {
            Greeting::Ready(sums, is_damaged) => {
                self.findings.add_all(lock(&self.ledger).check_recovered(node, &sums));
                if is_damaged {
                    let detail = format!("node {node} reports damage after a kill");
                    self.findings.add(Violation::new(Oracle::Undamaged, detail));
                }
                *lock(&self.nodes[node]) = Some(process);
                Ok(Started::Ready)
            }
            Greeting::Closed(why, text) => {
                process.kill();
                Ok(Started::Closed(why, text))
            }
        }
    }

    /// Starts a node of whose directory an earlier state was put back: what it lacks has to come from others.
    ///
    /// # Errors
    /// [`RigError::Node`] when it does not open.
    pub fn start_restored(&self, node: usize) -> Result<(), RigError> {
        self.restored.fetch_add(1, Ordering::Relaxed);
        let process = self.begin_start(node, None)?;
        match self.greeted(&process)? {
            Greeting::Ready(..) => {
                *lock(&self.nodes[node]) = Some(process);
                Ok(())
            }
            closed @ Greeting::Closed(..) => Err(RigError::Node { node, what: closed.to_string() }),
        }
    }

    /// What a node that was started says of its directory.
    ///
    /// # Errors
    /// [`RigError::Node`] when it says nothing.
    pub fn greeted(&self, process: &Process) -> Result<Greeting, RigError> {
        process.greeting(PATIENCE).ok_or_else(|| {
            process.kill();
            let what = "it neither opened its directory nor said why".to_owned();
            RigError::Node { node: process.node, what }
        })
    }

    /// Starts a node that has no reason not to open.
    ///
    /// # Errors
    /// [`RigError::Node`] when it does not open.
    pub fn start(&self, node: usize) -> Result<(), RigError> {
        match self.finish_start(self.begin_start(node, None)?)? {
            Started::Ready => Ok(()),
            Started::Closed(why, text) => {
                let what = format!("it does not open its directory ({why}): {text}");
                self.findings.add(Violation::new(Oracle::Alive, format!("node {node}: {what}")));
                Err(RigError::Node { node, what })
            }
        }
    }

    /// Kills a node (SIGKILL), when it runs.
    pub fn kill(&self, node: usize) {
        let process = lock(&self.nodes[node]).take();
        if let Some(process) = process {
            if process.is_over() {
                let detail = format!("node {node} ended by itself: see its log");
                self.findings.add(Violation::new(Oracle::Alive, detail));
            }
            process.kill();
            self.kills.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Kills a node that is not ready yet.
    pub fn kill_starting(&self, process: &Process) {
        process.kill();
        self.kills.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks a node that must be up and must answer.
    ///
    /// # Errors
    /// [`RigError::Node`] when it does not.
    pub fn ask(&self, node: usize, question: &Question) -> Result<Answer, RigError> {
        let failed = |what: String| RigError::Node { node, what };
        let process = self.up(node).ok_or_else(|| failed(format!("it is down: {question}")))?;
        process.ask_within(question, PATIENCE).ok_or_else(|| failed(format!("no answer to {question}")))
    }

    /// Asks for a ticket.
    ///
    /// # Errors
    /// [`RigError::Node`] when there is none.
    pub fn ticket(&self, node: usize, question: &Question) -> Result<String, RigError> {
        match self.ask(node, question)? {
            Answer::Ticket(ticket) => Ok(ticket),
            other => Err(RigError::Node { node, what: format!("{question}: {other}") }),
        }
    }

    /// Asks for something that must be done.
    ///
    /// # Errors
    /// [`RigError::Node`] when it is not.
    pub fn done(&self, node: usize, question: &Question) -> Result<(), RigError> {
        match self.ask(node, question)? {
            Answer::Done(_) => Ok(()),
            other => Err(RigError::Node { node, what: format!("{question}: {other}") }),
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Some(process) = lock(node).take() {
                process.kill();
            }
        }
    }
}
