//! A copied and a restored data directory, in real processes that run at the same time: whoever edits one
//! document, everybody ends with one text that holds every edit.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use comity::{ObjType, OpenOptions, ROOT, ReadDoc, Replica, Role, Space, Transactable, WatchError};

use regions::processes::{Process, end_with_parent, free_port, role, say};
use regions::{Draws, Region, converge, copy, loopback, patient_open};

/// What a process runs; does nothing when the tests are run.
#[test]
fn editing_process() {
    let Some(role) = role() else { return };
    end_with_parent();
    let [directory, port, words] = role.as_slice() else { unreachable!("the role of an editor") };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(edit_and_tell(Path::new(directory), port.parse().unwrap(), words));
}

/// Appends each word by an edit of its own, and tells the text whenever it is another.
async fn edit_and_tell(directory: &Path, port: u16, words: &str) {
    let replica = Replica::open(directory).await.unwrap();
    replica.listen(loopback(port)).await.unwrap();
    let space = Region::of(directory, replica).await.space;
    let mut watch = space.watch();
    for word in words.split_whitespace() {
        append(&space, word).await;
    }
    let mut told = String::new();
    loop {
        let text = text(&space);
        if text != told {
            say(&text);
            told = text;
        }
        match watch.next().await {
            Ok(_) | Err(WatchError::Lagged { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn append(space: &Space, word: &str) {
    let word = format!("{word} ");
    let edit = space.document("notes", "today").edit(move |doc| {
        let (_, text) = doc.get(ROOT, "text")?.expect("the document has a text");
        let length = doc.length(&text);
        Ok(doc.splice_text(&text, length, 0, &word)?)
    });
    edit.await.unwrap();
}

fn text(space: &Space) -> String {
    let document = space.document("notes", "today").read().unwrap();
    let (_, text) = document.automerge().get(ROOT, "text").unwrap().expect("the document has a text");
    document.automerge().text(&text).unwrap()
}

/// A replica's directory, and the port it listens on.
struct Place {
    directory: PathBuf,
    port: u16,
}

impl Place {
    fn start(&self, words: &[String]) -> Process {
        let (directory, port) = (self.directory.to_str().unwrap(), self.port.to_string());
        Process::start("editing_process", &[directory, &port, &words.join(" ")])
    }
}

/// Two replicas that know each other and share a document, and room for a copy of the first.
struct Places {
    first: Place,
    copied: Place,
    third: Place,
    _directory: tempfile::TempDir,
}

impl Places {
    /// Tests that run at the same time draw their ports from different numbers.
    async fn found(test: u64) -> Self {
        let mut draws = Draws(u64::from(std::process::id()) << 8 | test);
        let directory = tempfile::tempdir().unwrap();
        let mut place =
            |name: &str| Place { directory: directory.path().join(name), port: free_port(&mut draws) };
        let (first, copied, third) = (place("first"), place("copied"), place("third"));
        let replica = patient_open(&first.directory, OpenOptions::default()).await;
        replica.listen(loopback(first.port)).await.unwrap();
        let space = replica.create_space("notes").await.unwrap();
        let made =
            space.document("notes", "today").edit(|doc| Ok(doc.put_object(ROOT, "text", ObjType::Text)?));
        made.await.unwrap();
        let joining = patient_open(&third.directory, OpenOptions::default()).await;
        joining.listen(loopback(third.port)).await.unwrap();
        joining.connect(&space.invite_as(Role::Writer).await.unwrap()).await.unwrap();
        let here = Region::of(&first.directory, replica).await;
        let there = Region::of(&third.directory, joining).await;
        there.until_member().await;
        here.replica.connect(&there.ticket()).await.unwrap();
        append(&here.space, "first-before").await;
        converge(&[&here, &there]).await;
        here.replica.shutdown().await;
        there.replica.shutdown().await;
        Self { first, copied, third, _directory: directory }
    }

    /// Checks what is in the directories after the processes: one text, by so many actors, none of which two
    /// writers used.
    async fn check(&self, places: &[&Place], words: &BTreeSet<String>, actors: usize) {
        let mut texts = BTreeSet::new();
        for place in places {
            let mut options = OpenOptions::default();
            options.stay_offline = true;
            let replica = patient_open(&place.directory, options).await;
            let region = Region::of(&place.directory, replica).await;
            let document = region.space.document("notes", "today").read().unwrap();
            let told: BTreeSet<_> = document
                .automerge()
                .get_changes(&[])
                .iter()
                .map(|change| change.actor_id().clone())
                .collect();
            assert_eq!(told.len(), actors, "{told:?}");
            assert_eq!(
                document.change_count(),
                words.len() + 1,
                "one change made the text, each word is one"
            );
            for lane in region.status().await.lanes {
                assert_eq!(lane.frozen, None, "lane {} is frozen", lane.lane);
            }
            texts.insert(text(&region.space));
            region.replica.shutdown().await;
        }
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert_eq!(&texts.iter().flat_map(|text| words_of(text)).collect::<BTreeSet<_>>(), words);
    }
}

fn words_of(text: &str) -> Vec<String> {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

/// Words that one process writes.
fn words(writer: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{writer}-{number}")).collect()
}

/// Waits until the process tells a text that holds exactly these words, each once.
fn hear_all(process: &Process, words: &BTreeSet<String>) -> String {
    loop {
        let text = process.hear().expect("the process goes on until it is killed");
        let told = words_of(&text);
        let distinct: BTreeSet<_> = told.iter().cloned().collect();
        assert_eq!(told.len(), distinct.len(), "a word is there twice: {text}");
        assert!(distinct.is_subset(words), "a word is there that nobody wrote: {text}");
        if distinct == *words {
            return text;
        }
    }
}

#[test]
fn a_copy_and_its_original_edit_one_document_at_the_same_time_as_a_third() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let places = runtime.block_on(Places::found(1));
    let Places { first, copied, third, .. } = &places;
    copy(&first.directory, &copied.directory);
    let mut all = BTreeSet::from(["first-before".to_owned()]);
    // Twice, so that everybody goes on after having met the others, and after being killed.
    for round in ["morning", "evening"] {
        let named = [("first", first), ("copied", copied), ("third", third)];
        let parts = named.map(|(name, place)| (place, words(&format!("{name}-{round}"), 10)));
        parts.iter().for_each(|(_, words)| all.extend(words.iter().cloned()));
        let processes = parts.map(|(place, words)| place.start(&words));
        let texts: BTreeSet<_> = processes.iter().map(|process| hear_all(process, &all)).collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
        for process in processes {
            process.kill();
        }
    }
    runtime.block_on(places.check(&[first, copied, third], &all, 3));
}

#[test]
fn a_restored_backup_gets_back_what_it_wrote_since_and_goes_on() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let places = runtime.block_on(Places::found(2));
    let Places { first, copied: backup, third, .. } = &places;
    copy(&first.directory, &backup.directory);
    let (lost, meanwhile) = (words("first-lost", 10), words("third", 5));
    let mut all = BTreeSet::from(["first-before".to_owned()]);
    all.extend(lost.iter().chain(&meanwhile).cloned());
    let there = third.start(&meanwhile);
    let here = first.start(&lost);
    assert_eq!(hear_all(&there, &all), hear_all(&here, &all));
    here.kill();
    fs::remove_dir_all(&first.directory).unwrap();
    fs::rename(&backup.directory, &first.directory).unwrap();
    let restored = words("first-restored", 10);
    all.extend(restored.iter().cloned());
    let here = first.start(&restored);
    assert_eq!(hear_all(&there, &all), hear_all(&here, &all));
    here.kill();
    there.kill();
    runtime.block_on(places.check(&[first, third], &all, 3));
}
