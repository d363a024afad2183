//! Notes on two devices that are mostly offline: each is a directory, written to without a network, and a sync brings
//! two of them together over QUIC on loopback.
//!
//! Without arguments it plays a story with a laptop and a phone, and ends with an error when anything it prints is not
//! so. What was typed into one paragraph on both is merged, because the body of a note is a document; two titles are
//! both shown until somebody decides, because the title is a register whose policy keeps siblings.

use std::path::Path;
use std::time::Duration;

use comity::serde_json::json;
use comity::{Policy, RegisterView, Replica, Space};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(30);
const USAGE: &str = "offline_notes                          plays the whole story
offline_notes write DIRECTORY NOTE TEXT     the body of a note; only what differs is written
offline_notes title DIRECTORY NOTE TITLE    its title, instead of those that are shown
offline_notes show DIRECTORY NOTE
offline_notes sync DIRECTORY DIRECTORY      all notes, both ways";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => story().await,
        ["write", directory, note, text] => write(directory.as_ref(), note, text).await,
        ["title", directory, note, title] => entitle(directory.as_ref(), note, title).await,
        ["show", directory, note] => {
            print(&show(directory.as_ref(), note).await?);
            Ok(())
        }
        ["sync", one, other] => sync(one.as_ref(), other.as_ref()).await,
        _ => Err(format!("this is how:\n{USAGE}").into()),
    }
}

/// A note as one device has it.
#[derive(Debug, PartialEq)]
struct Note {
    /// One, or those written at the same time that nobody has decided between.
    titles: Vec<String>,
    body: String,
    versions: usize,
}

async fn write(directory: &Path, note: &str, text: &str) -> Result<(), Failure> {
    let (device, notes) = open(directory).await?;
    notes.document("bodies", note).put_json("/text", json!(text)).await?;
    device.shutdown().await;
    Ok(())
}

async fn entitle(directory: &Path, note: &str, title: &str) -> Result<(), Failure> {
    let (device, notes) = open(directory).await?;
    notes.register("titles", note).write(title).await?;
    device.shutdown().await;
    Ok(())
}

async fn show(directory: &Path, note: &str) -> Result<Note, Failure> {
    let (device, notes) = open(directory).await?;
    let titles = match notes.register("titles", note).read()?.shown() {
        RegisterView::Absent => Vec::new(),
        RegisterView::Value(title) => vec![title.to_string()],
        RegisterView::Siblings(all) => all.iter().map(|(_, title)| title.value.to_string()).collect(),
    };
    let body = notes.document("bodies", note);
    let versions = body.versions(None, 1_000)?.len();
    let body = body.text("/text")?.unwrap_or_default();
    device.shutdown().await;
    Ok(Note { titles, body, versions })
}

/// The device kept in a directory and its notes, which begin there when there are none. It listens nowhere.
async fn open(directory: &Path) -> Result<(Replica, Space), Failure> {
    let device = Replica::open(directory).await?;
    if let Some((id, _)) = device.spaces().await?.into_iter().next() {
        let notes = device.space(id).await?;
        return Ok((device, notes));
    }
    let notes = device.create_space("notes").await?;
    notes.set_policy("titles", Policy::Siblings).await?;
    Ok((device, notes))
}

async fn sync(one: &Path, other: &Path) -> Result<(), Failure> {
    let (here, ours) = open(one).await?;
    here.listen("127.0.0.1:0".parse()?).await?;
    let there = Replica::open(other).await?;
    let theirs = match there.spaces().await?.first() {
        None => there.connect(&ours.invite().await?).await?,
        Some((id, _)) if *id == ours.id() => there.connect(&ours.ticket()?).await?,
        Some(_) => return Err("both have notes of their own; the second must start from the first".into()),
    };
    theirs.at_within(&ours.token().await?, PATIENCE).await?;
    ours.at_within(&theirs.token().await?, PATIENCE).await?;
    there.shutdown().await;
    here.shutdown().await;
    Ok(())
}

fn print(note: &Note) {
    println!("   {}\n   {}\n   versions: {}\n", note.titles.join(" | "), note.body, note.versions);
}

async fn story() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (laptop, phone) = (directory.path().join("laptop"), directory.path().join("phone"));
    println!("The laptop begins a note, and the phone gets it:\n");
    entitle(&laptop, "shopping", "Shopping").await?;
    write(&laptop, "shopping", "Buy milk and bread on the way home.").await?;
    sync(&laptop, &phone).await?;
    let note = show(&phone, "shopping").await?;
    print(&note);
    claim(note == show(&laptop, "shopping").await?, "both have it")?;

    println!("Both are offline, and change the same paragraph and the title. The laptop:\n");
    write(&laptop, "shopping", "Buy oat milk and bread on the way home.").await?;
    entitle(&laptop, "shopping", "Groceries").await?;
    print(&show(&laptop, "shopping").await?);
    println!("The phone:\n");
    write(&phone, "shopping", "Buy milk, eggs and bread on the way home tonight.").await?;
    entitle(&phone, "shopping", "Weekend").await?;
    print(&show(&phone, "shopping").await?);

    sync(&laptop, &phone).await?;
    println!("They meet. The paragraph is merged, and of the titles nothing is lost:\n");
    let mut note = show(&phone, "shopping").await?;
    print(&note);
    claim(note == show(&laptop, "shopping").await?, "both have the same")?;
    claim(note.body == "Buy oat milk, eggs and bread on the way home tonight.", "the paragraph is merged")?;
    note.titles.sort();
    claim(note.titles == [r#""Groceries""#, r#""Weekend""#], "both titles are shown")?;

    println!("Somebody decides, on the phone, and the laptop learns of it:\n");
    entitle(&phone, "shopping", "Weekend groceries").await?;
    sync(&laptop, &phone).await?;
    let note = show(&laptop, "shopping").await?;
    print(&note);
    claim(note.titles == [r#""Weekend groceries""#] && note.versions == 3, "there is one title")
}

fn claim(holds: bool, sentence: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(format!("this is not so: {sentence}").into()) }
}
