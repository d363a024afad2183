//! The three regions, what they share, and the links between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use comity::{Policy, ReadError, ReplicaId, RequestError, Space, SpaceId, StoreError, Ticket, WriteError};
use serde_json::json;

use super::link::{Condition, Link};
use crate::config::{Config, ConfigError, Sources};
use crate::serve::{Daemon, StartError};

/// Where regions are.
const PLACES: [(&str, &str); 3] = [("eu", "Frankfurt"), ("us", "Virginia"), ("ap", "Singapore")];

/// Which regions are linked, by their places in the table above, and how long light takes to go there and have a
/// coffee with every router on the way, one way.
const LINKS: [(usize, usize, Duration); 3] = [
    (0, 1, Duration::from_millis(44)),
    (0, 2, Duration::from_millis(80)),
    (1, 2, Duration::from_millis(108)),
];

/// The name of the space.
const SPACE: &str = "demo";

/// The note.
pub(super) const NOTE: (&str, &str) = ("notes", "shared");
/// Where the text is in it.
pub(super) const TEXT: &str = "/text";
/// Where each region typed last, by region, as cursors of the note.
pub(super) const CURSORS: &str = "cursors";
/// The counter of likes.
pub(super) const LIKES: (&str, &str) = ("stats", "likes");
/// The set of tags.
pub(super) const TAGS: (&str, &str) = ("tags", "post");
/// The name, of which several are kept.
pub(super) const NAME: (&str, &str) = ("profiles", "ada");
/// What is sold.
pub(super) const STOCK: (&str, &str) = ("stock", "apples");

/// How much of it there is at first, for each region.
const STOCK_PER_REGION: u64 = 4;

/// How long the regions may take to meet when the demo starts.
const MEETING_TIME_MAX: Duration = Duration::from_secs(30);

/// Why the regions did not come up. Those that did are stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorldError {
    #[error("the region {region} does not start: {error}")]
    Start { region: &'static str, error: StartError },
    #[error("the region {region} does not start: {error}")]
    Config { region: &'static str, error: ConfigError },
    #[error("a link between two regions cannot be made: {0}")]
    Link(std::io::Error),
    #[error("the regions do not meet: {0}")]
    Meet(String),
}

impl From<WriteError> for WorldError {
    fn from(error: WriteError) -> Self {
        Self::Meet(error.to_string())
    }
}

impl From<RequestError> for WorldError {
    fn from(error: RequestError) -> Self {
        Self::Meet(error.to_string())
    }
}

impl From<ReadError> for WorldError {
    fn from(error: ReadError) -> Self {
        Self::Meet(error.to_string())
    }
}

impl From<StoreError> for WorldError {
    fn from(error: StoreError) -> Self {
        Self::Meet(error.to_string())
    }
}

/// A region.
pub(super) struct Region {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) daemon: Daemon,
    pub(super) space: Space,
}

impl Region {
    pub(super) fn id(&self) -> ReplicaId {
        self.daemon.replica().id()
    }
}

/// A link between two regions, which the second one dials.
pub(super) struct Between {
    /// Places in the table of regions.
    pub(super) ends: (usize, usize),
    pub(super) link: Link,
    /// By it the second one finds the first.
    ticket: Ticket,
}

/// Everything that the page shows.
pub(super) struct World {
    pub(super) regions: Vec<Region>,
    pub(super) links: Vec<Between>,
}

impl World {
    /// Starts the regions in directories under this one, lets them meet, and puts something in the space when it is
    /// empty.
    pub(super) async fn open(directory: &Path) -> Result<Self, WorldError> {
        let mut daemons = Vec::new();
        let opened = Self::open_in(directory, &mut daemons).await;
        if opened.is_err() {
            for daemon in daemons {
                daemon.drain().await;
            }
        }
        opened
    }

    async fn open_in(directory: &Path, daemons: &mut Vec<Daemon>) -> Result<Self, WorldError> {
        for (region, _) in PLACES {
            let config = config(directory, region).map_err(|error| WorldError::Config { region, error })?;
            let started = Daemon::start(config).await;
            daemons.push(started.map_err(|error| WorldError::Start { region, error })?);
        }
        let (spaces, links) = meet(daemons).await?;
        fill(daemons, &spaces).await?;
        let regions = PLACES.iter().zip(daemons.drain(..)).zip(spaces);
        let regions = regions.map(|((&(name, place), daemon), space)| Region { name, place, daemon, space });
        Ok(Self { regions: regions.collect(), links })
    }

    /// The place of a region in the table.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        self.regions.iter().position(|region| region.name == name)
    }

    /// The region of a replica.
    pub(super) fn region_of(&self, replica: &ReplicaId) -> Option<usize> {
        self.regions.iter().position(|region| region.id() == *replica)
    }

    /// The link between two regions.
    pub(super) fn between(&self, one: usize, other: usize) -> Option<&Between> {
        let ends = (one.min(other), one.max(other));
        self.links.iter().find(|between| between.ends == ends)
    }

    /// Changes a link. Where it heals, the region at its far end dials at once instead of at its next attempt.
    ///
    /// # Errors
    /// [`RequestError`] when the region is going down.
    pub(super) async fn set(&self, between: &Between, condition: Condition) -> Result<(), RequestError> {
        let was_cut = between.link.condition() == Condition::Cut;
        between.link.set(condition);
        if was_cut && condition != Condition::Cut {
            self.regions[between.ends.1].daemon.replica().connect(&between.ticket).await?;
        }
        Ok(())
    }

    /// Stops every region, in order.
    pub(super) async fn close(self) {
        for region in self.regions {
            region.daemon.drain().await;
        }
    }
}

fn config(directory: &Path, region: &str) -> Result<Config, ConfigError> {
    let sets = vec![
        format!("data_dir={}", directory.join(region).display()),
        format!("region={region}"),
        "peers.listen=127.0.0.1:0".to_owned(),
        "http.listen=127.0.0.1:0".to_owned(),
        "http.unix=".to_owned(),
    ];
    Sources { file: None, environment: BTreeMap::new(), sets }.load()
}

/// The demo's space where a replica holds it already.
async fn held(daemon: &Daemon) -> Result<Option<SpaceId>, WorldError> {
    let spaces = daemon.replica().spaces().await?;
    Ok(spaces.into_iter().find(|(_, name)| name == SPACE).map(|(id, _)| id))
}

/// Links the regions, and lets those in that are no members.
async fn meet(daemons: &[Daemon]) -> Result<(Vec<Space>, Vec<Between>), WorldError> {
    let founder = match held(&daemons[0]).await? {
        Some(id) => daemons[0].replica().space(id).await?,
        None => daemons[0].replica().create_space(SPACE).await?,
    };
    let mut spaces = vec![founder.clone()];
    let mut links = Vec::new();
    for (near, far, delay) in LINKS {
        let no_address = || WorldError::Meet("a region listens nowhere".to_owned());
        let address = daemons[near].peers().first().copied().ok_or_else(no_address)?;
        let link = Link::to(address, delay).await.map_err(WorldError::Link)?;
        let found = |error: comity::InviteError| WorldError::Meet(error.to_string());
        let mut ticket = spaces[near].ticket().map_err(found)?;
        ticket.addresses = vec![link.near()];
        let mut joining = ticket.clone();
        if near == 0 && held(&daemons[far]).await?.is_none() {
            joining.secret = founder.invite().await.map_err(found)?.secret;
        }
        let space = daemons[far].replica().connect(&joining).await?;
        if near == 0 {
            spaces.push(space);
        }
        links.push(Between { ends: (near, far), link, ticket });
    }
    Ok((spaces, links))
}

/// Puts something into the space, unless it is there already.
async fn fill(daemons: &[Daemon], spaces: &[Space]) -> Result<(), WorldError> {
    let founder = &spaces[0];
    if founder.view()?.document_heads(NOTE.0, NOTE.1)?.is_empty() {
        let write = founder.transact(|tx| {
            let text = "Three regions share this note.\nWrite in any of them.";
            tx.document(NOTE.0, NOTE.1).put_json("", &json!({"text": text}))?;
            tx.counter(LIKES.0, LIKES.1).add(3)?;
            tx.set(TAGS.0, TAGS.1).insert("crdt")?;
            tx.set_policy(NAME.0, &Policy::Siblings)?;
            tx.register(NAME.0, NAME.1).write("Ada Lovelace")
        });
        write.await?;
    }
    let token = founder.token().await?;
    for (space, (region, _)) in spaces.iter().zip(PLACES).skip(1) {
        let view = space.at_within(&token, MEETING_TIME_MAX).await?;
        // Rights can only be handed to who has written something.
        if !view.set("regions", "met").contains(region)? {
            let receipt = space.set("regions", "met").insert(region).await?;
            founder.at_within(&receipt.token(), MEETING_TIME_MAX).await?;
        }
    }
    if founder.bounded_counter(STOCK.0, STOCK.1).value()? == 0
        && !founder.set("regions", "met").contains("eu")?
    {
        let others: Vec<ReplicaId> = daemons[1..].iter().map(|daemon| daemon.replica().id()).collect();
        let write = founder.transact(move |tx| {
            tx.set("regions", "met").insert("eu")?;
            let mut stock = tx.bounded_counter(STOCK.0, STOCK.1);
            stock.increase(STOCK_PER_REGION * PLACES.len() as u64)?;
            others.iter().try_for_each(|other| stock.transfer(*other, STOCK_PER_REGION))
        });
        write.await?;
    }
    let token = founder.token().await?;
    for space in spaces {
        space.at_within(&token, MEETING_TIME_MAX).await?;
    }
    Ok(())
}
