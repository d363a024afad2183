//! Other processes: this test binary again, in a role that an environment variable names.

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use super::{Draws, PATIENCE};

/// Names the role; its absence means that this process is the test.
const ROLE: &str = "COMITY_TEST_ROLE";
/// What a role's lines start with, to tell them from the test harness's own.
const LINE: &str = "> ";
/// Below the ports that systems hand out by themselves, so that nobody takes one while its owner is dead.
const PORTS: std::ops::Range<u64> = 12_000..30_000;

/// The arguments of the role this process was started in.
pub(crate) fn role() -> Option<Vec<String>> {
    let role = std::env::var(ROLE).ok()?;
    Some(role.split('\n').map(ToOwned::to_owned).collect())
}

/// Says a line to the process that started this one. Ends this process when nobody listens any more.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // One write, so that a kill cannot leave half a line that looks whole.
    if stdout.write_all(format!("{LINE}{line}\n").as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Ends this process when the one that started it is gone.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let mut line = String::new();
        while std::io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {}
        std::process::exit(0);
    });
}

/// A process in a role. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    _stdin: ChildStdin,
}

impl Process {
    /// Starts this binary again to run its test `entry`, which must ask for its [`role`].
    pub(crate) fn start(entry: &str, role: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", entry, "--nocapture", "--test-threads=1"])
            .env(ROLE, role.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                // The harness may leave the beginning of a line of its own before ours.
                let said = line.strip_suffix('\n').and_then(|line| line.split_once(LINE));
                if said.is_some_and(|(_, said)| sender.send(said.to_owned()).is_err()) {
                    return;
                }
                line.clear();
            }
        });
        Self { child, lines, _stdin: stdin }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the process says next; `None` when it has ended.
    pub(crate) fn hear(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the process is silent"),
        }
    }

    /// What the process has said by now.
    pub(crate) fn heard(&self) -> impl Iterator<Item = String> + '_ {
        self.lines.try_iter()
    }

    /// Kills the process as a power cut does (SIGKILL), and returns everything it said that was not heard yet.
    pub(crate) fn kill(mut self) -> Vec<String> {
        // It may have ended by itself, which its lines tell.
        let _ = self.child.kill();
        self.child.wait().unwrap();
        let mut said = Vec::new();
        while let Some(line) = self.hear() {
            said.push(line);
        }
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that ended already is no concern.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A UDP port that is free now and that nobody is given by accident.
pub(crate) fn free_port(draws: &mut Draws) -> u16 {
    let salt = u64::from(std::process::id());
    loop {
        let port = PORTS.start + (draws.below(PORTS.end - PORTS.start) + salt) % (PORTS.end - PORTS.start);
        let port = u16::try_from(port).unwrap();
        if UdpSocket::bind(super::loopback(port)).is_ok() {
            return port;
        }
    }
}
