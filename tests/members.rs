//! Members over real connections: removal cuts within a second, whoever is invited again goes on, followers refuse with
//! the leader's address, spaces are left and deleted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod regions;

use std::time::{Duration, Instant};

use comity::{CommandError, Durability, RequestError, Role, Standing, TransactError, TxError, WriteError};

use regions::{PATIENCE, Region, converge, eventually, pair};

async fn until_standing(region: &Region, standing: Standing) {
    eventually("the standing", async || region.status().await.standing == standing).await;
}

/// Why a write is refused.
async fn refused(region: &Region) -> TxError {
    match region.add_one().await {
        Err(WriteError::Refused(TransactError::Tx(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_cuts_within_a_second_and_who_is_invited_again_goes_on() {
    let (here, there) = pair().await;
    let third = Region::joining(&here).await;
    third.replica.connect(&there.ticket()).await.unwrap();
    third.wait_connected(&there).await;
    there.add_one().await.unwrap();
    converge(&[&here, &there, &third]).await;
    let removed = Instant::now();
    here.space.revoke(there.id()).await.unwrap();
    for remaining in [&here, &third] {
        eventually("the cut", async || !remaining.replica.connected().contains(&there.id())).await;
    }
    assert!(removed.elapsed() < Duration::from_secs(1), "{:?}", removed.elapsed());
    until_standing(&there, Standing::Removed).await;
    let error = refused(&there).await;
    assert!(matches!(error, TxError::NotWriter { standing: Standing::Removed, .. }), "{error}");
    here.add_one().await.unwrap();
    assert_eq!(there.count(), 1, "it keeps what it has and gets nothing more");
    let there = there.reopen().await;
    assert_eq!(there.status().await.standing, Standing::Removed);

    there.replica.connect(&here.space.invite().await.unwrap()).await.unwrap();
    until_standing(&there, Standing::Member(Role::Writer)).await;
    there.add_one().await.unwrap();
    converge(&[&here, &there, &third]).await;
    assert_eq!(third.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_learns_of_its_removal_when_it_comes_back() {
    let (here, there) = pair().await;
    there.replica.go_offline().await.unwrap();
    here.space.revoke(there.id()).await.unwrap();
    there.add_one().await.unwrap();
    there.replica.go_online();
    until_standing(&there, Standing::Removed).await;
    assert_eq!((here.count(), there.count()), (0, 1));
    here.space.grant(there.id(), Role::Writer).await.unwrap();
    converge(&[&here, &there]).await;
    assert_eq!(here.count(), 1, "what it wrote meanwhile is taken in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_serves_reads_and_refuses_writes_with_the_leader_s_address_until_it_is_promoted() {
    let leader = Region::founder().await;
    let follower = Region::joining_as(&leader, Role::Follower).await;
    let token = leader.add_one().await.unwrap().token();
    let view = follower.space.at_within(&token, PATIENCE).await.unwrap();
    assert_eq!(view.counter("test", "counter").unwrap(), 1);
    let TxError::NotWriter { standing, writer, address } = refused(&follower).await else { panic!() };
    assert_eq!((standing, writer), (Standing::Member(Role::Follower), Some(leader.id())));
    let listens = leader.ticket().addresses[0].to_string();
    assert_eq!(address, Some(listens));
    let write = leader.space.counter("test", "counter").add(1);
    let receipt = write.durability(Durability::Quorum).within(PATIENCE).await.unwrap();
    assert!(receipt.reached(), "a follower is in no quorum");
    leader.space.grant(follower.id(), Role::Writer).await.unwrap();
    until_standing(&follower, Standing::Member(Role::Writer)).await;
    follower.add_one().await.unwrap();
    converge(&[&leader, &follower]).await;
    assert_eq!(leader.count(), 3);
    leader.space.grant(follower.id(), Role::Follower).await.unwrap();
    until_standing(&follower, Standing::Member(Role::Follower)).await;
    refused(&follower).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_no_member_any_more_and_deletes_what_it_has() {
    let (here, there) = pair().await;
    there.add_one().await.unwrap();
    converge(&[&here, &there]).await;
    let last = here.space.leave().await.unwrap_err();
    let (space, replica) = (here.space.id(), here.id());
    assert_eq!(last, RequestError::Command(CommandError::LastAdmin { space, replica }));
    there.space.leave().await.unwrap();
    assert_eq!(there.space.standing().await.unwrap(), Standing::Left);
    eventually("the list", async || here.space.members().await.unwrap() == [(here.id(), Role::Admin)]).await;
    there.space.clone().delete().await.unwrap();
    let unknown = there.space.status().await.unwrap_err();
    assert_eq!(unknown, RequestError::Command(CommandError::UnknownSpace(space)));
    assert_eq!(there.replica.spaces().await.unwrap(), []);
    let ticket = here.space.invite().await.unwrap();
    // Until the last row is gone it cannot be joined again.
    eventually("the end of the deletion", async || there.replica.connect(&ticket).await.is_ok()).await;
    there.until_member().await;
    there.add_one().await.unwrap();
    converge(&[&here, &there]).await;
    assert_eq!(here.count(), 2);
}
