//! The two halves as two processes, perhaps on two machines. All coordination goes through the spaces.

use std::time::Instant;

use comity::{Replica, Space, Ticket, Value};

use crate::{Failure, PATIENCE, claim, ms};

/// The half that founds the space and waits for the other.
pub(crate) async fn eu(addr: &str) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let replica = Replica::open(directory.path()).await?;
    let address = replica.listen(addr.parse()?).await?;
    let story = replica.create_space("story").await?;
    write(&story, "eu", 5).await?;
    println!("eu listens on {address}. Now run, on this machine or another:\n");
    println!("  two_regions --connect {}\n", story.invite().await?);
    let report = replica.create_space("report").await?;
    story.register("report", "ticket").write(report.invite().await?.to_string()).await?;
    meet(&story, "eu", "us").await?;
    compare(&story, &report, "eu", "us").await?;
    // us says goodbye once it has everything, and leaves once it knows that this arrived.
    until(&report, |report| Ok(report.set("parting", "all").contains("goodbye")?)).await?;
    while !replica.status().await?.sessions.is_empty() {
        tokio::task::yield_now().await;
    }
    replica.shutdown().await;
    Ok(())
}

/// The half that joins.
pub(crate) async fn us(ticket: &str) -> Result<(), Failure> {
    let ticket: Ticket = ticket.parse()?;
    let directory = tempfile::tempdir()?;
    let replica = Replica::open(directory.path()).await?;
    // The first write is made before the network is tried, so neither half has seen the other's.
    replica.go_offline().await?;
    let story = replica.connect(&ticket).await?;
    write(&story, "us", 2).await?;
    println!("us connects to {:?}", ticket.addresses);
    replica.go_online();
    meet(&story, "us", "eu").await?;
    let report = story.register("report", "ticket").read()?.latest().and_then(|value| value.into_text().ok());
    let report: Ticket = report.ok_or("there is no ticket for the report")?.parse()?;
    let report = replica.connect(&report).await?;
    compare(&story, &report, "us", "eu").await?;
    // Only one half can leave knowing that the other has heard its last word.
    let parting = report.transact(|tx| tx.set("parting", "all").insert("goodbye"));
    let receipt = parting.durability(comity::Durability::Remote(1)).within(PATIENCE).await?;
    claim(receipt.reached(), "eu has everything")?;
    replica.shutdown().await;
    Ok(())
}

/// Writes this half's part.
async fn write(story: &Space, here: &'static str, likes: i64) -> Result<(), Failure> {
    let started = Instant::now();
    story
        .transact(move |tx| {
            tx.counter("stats", "likes").add(likes)?;
            tx.set("tags", "post-1").insert(here)?;
            tx.register("post", "title").write(format!("written in {here}"))
        })
        .await?;
    println!("{here} wrote, durable after {}", ms(started.elapsed()));
    Ok(())
}

/// Waits until the other half's part is here and it has seen this one's.
async fn meet(story: &Space, here: &'static str, there: &'static str) -> Result<(), Failure> {
    wait_for(story, there).await?;
    println!("{here} sees what {there} wrote");
    story.set("seen by", "all").insert(here).await?;
    until(story, |story| Ok(story.set("seen by", "all").contains(there)?)).await?;
    let likes = story.counter("stats", "likes").value()?;
    println!("{here} counts {likes} likes and holds these titles:");
    let titles = story.register("post", "title").read()?.siblings();
    for (_, title) in &titles {
        println!("  {title}");
    }
    claim(likes == 7, "eu's 5 likes and us's 2 are there")?;
    claim(titles.len() == 2, "both titles are kept, because neither half saw the other's")
}

async fn wait_for(story: &Space, region: &'static str) -> Result<(), Failure> {
    until(story, |story| Ok(story.set("tags", "post-1").contains(region)?)).await
}

/// Waits until a condition holds, looking again whenever something arrives.
async fn until(space: &Space, mut holds: impl FnMut(&Space) -> Result<bool, Failure>) -> Result<(), Failure> {
    let mut watch = space.watch();
    let waiting = async {
        while !holds(space)? {
            watch.next().await?;
        }
        Ok(())
    };
    // The other half may be started by hand.
    tokio::time::timeout(PATIENCE * 10, waiting).await?
}

/// Exchanges the digests of the story through a space of their own, so that they do not change it.
async fn compare(story: &Space, report: &Space, here: &str, there: &'static str) -> Result<(), Failure> {
    let digest = story.status().await?.digest.to_string();
    println!("{here} digest {digest}");
    report.register("digest", here).write(digest.as_str()).await?;
    let read = |space: &Space| -> Result<Option<Value>, Failure> {
        Ok(space.register("digest", there).read()?.latest())
    };
    until(report, |space| Ok(read(space)?.is_some())).await?;
    let other = read(report)?;
    claim(other == Some(Value::from(digest)), "both halves have the same state")?;
    println!("{there} digest is the same");
    Ok(())
}
