//! Appending records, and the files ahead of and behind the one that is written.

use std::io;

use crate::layer::Layer;
use crate::log::files::{LogDir, LogFile, NUMBER_MAX, file_name};
use crate::log::record::{self, Checksum, Framed, HEADER_BYTES, Salt};

/// A file has this suffix until it is whole and synced.
pub(crate) const NEW_SUFFIX: &str = ".new";
/// How much of a new file is written at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A file that records may be appended to.
pub(crate) struct End {
    pub(crate) file: Box<dyn LogFile>,
    pub(crate) number: u64,
    pub(crate) salt: Salt,
    pub(crate) chain: Checksum,
    /// Where the next record goes.
    pub(crate) offset: u64,
    /// The length of the file.
    pub(crate) length: u64,
}

impl End {
    fn fits(&self, record: usize) -> bool {
        self.length - self.offset >= record as u64
    }
}

/// Creates file `number`, all of it written and synced, and its name too. Where it fails, nothing may be
/// appended to a file of that name. An error that says that the disk is full leaves none.
pub(crate) fn prepare(dir: &dyn LogDir, number: u64, length: u64) -> io::Result<End> {
    if number > NUMBER_MAX {
        return Err(io::Error::other("a file has the last number there is"));
    }
    let name = file_name(number);
    let new = format!("{name}{NEW_SUFFIX}");
    let end = write_new(dir, &new, number, length).inspect_err(|_| {
        // It would only take space; the next opening removes it otherwise.
        let _ = dir.remove(&new);
    })?;
    dir.rename(&new, &name)?;
    sync_names(dir)?;
    Ok(end)
}

/// What a failed sync was to make durable may be gone, whatever its reason: it is not one to wait out.
fn sync_names(dir: &dyn LogDir) -> io::Result<()> {
    dir.sync().map_err(io::Error::other)
}

/// Written, not only allocated: syncing a write into blocks that were never written has to log the change
/// of their state too.
fn write_new(dir: &dyn LogDir, new: &str, number: u64, length: u64) -> io::Result<End> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    let file = dir.create(new)?;
    let header = record::file_header(number, &salt);
    let (_, chain) = record::read_file_header(&header, number).expect("it was just made");
    let length = length.max(HEADER_BYTES as u64);
    let zeros = vec![0; CHUNK_BYTES.min(usize::try_from(length).unwrap_or(CHUNK_BYTES))];
    let mut offset = HEADER_BYTES as u64;
    file.write(0, &header)?;
    while offset < length {
        let chunk = (length - offset).min(zeros.len() as u64);
        file.write(offset, &zeros[..usize::try_from(chunk).expect("no longer than the zeros")])?;
        offset += chunk;
    }
    file.sync()?;
    Ok(End { file, number, salt, chain, offset: HEADER_BYTES as u64, length })
}

/// A group in the log that is not durable yet.
pub(crate) struct Written {
    group: u64,
    checksum: Checksum,
}

/// The log as it is written.
pub(crate) struct LogWriter {
    dir: Box<dyn LogDir>,
    file_bytes: u64,
    end: End,
    spare: Option<End>,
    /// Files that hold only groups before the end's.
    sealed: Vec<u64>,
    last_number: u64,
    synced: u64,
    record: Vec<u8>,
}

impl LogWriter {
    /// Appends at `end`, then at the spare; both files and their names are durable. `synced` is the last
    /// group that is durable, and `last_number` the highest number of any file.
    pub(crate) fn new(
        dir: Box<dyn LogDir>,
        file_bytes: u64,
        (end, spare): (End, Option<End>),
        synced: u64,
        last_number: u64,
    ) -> Self {
        let (sealed, record) = Default::default();
        Self { dir, file_bytes, end, spare, sealed, last_number, synced, record }
    }

    /// The number of the file that holds the last record.
    pub(crate) fn number(&self) -> u64 {
        self.end.number
    }

    /// The number of the last group that is durable.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Makes sure that the group fits into the file at the end, with another file where it does not.
    ///
    /// # Errors
    /// Of creating a file. Nothing was changed.
    pub(crate) fn make_room(&mut self, layer: &Layer) -> io::Result<()> {
        record::frame(layer, &mut self.record);
        if self.end.fits(self.record.len()) {
            return Ok(());
        }
        if !self.spare.as_ref().is_some_and(|spare| spare.fits(self.record.len())) {
            let larger = self.create((HEADER_BYTES + self.record.len()) as u64)?;
            // Numbers ascend with groups, so a smaller one that was passed over is never used.
            self.sealed.extend(self.spare.replace(larger).map(|spare| spare.number));
        }
        let next = self.spare.take().expect("one that fits was just made");
        self.sealed.push(self.end.number);
        self.end = next;
        Ok(())
    }

    /// Writes the group that room was made for.
    ///
    /// # Errors
    /// Of the write. A part of the record may be there. When the disk is full, which only file systems say of
    /// a file that has its space that never write in place, the same group may be tried again: the record is
    /// the same, and until its sync nobody relies on it.
    pub(crate) fn write(&mut self) -> io::Result<Written> {
        let group = self.synced + 1;
        let framed = Framed { group, durable_through: self.synced, chain: self.end.chain };
        let checksum = record::seal(&mut self.record, &self.end.salt, self.end.offset, &framed);
        self.end.file.write(self.end.offset, &self.record)?;
        Ok(Written { group, checksum })
    }

    /// Makes the group durable that was just written, and returns its number.
    ///
    /// # Errors
    /// Of the sync. Whether the group is on disk is unknown then: append nothing more.
    pub(crate) fn sync(&mut self, written: &Written) -> io::Result<u64> {
        let Written { group, checksum } = *written;
        self.end.file.sync()?;
        self.end.offset += self.record.len() as u64;
        self.end.chain = checksum;
        self.synced = group;
        if self.record.len() as u64 > self.file_bytes {
            // Rare, and nothing else holds that much for good.
            self.record = Vec::new();
        }
        Ok(group)
    }

    /// Whether half of the file at the end is used and none is ready to follow it.
    pub(crate) fn wants_spare(&self) -> bool {
        self.spare.is_none() && self.end.offset > self.end.length / 2
    }

    /// The length of a file that no large group needed.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Creates the file to follow the one at the end.
    pub(crate) fn make_spare(&mut self) -> io::Result<()> {
        self.spare = Some(self.create(0)?);
        Ok(())
    }

    fn create(&mut self, length_min: u64) -> io::Result<End> {
        // Also after a failure: until the directory is synced, a crash may leave the earlier file of a name.
        self.last_number += 1;
        prepare(&*self.dir, self.last_number, self.file_bytes.max(length_min))
    }

    /// Removes the files before the one at the end. Needs a durable checkpoint of every group in them.
    pub(crate) fn remove_sealed(&mut self) -> io::Result<()> {
        if self.sealed.is_empty() {
            return Ok(());
        }
        while let Some(number) = self.sealed.last() {
            self.dir.remove(&file_name(*number))?;
            self.sealed.pop();
        }
        sync_names(&*self.dir)
    }
}
