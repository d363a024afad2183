//! Two regions sell the last items while they are cut off from each other, and never more than there are.
//!
//! Two replicas in one process, real QUIC on loopback. It ends with an error when anything it prints is not so.

use std::error::Error;
use std::time::Duration;

use comity::{BoundedCounterHandle, DecreaseError, Replica, Space};

type Failure = Box<dyn Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let replica = Replica::open(directory.path().join("eu")).await?;
    replica.listen("127.0.0.1:0".parse()?).await?;
    let eu = replica.create_space("shop").await?;
    let away = Replica::open(directory.path().join("us")).await?;
    let us = away.connect(&eu.invite().await?).await?;
    us.register("shops", "us").write("open").await?;
    meet(&eu, &us).await?;

    let stock_eu = eu.bounded_counter("stock", "apples");
    let stock_us = us.bounded_counter("stock", "apples");
    stock_eu.increase(10).await?;
    stock_eu.transfer(away.id(), 4).await?;
    meet(&eu, &us).await?;
    let rights = (stock_eu.rights().await?, stock_us.rights().await?);
    println!("10 apples: eu may sell {}, us may sell {}", rights.0, rights.1);
    claim(rights == (6, 4), "eu has handed 4 of its rights to us")?;

    away.go_offline().await?;
    println!("\nA partition. Each sells alone, at the latency of its own disk:\n");
    let sold_eu = sell(&stock_eu, 9).await?;
    println!("   eu sells {sold_eu} to 9 customers");
    let sold_us = sell(&stock_us, 2).await?;
    println!("   us sells {sold_us} to 2 customers");
    claim((sold_eu, sold_us) == (6, 2), "each sells what it has rights to, and no more")?;
    match stock_eu.decrease(1).within(Duration::from_millis(200)).await {
        Err(error @ DecreaseError::Insufficient { .. }) => println!("   eu is told why: {error}"),
        other => return Err(format!("this is not so: nobody is there to ask: {other:?}").into()),
    }

    away.go_online();
    meet(&eu, &us).await?;
    println!("\nThe partition heals: {} are left, all by rights of us", stock_eu.value()?);
    claim(stock_eu.value()? == 2 && stock_us.value()? == 2, "10 less 8 that were sold are left")?;
    claim(stock_eu.rights().await? == 0, "eu has none of the rights")?;

    replica.wait_connected(away.id(), PATIENCE).await?;
    stock_eu.decrease(1).within(PATIENCE).await?;
    meet(&eu, &us).await?;
    println!("\neu sells one more: the right to it came from us when it was asked for");
    let rest = (stock_eu.value()?, stock_eu.rights().await?, stock_us.rights().await?);
    claim(rest == (1, 0, 1), "one is left, and the right to it is with us")?;
    let late = sell(&stock_us, 5).await?;
    meet(&eu, &us).await?;
    println!("us sells the last {late}; {} are left", stock_us.value()?);
    claim(late == 1 && stock_eu.value()? == 0, "the last one is sold once")?;
    replica.shutdown().await;
    away.shutdown().await;
    Ok(())
}

/// Sells one to each customer while there are rights here; how many were sold.
async fn sell(stock: &BoundedCounterHandle, customers: u32) -> Result<u32, Failure> {
    for sold in 0..customers {
        match stock.decrease(1).within(Duration::ZERO).await {
            Ok(_) => {}
            Err(DecreaseError::Insufficient { .. }) => return Ok(sold),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(customers)
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
