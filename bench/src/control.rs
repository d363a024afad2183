//! What the machine can do at most, measured beside what Comity does: a log that is written and synced and nothing
//! else.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::Failure;
use crate::figures::Times;
use crate::load::AsyncWriter;

/// Records begin where the store's do.
const SECTOR: usize = 512;
/// The file that is written over and over, full of zeros before: as long as a file of the store's log.
const FILE_BYTES: usize = 16 * 1024 * 1024;
/// As many as may wait for the core.
const WAITING_MAX: usize = 1_024;

/// A file whose blocks are its own already.
struct PreWritten {
    file: File,
    at: usize,
}

impl PreWritten {
    fn make(path: &Path) -> Result<Self, Failure> {
        let mut file = File::options().create_new(true).write(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn append(&mut self, record: &[u8]) -> std::io::Result<()> {
        if self.at + record.len() > FILE_BYTES {
            self.at = 0;
        }
        self.file.seek(SeekFrom::Start(self.at as u64))?;
        self.file.write_all(record)?;
        self.at += record.len();
        self.file.sync_data()
    }
}

/// A thread that writes whatever waits as one record, syncs it, and acknowledges: group commit and nothing else.
pub(crate) struct RawLog {
    requests: mpsc::Sender<(usize, oneshot::Sender<()>)>,
    file: std::path::PathBuf,
}

impl RawLog {
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        let (requests, mut waiting) = mpsc::channel::<(usize, oneshot::Sender<()>)>(WAITING_MAX);
        let file = directory.join("raw.log");
        let mut log = PreWritten::make(&file)?;
        std::thread::spawn(move || {
            while let Some((bytes, answer)) = waiting.blocking_recv() {
                let (mut bytes, mut answers) = (bytes, vec![answer]);
                while let Ok((more, answer)) = waiting.try_recv() {
                    bytes += more;
                    answers.push(answer);
                }
                if log.append(&vec![0xa5; bytes.next_multiple_of(SECTOR)]).is_err() {
                    // Nobody is answered, which every writer notices.
                    return;
                }
                for answer in answers {
                    // Who stopped waiting does not want to know.
                    let _ = answer.send(());
                }
            }
        });
        Ok(Self { requests, file })
    }

    pub(crate) fn writer(&self, bytes: usize) -> RawWriter {
        RawWriter { requests: self.requests.clone(), bytes }
    }
}

impl Drop for RawLog {
    fn drop(&mut self) {
        // What is left behind is in a directory that goes too.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Writes so many bytes each time.
pub(crate) struct RawWriter {
    requests: mpsc::Sender<(usize, oneshot::Sender<()>)>,
    bytes: usize,
}

impl AsyncWriter for RawWriter {
    async fn write(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (answer, written) = oneshot::channel();
        self.requests.send((self.bytes, answer)).await.map_err(|_| "the raw log failed")?;
        Ok(written.await?)
    }
}

/// A file that is written and synced by a thread that does nothing else.
pub(crate) struct Syncs(PreWritten);

impl Syncs {
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        Ok(Self(PreWritten::make(&directory.join("sync.log"))?))
    }

    /// How long each of many records takes to be written and synced.
    pub(crate) fn take(&mut self, bytes: usize, time: Duration) -> Result<Times, Failure> {
        let record = vec![0xa5; bytes.next_multiple_of(SECTOR)];
        let (begun, mut times) = (Instant::now(), Times::default());
        while begun.elapsed() < time {
            let before = Instant::now();
            self.0.append(&record)?;
            times.push(before.elapsed());
        }
        Ok(times)
    }

    /// As [`Syncs::take`], so many and with so much time between them.
    pub(crate) fn take_apart(
        &mut self,
        bytes: usize,
        count: usize,
        apart: Duration,
    ) -> Result<Times, Failure> {
        let record = vec![0xa5; bytes.next_multiple_of(SECTOR)];
        let mut times = Times::default();
        for _ in 0..count {
            std::thread::sleep(apart);
            let before = Instant::now();
            self.0.append(&record)?;
            times.push(before.elapsed());
        }
        Ok(times)
    }
}

/// The bytes of all records in the log of a replica's directory, without padding. `docs/storage.md` has the format.
pub(crate) fn logged_bytes(directory: &Path) -> Result<u64, Failure> {
    const HEADER: usize = 64;
    let mut logged = 0;
    for file in std::fs::read_dir(directory.join("log"))? {
        let bytes = std::fs::read(file?.path())?;
        let mut at = SECTOR;
        while let Some(record) = bytes.get(at..at + HEADER).filter(|record| record.starts_with(b"grp1")) {
            let payload = u64::from_be_bytes(record[8..16].try_into()?) as usize;
            logged += (HEADER + payload) as u64;
            at += (HEADER + payload).next_multiple_of(SECTOR);
        }
    }
    Ok(logged)
}
