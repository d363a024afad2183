//! Bits that change on the disk by themselves.

use redb::Builder;

use super::disk::Disk;
use super::image::Image;
use crate::format::{Replayed, guarded};
use crate::log::{Scanned, file_name, number_of, record_range, scan};

/// In which files of the log bits change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// In one of those that recovery needs.
    OneFile,
    /// In each of them.
    EveryFile,
}

/// A record that recovery needs.
struct Needed {
    file: usize,
    offset: usize,
    length: usize,
    group: u64,
}

impl Disk {
    /// Flips a bit in a record of the log, or in one of each of its files, durably, and returns how many were
    /// flipped. Only records count that recovery needs and whose loss it can tell from a crash: of groups
    /// after the last checkpoint, without the last one. So when any was flipped, the next opening reports
    /// [`Damage`](crate::Damage), unless a store that is open makes a checkpoint before. O(image).
    pub fn flip_bits(&self, rot: Rot, random: &mut dyn FnMut() -> u64) -> usize {
        let mut files = needed(&self.durable());
        if files.is_empty() {
            return 0;
        }
        if rot == Rot::OneFile {
            let chosen = below(files.len(), random);
            files = vec![files.swap_remove(chosen)];
        }
        for records in &files {
            let record = &records[below(records.len(), random)];
            let offset = record.offset + below(record.length, random);
            self.flip(record.file, offset, below(8, random) as u32);
        }
        files.len()
    }
}

fn below(count: usize, random: &mut dyn FnMut() -> u64) -> usize {
    (random() % count as u64) as usize
}

/// The records that recovery needs and would miss, for each file that has any.
fn needed(image: &Image) -> Vec<Vec<Needed>> {
    let Some(replayed) = replayed(image) else { return Vec::new() };
    let mut numbers: Vec<_> = image.log_files().filter_map(|name| number_of(name).ok()).collect();
    numbers.sort_unstable();
    let mut files: Vec<Vec<Needed>> = Vec::new();
    for number in numbers {
        let name = file_name(number);
        let (Some(file), Some(bytes)) = (image.file_of(&name), image.log_file(&name)) else { continue };
        let Scanned::Log { records, .. } = scan(&bytes, number) else { continue };
        let needed = records.iter().filter(|found| found.group > replayed.group).map(|found| {
            let range = record_range(found);
            Needed { file, offset: range.start, length: range.len(), group: found.group }
        });
        files.push(needed.collect());
    }
    // The loss of the last one looks like that of a group whose sync was never complete.
    let last = files.iter().flatten().map(|record| record.group).max();
    files.iter_mut().for_each(|records| records.retain(|record| Some(record.group) != last));
    files.retain(|records| !records.is_empty());
    files
}

/// What the database would say after a power cut.
fn replayed(image: &Image) -> Option<Replayed> {
    let disk = Disk::new(image.clone()).database();
    let database = guarded("disk".as_ref(), || Ok(Builder::new().create_with_backend(disk)?)).ok()?;
    Replayed::read(&database).ok().flatten()
}
