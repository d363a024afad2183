//! Opening a replica whose process was killed, with many objects.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use comity::{OpenOptions, Replica, Space};

use crate::figures::{REPEATS, Samples};
use crate::load::offline;
use crate::machine::resident_bytes;
use crate::options::Options;
use crate::plot::Plot;
use crate::report::{Bound, Promise, Report, Table, group};
use crate::{Failure, Verdict};

/// Seconds that opening may take.
const SECONDS: f64 = 0.5;
/// Objects written in one transaction when the directory is filled.
const AT_ONCE: u64 = 512;
/// For how long each process writes before it is killed.
const WRITES: Duration = Duration::from_millis(700);

const ABOUT: &str = "A process that holds so many registers of 16 characters is killed (`kill -9`) while it writes, and another one opens \
    the directory, is killed likewise, and so on. The limit is the time that reading the files of the log takes, which opening has to do.";

/// Measures. Options: `--repeats`, 5; `--n` objects, 1,000,000; `--out`, a folder. With `--directory` it is the process
/// that is killed.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (repeats, count) = (options.value("repeats", REPEATS)?, options.value("n", 1_000_000)?);
    let (directory, out): (String, String) =
        (options.value("directory", String::new())?, options.value("out", String::new())?);
    if !directory.is_empty() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(write_until_killed(Path::new(&directory)))?;
        return Ok(Verdict::default());
    }
    let mut report = Report::begin("open", ABOUT);
    let directory = tempfile::tempdir()?;
    let filled = directory.path().join("replica");
    fill(&filled, count)?;
    let (mut opened, mut resident, mut reading) =
        (Samples::default(), Samples::default(), Samples::default());
    // The first one is killed only to leave a log behind.
    for repeat in 0..=repeats.max(1) {
        let mut child = start(&filled)?;
        let (seconds, bytes) = told(&mut child)?;
        std::thread::sleep(WRITES);
        child.kill()?;
        child.wait()?;
        if repeat > 0 {
            opened.push(seconds);
            resident.push(bytes / f64::from(1 << 20));
        }
        if repeat < repeats.max(1) {
            reading.push(read_log(&filled)?);
        }
    }
    let columns = [("opened in", "s"), ("reading the log", "s"), ("memory then", "MiB")];
    let mut table = Table::new("After `kill -9`:", "objects", &columns);
    report.plot = Some(Plot {
        title: "Opening after kill -9".to_owned(),
        unit: "s",
        series: vec!["Comity".to_owned(), "reading the log".to_owned()],
        groups: vec![group(format!("{count} objects"), &[&opened, &reading])],
    });
    report.promises.push(Promise {
        about: format!("{count} objects, opened after `kill -9`, s"),
        measured: opened.median(),
        bound: Bound::AtMost(SECONDS),
    });
    table.row(count.to_string(), [opened.into(), reading.into(), resident.into()]);
    report.tables.push(table);
    Ok(Verdict { broken: report.finish(&out)? })
}

fn fill(directory: &Path, count: u64) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (replica, space) = offline(directory).await?;
        for first in (0..count).step_by(AT_ONCE as usize) {
            let numbers = first..(first + AT_ONCE).min(count);
            let write = space.transact(move |tx| {
                for number in numbers {
                    tx.register("filled", &format!("{number:08}")).write(format!("{number:016x}"))?;
                }
                Ok(())
            });
            write.await?;
        }
        replica.shutdown().await;
        Ok(())
    })
}

fn start(directory: &Path) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["open", "--directory"]).arg(directory).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// What the process says of its opening: seconds, and the bytes of memory it had then.
fn told(child: &mut Child) -> Result<(f64, f64), Failure> {
    let said = child.stdout.take().ok_or("the process has no output")?;
    for line in BufReader::new(said).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("opened ") {
            let mut fields = rest.split(' ').map(str::parse::<f64>);
            if let (Some(Ok(seconds)), Some(Ok(bytes))) = (fields.next(), fields.next()) {
                return Ok((seconds, bytes));
            }
        }
    }
    Err("the process did not open the directory".into())
}

async fn write_until_killed(directory: &Path) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut options = OpenOptions::default();
    options.stay_offline = true;
    let replica = Replica::open_with(directory, options).await?;
    let (id, _) = replica.spaces().await?.into_iter().next().ok_or("the space is gone")?;
    let space: Space = replica.space(id).await?;
    println!("opened {} {}", begun.elapsed().as_secs_f64(), resident_bytes());
    for number in 0_u64.. {
        let write = space.transact(move |tx| {
            for object in 0..16 {
                let key = format!("{:08}", number.wrapping_mul(7_919).wrapping_add(object) % 100_000);
                tx.register("filled", &key).write(format!("{number:016x}"))?;
            }
            Ok(())
        });
        write.await?;
    }
    Ok(())
}

/// Seconds that reading the files of the log takes.
fn read_log(directory: &Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    for file in std::fs::read_dir(directory.join("log"))? {
        std::hint::black_box(std::fs::read(file?.path())?);
    }
    Ok(begun.elapsed().as_secs_f64())
}
