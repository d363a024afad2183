//! A node as the controller holds it, across the lives of its process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::error::RigError;
use crate::process::{Piped, next_line};
use crate::wan::LOOK_EVERY;

/// How long any answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(300);

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The digest of what is applied.
    pub digest: String,
    /// A token of what is durable.
    pub durable: String,
    /// Entries that connected peers have and it has not.
    pub missing: u64,
    /// Members.
    pub members: usize,
    /// Peers that are connected.
    pub peers: usize,
    /// Bytes of runs that came over the present connections.
    pub received: u64,
    /// Of these, bytes of runs that were wanted.
    pub needed: u64,
    /// How far taking over a state has come; `none` when that is not being done.
    pub phase: String,
    /// Bytes of that state that are here.
    pub staged: u64,
    /// Bytes of that state altogether.
    pub total: u64,
}

impl State {
    fn of(answer: &str) -> Option<Self> {
        let words: Vec<&str> = answer.split_whitespace().collect();
        let ["state", digest, durable, missing, members, peers, received, needed, phase, staged, total] =
            words[..]
        else {
            return None;
        };
        Some(Self {
            digest: digest.to_owned(),
            durable: durable.to_owned(),
            missing: missing.parse().ok()?,
            members: members.parse().ok()?,
            peers: peers.parse().ok()?,
            received: received.parse().ok()?,
            needed: needed.parse().ok()?,
            phase: phase.to_owned(),
            staged: staged.parse().ok()?,
            total: total.parse().ok()?,
        })
    }
}

/// What a node has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Change sets.
    pub count: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Bytes of all these values compressed as one stream.
    pub packed: u64,
    /// Whether that is all.
    pub is_over: bool,
}

/// A node.
pub struct Site {
    /// Its number.
    pub node: usize,
    /// Its replica, as events name it.
    pub replica: String,
    directory: PathBuf,
    addr: SocketAddr,
    entries_min: u64,
    process: Option<(Piped, mpsc::Receiver<String>)>,
    /// The most memory that any of its processes has used, bytes.
    peak: u64,
}

impl Site {
    /// Starts a node with an empty directory below `under`.
    ///
    /// # Errors
    /// [`RigError`] when it does not start.
    pub fn start(node: usize, under: &Path, entries_min: u64) -> Result<Self, RigError> {
        let directory = under.join(format!("node-{node}"));
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let (replica, process) = (String::new(), None);
        let mut site = Self { node, replica, directory, addr, entries_min, process, peak: 0 };
        site.restart()?;
        Ok(site)
    }

    /// Starts its process, where the one before listened.
    ///
    /// # Errors
    /// [`RigError`] when it does not start.
    pub fn restart(&mut self) -> Result<(), RigError> {
        let program = std::env::current_exe().map_err(RigError::io("this program"))?;
        let mut command = Command::new(program);
        command.arg("wan-node").arg("--data").arg(&self.directory);
        command.args(["--listen", &self.addr.to_string(), "--node", &self.node.to_string()]);
        command.args(["--entries-min", &self.entries_min.to_string()]);
        let log = self.directory.with_extension("log");
        let (piped, mut stdout) = Piped::start(command, &log)?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            while let Some(line) = next_line(&mut stdout) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        self.process = Some((piped, lines));
        let greeting = self.hear(ANSWER_MAX)?;
        let ["ready", addr, replica] = greeting.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(self.failed(greeting));
        };
        (self.addr, self.replica) =
            (addr.parse().map_err(|_| self.failed(greeting.clone()))?, replica.to_owned());
        Ok(())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn failed(&self, what: impl Into<String>) -> RigError {
        RigError::Node { node: self.node, what: what.into() }
    }

    fn hear(&self, within: Duration) -> Result<String, RigError> {
        let (_, lines) = self.process.as_ref().ok_or_else(|| self.failed("it does not run"))?;
        lines.recv_timeout(within).map_err(|_| self.failed("it ended, or is silent"))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`RigError::Node`] when it is refused or does not come.
    pub fn ask(&mut self, question: &str) -> Result<String, RigError> {
        self.tell(question);
        self.answer()
    }

    /// Asks without waiting; [`Site::answer`] does.
    pub fn tell(&mut self, question: &str) {
        if let Some((piped, _)) = &mut self.process {
            piped.tell(question);
        }
    }

    /// The next answer.
    ///
    /// # Errors
    /// [`RigError::Node`] when it is a refusal or does not come.
    pub fn answer(&mut self) -> Result<String, RigError> {
        let answer = self.hear(ANSWER_MAX)?;
        if answer.starts_with("refused") { Err(self.failed(answer)) } else { Ok(answer) }
    }

    /// A ticket by which somebody reaches it at an address; one that lets a new member in, if `is_new`.
    ///
    /// # Errors
    /// As [`Site::ask`].
    pub fn ticket(&mut self, at: SocketAddr, is_new: bool) -> Result<String, RigError> {
        let answer = self.ask(&format!("{} {at}", if is_new { "invite" } else { "ticket" }))?;
        Ok(answer.strip_prefix("ticket ").ok_or_else(|| self.failed(answer.clone()))?.to_owned())
    }

    /// What it says of itself; `None` while its space is being replaced.
    ///
    /// # Errors
    /// [`RigError::Node`] when it says nothing.
    pub fn state(&mut self) -> Result<Option<State>, RigError> {
        self.tell("state");
        Ok(State::of(&self.hear(ANSWER_MAX)?))
    }

    /// Waits until what it says of itself is so.
    ///
    /// # Errors
    /// [`RigError::Node`] when it is not within that time.
    pub fn wait(
        &mut self,
        within: Duration,
        what: &str,
        holds: impl Fn(&State) -> bool,
    ) -> Result<State, RigError> {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < within {
            last = self.state()?;
            if let Some(state) = last.take_if(|state| holds(state)) {
                return Ok(state);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(self.failed(format!("not so within {} s: {what}; it says {last:?}", within.as_secs())))
    }

    /// What it has written.
    ///
    /// # Errors
    /// As [`Site::ask`].
    pub fn written(&mut self) -> Result<Written, RigError> {
        let answer = self.ask("written")?;
        let words: Vec<&str> = answer.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| self.failed(answer.clone()));
        match words[..] {
            ["written", count, bytes, packed, is_over] => Ok(Written {
                count: number(count)?,
                bytes: number(bytes)?,
                packed: number(packed)?,
                is_over: is_over == "true",
            }),
            _ => Err(self.failed(answer)),
        }
    }

    /// Microseconds from each write of each other replica to its being visible here, since this was asked last.
    ///
    /// # Errors
    /// As [`Site::ask`].
    pub fn latencies(&mut self) -> Result<Vec<(String, Vec<i64>)>, RigError> {
        let answer = self.ask("latencies")?;
        let of_author = |word: &str| {
            let (author, numbers) = word.split_once('=')?;
            let numbers = numbers.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
            Some((author.to_owned(), numbers))
        };
        answer
            .split_whitespace()
            .skip(1)
            .map(|word| of_author(word).ok_or_else(|| self.failed(word)))
            .collect()
    }

    /// Kills its process (SIGKILL).
    pub fn kill(&mut self) {
        self.peak();
        self.process = None;
    }

    /// The most memory that any of its processes has used so far, bytes; 0 where the system does not tell.
    pub fn peak(&mut self) -> u64 {
        let present = self.process.as_ref().and_then(|(piped, _)| peak_of(piped.id()));
        self.peak = self.peak.max(present.unwrap_or(0));
        self.peak
    }
}

/// The most resident memory of a process, bytes.
fn peak_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// Waits until all sites have the same, and returns how long that took since `started`.
///
/// # Errors
/// [`RigError::Node`] when they have not within that time.
pub fn wait_equal(sites: &mut [Site], started: Instant, within: Duration) -> Result<Duration, RigError> {
    loop {
        let states: Vec<_> = sites.iter_mut().map(Site::state).collect::<Result<_, _>>()?;
        let [Some(first), rest @ ..] = &states[..] else { continue };
        let same = |state: &Option<State>| {
            state.as_ref().is_some_and(|state| state.digest == first.digest && state.durable == first.durable)
        };
        if rest.iter().all(same) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > within {
            let what = format!("the replicas differ after {} s: {states:?}", within.as_secs());
            return Err(RigError::Node { node: 0, what });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
