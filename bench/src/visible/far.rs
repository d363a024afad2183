//! Two replicas with a long path between them: what a write takes, and until the other one shows it.

use std::time::Duration;

use comity_path::Conditions;

use super::{APART, RECORD_BYTES, seen};
use crate::Failure;
use crate::control::Syncs;
use crate::figures::Samples;
use crate::load::{COUNTER, ComityWriter, Pair, closed_loop};
use crate::quic::Quic;
use crate::report::{Cell, Table};

const ONE_WAY: Duration = Duration::from_millis(50);
/// One in a hundred.
const LOSS_PPM: u32 = 10_000;
/// Writers at once.
const WRITERS: [usize; 2] = [1, 16];

/// A path, and what a cluster that commits at both ends makes of it with so many clients, commits a second.
struct Far {
    name: &'static str,
    conditions: Option<Conditions>,
    /// MariaDB 10.11 with Galera 26.4, measured on such a machine at another time: single-row updates, one client and 16.
    galera: &'static str,
}

/// What was measured over one path.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) name: &'static str,
    galera: &'static str,
    /// Durable changes a second, and p50, ms, by writers.
    writes: [[Samples; 2]; 2],
    /// Until the other replica shows one, p50, and what the limit is; ms.
    pub(super) seen: Samples,
    pub(super) limit: Samples,
}

/// Measures over each path in turn, in every repeat.
pub(super) async fn measure(
    (repeats, count): (usize, usize),
    syncs: &mut Syncs,
) -> Result<Vec<Measured>, Failure> {
    let delayed = Conditions::after(ONE_WAY);
    let all = [
        Far { name: "loopback", conditions: None, galera: "2,814; 8,621" },
        Far { name: "100 ms there and back", conditions: Some(delayed), galera: "10; 100" },
        Far { name: "100 ms, 1 % lost", conditions: Some(delayed.losing(LOSS_PPM)), galera: "9; 83" },
    ];
    let mut measured = Vec::new();
    for Far { name, conditions, galera } in all {
        let (pair, quic) = (Pair::over(conditions).await?, Quic::over(conditions).await?);
        let mut far = Measured { name, galera, ..Measured::default() };
        for repeat in 0..repeats {
            let (pings, synced) =
                (quic.pings(count, APART).await?, syncs.take_apart(RECORD_BYTES, count, APART)?);
            far.limit.push((pings.percentile_us(50) + synced.percentile_us(50)) / 1e3);
            far.seen.push(seen(&pair, count).await?.percentile_us(50) / 1e3);
            for (writers, [rate, p50]) in WRITERS.into_iter().zip(&mut far.writes) {
                let writer = |writer| ComityWriter::new(&pair.written, COUNTER, writer, repeat);
                let (made, times) = closed_loop(writers, Duration::from_millis(500), writer).await?;
                rate.push(made);
                p50.push(times.percentile_us(50) / 1e3);
                pair.agree().await?;
            }
        }
        pair.close().await;
        measured.push(far);
    }
    Ok(measured)
}

pub(super) fn table(all: &[Measured]) -> Table {
    let columns = [
        ("one writer", "1/s"),
        ("p50", "ms"),
        ("16 writers", "1/s"),
        ("p50", "ms"),
        ("seen at the other, p50", "ms"),
        ("limit: QUIC echo and `fdatasync`", "ms"),
        ("over the limit", ""),
        ("Galera, 1 and 16 clients (cited)", "1/s"),
    ];
    let mut table = Table::new("Durable changes, by the path between two replicas:", "path", &columns);
    for Measured { name, galera, writes: [[one, one_p50], [many, many_p50]], seen, limit } in all {
        let figures = [one, one_p50, many, many_p50, seen, limit].map(|samples| samples.clone().into());
        let last = [seen.over(limit).into(), Cell::Text((*galera).to_owned())];
        table.row(*name, figures.into_iter().chain(last));
    }
    table
}
