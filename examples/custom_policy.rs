//! A policy of the application's own: of bids made at the same time, the highest counts. Where it is not known,
//! the bids are shown side by side. Two replicas in one process, real QUIC on loopback. It ends with an error when
//! anything it prints is not so.

use std::cmp::Reverse;
use std::{sync::Arc, time::Duration};

use comity::{ConflictPolicy, ContentError, CustomPolicy, Dot, OpenOptions, Policy, Sibling, Value};
use comity::{Replica, Space, check_policy};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Bid {
    bidder: String,
    cents: i64,
}

/// The highest bid; of equal ones the first.
struct HighestBid;

impl ConflictPolicy for HighestBid {
    fn name(&self) -> &str {
        "highest-bid"
    }

    fn version(&self) -> u32 {
        1
    }

    fn resolve(&self, siblings: &[(Dot, Sibling)]) -> Option<Value> {
        let rank = |(dot, sibling): &(Dot, Sibling)| {
            Some((sibling.value.to_typed::<Bid>().ok()?.cents, Reverse((sibling.hlc, *dot))))
        };
        // What is no bid cannot be compared, and is for a person to look at.
        let ranks = siblings.iter().map(rank).collect::<Option<Vec<_>>>()?;
        let highest = ranks.iter().zip(siblings).max_by_key(|(rank, _)| **rank);
        highest.map(|(_, (_, sibling))| sibling.value.clone())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let ada = Bid { bidder: "Ada".to_owned(), cents: 12_000 };
    let bob = Bid { bidder: "Bob".to_owned(), cents: 9_900 };
    let bids = vec![Value::from_serialize(&ada)?, Value::from_serialize(&bob)?];
    check_policy(&HighestBid, &[bids, vec![1.into(), "no bid".into()]])?;

    let directory = tempfile::tempdir()?;
    let options = OpenOptions::default().policy(Arc::new(HighestBid));
    let replica = Replica::open_with(directory.path().join("eu"), options).await?;
    replica.listen("127.0.0.1:0".parse()?).await?;
    let eu = replica.create_space("auction").await?;
    let away = Replica::open(directory.path().join("us")).await?;
    let us = away.connect(&eu.invite().await?).await?;
    eu.set_policy("bids", Policy::Custom(CustomPolicy::new("highest-bid", 1)?)).await?;
    meet(&eu, &us).await?;
    away.go_offline().await?;
    let (at_eu, at_us) = (eu.register("bids", "lot 7").typed(), us.register("bids", "lot 7").typed());
    at_eu.write(&ada).await?;
    at_us.write(&bob).await?;
    away.go_online();
    meet(&eu, &us).await?;

    println!("Two bids were made at the same time.");
    let shown = at_eu.read()?;
    println!("   eu knows the policy, and shows {shown:?}");
    claim(shown == Some(ada.clone()) && eu.conflicts(None, 10)?.is_empty(), "the policy decides at eu")?;
    match at_us.read() {
        Err(error @ ContentError::Undecided { .. }) => println!("   us does not: {error}"),
        other => return Err(format!("this is not so: us cannot decide, and shows {other:?}").into()),
    }

    let (inbox, siblings) = (us.conflicts(None, 10)?, at_us.siblings()?);
    claim(inbox.len() == 1 && siblings.len() == 2, "the two bids are in the inbox at us")?;
    let (highest, _) = siblings.iter().find(|(_, bid)| *bid == ada).ok_or("Ada's bid is not there")?;
    us.resolve(&inbox[0], *highest).await?;
    meet(&eu, &us).await?;
    println!("Somebody at us keeps the highest bid, which both show now.");
    claim(at_eu.read()? == Some(ada.clone()) && at_us.read()? == Some(ada), "it is decided everywhere")?;
    claim(us.conflicts(None, 10)?.is_empty(), "the inbox is empty")?;
    replica.shutdown().await;
    away.shutdown().await;
    Ok(())
}

/// Waits until each has what the other has now.
async fn meet(one: &Space, other: &Space) -> Result<(), Failure> {
    other.at_within(&one.token().await?, PATIENCE).await?;
    one.at_within(&other.token().await?, PATIENCE).await?;
    Ok(())
}

fn claim(holds: bool, sentence: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(format!("this is not so: {sentence}").into()) }
}
