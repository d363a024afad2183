//! Opening what a crash left: the database at its last checkpoint and the log after it.
//!
//! Nothing found here is believed to be durable, for it may have been read from memory that a failed sync
//! left behind. Before the store opens, one durable commit of the database holds every group that was
//! found, and the log continues in a file that is durable itself.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use redb::{Database, WriteTransaction};

use crate::error::OpenError;
use crate::format::{Loss, Replayed, begin_durable};
use crate::log::{
    End, Found, LogDir, LogWriter, NEW_SUFFIX, Scanned, changes, file_name, kept_name, number_of, prepare,
    scan,
};
use crate::tables::Tables;

/// Groups that were durable and cannot be read any more. The state is as it was before the first of them,
/// and the instance token has changed, so that this replica continues under a new identity and its peers
/// send it what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The number of the first group lost, counted over the life of the directory.
    pub group: u64,
    /// The last group that may be lost. Those from `group` to here are not in the state, but for groups
    /// between two losses of which the first was not reported for certain. There may have been more
    /// when the header of a file is damaged.
    pub through: u64,
    /// How many of those could still be read. They are in `files`, but not in the state.
    pub readable: u64,
    /// The files of the log that were kept aside. The store never deletes them.
    pub files: Vec<PathBuf>,
}

/// A log ready to be appended to, over a database that holds every group of it.
pub(crate) struct Recovered {
    pub(crate) log: LogWriter,
    pub(crate) damage: Option<Damage>,
}

/// Brings the database up to the end of the log. `renew` gives the directory another identity, durably.
pub(crate) fn recover(
    database: &Database,
    dir: Box<dyn LogDir>,
    file_bytes: u64,
    renew: impl FnOnce() -> Result<(), OpenError>,
) -> Result<Recovered, OpenError> {
    let failed = |error: redb::Error| OpenError::database(dir.path(), error);
    let refused = |error| log_error(&*dir, error);
    let Some(checkpoint) = Replayed::read(database).map_err(failed)? else {
        let detail = "the database does not say how much of the log it holds".to_owned();
        return Err(OpenError::Damaged { path: dir.path().to_owned(), detail });
    };
    let files = Files::list(&*dir).map_err(refused)?;
    let transaction = begin_durable(database).map_err(failed)?;
    let mut replay = Replay::new(checkpoint, &files);
    replay.run(&*dir, &files, &transaction)?;
    if replay.damaged() {
        // Before anything forgets the damage: a crash from here on finds it again, or what is recorded.
        renew()?;
        replay.ends.clear();
    }
    let (end, spare) = replay.continuation(&*dir, files.last, file_bytes).map_err(refused)?;
    let known = Loss::read(database).map_err(failed)?;
    let loss = match (replay.loss(end.number), known) {
        // The one before may neither have been reported nor its files renamed yet.
        (Some(loss), Some(known)) => Some(Loss {
            group: loss.group.min(known.group),
            readable: loss.readable + known.readable,
            from: loss.from.min(known.from),
            ..loss
        }),
        (loss, known) => loss.or(known),
    };
    let replayed = Replayed { group: replay.last_used(), file: end.number };
    replayed.write(&transaction).map_err(failed)?;
    if let Some(loss) = loss {
        loss.write(&transaction).map_err(failed)?;
    }
    transaction.commit().map_err(|error| failed(error.into()))?;

    let needed = [Some(end.number), spare.as_ref().map(|spare| spare.number)];
    let kept = files.tidy(&*dir, &needed, loss).map_err(refused)?;
    let damage = loss.map(|loss| Damage {
        group: loss.group,
        through: loss.through,
        readable: loss.readable,
        files: kept.iter().map(|name| dir.path().join(name)).collect(),
    });
    let last_number = spare.as_ref().map_or(end.number, |spare| spare.number).max(files.last);
    let log = LogWriter::new(dir, file_bytes, (end, spare), replayed.group, last_number);
    Ok(Recovered { log, damage })
}

fn log_error(dir: &dyn LogDir, error: io::Error) -> OpenError {
    OpenError::io("recovering the log in", dir.path(), error)
}

/// The names in the directory.
struct Files {
    log: BTreeSet<u64>,
    kept: BTreeSet<u64>,
    /// The highest number ever seen there.
    last: u64,
}

impl Files {
    /// Also removes what was never finished.
    fn list(dir: &dyn LogDir) -> io::Result<Self> {
        let (mut log, mut kept, mut unfinished) = (BTreeSet::new(), BTreeSet::new(), 0);
        for name in dir.names()? {
            match number_of(&name) {
                Ok(number) => drop(log.insert(number)),
                Err(Some(number)) => drop(kept.insert(number)),
                Err(None) => {
                    let Some(new) = name.strip_suffix(NEW_SUFFIX) else { continue };
                    dir.remove(&name)?;
                    // Until the directory is synced, a crash may bring it back under its name.
                    unfinished = unfinished.max(number_of(new).unwrap_or(0));
                }
            }
        }
        let last = log.last().max(kept.last()).copied().unwrap_or(0).max(unfinished);
        Ok(Self { log, kept, last })
    }

    /// Removes the files that the database covers, and keeps those aside that a loss names. Returns the
    /// names of these. Needs the commit that says so to be durable.
    fn tidy(&self, dir: &dyn LogDir, needed: &[Option<u64>], loss: Option<Loss>) -> io::Result<Vec<String>> {
        let lost = |number: &u64| loss.is_some_and(|loss| (loss.from..loss.until).contains(number));
        let mut changed = false;
        for &number in self.log.iter().filter(|number| !needed.contains(&Some(**number))) {
            changed = true;
            match lost(&number) {
                true => dir.rename(&file_name(number), &kept_name(number))?,
                false => dir.remove(&file_name(number))?,
            }
        }
        if changed {
            dir.sync()?;
        }
        Ok(self
            .log
            .union(&self.kept)
            .filter(|number| lost(number))
            .map(|number| kept_name(*number))
            .collect())
    }
}

/// Going through the log after the checkpoint.
struct Replay {
    checkpoint: Replayed,
    /// The last group that the database holds, or will once committed.
    applied: u64,
    /// The last group known to have been written.
    last: u64,
    /// A group is missing: nothing after it may be applied.
    stopped: bool,
    /// A file is missing or cannot be verified, and the groups read since do not show that it held nothing.
    unverified: bool,
    readable: u64,
    /// The files at the end that records may be appended to.
    ends: Vec<End>,
}

impl Replay {
    fn new(checkpoint: Replayed, files: &Files) -> Self {
        Self {
            checkpoint,
            applied: checkpoint.group,
            last: checkpoint.group,
            stopped: false,
            unverified: checkpoint.file != 0 && !files.log.contains(&checkpoint.file),
            readable: 0,
            ends: Vec::new(),
        }
    }

    fn run(
        &mut self,
        dir: &dyn LogDir,
        files: &Files,
        transaction: &WriteTransaction,
    ) -> Result<(), OpenError> {
        let failed = |error: redb::Error| OpenError::database(dir.path(), error);
        let mut tables = Tables::open(transaction).map_err(failed)?;
        for &number in files.log.range(self.checkpoint.file..) {
            let file = dir.open(&file_name(number)).map_err(|error| log_error(dir, error))?;
            let bytes = file.read().map_err(|error| log_error(dir, error))?;
            let (salt, records, chain, end, clean) = match scan(&bytes, number) {
                Scanned::Blank => continue,
                Scanned::Unverifiable => {
                    self.unverified = true;
                    self.ends.clear();
                    continue;
                }
                Scanned::Log { salt, records, chain, end, clean } => (salt, records, chain, end, clean),
            };
            for record in &records {
                self.record(record, &bytes[record.payload.clone()], dir, &mut tables)?;
            }
            let unused = clean && records.is_empty();
            if !unused {
                self.ends.clear();
            }
            // A file is only continued where a checkpoint holds all of it.
            if unused || (clean && records.last().is_some_and(|last| last.group == self.checkpoint.group)) {
                let (offset, length) = (end as u64, bytes.len() as u64);
                self.ends.push(End { file, number, salt, chain, offset, length });
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        found: &Found,
        payload: &[u8],
        dir: &dyn LogDir,
        tables: &mut Tables<'_>,
    ) -> Result<(), OpenError> {
        self.last = self.last.max(found.group).max(found.durable_through);
        if found.group <= self.applied {
            return Ok(());
        }
        if self.stopped || found.group != self.applied + 1 || found.contradicts {
            self.stopped = true;
            self.readable += 1;
            return Ok(());
        }
        let whole = changes(payload, |change| tables.apply(change));
        if whole.map_err(|error| OpenError::database(dir.path(), error))?.is_none() {
            let detail = format!("group {} verifies but is not one", found.group);
            return Err(OpenError::Damaged { path: dir.path().to_owned(), detail });
        }
        self.applied = found.group;
        self.unverified = false;
        Ok(())
    }

    /// Whether a group that was durable, or may have been, is missing. A group that was not is the last
    /// one: a record says that those before it were durable.
    fn damaged(&self) -> bool {
        self.unverified || self.last > self.applied
    }

    /// The last number that a group had; later groups get higher ones.
    fn last_used(&self) -> u64 {
        if self.damaged() { self.last.max(self.applied + 1) } else { self.applied }
    }

    fn loss(&self, end: u64) -> Option<Loss> {
        self.damaged().then(|| Loss {
            group: self.applied + 1,
            through: self.last_used(),
            readable: self.readable,
            from: self.checkpoint.file,
            until: end,
        })
    }

    /// Where the log goes on, made durable, and the file after that.
    fn continuation(
        &mut self,
        dir: &dyn LogDir,
        last_number: u64,
        file_bytes: u64,
    ) -> io::Result<(End, Option<End>)> {
        let mut ends = std::mem::take(&mut self.ends).into_iter();
        let Some(end) = ends.next() else {
            let number = last_number.max(self.checkpoint.file) + 1;
            return Ok((prepare(dir, number, file_bytes)?, None));
        };
        let spare = ends.next();
        end.file.sync()?;
        if let Some(spare) = &spare {
            spare.file.sync()?;
        }
        dir.sync()?;
        Ok((end, spare))
    }
}
