//! The command line: what it prints, and with which code it ends.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use std::path::Path;

use process::{Daemon, complaint, printed};
use serde_json::{Value, json};

struct At<'a>(&'a Path);

impl At<'_> {
    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["--data-dir", self.0.to_str().unwrap()], args].concat()
    }

    fn printed(&self, args: &[&str]) -> String {
        printed(&self.args(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&printed(&self.args(&[&["--json"], args].concat()))).unwrap()
    }

    fn complaint(&self, args: &[&str]) -> (i32, String) {
        complaint(&self.args(args))
    }
}

#[test]
fn objects_are_written_and_read_and_failures_have_codes_and_advice() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let at = At(&data);
    let (code, said) = at.complaint(&["status"]);
    assert!(code == 3 && said.contains("comity serve"), "{said}");
    assert!(at.json(&["init", "--space", "shop"])["replica"].as_str().unwrap().len() == 64);
    let daemon = Daemon::start(&data, &[]);
    at.printed(&["add", "shop", "counter", "stats", "likes", "-5"]);
    assert_eq!(at.printed(&["get", "shop", "counter", "stats", "likes"]), "-5");
    assert_eq!(
        at.json(&["get", "shop", "counter", "stats", "likes"]),
        json!({"kind": "counter", "value": -5})
    );
    let token = at.printed(&["put", "shop", "register", "orders", "17", "paid"]);
    assert_eq!(at.printed(&["get", "shop", "register", "orders", "17", "--at", &token]), "paid");
    at.printed(&["put", "shop", "document", "todos", "today", r#"{"title": "Milk"}"#]);
    at.printed(&["edit", "shop", "todos", "today", "--merge", r#"{"n": 1}"#]);
    assert_eq!(
        at.json(&["get", "shop", "document", "todos", "today"])["value"],
        json!({"n": 1, "title": "Milk"})
    );
    at.printed(&["add", "shop", "set", "tags", "post", "rust"]);
    at.printed(&["rm", "shop", "set", "tags", "post", "rust"]);
    assert_eq!(at.printed(&["get", "shop", "set", "tags", "post"]), "");
    at.printed(&["put", "shop", "map", "settings", "ada", "true", "--path", "a/b", "--within", "flag"]);
    at.printed(&[
        "add", "shop", "map", "settings", "ada", "2", "--path", "n", "--path", "m", "--within", "counter",
    ]);
    let nested =
        ["get", "shop", "map", "settings", "ada", "--path", "n", "--path", "m", "--within", "counter"];
    assert_eq!(at.printed(&nested), "2");
    assert_eq!(at.json(&["get", "shop", "map", "settings", "ada"])["size"], 2);
    assert_eq!(at.printed(&["list", "shop", "register"]), "orders");
    assert_eq!(at.printed(&["list", "shop", "register", "orders"]), "17");
    assert_eq!(at.json(&["spaces"])["spaces"][0]["name"], "shop");
    assert_eq!(at.json(&["members", "shop"])["members"][0]["role"], "admin");
    assert_eq!(at.json(&["status"])["ready"], true);
    let policy = at.printed(&["policy", "shop", "orders", "union", "--idempotency-key", "once"]);
    assert_eq!(at.printed(&["policy", "shop", "orders", "union", "--idempotency-key", "once"]), policy);
    assert_eq!(at.printed(&["policy", "shop", "orders"]), "union");
    for (args, code, words) in [
        (&["get", "nowhere", "counter", "a", "b"][..], 4, "comity spaces"),
        (&["get", "shop", "register", "orders", "18"], 4, "holds nothing"),
        (&["get", "shop", "heap", "a", "b"], 2, "there is no kind"),
        (&["add", "shop", "bounded-counter", "stock", "apple", "-1", "--wait-ms", "1"], 5, "rights"),
        (
            &["add", "shop", "counter", "a", "b", "1", "--durability", "remote=1", "--wait-ms", "1"],
            6,
            "goes on spreading",
        ),
        (&["put", "shop", "counter", "a", "b", "1"], 5, "comity add"),
        (&["put", "shop", "map", "a", "b", "1"], 2, "--within register"),
        (&["add", "shop", "map", "a", "b", "1"], 2, "--within counter"),
        (
            &["resolve", "shop", "register", "orders", "17"],
            2,
            "--keep <DOT>|--value <JSON>|--keep-kind <KIND>",
        ),
        (&["invite", "shop"], 5, "peers.listen"),
        (&["resolve", "shop", "register", "orders", "17", "--value", "x"], 5, "no conflict"),
        (&["frobnicate"], 2, "unrecognized"),
    ] {
        let (found, said) = at.complaint(args);
        assert!(found == code && said.contains(words), "{args:?} ended with {found}: {said}");
    }
    // All of what is larger than a page is printed.
    let space = format!("/v1/spaces/{}", at.json(&["spaces"])["spaces"][0]["id"].as_str().unwrap());
    let insert = |number: usize| json!({"kind": "set", "collection": "tags", "key": "many", "do": {"op": "insert", "element": number}});
    let operations: Vec<Value> = (0..2_345).map(insert).collect();
    assert_eq!(
        daemon.send("POST", &format!("{space}/transactions"), &json!({"operations": operations})).status,
        200
    );
    assert_eq!(at.printed(&["get", "shop", "set", "tags", "many"]).lines().count(), 2_345);
    let whole = at.json(&["get", "shop", "set", "tags", "many"]);
    assert_eq!((whole["elements"].as_array().unwrap().len(), &whole["next"]), (2_345, &Value::Null));
    let url = format!("http://{}", daemon.address);
    assert_eq!(printed(&["--url", &url, "get", "shop", "counter", "stats", "likes"]), "-5");
    assert!(printed(&["completions", "bash"]).contains("complete -F _comity"));
}

#[test]
fn a_backup_is_consistent_checked_and_goes_on_as_another_incarnation() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let (data, restored) = (path("data"), path("restored"));
    let (at, other) = (At(&data), At(&restored));
    at.printed(&["init", "--space", "shop"]);
    let mut daemon = Daemon::start(&data, &[]);
    let space = format!("/v1/spaces/{}", at.json(&["spaces"])["spaces"][0]["id"].as_str().unwrap());
    // Each change set adds to both, so that half of one would show.
    let both: Vec<Value> = ["a", "b"]
        .iter()
        .map(|key| json!({"kind": "counter", "collection": "c", "key": key, "do": {"op": "add", "by": 1}}))
        .collect();
    let (address, body, into) =
        (daemon.address, json!({"operations": both}), format!("{space}/transactions"));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        let mut count = 0;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let stream = std::net::TcpStream::connect(address).unwrap();
            let headers = [("content-type", "application/json")];
            assert_eq!(process::ask(stream, "POST", &into, &headers, &body.to_string()).status, 200);
            count += 1;
        }
        count
    });
    daemon.until(&format!("{space}/counter/c/a"), |answer| answer.body["value"].as_i64() > Some(10));
    at.printed(&["backup", &text("backup")]);
    drop(stop);
    let written = loop {
        // The channel hung up, so the writer ends with its next look.
        if writing.is_finished() {
            break writing.join().unwrap();
        }
        std::thread::yield_now();
    };
    let (code, said) = at.complaint(&["backup", &text("backup")]);
    assert!(code == 1 && said.contains("is not empty"), "{said}");
    assert_eq!(at.json(&["verify"])["faults"], 0);
    let jobs = daemon.get("/v1/jobs").body["jobs"].clone();
    let verifying = jobs.as_array().unwrap().iter().find(|job| job["kind"] == "verify").unwrap();
    assert!(verifying["done"] == verifying["all"] && verifying["all"].as_u64() > Some(10), "{verifying}");
    assert_eq!(at.json(&["verify", "--backup", &text("backup")])["faults"], 0);
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    other.printed(&["restore", &text("backup")]);
    let (code, said) = other.complaint(&["restore", &text("backup")]);
    assert!(code == 1 && said.contains("restoring into"), "{said}");
    assert_eq!(other.json(&["verify"])["faults"], 0);
    let daemon = Daemon::start(&restored, &[]);
    let value = |key: &str| daemon.get(&format!("{space}/counter/c/{key}")).body["value"].as_i64().unwrap();
    assert!(
        value("a") > 10 && value("a") <= written && value("a") == value("b"),
        "{} of {written}",
        value("a")
    );
    let lanes = daemon.get(&space).body["lanes"].as_array().unwrap().len();
    other.printed(&["add", "shop", "counter", "c", "a", "1"]);
    assert_eq!(
        (lanes, daemon.get(&space).body["lanes"].as_array().unwrap().len()),
        (1, 2),
        "a lane of its own"
    );
    // One bit of a backup that is damaged is enough.
    let file = path("backup").join("comity.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (code, said) = At(&path("third")).complaint(&["restore", &text("backup")]);
    assert!(code == 1 && said.contains("is damaged"), "{said}");
    assert!(!path("third").exists());
}
