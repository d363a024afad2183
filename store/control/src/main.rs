//! The negative control of the crash images: bare redb 4.1.0 with one-phase durable commits, which a power
//! cut can leave unreadable, on the disk model of `store/src/faults`. Ends with failure if no image shows it.
#![forbid(unsafe_code)]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition};

const TABLE: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("table");
const SECTOR: usize = 512;
const ROWS: u64 = 40;
const IMAGES_MAX: u64 = 200_000;
const IMAGES_PER_LIFE: u64 = 200;

#[derive(Clone, Debug)]
enum Operation {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
    Sync,
}

#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, Vec<Operation>)>>);

impl Disk {
    fn change(&self, operation: Operation) -> io::Result<()> {
        let mut state = self.0.lock().expect("no holder panics");
        apply(&mut state.0, &operation, || true);
        state.1.push(operation);
        Ok(())
    }
}

/// Each sector of a write by itself.
fn apply(bytes: &mut Vec<u8>, operation: &Operation, mut kept: impl FnMut() -> bool) {
    match operation {
        Operation::Write { offset, data } => {
            let mut from = 0;
            while from < data.len() {
                let until = (SECTOR - (offset + from) % SECTOR + from).min(data.len());
                if kept() {
                    let length = bytes.len().max(offset + until);
                    bytes.resize(length, 0);
                    bytes[offset + from..offset + until].copy_from_slice(&data[from..until]);
                }
                from = until;
            }
        }
        Operation::SetLen(length) if kept() => bytes.resize(*length, 0),
        Operation::SetLen(_) | Operation::Sync => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("no holder panics").0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().expect("no holder panics");
        let offset = offset as usize;
        out.copy_from_slice(state.0.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::SetLen(length as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write { offset: offset as usize, data: data.to_vec() })
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn open(disk: &Disk) -> Result<Database, redb::Error> {
    Ok(Builder::new().set_cache_size(1024 * 1024).create_with_backend(disk.clone())?)
}

/// Writes rows, each durably, and returns the operations with (operations, rows) after each commit.
fn life(seed: u64) -> Result<(Vec<Operation>, Vec<(usize, u64)>), redb::Error> {
    let disk = Disk::default();
    let database = open(&disk)?;
    let (mut state, mut acknowledged) = (seed, Vec::new());
    for row in 1..=ROWS {
        let transaction = database.begin_write()?;
        let value = vec![row as u8; (random(&mut state) % 3000) as usize];
        transaction.open_table(TABLE)?.insert(row, value.as_slice())?;
        transaction.open_table(TABLE)?.remove(row.saturating_sub(5))?;
        transaction.commit()?;
        acknowledged.push((disk.0.lock().expect("no holder panics").1.len(), row));
    }
    let operations = disk.0.lock().expect("no holder panics").1.clone();
    Ok((operations, acknowledged))
}

/// What is wrong with an image, if anything is.
fn fault(image: Vec<u8>, acknowledged: u64) -> Option<String> {
    let disk = Disk::default();
    disk.0.lock().expect("no holder panics").0 = image;
    let last = catch_unwind(AssertUnwindSafe(|| -> Result<u64, redb::Error> {
        let database = open(&disk)?;
        let table = database.begin_read()?.open_table(TABLE)?;
        let mut last = 0;
        for row in table.range(0..)? {
            last = row?.0.value();
        }
        Ok(last)
    }));
    match last {
        Err(_) => Some("opening it panics".to_owned()),
        Ok(Err(error)) => Some(format!("it cannot be opened: {error}")),
        Ok(Ok(last)) if last < acknowledged => {
            Some(format!("row {last} where {acknowledged} was acknowledged"))
        }
        Ok(Ok(_)) => None,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::panic::set_hook(Box::new(|_| {}));
    let mut made = 0;
    for seed in 1.. {
        let (operations, acknowledged) = life(seed)?;
        let (first, mut state) = (acknowledged[0].0, seed);
        for _ in 0..IMAGES_PER_LIFE {
            let cut = first + (random(&mut state) % (operations.len() - first) as u64) as usize;
            let synced = operations[..cut].iter().rposition(|done| matches!(done, Operation::Sync));
            let synced = synced.map_or(0, |at| at + 1);
            let mut image = Vec::new();
            operations[..synced].iter().for_each(|done| apply(&mut image, done, || true));
            operations[synced..cut]
                .iter()
                .for_each(|done| apply(&mut image, done, || random(&mut state) % 2 == 0));
            made += 1;
            let least = acknowledged.iter().rev().find(|(done, _)| *done <= cut).map_or(0, |mark| mark.1);
            if let Some(fault) = fault(image, least) {
                println!("found in image {made} (seed {seed}, cut {cut}): {fault}");
                return Ok(());
            }
        }
        if made >= IMAGES_MAX {
            break;
        }
    }
    Err(format!("{made} images and nothing found: the images prove nothing").into())
}
