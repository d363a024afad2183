//! Replicas on loopback, each in a directory of its own, and what tests ask of them.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use comity::{
    OpenError, OpenOptions, Replica, ReplicaId, RequestError, Role, Space, SpaceStatus, Ticket, Token,
    WriteError,
};

pub(crate) mod processes;
pub(crate) mod stranger;

/// How long anything may take before a test fails. Only failures take this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A replica and the space as it sees it.
pub(crate) struct Region {
    pub(crate) directory: PathBuf,
    pub(crate) replica: Replica,
    pub(crate) space: Space,
    /// Removes the directory at the end; none when the directory belongs to the test.
    _temporary: Option<tempfile::TempDir>,
}

impl Region {
    /// A region that founds a space and listens.
    pub(crate) async fn founder() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("founder");
        let replica = open(&directory).await;
        let space = replica.create_space("test").await.unwrap();
        Self { directory, replica, space, _temporary: Some(temporary) }
    }

    /// A region that joins by an invitation, listens too, and knows that it is a member.
    pub(crate) async fn joining(inviter: &Self) -> Self {
        Self::joining_as(inviter, Role::Writer).await
    }

    /// As [`Region::joining`], with a role.
    pub(crate) async fn joining_as(inviter: &Self, role: Role) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("joiner");
        let replica = open(&directory).await;
        let space = replica.connect(&inviter.space.invite_as(role).await.unwrap()).await.unwrap();
        let region = Self { directory, replica, space, _temporary: Some(temporary) };
        region.until_member().await;
        region
    }

    /// Opens the directory of a region that was shut down.
    pub(crate) async fn reopen(self) -> Self {
        self.reopen_with(OpenOptions::default()).await
    }

    /// As [`Region::reopen`], with options.
    pub(crate) async fn reopen_with(self, options: OpenOptions) -> Self {
        let Self { directory, replica, space, _temporary } = self;
        let id = space.id();
        drop((replica, space));
        let replica = patient_open(&directory, options).await;
        replica.listen(loopback(0)).await.unwrap();
        let space = replica.space(id).await.unwrap();
        Self { directory, replica, space, _temporary }
    }

    /// The region of an open replica that holds one space.
    pub(crate) async fn of(directory: &Path, replica: Replica) -> Self {
        let spaces = replica.spaces().await.unwrap();
        let space = replica.space(spaces[0].0).await.unwrap();
        Self { directory: directory.to_owned(), replica, space, _temporary: None }
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.replica.id()
    }

    pub(crate) async fn status(&self) -> SpaceStatus {
        self.space.status().await.unwrap()
    }

    /// What is applied here, durable or not.
    pub(crate) async fn applied(&self) -> Token {
        Token { space: self.space.id(), frontier: self.status().await.frontier }
    }

    /// Adds one to the counter that most tests count with.
    pub(crate) async fn add_one(&self) -> Result<comity::Receipt, WriteError> {
        self.space.counter("test", "counter").add(1).await
    }

    pub(crate) fn count(&self) -> i128 {
        self.space.counter("test", "counter").value().unwrap()
    }

    /// Waits until the replica sees itself among the members.
    pub(crate) async fn until_member(&self) {
        until(&self.space, async |space| {
            let status = space.status().await.unwrap();
            status.members.iter().any(|(member, _)| *member == self.id())
        })
        .await;
    }

    pub(crate) async fn wait_connected(&self, peer: &Self) {
        self.replica.wait_connected(peer.id(), PATIENCE).await.unwrap();
    }

    /// A ticket by which a member finds this region.
    pub(crate) fn ticket(&self) -> Ticket {
        self.space.ticket().unwrap()
    }
}

/// Two regions that are connected members of one space and hold the same.
pub(crate) async fn pair() -> (Region, Region) {
    let founder = Region::founder().await;
    let joiner = Region::joining(&founder).await;
    converge(&[&founder, &joiner]).await;
    (founder, joiner)
}

/// Opens a directory and listens on a port of the system's choice.
pub(crate) async fn open(directory: &Path) -> Replica {
    let replica = patient_open(directory, OpenOptions::default()).await;
    replica.listen(loopback(0)).await.unwrap();
    replica
}

/// Opens a directory, waiting for whoever had it to let go: a replica that was only dropped ends its threads
/// on its own time.
pub(crate) async fn patient_open(directory: &Path, options: OpenOptions) -> Replica {
    let opening = async {
        loop {
            match Replica::open_with(directory, options.clone()).await {
                Ok(replica) => return replica,
                Err(OpenError::Directory(comity::DirectoryError::Locked { .. })) => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(error) => panic!("{}: {error}", directory.display()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, opening).await.expect("the directory is let go of")
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

/// Pause between two looks at something that announces itself to nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Waits until something holds that announces itself to nobody.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(PATIENCE, looking).await.is_err() {
        panic!("it never came to pass that {what}");
    }
}

/// Waits until a condition holds in a space, looking again whenever something becomes visible there.
pub(crate) async fn until(space: &Space, mut holds: impl AsyncFnMut(&Space) -> bool) {
    let mut watch = space.watch();
    let waiting = async {
        while !holds(space).await {
            match watch.next().await {
                Ok(_) | Err(comity::WatchError::Lagged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the condition holds at last");
}

/// Awaits something that must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// Waits until every region has what each of the others has, and checks that they are the same. Regions that have
/// applied something to be forgotten announce it a moment later, so they may have to be asked again.
pub(crate) async fn converge(regions: &[&Region]) {
    let asking = async {
        loop {
            for from in regions {
                let token = from.applied().await;
                for to in regions {
                    if let Err(error) = to.space.at_within(&token, PATIENCE).await {
                        explain(regions).await;
                        panic!("the regions do not converge: {error}");
                    }
                }
            }
            let statuses = statuses(regions).await;
            let first = &statuses[0];
            let differs = |status: &SpaceStatus| {
                (&status.frontier, &status.durable) != (&first.frontier, &first.frontier)
            };
            if !statuses.iter().any(differs) {
                return statuses;
            }
        }
    };
    check_same(&within("convergence", asking).await);
}

async fn statuses(regions: &[&Region]) -> Vec<SpaceStatus> {
    let mut statuses = Vec::new();
    for region in regions {
        statuses.push(region.status().await);
    }
    statuses
}

/// Checks that the regions hold the same, and that no lane is frozen.
pub(crate) async fn same_state(regions: &[&Region]) {
    check_same(&statuses(regions).await);
}

fn check_same(statuses: &[SpaceStatus]) {
    let first = &statuses[0];
    for status in statuses {
        assert_eq!(status.frontier, first.frontier, "frontiers differ");
        assert_eq!(status.durable, first.durable, "durable frontiers differ");
        assert_eq!(status.digest, first.digest, "digests differ under equal frontiers");
        assert_eq!(status.members, first.members, "member lists differ");
        for lane in &status.lanes {
            assert_eq!(lane.frozen, None, "lane {} is frozen", lane.lane);
            assert_eq!(lane.staged, 0, "lane {} is not applied to its end", lane.lane);
        }
    }
}

async fn explain(regions: &[&Region]) {
    for region in regions {
        eprintln!("{}: {:#?}", region.id(), region.replica.status().await);
    }
}

/// What refusing somebody must leave as it is.
#[derive(Debug, PartialEq)]
pub(crate) struct Holdings {
    frontier: comity::Frontier,
    durable: comity::Frontier,
    digest: comity::StateDigest,
    members: Vec<(ReplicaId, Role)>,
    lanes: Vec<(comity::LaneId, u64, bool)>,
}

impl Holdings {
    /// What a region holds once all of it is durable.
    pub(crate) async fn of(region: &Region) -> Self {
        region.space.at_within(&region.applied().await, PATIENCE).await.unwrap();
        let SpaceStatus { frontier, durable, digest, members, lanes, .. } = region.status().await;
        let lanes = lanes.iter().map(|lane| (lane.lane, lane.applied, lane.frozen.is_some())).collect();
        Self { frontier, durable, digest, members, lanes }
    }
}

/// Whether a question failed because the replica is shut down.
pub(crate) fn is_stopped<T>(result: &Result<T, RequestError>) -> bool {
    matches!(result, Err(RequestError::Stopped))
}

/// Copies a directory's files with their times, as `cp -a` does, over those that are there already.
pub(crate) fn copy(from: &Path, to: &Path) {
    copy_but(from, to, "");
}

/// As [`copy`], without the files of one name.
pub(crate) fn copy_but(from: &Path, to: &Path, name: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_but(&source, &copy, name);
        } else if entry.file_name() != name {
            fs::copy(&source, &copy).unwrap();
            let times = fs::FileTimes::new().set_modified(entry.metadata().unwrap().modified().unwrap());
            fs::File::options().write(true).open(copy).unwrap().set_times(times).unwrap();
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): the same seed gives the same draws.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}
