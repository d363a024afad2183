//! What admins say about members, and members about themselves.

use comity_crdts::limits::MEMBERS_MAX;
use comity_crdts::{ObjectAddress, ReplicaId};

use crate::limits::MEMBER_STATEMENTS_MAX;
use crate::members::{Roster, View};
use crate::op::{Op, Role};
use crate::tx::{Tx, TxError};

impl Tx<'_> {
    /// Makes a replica a member, or gives a member another role. Writes nothing where it has that role.
    pub(crate) fn grant(&mut self, replica: ReplicaId, role: Role) -> Result<(), TxError> {
        let roster = Roster::load(&self.work, &self.space.id)?;
        if !roster.knows(&replica) && roster.len() >= MEMBERS_MAX {
            return Err(TxError::TooManyMembers { members_max: MEMBERS_MAX });
        }
        let own = self.replica;
        if roster.says(&own) != Some(Role::Admin)
            && roster.roles(View::Everything).get(&own) == Some(&Role::Admin)
        {
            // An admin because nobody else is left says so, or it would cease to be one once somebody else is.
            self.say(&roster, own, Some(Role::Admin))?;
        }
        if replica == own && role == Role::Admin {
            return Ok(());
        }
        self.say(&roster, replica, Some(role))
    }

    /// Removes a member.
    pub(crate) fn revoke(&mut self, replica: ReplicaId) -> Result<(), TxError> {
        let roster = Roster::load(&self.work, &self.space.id)?;
        if !roster.roles(View::Everything).contains_key(&replica) {
            return Err(TxError::NotMember { replica });
        }
        self.say(&roster, replica, None)
    }

    fn say(&mut self, roster: &Roster, replica: ReplicaId, role: Option<Role>) -> Result<(), TxError> {
        if role.is_some() && roster.says(&replica) == role {
            return Ok(());
        }
        if !roster.has_room_for(&replica) {
            return Err(TxError::TooManyStatements { replica, statements_max: MEMBER_STATEMENTS_MAX });
        }
        if role < Some(Role::Admin) && roster.is_last_admin(&replica) {
            return Err(TxError::LastAdmin { replica });
        }
        let op = match role {
            Some(role) => Op::Grant { replica, role },
            None => Op::Revoke { replica },
        };
        self.push(&ObjectAddress::members().into(), op)
    }
}
