//! Change feeds: where a reader is, it goes on, whatever happened to the daemon.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use process::{Daemon, Feed};
use serde_json::json;

#[test]
fn a_feed_goes_on_after_kill_9_with_nothing_left_out_and_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(directory.path(), &[]);
    let space = daemon.space("shop");
    let feed_path = format!("{space}/changes");
    let mut feed = Feed::open(&daemon, &feed_path, None);
    let open = feed.next().unwrap();
    assert_eq!(open.name, "open");
    let (mut last, mut seen, mut acknowledged) = (open.id, Vec::new(), 0);
    for life in 0..4 {
        for _ in 0..10 {
            acknowledged += 1;
            let body = json!({"op": "add", "by": acknowledged});
            assert_eq!(daemon.send("POST", &format!("{space}/counter/c/k"), &body).status, 200);
        }
        // Some were read before the daemon is killed, some never are by this connection.
        for _ in 0..life * 3 {
            let event = feed.next().unwrap();
            seen.push(event.data["changes"][0]["did"][0]["by"].as_i64().unwrap());
            last = event.id;
        }
        daemon.kill();
        daemon = Daemon::start(directory.path(), &[]);
        feed = Feed::open(&daemon, &feed_path, Some(&last));
        assert_eq!(feed.next().unwrap().id, last, "it says from where it goes on");
    }
    while seen.len() < 40 {
        let event = feed.next().unwrap();
        assert_eq!(event.name, "change");
        seen.push(event.data["changes"][0]["did"][0]["by"].as_i64().unwrap());
    }
    assert_eq!(seen, (1..=40).collect::<Vec<i64>>());
}

#[test]
fn a_feed_shows_what_it_is_asked_for_and_too_many_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &["--set", "http.streams_max=2"]);
    let space = daemon.space("shop");
    let mut one = Feed::open(&daemon, &format!("{space}/changes?collection=b"), None);
    let mut conflicts = Feed::open(&daemon, &format!("{space}/conflicts/events"), None);
    assert_eq!(
        (one.next().unwrap().name, conflicts.next().unwrap().name),
        ("open".to_owned(), "open".to_owned())
    );
    let refused = daemon.get(&format!("{space}/changes"));
    assert_eq!((refused.status, refused.problem()), (429, "too-many-streams"));
    for collection in ["a", "b"] {
        daemon.send(
            "POST",
            &format!("{space}/set/{collection}/k"),
            &json!({"op": "insert", "element": collection}),
        );
    }
    let event = one.next().unwrap();
    assert_eq!(event.data["changes"][0]["collection"], "b");
    daemon.send("PUT", &format!("{space}/policies/p"), &json!({"policy": "siblings"}));
    assert_eq!(conflicts.next().unwrap().name, "policy");
    drop(one);
    daemon.until(&format!("{space}/changes?collection="), |answer| answer.status == 400);
}
