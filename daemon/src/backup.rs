//! Backups: a data file, and a note that says what it is and lets it be checked.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use comity::{BackupProgress, Replica};
use serde::{Deserialize, Serialize};

/// The note beside the data file.
const NOTE_FILE: &str = "backup.json";
const DATA_FILE: &str = "comity.redb";
const NOTE_VERSION: u32 = 1;
const NOTE_BYTES_MAX: u64 = 64 * 1024;
const HASH_BUFFER_BYTES: usize = 1024 * 1024;

/// What a backup says of itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Note {
    version: u32,
    /// Milliseconds since the Unix epoch.
    pub(crate) made_ms: u64,
    /// The replica whose backup it is.
    pub(crate) replica: String,
    pub(crate) rows: u64,
    pub(crate) file_bytes: u64,
    /// BLAKE3 of the data file.
    blake3: String,
}

/// Backs up a replica that runs, into a directory that is missing or empty. `progress` is given rows done and all.
///
/// # Errors
/// A sentence; what was begun can be removed.
pub(crate) async fn back_up(
    replica: &Replica,
    dir: &Path,
    mut progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Note, String> {
    let report = replica.back_up(dir, move |at: BackupProgress| progress(at.rows, at.rows_all)).await;
    let report = report.map_err(|error| error.to_string())?;
    let (dir, replica) = (dir.to_owned(), replica.id().to_string());
    let noting = move || -> io::Result<Note> {
        let blake3 = hash(&dir.join(DATA_FILE), |_| {})?;
        let made_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let (rows, file_bytes) = (report.rows, report.file_bytes);
        let note = Note { version: NOTE_VERSION, made_ms, replica, rows, file_bytes, blake3 };
        let mut file = File::create(dir.join(NOTE_FILE))?;
        file.write_all(&serde_json::to_vec_pretty(&note)?)?;
        file.sync_all()?;
        File::open(&dir)?.sync_all()?;
        Ok(note)
    };
    let noted =
        tokio::task::spawn_blocking(noting).await.expect("noting does not panic and is not cancelled");
    noted.map_err(|error| format!("the backup is whole, but its note cannot be written: {error}"))
}

/// Reads a backup's note and checks its data file against it. `progress` is given bytes done and all.
///
/// # Errors
/// A sentence that says what is wrong with the backup.
pub(crate) fn check(dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Note, String> {
    let path = dir.join(NOTE_FILE);
    let failed = |error: &dyn std::fmt::Display| {
        format!(
            "{} is no whole backup: {error}; a backup that was cut short has no {NOTE_FILE}",
            dir.display()
        )
    };
    let bytes = fs::metadata(&path).map_err(|error| failed(&error))?.len();
    if bytes > NOTE_BYTES_MAX {
        return Err(failed(&format!("its {NOTE_FILE} has {bytes} bytes; the limit is {NOTE_BYTES_MAX}")));
    }
    let text = fs::read(&path).map_err(|error| failed(&error))?;
    let note: Note = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    if note.version > NOTE_VERSION {
        return Err(failed(&format!("its format is {}, and this build reads {NOTE_VERSION}", note.version)));
    }
    let found =
        hash(&dir.join(DATA_FILE), |done| progress(done, note.file_bytes)).map_err(|error| failed(&error))?;
    if found != note.blake3 {
        return Err(format!(
            "the data file in {} is damaged: its BLAKE3 is {found}, and was {}",
            dir.display(),
            note.blake3
        ));
    }
    Ok(note)
}

fn hash(path: &Path, mut progress: impl FnMut(u64)) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    let (mut buffer, mut done) = (vec![0; HASH_BUFFER_BYTES], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..read]);
        done += read as u64;
        progress(done);
    }
}
