//! Watching a space: its change sets as events, from the log of record.

use std::collections::{BTreeMap, VecDeque};

use comity_crdts::{AddressError, Frontier, Kind, ObjectAddress, SpaceId, check_collection};
use comity_engine::{
    ChangeCursor, ChangeEvent, ChangePage, ChangesError, PageLimit, Scope, StoreError, Token,
};
use comity_store::Reader;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::WatchError;

/// How far behind a watcher may be before it is told, when nothing else is said: lane entries.
pub const LAG_MAX: u64 = 10_000;

/// What is to be seen of a replica's state.
#[derive(Default)]
pub(crate) struct Visible {
    moved: BTreeMap<SpaceId, u64>,
    /// Why nothing becomes visible any more.
    pub(crate) failed: Option<StoreError>,
}

impl Visible {
    /// How often something became visible in a space since the replica was opened.
    pub(crate) fn moves(&self, space: &SpaceId) -> u64 {
        self.moved.get(space).copied().unwrap_or_default()
    }

    pub(crate) fn note(&mut self, space: SpaceId) {
        *self.moved.entry(space).or_default() += 1;
    }

    /// Waits until something became visible in a space since `seen`.
    ///
    /// # Errors
    /// [`WatchError::Stopped`] when the replica was shut down, and [`WatchError::Store`] when storage failed with nothing
    /// left to be seen.
    pub(crate) async fn wait(
        this: &mut watch::Receiver<Self>,
        space: &SpaceId,
        seen: Option<u64>,
    ) -> Result<(), WatchError> {
        let has_moved = |visible: &Self| Some(visible.moves(space)) != seen;
        let visible = this.wait_for(|visible| has_moved(visible) || visible.failed.is_some()).await;
        let visible = visible.map_err(|_| WatchError::Stopped)?;
        match &visible.failed {
            Some(error) if !has_moved(&visible) => Err(error.clone().into()),
            _ => Ok(()),
        }
    }
}

/// The change sets of a space, or what they did to one collection or object, in the order in which they became
/// visible here: each after everything its author had seen, each once.
///
/// A watch is a place in the log on disk, and reads from there when asked. So one that is not asked costs
/// nothing, and one that is slow misses nothing; it holds a page of 128 change sets or a megabyte in memory,
/// whichever is less, and at most one change set more. What it has delivered is a [`Token`], from which
/// [`Space::watch_from`](crate::Space::watch_from) goes on after a restart, or at another replica.
///
/// ```no_run
/// # async fn example(space: comity::Space, saved: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
/// use comity::{Did, Kind, Token, WatchError};
///
/// let mut watch = space.watch_from(&Token::from_bytes(&saved)?)?.object(Kind::Counter, "stats", "likes")?;
/// loop {
///     match watch.next().await {
///         Ok(event) => {
///             for did in event.changes.iter().flat_map(|change| &change.did) {
///                 if let Did::Added(delta) = did {
///                     println!("{} added {delta} at {}", event.author, event.hlc.millis());
///                 }
///             }
///             let saved = event.token().to_bytes(); // keep it with what was made of the event
/// #           drop(saved);
///         }
///         Err(WatchError::Lagged { behind, .. }) => {
///             println!("{behind} behind: take the state as it is instead of how it came about");
///             let view = space.view()?;
///             println!("{} likes", view.counter("stats", "likes")?);
///             watch.skip_to(&view.token()?)?;
///         }
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # }
/// ```
pub struct Watch {
    reader: Reader,
    visible: watch::Receiver<Visible>,
    /// How often something had become visible in the space when the page was read.
    read_at: Option<u64>,
    scope: Scope,
    cursor: ChangeCursor,
    /// What was delivered, or passed over before that.
    delivered: Frontier,
    page: VecDeque<ChangeEvent>,
    /// Whether there was more than the page.
    more: bool,
    reading: Option<JoinHandle<Read>>,
    lag: Lag,
    failed: Option<StoreError>,
}

/// A cursor that has read, with what it read.
type Read = (ChangeCursor, Result<ChangePage, ChangesError>);

struct Lag {
    max: u64,
    /// Told already, and not caught up since.
    told: bool,
    /// To be told next.
    behind: Option<u64>,
}

impl Watch {
    /// From now on.
    pub(crate) fn from_now(reader: Reader, visible: watch::Receiver<Visible>, space: SpaceId) -> Self {
        // Before the state is read: what becomes visible in between is looked for once more than needed.
        let read_at = Some(visible.borrow().moves(&space));
        let cursor = reader.snapshot().and_then(|state| ChangeCursor::after_state(&state, space));
        let (cursor, failed) = match cursor {
            Ok(cursor) => (cursor, None),
            // Without the place, there is nothing that the watch could go on from.
            Err(error) => (ChangeCursor::after(space, Frontier::new()), Some(error)),
        };
        Self { read_at, failed, more: false, ..Self::new(reader, visible, cursor) }
    }

    /// From where a token was taken.
    pub(crate) fn from_token(reader: Reader, visible: watch::Receiver<Visible>, token: &Token) -> Self {
        Self::new(reader, visible, ChangeCursor::after(token.space, token.frontier.clone()))
    }

    fn new(reader: Reader, visible: watch::Receiver<Visible>, cursor: ChangeCursor) -> Self {
        let delivered = cursor.seen().clone();
        let lag = Lag { max: LAG_MAX, told: false, behind: None };
        let (scope, page, reading) = (Scope::Space, VecDeque::new(), None);
        let (read_at, more, failed) = (None, true, None);
        Self { reader, visible, read_at, scope, cursor, delivered, page, more, reading, lag, failed }
    }

    /// Delivers only what is done to objects in one collection, of every kind. Change sets that do nothing there
    /// are passed over, and of the others the rest is left out.
    ///
    /// # Errors
    /// [`AddressError`] when the name is out of limits.
    pub fn collection(self, collection: &str) -> Result<Self, AddressError> {
        check_collection(collection)?;
        Ok(self.within(Scope::Collection(collection.to_owned())))
    }

    /// Delivers only what is done to one object.
    ///
    /// # Errors
    /// [`AddressError`] when a name is out of limits.
    pub fn object(self, kind: Kind, collection: &str, key: &str) -> Result<Self, AddressError> {
        let address = ObjectAddress::new(kind, collection, key)?;
        Ok(self.within(Scope::Object(address)))
    }

    fn within(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self.go_on_from(self.delivered.clone());
        self
    }

    /// How far behind the watcher may be before it is told, in lane entries of the space; [`LAG_MAX`] otherwise.
    /// What its scope does not show counts until it is passed over.
    #[must_use]
    pub fn lag_max(mut self, entries: u64) -> Self {
        self.lag.max = entries;
        self
    }

    /// The next change set. A view taken afterwards shows it. Waits where there is none yet.
    ///
    /// Cancel safe: what was not returned is returned by the next call. Must be called on a tokio runtime, whose
    /// threads for blocking work read from the disk.
    ///
    /// # Errors
    /// [`WatchError`]. The watch can be asked again after each of them; see there for which it makes sense.
    pub async fn next(&mut self) -> Result<ChangeEvent, WatchError> {
        loop {
            if let Some(behind) = self.lag.behind.take() {
                self.lag.told = true;
                return Err(WatchError::Lagged { behind, resume: self.token() });
            }
            if let Some(event) = self.page.pop_front() {
                self.delivered = event.frontier.clone();
                return Ok(event);
            }
            if self.reading.is_none() {
                self.delivered = self.cursor.seen().clone();
                self.until_more().await?;
                self.start_reading()?;
            }
            self.finish_reading().await?;
        }
    }

    /// What was delivered so far, with what the scope left out before it and in between: what a later watch goes
    /// on from.
    pub fn token(&self) -> Token {
        Token { space: self.cursor.space(), frontier: self.delivered.clone() }
    }

    /// Goes on after everything that the token has seen, such as that of a view. What it had not seen is
    /// delivered, what was delivered is not delivered again.
    ///
    /// # Errors
    /// [`WatchError::OtherSpace`], with nothing changed.
    pub fn skip_to(&mut self, token: &Token) -> Result<(), WatchError> {
        let space = self.cursor.space();
        if token.space != space {
            return Err(WatchError::OtherSpace { token: token.space, space });
        }
        let mut seen = self.delivered.clone();
        seen.merge(&token.frontier);
        self.go_on_from(seen);
        self.failed = None;
        Ok(())
    }

    /// Forgets what was read and not delivered.
    fn go_on_from(&mut self, seen: Frontier) {
        let is_there = self.reading.is_none() && self.cursor.seen() == &seen;
        let cursor = if is_there {
            self.cursor.clone()
        } else {
            self.more = true;
            ChangeCursor::after(self.cursor.space(), seen.clone())
        };
        self.cursor = cursor.within(self.scope.clone());
        self.delivered = seen;
        self.reading = None;
        self.page.clear();
        self.lag.behind = None;
    }

    /// Waits until there may be something to read.
    async fn until_more(&mut self) -> Result<(), WatchError> {
        // What a replica that was shut down left undelivered is left to a later watch, however much of it could
        // be read still.
        if self.visible.has_changed().is_err() {
            return Err(WatchError::Stopped);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        if !self.more {
            Visible::wait(&mut self.visible, &self.cursor.space(), self.read_at).await?;
        }
        Ok(())
    }

    fn start_reading(&mut self) -> Result<(), WatchError> {
        // Before the snapshot is taken, so that what it lacks is looked for.
        self.read_at = Some(self.visible.borrow_and_update().moves(&self.cursor.space()));
        self.more = true;
        let snapshot = self.reader.snapshot().map_err(|error| self.read_failed(error.into()))?;
        let mut cursor = self.cursor.clone();
        self.reading = Some(tokio::task::spawn_blocking(move || {
            let page = cursor.read(&snapshot, PageLimit::default());
            (cursor, page)
        }));
        Ok(())
    }

    /// Takes the page that is being read.
    async fn finish_reading(&mut self) -> Result<(), WatchError> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let read = reading.await;
        self.reading = None;
        let (cursor, page) = match read {
            Ok(read) => read,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down.
                Err(_) => return Err(WatchError::Stopped),
            },
        };
        self.cursor = cursor;
        let page = page.map_err(|error| self.read_failed(error))?;
        self.more = page.ahead > 0;
        let behind = page.ahead + page.events.len() as u64;
        let lags = behind > self.lag.max;
        self.lag.told &= lags;
        self.lag.behind = (lags && !self.lag.told).then_some(behind);
        self.page = page.events.into();
        Ok(())
    }

    fn read_failed(&self, error: ChangesError) -> WatchError {
        // A replica that is shut down closes its store.
        if self.visible.has_changed().is_err() { WatchError::Stopped } else { error.into() }
    }
}

#[cfg(test)]
mod tests {
    use comity_engine::{Input, StoreError};

    use crate::core::Event;
    use crate::error::WatchError;
    use crate::{OpenOptions, Replica};

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_changes_is_told_that_storage_failed() {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions { stay_offline: true, ..OpenOptions::default() };
        let replica = Replica::open_with(directory.path(), options).await.unwrap();
        let space = replica.create_space("test").await.unwrap();
        let (mut watch, mut feed) = (space.watch(), space.document("test", "note").follow().unwrap());
        feed.next().await.unwrap();
        space.counter("test", "last").add(1).await.unwrap();
        let error = StoreError::Failed { detail: "the disk is gone".to_owned() };
        let result = Err(error.clone());
        replica.send(Event::Input(Input::Synced { result })).await.unwrap();
        assert!(watch.next().await.is_ok(), "what was visible before comes first");
        assert_eq!(watch.next().await.err(), Some(WatchError::Store(error.clone())));
        assert_eq!(feed.next().await.err(), Some(WatchError::Store(error)));
        replica.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_watch_holds_one_page_however_far_behind_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions { stay_offline: true, ..OpenOptions::default() };
        let replica = Replica::open_with(directory.path(), options).await.unwrap();
        let space = replica.create_space("test").await.unwrap();
        let mut watch = space.watch();
        let mut pending = Vec::new();
        for number in 0..500_u32 {
            let write = space.transact(move |tx| {
                let large = 60_000 * usize::from(number < 50);
                tx.register("test", &number.to_string()).write("x".repeat(large))
            });
            pending.push(write.submit().await.unwrap());
        }
        for pending in pending {
            pending.receipt().await.unwrap();
        }
        let (mut pages, mut held_max) = (0, 0);
        for number in 0..500 {
            pages += u32::from(watch.page.is_empty());
            let event = watch.next().await.unwrap();
            assert_eq!(event.changes[0].object.key(), number.to_string());
            let held = watch.page.len() + 1;
            held_max = held_max.max(held);
            assert!(held <= if number < 30 { 18 } else { 128 }, "{held} are held at {number}");
        }
        assert_eq!((held_max, pages), (128, 6), "two large pages, one of both sizes, three by number");
        replica.shutdown().await;
    }
}
