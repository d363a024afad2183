//! What applications do with documents: JSON, texts, marks, cursors, counters, types of their own, and history; written
//! here, read there, at the same time, and after reopening.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use comity::automerge::Automerge;
use comity::serde_json::{Value, json};
use comity::{
    ChunkLimits, DocumentAction, DocumentHandle, DocumentMark, DocumentReadError, ExpandMark, ImportError,
    JsonError, ObjType, ROOT, ReadDoc, TransactError, Transactable, TxError, WatchError, WriteError,
    automerge,
};

use regions::{Region, converge, pair};

fn note(region: &Region) -> DocumentHandle {
    region.space.document("notes", "shopping")
}

fn whole(region: &Region) -> Value {
    note(region).get_json("").unwrap().unwrap()
}

fn bold(start: usize, end: usize) -> DocumentMark {
    DocumentMark { name: "bold".to_owned(), value: json!(true), start, end }
}

/// Why a write by pointer was refused; it must name the document.
fn json_error<R: std::fmt::Debug>(result: Result<R, WriteError>) -> JsonError {
    match result.unwrap_err() {
        WriteError::Refused(TransactError::Refused(TxError::Json { object, source })) => {
            assert_eq!(object.to_string(), "document notes/shopping");
            source
        }
        other => panic!("{other}"),
    }
}

/// Why a read was refused; it must name the document.
fn read_error<R: std::fmt::Debug>(result: Result<R, DocumentReadError>) -> JsonError {
    match result.unwrap_err() {
        DocumentReadError::Json { location, source } => {
            assert_eq!(location.to_string(), "document notes/shopping");
            source
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_written_here_and_read_there() {
    let (eu, us) = pair().await;
    assert_eq!(whole(&eu), json!({}), "a document that nobody wrote is empty");
    let value = json!({"title": "Shopping", "items": ["milk", {"name": "bread", "count": {"$counter": 1}}]});
    note(&eu).put_json("", value.clone()).await.unwrap();
    converge(&[&eu, &us]).await;
    assert_eq!(whole(&us), value);
    assert_eq!(note(&us).get_json("/items/1/name").unwrap(), Some(json!("bread")));
    assert_eq!(note(&us).get_json("/items/7").unwrap(), None);

    note(&us).merge_patch("/items/1", json!({"name": null, "shop": "baker"})).await.unwrap();
    let operations = json!([
        {"op": "test", "path": "/title", "value": "Shopping"},
        {"op": "add", "path": "/items/-", "value": "eggs"},
        {"op": "move", "from": "/title", "path": "/name"},
    ]);
    note(&us).patch(operations).await.unwrap();
    note(&us).increment("/items/1/count", 2).await.unwrap();
    converge(&[&eu, &us]).await;
    let expected =
        json!({"name": "Shopping", "items": ["milk", {"shop": "baker", "count": {"$counter": 3}}, "eggs"]});
    assert_eq!(whole(&eu), expected);
    eu.replica.clone().shutdown().await;
    let eu = eu.reopen().await;
    assert_eq!(whole(&eu), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_written_at_the_same_time_meets() {
    let (eu, us) = pair().await;
    let value =
        json!({"title": "Shopping", "body": "Milk and bread", "items": ["a", "b"], "n": {"$counter": 0}});
    note(&eu).put_json("", value).await.unwrap();
    converge(&[&eu, &us]).await;
    us.replica.go_offline().await.unwrap();
    let here = json!({"title": "Shopping", "body": "Oat milk and bread", "items": ["a", "b", "c"], "n": {"$counter": 2}});
    note(&eu).put_json("", here).await.unwrap();
    note(&us).put_json("/title", json!("Errands")).await.unwrap();
    note(&us).splice("/body", 14, 0, ", eggs").await.unwrap();
    note(&us).merge_patch("", json!({"done": false})).await.unwrap();
    note(&us).patch(json!([{"op": "remove", "path": "/items/0"}])).await.unwrap();
    note(&us).increment("/n", 5).await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    let expected = json!({
        "title": "Errands", "body": "Oat milk and bread, eggs", "items": ["b", "c"], "n": {"$counter": 7},
        "done": false,
    });
    assert_eq!((whole(&eu), whole(&us)), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_and_leaves_nothing() {
    let region = Region::founder().await;
    let note = note(&region);
    note.put_json("", json!({"title": "Shopping"})).await.unwrap();
    let before = region.applied().await;
    let operations = json!([{"op": "add", "path": "/x", "value": 1}, {"op": "remove", "path": "/y"}]);
    let error = json_error(note.patch(operations).await);
    assert!(matches!(error, JsonError::Operation { index: 1, .. }), "{error}");
    assert!(matches!(json_error(note.put_json("", json!([])).await), JsonError::Root));
    assert!(matches!(json_error(note.put_json("/a/b", json!(1)).await), JsonError::NotFound { .. }));
    assert!(matches!(json_error(note.merge_patch("x", json!(1)).await), JsonError::Pointer { .. }));
    assert!(matches!(json_error(note.increment("/title", 1).await), JsonError::NotCounter { .. }));
    assert!(matches!(json_error(note.splice("/title", 9, 0, "!").await), JsonError::Range { length: 8, .. }));
    let marked = note.mark("/title", bold(2, 2), ExpandMark::After).await;
    assert!(matches!(json_error(marked), JsonError::Range { .. }));
    assert!(matches!(json_error(note.unmark("/x", 0..1, "bold").await), JsonError::NotFound { .. }));
    let unknown = [[9; 32]];
    assert!(matches!(json_error(note.restore(&unknown).await), JsonError::UnknownVersion { .. }));
    assert!(matches!(read_error(note.at(&unknown).map(|_| ())), JsonError::UnknownVersion { .. }));
    assert!(matches!(read_error(note.diff(&unknown, &[])), JsonError::UnknownVersion { .. }));
    assert!(matches!(read_error(note.versions(Some(&unknown[0]), 1)), JsonError::UnknownVersion { .. }));
    assert!(matches!(read_error(note.position(b"x")), JsonError::Cursor));
    assert!(matches!(read_error(note.text("")), JsonError::NotText { .. }));
    assert!(matches!(read_error(note.marks("/x")), JsonError::NotFound { .. }));
    assert!(matches!(read_error(note.get_json("x")), JsonError::Pointer { .. }));
    let bad = region.space.document("", "shopping");
    assert!(matches!(bad.get_json("").unwrap_err(), DocumentReadError::Read(_)));
    assert_eq!(region.applied().await, before, "nothing was written");
    assert_eq!(whole(&region), json!({"title": "Shopping"}));

    // What is there already is not written again.
    note.put_json("", json!({"title": "Shopping"})).await.unwrap();
    assert_eq!(note.versions(None, 9).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_cursors_and_marks_travel() {
    let (eu, us) = pair().await;
    note(&eu).put_json("/body", json!("Milk and bread")).await.unwrap();
    let and = note(&eu).cursor("/body", 5).unwrap();
    note(&eu).mark("/body", bold(9, 14), ExpandMark::After).await.unwrap();
    converge(&[&eu, &us]).await;
    note(&us).splice("/body", 0, 1, "Oat m").await.unwrap();
    assert_eq!(note(&us).position(&and).unwrap(), 9);
    converge(&[&eu, &us]).await;
    assert_eq!(note(&eu).text("/body").unwrap().unwrap(), "Oat milk and bread");
    assert_eq!(note(&eu).text("/nothing").unwrap(), None);
    assert_eq!(note(&eu).position(&and).unwrap(), 9);
    assert_eq!(note(&us).marks("/body").unwrap(), [bold(13, 18)]);
    note(&us).unmark("/body", 13..16, "bold").await.unwrap();
    converge(&[&eu, &us]).await;
    assert_eq!(note(&eu).marks("/body").unwrap(), [bold(16, 18)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_listed_shown_compared_and_restored() {
    let (eu, us) = pair().await;
    note(&eu).put_json("", json!({"body": "Milk", "items": [1, 2, 3]})).await.unwrap();
    let first = note(&eu).heads().unwrap();
    note(&eu).put_json("", json!({"body": "Milk, eggs", "items": [1, 3]})).await.unwrap();
    converge(&[&eu, &us]).await;
    note(&us).splice("/body", 0, 1, "Oat m").await.unwrap();
    converge(&[&eu, &us]).await;

    let versions = note(&us).versions(None, 9).unwrap();
    assert_eq!(note(&eu).versions(None, 9).unwrap(), versions);
    assert_eq!(versions.iter().map(|version| version.ops).collect::<Vec<_>>(), [6, 7, 9]);
    assert_eq!(([versions[2].hash], versions[1].deps.clone()), ([first[0]], first.clone()));
    assert!(versions[0].time_seconds > 1_700_000_000 && versions[0].actor != versions[1].actor);
    let page = note(&us).versions(Some(&versions[0].hash), 1).unwrap();
    assert_eq!(page, versions[1..2]);
    assert_eq!(note(&us).versions(Some(&versions[2].hash), 1).unwrap(), []);

    let old = note(&us).at(&first).unwrap();
    assert_eq!(old.heads(), first);
    assert_eq!(old.get_json("").unwrap(), Some(json!({"body": "Milk", "items": [1, 2, 3]})));
    assert_eq!(old.text("/body").unwrap().unwrap(), "Milk");
    assert_eq!(note(&us).at(&[]).unwrap().get_json("/body").unwrap(), None);

    let now = note(&us).heads().unwrap();
    let steps = note(&us).diff(&first, &now).unwrap();
    assert_eq!(steps, note(&eu).diff(&first, &now).unwrap());
    let deleted = steps.iter().find(|step| step.action == DocumentAction::Delete { count: 1 }).unwrap();
    assert_eq!(deleted.path, "/items/1");

    // What somebody else writes while an old version is restored is merged.
    us.replica.go_offline().await.unwrap();
    note(&us).restore(&first).await.unwrap();
    assert_eq!(whole(&us), json!({"body": "Milk", "items": [1, 2, 3]}));
    note(&eu).put_json("/items/-", json!(4)).await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    for region in [&eu, &us] {
        assert_eq!(whole(region), json!({"body": "Milk", "items": [1, 2, 3, 4]}));
        assert_eq!(note(region).versions(None, 9).unwrap().len(), 5, "nothing of the history is lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_an_old_version_is_concurrent_with_what_came_after() {
    let region = Region::founder().await;
    let note = note(&region);
    note.put_json("/body", json!("Milk and bread")).await.unwrap();
    let seen = note.heads().unwrap();
    note.splice("/body", 0, 4, "Oat milk").await.unwrap();
    let late = note.edit_at(&seen, |document| {
        let body = document.get(ROOT, "body")?.unwrap().1;
        document.splice_text(&body, 14, 0, ", eggs")?;
        Ok(document.text(&body)?)
    });
    assert_eq!(late.await.unwrap().value, "Milk and bread, eggs", "it sees the old version");
    assert_eq!(note.text("/body").unwrap().unwrap(), "Oat milk and bread, eggs");
    let unknown = note.edit_at(&[[9; 32]], |_| Ok(())).await;
    let error = unknown.map(|_| ()).unwrap_err();
    assert!(
        matches!(error, WriteError::Refused(TransactError::Refused(TxError::Document { .. }))),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_does_it_all_in_one_change_set() {
    let region = Region::founder().await;
    let before = region.status().await;
    let made = region.space.transact(|tx| {
        tx.counter("stats", "notes").add(1)?;
        let mut note = tx.document("notes", "shopping");
        note.put_json("", &json!({"body": "Milk and bread", "n": {"$counter": 1}}))?;
        let old = note.read()?.heads();
        note.merge_patch("", &json!({"done": false}))?;
        note.patch(&json!([{"op": "add", "path": "/items", "value": ["a"]}]))?;
        note.increment("/n", 4)?;
        let and = note.cursor("/body", 5)?;
        note.splice("/body", 0, 1, "Oat m")?;
        assert_eq!(note.position(&and)?, 9);
        note.mark("/body", &bold(4, 12), ExpandMark::None)?;
        note.unmark("/body", 8..12, "bold")?;
        assert_eq!(note.marks("/body")?, [bold(4, 8)]);
        assert_eq!(note.text("/body")?.unwrap(), "Oat milk and bread");
        let expected =
            json!({"body": "Oat milk and bread", "n": {"$counter": 5}, "done": false, "items": ["a"]});
        assert_eq!(note.get_json("")?, Some(expected));
        let refused = note.patch(&json!([
            {"op": "remove", "path": "/items"}, {"op": "test", "path": "/n", "value": 1},
        ]));
        assert!(matches!(refused, Err(TxError::Json { source: JsonError::Operation { index: 1, .. }, .. })));
        assert_eq!(note.get_json("/items")?, Some(json!(["a"])), "nothing of the patch is kept");
        assert!(matches!(note.text("/items"), Err(TxError::Json { source: JsonError::NotText { .. }, .. })));
        note.restore(&old)
    });
    made.await.unwrap();
    let after = region.status().await;
    assert_eq!(after.frontier.distance_from(&before.frontier), 1, "one change set");
    assert_eq!(whole(&region), json!({"body": "Milk and bread", "n": {"$counter": 1}}));
    assert_eq!(region.space.counter("stats", "notes").value().unwrap(), 1);
}

#[cfg(feature = "autosurgeon")]
mod typed {
    use comity::autosurgeon::{Counter, Hydrate, Reconcile, Text};
    use comity::serde_json::json;
    use comity::{DocumentReadError, TxError};

    use super::{converge, note, pair, whole};

    #[derive(Debug, Reconcile, Hydrate)]
    struct Note {
        title: String,
        body: Text,
        likes: Counter,
        tasks: Vec<Task>,
    }

    #[derive(Debug, PartialEq, Reconcile, Hydrate)]
    struct Task {
        #[key]
        id: u64,
        done: bool,
    }

    fn example() -> Note {
        Note {
            title: "Shopping".to_owned(),
            body: Text::from("Milk"),
            likes: Counter::default(),
            tasks: vec![Task { id: 1, done: false }, Task { id: 2, done: false }],
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_applications_own_types_are_documents() {
        let (eu, us) = pair().await;
        note(&eu).reconcile(example()).await.unwrap();
        converge(&[&eu, &us]).await;
        us.replica.go_offline().await.unwrap();
        let edited = us.space.transact(|tx| {
            let mut document = tx.document("notes", "shopping");
            let mut value: Note = document.hydrate()?;
            value.body.splice(4, 0, ", eggs");
            value.likes.increment(2);
            value.tasks.remove(0);
            document.reconcile(&value)
        });
        edited.await.unwrap();
        let mut value: Note = note(&eu).hydrate().unwrap();
        value.body.splice(0, 1, "Oat m");
        value.likes.increment(3);
        value.tasks[1].done = true;
        note(&eu).reconcile(value).await.unwrap();
        us.replica.go_online();
        converge(&[&eu, &us]).await;
        for region in [&eu, &us] {
            let value: Note = note(region).hydrate().unwrap();
            assert_eq!((value.title.as_str(), value.body.as_str()), ("Shopping", "Oat milk, eggs"));
            assert_eq!((value.likes.value(), value.tasks), (5, vec![Task { id: 2, done: true }]));
        }
        let task = json!({"id": 2, "done": true});
        let expected =
            json!({"title": "Shopping", "body": "Oat milk, eggs", "likes": {"$counter": 5}, "tasks": [task]});
        assert_eq!(whole(&eu), expected);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn data_that_does_not_fit_is_an_error_that_names_the_document() {
        let region = super::Region::founder().await;
        note(&region).put_json("", json!({"title": 5})).await.unwrap();
        let error = note(&region).hydrate::<Note>().unwrap_err();
        assert!(matches!(&error, DocumentReadError::Typed { .. }), "{error}");
        assert!(error.to_string().starts_with("document notes/shopping: "), "{error}");
        let refused = region.space.transact(|tx| tx.document("notes", "shopping").reconcile(&5_u64));
        let error = refused.await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("must reconcile to a map"), "{error}");
        let inside = region.space.transact(|tx| {
            let error = tx.document("notes", "shopping").hydrate::<Note>().unwrap_err();
            assert!(matches!(error, TxError::Refused(_)));
            Ok(())
        });
        inside.await.unwrap();
    }
}

/// What another Automerge program saved, and the text in it.
fn foreign() -> (Automerge, automerge::ObjId) {
    let mut theirs = Automerge::new();
    let mut tx = theirs.transaction();
    let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, &"written elsewhere ".repeat(40)).unwrap();
    tx.commit();
    (theirs, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_automerge_programs_saved_is_imported_once_and_edited_by_all() {
    let (eu, us) = pair().await;
    let (mut theirs, text) = foreign();
    let limits = ChunkLimits::default();
    assert_eq!(note(&eu).import(&theirs.save(), &limits).await.unwrap(), 1);
    assert_eq!(note(&eu).import(&theirs.save(), &limits).await.unwrap(), 0, "it is there already");
    converge(&[&eu, &us]).await;
    assert_eq!(note(&us).import(&theirs.save(), &limits).await.unwrap(), 0, "however it came");
    note(&us).splice("/text", 0, 0, "here: ").await.unwrap();
    let heads = theirs.get_heads();
    for letter in ["a", "b", "c"] {
        let mut tx = theirs.transaction();
        tx.splice_text(&text, 0, 0, letter).unwrap();
        tx.commit();
    }
    // Changes as another program sends them: the later ones first, some of them deflated.
    let mut sent: Vec<u8> = Vec::new();
    for change in theirs.get_changes(&heads).iter_mut().rev() {
        sent.extend_from_slice(&change.bytes());
    }
    assert_eq!(note(&eu).import(&sent, &limits).await.unwrap(), 3);
    converge(&[&eu, &us]).await;
    let shown = note(&us).text("/text").unwrap().unwrap();
    // Both wrote at the start, so either may come first, and one within the other.
    let rest = shown.replacen("here: ", "", 1);
    assert!(shown.contains("here: ") && rest.starts_with("cba"), "{shown}");
    assert_eq!(note(&eu).text("/text").unwrap().unwrap(), shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_is_refused_by_name_and_nothing_is_kept() {
    let (eu, _us) = pair().await;
    let (theirs, _) = foreign();
    let saved = theirs.save();
    let small = ChunkLimits { bytes: saved.len() - 1, ..ChunkLimits::default() };
    let mut cut = saved.clone();
    cut.truncate(saved.len() / 2);
    for (bytes, limits) in
        [(saved.clone(), small), (cut, ChunkLimits::default()), (vec![7; 100], ChunkLimits::default())]
    {
        let error = note(&eu).import(&bytes, &limits).await.unwrap_err();
        let ImportError::Refused { location, .. } = &error else { panic!("{error}") };
        assert_eq!(location.to_string(), "document notes/shopping");
    }
    let mut later = theirs.fork();
    let heads = later.get_heads();
    later.transact(|tx| tx.put(ROOT, "n", 1)).unwrap();
    let orphan = later.get_changes(&heads)[0].raw_bytes().to_vec();
    let error = note(&eu).import(&orphan, &ChunkLimits::default()).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    assert_eq!(whole(&eu), json!({}));
    // The document takes what can be taken all the same.
    assert_eq!(note(&eu).import(&[saved, orphan].concat(), &ChunkLimits::default()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_shown_every_version_with_what_changed() {
    let (eu, us) = pair().await;
    note(&eu).put_json("", json!({"text": "hello"})).await.unwrap();
    converge(&[&eu, &us]).await;
    let mut feed = note(&us).follow().unwrap();
    let first = feed.next().await.unwrap();
    assert!(first.patches.is_none(), "there is nothing before it");
    note(&eu).splice("/text", 5, 0, " world").await.unwrap();
    note(&eu).put_json("/n", json!(3)).await.unwrap();
    let mut patches = Vec::new();
    let mut shown = first.document;
    while shown.change_count() < 3 {
        let update = feed.next().await.unwrap();
        patches.extend(update.patches.expect("the follower is not far behind"));
        shown = update.document;
    }
    let insert = DocumentAction::Splice {
        position: 5,
        delete: 0,
        insert: " world".to_owned(),
        marks: std::collections::BTreeMap::new(),
    };
    assert_eq!((patches[0].path.as_str(), &patches[0].action), ("/text", &insert));
    assert_eq!((patches[1].path.as_str(), patches.len()), ("/n", 2));
    assert_eq!(shown.heads(), note(&us).read().unwrap().heads());
    // Own edits are shown too, and so is a removal.
    note(&us).put_json("/n", json!(4)).await.unwrap();
    let update = feed.next().await.unwrap();
    assert_eq!(update.patches.unwrap().len(), 1);
    note(&us).remove().await.unwrap();
    let gone = feed.next().await.unwrap();
    assert_eq!((gone.document.change_count(), gone.patches.is_none()), (0, true));
    us.replica.shutdown().await;
    assert!(matches!(feed.next().await, Err(WatchError::Stopped)));
}
