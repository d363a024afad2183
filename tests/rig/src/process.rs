//! Processes of the rig, as the controller holds them.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::RigError;
use crate::ledger::{Oracle, Violation};
use crate::lines::{Answer, Greeting, Question, Why};

/// What is found wrong, by whoever finds it.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<Vec<Violation>>>);

impl Findings {
    /// Notes a violation, and says so at once.
    pub fn add(&self, violation: Violation) {
        eprintln!("VIOLATION: {violation}");
        lock(&self.0).push(violation);
    }

    /// Notes violations.
    pub fn add_all(&self, violations: impl IntoIterator<Item = Violation>) {
        violations.into_iter().for_each(|violation| self.add(violation));
    }

    /// Everything noted so far.
    pub fn all(&self) -> Vec<Violation> {
        lock(&self.0).clone()
    }
}

/// Locks what no thread leaves half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child with its lines. Killed when dropped.
pub struct Piped {
    child: Child,
    stdin: ChildStdin,
}

impl Piped {
    /// Starts a command; what it writes to standard error is appended to `log`.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub fn start(mut command: Command, log: &Path) -> Result<(Self, BufReader<ChildStdout>), RigError> {
        let stderr = OpenOptions::new().create(true).append(true).open(log).map_err(RigError::path(log))?;
        let what = format!("{:?}", command.get_program());
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let mut child = started.map_err(RigError::io(what))?;
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        Ok((Self { child, stdin }, BufReader::new(stdout)))
    }

    /// Writes a line. One that a dead process does not take is lost with it.
    pub fn tell(&mut self, line: &str) {
        let _ = self.stdin.write_all(format!("{line}\n").as_bytes());
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads a line without its end; `None` when there are no more.
pub fn next_line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    match from.read_line(&mut line) {
        Ok(bytes) if bytes > 0 => line.strip_suffix('\n').map(ToOwned::to_owned),
        _ => None,
    }
}

struct Asked {
    answers: mpsc::Sender<Answer>,
    is_write: bool,
    /// Asked after the node had said that its storage failed.
    after_failure: bool,
}

#[derive(Default)]
struct Open {
    asked: HashMap<u64, Asked>,
    next_number: u64,
    storage_failed: bool,
    is_over: bool,
}

/// A node's process.
pub struct Process {
    /// Which node.
    pub node: usize,
    piped: Mutex<Piped>,
    open: Arc<Mutex<Open>>,
    greeting: Mutex<mpsc::Receiver<Greeting>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Process {
    /// Starts a node.
    ///
    /// # Errors
    /// [`RigError::Io`].
    pub fn start(node: usize, command: Command, log: &Path, findings: Findings) -> Result<Self, RigError> {
        let (piped, mut stdout) = Piped::start(command, log)?;
        let open = Arc::new(Mutex::new(Open { next_number: 1, ..Open::default() }));
        let (greeted, greeting) = mpsc::channel();
        let shared = Arc::clone(&open);
        let reader = std::thread::spawn(move || {
            while let Some(line) = next_line(&mut stdout) {
                if let Ok(greeting) = line.parse() {
                    // Whoever started the node may have killed it meanwhile.
                    let _ = greeted.send(greeting);
                } else {
                    take_in(node, &line, &shared, &findings);
                }
            }
            let mut open = lock(&shared);
            open.is_over = true;
            open.asked.clear();
        });
        let (piped, greeting, reader) = (Mutex::new(piped), Mutex::new(greeting), Mutex::new(Some(reader)));
        Ok(Self { node, piped, open, greeting, reader })
    }

    /// What the node says of its directory; `None` when it ended, or takes longer than that.
    pub fn greeting(&self, within: Duration) -> Option<Greeting> {
        lock(&self.greeting).recv_timeout(within).ok()
    }

    /// Asks; the answers come as the node gives them. They end when it does.
    pub fn ask(&self, question: &Question) -> mpsc::Receiver<Answer> {
        let (sender, answers) = mpsc::channel();
        let number = {
            let mut open = lock(&self.open);
            if open.is_over {
                return answers;
            }
            let number = open.next_number;
            open.next_number += 1;
            let (is_write, after_failure) = (question.is_write(), open.storage_failed);
            open.asked.insert(number, Asked { answers: sender, is_write, after_failure });
            number
        };
        lock(&self.piped).tell(&format!("{number} {question}"));
        answers
    }

    /// Asks what has one answer; `None` when the node ended or was silent for so long.
    pub fn ask_within(&self, question: &Question, within: Duration) -> Option<Answer> {
        self.ask(question).recv_timeout(within).ok()
    }

    /// Whether the node has said that its storage failed: it must be started again.
    pub fn has_failed(&self) -> bool {
        lock(&self.open).storage_failed
    }

    /// Whether the process has ended.
    pub fn is_over(&self) -> bool {
        lock(&self.open).is_over
    }

    /// Kills the process (SIGKILL). When this returns, everything that it said was heard.
    pub fn kill(&self) {
        lock(&self.piped).kill();
        if let Some(reader) = lock(&self.reader).take() {
            // A reader that panicked has said so.
            let _ = reader.join();
        }
    }

    /// Stops the process where it stands, or lets it go on.
    pub fn pause(&self, still: bool) {
        let signal = if still { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let id = lock(&self.piped).child.id();
        if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
            // A process that has ended cannot be stopped any more.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

fn take_in(node: usize, line: &str, open: &Mutex<Open>, findings: &Findings) {
    let parsed = line
        .split_once(' ')
        .and_then(|(number, answer)| Some((number.parse::<u64>().ok()?, answer.parse::<Answer>().ok()?)));
    let Some((number, answer)) = parsed else {
        return findings.add(Violation::new(Oracle::Alive, format!("node {node} says {line:?}")));
    };
    let mut open = lock(open);
    if let Answer::Refused(Why::Storage, _) | Answer::Unknown(Why::Storage, _) = answer {
        open.storage_failed = true;
    }
    let is_last = !matches!(answer, Answer::Replaces(_));
    let asked = if is_last { open.asked.remove(&number) } else { None };
    if let Some(Asked { is_write: true, after_failure: true, .. }) = asked
        && matches!(answer, Answer::Done(_))
    {
        let detail =
            format!("node {node} acknowledged a write that was asked for after its storage had failed");
        findings.add(Violation::new(Oracle::FailedSync, detail));
    }
    let sender = match asked {
        Some(asked) => Some(asked.answers),
        None => open.asked.get(&number).map(|asked| asked.answers.clone()),
    };
    if let Some(sender) = sender {
        // Whoever asked may have stopped waiting.
        let _ = sender.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node is asked for two writes, the second after it has answered the first with `first`.
    fn violations(first: &str, second: &str) -> Vec<Oracle> {
        let (open, findings) = (Mutex::new(Open::default()), Findings::default());
        for (number, answer) in [(1, first), (2, second)] {
            let after_failure = lock(&open).storage_failed;
            let asked = Asked { answers: mpsc::channel().0, is_write: true, after_failure };
            lock(&open).asked.insert(number, asked);
            take_in(0, &format!("{number} {answer}"), &open, &findings);
        }
        findings.all().iter().map(|violation| violation.oracle).collect()
    }

    #[test]
    fn a_write_acknowledged_after_storage_failed_is_noticed() {
        assert_eq!(violations("unknown storage the log: EIO", "done 00"), [Oracle::FailedSync]);
        assert_eq!(violations("unknown storage the log: EIO", "refused storage again"), []);
        assert_eq!(violations("unknown no-space full", "done 00"), []);
    }

    #[test]
    fn a_line_that_is_no_answer_is_noticed() {
        assert_eq!(violations("done 00", "well done"), [Oracle::Alive]);
    }
}
