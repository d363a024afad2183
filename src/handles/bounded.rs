//! Counters that never fall below zero.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use comity_crdts::{BoundedCounter, BoundedError, ReplicaId, SpaceId};
use comity_engine::{
    Command, CommandError, Durability, Location, ReadError, StateRead, TransactError, Tx, TxError,
    bounded_counter,
};
use tokio::time::Instant;

use crate::error::{DecreaseError, RequestError, TransferError, WriteError};
use crate::handles::{Object, TxObject};
use crate::write::{Receipt, Transact, WAIT_DEFAULT};

/// A counter from 0 to 2^63 that no replica can take below zero, also while it hears of nobody. Whoever increases it
/// gets as many rights to decrease it; rights are used up by decreasing, and can be handed on.
///
/// The rights of an incarnation that is no more, as after its data directory was restored from a copy, are lost to
/// everybody: they stay part of the value, and nobody can use them.
#[derive(Clone)]
pub struct BoundedCounterHandle(pub(crate) Object);

pub(crate) fn load(
    read: &dyn StateRead,
    space: &SpaceId,
    at: &Location,
) -> Result<BoundedCounter, ReadError> {
    bounded_counter(read, space, at.object.collection(), at.object.key())
}

fn transfer(tx: &mut Tx<'_>, at: &Location, to: ReplicaId, amount: u64) -> Result<(), TxError> {
    let unknown = || TxError::refuse(TransferError { object: at.clone(), to });
    let origin = tx.origin_of(&to).ok_or_else(unknown)?;
    tx.bounded_transfer_at(at, origin, amount)
}

fn rights(counter: &BoundedCounter, tx: &Tx<'_>) -> u64 {
    u64::try_from(counter.rights(&tx.origin()).max(0)).unwrap_or(u64::MAX)
}

impl BoundedCounterHandle {
    /// Increases it.
    pub fn increase(&self, amount: u64) -> Transact {
        self.0.write(move |tx, at| tx.bounded_increment_at(at, amount))
    }

    /// Decreases it by rights that are held here, and where they are too few, by rights that connected peers hand
    /// over. Await the result, or configure it first.
    pub fn decrease(&self, amount: u64) -> Decrease {
        let (durability, within) = (Durability::Local, WAIT_DEFAULT);
        Decrease { counter: self.clone(), amount, durability, within }
    }

    /// Hands rights that are held here to another replica, which can then decrease the counter without asking.
    /// They go to the incarnation in which it wrote last, as far as is known here.
    pub fn transfer(&self, to: ReplicaId, amount: u64) -> Transact {
        self.0.write(move |tx, at| transfer(tx, at, to, amount))
    }

    /// Gives up all rights that are held here. Others may be using theirs, so what they hold stays until they remove
    /// it as well; nothing is left of the counter once nobody holds any.
    pub fn remove(&self) -> Transact {
        self.0.remove()
    }

    /// The newest durable value.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn value(&self) -> Result<i128, ReadError> {
        Ok(self.0.read(load)?.value())
    }

    /// Asks connected peers for rights until this replica can decrease the counter by `amount` by itself, which it
    /// can until another write uses them up. [`BoundedCounterHandle::decrease`] does both.
    ///
    /// # Errors
    /// [`RequestError`]; [`CommandError::Rights`] when the time is over and too few were handed over, `NotWriter` where this
    /// replica does not write to the space.
    pub async fn acquire(&self, amount: u64, within: Duration) -> Result<(), RequestError> {
        acquire(&self.0, amount, within).await
    }

    /// How much this replica can decrease it by without asking anybody, at the moment of asking.
    ///
    /// # Errors
    /// [`WriteError`] when a name is out of limits, this replica does not write to the space and so holds none, storage fails or
    /// the replica is shut down.
    pub async fn rights(&self) -> Result<u64, WriteError> {
        let reading = self.0.write(|tx, at| {
            let counter = load(tx.state(), &tx.space(), at)?;
            Ok(rights(&counter, tx))
        });
        Ok(reading.await?.value)
    }
}

/// A decrease to be made. Nothing happens before it is awaited.
#[must_use = "a decrease does nothing until it is awaited"]
pub struct Decrease {
    counter: BoundedCounterHandle,
    amount: u64,
    durability: Durability,
    within: Duration,
}

impl Decrease {
    /// How durable the write must be before it is acknowledged; [`Durability::Local`] otherwise.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long to ask peers for rights, and then to wait for the durability; [`WAIT_DEFAULT`] otherwise. Zero asks
    /// nobody.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    async fn make(self) -> Result<Receipt, DecreaseError> {
        let Self { counter, amount, durability, within } = self;
        // Without one it goes on asking.
        let deadline = Instant::now().checked_add(within);
        loop {
            let write = counter.0.write(move |tx, at| tx.bounded_decrement_at(at, amount));
            let refused = match write.durability(durability.clone()).within(within).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            let Some((object, held, value)) = lacking(&refused) else { return Err(refused.into()) };
            let insufficient =
                |held, value| DecreaseError::Insufficient { object, needed: amount, held, value, within };
            let left = deadline.map_or(within, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(insufficient(held, value));
            }
            // Another write may use up what was handed over before this one is tried again.
            match acquire(&counter.0, amount, left).await {
                Ok(()) => {}
                Err(RequestError::Command(CommandError::Rights { held, value, .. })) => {
                    return Err(insufficient(held, value));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The counter, the rights held and the value, when a write failed for want of rights.
fn lacking(error: &WriteError) -> Option<(Location, u64, i128)> {
    let WriteError::Refused(TransactError::Refused(TxError::Bounded { object, source })) = error else {
        return None;
    };
    let BoundedError::Insufficient { rights, value, .. } = source else { return None };
    Some((object.clone(), u64::try_from((*rights).max(0)).unwrap_or(u64::MAX), *value))
}

async fn acquire(object: &Object, amount: u64, within: Duration) -> Result<(), RequestError> {
    let (space, place) = (object.space.id(), &object.place);
    let (collection, key) = (place.collection.to_string(), place.key.to_string());
    let command = Command::AcquireRights { space, collection, key, amount, within };
    object.space.replica().request(command).await.map(|_| ())
}

impl IntoFuture for Decrease {
    type Output = Result<Receipt, DecreaseError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.make())
    }
}

/// A bounded counter inside a transaction.
pub struct TxBoundedCounter<'o, 'a>(pub(crate) TxObject<'o, 'a>);

impl TxBoundedCounter<'_, '_> {
    /// Increases it.
    ///
    /// # Errors
    /// [`TxError`] when a name or the resulting value is out of range.
    pub fn increase(&mut self, amount: u64) -> Result<(), TxError> {
        self.0.write(|tx, at| tx.bounded_increment_at(at, amount))
    }

    /// Decreases it by rights that are held here; it asks nobody.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits; `Bounded` when the rights held here are too few.
    pub fn decrease(&mut self, amount: u64) -> Result<(), TxError> {
        self.0.write(|tx, at| tx.bounded_decrement_at(at, amount))
    }

    /// As [`BoundedCounterHandle::transfer`].
    ///
    /// # Errors
    /// As [`TxBoundedCounter::decrease`], and a [`TransferError`] when nothing that the replica wrote has arrived.
    pub fn transfer(&mut self, to: ReplicaId, amount: u64) -> Result<(), TxError> {
        self.0.write(|tx, at| transfer(tx, at, to, amount))
    }

    /// As [`BoundedCounterHandle::remove`].
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits.
    pub fn remove(&mut self) -> Result<(), TxError> {
        self.0.remove()
    }

    /// The value.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn value(&self) -> Result<i128, TxError> {
        Ok(self.0.read(load)?.value())
    }

    /// How much the transaction can decrease it by.
    ///
    /// # Errors
    /// [`TxError`] when a name is out of limits or storage fails.
    pub fn rights(&self) -> Result<u64, TxError> {
        Ok(rights(&self.0.read(load)?, self.0.tx))
    }
}
