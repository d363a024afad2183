//! The story in one process: two data directories, real QUIC on loopback.

use std::collections::BTreeSet;
use std::time::Instant;

use comity::{
    Document, ObjType, Policy, ROOT, ReadDoc, RegisterView, Replica, Space, Transact, Transactable, Value,
    automerge,
};

use crate::{Failure, PATIENCE, claim, ms};

/// A region: a replica, and the space as it sees it.
struct Region {
    name: &'static str,
    replica: Replica,
    space: Space,
}

/// Tells the whole story.
pub(crate) async fn tell() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (eu, us) = found(directory.path()).await?;
    write_together(&eu, &us).await?;
    partition(&eu, &us).await?;
    diverge(&eu, &us).await?;
    heal(&eu, &us).await?;
    resolve(&eu, &us).await?;
    compare(&eu, &us).await?;
    eu.replica.shutdown().await;
    us.replica.shutdown().await;
    Ok(())
}

async fn found(directory: &std::path::Path) -> Result<(Region, Region), Failure> {
    println!("1. Two regions, each a leader with its own disk\n");
    let replica = Replica::open(directory.join("eu")).await?;
    let address = replica.listen("127.0.0.1:0".parse()?).await?;
    let space = replica.create_space("story").await?;
    println!("   eu  replica {}  listens on {address}", short(&replica));
    let ticket = space.invite().await?;
    let eu = Region { name: "eu", replica, space };

    let replica = Replica::open(directory.join("us")).await?;
    let space = replica.connect(&ticket).await?;
    println!(
        "   us  replica {}  joins with a one-time ticket of {} characters",
        short(&replica),
        ticket.to_string().len()
    );
    let us = Region { name: "us", replica, space };
    us.replica.wait_connected(eu.replica.id(), PATIENCE).await?;
    // What the founder wrote reaches the joiner: from here on both are members.
    let receipt = eu.space.register("story", "founded by").write("eu").await?;
    us.space.at_within(&receipt.token(), PATIENCE).await?;
    Ok((eu, us))
}

/// Makes a write in `here`, and measures the acknowledgement and the way to `there`.
async fn measured<R: Send + 'static>(
    what: &str,
    here: &Region,
    there: &Region,
    write: Transact<R>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let receipt = write.await?;
    let acknowledged = started.elapsed();
    there.space.at_within(&receipt.token(), PATIENCE).await?;
    let visible = started.elapsed();
    let (acknowledged, visible) = (ms(acknowledged), ms(visible));
    println!(
        "   {}  {what:<34} durable after {acknowledged:>8}, visible in {} after {visible:>8}",
        here.name, there.name
    );
    Ok(())
}

async fn write_together(eu: &Region, us: &Region) -> Result<(), Failure> {
    println!("\n2. Both write, each acknowledged by its own disk, no network in the path\n");
    measured("likes +5", eu, us, eu.space.counter("stats", "likes").add(5)).await?;
    measured("likes +2", us, eu, us.space.counter("stats", "likes").add(2)).await?;
    measured("tag \"rust\"", eu, us, eu.space.set("tags", "post-1").insert("rust")).await?;
    measured("tag \"crdt\"", us, eu, us.space.set("tags", "post-1").insert("crdt")).await?;
    measured("profile name = \"Ada\"", eu, us, eu.space.register("profile", "name").write("Ada")).await?;
    measured("title = \"Draft\"", us, eu, us.space.register("post", "title").write("Draft")).await?;
    let typed = eu.space.document("notes", "today").edit(|doc| {
        let body = doc.put_object(ROOT, "body", ObjType::Text)?;
        doc.splice_text(&body, 0, 0, "The regions write.")?;
        Ok(())
    });
    measured("types \"The regions write.\"", eu, us, typed).await?;
    measured("types \" together\" into it", us, eu, type_into(us, 17, " together")).await?;
    show("so both regions see", eu, us)?;
    claim(likes(eu)? == 7 && likes(us)? == 7, "both regions count 5 + 2 likes")?;
    claim(body(eu)? == "The regions write together." && body(us)? == body(eu)?, "both typed into one text")
}

async fn partition(eu: &Region, us: &Region) -> Result<(), Failure> {
    println!("\n3. A partition: every connection is cut\n");
    us.replica.go_offline().await?;
    let mut status = eu.replica.status().await?;
    while !status.sessions.is_empty() {
        tokio::task::yield_now().await;
        status = eu.replica.status().await?;
    }
    println!("   eu  connected to nobody\n   us  connected to nobody");
    claim(us.replica.connected().is_empty() && eu.replica.connected().is_empty(), "nobody is connected")
}

async fn diverge(eu: &Region, us: &Region) -> Result<(), Failure> {
    println!("\n4. Both regions go on as leaders, and diverge\n");
    for (region, likes, tag, name, title, position, text) in [
        (eu, 10_i64, "europe", "Ada L.", "Zwei Regionen", 0, "In Europa: "),
        (us, 100_i64, "america", "Ada Lovelace", "Two regions", 26, " (and in America)"),
    ] {
        let started = Instant::now();
        region
            .space
            .transact(move |tx| {
                tx.counter("stats", "likes").add(likes)?;
                tx.set("tags", "post-1").insert(tag)?;
                tx.register("profile", "name").write(name)?;
                tx.register("post", "title").write(title)?;
                tx.document("notes", "today").edit(|doc| {
                    let body = body_of(doc)?;
                    Ok(doc.splice_text(&body, position, 0, text)?)
                })
            })
            .await?;
        let elapsed = ms(started.elapsed());
        println!("   {}  one transaction over five objects, durable after {elapsed}", region.name);
    }
    us.space.set("tags", "post-1").remove("rust").await?;
    println!("   us  removes the tag \"rust\"");
    eu.space.set("tags", "post-1").insert("rust").await?;
    println!("   eu  adds the tag \"rust\" again, without knowing of the removal");
    show("each region sees its own version", eu, us)?;
    claim(likes(eu)? == 17 && likes(us)? == 107, "each region counts its own likes")?;
    claim(body(eu)? != body(us)?, "the texts differ")
}

async fn heal(eu: &Region, us: &Region) -> Result<(), Failure> {
    println!("\n5. The partition heals\n");
    let (from_eu, from_us) = (eu.space.token().await?, us.space.token().await?);
    let started = Instant::now();
    us.replica.go_online();
    us.space.at_within(&from_eu, PATIENCE).await?;
    eu.space.at_within(&from_us, PATIENCE).await?;
    println!("   both regions have everything {} after the network came back", ms(started.elapsed()));
    show("so both regions see", eu, us)?;
    for region in [eu, us] {
        claim(likes(region)? == 117, "no like is lost and none counts twice")?;
        let tags: BTreeSet<Value> = region.space.set("tags", "post-1").elements()?.into_iter().collect();
        let expected = ["america", "crdt", "europe", "rust"].map(Value::from);
        claim(
            tags == BTreeSet::from(expected),
            "all tags are there; the addition that did not know of the removal wins",
        )?;
        let expected = "In Europa: The regions write together (and in America).";
        claim(body(region)? == expected, "both edits are in the text")?;
    }
    Ok(())
}

async fn resolve(eu: &Region, us: &Region) -> Result<(), Failure> {
    println!("\n6. The same title was written twice: the conflict is shown, and a person decides\n");
    let conflict = us.space.register("post", "title").read()?;
    let RegisterView::Siblings(siblings) = conflict.under(&Policy::Siblings) else {
        return Err("the conflict over the title is not shown".into());
    };
    for (dot, sibling) in &siblings {
        let lanes = us.space.status().await?.lanes;
        let by_eu = lanes.iter().any(|lane| lane.lane == dot.origin && lane.owner == eu.replica.id());
        println!("   {} wrote {}", if by_eu { eu.name } else { us.name }, sibling.value);
    }
    claim(siblings.len() == 2, "both titles are kept")?;
    let name = us.space.register("profile", "name").read()?;
    let latest = name.latest().map(|value| value.to_string()).unwrap_or_default();
    println!(
        "   (the profile's name is under last-writer-wins, which shows {latest}; the other is kept, not lost)"
    );
    let seen: Vec<_> = siblings.iter().map(|(dot, _)| *dot).collect();
    let receipt = us.space.register("post", "title").resolve("Two regions / Zwei Regionen", &seen).await?;
    eu.space.at_within(&receipt.token(), PATIENCE).await?;
    for region in [eu, us] {
        let title = region.space.register("post", "title").read()?;
        let resolved = RegisterView::Value("Two regions / Zwei Regionen".into());
        claim(title.under(&Policy::Siblings) == resolved, "the resolution is everywhere")?;
    }
    println!("   resolved in us, and so in eu: \"Two regions / Zwei Regionen\"");
    let journal = eu.space.journal(10)?;
    claim(journal.len() == 2, "the journal keeps both titles that were set aside")?;
    println!("   the journal keeps both originals");
    Ok(())
}

async fn compare(eu: &Region, us: &Region) -> Result<(), Failure> {
    println!("\n7. The digests of the whole state\n");
    let (eu, us) = (eu.space.status().await?, us.space.status().await?);
    println!("   eu  {}\n   us  {}", eu.digest, us.digest);
    claim(eu.frontier == us.frontier, "both regions have applied the same change sets")?;
    claim(eu.digest == us.digest, "both regions have the same state")?;
    println!("\nEqual. Nothing was lost, and nobody had to wait for the other side of the ocean.");
    Ok(())
}

fn show(caption: &str, eu: &Region, us: &Region) -> Result<(), Failure> {
    println!("\n   {caption}:");
    for region in [eu, us] {
        let tags = region.space.set("tags", "post-1").elements()?;
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        let register = |collection, key| -> Result<String, Failure> {
            let values = region.space.register(collection, key).read()?.siblings();
            let values: Vec<String> = values.iter().map(|(_, value)| value.to_string()).collect();
            Ok(values.join(" | "))
        };
        println!(
            "   {}  likes {:>3}   tags {}\n       name {}   title {}\n       text \"{}\"",
            region.name,
            likes(region)?,
            tags.join(" "),
            register("profile", "name")?,
            register("post", "title")?,
            body(region)?,
        );
    }
    Ok(())
}

fn likes(region: &Region) -> Result<i128, Failure> {
    Ok(region.space.counter("stats", "likes").value()?)
}

fn body(region: &Region) -> Result<String, Failure> {
    let document = region.space.document("notes", "today").read()?;
    text_of(&document)
}

fn text_of(document: &Document) -> Result<String, Failure> {
    let document = document.automerge();
    Ok(document.text(&body_of(document)?)?)
}

fn body_of(document: &impl ReadDoc) -> Result<automerge::ObjId, comity::TxError> {
    let found = document.get(ROOT, "body")?;
    found.map(|(_, body)| body).ok_or_else(|| comity::TxError::refuse("the document has no body"))
}

fn type_into(region: &Region, position: usize, text: &'static str) -> Transact {
    region.space.document("notes", "today").edit(move |doc| {
        let body = body_of(doc)?;
        Ok(doc.splice_text(&body, position, 0, text)?)
    })
}

fn short(replica: &Replica) -> String {
    replica.id().to_string().chars().take(8).collect()
}
