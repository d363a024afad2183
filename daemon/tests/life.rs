//! Starting, being refused, going down.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use std::net::TcpStream;
use std::path::Path;

use process::{Daemon, Feed, comity, complaint, run};
use serde_json::json;

fn refusal(dir: &Path, args: &[&str]) -> String {
    let serve = ["serve", "--data-dir", dir.to_str().unwrap(), "--http", "127.0.0.1:0"];
    let (code, said) = complaint(&[&serve, args].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("comity: cannot start: ") && said.lines().count() == 1, "{said}");
    said
}

#[test]
fn it_refuses_to_start_where_it_cannot_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let locked = directory.path().join("locked");
    let daemon = Daemon::start(&locked, &[]);
    let said = refusal(&locked, &[]);
    assert!(
        said.contains(&format!("in use by process {}", daemon.pid())) && said.contains("Stop that process"),
        "{said}"
    );
    let foreign = directory.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(
        foreign.join("comity.redb"),
        "something else, and long enough to be looked at ".repeat(100),
    )
    .unwrap();
    let said = refusal(&foreign, &[]);
    assert!(
        said.contains("is not the data file of a Comity store") && said.contains("Nothing was changed"),
        "{said}"
    );
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = refusal(&file, &[]);
    assert!(said.contains("is not a directory") && said.contains("data_dir"), "{said}");
    let gone = directory.path().join("gone");
    assert!(run(&["--data-dir", gone.to_str().unwrap(), "init"]).status.success());
    std::fs::remove_file(gone.join("comity.redb")).unwrap();
    let said = refusal(&gone, &[]);
    assert!(
        said.contains("is missing from the directory of a replica") && said.contains("comity restore"),
        "{said}"
    );
    let taken = daemon.address.to_string();
    let other = directory.path().join("other");
    let (code, said) = complaint(&["serve", "--data-dir", other.to_str().unwrap(), "--http", &taken]);
    assert!(code == 1 && said.contains(&taken) && said.contains("Choose another address"), "{said}");
}

#[test]
fn a_configuration_that_is_none_is_a_usage_error_that_names_the_nearest_key() {
    let (code, said) = complaint(&["serve", "--set", "http.conections_max=3"]);
    assert!(code == 2 && said.contains("the nearest one is \"http.connections_max\""), "{said}");
    let output = comity(&["serve"]).env("COMITY_REDY_LAG_MAX", "1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("COMITY_READY_LAG_MAX"), "{said}");
    let (code, said) = complaint(&["serve", "--http", "0.0.0.0:0"]);
    assert!(code == 2 && said.contains("comity token"), "{said}");
}

#[test]
fn sigterm_lets_requests_under_way_end_and_ends_feeds() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    let mut feed = Feed::open(&daemon, &format!("{space}/changes"), None);
    assert_eq!(feed.next().unwrap().name, "open");
    // Nobody else is there, so the write waits for its time to be over.
    let (address, path) = (daemon.address, format!("{space}/counter/c/k?durability=remote=1&wait_ms=1500"));
    let writing = std::thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        process::ask(
            stream,
            "POST",
            &path,
            &[("content-type", "application/json")],
            r#"{"op": "add", "by": 1}"#,
        )
    });
    assert_eq!(feed.next().unwrap().name, "change", "the write is under way");
    daemon.signal("TERM");
    assert!(feed.next().is_none(), "the feed ends");
    let answer = writing.join().unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(daemon.wait(), Some(0));
    assert!(TcpStream::connect(daemon.address).is_err());
    assert!(!directory.path().join("comity.sock").exists());
    let again = Daemon::start(directory.path(), &[]);
    assert_eq!(again.get(&format!("{space}/counter/c/k")).body["value"], 1);
}

#[test]
fn what_takes_longer_than_the_drain_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(directory.path(), &["--set", "drain_ms_max=100"]);
    let space = daemon.space("shop");
    let mut feed = Feed::open(&daemon, &format!("{space}/changes"), None);
    assert_eq!(feed.next().unwrap().name, "open");
    let (address, path) = (daemon.address, format!("{space}/counter/c/k?durability=remote=1&wait_ms=600000"));
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(address).unwrap();
        let body = r#"{"op": "add", "by": 1}"#;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // Cut without an answer.
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(feed.next().unwrap().name, "change");
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn readiness_waits_for_a_peer_and_for_what_it_has() {
    let (eu_dir, us_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let eu = Daemon::start(eu_dir.path(), &["--listen", "127.0.0.1:0"]);
    let space = eu.space("shop");
    assert_eq!(eu.get("/readyz").status, 200, "a founder waits for nobody");
    let ticket = eu.send("POST", &format!("{space}/invitations"), &json!({})).body["ticket"].clone();
    let us = Daemon::start(us_dir.path(), &[]);
    assert_eq!(us.send("POST", "/v1/join", &json!({"ticket": ticket})).status, 200);
    us.until("/readyz", |answer| answer.status == 200);
    assert_eq!(us.get("/healthz").status, 200);
    drop(us);
    eu.kill();
    // Nobody can be caught up with, so it waits as long as it is told to.
    let us = Daemon::start(us_dir.path(), &["--set", "ready.peers_ms_max=600000"]);
    let waiting = us.get("/readyz");
    assert_eq!((waiting.status, &waiting.body["reason"]), (503, &json!("no peer is connected yet")));
    assert_eq!(us.get("/healthz").status, 200);
    drop(us);
    let us = Daemon::start(us_dir.path(), &["--set", "ready.peers_ms_max=0"]);
    assert_eq!(us.get("/readyz").status, 200, "a region that is cut off serves");
}
