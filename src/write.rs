//! Writes on their way to the core, and their acknowledgements.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comity_crdts::{PolicyRegistry, ReplicaId};
use comity_engine::{
    Acknowledgement, Command, CommandError, Durability, OperationId, OperationNameError, Reply, Token,
    TransactError, TxError, WriteOptions,
};
use tokio::sync::oneshot;

use crate::core::{Answer, Core, Event, TRANSACTION_TIME_MAX};
use crate::error::WriteError;
use crate::lag::not_written;
use crate::space::Space;
use crate::transaction::Transaction;

/// How long a read waits for a token, and a write for other replicas, when nothing else is said.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);

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

    /// How many other replicas had reported the write durable by then.
    pub fn remote(&self) -> u32 {
        self.acknowledgement.remote
    }

    /// Which these are, ascending.
    pub fn replicas(&self) -> &[ReplicaId] {
        &self.acknowledgement.replicas
    }

    /// The regions in which a durable copy was known to be by then, this replica's included, ascending.
    pub fn regions(&self) -> &[String] {
        &self.acknowledgement.regions
    }

    /// Of those that the durability is about (others for `Remote`, members for `Quorum` and `All`, regions for
    /// `Regions`), how many had the write by then, and how many have to.
    pub fn progress(&self) -> (u32, u32) {
        (self.acknowledgement.counted, self.acknowledgement.needed)
    }

    /// Whether the write had been made before under the same [operation id](Transact::operation_id), and was not made
    /// again; the token and all else are that write's.
    pub fn deduplicated(&self) -> bool {
        self.acknowledgement.deduplicated
    }

    /// Whether the durability asked for was reached. When not, the outcome is indeterminate: the write is
    /// durable here, stays, and goes on spreading.
    pub fn reached(&self) -> bool {
        self.acknowledgement.reached
    }
}

/// A transaction to be made. Await it, or change what it asks for first. Nothing happens before.
#[must_use = "a transaction does nothing until it is awaited or submitted"]
pub struct Transact<R = ()> {
    space: Space,
    body: Body<R>,
    durability: Durability,
    within: Duration,
    after: Option<Token>,
    operation: Option<Operation<R>>,
}

/// Under which id a transaction is made, and what it comes to when it was made before.
struct Operation<R> {
    id: Result<OperationId, OperationNameError>,
    repeated: fn() -> R,
}

type Body<R> = Box<dyn FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError> + Send>;

impl<R: Send + 'static> Transact<R> {
    pub(crate) fn new(
        space: Space,
        body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError> + Send + 'static,
    ) -> Self {
        let (durability, within) = (Durability::Local, WAIT_DEFAULT);
        Self { space, body: Box::new(body), durability, within, after: None, operation: None }
    }

    /// How durable the write must be before it is acknowledged; [`Durability::Local`] otherwise.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long to wait for other replicas, before the write for what it is to follow, and for them to follow where writes
    /// are [throttled](crate::OpenOptions::throttle), and after it for its durability;
    /// [`WAIT_DEFAULT`] otherwise.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Makes the write only once everything that the token has seen is durable here, so that whoever sees the write
    /// sees that too: writes follow reads, also when the client has moved to another replica.
    pub fn after(mut self, token: &Token) -> Self {
        self.after = Some(token.clone());
        self
    }

    /// Gives the write an id of the client's own, 1 to [`OPERATION_NAME_BYTES_MAX`](crate::OPERATION_NAME_BYTES_MAX)
    /// bytes drawn at random, by which it can be repeated when its outcome is not known. The id is stored in the
    /// change set. For 24 hours every replica that has applied it answers a repetition with the first write's token,
    /// [`Receipt::deduplicated`] and `None`, and makes nothing; the closure is not run. A space remembers the last
    /// 1,048,576 ids at least.
    ///
    /// Two replicas that have not heard of each other's use of the id both make the write, and both stand. So repeat
    /// it at the same replica, or, elsewhere, [after](Transact::after) the token of the first attempt, which also an
    /// indeterminate receipt has. A transaction that changes nothing leaves no id.
    pub fn operation_id(self, name: impl AsRef<[u8]>) -> Transact<Option<R>> {
        let Self { space, body, durability, within, after, operation: _ } = self;
        let operation = Operation { id: OperationId::named(name.as_ref()), repeated: || None };
        Transact {
            space,
            body: Box::new(move |tx| body(tx).map(Some)),
            durability,
            within,
            after,
            operation: Some(operation),
        }
    }

    /// Hands the transaction to the core and returns what to await for its acknowledgement. Transactions take
    /// place in the order in which they were submitted, so many can be under way at once. One that is to be made
    /// [after](Transact::after) a token is submitted once the token is reached.
    ///
    /// # Errors
    /// [`WriteError::Stopped`] when the replica is shut down, [`WriteError::Behind`], [`WriteError::Throttled`] and
    /// [`WriteError::OperationName`].
    pub async fn submit(self) -> Result<Pending<R>, WriteError> {
        let Self { space, mut body, durability, within, after, operation } = self;
        let repeated = operation.as_ref().map(|operation| operation.repeated);
        let operation = operation.map(|operation| operation.id).transpose()?;
        let deadline = Instant::now().checked_add(within);
        if let Some(token) = after {
            space.reach(token, within).await?;
        }
        loop {
            let within = deadline.map_or(within, |at| at.saturating_duration_since(Instant::now()));
            let is_throttled = space.replica().shared.is_throttled;
            if is_throttled {
                let room = Command::AwaitRoom { space: space.id(), within };
                space.replica().request(room).await.map_err(not_written)?;
            }
            let within = deadline.map_or(within, |at| at.saturating_duration_since(Instant::now()));
            let asked = Asked { durability: durability.clone(), within, operation, repeated };
            let (back, returned) = is_throttled.then(oneshot::channel).unzip();
            let answer = hand_over(&space, body, asked, back).await?;
            let Some(returned) = returned else { return Ok(Pending { answer }) };
            match returned.await.map_err(|_| WriteError::Stopped)? {
                None => return Ok(Pending { answer }),
                // Somebody else took the room.
                Some(again) => body = again,
            }
        }
    }
}

/// What a transaction asks for.
struct Asked<R> {
    durability: Durability,
    within: Duration,
    operation: Option<OperationId>,
    /// What it comes to when it was made before.
    repeated: Option<fn() -> R>,
}

/// Where a transaction goes back to when there is no room for it any more; nothing does when it was taken.
type Back<R> = oneshot::Sender<Option<Body<R>>>;

/// Hands a transaction to the core. Whoever waits for it is woken once: when it is refused, or when it is as durable as
/// was asked.
async fn hand_over<R: Send + 'static>(
    space: &Space,
    body: Body<R>,
    asked: Asked<R>,
    back: Option<Back<R>>,
) -> Result<Answer<Outcome<R>>, WriteError> {
    let (done, outcome) = oneshot::channel();
    let (id, registry) = (space.id(), Arc::clone(space.registry()));
    let shared = &space.replica().shared;
    let request = shared.numbers.next();
    let answer = Answer::new(request, outcome, shared.events.downgrade());
    let job = move |core: &mut Core| {
        if let Some(back) = back {
            if core.parts().0.throttled(&id).is_some() {
                // A caller that is gone does not want it any more.
                drop(back.send(Some(body)));
                return;
            }
            drop(back.send(None));
        }
        let Asked { durability, within, operation, repeated } = asked;
        let options = WriteOptions { request, durability, within, operation };
        let now = core.now();
        let (engine, store) = core.parts();
        let mut result = engine.transact(&now, id, options, store, |tx| timed(tx, &registry, body));
        if let (Err(TransactError::Duplicate), Some(repeated)) = (&result, repeated) {
            result = Ok(repeated());
        }
        // A caller that stopped waiting loses the outcome; the write stays.
        match result {
            Ok(value) => core.on_reply(request, move |reply| drop(done.send(Ok((value, reply))))),
            Err(error) => drop(done.send(Err(error))),
        }
    };
    space.replica().send(Event::Job(Box::new(job))).await.map_err(|_| WriteError::Stopped)?;
    Ok(answer)
}

/// Runs a closure and refuses it when it held up its space for too long, each of its operations from then on.
fn timed<R>(
    tx: &mut comity_engine::Tx<'_>,
    registry: &Arc<PolicyRegistry>,
    body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError>,
) -> Result<R, TxError> {
    let started = Instant::now();
    let too_slow = move || {
        let (millis, millis_max) =
            (started.elapsed().as_millis() as u64, TRANSACTION_TIME_MAX.as_millis() as u64);
        (millis > millis_max).then_some(TxError::TooSlow { millis, millis_max })
    };
    tx.refuse_when(too_slow);
    let result = body(&mut Transaction::new(tx, registry))?;
    too_slow().map_or(Ok(result), Err)
}

impl<R: Send + 'static> IntoFuture for Transact<R> {
    type Output = Result<Receipt<R>, WriteError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.submit().await?.receipt().await })
    }
}

type Outcome<R> = Result<(R, Result<Reply, CommandError>), TransactError<TxError>>;

/// A transaction that was handed to the core. Dropping it loses the acknowledgement, and nothing waits for other
/// replicas any more; the write stays.
#[must_use = "the acknowledgement says whether the write is durable"]
pub struct Pending<R> {
    answer: Answer<Outcome<R>>,
}

impl<R> Pending<R> {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn receipt(self) -> Result<Receipt<R>, WriteError> {
        let outcome = self.answer.wait().await.ok_or(WriteError::Stopped)?;
        let (value, reply) = outcome.map_err(|error| match error {
            TransactError::Throttled(throttled) => WriteError::Throttled(throttled),
            other => WriteError::Refused(other),
        })?;
        match reply {
            Ok(Reply::Acknowledged(acknowledgement)) => Ok(Receipt { value, acknowledgement }),
            Ok(other) => unreachable!("a write is answered by its acknowledgement, not {other:?}"),
            Err(error) => Err(WriteError::Indeterminate(error)),
        }
    }
}
