//! Members of a space: who they are, who becomes one, and who is one no longer.

use comity_crdts::ReplicaId;
use comity_engine::{Command, Reply, Role, Standing};

use crate::error::RequestError;
use crate::space::Space;

impl Space {
    /// The members with their roles, as far as is known here.
    ///
    /// # Errors
    /// [`RequestError`] when the replica does not hold the space or is shut down.
    pub async fn members(&self) -> Result<Vec<(ReplicaId, Role)>, RequestError> {
        Ok(self.status().await?.members)
    }

    /// How this replica takes part.
    ///
    /// # Errors
    /// As [`Space::members`].
    pub async fn standing(&self) -> Result<Standing, RequestError> {
        Ok(self.status().await?.standing)
    }

    /// Makes a replica a member, or gives a member another role: promotes a follower, demotes a writer. Durable here
    /// when this returns, and replicated like every write; each replica goes by it from when it has applied it. Where
    /// two admins give different roles at the same time, the lesser holds, and a removal before any.
    ///
    /// A writer that is demoted stops when it learns of it. What it wrote until then counts.
    ///
    /// # Errors
    /// [`RequestError`]; `NotAdmin`, or `LastAdmin` when no admin would be left.
    pub async fn grant(&self, replica: ReplicaId, role: Role) -> Result<(), RequestError> {
        self.change_members(Command::Grant { space: self.id(), replica, role }).await
    }

    /// Removes a member. As soon as a replica has applied this, it exchanges nothing of the space with the former
    /// member any more, and ends the connection when no other space is shared over it. What the former member had
    /// written stays; of what it writes afterwards, only what some remaining member had applied before it learned of
    /// the removal becomes part of the space, at all of them. It keeps what it has: that cannot be taken back.
    ///
    /// # Errors
    /// [`RequestError`]; `NotAdmin`, `NotMember`, or `LastAdmin` when no admin would be left.
    pub async fn revoke(&self, replica: ReplicaId) -> Result<(), RequestError> {
        self.change_members(Command::Revoke { space: self.id(), replica }).await
    }

    /// Takes no part in the space any more. A writer or an admin removes itself from the member list, and goes on
    /// serving the others only until they know; a follower just stops. Invitations are forgotten. What is held here can
    /// still be read, and goes with [`Space::delete`]. An invitation lets the replica in again.
    ///
    /// # Errors
    /// [`RequestError`]; `LastAdmin` when no admin would be left.
    pub async fn leave(&self) -> Result<(), RequestError> {
        match self.replica().request(Command::LeaveSpace { space: self.id() }).await? {
            Reply::Left => Ok(()),
            other => unreachable!("it was asked to leave, not {other:?}"),
        }
    }

    /// Deletes what this replica holds of the space. The space is unknown here from then on, which reads and watches of it say
    /// as well; rows and entries go in
    /// the background, in short steps that go on after a crash, and O(rows) in all. Nobody else is told: a member that
    /// is to be one no longer leaves first, and waits until others have heard of it.
    ///
    /// # Errors
    /// [`RequestError`] when the replica does not hold the space or storage fails.
    pub async fn delete(self) -> Result<(), RequestError> {
        match self.replica().request(Command::DeleteSpace { space: self.id() }).await? {
            Reply::Deleted(_) => Ok(()),
            other => unreachable!("it was asked to delete, not {other:?}"),
        }
    }

    async fn change_members(&self, command: Command) -> Result<(), RequestError> {
        match self.replica().request(command).await? {
            Reply::MembersChanged => Ok(()),
            other => unreachable!("members were to be changed, not {other:?}"),
        }
    }
}
