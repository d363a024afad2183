//! What it costs two replicas to connect again: bytes of frames in both directions, ways until all is said, and the time
//! that both cores take, which run in one thread. With nothing new none of that may grow with the number of spaces.

use std::time::{Duration, Instant};

use comity_crdts::{Kind, ObjectAddress, SpaceId, Value};

use crate::figures::Samples;
use crate::load::Pair;
use crate::options::Options;
use crate::plot::figure;
use crate::replicas::Replicas;
use crate::table::{self, mib};
use crate::{Failure, Verdict, machine};

/// Bytes in both directions with nothing new.
const BYTES_MAX: u64 = 400;
/// Ways with nothing new: both sides speak at once, so that two are a round trip.
const WAYS_MAX: u64 = 2;
/// Objects written in one transaction.
const OBJECTS_AT_ONCE: u64 = 512;
/// How often each is measured; the median counts.
const TIMES: usize = 9;
const WITHIN: Duration = Duration::from_secs(10);

/// What one connection came to.
struct Cost {
    bytes: u64,
    ways: u64,
    time: Duration,
}

/// Prints the costs. Options: `--spaces`, 10,000, the most that are shared; `--objects`, 1,000,000, in the one large space.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let (most, objects): (usize, u64) =
        (options.value("spaces", 10_000)?, options.value("objects", 1_000_000)?);
    let mut verdict = Verdict::default();
    let mut rows = Vec::new();
    for spaces in [1, 1_000, 10_000].into_iter().filter(|spaces| *spaces <= most) {
        let before = machine::resident_bytes();
        let mut replicas = Replicas::open(2)?;
        let ids = replicas.found_many(spaces)?;
        for (index, id) in ids.iter().enumerate() {
            write(&mut replicas, index % 2, *id)?;
        }
        replicas.settle()?;
        replicas.connect()?;
        replicas.settle()?;
        replicas.disconnect()?;
        measure(&mut replicas, &format!("{spaces}"), &ids, &mut rows, &mut verdict)?;
        let held = machine::resident_bytes().saturating_sub(before);
        if let Some(last) = rows.last_mut() {
            last.push(mib(held / 2));
        }
    }
    if objects > 0 {
        let mut replicas = Replicas::open(2)?;
        let ids = replicas.found_many(1)?;
        fill(&mut replicas, ids[0], objects)?;
        let name = format!("1, with {objects} objects");
        measure(&mut replicas, &name, &ids, &mut rows, &mut verdict)?;
    }
    let heads = [
        "spaces",
        "first: ms",
        "nothing new: bytes",
        "ways",
        "ms",
        "one space differs: bytes",
        "ways to the data",
        "ms",
        "memory of a replica, MiB",
    ];
    rows.iter_mut().for_each(|row| row.resize(heads.len(), "–".to_owned()));
    table::print(&heads, &rows);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let real = runtime.block_on(over_quic())?;
    let names =
        ["frames, bytes", "UDP payload with the QUIC handshake, bytes", "until both have a session, ms"];
    table::print(
        &["one space, two replicas over QUIC on the loopback", "median"],
        &names
            .iter()
            .zip(&real)
            .map(|(name, value)| vec![(*name).to_owned(), figure(value.median())])
            .collect::<Vec<_>>(),
    );
    Ok(verdict)
}

/// Frames and UDP payload in both directions, bytes, and how long it takes until both have a session, ms.
async fn over_quic() -> Result<[Samples; 3], Failure> {
    let pair = Pair::open().await?;
    let mut real = <[Samples; 3]>::default();
    for _ in 0..TIMES {
        pair.follower.go_offline().await?;
        while !pair.author.connected().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begun = Instant::now();
        pair.follower.go_online();
        pair.follower.wait_connected(pair.author.id(), WITHIN).await?;
        pair.author.wait_connected(pair.follower.id(), WITHIN).await?;
        let took = begun.elapsed();
        // Answers and acknowledgements of packets are on their way still.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let traffic = pair.traffic().await?;
        let all = [traffic.frames as f64, traffic.udp as f64, took.as_secs_f64() * 1e3];
        real.iter_mut().zip(all).for_each(|(samples, sample)| samples.push(sample));
    }
    pair.close().await;
    Ok(real)
}

fn measure(
    replicas: &mut Replicas,
    name: &str,
    ids: &[SpaceId],
    rows: &mut Vec<Vec<String>>,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    // The first time after a start, what is shared is looked through.
    let first = connect(replicas, None)?;
    let quiet = median(replicas, |replicas| connect(replicas, None))?;
    if quiet.bytes > BYTES_MAX || quiet.ways > WAYS_MAX {
        verdict
            .broken
            .push(format!("{name}: {} bytes and {} ways with nothing new", quiet.bytes, quiet.ways));
    }
    let space = ids[ids.len() / 2];
    let differing = median(replicas, |replicas| {
        write(replicas, 0, space)?;
        replicas.settle()?;
        connect(replicas, Some(space))
    })?;
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    rows.push(vec![
        name.to_owned(),
        ms(first.time),
        quiet.bytes.to_string(),
        quiet.ways.to_string(),
        ms(quiet.time),
        differing.bytes.to_string(),
        differing.ways.to_string(),
        ms(differing.time),
    ]);
    Ok(())
}

fn median(
    replicas: &mut Replicas,
    mut once: impl FnMut(&mut Replicas) -> Result<Cost, Failure>,
) -> Result<Cost, Failure> {
    let mut costs = (0..TIMES).map(|_| once(replicas)).collect::<Result<Vec<_>, _>>()?;
    costs.sort_by_key(|cost| cost.time);
    Ok(costs.swap_remove(TIMES / 2))
}

/// Connects the two and parts them again. Ways are counted until nothing is on its way, or the second one has everything
/// of a space.
fn connect(replicas: &mut Replicas, until_equal: Option<SpaceId>) -> Result<Cost, Failure> {
    let sent = replicas.sent_bytes + replicas.answered_bytes;
    let begun = Instant::now();
    replicas.connect()?;
    let mut ways = 0;
    let mut time = begun.elapsed();
    loop {
        let begun = Instant::now();
        if !replicas.exchange()? {
            break;
        }
        time += begun.elapsed();
        ways += 1;
        if until_equal.is_some_and(|space| has_all(replicas, space)) {
            break;
        }
    }
    let bytes = replicas.sent_bytes + replicas.answered_bytes - sent;
    replicas.settle()?;
    replicas.disconnect()?;
    Ok(Cost { bytes, ways, time })
}

fn has_all(replicas: &Replicas, space: SpaceId) -> bool {
    let frontier = |index: usize| {
        let status = replicas.all[index].engine.status();
        status.spaces.into_iter().find(|status| status.space == space).map(|status| status.frontier)
    };
    frontier(0) == frontier(1)
}

fn write(replicas: &mut Replicas, index: usize, space: SpaceId) -> Result<(), Failure> {
    replicas.transact_at(index, space, |tx| tx.counter_add("measured", "counter", 1))
}

fn fill(replicas: &mut Replicas, space: SpaceId, objects: u64) -> Result<(), Failure> {
    for first in (0..objects).step_by(OBJECTS_AT_ONCE as usize) {
        let mut numbers = first..(first + OBJECTS_AT_ONCE).min(objects);
        replicas.transact(space, |tx| {
            numbers.try_for_each(|number| {
                let object = ObjectAddress::new(Kind::Register, "measured", &format!("object-{number:08}"))?;
                tx.register_write_at(&object.into(), Value::from(number as i64))
            })
        })?;
        if first % (64 * OBJECTS_AT_ONCE) == 0 {
            replicas.settle()?;
        }
    }
    replicas.connect()?;
    replicas.settle()?;
    replicas.pass(Duration::from_secs(30))?;
    replicas.disconnect()
}
