//! Two replicas of Comity, of which one has a space that the other comes to take part in.

use std::time::{Duration, Instant};

use comity::{ConnectionStats, Replica, Space, Transaction, TxError};
use tempfile::TempDir;

use crate::Failure;

/// Objects made in one transaction.
pub(crate) const AT_ONCE: u64 = 100;
pub(crate) const WITHIN: Duration = Duration::from_secs(600);

/// The one that begins.
pub(crate) struct Author {
    pub(crate) replica: Replica,
    pub(crate) space: Space,
    directory: TempDir,
}

impl Author {
    pub(crate) async fn open() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let replica = Replica::open(directory.path().join("author")).await?;
        replica.listen("127.0.0.1:0".parse()?).await?;
        let space = replica.create_space("bench").await?;
        Ok(Self { replica, space, directory })
    }

    /// Makes so many objects.
    pub(crate) async fn fill(
        &self,
        objects: u64,
        make: fn(&mut Transaction<'_, '_>, u64) -> Result<(), TxError>,
    ) -> Result<(), Failure> {
        for first in (0..objects).step_by(AT_ONCE as usize) {
            let mut numbers = first..(first + AT_ONCE).min(objects);
            self.space.transact(move |tx| numbers.try_for_each(|number| make(tx, number))).await?;
        }
        Ok(())
    }

    /// Has another replica connect. Seconds until it has everything.
    pub(crate) async fn follow(self) -> Result<(Pair, f64), Failure> {
        let follower = Replica::open(self.directory.path().join("follower")).await?;
        let ticket = self.space.invite().await?;
        let begun = Instant::now();
        let followed = follower.connect(&ticket).await?;
        let pair = Pair { author: self, follower, followed };
        pair.agree().await?;
        let took = begun.elapsed().as_secs_f64();
        Ok((pair, took))
    }
}

pub(crate) struct Pair {
    pub(crate) author: Author,
    pub(crate) follower: Replica,
    pub(crate) followed: Space,
}

impl Pair {
    /// Waits until everything that is durable at the author is durable at the follower.
    pub(crate) async fn agree(&self) -> Result<(), Failure> {
        self.followed.at_within(&self.author.space.token().await?, WITHIN).await?;
        Ok(())
    }

    /// What went over the present connection.
    pub(crate) async fn traffic(&self) -> Result<ConnectionStats, Failure> {
        let traffic = self.author.replica.traffic().await?;
        let (_, stats) = traffic.first().ok_or("the replicas are not connected")?;
        Ok(*stats)
    }

    pub(crate) async fn close(self) {
        self.author.replica.shutdown().await;
        self.follower.shutdown().await;
    }
}
