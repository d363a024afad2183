//! The demo as a process: its regions write through their own API, its links are cut and heal, and it leaves nothing.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use process::{Answer, PATIENCE, ask, comity};
use serde_json::{Value, json};

/// A demo that runs, killed when it is dropped.
struct Demo {
    child: Child,
    address: SocketAddr,
}

impl Demo {
    /// Starts one with its temporary files in `dir`, and waits until its page is there.
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = comity(&[&["demo", "--port", "0"], args].concat());
        let child = command.env("TMPDIR", dir).stdout(Stdio::piped()).spawn().unwrap();
        let mut demo = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let lines = BufReader::new(demo.child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        for line in lines {
            said.push(line.clone());
            if let Some(url) = line.strip_prefix("Open   http://") {
                demo.address = url.split('/').next().unwrap().parse().unwrap();
                return demo;
            }
        }
        panic!("it did not start: {said:?}");
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        ask(TcpStream::connect(self.address).unwrap(), method, path, &json, &body.to_string())
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(TcpStream::connect(self.address).unwrap(), "GET", path, headers, "")
    }

    /// Looks until what the page shows is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let state = self.get("/demo/state", &[]).body;
            if wanted(&state) {
                return state;
            }
            assert!(Instant::now() < until, "{what}: {state:#}");
        }
    }

    fn set_links(&self, links: &[&str], condition: &str) {
        for link in links {
            let answer = self.send("POST", &format!("/demo/links/{link}"), &json!({"condition": condition}));
            assert_eq!(answer.status, 204, "{answer:?}");
        }
    }

    /// Does something to an object in a region.
    fn act(&self, region: &str, space: &str, object: &str, what: &Value) -> Answer {
        self.send("POST", &format!("/{region}/v1/spaces/{space}/{object}"), what)
    }

    /// Ends it as Ctrl-C does; the exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agrees(state: &Value) -> bool {
    let digests: Vec<&Value> =
        state["regions"].as_array().into_iter().flatten().map(|region| &region["digest"]).collect();
    digests.len() == 3 && !digests[0].is_null() && digests.windows(2).all(|pair| pair[0] == pair[1])
}

fn all(state: &Value, what: impl Fn(&Value) -> bool) -> bool {
    state["regions"].as_array().unwrap().iter().all(what)
}

#[test]
fn regions_diverge_while_a_link_is_cut_and_agree_once_it_heals() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo::start(dir.path(), &[]);
    let state = demo.until("the regions agree", agrees);
    let space = state["space"].as_str().unwrap().to_owned();
    let overview = demo.get(&format!("/eu/v1/spaces/{space}/overview"), &[]).body;
    let mut regions: Vec<&str> =
        overview["regions"].as_object().unwrap().values().filter_map(Value::as_str).collect();
    regions.sort_unstable();
    assert_eq!(regions, ["ap", "eu", "us"], "{overview}");
    demo.set_links(&["eu/us", "us/ap"], "cut");
    for (region, name, likes) in [("eu", "Ada King", 2), ("us", "Countess of Lovelace", 5)] {
        let write = json!({"op": "write", "value": name});
        assert_eq!(demo.act(region, &space, "register/profiles/ada", &write).status, 200);
        let add = json!({"op": "add", "by": likes});
        assert_eq!(demo.act(region, &space, "counter/stats/likes", &add).status, 200);
    }
    // Both type in the version that both had seen.
    let heads = &state["regions"][0]["note"]["heads"];
    for (region, text) in [("eu", "<Europe>"), ("us", "<America>")] {
        let typed = json!({"heads": heads, "position": 5, "insert": text});
        let answer = demo.send("POST", &format!("/demo/regions/{region}/type"), &typed);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // More is not sold than the region may, and the counter stays where it is.
    for sale in 0..5 {
        let sell = json!({"op": "decrease", "by": 1});
        let answer = demo.act("us", &space, "bounded-counter/stock/apples?wait_ms=50", &sell);
        assert_eq!(answer.status, if sale < 4 { 200 } else { 409 }, "{answer:?}");
    }
    let apart = demo.until("both sides have what they wrote", |state| {
        let likes: Vec<&Value> =
            state["regions"].as_array().unwrap().iter().map(|region| &region["likes"]).collect();
        likes == [&json!(5), &json!(8), &json!(5)]
    });
    assert!(!agrees(&apart));
    assert_eq!(apart["regions"][1]["stock"]["value"], 8);
    demo.set_links(&["eu/us", "us/ap"], "live");
    let healed =
        demo.until("the regions agree again", |state| agrees(state) && state["regions"][0]["likes"] == 10);
    assert!(all(&healed, |region| region["profile"]["state"] == "conflict"));
    assert!(all(&healed, |region| region["stock"]["value"] == 8));
    assert!(all(&healed, |region| {
        let text = region["note"]["text"].as_str().unwrap();
        text.starts_with("Three<") && text.contains("<Europe>") && text.contains("<America>")
    }));
    assert_eq!(demo.interrupt(), Some(0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something is left behind");
}

#[test]
fn what_is_typed_in_an_old_version_lands_where_it_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo::start(dir.path(), &[]);
    let state = demo.until("the regions agree", agrees);
    let heads = state["regions"][0]["note"]["heads"].clone();
    let type_in = |typed: &Value| {
        let answer = demo.send("POST", "/demo/regions/eu/type", typed);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["heads"].clone()
    };
    let first = type_in(&json!({"heads": heads, "position": 0, "insert": "Look: "}));
    // Somebody else, who has not seen that yet, deletes the first word; the first one goes on typing.
    type_in(&json!({"heads": heads, "position": 0, "delete": 6}));
    type_in(&json!({"heads": first, "position": 6, "insert": "all "}));
    demo.until("all regions have it", |state| {
        all(state, |region| region["note"]["text"].as_str().unwrap().starts_with("Look: all regions share"))
    });
}

#[test]
fn what_is_kept_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, temporary) = (dir.path().join("kept"), dir.path().join("temporary"));
    std::fs::create_dir(&temporary).unwrap();
    let keep = ["--keep", kept.to_str().unwrap()];
    let demo = Demo::start(&temporary, &keep);
    let state = demo.until("the regions agree", agrees);
    let space = state["space"].as_str().unwrap().to_owned();
    let add = json!({"op": "add", "by": 4});
    assert_eq!(demo.act("ap", &space, "counter/stats/likes", &add).status, 200);
    assert_eq!(demo.interrupt(), Some(0));
    let demo = Demo::start(&temporary, &keep);
    let state = demo.until("all have it", |state| agrees(state) && state["regions"][1]["likes"] == 7);
    assert_eq!(state["space"], space);
    assert!(all(&state, |region| region["stock"]["value"] == 12));
}

#[test]
fn the_page_is_for_this_machine_and_refuses_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo::start(dir.path(), &[]);
    let page = demo.get("/", &[]);
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for path in ["/", "/demo/state", "/eu/v1/status"] {
        assert_eq!(demo.get(path, &[("host", "evil.example")]).problem(), "foreign-origin", "{path}");
        assert_eq!(
            demo.get(path, &[("origin", "http://evil.example")]).problem(),
            "foreign-origin",
            "{path}"
        );
    }
    let cut = json!({"condition": "cut"});
    assert_eq!(demo.send("POST", "/demo/links/eu/mars", &cut).problem(), "not-found");
    assert_eq!(demo.send("POST", "/demo/links/eu/eu", &cut).problem(), "not-found");
    assert_eq!(
        demo.send("POST", "/demo/links/eu/us", &json!({"condition": "bent"})).problem(),
        "bad-request"
    );
    let form = demo.get("/demo/links/eu/us", &[("content-type", "text/plain")]);
    assert_eq!(form.status, 405);
    let heads = demo.until("the regions agree", agrees)["regions"][0]["note"]["heads"].clone();
    let long = json!({"heads": heads, "position": 0, "insert": "x".repeat(4_001)});
    assert_eq!(demo.send("POST", "/demo/regions/eu/type", &long).problem(), "too-large");
    for typed in
        [json!({"heads": heads, "position": 9_999, "insert": "x"}), json!({"heads": ["00"], "position": 0})]
    {
        let status = demo.send("POST", "/demo/regions/eu/type", &typed).status;
        assert!((400..500).contains(&status), "{status} for {typed}");
    }
}

#[test]
fn a_port_that_is_taken_is_said_before_anything_is_begun() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = comity(&["demo", "--port", &port]).env("TMPDIR", dir.path()).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(complaint.contains(&port) && complaint.contains("--port"), "{complaint}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
