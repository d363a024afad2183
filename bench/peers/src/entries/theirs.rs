//! The same work, done by iroh-docs.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use iroh::endpoint::presets;
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, RelayMode};
use iroh_blobs::store::mem::MemStore;
use iroh_blobs::{BlobsProtocol, Hash};
use iroh_docs::api::protocol::{AddrInfoOptions, ShareMode};
use iroh_docs::api::{Doc, DocsApi};
use iroh_docs::engine::LiveEvent;
use iroh_docs::protocol::Docs;
use iroh_docs::store::{DownloadPolicy, Query};
use iroh_docs::{AuthorId, Entry};
use iroh_gossip::net::Gossip;

use super::{APART, LOCAL, Outcome, key, value};
use crate::Failure;
use crate::figures::Times;

/// For how long an event may not come.
const WITHIN: Duration = Duration::from_secs(60);
/// After which all that was inserted is on disk.
const SYNCED: Duration = Duration::from_secs(1);

pub(super) async fn run(entries: u64, live: u64) -> Result<Outcome, Failure> {
    let directory = tempfile::tempdir()?;
    let author = Node::open(directory.path().join("author")).await?;
    let writer = Writer::open(&author).await?;
    let (begun, mut inserted) = (Instant::now(), 0);
    while begun.elapsed() < LOCAL {
        writer.insert(inserted).await?;
        inserted += 1;
    }
    let local = inserted as f64 / begun.elapsed().as_secs_f64();
    let writer = Writer::open(&author).await?;
    for number in 0..entries {
        writer.insert(number).await?;
    }
    tokio::time::sleep(SYNCED).await;
    writer.doc.start_sync(Vec::new()).await?;

    let follower = Node::open(directory.path().join("follower")).await?;
    let ticket = writer.doc.share(ShareMode::Write, AddrInfoOptions::Id).await?;
    let followed = follower.docs.import_namespace(ticket.capability).await?;
    without_content(&followed).await?;
    let mut events = Events { events: followed.subscribe().await?, has_neighbor: false };
    let begun = Instant::now();
    followed.start_sync(vec![author.address()?]).await?;
    for _ in 0..entries {
        events.inserted().await?;
    }
    let initial = begun.elapsed().as_secs_f64();
    let initial_bytes = author.bytes();
    if followed.get_many(Query::all()).await?.count().await as u64 != entries {
        return Err("the follower does not show the entries".into());
    }
    events.neighbor().await?;
    let times = seen(&writer, &mut events, entries..entries + live).await?;
    follower.router.shutdown().await?;
    author.router.shutdown().await?;
    let (live_p50, live_p99) = (times.percentile_us(50), times.percentile_us(99));
    Ok(Outcome { initial, initial_bytes, live_p50, live_p99, local })
}

struct Node {
    endpoint: Endpoint,
    docs: DocsApi,
    router: Router,
}

impl Node {
    async fn open(directory: PathBuf) -> Result<Self, Failure> {
        std::fs::create_dir_all(&directory)?;
        let builder = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled);
        let endpoint = builder.clear_ip_transports().bind_addr("127.0.0.1:0")?.bind().await?;
        // Nothing is put into it.
        let blobs = MemStore::default();
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let docs =
            Docs::persistent(directory).spawn(endpoint.clone(), (*blobs).clone(), gossip.clone()).await?;
        let api = docs.api().clone();
        let router = Router::builder(endpoint.clone())
            .accept(iroh_blobs::ALPN, BlobsProtocol::new(&blobs, None))
            .accept(iroh_gossip::ALPN, gossip)
            .accept(iroh_docs::ALPN, docs)
            .spawn();
        Ok(Self { endpoint, docs: api, router })
    }

    fn address(&self) -> Result<EndpointAddr, Failure> {
        let address = self.endpoint.bound_sockets().first().copied().ok_or("the author is not bound")?;
        Ok(EndpointAddr::new(self.endpoint.id()).with_ip_addr(address))
    }

    /// UDP payload in both directions since it was opened.
    fn bytes(&self) -> f64 {
        let socket = &self.endpoint.metrics().socket;
        (socket.send_ipv4.get() + socket.recv_data_ipv4.get()) as f64
    }
}

/// Entries have only hashes of values; nobody looks for the values.
async fn without_content(doc: &Doc) -> Result<(), Failure> {
    Ok(doc.set_download_policy(DownloadPolicy::NothingExcept(Vec::new())).await?)
}

/// A document and who writes to it.
struct Writer {
    doc: Doc,
    author: AuthorId,
}

impl Writer {
    async fn open(node: &Node) -> Result<Self, Failure> {
        let doc = node.docs.create().await?;
        without_content(&doc).await?;
        Ok(Self { doc, author: node.docs.author_default().await? })
    }

    async fn insert(&self, number: u64) -> Result<(), Failure> {
        let value = value(number);
        Ok(self.doc.set_hash(self.author, key(number), Hash::from(value), value.len() as u64).await?)
    }
}

/// What is told to a subscriber.
struct Events<S> {
    events: S,
    /// Whether changes are sent as they are made.
    has_neighbor: bool,
}

impl<S, E> Events<S>
where
    S: Stream<Item = Result<LiveEvent, E>> + Unpin,
    E: Into<Failure>,
{
    async fn next(&mut self) -> Result<LiveEvent, Failure> {
        let event = tokio::time::timeout(WITHIN, self.events.next()).await?;
        let event = event.ok_or("there are no more events")?.map_err(Into::into)?;
        self.has_neighbor |= matches!(event, LiveEvent::NeighborUp(_));
        Ok(event)
    }

    /// The next entry from elsewhere.
    async fn inserted(&mut self) -> Result<Entry, Failure> {
        loop {
            if let LiveEvent::InsertRemote { entry, .. } = self.next().await? {
                return Ok(entry);
            }
        }
    }

    async fn neighbor(&mut self) -> Result<(), Failure> {
        while !self.has_neighbor {
            self.next().await?;
        }
        Ok(())
    }
}

/// Writes one entry after the other and waits for each at the follower.
async fn seen<S, E>(writer: &Writer, events: &mut Events<S>, numbers: Range<u64>) -> Result<Times, Failure>
where
    S: Stream<Item = Result<LiveEvent, E>> + Unpin,
    E: Into<Failure>,
{
    let mut times = Times::default();
    for number in numbers {
        tokio::time::sleep(APART).await;
        let begun = Instant::now();
        let seen = async {
            let entry = events.inserted().await?;
            times.push(begun.elapsed());
            Ok(entry)
        };
        let (entry, ()) = futures::try_join!(seen, writer.insert(number))?;
        if entry.key() != key(number).as_bytes() {
            return Err("the follower shows another entry".into());
        }
    }
    Ok(times)
}
