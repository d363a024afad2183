//! The program as a process, and a client that speaks just enough HTTP to see what it answers.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_comity");

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program, with none of our variables around.
pub(crate) fn comity(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COMITY_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    comity(args).output().unwrap()
}

/// What a run that has to succeed printed.
pub(crate) fn printed(args: &[&str]) -> String {
    let output = run(args);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{args:?} ended with {}: {out}{err}", output.status);
    out.trim_end().to_owned()
}

/// The exit code and the complaint of a run.
pub(crate) fn complaint(args: &[&str]) -> (i32, String) {
    let output = run(args);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A daemon that runs, killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) dir: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) log: mpsc::Receiver<String>,
}

impl Daemon {
    /// Starts one on ports of its own, and waits until it answers.
    #[expect(clippy::zombie_processes, reason = "one that does not start fails the test")]
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        let text = dir.to_str().unwrap();
        let mut fixed = vec!["serve", "--data-dir", text, "--log-format", "json"];
        if !args.contains(&"--http") {
            fixed.extend(["--http", "127.0.0.1:0"]);
        }
        let mut child = comity(&[fixed.as_slice(), args].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody listens once the test has ended.
                let _ = sender.send(line);
            }
        });
        let mut seen = Vec::new();
        loop {
            let line = log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it did not start: {seen:?}"));
            let body: Value = serde_json::from_str(&line).unwrap_or_default();
            if body["message"] == "started" {
                let http = body["http"].as_str().unwrap().trim_matches(['[', ']']);
                let address = http.split(',').next().unwrap().trim().parse().unwrap();
                return Self { child, dir: dir.to_owned(), address, log };
            }
            seen.push(line);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for its end; the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::yield_now();
        }
        panic!("it did not end");
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        ask(TcpStream::connect(self.address).unwrap(), method, path, headers, body)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path, &[("content-type", "application/json")], &body.to_string())
    }

    pub(crate) fn unix(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(UnixStream::connect(self.dir.join("comity.sock")).unwrap(), method, path, headers, "")
    }

    /// Founds a space; its path.
    pub(crate) fn space(&self, name: &str) -> String {
        let answer = self.send("POST", "/v1/spaces", &json!({"name": name}));
        assert_eq!(answer.status, 201, "{answer:?}");
        format!("/v1/spaces/{}", answer.body["id"].as_str().unwrap())
    }

    /// Asks until an answer is as wanted.
    pub(crate) fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{path} is {answer:?} still");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head and the body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The name of a problem.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        self.body["type"].as_str().unwrap().strip_prefix("urn:comity:problem:").unwrap()
    }
}

/// Sends one request over a connection and reads the answer to its end.
pub(crate) fn ask(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let (status, headers) = read_head(&mut reader);
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let body = serde_json::from_str(&text).unwrap_or_default();
    Answer { status, headers, body, text }
}

fn read_head(reader: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {line:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { return (status, headers) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// A feed that is being read.
pub(crate) struct Feed(BufReader<TcpStream>);

/// One event of a feed.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Feed {
    pub(crate) fn open(daemon: &Daemon, path: &str, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = last.map_or(String::new(), |last| format!("last-event-id: {last}\r\n"));
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader);
        assert_eq!(status, 200, "{headers:?}");
        Self(reader)
    }

    /// The next event; `None` when the feed has ended.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the feed is silent: {error}"),
            }
            let line = line.trim_end();
            // Lines between are those of the chunked encoding.
            match line.split_once(": ") {
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("data", data)) => {
                    event.data = serde_json::from_str(data).unwrap();
                    return Some(event);
                }
                _ => {}
            }
        }
    }
}
