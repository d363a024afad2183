//! Invitations: one-time secrets that let one replica become a member.

use std::time::Duration;

use comity_crdts::{ReplicaId, SpaceId, canary};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Timer, secret_hash};
use crate::io::{CommandError, Notice, Now, Output, Reply, RequestId};
use crate::keys;
use crate::membership::is_admin;
use crate::message::Join;
use crate::op::Role;
use crate::rows::damaged;
use crate::space::{decode, encode};
use crate::store::{StateRead, Store, StoreError};
use crate::tx::{Tx, TxError};
use crate::work::Work;

/// An invitation that was not redeemed yet. Only the hash of its secret is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invitation {
    role: Role,
    /// Wall-clock milliseconds after which it is worthless.
    expires_ms: u64,
}

impl Engine {
    pub(crate) fn load_invitations(&mut self, store: &dyn StateRead) -> Result<(), StoreError> {
        let (from, until) = keys::all_invitations();
        for (key, bytes) in store.scan(&from, &until, usize::MAX)? {
            let parts = key.get(1..17).zip(key.get(17..49));
            let parts = parts.and_then(|(space, hash)| Some((space.try_into().ok()?, hash.try_into().ok()?)));
            let (space, hash) = parts.ok_or_else(|| damaged("invitation row", &"its key is not one"))?;
            self.invitations.insert((SpaceId(space), hash), decode("invitation row", &bytes)?);
        }
        Ok(())
    }

    pub(crate) fn invite(
        &mut self,
        now: &Now,
        request: RequestId,
        (id, role, valid_for): (SpaceId, Role, Duration),
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        let space = self.spaces.get(&id).ok_or(CommandError::UnknownSpace(id))?;
        if !is_admin(space, &self.replica) || !space.standing(&self.replica).may_write() {
            return Err(CommandError::NotAdmin(id));
        }
        self.expire_invitations(now, store)?;
        let secret = now.fresh.0;
        let hash = secret_hash(&id, &secret);
        let valid_ms = u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX);
        let invitation = Invitation { role, expires_ms: now.wall_ms.saturating_add(valid_ms) };
        let mut work = Work::over(store);
        work.put_fact(keys::invitation(&id, &hash), encode(&invitation));
        let batch = work.into_batch();
        self.commit_facts(now, request, Reply::Invited(secret), batch, store)?;
        self.invitations.insert((id, hash), invitation);
        self.timers.insert((now.monotonic.saturating_add(valid_for), Timer::Invitations));
        self.push(Output::Notify(Notice::TrustChanged));
        Ok(())
    }

    /// Forgets invitations that nobody redeemed in time, so that strangers are turned away again.
    pub(crate) fn expire_invitations(&mut self, now: &Now, store: &mut dyn Store) -> Result<(), StoreError> {
        let expired = self.invitations.iter().filter(|(_, invitation)| invitation.expires_ms <= now.wall_ms);
        let expired: Vec<(SpaceId, [u8; 32])> = expired.map(|(key, _)| *key).collect();
        if !expired.is_empty() {
            let mut work = Work::over(store);
            for (space, hash) in &expired {
                work.delete_fact(keys::invitation(space, hash));
            }
            let batch = work.into_batch();
            self.committed = store.commit(batch)?;
            for key in &expired {
                self.invitations.remove(key);
            }
            self.push(Output::Notify(Notice::TrustChanged));
        }
        // One timer is enough for all of them.
        self.timers.retain(|(_, timer)| *timer != Timer::Invitations);
        // The two clocks may disagree: whatever is left is looked at again when it should be due.
        if let Some(next) = self.invitations.values().map(|invitation| invitation.expires_ms).min() {
            let wait = Duration::from_millis(next.saturating_sub(now.wall_ms).max(1));
            self.timers.insert((now.monotonic.saturating_add(wait), Timer::Invitations));
        }
        Ok(())
    }

    /// Redeems an invitation: the peer becomes a member by a change set of this replica, in the same batch
    /// in which the invitation is used up. Returns whether the peer is a member now.
    pub(crate) fn redeem(
        &mut self,
        now: &Now,
        peer: ReplicaId,
        join: &Join,
        store: &mut dyn Store,
    ) -> Result<bool, TxError> {
        let hash = secret_hash(&join.space, &join.secret);
        let Some(space) = self.spaces.get_mut(&join.space).filter(|space| !space.is_blocked()) else {
            return Ok(false);
        };
        if space.members.contains_key(&peer) {
            return Ok(true);
        }
        let named = if canary!(SecretNotCompared) {
            let of_space = (join.space, [0; 32])..=(join.space, [0xff; 32]);
            self.invitations.range(of_space).next().map(|(_, invitation)| invitation)
        } else {
            self.invitations.get(&(join.space, hash))
        };
        let Some(invitation) = named.copied() else { return Ok(false) };
        let may_let_in = is_admin(space, &self.replica) && space.standing(&self.replica).may_write();
        if invitation.expires_ms <= now.wall_ms || !may_let_in {
            return Ok(false);
        }
        let region = self.region.as_deref();
        let mut tx = Tx::begin(space, &*store, (self.replica, region), now);
        if let Err(error) = tx.grant(peer, invitation.role) {
            tx.roll_back();
            return Err(error);
        }
        tx.work().delete_fact(keys::invitation(&join.space, &hash));
        if let Some(finished) = tx.finish(&self.instance)? {
            self.commit_local(join.space, finished, store)?;
        }
        self.invitations.remove(&(join.space, hash));
        if self.invitations.is_empty() {
            self.timers.retain(|(_, timer)| *timer != Timer::Invitations);
        }
        self.push(Output::Notify(Notice::TrustChanged));
        Ok(true)
    }
}
