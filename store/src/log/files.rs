//! The directory of the log and its files, as far as the log needs them. Crash tests put a simulated disk
//! in their place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::directory::private_file;

/// Digits in a file's name; larger numbers have more.
const NAME_DIGITS: usize = 10;
/// No store makes so many files. A file that has this number leaves none for the next one.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 2;
const SUFFIX: &str = ".log";
const KEPT_SUFFIX: &str = ".damaged";

/// The name of a file of the log.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:0NAME_DIGITS$}{SUFFIX}")
}

/// The name under which a file is kept that cannot be replayed.
pub(crate) fn kept_name(number: u64) -> String {
    format!("{number:0NAME_DIGITS$}{KEPT_SUFFIX}")
}

/// The number in the name of a log file; `Err` holds that of a file kept aside, if it is one. A name that the
/// store does not give is not one of its files.
pub(crate) fn number_of(name: &str) -> Result<u64, Option<u64>> {
    let number = |suffix: &str| name.strip_suffix(suffix)?.parse().ok().filter(|found| *found <= NUMBER_MAX);
    match number(SUFFIX).filter(|found| file_name(*found) == name) {
        Some(found) => Ok(found),
        None => Err(number(KEPT_SUFFIX).filter(|found| kept_name(*found) == name)),
    }
}

/// The directory of the log.
pub(crate) trait LogDir: Send {
    /// Where it is, for messages.
    fn path(&self) -> &Path;
    /// The names in it, in no order.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file, or empties the one that is there.
    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Opens a file to read and write.
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Renames a file, over another if there is one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
}

/// A file of the log.
pub(crate) trait LogFile: Send {
    /// The whole content.
    fn read(&self) -> io::Result<Vec<u8>>;
    /// Writes all of `bytes`, extending the file where needed.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content and the length durable.
    fn sync(&self) -> io::Result<()>;
}

/// A real directory.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Of a directory that exists.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl LogDir for Directory {
    fn path(&self) -> &Path {
        &self.0
    }

    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(private_file().truncate(true).open(self.0.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(File::options().read(true).write(true).open(self.0.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        // Elsewhere a directory cannot be opened as a file, and its entries are journalled.
        if cfg!(unix) { File::open(&self.0)?.sync_all() } else { Ok(()) }
    }
}

impl LogFile for File {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = self;
        io::Seek::rewind(&mut file)?;
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    }

    #[cfg(unix)]
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    #[cfg(not(unix))]
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
        io::Write::write_all(&mut file, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_store_gives_are_its_files() {
        for number in [1, 9_999_999_999, 10_000_000_000, NUMBER_MAX] {
            assert_eq!(number_of(&file_name(number)), Ok(number));
            assert_eq!(number_of(&kept_name(number)), Err(Some(number)));
        }
        for other in ["1", "+000000001", "00000000001", "", "9223372036854775808", "18446744073709551615"] {
            assert_eq!(number_of(&format!("{other}.log")), Err(None), "{other}");
            assert_eq!(number_of(&format!("{other}.damaged")), Err(None), "{other}");
        }
    }
}
