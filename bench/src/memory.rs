//! The memory that objects, documents, spaces and peers take that nobody touches.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use comity::automerge::transaction::Transactable as _;
use comity::{OpenOptions, ROOT, Replica, Ticket};

use crate::figures::{REPEATS, Samples};
use crate::load::offline;
use crate::machine::resident_bytes;
use crate::options::Options;
use crate::plot::Plot;
use crate::report::{Bound, Promise, Report, Table, group};
use crate::{Failure, Verdict};

/// Bytes that a document may take which nobody touches.
const DOCUMENT_BYTES: f64 = 1_024.0;
/// Objects written in one transaction.
const AT_ONCE: u64 = 500;

const ABOUT: &str = "The memory of a process that opens a replica, less that of one which opens an empty one, for each object, document or \
    space that is there; and of one that others connect to, less what it had before they did, for each of them. Every repeat is a process \
    of its own. The store's cache, of which opening fills a part, counts as theirs.";

const KINDS: [&str; 3] = ["register", "document", "space"];

/// Measures. Options: `--repeats`, 5; `--objects`, 1,000,000, `--documents`, 20,000, `--spaces`, 1,000, `--peers`, 16; `--out`, a
/// folder. With `--directory` it is the process whose memory is measured.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let repeats = options.value("repeats", REPEATS)?.max(1);
    let counts = [
        options.value("objects", 1_000_000)?,
        options.value("documents", 20_000)?,
        options.value("spaces", 1_000)?,
    ];
    let peers: u64 = options.value("peers", 16)?;
    let (directory, out): (String, String) =
        (options.value("directory", String::new())?, options.value("out", String::new())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if !directory.is_empty() {
        runtime.block_on(tell_of(Path::new(&directory)))?;
        return Ok(Verdict::default());
    }
    let mut report = Report::begin("memory", ABOUT);
    let scratch = tempfile::tempdir()?;
    let empty = scratch.path().join("empty");
    runtime.block_on(async {
        let (replica, _) = offline(&empty).await?;
        replica.shutdown().await;
        Ok::<_, Failure>(())
    })?;
    let mut measured = Vec::new();
    for (kind, count) in KINDS.into_iter().zip(counts) {
        let filled = scratch.path().join(kind);
        runtime.block_on(fill(&filled, kind, count))?;
        let mut samples = Samples::default();
        for _ in 0..repeats {
            let (bare, full) = (Told::start(&empty)?.resident()?, Told::start(&filled)?.resident()?);
            samples.push(full.saturating_sub(bare) as f64 / count as f64);
        }
        measured.push((kind, count, samples));
    }
    let mut samples = Samples::default();
    for repeat in 0..repeats {
        samples.push(runtime.block_on(connected(scratch.path(), repeat, peers))?);
    }
    measured.push(("connected peer", peers, samples));
    let mut table = Table::new("Bytes for each:", "", &[("how many", ""), ("bytes each", "")]);
    let mut groups = Vec::new();
    for (kind, count, samples) in measured {
        if kind == "document" {
            report.promises.push(Promise {
                about: "bytes of memory for a document that nobody touches".to_owned(),
                measured: samples.median(),
                bound: Bound::AtMost(DOCUMENT_BYTES),
            });
        }
        groups.push(group(kind, &[&samples]));
        table.row(kind, [(count as f64).into(), samples.into()]);
    }
    report.tables.push(table);
    let (title, series) = ("Memory".to_owned(), vec!["each".to_owned()]);
    report.plot = Some(Plot { title, unit: "bytes", series, groups });
    Ok(Verdict { broken: report.finish(&out)? })
}

async fn fill(directory: &Path, kind: &'static str, count: u64) -> Result<(), Failure> {
    let (replica, space) = offline(directory).await?;
    if kind == "space" {
        for number in 1..count {
            let made = replica.create_space(&number.to_string()).await?;
            made.counter("c", "k").add(1).await?;
        }
    } else {
        for first in (0..count).step_by(AT_ONCE as usize) {
            let numbers = first..(first + AT_ONCE).min(count);
            let write = space.transact(move |tx| {
                for number in numbers {
                    let key = format!("{number:08}");
                    if kind == "document" {
                        tx.document("idle", &key).edit(|doc| Ok(doc.put(ROOT, "title", "a note")?))?;
                    } else {
                        tx.register("idle", &key).write(key.as_str())?;
                    }
                }
                Ok(())
            });
            write.await?;
        }
    }
    replica.shutdown().await;
    Ok(())
}

/// A process that tells of its memory whenever it is asked.
struct Told {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Told {
    fn start(directory: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["memory", "--directory"]).arg(directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let says = BufReader::new(child.stdout.take().ok_or("the process has no output")?);
        Ok(Self { child, says })
    }

    /// Asks it for something, in a line, and returns what it answers.
    fn ask(&mut self, what: &str) -> Result<String, Failure> {
        let input = self.child.stdin.as_mut().ok_or("the process has no input")?;
        writeln!(input, "{what}")?;
        loop {
            let mut line = String::new();
            if self.says.read_line(&mut line)? == 0 {
                return Err("the process ended".into());
            }
            if let Some(rest) = line.strip_prefix(what) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    fn resident(&mut self) -> Result<u64, Failure> {
        Ok(self.ask("resident")?.parse()?)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        // It ends with its input; what is left of it is killed.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn tell_of(directory: &Path) -> Result<(), Failure> {
    let mut options = OpenOptions::default();
    options.stay_offline = true;
    let replica = Replica::open_with(directory, options).await?;
    replica.listen("127.0.0.1:0".parse()?).await?;
    let (id, _) = replica.spaces().await?.into_iter().next().ok_or("the space is gone")?;
    let space = replica.space(id).await?;
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "ticket" => println!("ticket {}", space.invite().await?),
            _ => println!("resident {}", resident_bytes()),
        }
    }
    replica.shutdown().await;
    Ok(())
}

/// Bytes for each of so many peers, at who they connect to.
async fn connected(scratch: &Path, repeat: usize, peers: u64) -> Result<f64, Failure> {
    let hub = scratch.join(format!("hub-{repeat}"));
    let (replica, _) = offline(&hub).await?;
    replica.shutdown().await;
    let mut told = Told::start(&hub)?;
    let before = told.resident()?;
    let mut connected = Vec::new();
    for number in 0..peers {
        let peer = Replica::open(scratch.join(format!("peer-{repeat}-{number}"))).await?;
        let ticket: Ticket = told.ask("ticket")?.parse()?;
        peer.connect(&ticket).await?;
        connected.push(peer);
    }
    let after = told.resident()?;
    for peer in connected {
        peer.shutdown().await;
    }
    Ok(after.saturating_sub(before) as f64 / peers.max(1) as f64)
}
