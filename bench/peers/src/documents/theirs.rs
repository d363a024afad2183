//! The same work, done by samod.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use automerge::transaction::Transactable as _;
use automerge::{Automerge, AutomergeError, ROOT};
use samod::storage::{Storage, StorageKey};
use samod::{BackoffConfig, DialError, Dialer, PeerId, Repo, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::{Outcome, fill};
use crate::Failure;

/// For how long nothing may move before everything is said to be over; it is not counted.
const QUIET: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(600);

pub(super) async fn run(documents: u64, changes: u64) -> Result<Outcome, Failure> {
    let (kept, followed) = (Kept::default(), Kept::default());
    let (author, follower) = (repo("author", kept).await, repo("follower", followed.clone()).await);
    let wire = Wire::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let accepting = tokio::spawn(accept(listener, follower.clone(), wire.clone()));
    let mut handles = Vec::new();
    for number in 0..documents {
        let mut document = Automerge::new();
        document
            .transact::<_, _, AutomergeError>(|tx| fill(tx, number))
            .map_err(|failure| failure.error.to_string())?;
        handles.push(author.create(document).await.map_err(|error| error.to_string())?);
    }
    let begun = Instant::now();
    let dialed = dial(&author, port, &wire).await?;
    while (followed.documents() as u64) < documents {
        if begun.elapsed() > LIMIT {
            return Err("samod did not bring all documents".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let initial = begun.elapsed().as_secs_f64();
    wire.quiet(begun).await;
    let initial_bytes = wire.take();
    dialed.close();
    tokio::time::sleep(QUIET).await;
    wire.take();
    let begun = Instant::now();
    let dialed = dial(&author, port, &wire).await?;
    let reconnect = wire.quiet(begun).await;
    let reconnect_bytes = wire.take();
    let first = handles.first().ok_or("no documents")?;
    let shown = follower.find(first.document_id().clone()).await.map_err(|error| error.to_string())?;
    let shown = shown.ok_or("the follower does not find the document")?;
    wire.quiet(Instant::now()).await;
    let begun = Instant::now();
    for number in 0..changes {
        first.with_document(|document| {
            document
                .transact::<_, _, AutomergeError>(|tx| tx.put(ROOT, "n", 1_000_000 + number as i64))
                .map(drop)
                .map_err(|failure| failure.error.to_string())
        })?;
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let wanted = first.with_document(|document| document.get_heads());
    while shown.with_document(|document| document.get_heads()) != wanted {
        if begun.elapsed() > LIMIT {
            return Err("samod did not bring the burst".into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let burst = begun.elapsed().as_secs_f64();
    dialed.close();
    author.stop().await;
    follower.stop().await;
    accepting.abort();
    Ok(Outcome { initial, initial_bytes, reconnect, reconnect_bytes, burst })
}

async fn repo(name: &str, storage: Kept) -> Repo {
    Repo::build_tokio().with_peer_id(PeerId::from(name)).with_storage(storage).load().await
}

async fn dial(author: &Repo, port: u16, wire: &Wire) -> Result<samod::DialerHandle<std::io::Error>, Failure> {
    let dialer = Arc::new(Loopback { port, wire: wire.clone() });
    let dialed = author.dial(BackoffConfig::default(), dialer).map_err(|error| error.to_string())?;
    dialed.established().await.map_err(|_| "the follower was not reached")?;
    Ok(dialed)
}

async fn accept(listener: TcpListener, follower: Repo, wire: Wire) {
    let Ok(url) = Url::parse("tcp://127.0.0.1") else { return };
    let Ok(acceptor) = follower.make_acceptor(url) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let _ = acceptor.accept(Transport::from_tokio_io(Counted { stream, wire: wire.clone() }));
    }
}

struct Loopback {
    port: u16,
    wire: Wire,
}

impl Dialer for Loopback {
    type Error = std::io::Error;

    fn url(&self) -> Url {
        Url::parse("tcp://127.0.0.1").expect("it is one")
    }

    fn connect(&self) -> futures::future::BoxFuture<'static, Result<Transport, DialError<std::io::Error>>> {
        let (port, wire) = (self.port, self.wire.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(DialError::transient)?;
            stream.set_nodelay(true).map_err(DialError::transient)?;
            Ok(Transport::from_tokio_io(Counted { stream, wire }))
        })
    }
}

/// Bytes in both directions, and when the last one moved.
#[derive(Clone)]
struct Wire(Arc<(Instant, AtomicU64, AtomicU64)>);

impl Default for Wire {
    fn default() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0), AtomicU64::new(0))))
    }
}

impl Wire {
    fn note(&self, bytes: usize) {
        let (started, count, last) = &*self.0;
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        last.store(started.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn take(&self) -> f64 {
        self.0.1.swap(0, Ordering::Relaxed) as f64
    }

    /// Waits until nothing moves any more; seconds from a moment until the last byte.
    async fn quiet(&self, since: Instant) -> f64 {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (started, _, last) = &*self.0;
            let last = *started + Duration::from_micros(last.load(Ordering::Relaxed));
            if last.max(since).elapsed() > QUIET {
                return last.saturating_duration_since(since).as_secs_f64();
            }
        }
    }
}

struct Counted {
    stream: TcpStream,
    wire: Wire,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.wire.note(*bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Storage in memory that knows how many documents it holds, with ordered keys so that ranges are found fast.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    rows: BTreeMap<String, (StorageKey, Vec<u8>)>,
    documents: HashSet<String>,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn documents(&self) -> usize {
        self.lock().documents.len()
    }
}

impl Storage for Kept {
    fn load(&self, key: StorageKey) -> impl Future<Output = Option<Vec<u8>>> + Send {
        std::future::ready(self.lock().rows.get(&key.to_string()).map(|(_, bytes)| bytes.clone()))
    }

    fn load_range(&self, prefix: StorageKey) -> impl Future<Output = HashMap<StorageKey, Vec<u8>>> + Send {
        let prefix = prefix.to_string();
        let kept = self.lock();
        let rows = kept.rows.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let found: HashMap<StorageKey, Vec<u8>> =
            rows.map(|(_, (key, bytes))| (key.clone(), bytes.clone())).collect();
        std::future::ready(found)
    }

    fn put(&self, key: StorageKey, data: Vec<u8>) -> impl Future<Output = ()> + Send {
        let name = key.to_string();
        let mut kept = self.lock();
        if (name.contains("/incremental/") || name.contains("/snapshot/"))
            && let Some(document) = name.split('/').next()
        {
            kept.documents.insert(document.to_owned());
        }
        kept.rows.insert(name, (key, data));
        drop(kept);
        std::future::ready(())
    }

    fn delete(&self, key: StorageKey) -> impl Future<Output = ()> + Send {
        self.lock().rows.remove(&key.to_string());
        std::future::ready(())
    }
}
