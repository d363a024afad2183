//! The rigs of long paths, small: real processes, files and kills, and every promise that the large ones check. How
//! fast it went is not looked at.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Command;

/// Runs a rig in a directory of its own. Its own limits end it where it hangs.
fn run(verb: &str, arguments: &[&str]) {
    let directory = std::env::temp_dir().join(format!("comity-wan-{verb}-{}", std::process::id()));
    let mut rig = Command::new(env!("CARGO_BIN_EXE_comity-rig"));
    let ended = rig.arg(verb).args(arguments).arg("--directory").arg(&directory).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{verb}, see {}: {said}", directory.display());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_mesh_over_the_distances_of_five_regions_agrees_and_loses_no_write() {
    run("mesh", &["--seconds", "3", "--writes", "5", "--median-max-ms", "60000"]);
}

#[test]
fn two_regions_write_while_they_are_cut_off_and_agree_afterwards() {
    run("partition", &["--seconds", "4", "--writes", "10", "--median-max-ms", "60000", "--plain-mib", "0"]);
}

#[test]
fn a_bootstrap_goes_on_after_a_cut_and_the_kill_of_either_end() {
    let size = ["--objects", "20000", "--bytes", "512"];
    run("interrupted", &[&size[..], &["--rtt-ms", "20", "--rate-mib", "4", "--plain-mib", "0"]].concat());
}
