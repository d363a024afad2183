use automerge::ReadDoc;

use super::*;
use crate::{ChunkLimits, Document, RawChange};

fn document() -> Document {
    let mut document = Document::new(ALICE);
    let changes: Vec<_> = base().iter().map(|chunk| RawChange::parse(chunk).unwrap()).collect();
    assert_eq!(document.apply(&changes).unwrap().applied.len(), changes.len());
    document
}

/// The document is as it was, takes edits, and can be saved and loaded.
fn assert_unharmed(document: &mut Document, heads: &[[u8; 32]], saved: &[u8]) {
    assert_eq!(document.heads(), heads);
    assert_eq!(document.automerge().save(), saved);
    document.edit(0, |tx| tx.put(ROOT, "after", 1)).unwrap();
    let loaded = Automerge::load(&document.automerge().save()).unwrap();
    assert_eq!(loaded.hydrate(None), document.automerge().hydrate(None));
}

#[test]
fn everything_hostile_is_refused_where_it_should_be_and_leaves_no_trace() {
    let document = document();
    let (heads, saved) = (document.heads(), document.automerge().save());
    for Hostile { name, bytes, stage } in changes() {
        let parsed = RawChange::parse(&bytes);
        let supplied = RawChange::read_chunks(&bytes, &ChunkLimits::DEFAULT);
        match (stage, parsed) {
            (Stage::Parse, refused) => {
                let refused = refused.map(|_| ()).unwrap_err();
                assert_eq!(supplied, Err(refused), "{name}");
            }
            (Stage::Apply, change) => {
                let change = change.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(supplied, Ok(vec![change.clone()]), "{name}");
                let mut document = document.clone();
                let outcome = document.apply(std::slice::from_ref(&change)).unwrap();
                assert!(outcome.applied.is_empty(), "{name} was applied");
                assert_eq!(outcome.refused.len(), 1, "{name}");
                println!("{name}: {}", outcome.refused[0].1);
                assert_unharmed(&mut document, &heads, &saved);
            }
        }
    }
}

#[test]
fn something_hostile_in_a_batch_takes_nothing_with_it() {
    for Hostile { name, bytes, stage } in changes() {
        if stage == Stage::Parse {
            continue;
        }
        let mut bob = Document::new([0xb0; 16]);
        let mut batch: Vec<_> = base().iter().map(|chunk| RawChange::parse(chunk).unwrap()).collect();
        bob.apply(&batch).unwrap();
        for n in 0..3 {
            batch.extend(bob.edit(0, |tx| tx.put(ROOT, "b", n)).unwrap().1);
        }
        batch.insert(0, RawChange::parse(&bytes).unwrap());
        let mut document = Document::new(ALICE);
        let outcome = document.apply(&batch).unwrap();
        assert_eq!((outcome.applied.len(), outcome.refused.len()), (batch.len() - 1, 1), "{name}");
        assert_unharmed(&mut document, &bob.heads(), &bob.automerge().save());
    }
}

/// What Automerge itself does with each of these is why they are refused.
#[test]
fn each_hostile_change_that_is_refused_on_application_is_harmful_at_once_or_later() {
    let others = [
        "three hundred nested maps",
        "one nested map too many",
        "an element in a map",
        "an element in the root",
        "an inserted key",
        "a mark in a list",
    ];
    for Hostile { name, bytes, stage } in changes() {
        if stage == Stage::Parse || others.contains(&name) {
            continue;
        }
        let harmless = crate::guard::guard(|| {
            let mut automerge = Automerge::new();
            let chunks = base().into_iter().chain([bytes.clone()]);
            let changes = chunks.map(|chunk| Change::try_from(&chunk[..]).unwrap());
            automerge.apply_changes(changes).ok()?;
            let loaded = Automerge::load(&automerge.save()).ok()?;
            loaded.get_change_by_hash(&Change::try_from(&bytes[..]).unwrap().hash())
        });
        println!("{name}: {}", if harmless.is_err() { "panics" } else { "is refused or does not load" });
        assert!(!matches!(harmless, Ok(Some(_))), "{name} does no harm");
    }
}

/// What Automerge stores and loads, and fails on when somebody else changes the map.
#[test]
fn an_element_or_an_inserted_key_in_a_map_does_harm_later() {
    let element = Op { key: Key::head(), insert: true, ..put("x") };
    let inserted = Op { insert: true, ..put("n") };
    for operations in [vec![element.clone(), element], vec![inserted]] {
        let chunks: Vec<_> = base().into_iter().chain([encode(forged(operations))]).collect();
        let mut automerge = Automerge::new().with_actor(ActorId::from(&[0xb0; 16][..]));
        automerge.apply_changes(chunks.iter().map(|chunk| Change::try_from(&chunk[..]).unwrap())).unwrap();
        Automerge::load(&automerge.save()).unwrap();
        let harmless = crate::guard::guard(|| {
            for key in ["a", "z", "m", "a"] {
                automerge.transact(|tx| tx.put(ROOT, key, 1).and_then(|()| tx.put(ROOT, "n", 3))).ok()?;
            }
            let mut other = Automerge::new();
            other.apply_changes(automerge.get_changes(&[])).ok()?;
            Automerge::load(&other.save()).ok()
        });
        assert!(!matches!(harmless, Ok(Some(_))), "Automerge gets by");
    }
}

#[test]
fn a_mark_in_a_list_cannot_be_read() {
    let bytes = changes().into_iter().find(|hostile| hostile.name == "a mark in a list").unwrap().bytes;
    let chunks: Vec<_> = base().into_iter().chain([bytes]).collect();
    let mut automerge = Automerge::new();
    automerge.apply_changes(chunks.iter().map(|chunk| Change::try_from(&chunk[..]).unwrap())).unwrap();
    let loaded = Automerge::load(&automerge.save()).unwrap();
    assert!(crate::guard::guard(|| loaded.hydrate(None)).is_err());
}
