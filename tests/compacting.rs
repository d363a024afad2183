//! Compacting a replica while it is in use.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use comity::{CompactError, Value};

use regions::{Region, within};

const ELEMENTS: i64 = 3_000;

/// A region whose set held many elements and holds half of them.
async fn region_with_waste() -> Region {
    let region = Region::founder().await;
    for removes in [false, true] {
        let write = region.space.transact(move |tx| {
            let mut set = tx.set("test", "set");
            let range = if removes { 0..ELEMENTS / 2 } else { 0..ELEMENTS };
            for number in range {
                let element = Value::Text(format!("element {number:0200}"));
                if removes { set.remove(element)? } else { set.insert(element)? }
            }
            Ok(())
        });
        write.await.unwrap();
    }
    region
}

/// What the data file takes on the disk; its length, where that is not known.
fn disk_bytes(region: &Region) -> u64 {
    let file = region.directory.join("comity.redb").metadata().unwrap();
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    #[cfg(not(unix))]
    return file.len();
}

#[tokio::test(flavor = "multi_thread")]
async fn compacting_gives_space_back_while_views_and_writes_go_on() {
    // Closing writes to the data file what only the log held.
    let region = region_with_waste().await.reopen().await;
    let before = disk_bytes(&region);
    let view = region.space.view().unwrap();
    let (first, second) = (region.replica.clone(), region.replica.clone());
    let (first, second) = (
        tokio::spawn(async move { first.compact().await }),
        tokio::spawn(async move { second.compact().await }),
    );
    let mut writes = 0;
    while !(first.is_finished() && second.is_finished()) {
        region.space.counter("test", "counter").add(1).await.unwrap();
        writes += 1;
    }
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    for report in [&first, &second] {
        assert!(
            report.live_bytes < report.bytes_after && report.live_rows > ELEMENTS as u64 / 2,
            "{report:?}"
        );
    }
    assert!(writes > 0);
    // The view is from before, and reads the file that has no name any more.
    assert_eq!(view.counter("test", "counter").unwrap(), 0);
    assert_eq!(view.set("test", "set").len().unwrap(), ELEMENTS as u64 / 2);
    assert_eq!(region.space.counter("test", "counter").value().unwrap(), writes);
    assert!(!region.directory.join("comity.redb.new").exists());
    let after = disk_bytes(&region);
    assert!(after < before, "{after} bytes on the disk after {before}");
    let region = region.reopen().await;
    assert_eq!(region.space.counter("test", "counter").value().unwrap(), writes);
    assert_eq!(region.space.set("test", "set").elements().unwrap().len() as i64, ELEMENTS / 2);
    region.replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_a_compaction_and_leaves_no_copy() {
    let region = region_with_waste().await;
    let replica = region.replica.clone();
    let compacting = tokio::spawn(async move { replica.compact().await });
    within("shutting down", region.replica.clone().shutdown()).await;
    match within("the compaction", compacting).await.unwrap() {
        Ok(_) | Err(CompactError::Stopped) => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(region.replica.compact().await, Err(CompactError::Stopped));
    assert!(!region.directory.join("comity.redb.new").exists());
    let region = region.reopen().await;
    assert_eq!(region.space.set("test", "set").elements().unwrap().len() as i64, ELEMENTS / 2);
    region.replica.shutdown().await;
}
