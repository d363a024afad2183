//! The command says what the library says.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn judge(files: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_comity-history"));
    command.args(files).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("the input is piped");
    // One that reads no input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the command ends");
    let text = |bytes| String::from_utf8(bytes).expect("the command writes text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_causal_history_exits_with_0_and_what_was_checked() {
    let said = "causally consistent: 2 sessions, 1 reads, 1 writes (0 of them unseen and without a reply), \
                1 values seen, 0 omissions excused\n";
    assert_eq!(judge(&["-"], "0 1 W 5 ok\n1 1 R 5\n"), (Some(0), said.to_owned(), String::new()));
}

#[test]
fn an_anomaly_exits_with_1_and_says_which() {
    let (code, said, _) = judge(&["-"], "0 1 W 5 ok\n0 1 R\n");
    assert_eq!(code, Some(1));
    assert!(said.starts_with("WriteCOInitRead: session 0 operation 1 saw no value of key 1"), "{said}");
}

#[test]
fn what_is_no_history_exits_with_2() {
    let complaint = "comity-history: -: line 1, column 6: the last line has no end\n";
    assert_eq!(judge(&["-"], "0 1 R"), (Some(2), String::new(), complaint.to_owned()));
    assert_eq!(judge(&[], "").0, Some(2));
    assert_eq!(judge(&["/nonexistent/history"], "").0, Some(2));
}

#[test]
fn several_files_are_one_history() {
    let file = std::env::temp_dir().join(format!("comity-history-{}", std::process::id()));
    std::fs::write(&file, "0 1 W 5 ok\n").expect("the directory for temporary files is writable");
    let path = file.to_str().expect("the path is text");
    assert_eq!(judge(&[path, "-"], "1 1 R 5\n1 1 R 5\n").0, Some(0));
    assert_eq!(judge(&["-"], "1 1 R 5\n").0, Some(1));
    std::fs::remove_file(&file).expect("the file is there");
}
