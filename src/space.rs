//! A space, and typed handles on its objects.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use comity_crdts::automerge::transaction::Transaction as DocumentEdit;
use comity_crdts::{Document, Dot, SpaceId, Value};
use comity_engine::{
    Acknowledgement, Command, Durability, JournalEntry, Reply, Role, SpaceStatus, StoreError, Token,
    TransactError, TxError, WriteOptions,
};
use comity_store::Reader;
use tokio::sync::oneshot;

use crate::core::{Core, Event, TRANSACTION_TIME_MAX};
use crate::error::{InviteError, RequestError, WatchError, WriteError};
use crate::replica::Replica;
use crate::ticket::Ticket;
use crate::transaction::Transaction;
use crate::view::{RegisterReader, View};
use crate::watch::{Visible, Watch};

/// How long a read waits for a token, and a write for other replicas, when nothing else is said.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// How long an invitation is good for.
pub const INVITATION_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// A space at a replica. Cheap to clone.
#[derive(Clone)]
pub struct Space {
    replica: Replica,
    id: SpaceId,
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Receipt<R = ()> {
    /// What the transaction's closure returned.
    pub value: R,
    acknowledgement: Acknowledgement,
}

impl<R> Receipt<R> {
    /// What a client presents at any replica to find this write there.
    pub fn token(&self) -> Token {
        self.acknowledgement.token.clone()
    }

    /// Other replicas that had reported the write durable by then.
    pub fn remote(&self) -> u32 {
        self.acknowledgement.remote
    }

    /// Whether the durability asked for was reached. When not, the outcome is indeterminate: the write is
    /// durable here, stays, and goes on spreading.
    pub fn reached(&self) -> bool {
        self.acknowledgement.reached
    }
}

impl Space {
    pub(crate) fn new(replica: Replica, id: SpaceId) -> Self {
        Self { replica, id }
    }

    /// The space's id.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// A counter.
    pub fn counter(&self, collection: &str, key: &str) -> Counter {
        Counter(self.object(collection, key))
    }

    /// An add-wins set.
    pub fn set(&self, collection: &str, key: &str) -> Set {
        Set(self.object(collection, key))
    }

    /// A register.
    pub fn register(&self, collection: &str, key: &str) -> Register {
        Register(self.object(collection, key))
    }

    /// An Automerge document.
    pub fn document(&self, collection: &str, key: &str) -> DocumentHandle {
        DocumentHandle(self.object(collection, key))
    }

    fn object(&self, collection: &str, key: &str) -> Object {
        Object { space: self.clone(), collection: collection.to_owned(), key: key.to_owned() }
    }

    /// Makes one atomic change set of everything the closure does. The closure runs on the core's thread, alone
    /// in its space, for at most a second; an error or a panic in it rolls everything back.
    ///
    /// Await the result for a durable write, or configure it first.
    pub fn transact<R, F>(&self, body: F) -> Transact<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError> + Send + 'static,
    {
        let (durability, within) = (Durability::Local, WAIT_DEFAULT);
        Transact { space: self.clone(), body: Box::new(body), durability, within }
    }

    /// The newest durable state. It shows whole change sets only, and expires after 30 s.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn view(&self) -> Result<View, StoreError> {
        Ok(View::new(self.replica.shared.reader.snapshot()?, self.id))
    }

    /// A view that shows at least everything the token has seen; waits up to [`WAIT_DEFAULT`] for it to arrive.
    ///
    /// # Errors
    /// [`RequestError`]; `Stale`, with how much is missing, when the time is over.
    pub async fn at(&self, token: &Token) -> Result<View, RequestError> {
        self.at_within(token, WAIT_DEFAULT).await
    }

    /// As [`Space::at`], with a time limit of your own.
    ///
    /// # Errors
    /// As [`Space::at`].
    pub async fn at_within(&self, token: &Token, within: Duration) -> Result<View, RequestError> {
        self.replica.request(Command::AwaitToken { token: token.clone(), within }).await?;
        self.view().map_err(|error| RequestError::Command(error.into()))
    }

    /// What is durable here now, as a token. A view taken at another moment may show more or less: what a view
    /// shows is [`View::token`].
    ///
    /// # Errors
    /// [`RequestError`] when the replica is shut down.
    pub async fn token(&self) -> Result<Token, RequestError> {
        Ok(Token { space: self.id, frontier: self.status().await?.durable })
    }

    /// Change sets as they become visible, from now on: each that a view taken now does not show.
    pub fn watch(&self) -> Watch {
        let (reader, visible) = self.watched();
        Watch::from_now(reader, visible, self.id)
    }

    /// Every change set here, and each that becomes visible, that the token has not seen: the token of another
    /// watch, a view or a receipt, taken here or at another replica.
    ///
    /// # Errors
    /// [`WatchError::OtherSpace`].
    pub fn watch_from(&self, token: &Token) -> Result<Watch, WatchError> {
        if token.space != self.id {
            return Err(WatchError::OtherSpace { token: token.space, space: self.id });
        }
        let (reader, visible) = self.watched();
        Ok(Watch::from_token(reader, visible, token))
    }

    /// What a watch needs. It does not keep the replica open.
    fn watched(&self) -> (Reader, tokio::sync::watch::Receiver<Visible>) {
        (self.replica.shared.reader.clone(), self.replica.shared.visible.clone())
    }

    /// The report on this space.
    ///
    /// # Errors
    /// [`RequestError`] when the replica does not hold the space or is shut down.
    pub async fn status(&self) -> Result<SpaceStatus, RequestError> {
        let status = self.replica.status().await?;
        let found = status.spaces.into_iter().find(|space| space.space == self.id);
        found.ok_or(RequestError::Command(comity_engine::CommandError::UnknownSpace(self.id)))
    }

    /// A ticket that makes one replica a writer of this space. It can be used once, within a day.
    ///
    /// # Errors
    /// [`InviteError`] when this replica is no admin, or listens nowhere.
    pub async fn invite(&self) -> Result<Ticket, InviteError> {
        self.invite_as(Role::Writer).await
    }

    /// A ticket that makes one replica a member with this role.
    ///
    /// # Errors
    /// As [`Space::invite`].
    pub async fn invite_as(&self, role: Role) -> Result<Ticket, InviteError> {
        let ticket = self.ticket()?;
        let invite = Command::Invite { space: self.id, role, valid_for: INVITATION_VALID };
        match self.replica.request(invite).await? {
            Reply::Invited(secret) => Ok(Ticket { secret: Some(secret), ..ticket }),
            other => unreachable!("an invitation was asked for, not {other:?}"),
        }
    }

    /// A ticket by which a member finds this replica. It lets nobody in.
    ///
    /// # Errors
    /// [`InviteError::NoAddress`] when this replica listens nowhere.
    pub fn ticket(&self) -> Result<Ticket, InviteError> {
        let addresses = self.replica.shared.network.addresses();
        if addresses.is_empty() {
            return Err(InviteError::NoAddress);
        }
        Ok(Ticket { replica: self.replica.id(), addresses, space: self.id, secret: None })
    }

    /// The oldest `limit` entries of the journal: what was set aside, with why.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails.
    pub fn journal(&self, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        self.view()?.journal(limit)
    }
}

/// A transaction to be made. Await it, or change what it asks for first. Nothing happens before.
#[must_use = "a transaction does nothing until it is awaited or submitted"]
pub struct Transact<R = ()> {
    space: Space,
    body: Body<R>,
    durability: Durability,
    within: Duration,
}

type Body<R> = Box<dyn FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError> + Send>;

impl<R: Send + 'static> Transact<R> {
    /// How durable the write must be before it is acknowledged; [`Durability::Local`] otherwise.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long to wait for other replicas; [`WAIT_DEFAULT`] otherwise.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Hands the transaction to the core and returns what to await for its acknowledgement. Transactions take
    /// place in the order in which they were submitted, so many can be under way at once.
    ///
    /// # Errors
    /// [`WriteError::Stopped`] when the replica is shut down.
    pub async fn submit(self) -> Result<Pending<R>, WriteError> {
        let Self { space, body, durability, within } = self;
        let (done, outcome) = oneshot::channel();
        let id = space.id;
        let job = move |core: &mut Core| {
            let (answer, reply) = oneshot::channel();
            let (request, now) = (core.ask(answer), core.now());
            let options = WriteOptions { request, durability, within };
            let (engine, store) = core.parts();
            let result = engine.transact(&now, id, options, store, |tx| timed(tx, body));
            if result.is_err() {
                core.withdraw(request);
            }
            // A caller that stopped waiting loses the outcome only.
            let _ = done.send(result.map(|value| (value, reply)));
        };
        space.replica.send(Event::Job(Box::new(job))).await.map_err(|_| WriteError::Stopped)?;
        Ok(Pending { outcome })
    }
}

/// Runs a closure and refuses it when it held up its space for too long.
fn timed<R>(
    tx: &mut comity_engine::Tx<'_>,
    body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError>,
) -> Result<R, TxError> {
    let started = std::time::Instant::now();
    let result = body(&mut Transaction::new(tx))?;
    let (millis, millis_max) =
        (started.elapsed().as_millis() as u64, TRANSACTION_TIME_MAX.as_millis() as u64);
    if millis > millis_max {
        return Err(TxError::TooSlow { millis, millis_max });
    }
    Ok(result)
}

impl<R: Send + 'static> IntoFuture for Transact<R> {
    type Output = Result<Receipt<R>, WriteError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.submit().await?.receipt().await })
    }
}

type Outcome<R> =
    Result<(R, oneshot::Receiver<Result<Reply, comity_engine::CommandError>>), TransactError<TxError>>;

/// A transaction that was handed to the core. Dropping it loses the acknowledgement, not the write.
#[must_use = "the acknowledgement says whether the write is durable"]
pub struct Pending<R> {
    outcome: oneshot::Receiver<Outcome<R>>,
}

impl<R> Pending<R> {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn receipt(self) -> Result<Receipt<R>, WriteError> {
        let (value, reply) = self.outcome.await.map_err(|_| WriteError::Stopped)??;
        match reply.await.map_err(|_| WriteError::Stopped)? {
            Ok(Reply::Acknowledged(acknowledgement)) => Ok(Receipt { value, acknowledgement }),
            Ok(other) => unreachable!("a write is answered by its acknowledgement, not {other:?}"),
            Err(error) => Err(WriteError::Indeterminate(error)),
        }
    }
}

#[derive(Clone)]
struct Object {
    space: Space,
    collection: String,
    key: String,
}

impl Object {
    /// One transaction that does one thing to the object.
    fn write<R: Send + 'static>(
        &self,
        body: impl FnOnce(&mut Transaction<'_, '_>, &str, &str) -> Result<R, TxError> + Send + 'static,
    ) -> Transact<R> {
        let (collection, key) = (self.collection.clone(), self.key.clone());
        self.space.transact(move |tx| body(tx, &collection, &key))
    }
}

/// A handle on a counter.
#[derive(Clone)]
pub struct Counter(Object);

impl Counter {
    /// Adds.
    pub fn add(&self, delta: i64) -> Transact {
        self.0.write(move |tx, collection, key| tx.counter(collection, key).add(delta))
    }

    /// The newest durable value; 0 when nothing was ever added.
    ///
    /// # Errors
    /// [`comity_engine::ReadError`].
    pub fn value(&self) -> Result<i128, comity_engine::ReadError> {
        self.0.space.view()?.counter(&self.0.collection, &self.0.key)
    }
}

/// A handle on an add-wins set.
#[derive(Clone)]
pub struct Set(Object);

impl Set {
    /// Adds an element.
    pub fn insert(&self, element: impl Into<Value>) -> Transact {
        let element = element.into();
        self.0.write(move |tx, collection, key| tx.set(collection, key).insert(element))
    }

    /// Removes an element as it is known here, durably; an addition made elsewhere at the same time survives.
    pub fn remove(&self, element: impl Into<Value>) -> Transact {
        let element = element.into();
        self.0.write(move |tx, collection, key| tx.set(collection, key).remove(element))
    }

    /// Whether the newest durable state holds the element. O(log n).
    ///
    /// # Errors
    /// [`comity_engine::ReadError`].
    pub fn contains(&self, element: impl Into<Value>) -> Result<bool, comity_engine::ReadError> {
        self.0.space.view()?.set_contains(&self.0.collection, &self.0.key, &element.into())
    }

    /// The elements of the newest durable state, in canonical order. O(n); use a view to page.
    ///
    /// # Errors
    /// [`comity_engine::ReadError`].
    pub fn elements(&self) -> Result<Vec<Value>, comity_engine::ReadError> {
        self.0.space.view()?.set_elements(&self.0.collection, &self.0.key, None, usize::MAX)
    }
}

/// A handle on a register.
#[derive(Clone)]
pub struct Register(Object);

impl Register {
    /// Writes, replacing every value visible here.
    pub fn write(&self, value: impl Into<Value>) -> Transact {
        let value = value.into();
        self.0.write(move |tx, collection, key| tx.register(collection, key).write(value))
    }

    /// Resolves a conflict: replaces the siblings that were seen, and only those.
    pub fn resolve(&self, value: impl Into<Value>, seen: &[Dot]) -> Transact {
        let (value, seen) = (value.into(), seen.to_vec());
        self.0.write(move |tx, collection, key| tx.register(collection, key).resolve(value, &seen))
    }

    /// The newest durable state, to be read under a policy.
    ///
    /// # Errors
    /// [`comity_engine::ReadError`].
    pub fn read(&self) -> Result<RegisterReader, comity_engine::ReadError> {
        self.0.space.view()?.register(&self.0.collection, &self.0.key)
    }
}

/// A handle on an Automerge document.
#[derive(Clone)]
pub struct DocumentHandle(Object);

impl DocumentHandle {
    /// Edits the document through automerge's transaction API. What the closure does is one change; an
    /// error in it leaves the document as it was.
    pub fn edit<R: Send + 'static>(
        &self,
        edit: impl FnOnce(&mut DocumentEdit<'_>) -> Result<R, TxError> + Send + 'static,
    ) -> Transact<R> {
        self.0.write(move |tx, collection, key| tx.document(collection, key).edit(edit))
    }

    /// The newest durable state, loaded for reading. O(history).
    ///
    /// # Errors
    /// [`comity_engine::ReadError`].
    pub fn read(&self) -> Result<Document, comity_engine::ReadError> {
        self.0.space.view()?.document(&self.0.collection, &self.0.key)
    }
}
