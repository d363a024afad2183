//! A space, and typed handles on its objects.

use std::sync::Arc;
use std::time::Duration;

use comity_crdts::{Kind, Policy, PolicyRegistry, SpaceId};
use comity_engine::{
    Command, CommandError, ReadError, Reply, Role, SpaceStatus, StoreError, Token, TxError, Whom,
};
use comity_store::Reader;

use crate::error::{InviteError, RequestError, WatchError, WriteError};
use crate::handles::{BoundedCounterHandle, Counter, DocumentHandle, Flag, Map, Object, Register, Set};
use crate::place::Place;
use crate::replica::Replica;
use crate::ticket::Ticket;
use crate::transaction::Transaction;
use crate::view::View;
use crate::watch::{Visible, Watch};
use crate::write::{Transact, WAIT_DEFAULT};

/// How long an invitation is good for.
pub const INVITATION_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// A space at a replica. Cheap to clone.
#[derive(Clone)]
pub struct Space {
    replica: Replica,
    id: SpaceId,
}

impl Space {
    pub(crate) fn new(replica: Replica, id: SpaceId) -> Self {
        Self { replica, id }
    }

    /// The space's id.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(crate) fn registry(&self) -> &Arc<PolicyRegistry> {
        &self.replica.shared.registry
    }

    /// A counter.
    pub fn counter(&self, collection: &str, key: &str) -> Counter {
        Counter(self.object(Kind::Counter, collection, key))
    }

    /// A counter that never falls below zero.
    pub fn bounded_counter(&self, collection: &str, key: &str) -> BoundedCounterHandle {
        BoundedCounterHandle(self.object(Kind::BoundedCounter, collection, key))
    }

    /// An add-wins set.
    pub fn set(&self, collection: &str, key: &str) -> Set {
        Set(self.object(Kind::Set, collection, key))
    }

    /// A remove-wins set.
    pub fn remove_wins_set(&self, collection: &str, key: &str) -> Set {
        Set(self.object(Kind::RwSet, collection, key))
    }

    /// An enable-wins flag.
    pub fn flag(&self, collection: &str, key: &str) -> Flag {
        Flag(self.object(Kind::Flag, collection, key))
    }

    /// A disable-wins flag.
    pub fn disable_wins_flag(&self, collection: &str, key: &str) -> Flag {
        Flag(self.object(Kind::DwFlag, collection, key))
    }

    /// A register.
    pub fn register(&self, collection: &str, key: &str) -> Register {
        Register(self.object(Kind::Register, collection, key))
    }

    /// A map.
    pub fn map(&self, collection: &str, key: &str) -> Map {
        Map(self.object(Kind::Map, collection, key))
    }

    /// An Automerge document.
    pub fn document(&self, collection: &str, key: &str) -> DocumentHandle {
        DocumentHandle(self.object(Kind::Document, collection, key))
    }

    fn object(&self, kind: Kind, collection: &str, key: &str) -> Object {
        Object { space: self.clone(), place: Place::new(kind, collection, key) }
    }

    /// Makes one atomic change set of everything the closure does. The closure runs on the core's thread, alone
    /// in its space; an error or a panic in it rolls everything back. After a second its operations are refused, and
    /// the whole of it when it ends. Nothing interrupts it before that, so one that blocks holds up the replica.
    ///
    /// Await the result for a durable write, or configure it first.
    pub fn transact<R, F>(&self, body: F) -> Transact<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Transaction<'_, '_>) -> Result<R, TxError> + Send + 'static,
    {
        Transact::new(self.clone(), body)
    }

    /// The newest durable state. It shows whole change sets only, and expires after 30 s.
    ///
    /// # Errors
    /// [`StoreError`] when storage fails; [`StoreError::UnknownSpace`] when the space was deleted;
    /// [`StoreError::Installing`] while the state is being replaced by that of another replica, which [`Replica::status`](crate::Replica::status) tells of.
    pub fn view(&self) -> Result<View, StoreError> {
        let shared = &self.replica.shared;
        let snapshot = shared.reader.snapshot()?;
        comity_engine::check_readable(&snapshot, &self.id)?;
        Ok(View::new(snapshot, self.id, (&shared.registry, &shared.documents)))
    }

    /// A view that shows at least everything the token has seen; waits up to [`WAIT_DEFAULT`] for it to arrive.
    ///
    /// # Errors
    /// [`RequestError`]; `Stale`, with how much is missing, when the time is over; `OtherSpace` for a token of another.
    pub async fn at(&self, token: &Token) -> Result<View, RequestError> {
        self.at_within(token, WAIT_DEFAULT).await
    }

    /// As [`Space::at`], with a time limit of your own.
    ///
    /// # Errors
    /// As [`Space::at`].
    pub async fn at_within(&self, token: &Token, within: Duration) -> Result<View, RequestError> {
        if token.space != self.id {
            return Err(CommandError::OtherSpace { token: token.space, space: self.id }.into());
        }
        self.replica.request(Command::AwaitToken { token: token.clone(), within }).await?;
        self.view().map_err(|error| RequestError::Command(error.into()))
    }

    /// Waits until everything that the token has seen is durable here.
    pub(crate) async fn reach(&self, token: Token, within: Duration) -> Result<(), WriteError> {
        if token.space != self.id {
            let error = CommandError::OtherSpace { token: token.space, space: self.id };
            return Err(WriteError::Behind(error.into()));
        }
        let reached = self.replica.request(Command::AwaitToken { token, within }).await;
        reached.map(|_| ()).map_err(WriteError::Behind)
    }

    /// A view that shows at least everything that every member that writes had made durable `max_age` before this
    /// call, for a read that may be late by so much and no more. Members of which that is not known from earlier
    /// are asked, which takes a round trip to each; what this replica lacks is pulled. Zero asks everybody.
    ///
    /// What counts is what a member answers when it is asked, so neither clocks nor how long anything was under way
    /// matter. Who is a member is what is known here; a member that is not connected to this replica itself cannot be
    /// asked.
    ///
    /// # Errors
    /// [`RequestError`]; `NotFresh`, with whom it is not known of and how old what is known is, after `patience`.
    pub async fn fresh_within(&self, max_age: Duration, patience: Duration) -> Result<View, RequestError> {
        self.fresh(Whom::All, max_age, patience).await
    }

    /// A view that shows at least everything that a majority of the members that write, of which this replica is one,
    /// had made durable when this was called. That is every write that was acknowledged at
    /// [`Durability::Quorum`](crate::Durability::Quorum) or `All` anywhere before, as long as both ends know the same
    /// members. Members are asked each time, and what they have and this replica lacks is pulled, which takes a round
    /// trip and more.
    ///
    /// It does not make reads linearizable: a write that is not acknowledged yet may be in this view and not in a
    /// later one of another replica. Writes of others that were only acknowledged as `Local` may be missing.
    ///
    /// # Errors
    /// [`RequestError`]; `NoQuorum` when too few answer within `patience`, or what they have does not arrive.
    pub async fn read_quorum(&self, patience: Duration) -> Result<View, RequestError> {
        self.fresh(Whom::Majority, Duration::ZERO, patience).await
    }

    async fn fresh(&self, whom: Whom, max_age: Duration, within: Duration) -> Result<View, RequestError> {
        let space = self.id;
        self.replica.request(Command::AwaitFresh { space, whom, max_age, within }).await?;
        self.view().map_err(|error| RequestError::Command(error.into()))
    }

    /// Waits until another writer of the space is known to have heard of this incarnation. A replica that has just
    /// joined, or was restored from a copy, cannot write to remove-wins sets and disable-wins flags nor remove counters
    /// before that, because others may have forgotten what it has not seen. The founder can from the start.
    ///
    /// # Errors
    /// [`RequestError`]; `Unconfirmed` when the time is over. It may be asked again.
    pub async fn confirmed(&self, within: Duration) -> Result<(), RequestError> {
        self.replica.request(Command::AwaitConfirmation { space: self.id, within }).await.map(|_| ())
    }

    /// Sets the policy under which the registers of a collection are read, at every replica. What is stored does not
    /// change, so it can be set again at any time; of two replicas that set it at the same time, the last wins. A
    /// policy of the application's own is known where it was registered by
    /// [`OpenOptions::policy`](crate::OpenOptions::policy); all siblings are shown elsewhere.
    pub fn set_policy(&self, collection: &str, policy: Policy) -> Transact {
        let collection = collection.to_owned();
        self.transact(move |tx| tx.set_policy(&collection, &policy))
    }

    /// The policy of a collection in the newest durable state; last-writer-wins where none was set.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn policy(&self, collection: &str) -> Result<Policy, ReadError> {
        self.view()?.policy(collection)
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
        found.ok_or(RequestError::Command(CommandError::UnknownSpace(self.id)))
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
            Reply::Invited(secret) => Ok(Ticket { secret: Some(secret), role, ..ticket }),
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
        Ok(Ticket { replica: self.replica.id(), addresses, space: self.id, secret: None, role: Role::Writer })
    }
}
