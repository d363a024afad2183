//! Writes on their way to the core, and their acknowledgements.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use comity_crdts::PolicyRegistry;
use comity_engine::{Acknowledgement, Durability, Reply, Token, TransactError, TxError, WriteOptions};
use tokio::sync::oneshot;

use crate::core::{Core, Event, TRANSACTION_TIME_MAX};
use crate::error::WriteError;
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
    pub(crate) fn new(
        space: Space,
        body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError> + Send + 'static,
    ) -> Self {
        Self { space, body: Box::new(body), durability: Durability::Local, within: WAIT_DEFAULT }
    }

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
        let (id, registry) = (space.id(), Arc::clone(space.registry()));
        let job = move |core: &mut Core| {
            let (answer, reply) = oneshot::channel();
            let (request, now) = (core.ask(answer), core.now());
            let options = WriteOptions { request, durability, within };
            let (engine, store) = core.parts();
            let result = engine.transact(&now, id, options, store, |tx| timed(tx, &registry, body));
            if result.is_err() {
                core.withdraw(request);
            }
            // A caller that stopped waiting loses the outcome only.
            let _ = done.send(result.map(|value| (value, reply)));
        };
        space.replica().send(Event::Job(Box::new(job))).await.map_err(|_| WriteError::Stopped)?;
        Ok(Pending { outcome })
    }
}

/// Runs a closure and refuses it when it held up its space for too long.
fn timed<R>(
    tx: &mut comity_engine::Tx<'_>,
    registry: &Arc<PolicyRegistry>,
    body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError>,
) -> Result<R, TxError> {
    let started = std::time::Instant::now();
    let result = body(&mut Transaction::new(tx, registry))?;
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
