//! The examples keep what they claim; the two regions in one process and in two.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// An example, which Cargo builds beside the tests of its package.
fn example(name: &str) -> Command {
    let mut directory: PathBuf = std::env::current_exe().unwrap();
    directory.pop();
    directory.pop();
    let example = directory.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(example.exists(), "cargo test builds it unless targets are chosen: {}", example.display());
    Command::new(example)
}

fn two_regions() -> Command {
    example("two_regions")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The output of a run that must end well.
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The digests a run tells of.
fn digests(output: &str) -> Vec<&str> {
    let is_digest = |word: &&str| word.len() == 32 && word.chars().all(|c| c.is_ascii_hexdigit());
    output.split_whitespace().filter(is_digest).collect()
}

#[test]
fn the_story_in_one_process_ends_in_one_state() {
    let output = succeeded(&two_regions().output().unwrap());
    let digests = digests(&output);
    assert_eq!(digests.len(), 2, "{output}");
    assert_eq!(digests[0], digests[1], "{output}");
    for chapter in 1..=6 {
        assert!(output.lines().any(|line| line.starts_with(&format!("{chapter}. "))), "{output}");
    }
    for said in ["connected to nobody", "Zwei Regionen", "In Europa: The regions write together"] {
        assert!(output.contains(said), "{said:?} is not in\n{output}");
    }
}

#[test]
fn the_two_halves_in_two_processes_end_in_one_state() {
    let mut eu = two_regions();
    let mut eu =
        eu.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(eu.stdout.take().unwrap());
    let mut told = String::new();
    let ticket = loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "there is no ticket in\n{told}");
        told.push_str(&line);
        if let Some((_, ticket)) = line.split_once("--connect ") {
            break ticket.trim().to_owned();
        }
    };
    let us = succeeded(&two_regions().args(["--connect", &ticket]).output().unwrap());
    lines.read_to_string(&mut told).unwrap();
    let status = eu.wait().unwrap();
    let mut complaints = String::new();
    eu.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    assert!(status.success(), "{told}\n{complaints}");
    for output in [&told, &us] {
        assert!(output.contains("counts 7 likes"), "{output}");
        assert!(output.contains("digest is the same"), "{output}");
    }
    assert_eq!(digests(&told), digests(&us));
    assert_eq!(digests(&told).len(), 1);
}

#[test]
fn what_cannot_be_done_is_said_and_ends_with_an_error() {
    for arguments in
        [&["--connect", "nonsense"][..], &["--listen", "nowhere"], &["--what"], &["--trace", "no/such/file"]]
    {
        let output = two_regions().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("two_regions: "), "{}", text(&output.stderr));
    }
}

#[test]
fn the_smaller_examples_end_well() {
    for (name, said) in [
        ("conflict_policies", r#"union     ["apples","bread","milk"]"#),
        ("bounded_stock", "us sells the last 1; 0 are left"),
        ("offline_notes", "Buy oat milk, eggs and bread on the way home tonight."),
        ("custom_policy", "us does not: register bids/lot 7 holds 2 concurrent values"),
    ] {
        let output = succeeded(&example(name).output().unwrap());
        assert!(output.contains(said), "{said:?} is not in\n{output}");
    }
}

#[test]
fn notes_are_written_and_brought_together_by_commands() {
    let directory = tempfile::tempdir().unwrap();
    let notes = |arguments: &[&str]| {
        example("offline_notes").current_dir(directory.path()).args(arguments).output().unwrap()
    };
    succeeded(&notes(&["write", "laptop", "trip", "Pack a tent."]));
    succeeded(&notes(&["sync", "laptop", "phone"]));
    succeeded(&notes(&["write", "laptop", "trip", "Pack a big tent."]));
    succeeded(&notes(&["write", "phone", "trip", "Pack a tent and a lamp."]));
    succeeded(&notes(&["sync", "phone", "laptop"]));
    for device in ["laptop", "phone"] {
        let output = succeeded(&notes(&["show", device, "trip"]));
        assert!(output.contains("Pack a big tent and a lamp."), "{output}");
    }
    succeeded(&notes(&["write", "tablet", "trip", "Stay."]));
    let refused = notes(&["sync", "laptop", "tablet"]);
    assert!(text(&refused.stderr).contains("both have notes of their own"), "{}", text(&refused.stderr));
    assert_eq!(notes(&["what"]).status.code(), Some(1));
}
