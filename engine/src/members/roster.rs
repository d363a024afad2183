//! The list as a value: statements, and what they come to as somebody sees them.

use std::cmp::Reverse;

use comity_crdts::{DecodeError, Frontier, OriginId, Reader, ReplicaId, SpaceId, Writer, canary};

use crate::keys;
use crate::limits::MEMBER_STATEMENTS_MAX;
use crate::members::{Place, Said};
use crate::op::Role;
use crate::rows::damaged;
use crate::sorted::Sorted;
use crate::store::{StateRead, StoreError};

/// How a removal is written where a role would stand.
const REMOVED: u8 = 0xff;

/// What somebody sees of the statements.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    /// All there are.
    Everything,
    /// What the author of the operation at a place had seen: the frontier, and its own lane before that place.
    Before(&'a Frontier, Place),
}

impl View<'_> {
    fn sees(&self, place: &Place) -> bool {
        match self {
            Self::Everything => true,
            Self::Before(_, at) if at.lane == place.lane => (place.lsn, place.index) < (at.lsn, at.index),
            Self::Before(context, _) => context.at(&place.lane) >= place.lsn,
        }
    }
}

/// A statement that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    place: Place,
    /// The role given; none for a removal.
    role: Option<Role>,
    /// How many statements lead to it, each seen by the author of the next, at most.
    height: u64,
    /// How many grants of the admin's role lie between the founder and this one; 0 for other roles.
    rank: u64,
    /// Statements about the same replica whose authors saw this one as one that held, ascending.
    superseded_by: Vec<Place>,
}

/// Every statement that counts in a space, by whom it is about, each replica's in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    statements: Sorted<ReplicaId, Vec<Statement>>,
}

impl Roster {
    /// The list of a space that nobody has said anything about but who founded it: entry 0 of the zero lane, which
    /// everyone has seen.
    pub(crate) fn founded_by(founder: &ReplicaId) -> Self {
        let place = Place { lane: OriginId([0; 16]), lsn: 0, index: 0 };
        let first =
            Statement { place, role: Some(Role::Admin), height: 0, rank: 0, superseded_by: Vec::new() };
        Self { statements: Sorted::from_iter([(*founder, vec![first])]) }
    }

    pub(crate) fn load(read: &dyn StateRead, space: &SpaceId) -> Result<Self, StoreError> {
        let (from, until) = keys::members(space);
        let mut statements = Sorted::new();
        for (key, row) in read.scan(&from, &until, usize::MAX)? {
            let replica = key.get(17..49).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let replica = replica.ok_or_else(|| damaged("member row", &"its key is not one"))?;
            let row = decode_row(&row).map_err(|error| damaged("member row", &error))?;
            statements.insert(ReplicaId(replica), row);
        }
        Ok(Self { statements })
    }

    /// A replica's row; none when nothing was ever said of it.
    pub(crate) fn row(&self, replica: &ReplicaId) -> Option<Vec<u8>> {
        self.statements.get(replica).map(|statements| encode_row(statements))
    }

    /// Replicas of which anything was ever said.
    pub(crate) fn len(&self) -> usize {
        self.statements.len()
    }

    /// Replicas of which anything was ever said: members, and those that were.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &ReplicaId> {
        self.statements.keys()
    }

    /// Whether anything was ever said of a replica: it is a member, or was one.
    pub(crate) fn knows(&self, replica: &ReplicaId) -> bool {
        self.statements.contains_key(replica)
    }

    /// Whether a replica was ever allowed to write, so that it may have a lane.
    pub(crate) fn may_own_lane(&self, replica: &ReplicaId) -> bool {
        let statements = self.statements.get(replica);
        statements.is_some_and(|all| all.iter().any(|statement| statement.role >= Some(Role::Writer)))
    }

    /// Whether there is room for another statement about a replica.
    pub(crate) fn has_room_for(&self, replica: &ReplicaId) -> bool {
        self.statements.get(replica).is_none_or(|statements| statements.len() < MEMBER_STATEMENTS_MAX)
    }

    /// Who takes part. Of what was said about a replica, statements hold that nobody has replaced who saw them. Where
    /// one of those that hold removes it, it is no member; otherwise it has the least of the roles they give. Should
    /// that leave no admin, the one remains that [`last_admin`](Self::last_admin) names. O(statements).
    pub(crate) fn roles(&self, view: View<'_>) -> Sorted<ReplicaId, Role> {
        let mut roles = self.roles_as_said(view);
        if !roles.values().any(|role| *role == Role::Admin)
            && let Some(last) = self.last_admin(view)
        {
            roles.insert(last, Role::Admin);
        }
        roles
    }

    fn roles_as_said(&self, view: View<'_>) -> Sorted<ReplicaId, Role> {
        let role = |statements: &[Statement]| {
            let mut holding = holding(statements, view);
            let first = holding.next()?.role;
            holding.fold(first, |role, next| role.min(next.role))
        };
        self.statements.iter().filter_map(|(id, statements)| Some((*id, role(statements)?))).collect()
    }

    /// Who stays an admin when all have been removed: nobody removes the last one knowingly, so several removed each
    /// other at the same time. Of those whose removals came last, it is the one nearest to the founder; then the least
    /// id.
    fn last_admin(&self, view: View<'_>) -> Option<ReplicaId> {
        let fell = |(replica, statements): (&ReplicaId, &Vec<Statement>)| {
            let seen = statements.iter().filter(|statement| view.sees(&statement.place));
            let rank = seen.filter(|s| s.role == Some(Role::Admin)).map(|s| s.rank).min()?;
            let height = holding(statements, view).map(|statement| statement.height).max()?;
            Some((Reverse(height), rank, *replica))
        };
        self.statements.iter().filter_map(fell).min().map(|(_, _, replica)| replica)
    }

    /// The role that statements give a replica, without the rule for the last admin; none where they remove it or there
    /// are none.
    pub(crate) fn says(&self, replica: &ReplicaId) -> Option<Role> {
        self.roles_as_said(View::Everything).get(replica).copied()
    }

    /// Whether there is no admin but this one.
    pub(crate) fn is_last_admin(&self, replica: &ReplicaId) -> bool {
        let roles = self.roles(View::Everything);
        let mut admins = roles.iter().filter(|(_, role)| **role == Role::Admin);
        admins.all(|(admin, _)| admin == replica) && roles.contains_key(replica)
    }

    /// Takes in a statement, if it counts. Returns whether it does. O(statements).
    pub(crate) fn take(&mut self, said: &Said<'_>) -> bool {
        let view = View::Before(said.context, said.place);
        let roles = self.roles(view);
        let leaves = said.author == said.replica && said.role.is_none();
        match roles.get(said.author) {
            Some(Role::Admin) => {}
            Some(Role::Writer | Role::Follower) if leaves => {}
            Some(Role::Writer | Role::Follower) | None => return false,
        }
        let all = self.statements.values().flatten().filter(|statement| view.sees(&statement.place));
        let height = 1 + all.map(|statement| statement.height).max().unwrap_or(0);
        let rank = if said.role == Some(Role::Admin) { 1 + self.rank(said.author, view) } else { 0 };
        let statements = self.statements.get_or_insert_with(*said.replica, Vec::new);
        let Err(at) = statements.binary_search_by_key(&said.place, |statement| statement.place) else {
            return false;
        };
        let replaced = if canary!(RosterOfArrival) { View::Everything } else { view };
        let held: Vec<Place> = holding(statements, replaced).map(|statement| statement.place).collect();
        for statement in statements.iter_mut().filter(|statement| held.contains(&statement.place)) {
            let places = &mut statement.superseded_by;
            places.insert(places.partition_point(|place| *place < said.place), said.place);
        }
        let statement =
            Statement { place: said.place, role: said.role, height, rank, superseded_by: Vec::new() };
        statements.insert(at, statement);
        true
    }

    /// How far an admin is from the founder.
    fn rank(&self, replica: &ReplicaId, view: View<'_>) -> u64 {
        let statements = self.statements.get(replica).into_iter().flatten();
        let seen = statements.filter(|statement| view.sees(&statement.place));
        seen.filter(|s| s.role == Some(Role::Admin)).map(|s| s.rank).min().unwrap_or(0)
    }
}

impl Roster {
    /// A row read and written again: the same bytes, if it is one.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none.
    pub(crate) fn row_again(row: &[u8]) -> Result<Vec<u8>, DecodeError> {
        decode_row(row).map(|statements| encode_row(&statements))
    }
}

/// The statements that hold in somebody's view.
fn holding<'a>(statements: &'a [Statement], view: View<'a>) -> impl Iterator<Item = &'a Statement> {
    statements.iter().filter(move |statement| {
        view.sees(&statement.place) && !statement.superseded_by.iter().any(|place| view.sees(place))
    })
}

fn encode_row(statements: &[Statement]) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(statements.len() as u64);
    for statement in statements {
        encode_place(&statement.place, &mut out);
        out.u8(statement.role.map_or(REMOVED, |role| role as u8));
        out.varint(statement.height);
        out.varint(statement.rank);
        out.varint(statement.superseded_by.len() as u64);
        statement.superseded_by.iter().for_each(|place| encode_place(place, &mut out));
    }
    out.finish()
}

fn encode_place(place: &Place, out: &mut Writer) {
    out.bytes(&place.lane.0);
    out.varint(place.lsn);
    out.varint(u64::from(place.index));
}

fn decode_row(bytes: &[u8]) -> Result<Vec<Statement>, DecodeError> {
    let mut reader = Reader::new(bytes);
    // Written by this core only: as many as there were. Mostly that is one.
    let count = reader.count(usize::MAX, "statements about a member")?;
    let mut statements = Vec::with_capacity(count.min(1));
    for _ in 0..count {
        let place = decode_place(&mut reader)?;
        let role = match reader.u8("member role")? {
            REMOVED => None,
            tag => {
                let unknown = DecodeError::UnknownTag { what: "member role", tag: u64::from(tag) };
                Some(Role::from_tag(tag).ok_or(unknown)?)
            }
        };
        let (height, rank) = (reader.varint("statement height")?, reader.varint("admin rank")?);
        let mut superseded_by = Vec::new();
        for _ in 0..reader.count(usize::MAX, "statements that replace one")? {
            superseded_by.push(decode_place(&mut reader)?);
        }
        statements.push(Statement { place, role, height, rank, superseded_by });
    }
    reader.finish("member row")?;
    Ok(statements)
}

fn decode_place(reader: &mut Reader<'_>) -> Result<Place, DecodeError> {
    let lane = OriginId(reader.array("stating lane")?);
    let lsn = reader.varint("stating entry")?;
    let index = reader.varint_max(u64::from(u16::MAX), "stating operation")? as u16;
    Ok(Place { lane, lsn, index })
}
