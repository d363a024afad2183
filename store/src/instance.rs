//! Telling a store from its copy.
//!
//! A marker file holds random bytes. Copying or restoring the directory makes another file with the same
//! bytes, so its inode number or change time differ; neither can be set by a program. A rollback of the
//! whole machine restores both, and is not seen here.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::directory::{self, private_file};
use crate::error::OpenError;

/// The marker.
pub(crate) const MARKER_FILE: &str = "comity.instance";
const MARKER_BYTES: usize = 16;

/// Names one directory on one machine: equal every time it is opened, also after a reboot, and different
/// in a copy of it.
///
/// Derived from the machine's id, the marker's inode number, its change time and its random bytes; never
/// from device numbers or paths, which a reboot or a remount changes. It may also change when nothing was
/// copied, for example when the marker's permissions change. On systems other than Unix it is derived from
/// the random bytes alone, so a copy is not noticed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceToken(pub [u8; 32]);

impl fmt::Debug for InstanceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceToken(")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…)")
    }
}

/// The token of a locked directory. Writes the marker where it is missing or cut short.
pub(crate) fn token(dir: &Path) -> Result<InstanceToken, OpenError> {
    let path = dir.join(MARKER_FILE);
    let failed = |error| OpenError::io("reading the instance marker", &path, error);
    let random = match fs::read(&path) {
        Ok(bytes) if bytes.len() == MARKER_BYTES => bytes,
        Ok(_) => create(dir, &path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(dir, &path)?,
        Err(error) => return Err(failed(error)),
    };
    let mut hasher = blake3::Hasher::new_derive_key("comity 2026 instance token");
    let file = File::open(&path).map_err(failed)?;
    for part in [machine_id(), file_identity(&file).map_err(failed)?, random] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(&part);
    }
    Ok(InstanceToken(*hasher.finalize().as_bytes()))
}

/// Makes the directory another one to whoever remembers its token.
pub(crate) fn renew(dir: &Path) -> Result<(), OpenError> {
    create(dir, &dir.join(MARKER_FILE)).map(drop)
}

/// Written in place: a rename would change the change time after the fact on some systems.
fn create(dir: &Path, path: &Path) -> Result<Vec<u8>, OpenError> {
    let mut random = vec![0; MARKER_BYTES];
    getrandom::fill(&mut random)
        .map_err(io::Error::other)
        .and_then(|()| {
            let mut file = private_file().truncate(true).open(path)?;
            file.write_all(&random)?;
            file.sync_all()
        })
        .map_err(|error| OpenError::io("writing the instance marker", path, error))?;
    directory::sync(dir)?;
    Ok(random)
}

/// Empty where the machine has none or it cannot be read, which is the same at every start.
#[cfg(unix)]
fn machine_id() -> Vec<u8> {
    fs::read("/etc/machine-id").map(|id| id.trim_ascii().to_vec()).unwrap_or_default()
}

#[cfg(not(unix))]
fn machine_id() -> Vec<u8> {
    Vec::new()
}

#[cfg(unix)]
fn file_identity(file: &File) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    let mut identity = metadata.ino().to_le_bytes().to_vec();
    identity.extend(metadata.ctime().to_le_bytes());
    identity.extend(metadata.ctime_nsec().to_le_bytes());
    Ok(identity)
}

#[cfg(not(unix))]
fn file_identity(_file: &File) -> io::Result<Vec<u8>> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_cut_short_by_a_crash_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER_FILE), [1, 2, 3]).unwrap();
        let token = token(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join(MARKER_FILE)).unwrap().len(), MARKER_BYTES);
        assert_eq!(token, super::token(dir.path()).unwrap());
    }

    #[test]
    fn two_directories_differ() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(token(one.path()).unwrap(), token(other.path()).unwrap());
    }
}
