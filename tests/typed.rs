//! Registers, sets and registers in maps as an application's own types.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::collections::BTreeMap;

use comity::{ContentError, Policy, TxError, Value};
use regions::{Region, converge, pair};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Profile {
    name: String,
    age: Option<u8>,
    languages: Vec<String>,
    contact: Contact,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Contact {
    None,
    Mail { address: String },
}

/// An older version of the application, which knows of names only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OldProfile {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Tag {
    name: String,
    weight: u8,
}

fn ada() -> Profile {
    let contact = Contact::Mail { address: "ada@example.org".to_owned() };
    Profile { name: "Ada".to_owned(), age: Some(36), languages: vec!["en".to_owned()], contact }
}

fn tag(name: &str, weight: u8) -> Tag {
    Tag { name: name.to_owned(), weight }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_go_to_the_other_replica_and_back_also_through_an_older_version() {
    let (eu, us) = pair().await;
    let profile = eu.space.register("profiles", "ada").typed::<Profile>();
    assert_eq!(profile.read().unwrap(), None);
    profile.write(&ada()).await.unwrap();
    eu.space.map("people", "ada").register("profile").typed().write(&ada()).await.unwrap();
    let tags = eu.space.set("tags", "ada").typed::<Tag>();
    for tag in [tag("math", 3), tag("poetry", 1), tag("poetry", 1)] {
        tags.insert(&tag).await.unwrap();
    }
    eu.space.remove_wins_set("tags", "rw").typed().insert(&tag("math", 3)).await.unwrap();
    converge(&[&eu, &us]).await;

    assert_eq!(us.space.register("profiles", "ada").typed().read().unwrap(), Some(ada()));
    let view = us.space.view().unwrap();
    assert_eq!(view.register("profiles", "ada").unwrap().typed().value().unwrap(), Some(ada()));
    assert_eq!(view.register("profiles", "ada").unwrap().typed().latest().unwrap(), Some(ada()));
    let nested = view.map("people", "ada").register("profile").unwrap();
    assert_eq!(nested.typed().value().unwrap(), Some(ada()));
    let there = us.space.set("tags", "ada").typed::<Tag>();
    assert_eq!(there.elements().unwrap(), [tag("math", 3), tag("poetry", 1)]);
    assert!(there.contains(&tag("math", 3)).unwrap() && !there.contains(&tag("math", 4)).unwrap());
    let page = view.set("tags", "ada").typed::<Tag>();
    assert_eq!(page.elements(Some(&tag("math", 3)), 9).unwrap(), [tag("poetry", 1)]);
    assert!(page.contains(&tag("poetry", 1)).unwrap());
    assert!(view.remove_wins_set("tags", "rw").typed().contains(&tag("math", 3)).unwrap());
    there.remove(&tag("math", 3)).await.unwrap();
    assert_eq!(there.untyped().len().unwrap(), 1);

    // The older version renames, and what it does not know survives.
    let renamed = us.space.transact(|tx| {
        let mut old = tx.register("profiles", "ada").typed::<OldProfile>();
        let mut profile = old.read()?.ok_or_else(|| TxError::refuse("nobody"))?;
        profile.name = "Ada L.".to_owned();
        old.write(&profile)?;
        assert_eq!(old.read()?, Some(profile));
        let mut tags = tx.set("tags", "ada").typed::<Tag>();
        tags.insert(&tag("engines", 9))?;
        assert!(tags.contains(&tag("engines", 9))?);
        tags.remove(&tag("poetry", 1))?;
        tags.elements(None, 9)
    });
    assert_eq!(renamed.await.unwrap().value, [tag("engines", 9)]);
    converge(&[&eu, &us]).await;
    assert_eq!(profile.read().unwrap(), Some(Profile { name: "Ada L.".to_owned(), ..ada() }));
    assert_eq!(tags.elements().unwrap(), [tag("engines", 9)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_are_read_and_resolved_as_what_they_are() {
    let (eu, us) = pair().await;
    eu.space.set_policy("profiles", Policy::Siblings).await.unwrap();
    converge(&[&eu, &us]).await;
    us.replica.go_offline().await.unwrap();
    let (here, there) =
        (eu.space.register("profiles", "ada").typed(), us.space.register("profiles", "ada").typed());
    let other = Profile { age: None, contact: Contact::None, ..ada() };
    here.write(&ada()).await.unwrap();
    there.write(&other).await.unwrap();
    us.replica.go_online();
    converge(&[&eu, &us]).await;
    let error = here.read().unwrap_err();
    assert!(matches!(&error, ContentError::Undecided { siblings: 2, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "register profiles/ada holds 2 concurrent values, and the policy siblings shows them all"
    );
    let siblings = there.siblings().unwrap();
    assert!([ada(), other.clone()].iter().all(|profile| siblings.iter().any(|(_, found)| found == profile)));
    let seen: Vec<_> = siblings.iter().map(|(dot, _)| *dot).collect();
    there.resolve(&other, &seen).await.unwrap();
    converge(&[&eu, &us]).await;
    assert_eq!(here.read().unwrap(), Some(other));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_named_with_its_place() {
    let region = Region::founder().await;
    let (space, before) = (&region.space, region.status().await);
    let huge = BTreeMap::from([("n".to_owned(), u64::MAX)]);
    let error = space.register("c", "r").typed().write(&huge).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("register c/r: n") && error.contains("64 bits"), "{error}");
    let error = space.transact(move |tx| tx.set("c", "s").typed().insert(&huge)).await;
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("set c/s: n"), "{error}");
    let now = region.status().await;
    assert_eq!((&now.frontier, now.digest), (&before.frontier, before.digest));

    let profile = BTreeMap::from([("name".to_owned(), Value::from(7))]);
    space.map("c", "m").register("r").typed().write(&profile).await.unwrap();
    let error = space.map("c", "m").register("r").typed::<Profile>().read().unwrap_err();
    assert!(matches!(&error, ContentError::Typed { .. }), "{error}");
    assert!(error.to_string().contains("map c/m › r: name: expected a string"), "{error}");
    space.set("c", "s").insert("no tag").await.unwrap();
    let error = space.set("c", "s").typed::<Tag>().elements().unwrap_err().to_string();
    assert!(error.contains("set c/s"), "{error}");
    assert!(matches!(space.register("", "r").typed::<Tag>().read(), Err(ContentError::Read(_))));
}

#[test]
fn values_go_through_json_and_back_and_no_depth_overflows_the_stack() {
    let value = Value::from_serialize(&ada()).unwrap();
    let text = serde_json::to_string(&value).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), ada());
    let deep = (0..1_000_000).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    let error = serde_json::to_string(&deep).unwrap_err().to_string();
    assert!(error.contains("32"), "{error}");
    let deep = "[".repeat(100) + &"]".repeat(100);
    let error = serde_json::from_str::<Value>(&deep).unwrap_err().to_string();
    assert!(error.contains("32"), "{error}");
}
