//! What the application and the operator ask for, apart from transactions.

use std::collections::BTreeSet;

use comity_crdts::limits::SPACE_NAME_BYTES_MAX;
use comity_crdts::{ReplicaId, SpaceId};

use crate::apply::Effects;
use crate::engine::Engine;
use crate::io::{Command, CommandError, Notice, Now, Output, Reply, RequestId};
use crate::keys;
use crate::own::Incarnation;
use crate::space::{Founder, Space, SpaceRow};
use crate::store::Store;
use crate::work::Work;

impl Engine {
    pub(crate) fn on_command(
        &mut self,
        now: &Now,
        request: RequestId,
        command: Command,
        store: &mut dyn Store,
    ) {
        if let Some(error) = self.failed.clone() {
            return self.reply(request, Err(error.into()));
        }
        let result = match command {
            Command::CreateSpace { name } => self.create_space(now, request, &name, store),
            Command::JoinSpace { space, inviter, secret } => {
                self.join_space(now, request, (space, inviter, secret), false, store)
            }
            Command::FollowSpace { space, inviter, secret } => {
                self.join_space(now, request, (space, inviter, secret), true, store)
            }
            Command::Grant { space, replica, role } => {
                self.grant(now, request, (space, replica, role), store)
            }
            Command::Revoke { space, replica } => self.revoke(now, request, (space, replica), store),
            Command::LeaveSpace { space } => self.leave_space(now, request, space, store),
            Command::DeleteSpace { space } => self.delete_space(now, request, space, store),
            Command::Invite { space, role, valid_for } => {
                self.invite(now, request, (space, role, valid_for), store)
            }
            Command::RememberPeer { replica, address } => {
                let mut work = Work::over(store);
                work.put_fact(keys::peer_address(&replica), address.into_bytes());
                let batch = work.into_batch();
                self.commit_facts(now, request, Reply::Remembered, batch, store)
            }
            Command::AwaitToken { token, within } => self.await_token(now, request, token, within),
            Command::AwaitFresh { space, whom, max_age, within } => {
                self.await_fresh(now, request, (space, whom), (max_age, within))
            }
            Command::Flush => {
                self.await_facts(now, request, Reply::Flushed);
                Ok(())
            }
            Command::AwaitConfirmation { space, within } => {
                self.await_confirmation(now, request, space, within)
            }
            Command::AcquireRights { space, collection, key, amount, within } => {
                self.acquire_rights(now, request, (space, &collection, &key), (amount, within), store)
            }
            Command::AwaitRoom { space, within } => self.await_room(now, request, space, within),
            Command::Status => {
                let status = self.status();
                self.reply(request, Ok(Reply::Status(Box::new(status))));
                Ok(())
            }
        };
        if let Err(error) = result {
            self.reply(request, Err(error));
        }
    }

    /// Commits a batch without lane entries; the reply waits for its sync.
    pub(crate) fn commit_facts(
        &mut self,
        now: &Now,
        request: RequestId,
        reply: Reply,
        batch: crate::store::Batch,
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        self.committed = store.commit(batch)?;
        self.await_facts(now, request, reply);
        self.request_sync();
        Ok(())
    }

    fn create_space(
        &mut self,
        now: &Now,
        request: RequestId,
        name: &str,
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        if name.is_empty() || name.len() > SPACE_NAME_BYTES_MAX {
            let (bytes, bytes_max) = (name.len(), SPACE_NAME_BYTES_MAX);
            return Err(CommandError::SpaceName { name: name.chars().take(24).collect(), bytes, bytes_max });
        }
        let founder = Founder { replica: self.replica, nonce: now.fresh };
        let id = SpaceId::derive(&founder.replica, &founder.nonce);
        let mut space = Space::new(id, empty_row(), self.terms());
        let mut work = Work::over(store);
        let mut effects = Effects::default();
        space.found(&mut work, &mut effects, founder, name.to_owned());
        // Nobody can have heard of anything before this incarnation, so nobody needs to confirm it.
        space.row.incarnation = Some((founder.nonce, self.instance));
        space.incarnation = Some(Incarnation::new(&id, &self.replica, founder.nonce));
        space.progress.digest.0 = effects.digest;
        space.put_row(&mut work);
        space.put_progress(&mut work, &space.progress);
        let batch = work.into_batch();
        self.commit_facts(now, request, Reply::SpaceCreated(id), batch, store)?;
        self.spaces.insert(id, Box::new(space));
        self.count_trusted(id);
        self.commons.touch(id);
        self.push(Output::Notify(Notice::TrustChanged));
        Ok(())
    }

    fn join_space(
        &mut self,
        now: &Now,
        request: RequestId,
        (id, inviter, secret): (SpaceId, ReplicaId, Option<[u8; 16]>),
        follows: bool,
        store: &mut dyn Store,
    ) -> Result<(), CommandError> {
        if self.deletions.contains_key(&id) {
            return Err(CommandError::Deleting(id));
        }
        let mut row = self.spaces.get(&id).map_or_else(empty_row, |space| space.row.clone());
        row.pinned.insert(inviter);
        (row.follows, row.left, row.removed_by) = (follows, None, None);
        // A member by its own records may be unknown to an inviter that was restored from a copy.
        row.invitation = secret.map(|secret| (inviter, secret)).or(row.invitation);
        let mut work = Work::over(store);
        work.put_fact(keys::space(&id), crate::space::encode(&row));
        let batch = work.into_batch();
        self.commit_facts(now, request, Reply::Joined(id), batch, store)?;
        let terms = self.terms();
        let space = self.spaces.entry(id).or_insert_with(|| Box::new(Space::new(id, empty_row(), terms)));
        (space.row, space.is_trust_counted) = (row, false);
        self.count_trusted(id);
        self.commons.touch(id);
        self.push(Output::Notify(Notice::TrustChanged));
        let sessions = self.sessions.iter().filter(|(_, session)| session.peer == inviter);
        self.to_open.extend(sessions.map(|(session, _)| (*session, id)));
        Ok(())
    }
}

pub(crate) fn empty_row() -> SpaceRow {
    SpaceRow {
        name: String::new(),
        founder: None,
        incarnation: None,
        pinned: BTreeSet::new(),
        invitation: None,
        follows: false,
        left: None,
        removed_by: None,
    }
}
