//! The README shows the very example that the library's documentation compiles.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::read_to_string;
use std::path::Path;

fn read(name: &str) -> String {
    read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_embedding_example_is_the_one_that_is_compiled() {
    let readme = read("README.md");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let library = read("src/lib.rs");
    let documented = library.lines().filter_map(|line| line.strip_prefix("//!"));
    let documented: String =
        documented.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    let compiled = documented.split("```no_run\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let compiled: String =
        compiled.lines().filter(|line| !line.starts_with("# ")).map(|line| format!("{line}\n")).collect();
    assert_eq!(shown, compiled);
    assert!(shown.lines().count() > 20, "there is an example to compare");
}
