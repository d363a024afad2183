//! A replica as a process that writes, follows and reports. It answers each line on standard input with one line, in
//! order; what takes long goes on in the background.
//!
//! Writes carry the moment at which they were made, by the monotonic clock of the machine, which all its processes share.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use comity::{
    BootstrapLimits, BootstrapPhase, ChangeEvent, Did, OpenOptions, Replica, ReplicaId, Retention, Role,
    Space, Ticket, Token, Value,
};
use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::error::RigError;
use crate::lines::{read_lines, say};
use crate::process::lock;

/// Lines that wait to be answered.
const LINES_MAX: usize = 16;
/// Change sets that are on their way to the disk at once.
const SUBMITTED_MAX: usize = 64;
/// Bytes of the stamp at the beginning of each value.
const STAMP_BYTES: usize = 8;
/// Registers that each node writes in turn.
const KEYS: u64 = 1_000;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its data directory.
    pub directory: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its number.
    pub node: usize,
    /// From how many entries on it takes over a state instead of the log.
    pub entries_min: u64,
}

type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// Nanoseconds of the monotonic clock.
fn moment() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Runs a node until standard input ends.
///
/// # Errors
/// [`RigError`] when it has no runtime.
pub fn serve(options: NodeOptions) -> Result<(), RigError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(RigError::io("a runtime"))?.block_on(run(options));
    Ok(())
}

async fn run(options: NodeOptions) {
    let bootstrap = BootstrapLimits { entries_min: options.entries_min, ..BootstrapLimits::USUAL };
    let open = OpenOptions::default().retention(Retention::OFF).bootstrap(bootstrap);
    let opened = async {
        let replica = Replica::open_with(&options.directory, open).await?;
        let addr = replica.listen(options.listen).await?;
        Ok::<_, Refusal>((replica, addr))
    };
    let (replica, addr) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return say(&format!("closed {error}")),
    };
    say(&format!("ready {addr} {}", replica.id()));
    let node = Node { replica, number: options.node, written: Arc::default(), latencies: Arc::default() };
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    // Nobody asks any more: end as after a kill.
    read_lines(move |line| sender.blocking_send(line).is_ok(), || std::process::exit(0));
    while let Some(line) = lines.recv().await {
        let answer = node.answer(&line).await.unwrap_or_else(|refusal| format!("refused {refusal}"));
        say(&answer.replace('\n', " "));
    }
}

/// What a node has written.
struct Written {
    count: u64,
    bytes: u64,
    /// All values one after another, as short as a stream of them can be made.
    packed: DeflateEncoder<Vec<u8>>,
    is_over: bool,
    failure: Option<String>,
}

impl Default for Written {
    fn default() -> Self {
        let packed = DeflateEncoder::new(Vec::new(), Compression::new(6));
        Self { count: 0, bytes: 0, packed, is_over: true, failure: None }
    }
}

struct Node {
    replica: Replica,
    number: usize,
    written: Arc<Mutex<Written>>,
    /// Microseconds from each write of others to its being visible here.
    latencies: Arc<Mutex<BTreeMap<ReplicaId, Vec<u64>>>>,
}

impl Node {
    async fn space(&self) -> Result<Space, Refusal> {
        let spaces = self.replica.spaces().await?;
        let (id, _) = spaces.first().ok_or("there is no space yet")?;
        Ok(self.replica.space(*id).await?)
    }

    async fn answer(&self, line: &str) -> Result<String, Refusal> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["found"] => self.replica.create_space("wan").await.map(|_| "ok".to_owned()).map_err(Into::into),
            ["invite", addr] => Ok(by(&self.space().await?.invite_as(Role::Admin).await?, addr.parse()?)),
            ["ticket", addr] => Ok(by(&self.space().await?.ticket()?, addr.parse()?)),
            ["connect", ticket] => {
                self.replica.connect(&ticket.parse::<Ticket>()?).await?;
                Ok("ok".to_owned())
            }
            ["fill", count, bytes, batch] => {
                self.fill((count.parse()?, bytes.parse()?, batch.parse()?)).await?;
                Ok("ok".to_owned())
            }
            ["write", seconds, every_us, bytes] => {
                let time = Duration::from_secs(seconds.parse()?);
                self.write((time, Duration::from_micros(every_us.parse()?), bytes.parse()?)).await
            }
            ["written"] => self.written(),
            ["follow"] => {
                let (space, latencies) = (self.space().await?, Arc::clone(&self.latencies));
                tokio::spawn(follow(self.replica.id(), space, latencies));
                Ok("ok".to_owned())
            }
            ["latencies"] => Ok(self.latencies()),
            ["state"] => self.state().await,
            ["sum"] => Ok(self.space().await?.view()?.counter("sums", "all")?.to_string()),
            ["await", token, ms] => {
                let bytes = HEXLOWER.decode(token.as_bytes()).map_err(|error| error.to_string())?;
                let token = Token::from_bytes(&bytes).map_err(|error| error.to_string())?;
                self.space().await?.at_within(&token, Duration::from_millis(ms.parse()?)).await?;
                Ok("ok".to_owned())
            }
            _ => Err(format!("not understood: {line}").into()),
        }
    }

    /// Writes registers of so many bytes, many in a change set.
    async fn fill(&self, (count, bytes, batch): (u64, usize, usize)) -> Result<(), Refusal> {
        let space = self.space().await?;
        let mut pending = std::collections::VecDeque::new();
        for first in (0..count).step_by(batch.max(1)) {
            let number = self.number as u64;
            let values: Vec<_> = (first..count.min(first + batch as u64))
                .map(|key| (key, noise((number << 40 | key) + 1, bytes)))
                .collect();
            let writing = space.transact(move |tx| {
                for (key, value) in values {
                    tx.register("filled", &key.to_string()).write(Value::Bytes(value))?;
                }
                Ok(())
            });
            pending.push_back(writing.submit().await?);
            if pending.len() == SUBMITTED_MAX
                && let Some(oldest) = pending.pop_front()
            {
                oldest.receipt().await?;
            }
        }
        for written in pending {
            written.receipt().await?;
        }
        Ok(())
    }

    /// Writes every so often, for so long, values of so many bytes; one more in the sum of all with each.
    async fn write(&self, (time, every, bytes): (Duration, Duration, usize)) -> Result<String, Refusal> {
        let (space, written, node) = (self.space().await?, Arc::clone(&self.written), self.number);
        if !std::mem::replace(&mut lock(&written).is_over, false) {
            return Err("it writes already".into());
        }
        tokio::spawn(async move {
            let written_all = write_all(&space, &written, (node, time, every, bytes)).await;
            let mut written = lock(&written);
            written.is_over = true;
            written.failure = written_all.err().map(|error| error.to_string());
        });
        Ok("ok".to_owned())
    }

    fn written(&self) -> Result<String, Refusal> {
        let mut written = lock(&self.written);
        if let Some(failure) = &written.failure {
            return Err(failure.clone().into());
        }
        written.packed.flush()?;
        let (Written { count, bytes, is_over, .. }, packed) = (&*written, written.packed.total_out());
        Ok(format!("written {count} {bytes} {packed} {is_over}"))
    }

    /// What was measured since it was asked last.
    fn latencies(&self) -> String {
        let taken = std::mem::take(&mut *lock(&self.latencies));
        let line = |(author, latencies): (ReplicaId, Vec<u64>)| {
            let numbers: Vec<String> = latencies.iter().map(u64::to_string).collect();
            format!(" {author}={}", numbers.join(","))
        };
        format!("latencies{}", taken.into_iter().map(line).collect::<String>())
    }

    async fn state(&self) -> Result<String, Refusal> {
        let (status, replica) = (self.space().await?.status().await?, self.replica.status().await?);
        let token = Token { space: status.space, frontier: status.durable.clone() };
        let (received, needed) = replica
            .sessions
            .iter()
            .fold((0, 0), |sum, session| (sum.0 + session.received_bytes, sum.1 + session.needed_bytes));
        let bootstrap = status.bootstrap.as_ref();
        let phase = bootstrap.map_or("none", |bootstrap| match bootstrap.phase {
            BootstrapPhase::Waiting => "waiting",
            BootstrapPhase::Receiving => "receiving",
            BootstrapPhase::Verifying => "verifying",
            BootstrapPhase::Installing => "installing",
            _ => "other",
        });
        Ok(format!(
            "state {} {} {} {} {} {received} {needed} {phase} {} {}",
            status.digest,
            HEXLOWER.encode(&token.to_bytes()),
            status.missing.entries,
            status.members.len(),
            self.replica.connected().len(),
            bootstrap.map_or(0, |bootstrap| bootstrap.bytes),
            bootstrap.map_or(0, |bootstrap| bootstrap.bytes_total),
        ))
    }
}

async fn write_all(
    space: &Space,
    written: &Mutex<Written>,
    (node, time, every, bytes): (usize, Duration, Duration, usize),
) -> Result<(), Refusal> {
    let started = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while started.elapsed() < time {
        ticks.tick().await;
        let number = lock(written).count;
        let key = format!("{node}-{}", number % KEYS);
        let text = words((node as u64) << 40 | number, bytes.saturating_sub(STAMP_BYTES));
        let value = [&moment().to_le_bytes(), text.as_bytes()].concat();
        let (register, sent) = (key, value.clone());
        let writing = space.transact(move |tx| {
            tx.register("written", &register).write(Value::Bytes(sent))?;
            tx.counter("sums", "all").add(1)
        });
        writing.await?;
        let mut written = lock(written);
        written.count += 1;
        written.bytes += value.len() as u64;
        written.packed.write_all(&value)?;
    }
    Ok(())
}

async fn follow(own: ReplicaId, space: Space, latencies: Arc<Mutex<BTreeMap<ReplicaId, Vec<u64>>>>) {
    let mut watch = space.watch();
    loop {
        let Ok(event) = watch.next().await else { return };
        let now = moment();
        if event.author == own {
            continue;
        }
        if let Some(stamp) = stamp(&event) {
            lock(&latencies).entry(event.author).or_default().push(now.saturating_sub(stamp) / 1_000);
        }
    }
}

fn stamp(event: &ChangeEvent) -> Option<u64> {
    event.changes.iter().flat_map(|change| &change.did).find_map(|did| match did {
        Did::Written { value: Value::Bytes(value), .. } => {
            value.first_chunk::<STAMP_BYTES>().map(|bytes| u64::from_le_bytes(*bytes))
        }
        _ => None,
    })
}

fn by(ticket: &Ticket, addr: SocketAddr) -> String {
    format!("ticket {}", Ticket { addresses: vec![addr], ..ticket.clone() })
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Bytes that nothing makes shorter.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95);
    let mut value: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| draw(&mut state).to_le_bytes()).collect();
    value.truncate(bytes);
    value
}

/// Text of about the entropy that people's records have.
fn words(seed: u64, bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "order",
        "customer",
        "\"status\":",
        "shipped",
        "pending",
        "address",
        "street",
        "quantity",
        "price",
        "total",
        "2026-11-",
        "invoice",
        "comment",
        "please",
        "deliver",
        "before",
    ];
    let (mut state, mut text) = (seed.wrapping_mul(0xD134_2543_DE82_EF95), String::new());
    while text.len() < bytes {
        let drawn = draw(&mut state);
        text.push_str(WORDS[(drawn % 16) as usize]);
        text.push_str(&format!(" {} ", (drawn >> 32) % 1_000));
    }
    text.truncate(bytes);
    text
}
