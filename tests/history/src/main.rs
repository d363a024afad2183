//! Judges a history in files: `comity-history FILE...`.
//!
//! The files together are one history, in the text form of [`History`]; `-` is the standard input. Prints
//! what was checked or the anomaly, and exits with 0 for a causally consistent history, 1 for another, and
//! 2 when there is no history to judge.

use std::io::Read;
use std::process::ExitCode;

use comity_history::{History, check};

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let history = match load(&files) {
        Ok(history) => history,
        Err(trouble) => {
            eprintln!("comity-history: {trouble}");
            return ExitCode::from(2);
        }
    };
    match check(&history) {
        Ok(summary) => {
            println!("causally consistent: {summary}");
            ExitCode::SUCCESS
        }
        Err(anomaly) => {
            println!("{anomaly}");
            ExitCode::from(1)
        }
    }
}

fn load(files: &[String]) -> Result<History, String> {
    if files.is_empty() {
        return Err("usage: comity-history FILE...".to_owned());
    }
    let mut history = History::default();
    for file in files {
        let text = if file == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(file)
        };
        let text = text.map_err(|error| format!("{file}: {error}"))?;
        history.append(&text).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(history)
}
