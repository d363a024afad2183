//! What works on a directory itself, where no daemon runs; and long work at a daemon that does.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use comity::Replica;
use hyper::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::client::Ask;
use super::commands::Session;
use super::failure::Failure;
use super::table::{Printer, items, moment, text};
use crate::backup;
use crate::config::Config;
use crate::http::jobs::verified_json;
use crate::serve::{advice, open_options};

/// How often a daemon is asked how far it is.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Faults that are printed one by one.
const FAULTS_SHOWN: usize = 1_000;

type Done = Result<(), Failure>;

/// A bar on a terminal, nothing elsewhere.
fn bar(is_json: bool, what: &'static str) -> ProgressBar {
    let is_shown = !is_json && std::io::stderr().is_terminal();
    let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
    match ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {pos}/{len} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn advance(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

/// The replica in a directory, which nobody else has open, without a network.
async fn open(config: &Config) -> Result<Replica, Failure> {
    let mut options = open_options(config);
    options.stay_offline = true;
    Replica::open_with(&config.data_dir, options).await.map_err(|error| {
        let advice = advice(&error);
        Failure::other(format!("{error}. {advice}."))
    })
}

/// As [`open`], of a directory that must be one already.
async fn open_existing(config: &Config) -> Result<Replica, Failure> {
    if !config.data_dir.join("comity.redb").exists() {
        let dir = config.data_dir.display();
        return Err(Failure::NotFound(format!(
            "{dir} is no directory of a replica; say which with --data-dir"
        )));
    }
    open(config).await
}

/// Makes a replica.
pub(super) async fn init(config: Config, space: Option<String>, printer: Printer) -> Done {
    let replica = open(&config).await?;
    let founded = match space {
        None => Ok(None),
        Some(name) => replica.create_space(&name).await.map(|space| Some(space.id().to_string())),
    };
    let id = replica.id().to_string();
    replica.shutdown().await;
    let founded = founded.map_err(Failure::other)?;
    let body = json!({"replica": id, "space": founded, "data_dir": config.data_dir});
    let line = |body: &Value| {
        let space = body["space"].as_str().map_or(String::new(), |space| format!("\nspace {space}"));
        format!("replica {}{space}\nin {}", text(body, "replica"), text(body, "data_dir"))
    };
    printer.line(&body, line).map_err(Failure::other)
}

fn noted(printer: &Printer, note: &Value, dir: &Path) -> Done {
    let line = |note: &Value| {
        format!("{} rows, {} bytes, in {}", text(note, "rows"), text(note, "file_bytes"), dir.display())
    };
    printer.line(note, line).map_err(Failure::other)
}

/// Backs up: by the daemon where one runs, otherwise the directory itself.
pub(super) async fn back_up(config: Config, session: Session, directory: &Path, is_remote: bool) -> Done {
    let directory = if is_remote {
        directory.to_owned()
    } else {
        std::path::absolute(directory)
            .map_err(|error| Failure::usage(format!("{}: {error}", directory.display())))?
    };
    let work = json!({"kind": "backup", "directory": directory});
    match run_job(&session, &work, "backing up").await {
        Err(Failure::Unreachable(_)) if !is_remote => {}
        Err(error) => return Err(error),
        Ok(note) => return noted(&session.printer, &note, &directory),
    }
    let replica = open_existing(&config).await?;
    let bar = bar(session.printer.json, "backing up");
    let shown = bar.clone();
    let backed_up = backup::back_up(&replica, &directory, move |done, all| advance(&shown, done, all)).await;
    replica.shutdown().await;
    bar.finish_and_clear();
    noted(&session.printer, &json!(backed_up.map_err(Failure::other)?), &directory)
}

/// Begins a job at the daemon, waits for its end, and returns what came of it.
async fn run_job(session: &Session, work: &Value, what: &'static str) -> Result<Value, Failure> {
    let job = session.client.ask(Ask::new(Method::POST, "/v1/jobs", work)).await?.body;
    let (path, bar) = (format!("/v1/jobs/{}", job["id"]), bar(session.printer.json, what));
    loop {
        let job = session.client.ask(Ask::get(path.clone())).await?.body;
        advance(&bar, job["done"].as_u64().unwrap_or(0), job["all"].as_u64().unwrap_or(0));
        match job["state"].as_str() {
            Some("running") => tokio::time::sleep(POLL_EVERY).await,
            Some("done") => {
                bar.finish_and_clear();
                return Ok(job["result"].clone());
            }
            _ => {
                bar.finish_and_clear();
                return Err(Failure::other(text(&job, "error")));
            }
        }
    }
}

/// Makes a directory from a backup, and checks it.
pub(super) async fn restore(config: Config, from: &Path, printer: Printer) -> Done {
    let (source, dir, is_json) = (from.to_owned(), config.data_dir.clone(), printer.json);
    let copied = tokio::task::spawn_blocking(move || {
        let checking = bar(is_json, "checking the backup");
        let note =
            backup::check(&source, |done, all| advance(&checking, done, all)).map_err(Failure::other)?;
        checking.finish_and_clear();
        let copying = bar(is_json, "restoring");
        comity::restore_backup(&source, &dir, |done, all| advance(&copying, done, all)).map_err(|error| {
            let error = error.into();
            Failure::other(format!("{error}. {}.", advice(&error)))
        })?;
        copying.finish_and_clear();
        Ok(note)
    });
    let note = copied.await.map_err(Failure::other)??;
    // Opening it gives the directory its own marker, so that it writes as a new incarnation.
    let replica = open(&config).await?;
    let id = replica.id().to_string();
    let verified = check(&replica, printer.json).await;
    replica.shutdown().await;
    let (body, faults) = verified?;
    if id != note.replica {
        return Err(Failure::Faults(format!(
            "the backup says that it is of replica {}, and holds {id}",
            note.replica
        )));
    }
    if !faults.is_empty() {
        return Err(told(&faults));
    }
    let body = json!({"replica": id, "made_ms": note.made_ms, "data_dir": config.data_dir, "verified": body});
    let line = |body: &Value| {
        format!(
            "replica {id} as it was at {} UTC, in {}; it goes on under a new incarnation with its first write.\n\
             Do not start it while the replica that it was copied from still runs.",
            moment(note.made_ms),
            text(body, "data_dir")
        )
    };
    printer.line(&body, line).map_err(Failure::other)
}

async fn check(replica: &Replica, is_json: bool) -> Result<(Value, Vec<String>), Failure> {
    let faults = Arc::new(Mutex::new(Vec::new()));
    let (found, bar) = (Arc::clone(&faults), bar(is_json, "verifying"));
    let shown = bar.clone();
    let tell = move |fault: comity::Fault| {
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() < FAULTS_SHOWN {
            found.push(fault.to_string());
        }
    };
    let verified = replica.verify(tell, move |done, all| advance(&shown, done, all)).await;
    bar.finish_and_clear();
    let verified = verified.map_err(Failure::other)?;
    let faults = faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((verified_json(&verified, &faults), faults))
}

fn told(faults: &[String]) -> Failure {
    Failure::Faults(format!(
        "{} faults; keep a copy of the directory, and restore a backup or let peers send what is lost:\n{}",
        faults.len(),
        faults.join("\n")
    ))
}

/// Verifies: at the daemon where one runs, otherwise the directory itself, or a backup.
pub(super) async fn verify(config: Config, session: Session, of: Option<&Path>, is_remote: bool) -> Done {
    let body = match of {
        Some(backup) => verify_backup(&config, backup, session.printer.json).await?,
        None => match run_job(&session, &json!({"kind": "verify"}), "verifying").await {
            Err(Failure::Unreachable(_)) if !is_remote => {
                let replica = open_existing(&config).await?;
                let checked = check(&replica, session.printer.json).await;
                replica.shutdown().await;
                checked?.0
            }
            other => other?,
        },
    };
    let faults: Vec<String> = items(&body, "found").iter().map(super::table::bare).collect();
    let line = |body: &Value| {
        let counts = [
            "spaces",
            "lanes",
            "entries",
            "signatures",
            "objects",
            "elements",
            "documents",
            "journal",
            "faults",
        ];
        counts.map(|name| format!("{name} {}", text(body, name))).join(", ")
    };
    session.printer.line(&body, line).map_err(Failure::other)?;
    if faults.is_empty() { Ok(()) } else { Err(told(&faults)) }
}

/// Verifies a copy of a backup, so that the backup stays as it is.
async fn verify_backup(config: &Config, from: &Path, is_json: bool) -> Result<Value, Failure> {
    let copy: PathBuf = {
        let name = format!(".comity-verify-{}", crate::names::hex(&crate::auth::fresh_bits::<8>()));
        from.parent().unwrap_or(Path::new(".")).join(name)
    };
    let (source, dir) = (from.to_owned(), copy.clone());
    let copied = tokio::task::spawn_blocking(move || {
        let reading = bar(is_json, "checking the backup");
        backup::check(&source, |done, all| advance(&reading, done, all))?;
        reading.finish_and_clear();
        let copying = bar(is_json, "copying the backup");
        let copied = comity::restore_backup(&source, &dir, |done, all| advance(&copying, done, all));
        copying.finish_and_clear();
        copied.map_err(|error| error.to_string())
    });
    let copied = copied.await.map_err(Failure::other)?.map_err(Failure::other);
    let checked = match copied {
        Ok(()) => {
            let config = Config { data_dir: copy.clone(), ..config.clone() };
            match open(&config).await {
                Ok(replica) => {
                    let checked = check(&replica, is_json).await;
                    replica.shutdown().await;
                    checked.map(|(body, _)| body)
                }
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    // It was made here and is of no use to anybody.
    let _ = std::fs::remove_dir_all(&copy);
    checked
}
