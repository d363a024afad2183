//! Carries out faults, and judges what must hold while they last.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::audit::state;
use crate::draws::Draws;
use crate::error::RigError;
use crate::fleet::{Fleet, PATIENCE, Started};
use crate::ledger::{Fate, Oracle, Violation};
use crate::lines::{Answer, Question, Why};
use crate::plan::{Fault, Plan};
use crate::process::lock;
use crate::shaper::Order;

/// Additions after which a sync that was to fail counts as never reached.
const ADDITIONS_MAX: u64 = 400;
/// Additions tried after a sync has failed.
const ADDITIONS_AFTER_FAILURE: u64 = 5;

/// What was injected.
#[derive(Clone, Debug, Default)]
pub struct Injected {
    /// Kills during recovery, of those counted by the fleet.
    pub kills_recovering: u64,
    /// Processes that stood still for a while.
    pub pauses: u64,
    /// Links cut, one way.
    pub cuts: u64,
    /// Partitions in two.
    pub splits: u64,
    /// Interfaces taken down.
    pub unplugged: u64,
    /// Packet filters.
    pub filters: u64,
    /// Changes of the weather.
    pub weathers: u64,
    /// Times the small disk was filled.
    pub disks_filled: u64,
    /// Times its node was killed while it was full.
    pub kills_full: u64,
    /// Times the node said by name that its disk is full.
    pub no_space: u64,
    /// Directories put back to an earlier state.
    pub restored: u64,
    /// Syncs that failed while the node served.
    pub failed_syncs: u64,
    /// Syncs that failed while the node opened.
    pub failed_openings: u64,
    /// Syncs that were to fail and were not reached.
    pub unreached_syncs: u64,
}

/// Whoever injects faults.
pub struct Torment<'a> {
    fleet: &'a Fleet,
    draws: Draws,
    next_addition: u64,
    /// What was injected so far.
    pub injected: Injected,
}

impl<'a> Torment<'a> {
    /// Nothing injected yet.
    pub fn new(fleet: &'a Fleet, seed: u64) -> Self {
        Self { fleet, draws: Draws::new(seed, 3), next_addition: 0, injected: Injected::default() }
    }

    /// Injects what is planned until the time is over; partitions and weather last beyond it.
    ///
    /// # Errors
    /// [`RigError`] when the rig cannot go on; violations are findings.
    pub fn run(&mut self, plan: &mut Plan, until: Instant) -> Result<(), RigError> {
        while Instant::now() < until {
            let (pause, fault) = plan.next_fault();
            wait(pause);
            eprintln!("fault: {fault:?}");
            self.inject(fault)?;
        }
        Ok(())
    }

    fn inject(&mut self, fault: Fault) -> Result<(), RigError> {
        match fault {
            Fault::Kill { node, down } => {
                self.fleet.kill(node);
                wait(down);
                self.fleet.start(node)
            }
            Fault::KillRecovering { node, lives } => self.kill_recovering(node, &lives),
            Fault::KillAll => {
                self.fleet.numbers().for_each(|node| self.fleet.kill(node));
                self.fleet.numbers().try_for_each(|node| self.fleet.start(node))
            }
            Fault::Pause { node, still } => {
                let Some(process) = self.fleet.up(node) else { return Ok(()) };
                self.injected.pauses += 1;
                process.pause(true);
                wait(still);
                process.pause(false);
                Ok(())
            }
            Fault::CutOneWay { from, to } => {
                self.injected.cuts += 1;
                self.fleet.shape(Order::Cut(from, to)).map(|_| ())
            }
            Fault::Split { sides } => self.split(&sides),
            Fault::Unplug { node, off } => {
                self.injected.unplugged += 1;
                self.fleet.lab.plug(node, false)?;
                wait(off);
                self.fleet.lab.plug(node, true)
            }
            Fault::Filter { node, inbound, percent, during } => {
                self.injected.filters += 1;
                self.fleet.lab.filter(node, inbound, percent)?;
                wait(during);
                self.fleet.lab.unfilter(node)
            }
            Fault::Heal => self.fleet.shape(Order::Heal).map(|_| ()),
            Fault::Weather(weather) => {
                self.injected.weathers += 1;
                self.fleet.shape(Order::Weather(weather)).map(|_| ())
            }
            Fault::FillDisk { kill, at_once } => self.fill_disk(kill, at_once),
            Fault::Restore { node, age } => self.restore(node, age),
            Fault::FailSync { node, when } => self.fail_sync(node, when),
        }
    }

    fn kill_recovering(&mut self, node: usize, lives: &[Duration]) -> Result<(), RigError> {
        self.fleet.kill(node);
        for life in lives {
            let process = self.fleet.begin_start(node, None)?;
            wait(*life);
            self.fleet.kill_starting(&process);
            self.injected.kills_recovering += 1;
        }
        self.fleet.start(node)
    }

    fn split(&mut self, sides: &[bool]) -> Result<(), RigError> {
        self.injected.splits += 1;
        for (from, side) in sides.iter().enumerate() {
            for (to, other) in sides.iter().enumerate() {
                if side != other {
                    self.fleet.shape(Order::Cut(from, to))?;
                }
            }
        }
        Ok(())
    }

    /// Adds once at a node; `None` when the node is gone.
    fn add(&mut self, node: usize) -> Option<Answer> {
        let process = self.fleet.up(node)?;
        self.next_addition += 1;
        let element = format!("t-{}", self.next_addition);
        let note = |fate| lock(&self.fleet.ledger).note(&element, node, fate);
        note(Fate::Tried);
        let answer = process.ask_within(&Question::Add(element.clone(), None), PATIENCE);
        note(match &answer {
            Some(Answer::Done(_)) => Fate::Acknowledged,
            Some(Answer::Refused(..)) => Fate::Refused,
            _ => Fate::Unknown,
        });
        answer
    }

    fn wrong(&self, oracle: Oracle, detail: String) {
        self.fleet.findings.add(Violation::new(oracle, detail));
    }

    /// Fills the disk of a node that holds something nobody else has, checks what still works, and frees it.
    fn fill_disk(&mut self, kill: bool, at_once: bool) -> Result<(), RigError> {
        let Some(node) = self.fleet.lab.small_disk_node() else { return Ok(()) };
        self.fleet.shape(Order::Heal)?;
        for other in self.fleet.numbers().filter(|other| *other != node) {
            self.fleet.shape(Order::Cut(node, other))?;
        }
        let last = self.add(node);
        let Some(Answer::Done(Some(token))) = last else {
            let detail = format!("node {node} does not write before its disk is full: {last:?}");
            self.wrong(Oracle::FullDisk, detail);
            return Ok(());
        };
        self.injected.disks_filled += 1;
        if !at_once {
            self.fleet.lab.fill_disk(comity::StoreOptions::default().headroom_bytes)?;
            self.until_refused(node);
        }
        self.fleet.lab.fill_disk(0)?;
        if self.until_refused(node) {
            // Clients, too, are to find the disk full.
            wait(Duration::from_millis(self.draws.between(200, 2_500)));
            self.read_while_full(node);
            self.fleet.shape(Order::Heal)?;
            self.await_elsewhere(node, &token);
        }
        if kill {
            self.kill_while_full(node)?;
        }
        self.fleet.lab.free_disk()?;
        if self.fleet.up(node).is_none_or(|process| process.has_failed()) {
            self.fleet.kill(node);
            self.fleet.start(node)?;
        }
        self.fleet.shape(Order::Heal)?;
        self.until_written(node);
        Ok(())
    }

    /// Writes until the node says that its disk is full, and nothing worse; `false` when it does not.
    fn until_refused(&mut self, node: usize) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.add(node) {
                Some(Answer::Refused(Why::NoSpace, _) | Answer::Unknown(Why::NoSpace, _)) => {
                    self.injected.no_space += 1;
                    return true;
                }
                // What was prepared before may still be used.
                Some(Answer::Done(_)) => {}
                other => {
                    self.wrong(Oracle::FullDisk, format!("node {node} answers a write with {other:?}"));
                    return false;
                }
            }
        }
        self.wrong(Oracle::FullDisk, format!("node {node} never says that its disk is full"));
        false
    }

    fn read_while_full(&self, node: usize) {
        let answer =
            self.fleet.up(node).and_then(|process| process.ask_within(&Question::Read(0, None), PATIENCE));
        if !matches!(answer, Some(Answer::Values(..))) {
            self.wrong(Oracle::FullDisk, format!("node {node} answers a read with {answer:?}"));
        }
    }

    /// What was durable before goes out from the full disk.
    fn await_elsewhere(&self, node: usize, token: &str) {
        let neighbour = neighbour(node);
        let Some(process) = self.fleet.up(neighbour) else { return };
        let question = Question::Await(token.to_owned(), PATIENCE.as_millis() as u64);
        let answer = process.ask_within(&question, PATIENCE * 2);
        if !matches!(answer, Some(Answer::Done(_))) {
            let detail =
                format!("node {node} does not send on while its disk is full: {answer:?} at {neighbour}");
            self.wrong(Oracle::FullDisk, detail);
        }
    }

    /// A node killed while its disk is full opens, or says what it lacks.
    fn kill_while_full(&mut self, node: usize) -> Result<(), RigError> {
        self.injected.kills_full += 1;
        self.fleet.kill(node);
        let process = self.fleet.begin_start(node, None)?;
        match self.fleet.finish_start(process)? {
            Started::Ready => eprintln!("node {node} opens on its full disk"),
            Started::Closed(Why::NoSpace, text) => eprintln!("node {node} needs space to open: {text}"),
            Started::Closed(why, text) => {
                self.wrong(
                    Oracle::FullDisk,
                    format!("node {node} does not open while its disk is full ({why}): {text}"),
                );
            }
        }
        Ok(())
    }

    fn until_written(&mut self, node: usize) {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.add(node) {
                Some(Answer::Done(_)) => return,
                Some(Answer::Refused(Why::NoSpace, _) | Answer::Unknown(Why::NoSpace, _)) => {}
                other => {
                    self.wrong(
                        Oracle::FullDisk,
                        format!("node {node} with a freed disk answers with {other:?}"),
                    );
                    return;
                }
            }
        }
        self.wrong(Oracle::FullDisk, format!("node {node} does not write again after its disk was freed"));
    }

    /// Starts a node of which a sync fails, writes until it does, and sees to it that nothing is acknowledged
    /// from then on.
    fn fail_sync(&mut self, node: usize, when: u64) -> Result<(), RigError> {
        self.fleet.kill(node);
        let process = self.fleet.begin_start(node, Some(when))?;
        match self.fleet.finish_start(process)? {
            Started::Ready => {
                let is_noticed = self.until_sync_failed(node);
                self.fleet.kill(node);
                self.judge_failed_sync(node, is_noticed);
            }
            Started::Closed(Why::Storage, text) => {
                eprintln!("node {node} does not open: {text}");
                self.injected.failed_openings += 1;
            }
            Started::Closed(why, text) => {
                let detail = format!("node {node} does not open when a sync fails ({why}): {text}");
                self.wrong(Oracle::FailedSync, detail);
            }
        }
        self.fleet.kill(node);
        self.fleet.start(node)
    }

    /// Writes until the node says that its storage failed; `false` when it never does.
    fn until_sync_failed(&mut self, node: usize) -> bool {
        for _ in 0..ADDITIONS_MAX {
            match self.add(node) {
                Some(Answer::Done(_) | Answer::Unknown(Why::NoSpace, _)) => {}
                Some(Answer::Unknown(Why::Storage, _) | Answer::Refused(Why::Storage, _)) => {
                    self.write_after_failure(node);
                    return true;
                }
                other => {
                    let detail = format!("node {node} answers a write with {other:?}");
                    self.wrong(Oracle::FailedSync, detail);
                    return true;
                }
            }
        }
        false
    }

    /// Judges whether the node noticed what happened to it.
    fn judge_failed_sync(&mut self, node: usize, is_noticed: bool) {
        let has_failed = self.fleet.lab.has_failed_sync(node);
        self.injected.failed_syncs += u64::from(has_failed);
        self.injected.unreached_syncs += u64::from(!has_failed);
        if has_failed != is_noticed {
            let said = if is_noticed { "reports a failed sync" } else { "goes on" };
            let detail = format!("node {node} {said}; that one was made to fail is {has_failed}");
            self.wrong(Oracle::FailedSync, detail);
        }
    }

    fn write_after_failure(&mut self, node: usize) {
        for _ in 0..ADDITIONS_AFTER_FAILURE {
            // An acknowledgement here is noticed where all answers are read.
            let answer = self.add(node);
            if !matches!(
                answer,
                Some(Answer::Done(_) | Answer::Unknown(Why::Storage, _) | Answer::Refused(Why::Storage, _))
            ) {
                self.wrong(
                    Oracle::FailedSync,
                    format!("node {node} answers a write after a failed sync with {answer:?}"),
                );
            }
        }
    }

    /// Puts a node's directory back to what it was before, once a neighbour has all of it, and sees to it that
    /// the node gets everything back.
    fn restore(&mut self, node: usize, age: Duration) -> Result<(), RigError> {
        self.fleet.shape(Order::Heal)?;
        self.fleet.kill(node);
        let copy = self.copy_data(node)?;
        self.fleet.start(node)?;
        wait(age);
        self.fleet.kill(node);
        if self.has_spread(node)? {
            self.put_back(node, &copy)?;
            self.fleet.start_restored(node)?;
            self.injected.restored += 1;
            let token = state(self.fleet, neighbour(node))?.frontier;
            let question = Question::Await(token, PATIENCE.as_millis() as u64);
            let process = self.fleet.up(node);
            let answer = process.and_then(|process| process.ask_within(&question, PATIENCE * 2));
            if !matches!(answer, Some(Answer::Done(_))) {
                let detail = format!("node {node} does not get back what its directory lacks: {answer:?}");
                self.wrong(Oracle::Recovered, detail);
            }
            return Ok(());
        }
        self.fleet.start(node)
    }

    /// Whether a neighbour gets all that a dead node holds, from a process that no client knows.
    fn has_spread(&self, node: usize) -> Result<bool, RigError> {
        let process = self.fleet.begin_start(node, None)?;
        self.fleet.greeted(&process)?;
        let state = process.ask_within(&Question::State, PATIENCE);
        let Some(Answer::State(state)) = state else {
            return Err(RigError::Node { node, what: format!("its state is {state:?}") });
        };
        let question = Question::Await(state.frontier, PATIENCE.as_millis() as u64);
        let other = self.fleet.up(neighbour(node));
        let answer = other.and_then(|other| other.ask_within(&question, PATIENCE * 2));
        self.fleet.kill_starting(&process);
        Ok(matches!(answer, Some(Answer::Done(_))))
    }

    fn copy_data(&self, node: usize) -> Result<PathBuf, RigError> {
        let copy = self.fleet.lab.directory.join("copy");
        if copy.exists() {
            std::fs::remove_dir_all(&copy).map_err(RigError::path(&copy))?;
        }
        copy_directory(&self.fleet.lab.data(node), &copy)?;
        Ok(copy)
    }

    fn put_back(&self, node: usize, copy: &Path) -> Result<(), RigError> {
        let data = self.fleet.lab.data(node);
        std::fs::remove_dir_all(&data).map_err(RigError::path(&data))?;
        copy_directory(copy, &data)
    }

    /// Rolls back what a node has acknowledged and nobody else has: what the oracles must notice.
    ///
    /// # Errors
    /// [`RigError`].
    pub fn roll_back(&mut self) -> Result<(), RigError> {
        let node = self.draws.index(self.fleet.count());
        for other in self.fleet.numbers().filter(|other| *other != node) {
            self.fleet.shape(Order::Cut(node, other))?;
        }
        self.fleet.kill(node);
        let copy = self.copy_data(node)?;
        self.fleet.start(node)?;
        for _ in 0..10 {
            self.add(node);
        }
        self.fleet.kill(node);
        self.put_back(node, &copy)?;
        self.fleet.start(node)
    }
}

/// A node that keeps a connection with this one on every map.
fn neighbour(node: usize) -> usize {
    node.checked_sub(1).unwrap_or(node + 1)
}

fn copy_directory(from: &Path, to: &Path) -> Result<(), RigError> {
    std::fs::create_dir_all(to).map_err(RigError::path(to))?;
    for entry in std::fs::read_dir(from).map_err(RigError::path(from))? {
        let entry = entry.map_err(RigError::path(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy_directory(&path, &target)?,
            false => std::fs::copy(&path, &target).map(|_| ()).map_err(RigError::path(&path))?,
        }
    }
    Ok(())
}

/// The random moment itself; nothing waits for anything here.
fn wait(time: Duration) {
    std::thread::sleep(time);
}
