//! Counters incremented through `kill -9` at random moments of real processes end at exactly what was
//! acknowledged, plus whole change sets that were under way.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use comity::{OpenOptions, Replica, Role, View};

use regions::processes::{Process, end_with_parent, free_port, role, say};
use regions::{Draws, Region, converge, loopback, patient_open};

/// Writes a process has under way at once.
const IN_FLIGHT: usize = 4;
/// What a process lives between being ready and being killed, at most.
const LIFE_MS_MAX: u64 = 350;
/// What a process lives when it is killed while it opens its directory, at most.
const START_MS_MAX: u64 = 60;

#[test]
fn two_processes_count_exactly_through_sixty_kills() {
    Regions::found("pair", &["eu", "us"]).torment(60);
}

#[test]
fn three_processes_in_a_relay_count_exactly_through_thirty_kills() {
    Regions::found("relay", &["eu", "us", "ap"]).torment(30);
}

/// What a killed process runs; does nothing when the tests are run.
#[test]
fn writer_process() {
    let Some(role) = role() else { return };
    end_with_parent();
    let [name, directory, port, boot] = role.as_slice() else { unreachable!("the role of a writer") };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(write_until_killed(name, Path::new(directory), port.parse().unwrap(), boot));
}

async fn write_until_killed(name: &str, directory: &Path, port: u16, boot: &str) {
    let replica = Replica::open(directory).await.unwrap();
    replica.listen(loopback(port)).await.unwrap();
    let region = Region::of(directory, replica).await;
    let (sums, name) = (Sums::of(&region.space.view().unwrap(), name), name.to_owned());
    say(&format!("ready {} {} {}", sums.all, sums.own, sums.elements));
    let replica = region.replica.clone();
    tokio::spawn(async move {
        while replica.connected().is_empty() {
            tokio::task::yield_now().await;
        }
        say("connected");
    });
    let mut under_way = VecDeque::new();
    for number in 0_u64.. {
        let element = format!("{name}-{boot}-{number}");
        say(&format!("try {element}"));
        let (counter, inserted) = (name.clone(), element.clone());
        let write = region.space.transact(move |tx| {
            tx.counter("sums", "all").add(1)?;
            tx.set("writes", "all").insert(inserted)?;
            tx.counter("sums", &counter).add(1)
        });
        under_way.push_back((element, write.submit().await.unwrap()));
        if under_way.len() >= IN_FLIGHT {
            let (element, pending) = under_way.pop_front().unwrap();
            pending.receipt().await.unwrap();
            say(&format!("ack {element}"));
        }
    }
}

/// What a replica counts, at one moment.
#[derive(Debug)]
struct Sums {
    all: u64,
    own: u64,
    elements: u64,
}

impl Sums {
    fn of(view: &View, name: &str) -> Self {
        let counter = |key: &str| u64::try_from(view.counter("sums", key).unwrap()).unwrap();
        Self { all: counter("all"), own: counter(name), elements: view.set("writes", "all").len().unwrap() }
    }
}

/// One replica, and what its processes said.
struct Writer {
    name: &'static str,
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
    kills: u64,
    /// Processes that reached a peer before they were killed.
    connected: u64,
    /// Of each process, in order.
    tried: Vec<Vec<String>>,
    acked: BTreeSet<String>,
    /// Of all writers, when the last process was ready.
    seen: u64,
}

impl Writer {
    fn start(&mut self) {
        let (directory, port) = (self.directory.to_str().unwrap(), self.port.to_string());
        let boot = self.tried.len().to_string();
        self.tried.push(Vec::new());
        self.process = Some(Process::start("writer_process", &[self.name, directory, &port, &boot]));
    }

    fn await_ready(&mut self) {
        let process = self.process.take().unwrap();
        let line = process.hear().expect("a process whose predecessor was killed opens the directory");
        self.process = Some(process);
        self.take_in(&line);
    }

    /// Lets the process live until it has reached a peer.
    fn await_connected(&mut self) {
        let process = self.process.take().unwrap();
        let before = self.connected;
        while self.connected == before {
            let line = process.hear().expect("the process goes on until it is killed");
            self.take_in(&line);
        }
        self.process = Some(process);
    }

    fn kill(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.kills += 1;
        for line in process.kill() {
            self.take_in(&line);
        }
    }

    fn take_in(&mut self, line: &str) {
        match *line.split(' ').collect::<Vec<_>>() {
            ["try", element] => self.tried.last_mut().unwrap().push(element.to_owned()),
            ["ack", element] => assert!(self.acked.insert(element.to_owned()), "{element} twice"),
            ["connected"] => self.connected += 1,
            ["ready", all, own, elements] => {
                let [all, own, elements] = [all, own, elements].map(|sum| sum.parse::<u64>().unwrap());
                self.check_recovered(&Sums { all, own, elements });
            }
            _ => panic!("{} says {line:?}", self.name),
        }
    }

    /// What a process finds in the directory of one that was killed.
    fn check_recovered(&mut self, sums: &Sums) {
        assert_eq!(sums.all, sums.elements, "{}: a change set is there in part", self.name);
        self.check_own(sums);
        assert!(sums.all >= self.seen, "{}: {} were durable, now {sums:?}", self.name, self.seen);
        self.seen = sums.all;
    }

    fn check_own(&self, sums: &Sums) {
        let tried = self.tried.iter().map(Vec::len).sum::<usize>() as u64;
        let acked = self.acked.len() as u64;
        assert!((acked..=tried).contains(&sums.own), "{}: {acked} acked, {tried} tried, {sums:?}", self.name);
    }

    /// Of every process's writes, a prefix is there, and in it everything that was acknowledged.
    fn check_elements(&self, view: &View) {
        let mut present = 0;
        for tried in &self.tried {
            let is_there = |element: &String| view.set("writes", "all").contains(element.as_str()).unwrap();
            let there = tried.iter().take_while(|element| is_there(element)).count();
            let (kept, lost) = tried.split_at(there);
            assert!(!lost.iter().any(is_there), "{}: a write is there without its predecessor", self.name);
            assert!(
                !lost.iter().any(|element| self.acked.contains(element)),
                "an acknowledged write is lost"
            );
            present += kept.len() as u64;
        }
        assert_eq!(Sums::of(view, self.name).own, present, "{}: the counter is not its set", self.name);
    }
}

/// Replicas in a row, each linked to its neighbours.
struct Regions {
    writers: Vec<Writer>,
    draws: Draws,
    _directory: tempfile::TempDir,
}

impl Regions {
    fn found(what: &str, names: &[&'static str]) -> Self {
        let seed = std::env::var("COMITY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("{what}: COMITY_TEST_SEED={seed}");
        let mut draws = Draws(seed + names.len() as u64);
        let directory = tempfile::tempdir().unwrap();
        let writer = |name: &&'static str| Writer {
            name,
            directory: directory.path().join(name),
            port: free_port(&mut draws),
            process: None,
            kills: 0,
            connected: 0,
            tried: Vec::new(),
            acked: BTreeSet::new(),
            seen: 0,
        };
        let writers: Vec<Writer> = names.iter().map(writer).collect();
        let regions = Self { writers, draws, _directory: directory };
        tokio::runtime::Runtime::new().unwrap().block_on(regions.introduce());
        regions
    }

    async fn open(&self) -> Vec<Replica> {
        let mut replicas = Vec::new();
        for writer in &self.writers {
            let replica = patient_open(&writer.directory, OpenOptions::default()).await;
            replica.listen(loopback(writer.port)).await.unwrap();
            replicas.push(replica);
        }
        replicas
    }

    /// Makes the replicas members of one space, each of which remembers its neighbours.
    async fn introduce(&self) {
        let replicas = self.open().await;
        replicas[0].create_space("sums").await.unwrap();
        let mut before: Option<Region> = None;
        for (writer, replica) in self.writers.iter().zip(replicas) {
            if let Some(before) = &before {
                let ticket = before.space.invite_as(Role::Admin).await.unwrap();
                replica.connect(&ticket).await.unwrap();
            }
            let region = Region::of(&writer.directory, replica).await;
            region.until_member().await;
            if let Some(before) = before {
                before.replica.connect(&region.ticket()).await.unwrap();
                before.replica.shutdown().await;
            }
            before = Some(region);
        }
        before.unwrap().replica.shutdown().await;
    }

    /// Kills processes at random moments, also while they recover, and sometimes all at once.
    fn torment(mut self, kills: u64) {
        let started = Instant::now();
        self.writers.iter_mut().for_each(Writer::start);
        self.writers.iter_mut().for_each(Writer::await_ready);
        while self.writers.iter().map(|writer| writer.kills).sum::<u64>() < kills {
            let everybody = self.draws.below(6) == 0;
            let while_opening = self.draws.below(5) == 0;
            let victim = self.draws.below(self.writers.len() as u64) as usize;
            let life_ms = self.draws.below(if while_opening { START_MS_MAX } else { LIFE_MS_MAX });
            let victims = if everybody { 0..self.writers.len() } else { victim..victim + 1 };
            if while_opening {
                self.writers[victims.clone()].iter_mut().for_each(Writer::kill);
                self.writers[victims.clone()].iter_mut().for_each(Writer::start);
            }
            // The random moment itself; nothing waits for anything here.
            std::thread::sleep(Duration::from_millis(life_ms));
            self.writers[victims.clone()].iter_mut().for_each(Writer::kill);
            self.writers[victims.clone()].iter_mut().for_each(Writer::start);
            self.writers[victims].iter_mut().for_each(Writer::await_ready);
        }
        self.writers.iter_mut().for_each(Writer::await_connected);
        self.writers.iter_mut().for_each(Writer::kill);
        let tormented = started.elapsed();
        tokio::runtime::Runtime::new().unwrap().block_on(self.check());
        for writer in &self.writers {
            let Writer { name, kills, connected, tried, acked, seen, .. } = writer;
            let tried: usize = tried.iter().map(Vec::len).sum();
            let acked = acked.len();
            println!("{name}: {kills} kills, {connected} connected, {acked} acked of {tried}, saw {seen}");
        }
        println!("killed for {tormented:.1?}, all checked after {:.1?}", started.elapsed());
    }

    async fn check(&self) {
        let mut regions = Vec::new();
        for (writer, replica) in self.writers.iter().zip(self.open().await) {
            regions.push(Region::of(&writer.directory, replica).await);
        }
        converge(&regions.iter().collect::<Vec<_>>()).await;
        for region in &regions {
            let view = region.space.view().unwrap();
            let mut own = 0;
            for writer in &self.writers {
                let sums = Sums::of(&view, writer.name);
                writer.check_own(&sums);
                writer.check_elements(&view);
                assert_eq!(sums.all, sums.elements, "every change set counts once and as a whole");
                own += sums.own;
            }
            assert_eq!(Sums::of(&view, "all").all, own, "the sum is that of all writers");
            let lanes = region.status().await.lanes.len();
            assert_eq!(lanes, self.writers.len(), "every replica kept its lane through all kills");
        }
        for writer in &self.writers {
            assert!(writer.connected > 0, "{} was never connected while it wrote", writer.name);
            assert!(!writer.acked.is_empty(), "{} wrote nothing", writer.name);
        }
        for region in regions {
            region.replica.shutdown().await;
        }
    }
}
