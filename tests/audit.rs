//! Over real sockets and stores: a byte of a row that changed on the disk is found, named and put right while everybody
//! goes on writing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod regions;

use std::path::Path;
use std::time::Duration;

use comity::{AuditEvent, AuditLimits, Kind, ObjectAddress, OpenOptions, Value};
use comity_engine::{Batch, StateRead, Store};
use comity_store::{EmbeddedStore, StoreOptions};

use regions::{converge, pair, patient_open, within};

/// Changes the last byte of the first row of an object that holds some bytes.
fn spoil(directory: &Path, needle: &[u8]) {
    let opened = EmbeddedStore::open(directory, StoreOptions::default()).unwrap();
    let (mut store, mut syncer) = (opened.store, opened.syncer);
    let rows = store.scan(&[0x30], &[0x36], usize::MAX).unwrap();
    let holds = |value: &[u8]| value.windows(needle.len()).position(|part| part == needle);
    let (key, mut value, at) =
        rows.into_iter().find_map(|(key, value)| holds(&value).map(|at| (key, value.clone(), at))).unwrap();
    value[at + needle.len() - 1] ^= 1;
    store.commit(Batch { state: vec![(key, Some(value))], ..Batch::default() }).unwrap();
    syncer.sync().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_changed_on_the_disk_is_found_named_and_put_right() {
    let (here, there) = pair().await;
    here.space.register("profile", "city").write("Berlin").await.unwrap();
    converge(&[&here, &there]).await;
    there.replica.shutdown().await;
    spoil(&there.directory, b"Berlin");
    let often = AuditLimits { every: Some(Duration::from_millis(100)), pause: Duration::from_millis(10) };
    let replica = patient_open(&there.directory, OpenOptions::default().audit(often)).await;
    let spaces = replica.spaces().await.unwrap();
    let space = replica.space(spaces[0].0).await.unwrap();
    let mut events = space.audit_events();
    replica.wait_connected(here.id(), regions::PATIENCE).await.unwrap();
    let city = ObjectAddress::new(Kind::Register, "profile", "city").unwrap();
    let mut named = false;
    let (was, is) = within("the repair", async {
        loop {
            for writer in [&here.space, &space] {
                writer.counter("test", "counter").add(1).await.unwrap();
            }
            let Ok(event) = tokio::time::timeout(Duration::from_millis(20), events.next()).await else {
                continue;
            };
            match event.unwrap() {
                AuditEvent::Diverged { object, peer, .. } => {
                    assert_eq!((object, peer), (city.clone(), here.id()));
                    named = true;
                }
                AuditEvent::Repaired { object, was, is, .. } => {
                    assert_eq!(object, city);
                    break (was, is);
                }
                event => panic!("{event:?}"),
            }
        }
    })
    .await;
    assert!(named && was != is);
    assert_eq!(space.register("profile", "city").value().unwrap(), Some(Value::from("Berlin")));
    let view = space.view().unwrap();
    let repairs = view.repairs().unwrap();
    assert_eq!((repairs.len(), &repairs[0].object, repairs[0].was), (1, &city, was));
    let audit = space.status().await.unwrap().audit;
    assert_eq!((audit.repaired, audit.unresolved), (1, 0), "{audit:?}");
    assert!(audit.inspected > 0 && audit.compared > 0, "{audit:?}");
}
