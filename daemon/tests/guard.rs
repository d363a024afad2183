//! Who may ask, under which name, from which page, and how much.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod process;

use process::{Daemon, printed};

/// A token and the lines of configuration for it.
fn token(name: &str, scope: &str) -> (String, String) {
    let made = printed(&["token", name, "--scope", scope]);
    let token = made.lines().find_map(|line| line.strip_prefix("# comity_")).unwrap();
    (format!("comity_{token}"), made)
}

#[test]
fn scopes_spaces_names_and_origins_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, reader_lines) = token("reader", "read");
    let (writer, writer_lines) = token("writer", "write");
    let (admin, admin_lines) = token("admin", "admin");
    let config = directory.path().join("comity.toml");
    let start = |local: &str, spaces: &str| {
        let http = format!(
            "[http]\nlocal_scope = \"{local}\"\norigins = [\"https://desk.example\"]\nhosts = [\"eu.example\"]\n"
        );
        std::fs::write(&config, format!("{http}{reader_lines}\n{writer_lines}\n{spaces}\n{admin_lines}\n"))
            .unwrap();
        Daemon::start(
            &directory.path().join("data"),
            &["--config", config.to_str().unwrap(), "--set", "log.filter=debug"],
        )
    };
    let daemon = start("admin", "");
    let (space, other) = (daemon.space("shop"), daemon.space("other"));
    drop(daemon);
    let id = space.rsplit('/').next().unwrap();
    let daemon = start("none", &format!("spaces = [\"{id}\"]"));
    let with = |token: &str, method: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        daemon
            .ask(method, path, &[("authorization", &bearer), ("content-type", "application/json")], body)
            .status
    };
    let (counter, add) = (format!("{space}/counter/c/k"), r#"{"op": "add", "by": 1}"#);
    assert_eq!(daemon.get(&counter).problem(), "unauthenticated");
    assert_eq!(daemon.get(&counter).header("www-authenticate"), Some("Bearer"));
    assert_eq!(daemon.unix("GET", &counter, &[]).status, 401);
    assert_eq!((with(&reader, "GET", &counter, ""), with(&reader, "POST", &counter, add)), (200, 403));
    assert_eq!((with(&writer, "GET", &counter, ""), with(&writer, "POST", &counter, add)), (200, 200));
    // A space that is not shown is as one that is not there.
    let hidden = with(&writer, "GET", &format!("{other}/counter/c/k"), "");
    let absent = with(&writer, "GET", "/v1/spaces/00000000-0000-8000-8000-000000000000/counter/c/k", "");
    assert_eq!((hidden, absent), (404, 404));
    assert_eq!(with(&writer, "POST", "/v1/spaces", r#"{"name": "x"}"#), 403);
    assert_eq!(with(&admin, "POST", "/v1/spaces", r#"{"name": "x"}"#), 201);
    assert_eq!((with(&writer, "GET", "/v1/jobs", ""), with(&admin, "GET", "/v1/jobs", "")), (403, 200));
    assert_eq!(with(&format!("{reader}x"), "GET", &counter, ""), 401);
    let listed = daemon.ask("GET", "/v1/spaces", &[("authorization", &format!("Bearer {writer}"))], "");
    assert_eq!(listed.body["spaces"].as_array().unwrap().len(), 1);
    assert_eq!((daemon.get("/healthz").status, daemon.get("/").status), (200, 200));
    daemon.signal("TERM");
    let log: Vec<String> = daemon.log.iter().collect();
    assert!(log.iter().any(|line| line.contains("\"who\":\"writer\"")), "{log:?}");
    for token in [&reader, &writer, &admin] {
        assert!(!log.iter().any(|line| line.contains(token.as_str())), "a token is in the log");
    }
}

#[test]
fn other_names_other_pages_and_proxies_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--set", "http.hosts=eu.example", "--set", "http.origins=https://desk.example"];
    let daemon = Daemon::start(directory.path(), &args);
    let ask = |headers: &[(&str, &str)]| daemon.ask("GET", "/v1/spaces", headers, "").status;
    for (headers, status) in [
        (&[("host", "localhost:1")][..], 200),
        (&[("host", "eu.example")], 200),
        (&[("host", "127.0.0.1")], 200),
        (&[("host", "evil.example")], 403),
        (&[("host", "localhost.evil.example")], 403),
        (&[("origin", "https://desk.example")], 200),
        (&[("origin", "http://localhost")], 200),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("x-forwarded-for", "10.0.0.1")], 401),
        (&[("forwarded", "for=10.0.0.1")], 401),
        (&[("authorization", "Basic YTpi")], 401),
    ] {
        assert_eq!(ask(headers), status, "{headers:?}");
    }
    let asked = daemon.ask("OPTIONS", "/v1/spaces", &[("origin", "https://desk.example")], "");
    assert_eq!(
        (asked.status, asked.header("access-control-allow-origin")),
        (204, Some("https://desk.example"))
    );
    let refused = daemon.ask("OPTIONS", "/v1/spaces", &[("origin", "https://evil.example")], "");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
    // What a page can send without asking before is not taken.
    let simple = daemon.ask("POST", "/v1/spaces", &[("content-type", "text/plain")], r#"{"name": "x"}"#);
    assert_eq!(simple.problem(), "unsupported-media-type");
}

#[test]
fn long_bodies_and_slow_heads_are_refused() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let args = [
        "--set",
        "http.body_bytes_max=1000",
        "--set",
        "http.header_ms_max=200",
        "--set",
        "http.request_ms_max=100",
    ];
    let daemon = Daemon::start(directory.path(), &args);
    let space = daemon.space("shop");
    let long = serde_json::json!({"value": "x".repeat(2_000)});
    assert_eq!(daemon.send("PUT", &format!("{space}/register/c/k"), &long).problem(), "too-large");
    let slow = daemon.send(
        "POST",
        &format!("{space}/counter/c/k?durability=remote=1&wait_ms=5000"),
        &serde_json::json!({"op": "add", "by": 1}),
    );
    assert_eq!(slow.problem(), "timeout");
    let mut stream = std::net::TcpStream::connect(daemon.address).unwrap();
    stream.set_read_timeout(Some(process::PATIENCE)).unwrap();
    stream.write_all(b"GET /v1/spaces HTT").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    // A head is as long as the longest token needs, and not much longer.
    let ask =
        |bytes: usize| daemon.ask("GET", "/healthz", &[("comity-token", &"x".repeat(bytes))], "").status;
    assert_eq!(ask(12_000), 200);
    let mut stream = std::net::TcpStream::connect(daemon.address).unwrap();
    stream.set_read_timeout(Some(process::PATIENCE)).unwrap();
    let head =
        format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\ncomity-token: {}\r\n\r\n", "x".repeat(100_000));
    // It may be cut before all of it is sent.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

/// The key is for this test alone and protects nothing; the certificate is good for a hundred years.
#[test]
fn addresses_that_others_reach_speak_tls_and_want_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let (token, lines) = token("operator", "admin");
    let config = directory.path().join("comity.toml");
    let file = |name: &str| format!("{}/tests/process/{name}", env!("CARGO_MANIFEST_DIR"));
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let tls = format!("[http.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n");
    std::fs::write(&config, format!("{tls}{lines}\n")).unwrap();
    let data = directory.path().join("data");
    let args =
        ["--config", config.to_str().unwrap(), "--http", "0.0.0.0:0", "--set", "http.local_scope=none"];
    let daemon = Daemon::start(&data, &args);
    let url = format!("https://127.0.0.1:{}", daemon.address.port());
    let ask = |more: &[&str]| process::complaint(&[&["--url", &url, "--json", "status"], more].concat());
    let (code, said) = ask(&["--ca", &certificate]);
    assert!(code == 5 && said.contains("COMITY_TOKEN"), "{said}");
    assert_eq!(ask(&["--ca", &certificate, "--token", &token]).0, 0);
    let (code, said) = ask(&["--token", &token]);
    assert!(code == 3 && said.contains("certificate"), "it is not trusted: {said}");
    // Who speaks no TLS gets no answer.
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", daemon.address.port())).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}
