//! Objects, transactions, guarantees and decisions over HTTP.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use std::collections::BTreeSet;

use process::{Answer, Daemon};
use serde_json::{Value, json};

fn written(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["reached"], true);
    assert_eq!(answer.header("comity-token"), answer.body["token"].as_str());
    answer.body["token"].as_str().unwrap().to_owned()
}

fn shown(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("comity-token").is_some(), "{answer:?}");
    answer.body
}

#[test]
fn every_kind_is_written_read_listed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    let act =
        |object: &str, action: Value| written(&daemon.send("POST", &format!("{space}/{object}"), &action));
    let steps = [
        ("counter/c/k", json!({"op": "add", "by": -3}), json!({"kind": "counter", "value": -3})),
        ("flag/c/k", json!({"op": "enable"}), json!({"kind": "flag", "value": true})),
        (
            "disable-wins-flag/c/k",
            json!({"op": "enable"}),
            json!({"kind": "disable-wins-flag", "value": true}),
        ),
        (
            "set/c/k",
            json!({"op": "insert", "element": [1, {"$bytes": "AA=="}]}),
            json!({"kind": "set", "size": 1, "elements": [[1, {"$bytes": "AA=="}]], "next": null}),
        ),
        (
            "remove-wins-set/c/k",
            json!({"op": "insert", "element": "x"}),
            json!({"kind": "remove-wins-set", "size": 1, "elements": ["x"], "next": null}),
        ),
        (
            "map/c/k",
            json!({"op": "within", "path": ["a", "b"], "kind": "counter", "do": {"op": "add", "by": 2}}),
            json!({"kind": "map", "size": 1, "entries": [{"key": "a", "holds": [{"kind": "map", "size": 1}]}], "next": null}),
        ),
    ];
    for (object, action, wanted) in steps {
        act(object, action);
        assert_eq!(shown(&daemon, &format!("{space}/{object}")), wanted, "{object}");
    }
    assert_eq!(shown(&daemon, &format!("{space}/map/c/k?path=a&path=b&kind=counter"))["value"], 2);
    act("bounded-counter/c/k", json!({"op": "increase", "by": 5}));
    act("bounded-counter/c/k", json!({"op": "decrease", "by": 2}));
    assert_eq!(shown(&daemon, &format!("{space}/bounded-counter/c/k"))["value"], 3);
    written(&daemon.send("PUT", &format!("{space}/register/c/k"), &json!({"value": {"a": 1.5}})));
    let register = shown(&daemon, &format!("{space}/register/c/k"));
    assert_eq!((&register["state"], &register["value"]), (&json!("value"), &json!({"a": 1.5})));
    written(&daemon.send("PUT", &format!("{space}/document/c/k"), &json!({"title": "Milk"})));
    for kind in comity::Kind::APPLICATION.map(comity::Kind::name) {
        assert_eq!(
            shown(&daemon, &format!("{space}/{kind}")),
            json!({"collections": ["c"], "next": null}),
            "{kind}"
        );
        assert_eq!(
            shown(&daemon, &format!("{space}/{kind}/c")),
            json!({"keys": ["k"], "next": null}),
            "{kind}"
        );
        written(&daemon.ask("DELETE", &format!("{space}/{kind}/c/k"), &[], ""));
        assert_eq!(shown(&daemon, &format!("{space}/{kind}/c")), json!({"keys": [], "next": null}), "{kind}");
    }
    assert_eq!(daemon.get(&format!("{space}/register/c/k")).problem(), "not-found");
    assert_eq!(daemon.get(&format!("{space}/document/c/k")).problem(), "not-found");
}

#[test]
fn lists_are_paged_and_names_may_hold_anything() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    let add = |key: &str| json!({"kind": "counter", "collection": "a/b c", "key": key, "do": {"op": "add", "by": 1}});
    let keys = ["..", "a", "b%2F", "c/d", "ü\n"];
    let operations: Vec<Value> = keys.iter().map(|key| add(key)).collect();
    written(&daemon.send("POST", &format!("{space}/transactions"), &json!({"operations": operations})));
    let collection = format!("{space}/counter/a%2Fb%20c");
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = shown(&daemon, &format!("{collection}?limit=2{after}"));
        found.extend(page["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        let next: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
        after = format!("&after={next}");
    }
    assert_eq!(found, keys);
    assert_eq!(shown(&daemon, &format!("{collection}/c%2Fd"))["value"], 1);
    assert_eq!(shown(&daemon, &format!("{collection}?prefix=c"))["keys"], json!(["c/d"]));
    assert_eq!(daemon.get(&format!("{collection}?limit=0")).problem(), "bad-request");
}

#[test]
fn a_transaction_is_made_as_a_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    let order = json!({"kind": "register", "collection": "orders", "key": "17", "do": {"op": "write", "value": "paid"}});
    let take = json!({"kind": "bounded-counter", "collection": "stock", "key": "apple", "do": {"op": "decrease", "by": 1}});
    let both = json!({"operations": [order, take]});
    let path = format!("{space}/transactions");
    let refused = daemon.send("POST", &path, &both);
    assert_eq!((refused.status, refused.problem()), (409, "insufficient-rights"));
    assert_eq!(refused.body["operation"], 1);
    assert_eq!(daemon.get(&format!("{space}/register/orders/17")).status, 404);
    written(&daemon.send(
        "POST",
        &format!("{space}/bounded-counter/stock/apple"),
        &json!({"op": "increase", "by": 1}),
    ));
    written(&daemon.send("POST", &path, &both));
    assert_eq!(shown(&daemon, &format!("{space}/register/orders/17"))["value"], "paid");
    let misfit =
        json!({"operations": [{"kind": "counter", "collection": "a", "key": "b", "do": {"op": "enable"}}]});
    let refused = daemon.send("POST", &path, &misfit);
    assert_eq!((refused.problem(), &refused.body["operation"]), ("bad-request", &json!(0)));
}

#[test]
fn documents_take_both_kinds_of_patches_and_show_their_history() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    let path = format!("{space}/document/todos/today");
    written(&daemon.send("PUT", &path, &json!({"title": "Milk", "done": false})));
    let first = shown(&daemon, &path)["heads"][0].as_str().unwrap().to_owned();
    let patch =
        |kind: &str, body: &Value| daemon.ask("PATCH", &path, &[("content-type", kind)], &body.to_string());
    written(&patch("application/merge-patch+json", &json!({"done": null, "tags": ["a"]})));
    written(&patch("application/json-patch+json", &json!([{"op": "add", "path": "/tags/-", "value": "b"}])));
    assert_eq!(shown(&daemon, &path)["value"], json!({"title": "Milk", "tags": ["a", "b"]}));
    assert_eq!(shown(&daemon, &format!("{path}?pointer=/tags/1"))["value"], "b");
    assert_eq!(
        shown(&daemon, &format!("{path}?heads={first}"))["value"],
        json!({"title": "Milk", "done": false})
    );
    let failed =
        patch("application/json-patch+json", &json!([{"op": "test", "path": "/title", "value": "x"}]));
    assert_eq!((failed.status, failed.problem()), (422, "refused"));
    assert_eq!(patch("text/plain", &json!({})).problem(), "unsupported-media-type");
    let versions = shown(&daemon, &format!("{path}/versions?limit=2"));
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
    let next = versions["next"].as_str().unwrap();
    let rest = shown(&daemon, &format!("{path}/versions?after={next}"));
    assert_eq!(rest["versions"][0]["hash"], first.as_str());
    assert!(!shown(&daemon, &format!("{path}/diff?from={first}"))["patches"].as_array().unwrap().is_empty());
    written(&daemon.send(
        "POST",
        &path,
        &json!({"op": "splice", "pointer": "/title", "position": 4, "insert": "!"}),
    ));
    written(&daemon.send("POST", &path, &json!({"op": "restore", "heads": [first]})));
    assert_eq!(shown(&daemon, &path)["value"], json!({"title": "Milk", "done": false}));
}

#[test]
fn a_repeated_key_is_not_written_twice_and_tokens_order_reads_after_writes() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let (space, other) = (daemon.space("shop"), daemon.space("other"));
    let path = format!("{space}/counter/stats/likes");
    let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
    let first = daemon.ask("POST", &path, &headers, r#"{"op": "add", "by": 1}"#);
    let again = daemon.ask("POST", &path, &headers, r#"{"op": "add", "by": 1}"#);
    assert_eq!((&first.body["deduplicated"], &again.body["deduplicated"]), (&json!(false), &json!(true)));
    assert_eq!(written(&first), written(&again));
    let token = written(&first);
    let read = daemon.ask("GET", &path, &[("comity-token", &token)], "");
    assert_eq!(read.body["value"], 1);
    let elsewhere =
        daemon.ask("GET", &format!("{other}/counter/stats/likes"), &[("comity-token", &token)], "");
    assert_eq!((elsewhere.status, elsewhere.problem()), (409, "token-of-another-space"));
    assert_eq!(daemon.ask("GET", &path, &[("comity-token", "AAAA")], "").problem(), "bad-request");
    let late = daemon.ask(
        "POST",
        &format!("{path}?wait_ms=1"),
        &[("content-type", "application/json"), ("comity-durability", "remote=1")],
        r#"{"op": "add", "by": 1}"#,
    );
    assert_eq!((late.status, &late.body["reached"]), (202, &json!(false)), "{late:?}");
    assert_eq!(late.body["durability"]["needed"], 1);
    assert_eq!(daemon.get(&path).body["value"], 2);
    let regions = daemon.ask(
        "POST",
        &path,
        &[("content-type", "application/json"), ("comity-durability", "moon")],
        "{}",
    );
    assert_eq!(regions.problem(), "bad-request");
}

#[test]
fn two_regions_replicate_disagree_and_decide() {
    let (eu_dir, us_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let eu = Daemon::start(eu_dir.path(), &["--region", "eu", "--listen", "127.0.0.1:0"]);
    let space = eu.space("shop");
    written(&eu.send("PUT", &format!("{space}/policies/orders"), &json!({"policy": "siblings"})));
    let ticket = eu.send("POST", &format!("{space}/invitations"), &json!({})).body["ticket"].clone();
    let us = Daemon::start(us_dir.path(), &["--region", "us"]);
    assert_eq!(us.send("POST", "/v1/join", &json!({"ticket": ticket})).status, 200);
    let both = eu.send(
        "POST",
        &format!("{space}/counter/stats/likes?durability=remote=1"),
        &json!({"op": "add", "by": 2}),
    );
    assert_eq!((both.status, &both.body["reached"]), (200, &json!(true)), "{both:?}");
    assert_eq!(us.get(&format!("{space}/counter/stats/likes?fresh_ms=0")).body["value"], 2);
    us.until("/readyz", |answer| answer.status == 200);
    let order = format!("{space}/register/orders/17");
    written(&us.send("PUT", &format!("{order}?durability=remote=1"), &json!({"value": "from us"})));
    // Each replaces only what it had seen: the dot of neither.
    for (daemon, value) in [(&eu, "one"), (&us, "two")] {
        written(&daemon.send("PUT", &order, &json!({"value": value, "seen": []})));
    }
    let conflicts = eu.until(&format!("{space}/conflicts"), |answer| {
        answer.body["conflicts"][0]["siblings"].as_array().is_some_and(|siblings| siblings.len() == 3)
    });
    let conflict = &conflicts.body["conflicts"][0];
    assert_eq!(eu.get(&order).body["state"], "conflict");
    let seen: Vec<&Value> =
        conflict["siblings"].as_array().unwrap().iter().map(|sibling| &sibling["dot"]).collect();
    let decision = json!({"location": conflict["location"], "seen": seen, "keep": seen[1]});
    let kept = conflict["siblings"][1]["value"].clone();
    written(&eu.send("POST", &format!("{space}/conflicts/resolve"), &decision));
    assert_eq!(eu.get(&order).body["value"], kept);
    assert_eq!(eu.get(&format!("{space}/conflicts")).body["conflicts"], json!([]));
    let again = eu.send("POST", &format!("{space}/conflicts/resolve"), &decision);
    assert_eq!((again.status, again.problem()), (409, "no-such-conflict"));
    let journal = shown(&eu, &format!("{space}/journal?limit=2"));
    assert_eq!((journal["entries"].as_array().unwrap().len(), &journal["totals"]["entries"]), (2, &json!(3)));
    let next = journal["next"].as_str().unwrap();
    let last = shown(&eu, &format!("{space}/journal?after={next}"));
    assert_eq!((last["entries"].as_array().unwrap().len(), &last["next"]), (1, &Value::Null));
    let entry = &last["entries"][0];
    let restoring = json!({"location": entry["location"], "dot": entry["dot"]});
    written(&eu.send("POST", &format!("{space}/journal/restore"), &restoring));
    assert_eq!(eu.get(&order).body["value"], entry["value"]);
    let us_id = us.get("/v1/status").body["replica"].as_str().unwrap().to_owned();
    assert_eq!(eu.ask("DELETE", &format!("{space}/members/{us_id}"), &[], "").status, 204);
    let refused = loop {
        let answer = us.send("POST", &format!("{space}/counter/stats/likes"), &json!({"op": "add", "by": 1}));
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.problem()), (403, "not-writer"));
    assert_eq!(eu.ask("DELETE", &format!("{space}/members/{us_id}"), &[], "").problem(), "not-member");
}

/// The figures that a file of rules or panels names.
fn figures_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("comity_")).collect()
}

#[test]
fn the_rules_and_panels_that_are_handed_out_name_figures_that_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    written(&daemon.send("POST", &format!("{space}/counter/c/k"), &json!({"op": "add", "by": 1})));
    let text = daemon.until("/metrics", |answer| answer.text.contains("comity_http_requests_total"));
    let there: BTreeSet<&str> = figures_in(&text.text);
    for file in [include_str!("../deploy/alerts.yml"), include_str!("../deploy/grafana.json")] {
        let named = figures_in(file);
        assert!(named.len() > 5, "{named:?}");
        // Those of single peers are there once one was connected.
        let missing = named.iter().filter(|name| !there.contains(*name) && !name.starts_with("comity_peer_"));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
    }
}
