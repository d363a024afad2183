//! Small changes of every kind, and writers that make them.

use std::time::{Duration, Instant};

use comity::automerge::transaction::Transactable as _;
use comity::{ObjType, OpenOptions, ROOT, ReadDoc as _, Replica, Space, Transact, TxError};
use comity_path::{Conditions, Path};
use tokio::task::JoinSet;

use crate::Failure;
use crate::figures::Times;

/// A kind of change: one operation on an object of its writer.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    pub(crate) name: &'static str,
    pub(crate) make: fn(&Space, &str, u64) -> Transact,
}

pub(crate) const COUNTER: Change =
    Change { name: "counter add", make: |space, key, _| space.counter("load", key).add(1) };

pub(crate) const REGISTER: Change = Change {
    name: "register write, 16 characters",
    make: |space, key, number| space.register("load", key).write(text(number)),
};

/// What is measured: a change of every kind that people use most.
pub(crate) const CHANGES: [Change; 7] = [
    COUNTER,
    REGISTER,
    Change {
        name: "set add, 16 characters",
        make: |space, key, number| space.set("load", key).insert(text(number)),
    },
    Change {
        name: "flag enable or disable",
        make: |space, key, number| {
            let flag = space.flag("load", key);
            if number.is_multiple_of(2) { flag.enable() } else { flag.disable() }
        },
    },
    Change {
        name: "map: register under a key",
        make: |space, key, number| {
            space.map("load", key).register(&format!("key-{:04}", number % 1_000)).write(text(number))
        },
    },
    Change {
        name: "bounded counter increase",
        make: |space, key, _| space.bounded_counter("load", key).increase(1),
    },
    Change { name: "document: one character typed", make: typed },
];

fn text(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn typed(space: &Space, key: &str, number: u64) -> Transact {
    space.document("load", key).edit(move |document| {
        let text = match document.get(ROOT, "text")? {
            Some((_, text)) => text,
            None => document.put_object(ROOT, "text", ObjType::Text)?,
        };
        let letter = char::from(b'a' + (number % 26) as u8);
        let end = document.length(&text);
        Ok::<_, TxError>(document.splice_text(&text, end, 0, &letter.to_string())?)
    })
}

/// A replica that speaks to nobody, with a space.
pub(crate) async fn offline(directory: &std::path::Path) -> Result<(Replica, Space), Failure> {
    let mut options = OpenOptions::default();
    options.stay_offline = true;
    let replica = Replica::open_with(directory, options).await?;
    let space = replica.create_space("bench").await?;
    Ok((replica, space))
}

/// Two replicas of one space, the second connected to the first over QUIC on the loopback.
pub(crate) struct Pair {
    pub(crate) author: Replica,
    pub(crate) follower: Replica,
    pub(crate) written: Space,
    pub(crate) followed: Space,
    directory: tempfile::TempDir,
    _path: Option<Path>,
}

impl Pair {
    pub(crate) async fn open() -> Result<Self, Failure> {
        Self::over(None).await
    }

    /// With a path between them.
    pub(crate) async fn over(conditions: Option<Conditions>) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let author = Replica::open(directory.path().join("author")).await?;
        let address = author.listen("127.0.0.1:0".parse()?).await?;
        let path = conditions.map(|conditions| Path::to(address, conditions, 1)).transpose()?;
        let written = author.create_space("bench").await?;
        let follower = Replica::open(directory.path().join("follower")).await?;
        let mut ticket = written.invite().await?;
        if let Some(path) = &path {
            ticket.addresses = vec![path.near()];
        }
        let followed = follower.connect(&ticket).await?;
        let pair = Self { author, follower, written, followed, directory, _path: path };
        pair.agree().await?;
        Ok(pair)
    }

    pub(crate) fn author_directory(&self) -> std::path::PathBuf {
        self.directory.path().join("author")
    }

    /// Waits until everything that is durable at the first replica is durable at the second.
    pub(crate) async fn agree(&self) -> Result<(), Failure> {
        let within = Duration::from_secs(600);
        self.followed.at_within(&self.written.token().await?, within).await?;
        Ok(())
    }

    /// UDP payload that the first sent to the second and the second to the first, and frames among it, bytes.
    pub(crate) async fn traffic(&self) -> Result<Traffic, Failure> {
        let stats = self.author.traffic().await?;
        let (_, stats) = stats.first().ok_or("the replicas are not connected")?;
        let classes = [stats.control, stats.live, stats.catch_up];
        let frames: u64 = classes.iter().map(|class| class.bytes_sent + class.bytes_received).sum();
        Ok(Traffic { frames, udp: stats.udp_bytes_sent + stats.udp_bytes_received })
    }

    pub(crate) async fn close(self) {
        self.author.shutdown().await;
        self.follower.shutdown().await;
    }
}

/// Bytes in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) frames: u64,
    pub(crate) udp: u64,
}

impl Traffic {
    pub(crate) fn since(self, before: Self) -> Self {
        Self { frames: self.frames - before.frames, udp: self.udp - before.udp }
    }
}

/// Has so many writers make changes one after the other, each once its last one is acknowledged. Returns how many a
/// second that came to, and how long each took.
pub(crate) async fn closed_loop<F, W>(
    writers: usize,
    time: Duration,
    writer: F,
) -> Result<(f64, Times), Failure>
where
    F: Fn(usize) -> W,
    W: AsyncWriter,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..writers {
        let mut writer = writer(number);
        tasks.spawn(async move {
            let mut times = Times::default();
            while begun.elapsed() < time {
                let before = Instant::now();
                writer.write().await.map_err(|failure| failure.to_string())?;
                times.push(before.elapsed());
            }
            Ok::<_, String>(times)
        });
    }
    let mut times = Times::default();
    while let Some(done) = tasks.join_next().await {
        times.append(done??);
    }
    Ok((times.len() as f64 / begun.elapsed().as_secs_f64(), times))
}

/// Somebody who writes durably, once each time.
pub(crate) trait AsyncWriter: Send + 'static {
    fn write(&mut self) -> impl Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send;
}

/// Writes changes of one kind to an object of its own.
pub(crate) struct ComityWriter {
    space: Space,
    change: Change,
    key: String,
    number: u64,
}

impl ComityWriter {
    /// A writer whose changes differ from those that it made in other repeats.
    pub(crate) fn new(space: &Space, change: Change, writer: usize, repeat: usize) -> Self {
        let key = format!("{}-{writer}", change.name);
        Self { space: space.clone(), change, key, number: (repeat as u64) << 32 }
    }
}

impl AsyncWriter for ComityWriter {
    async fn write(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.number += 1;
        (self.change.make)(&self.space, &self.key, self.number).await?;
        Ok(())
    }
}

/// How many changes may wait for their acknowledgement in [`pipelined`].
pub(crate) const IN_FLIGHT: usize = 1_024;

/// Makes so many changes over so many objects, many under way at once, until all are durable.
pub(crate) async fn pipelined(
    space: &Space,
    change: Change,
    (count, objects, first): (u64, u64, u64),
) -> Result<(), Failure> {
    let mut waiting = std::collections::VecDeque::with_capacity(IN_FLIGHT);
    for number in first..first + count {
        let key = format!("{}-{}", change.name, number % objects);
        waiting.push_back((change.make)(space, &key, number).submit().await?);
        if waiting.len() >= IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.receipt().await?;
        }
    }
    for pending in waiting {
        pending.receipt().await?;
    }
    Ok(())
}
