//! Data directories: one replica at a time, and what becomes of copies and restored backups.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use comity::{DirectoryError, Durability, LaneId, ObjType, OpenError, OpenOptions, ROOT, ReadDoc, Replica};
use comity::{Transactable, Value};

use regions::processes::{Process, end_with_parent, role, say};
use regions::{PATIENCE, Region, converge, copy, copy_but, loopback, open, pair, patient_open, until};

/// The process that has a directory which cannot be opened for that reason.
fn holder(result: Result<Replica, OpenError>) -> Option<u32> {
    match result {
        Err(OpenError::Directory(DirectoryError::Locked { pid, .. })) => pid,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("the directory was opened twice"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_open_once_in_a_process() {
    let region = Region::founder().await;
    let error = Replica::open(&region.directory).await.map(|_| ()).unwrap_err().to_string();
    let (directory, process) = (region.directory.display().to_string(), std::process::id());
    assert_eq!(error, format!("{directory} is in use by process {process}"));
    assert_eq!(holder(Replica::open(&region.directory).await), Some(process));
    region.add_one().await.unwrap();
    region.replica.clone().shutdown().await;
    let region = region.reopen().await;
    assert_eq!(region.count(), 1);
}

/// What the other process runs; does nothing when the tests are run.
#[test]
fn opening_process() {
    let Some(role) = role() else { return };
    end_with_parent();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        match Replica::open(&role[0]).await {
            Ok(_replica) => {
                say("opened");
                std::future::pending::<()>().await;
            }
            Err(error) => say(&error.to_string()),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_open_in_one_process_at_a_time() {
    let region = Region::founder().await;
    let directory = region.directory.to_str().unwrap().to_owned();
    let (start, here) = (|| Process::start("opening_process", &[&directory]), std::process::id());
    assert_eq!(start().hear(), Some(format!("{directory} is in use by process {here}")));
    region.add_one().await.unwrap();
    region.replica.clone().shutdown().await;
    let process = start();
    assert_eq!(process.hear().as_deref(), Some("opened"));
    assert_eq!(holder(Replica::open(&directory).await), Some(process.id()));
    process.kill();
    // The system lets go of a dead process's locks.
    assert_eq!(region.reopen().await.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_whose_data_is_gone_is_not_made_anew() {
    let region = Region::founder().await;
    region.replica.clone().shutdown().await;
    fs::remove_file(region.directory.join("comity.redb")).unwrap();
    let refused = Replica::open(&region.directory).await.map(|_| ());
    assert!(matches!(refused, Err(OpenError::Directory(DirectoryError::DataMissing { .. }))), "{refused:?}");
    let refused = Replica::open(region.directory.join("comity.instance")).await.map(|_| ());
    assert!(
        matches!(refused, Err(OpenError::Directory(DirectoryError::NotADirectory { .. }))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_after_a_shutdown_shows_everything_and_keeps_the_lane() {
    let mut region = Region::founder().await;
    let mut lane = None;
    for round in 1..=4_i64 {
        let space = region.space.clone();
        space.counter("stats", "likes").add(round).await.unwrap();
        space.set("tags", "all").insert(round).await.unwrap();
        space.register("profile", "name").write(format!("name {round}")).await.unwrap();
        space.document("notes", "today").edit(move |doc| Ok(doc.put(ROOT, "round", round)?)).await.unwrap();
        let before = region.status().await;
        region.replica.clone().shutdown().await;
        region = region.reopen().await;
        let after = region.status().await;
        assert_eq!((before.frontier, before.digest), (after.frontier, after.digest));
        assert_eq!((before.name, before.members), (after.name, after.members));
        let space = &region.space;
        assert_eq!(space.counter("stats", "likes").value().unwrap(), i128::from(round * (round + 1) / 2));
        assert_eq!(space.set("tags", "all").elements().unwrap().len() as i64, round);
        assert_eq!(
            space.register("profile", "name").read().unwrap().latest(),
            Some(format!("name {round}").into())
        );
        let document = space.document("notes", "today").read().unwrap();
        assert_eq!(document.automerge().get(ROOT, "round").unwrap().unwrap().0.as_i64(), Some(round));
        let lanes = lanes_of(&region).await;
        assert_eq!(lanes.len(), 1);
        assert_eq!(*lane.get_or_insert(lanes[0]), lanes[0], "a reopened replica goes on in its lane");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_replica_has_kept_what_it_acknowledged() {
    let mut region = Region::founder().await;
    for round in 1..=5 {
        for _ in 0..20 {
            region.add_one().await.unwrap();
        }
        // Under way when the replica is dropped: there as a whole, or not at all.
        let write = region.space.transact(move |tx| {
            tx.set("late", "one").insert(round)?;
            tx.set("late", "other").insert(round)
        });
        let _unawaited = write.submit().await.unwrap();
        region = region.reopen().await;
        assert_eq!(region.count(), i128::from(round * 20));
        let late = |key: &str| region.space.set("late", key).elements().unwrap();
        assert_eq!(late("one"), late("other"));
        assert_eq!(lanes_of(&region).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn remembered_peers_are_dialed_again_after_a_restart() {
    let (founder, joiner) = pair().await;
    joiner.replica.clone().shutdown().await;
    founder.add_one().await.unwrap();
    let joiner = joiner.reopen().await;
    joiner.wait_connected(&founder).await;
    converge(&[&founder, &joiner]).await;
    assert_eq!(joiner.count(), 1);
}

/// The lanes a region has written to, its present one first.
async fn lanes_of(region: &Region) -> Vec<LaneId> {
    let mut lanes = region.status().await.lanes;
    lanes.retain(|lane| lane.owner == region.id());
    lanes.sort_by_key(|lane| !lane.is_own);
    lanes.iter().map(|lane| lane.lane).collect()
}

/// Inserts numbers into the set that says which writes are there.
async fn write(region: &Region, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let write = region.space.transact(move |tx| {
            tx.counter("test", "counter").add(1)?;
            tx.set("test", "numbers").insert(number)
        });
        write.await.unwrap();
    }
}

fn assert_holds(region: &Region, numbers: std::ops::Range<i64>) {
    let held: BTreeSet<Value> = region.space.set("test", "numbers").elements().unwrap().into_iter().collect();
    assert_eq!(region.count(), i128::from(numbers.end - numbers.start));
    assert_eq!(held, numbers.map(Value::from).collect());
}

/// A founder that remembers a third replica's address, both holding the numbers below 10; the founder is shut
/// down.
async fn founder_and_third() -> (Region, Region) {
    let (founder, third) = pair().await;
    founder.replica.connect(&third.ticket()).await.unwrap();
    write(&founder, 0..10).await;
    converge(&[&founder, &third]).await;
    founder.replica.clone().shutdown().await;
    (founder, third)
}

async fn open_offline(directory: &Path) -> Region {
    let mut options = OpenOptions::default();
    options.stay_offline = true;
    let replica = patient_open(directory, options).await;
    replica.listen(loopback(0)).await.unwrap();
    replica.go_offline().await.unwrap();
    Region::of(directory, replica).await
}

/// Connects a region to the third one, and nobody else with the same key, until both hold the same.
async fn visit(region: &Region, third: &Region) {
    region.replica.go_online();
    region.replica.connect(&third.ticket()).await.unwrap();
    region.wait_connected(third).await;
    converge(&[region, third]).await;
    region.replica.go_offline().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_beside_its_original_writes_a_lane_of_its_own_and_nothing_is_lost() {
    let (founder, third) = founder_and_third().await;
    let beside = founder.directory.with_extension("copy");
    copy(&founder.directory, &beside);
    let original = open_offline(&founder.directory).await;
    let copied = open_offline(&beside).await;
    assert_eq!(original.id(), copied.id(), "a copy has the same key");
    let lane = lanes_of(&original).await[0];
    write(&original, 10..20).await;
    write(&copied, 20..30).await;
    assert_eq!(lanes_of(&original).await, [lane]);
    assert_ne!(lanes_of(&copied).await[0], lane, "a copy starts a lane of its own");
    visit(&original, &third).await;
    visit(&copied, &third).await;
    write(&copied, 30..35).await;
    write(&original, 35..40).await;
    visit(&copied, &third).await;
    visit(&original, &third).await;
    visit(&copied, &third).await;
    regions::same_state(&[&original, &copied, &third]).await;
    for region in [&original, &copied, &third] {
        assert_holds(region, 0..40);
    }
    assert_eq!(lanes_of(&original).await.len(), 2);
}

/// How a backup comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Restored {
    /// Its directory takes the place of the other.
    Directory,
    /// Its files are written over the others.
    Files,
}

async fn a_backup_put_back_starts_a_lane_and_gets_the_rest_from_peers(how: Restored) {
    let (founder, third) = founder_and_third().await;
    let backup: PathBuf = founder.directory.with_extension("backup");
    copy(&founder.directory, &backup);
    let region = open(&founder.directory).await;
    let region = Region::of(&founder.directory, region).await;
    let lane = lanes_of(&region).await[0];
    write(&region, 10..20).await;
    converge(&[&region, &third]).await;
    region.replica.shutdown().await;
    match how {
        Restored::Directory => {
            fs::remove_dir_all(&founder.directory).unwrap();
            fs::rename(&backup, &founder.directory).unwrap();
        }
        Restored::Files => copy(&backup, &founder.directory),
    }
    let restored = open_offline(&founder.directory).await;
    drop((region.space, founder.space));
    assert_holds(&restored, 0..10);
    write(&restored, 20..25).await;
    assert_ne!(
        lanes_of(&restored).await[0],
        lane,
        "{how:?}: what the old lane goes on with is not known here"
    );
    visit(&restored, &third).await;
    write(&restored, 25..30).await;
    visit(&restored, &third).await;
    for region in [&restored, &third] {
        assert_holds(region, 0..30);
        assert_eq!(lanes_of(&restored).await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_the_place_of_its_original_loses_nothing() {
    a_backup_put_back_starts_a_lane_and_gets_the_rest_from_peers(Restored::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_written_over_its_original_loses_nothing() {
    a_backup_put_back_starts_a_lane_and_gets_the_rest_from_peers(Restored::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_rolled_back_unseen_is_noticed_by_what_peers_hold() {
    let (founder, third) = founder_and_third().await;
    let backup = founder.directory.with_extension("backup");
    copy(&founder.directory, &backup);
    let region = Region::of(&founder.directory, open(&founder.directory).await).await;
    let lane = lanes_of(&region).await[0];
    write(&region, 10..20).await;
    converge(&[&region, &third]).await;
    region.replica.shutdown().await;
    // The marker stays, so nothing here tells that the rest is older.
    copy_but(&backup, &founder.directory, "comity.instance");
    let region = open_offline(&founder.directory).await;
    assert_holds(&region, 0..10);
    visit(&region, &third).await;
    write(&region, 20..25).await;
    visit(&region, &third).await;
    assert_ne!(lanes_of(&region).await[0], lane);
    for region in [&region, &third] {
        assert_holds(region, 0..25);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_database_is_brought_up_to_date_by_the_log() {
    let (founder, _third) = founder_and_third().await;
    let data = founder.directory.join("comity.redb");
    let old = fs::read(&data).unwrap();
    let region = Region::of(&founder.directory, open(&founder.directory).await).await;
    write(&region, 10..20).await;
    let before = region.status().await;
    region.replica.shutdown().await;
    fs::write(&data, old).unwrap();
    let region = open_offline(&founder.directory).await;
    assert_holds(&region, 0..20);
    let after = region.status().await;
    assert_eq!((before.frontier, before.digest), (after.frontier, after.digest));
    assert_eq!(lanes_of(&region).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_moved_goes_on_in_its_lane() {
    let (founder, third) = founder_and_third().await;
    let elsewhere = founder.directory.with_extension("moved");
    fs::rename(&founder.directory, &elsewhere).unwrap();
    let moved = Region::of(&elsewhere, open(&elsewhere).await).await;
    write(&moved, 10..12).await;
    let receipt = moved.space.counter("test", "counter").add(0).durability(Durability::Remote(1));
    assert!(receipt.within(PATIENCE).await.unwrap().reached());
    until(&third.space, async |_| third.count() == 12).await;
    assert_holds(&third, 0..12);
    assert_eq!(lanes_of(&moved).await.len(), 1, "a rename is no copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_edited_by_a_copy_and_its_original_holds_both_edits() {
    let (founder, third) = founder_and_third().await;
    let beside = founder.directory.with_extension("copy");
    copy(&founder.directory, &beside);
    let original = open_offline(&founder.directory).await;
    let copied = open_offline(&beside).await;
    for (region, key) in [(&original, "original"), (&copied, "copied")] {
        let edited = region.space.document("notes", "today").edit(move |doc| {
            let list = doc.put_object(ROOT, key, ObjType::List)?;
            Ok(doc.insert(&list, 0, key)?)
        });
        edited.await.unwrap();
        visit(region, &third).await;
    }
    visit(&original, &third).await;
    for region in [&original, &copied, &third] {
        let document = region.space.document("notes", "today").read().unwrap();
        let keys: Vec<String> = document.automerge().keys(ROOT).collect();
        assert_eq!(keys, ["copied", "original"]);
    }
}
