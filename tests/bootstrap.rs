//! A replica takes over the state of another one over real sockets, while that goes on writing and both are killed on the
//! way, and keeps what it wrote itself before anybody knew of it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::path::Path;
use std::time::{Duration, Instant};

use comity::{BootstrapPhase, OpenOptions, Replica, Retention, Space, SpaceStatus, StoreError, Value};

use regions::processes::{Process, end_with_parent, free_port, role, say};
use regions::{Draws, loopback, patient_open};

/// Objects of the space, of some hundred bytes each.
const OBJECTS: u64 = 30_000;
const OBJECTS_AT_ONCE: u64 = 2_000;
/// What the receiver writes before it has met anybody.
const WRITTEN_OFFLINE: u64 = 40;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nothing is kept longer than it must be.
fn options() -> OpenOptions {
    let announce_after = Duration::from_millis(50);
    OpenOptions::default().retention(Retention { age: Duration::ZERO, bytes_max: u64::MAX, announce_after })
}

async fn the_space(replica: &Replica) -> Space {
    let (id, _) = replica.spaces().await.unwrap().pop().unwrap();
    replica.space(id).await.unwrap()
}

async fn status(replica: &Replica) -> SpaceStatus {
    replica.status().await.unwrap().spaces.pop().unwrap()
}

fn value(number: u64) -> String {
    let hash = (0..8).map(|part| format!("{:016x}", (number * 8 + part).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    hash.collect()
}

/// Makes a space whose log is gone, and a replica that was invited to it and has written on its own.
async fn prepare(source_dir: &Path, receiver_dir: &Path, port: u16) {
    let source = Replica::open_with(source_dir, options()).await.unwrap();
    source.listen(loopback(port)).await.unwrap();
    let space = source.create_space("large").await.unwrap();
    for first in (0..OBJECTS).step_by(OBJECTS_AT_ONCE as usize) {
        let write = space.transact(move |tx| {
            (first..first + OBJECTS_AT_ONCE)
                .try_for_each(|number| tx.register("large", &format!("{number:06}")).write(value(number)))
        });
        write.await.unwrap();
    }
    let begun = Instant::now();
    while status(&source).await.lanes[0].floor < OBJECTS / OBJECTS_AT_ONCE {
        assert!(begun.elapsed() < PATIENCE, "{:?}", status(&source).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ticket = space.invite().await.unwrap();
    source.shutdown().await;
    let receiver = Replica::open_with(receiver_dir, options()).await.unwrap();
    let space = receiver.connect(&ticket).await.unwrap();
    for number in 0..WRITTEN_OFFLINE {
        space.transact(move |tx| tx.set("own", "offline").insert(number as i64)).await.unwrap();
    }
    receiver.shutdown().await;
}

/// What a source runs until it is killed; does nothing when the tests are run.
#[test]
fn source_process() {
    let Some(role) = role() else { return };
    end_with_parent();
    let [directory, port] = role.as_slice() else { unreachable!("the role of a source") };
    let (directory, port) = (directory.clone(), port.parse().unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async move {
        let replica = patient_open(Path::new(&directory), options()).await;
        replica.listen(loopback(port)).await.unwrap();
        let space = the_space(&replica).await;
        say("ready");
        loop {
            space.transact(|tx| tx.counter("stats", "written").add(1)).await.unwrap();
            say("ack");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// What a receiver runs until it is killed; does nothing when the tests are run.
#[test]
fn receiver_process() {
    let Some(role) = role() else { return };
    end_with_parent();
    let [directory] = role.as_slice() else { unreachable!("the role of a receiver") };
    let directory = directory.clone();
    tokio::runtime::Runtime::new().unwrap().block_on(async move {
        let replica = patient_open(Path::new(&directory), options()).await;
        let space = the_space(&replica).await;
        say("ready");
        loop {
            let status = status(&replica).await;
            match (&status.bootstrap, space.view()) {
                (_, Err(StoreError::Installing(_))) => say("installing"),
                (Some(bootstrap), _) if bootstrap.phase != BootstrapPhase::Waiting => {
                    say(&format!("rows {}", bootstrap.rows));
                }
                (_, Ok(view)) if view.counter("stats", "written").unwrap() > 0 => say("whole"),
                (_, view) => drop(view.unwrap()),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// Hears a process until it says something that is wanted. Returns how many writes it acknowledged on the way.
fn hear_until(process: &Process, mut is_wanted: impl FnMut(&str) -> bool) -> u64 {
    let mut acked = 0;
    loop {
        let line = process.hear().expect("the process goes on until it is killed");
        acked += u64::from(line == "ack");
        if is_wanted(&line) {
            return acked;
        }
    }
}

fn rows_of(line: &str) -> u64 {
    line.strip_prefix("rows ").and_then(|rows| rows.parse().ok()).unwrap_or(0)
}

#[test]
fn a_state_is_taken_over_through_kills_of_both_while_its_source_writes() {
    let seed = u64::from(std::process::id());
    let directory = tempfile::tempdir().unwrap();
    let (source_dir, receiver_dir) = (directory.path().join("source"), directory.path().join("receiver"));
    let port = free_port(&mut Draws(seed));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(prepare(&source_dir, &receiver_dir, port));
    let start_source =
        || Process::start("source_process", &[source_dir.to_str().unwrap(), &port.to_string()]);
    let start_receiver = || Process::start("receiver_process", &[receiver_dir.to_str().unwrap()]);
    let acks = |lines: Vec<String>| lines.iter().filter(|line| *line == "ack").count() as u64;
    let mut acked = 0;

    let (mut source, mut receiver) = (start_source(), start_receiver());
    // The receiver is killed, then the source, each once a part more is there; then the receiver while it installs.
    hear_until(&receiver, |line| rows_of(line) > OBJECTS / 10);
    receiver.kill();
    receiver = start_receiver();
    hear_until(&receiver, |line| rows_of(line) > OBJECTS / 4);
    acked += acks(source.kill());
    source = start_source();
    hear_until(&receiver, |line| line == "installing");
    receiver.kill();
    receiver = start_receiver();
    hear_until(&receiver, |line| line == "whole");
    receiver.kill();
    acked += acks(source.kill());
    assert!(acked > 0, "the source wrote nothing meanwhile");

    runtime.block_on(async {
        let source = patient_open(&source_dir, options()).await;
        source.listen(loopback(port)).await.unwrap();
        let receiver = patient_open(&receiver_dir, options()).await;
        let begun = Instant::now();
        loop {
            let (ours, theirs) = (status(&receiver).await, status(&source).await);
            if ours.frontier == theirs.frontier && ours.durable == theirs.durable && ours.bootstrap.is_none()
            {
                assert_eq!(ours.digest, theirs.digest);
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{ours:?} {theirs:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for replica in [&source, &receiver] {
            let view = the_space(replica).await.view().unwrap();
            let written = view.counter("stats", "written").unwrap();
            assert!(written >= i128::from(acked), "{written} of {acked} acknowledged");
            assert_eq!(view.set("own", "offline").len().unwrap(), WRITTEN_OFFLINE);
            for number in (0..OBJECTS).step_by(997) {
                let register = view.register("large", &format!("{number:06}")).unwrap();
                assert_eq!(register.value().unwrap(), Some(Value::from(value(number))));
            }
        }
        source.shutdown().await;
        receiver.shutdown().await;
    });
}
