//! The same concurrent writes under every policy, a decision by a person, and the journal afterwards.
//!
//! Two replicas in one process, real QUIC on loopback. It ends with an error when anything it prints is not so.

use std::time::Duration;

use comity::{Matter, Policy, RegisterView, Replica, Space, Value};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let replica = Replica::open(directory.path().join("eu")).await?;
    replica.listen("127.0.0.1:0".parse()?).await?;
    let eu = replica.create_space("shop").await?;
    let away = Replica::open(directory.path().join("us")).await?;
    let us = away.connect(&eu.invite().await?).await?;

    let (bread, apples) = (list(&["milk", "bread"]), list(&["milk", "apples"]));
    let united = list(&["apples", "bread", "milk"]);
    // Each with what it is to show; nothing where it leaves the decision open.
    let policies = [
        (Policy::Lww, Some(&apples)),
        (Policy::First, Some(&bread)),
        (Policy::Min, Some(&apples)),
        (Policy::Max, Some(&bread)),
        (Policy::Union, Some(&united)),
        (Policy::Siblings, None),
    ];
    for (policy, _) in &policies {
        eu.set_policy(&policy.name(), policy.clone()).await?;
    }
    meet(&eu, &us).await?;
    away.go_offline().await?;
    println!("eu writes {bread}, and a moment later us {apples}, without knowing of each other:\n");
    for (policy, _) in &policies {
        eu.register(&policy.name(), "list").write(bread.clone()).await?;
    }
    // Stamps count milliseconds, and the last writer is to be who wrote last.
    tokio::time::sleep(Duration::from_millis(5)).await;
    for (policy, _) in &policies {
        us.register(&policy.name(), "list").write(apples.clone()).await?;
    }
    away.go_online();
    meet(&eu, &us).await?;

    for (policy, expected) in &policies {
        let name = policy.name();
        let (here, there) = (eu.register(&name, "list").read()?, us.register(&name, "list").read()?);
        claim(here.shown() == there.shown(), "both replicas show the same")?;
        match (here.shown(), expected) {
            (RegisterView::Value(value), Some(expected)) if value == **expected => {
                println!("   {name:<9} {value}");
            }
            (RegisterView::Siblings(all), None) if all.len() == 2 => {
                println!("   {name:<9} {} | {}", all[0].1.value, all[1].1.value);
            }
            (other, _) => return Err(format!("this is not so: {name} shows {other:?}").into()),
        }
    }

    let inbox = us.conflicts(None, 10)?;
    let [conflict] = inbox.as_slice() else { return Err("this is not so: one conflict is open".into()) };
    let Matter::Siblings { siblings, .. } = &conflict.matter else {
        return Err("it is not of values".into());
    };
    println!("\nIn the inbox at us: {}. Somebody keeps what came last.", conflict.location);
    let last = siblings.iter().max_by_key(|sibling| sibling.hlc).ok_or("there are no values")?;
    us.resolve(conflict, last.dot).await?;
    meet(&eu, &us).await?;
    claim(eu.conflicts(None, 10)?.is_empty(), "the inbox is empty at eu too")?;
    claim(eu.register("siblings", "list").value()? == Some(apples), "what was kept is shown")?;

    println!("The journal at eu keeps what the decision replaced:\n");
    let journal = eu.journal_of(&conflict.location, 10)?;
    journal.iter().for_each(|entry| println!("   {}", entry.value));
    claim(journal.len() == 2, "both originals are in the journal")?;
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

fn list(items: &[&str]) -> Value {
    items.iter().map(|item| Value::from(*item)).collect::<Vec<_>>().into()
}

fn claim(holds: bool, sentence: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(format!("this is not so: {sentence}").into()) }
}
