//! Protocol versions over real connections: an old build and a new one, and two that share no version.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use comity::{OpenOptions, VersionRange};

use regions::{Region, converge, eventually, loopback, patient_open};

const OLD: VersionRange = VersionRange { min: 4, max: 4 };
const NEW: VersionRange = VersionRange { min: 5, max: 5 };

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_no_version_is_told_at_both_ends_tries_again_and_goes_on_after_an_upgrade() {
    let directory = tempfile::tempdir().unwrap();
    let old = patient_open(&directory.path().join("old"), OpenOptions::default().versions(OLD)).await;
    old.listen(loopback(0)).await.unwrap();
    old.create_space("test").await.unwrap();
    let old = Region::of(&directory.path().join("old"), old).await;
    let other = Region::joining(&old).await;
    other.add_one().await.unwrap();
    converge(&[&old, &other]).await;
    let version = old.replica.status().await.unwrap().sessions[0].version;
    assert_eq!(version, 4, "the newer one speaks as the older one does");

    let other = other.reopen_with(OpenOptions::default().versions(NEW)).await;
    for (region, peer, ours, theirs) in [(&old, other.id(), OLD, NEW), (&other, old.id(), NEW, OLD)] {
        eventually("it says with whom it shares no version", async || {
            let refused = region.replica.status().await.unwrap().refused;
            refused.iter().any(|refusal| (refusal.peer, refusal.ours, refusal.theirs) == (peer, ours, theirs))
        })
        .await;
    }
    old.add_one().await.unwrap();
    other.add_one().await.unwrap();
    assert_eq!((old.count(), other.count()), (2, 2), "each goes on by itself");

    let other = other.reopen_with(OpenOptions::default()).await;
    converge(&[&old, &other]).await;
    assert_eq!((old.count(), other.count()), (3, 3));
    for region in [&old, &other] {
        assert_eq!(region.replica.status().await.unwrap().refused, []);
    }
}
