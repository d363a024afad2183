//! Catching up from one replica, and from three that have the same, each over a path of limited rate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use comity::{Congestion, Replica, Space, Ticket};
use comity_path::{Conditions, Path};
use tempfile::TempDir;

use super::pair::{PATIENCE, Source, options, over};
use crate::Failure;

/// A copy of the space, which others can catch up from.
struct Copy {
    ticket: Ticket,
    replica: Replica,
    _directory: TempDir,
}

impl Copy {
    async fn of(space: &Space, congestion: Congestion) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let replica = Replica::open_with(directory.path(), options(congestion)).await?;
        let addr = replica.listen("127.0.0.1:0".parse()?).await?;
        let copied = replica.connect(&space.invite().await?).await?;
        copied.at_within(&space.token().await?, PATIENCE).await?;
        let ticket =
            Ticket { replica: replica.id(), addresses: vec![addr], secret: None, ..space.invite().await? };
        Ok(Self { ticket, replica, _directory: directory })
    }
}

/// How long a new replica takes to get a space from its owner alone, and from `copies` others as well; alternating, `repeats`
/// times each.
pub(super) async fn measure(
    source: &Source,
    space: &Space,
    conditions: Conditions,
    (congestion, copies, repeats): (Congestion, usize, usize),
) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let mut held = Vec::new();
    for _ in 0..copies {
        held.push(Copy::of(space, congestion).await?);
    }
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        alone.push(catch_up(source.addr, space, &[], conditions, congestion).await?);
        together.push(catch_up(source.addr, space, &held, conditions, congestion).await?);
    }
    for copy in held {
        copy.replica.shutdown().await;
    }
    Ok((alone, together))
}

async fn catch_up(
    owner: SocketAddr,
    space: &Space,
    copies: &[Copy],
    conditions: Conditions,
    congestion: Congestion,
) -> Result<Duration, Failure> {
    let directory = tempfile::tempdir()?;
    let replica = Replica::open_with(directory.path(), options(congestion)).await?;
    let (ticket, token) = (space.invite().await?, space.token().await?);
    let mut paths = vec![Path::to(owner, conditions, 1)?];
    for (seed, copy) in (2..).zip(copies) {
        let addr = *copy.ticket.addresses.first().ok_or("a copy listens nowhere")?;
        paths.push(Path::to(addr, conditions, seed)?);
    }
    let started = Instant::now();
    let joined = replica.connect(&over(&paths[0], &ticket)).await?;
    for (path, copy) in paths[1..].iter().zip(copies) {
        replica.connect(&over(path, &copy.ticket)).await?;
    }
    joined.at_within(&token, PATIENCE).await?;
    let took = started.elapsed();
    replica.shutdown().await;
    Ok(took)
}
