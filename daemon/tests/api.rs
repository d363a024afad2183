//! Objects, transactions, guarantees and decisions over HTTP.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use std::collections::{BTreeMap, BTreeSet};

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

/// The operations of the description that change something: their ids, with whether they take an `Idempotency-Key`.
fn operations_that_change(daemon: &Daemon) -> BTreeMap<String, bool> {
    let document = daemon.get("/v1/openapi.json").body;
    let paths = document["paths"].as_object().unwrap().values();
    let operations =
        paths.flat_map(|path| path.as_object().unwrap().iter().filter(|(method, _)| *method != "get"));
    let takes_key = |operation: &Value| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.into_iter().any(|parameter| parameter["name"] == "Idempotency-Key")
    };
    operations
        .map(|(_, operation)| (operation["operationId"].as_str().unwrap().to_owned(), takes_key(operation)))
        .collect()
}

#[test]
fn whatever_makes_a_change_set_can_be_repeated_by_its_key_and_all_else_refuses_one() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    written(&daemon.send("PUT", &format!("{space}/policies/orders"), &json!({"policy": "siblings"})));
    let order = format!("{space}/register/orders/17");
    for value in ["one", "two", "three"] {
        written(&daemon.send("PUT", &order, &json!({"value": value, "seen": []})));
    }
    written(&daemon.send("PUT", &format!("{space}/document/todos/today"), &json!({"title": "Milk"})));
    let conflict = daemon.get(&format!("{space}/conflicts")).body["conflicts"][0].clone();
    let (location, siblings) = (&conflict["location"], &conflict["siblings"]);
    let dots: Vec<&Value> = siblings.as_array().unwrap().iter().map(|sibling| &sibling["dot"]).collect();
    let counter =
        |key: &str| json!({"kind": "counter", "collection": "c", "key": key, "do": {"op": "add", "by": 1}});
    let json = "application/json";
    let repeatable = [
        ("setPolicy", "PUT", "policies/orders", json, json!({"policy": "union"})),
        (
            "resolve",
            "POST",
            "conflicts/resolve",
            json,
            json!({"location": location, "seen": dots, "keep": dots[1]}),
        ),
        ("restore", "POST", "journal/restore", json, json!({"location": location, "dot": dots[0]})),
        ("transact", "POST", "transactions", json, json!({"operations": [counter("a"), counter("b")]})),
        ("put", "PUT", "register/orders/18", json, json!({"value": 1, "seen": []})),
        ("act", "POST", "counter/c/a", json, json!({"op": "add", "by": 1})),
        ("patch", "PATCH", "document/todos/today", "application/merge-patch+json", json!({"n": 1})),
        ("remove", "DELETE", "document/todos/today", json, Value::Null),
    ];
    for (id, method, path, kind, body) in &repeatable {
        let path = format!("{space}/{path}");
        let make = |key: &str| {
            daemon.ask(method, &path, &[("content-type", *kind), ("idempotency-key", key)], &body.to_string())
        };
        let (first, again) = (make(id), make(id));
        assert_eq!(first.body["deduplicated"], false, "{id}: {first:?}");
        assert_eq!(again.body["deduplicated"], true, "{id}: {again:?}");
        assert_eq!(written(&first), written(&again), "{id}");
    }
    assert_eq!(shown(&daemon, &format!("{space}/counter/c/a"))["value"], 2);
    assert_eq!(shown(&daemon, &format!("{space}/register/orders/18"))["value"], 1);
    let replica = "0".repeat(64);
    let others = [
        ("createSpace", "POST", "/v1/spaces".to_owned()),
        ("join", "POST", "/v1/join".to_owned()),
        ("beginJob", "POST", "/v1/jobs".to_owned()),
        ("invite", "POST", format!("{space}/invitations")),
        ("grant", "PUT", format!("{space}/members/{replica}")),
        ("revoke", "DELETE", format!("{space}/members/{replica}")),
        ("leaveSpace", "POST", format!("{space}/leave")),
        ("deleteSpace", "DELETE", space.clone()),
        ("import", "POST", format!("{space}/document/todos/today/content")),
    ];
    for (id, method, path) in &others {
        for header in [("idempotency-key", "once"), ("comity-durability", "quorum")] {
            let refused = daemon.ask(method, path, &[header], "");
            assert_eq!((refused.status, refused.problem()), (400, "bad-request"), "{id}: {refused:?}");
        }
        let refused = daemon.ask(method, &format!("{path}?durability=all"), &[], "");
        assert!(refused.text.contains("no other durability"), "{id}: {refused:?}");
    }
    let known = repeatable.iter().map(|(id, ..)| (id.to_string(), true));
    let known = known.chain(others.iter().map(|(id, ..)| (id.to_string(), false)));
    assert_eq!(operations_that_change(&daemon), known.collect(), "each is tried here");
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

/// The figures that a text names, and the labels that go with each: those in `{…}` after it.
fn figures_in(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let starts = text.match_indices("comity_").chain(text.match_indices("process_"));
    for (at, _) in starts.filter(|(at, _)| !text[..*at].ends_with(is_name)) {
        let name: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
        let labels = text[at + name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next());
        let labels = labels.unwrap_or_default().split(',').filter_map(|label| label.split(['=', '!']).next());
        let labels = labels.filter(|label| !label.is_empty() && label.chars().all(is_name));
        found.entry(name).or_default().extend(labels.map(str::to_owned));
    }
    found
}

/// Labels that Prometheus adds to what it scrapes, or makes itself.
const ADDED: [&str; 3] = ["job", "instance", "le"];

#[test]
fn the_rules_and_panels_that_are_handed_out_name_figures_and_labels_that_there_are() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::start(directory.path(), &["--listen", "127.0.0.1:0"]);
    let space = daemon.space("shop");
    written(&daemon.send("POST", &format!("{space}/counter/c/k"), &json!({"op": "add", "by": 1})));
    let ticket = daemon.send("POST", &format!("{space}/invitations"), &json!({})).body["ticket"].clone();
    let peer = Daemon::start(other.path(), &[]);
    assert_eq!(peer.send("POST", "/v1/join", &json!({"ticket": ticket})).status, 200);
    let text = daemon.until("/metrics", |answer| answer.text.contains("comity_peer_lag_changes{"));
    let there = figures_in(&text.text);
    let panels: Value = serde_json::from_str(include_str!("../deploy/grafana.json")).unwrap();
    let targets = panels["panels"].as_array().unwrap().iter().flat_map(|panel| {
        assert!(panel["title"].is_string(), "{panel}");
        panel["targets"].as_array().into_iter().flatten()
    });
    let mut expressions: Vec<(String, Vec<String>)> = Vec::new();
    for target in targets {
        let legend = target["legendFormat"].as_str().unwrap().split("{{").skip(1);
        let labels = legend.filter_map(|rest| rest.split("}}").next()).map(str::to_owned);
        expressions.push((target["expr"].as_str().unwrap().to_owned(), labels.collect()));
    }
    assert!(expressions.len() > 15, "{expressions:?}");
    let rules = include_str!("../deploy/alerts.yml").split("- alert: ").skip(1).map(|rule| {
        let expression = rule.split("expr: ").nth(1).unwrap().lines().next().unwrap().to_owned();
        let labels =
            rule.split("$labels.").skip(1).map(|rest| rest.split([' ', '}']).next().unwrap().to_owned());
        (expression, labels.collect())
    });
    expressions.extend(rules);
    for (expression, shown) in &expressions {
        let named = figures_in(expression);
        assert!(!named.is_empty() || expression.starts_with("up{"), "{expression}");
        for (name, asked) in named {
            let labels = there.get(&name).unwrap_or_else(|| panic!("{expression}: there is no {name}"));
            let grouped = expression.split("by (").nth(1).and_then(|rest| rest.split(')').next());
            let grouped = grouped.into_iter().flat_map(|list| list.split(", ")).map(str::to_owned);
            for label in asked.iter().chain(shown).cloned().chain(grouped) {
                let is_there = labels.contains(&label) || ADDED.contains(&label.as_str());
                assert!(is_there, "{expression}: {name} has no label {label}");
            }
        }
    }
}

#[test]
fn several_kinds_are_resolved_as_they_were_seen_and_what_goes_can_be_restored() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    let map = format!("{space}/map/carts/ada");
    let within = |kind: &str, act: Value| {
        let act = json!({"op": "within", "path": ["x"], "kind": kind, "do": act});
        written(&daemon.send("POST", &map, &act));
    };
    within("counter", json!({"op": "add", "by": 5}));
    within("set", json!({"op": "insert", "element": "pear"}));
    let conflict = || daemon.get(&format!("{space}/conflicts")).body["conflicts"][0].clone();
    let old = conflict();
    assert_eq!((&old["matter"], &old["kinds"]), (&json!("kinds"), &json!(["counter", "set"])));
    within("set", json!({"op": "insert", "element": "plum"}));
    let resolve = |seen: &Value| {
        let decision = json!({"location": seen["location"], "kind": "counter", "state": seen["state"]});
        daemon.send("POST", &format!("{space}/conflicts/resolve"), &decision)
    };
    let refused = resolve(&old);
    assert_eq!(refused.status, 409, "{:?}", refused.body);
    written(&resolve(&conflict()));
    let entries = daemon.get(&format!("{space}/journal")).body["entries"].clone();
    let entries = entries.as_array().unwrap();
    let told = |entry: &Value| (entry["kind"].clone(), entry["reason"].clone(), entry["value"].clone());
    let mut all: Vec<_> = entries.iter().map(told).map(|(_, _, value)| value.to_string()).collect();
    all.sort_unstable();
    assert_eq!(all, ["\"pear\"", "\"plum\""]);
    assert!(entries.iter().all(|entry| told(entry).0 == "set" && told(entry).1 == "kind-removed"));
    for entry in entries {
        let restoring = json!({"location": entry["location"], "dot": entry["dot"]});
        written(&daemon.send("POST", &format!("{space}/journal/restore"), &restoring));
    }
    let elements = daemon.get(&format!("{map}?path=x&kind=set")).body;
    assert_eq!(elements["elements"], json!(["pear", "plum"]));
}
