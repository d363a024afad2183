//! Clients: what they ask for, what they are told, and what they must then see.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::{AddressError, Dot, Frontier, Kind, ObjectAddress, Policy, Value};
use comity_engine::{
    Acknowledgement, Command, CommandError, Durability, Input, Location, Reply, RequestId, StateRead,
    TransactError, Tx, TxError, WriteOptions,
};

use crate::node::{SetAside, Waiting};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Effect, Event, Object, Write};
use crate::promises::id_of;
use crate::random::mix;
use crate::reference::{Deed, Mark};
use crate::truth::{Counts, WriteRef, covers, merge};
use crate::world::{Happening, World};

/// How long clients wait for other replicas.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// The collection that holds everything.
pub(crate) const COLLECTION: &str = "things";

/// What one client has seen of one space.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// What it saw or wrote.
    pub(crate) seen: Counts,
    /// The same, as replicas told it.
    pub(crate) token: Frontier,
}

/// The value that an operation writes.
pub(crate) fn value_of(event: u32, index: u8) -> i64 {
    i64::from(event) << 8 | i64::from(index)
}

/// What a transaction came to.
#[derive(Default)]
struct Performed {
    deeds: Vec<Deed>,
    /// Values of registers that it removed where there were two or more.
    set_aside: Vec<i64>,
    /// A bounded counter that it may not lower by so much.
    wanted: Option<(u16, u16)>,
}

/// Where a write replaces what readers saw: the dots, and the same as the truth names them.
type Views = BTreeMap<u16, (Vec<Dot>, Vec<Mark>)>;

impl World {
    /// A client comes with an event: it presents its token first, if it has one.
    pub(crate) fn client(&mut self, event: usize) -> Result<(), Violation> {
        let (session, node, space) = match &self.plan.events[event].event {
            Event::Write(write) => (write.session, write.node, write.space),
            Event::Read(read) => (read.session, read.node, read.space),
            Event::Fault(_) => return Ok(()),
        };
        if node >= self.nodes.len() || !self.members[space].contains(&node) || !self.nodes[node].is_up() {
            self.tally.refused += 1;
            return Ok(());
        }
        if self.nodes[node].paused_until > self.now {
            self.tally.refused += 1;
            return Ok(());
        }
        let operation = match &self.plan.events[event].event {
            Event::Write(write) => write.operation,
            Event::Read(_) | Event::Fault(_) => None,
        };
        let Some(presented) = self.presented(node, operation) else {
            self.tally.refused += 1;
            return Ok(());
        };
        let client = session.and_then(|session| self.clients.get(&(session, space)));
        let (own, seen) =
            client.map_or_else(Default::default, |client| (client.token.clone(), client.seen.clone()));
        let token = self.token(space, own, &presented);
        if token.frontier.is_empty() {
            return self.go_on_fresh(event, node, space);
        }
        let request = RequestId(self.request(node, Waiting::Token { event, seen }));
        let command = Command::AwaitToken { token, within: PATIENCE };
        self.input(node, Input::Command { request, command })
    }

    /// The client's token is reached, or it has none. `seen` is what the token stands for.
    pub(crate) fn resume(&mut self, event: usize, node: usize, seen: &Counts) -> Result<(), Violation> {
        match self.plan.events[event].event.clone() {
            Event::Write(write) if self.plan.throttle.is_some() => self.await_room(event, node, write.space),
            Event::Write(write) => self.write(event, node, &write),
            Event::Read(read) if self.is_installing(node, read.space) => {
                self.tally.refused += 1;
                Ok(())
            }
            Event::Read(read) => {
                self.tally.operations += 1;
                if self.plan.events[event].id.is_multiple_of(8) {
                    self.check_lag(node, read.space)?;
                }
                let held = &self.nodes[node].held[read.space].durable;
                if let Some(session) = read.session {
                    let client = self.clients.entry((session, read.space)).or_default();
                    let durable = held.clone();
                    if !covers(&durable, seen) && !self.truth.spaces[read.space].forked {
                        let detail = format!("client {session} sees less at replica {node} than before");
                        return Err(self.violation(Oracle::Sessions, detail));
                    }
                    merge(&mut client.seen, &durable);
                    let lanes = &self.truth.spaces[read.space].lanes;
                    for (lane, count) in durable.iter().enumerate().filter(|(_, count)| **count > 0) {
                        client.token.advance(lanes[lane].id, u64::from(*count));
                    }
                }
                read.objects.iter().try_for_each(|object| self.compare(node, read.space, *object))
            }
            Event::Fault(_) => Ok(()),
        }
    }

    /// A writer may write, if nobody took the room in the meantime.
    pub(crate) fn write_in_room(&mut self, event: usize, node: usize) -> Result<(), Violation> {
        match self.plan.events[event].event.clone() {
            Event::Write(write) => self.write(event, node, &write),
            Event::Read(_) | Event::Fault(_) => Ok(()),
        }
    }

    fn write(&mut self, event: usize, node: usize, write: &Write) -> Result<(), Violation> {
        let (id, space) = (self.plan.events[event].id, self.truth.ids[write.space]);
        let (views, is_future) = (self.views(node, write), self.speaks_of_the_future(id));
        let request = self.request(node, Waiting::Write { write: None, event });
        let durability = match write.remote {
            0 if write.quorum => Durability::Quorum,
            0 => Durability::Local,
            remote => Durability::Remote(remote),
        };
        let operation = write.operation.map(id_of);
        let options = WriteOptions { request: RequestId(request), durability, within: PATIENCE, operation };
        self.try_operation(node, write);
        let mut performed = Performed::default();
        let called = self.call(node, |engine, now, store| {
            let body = |tx: &mut Tx<'_>| {
                if is_future {
                    tx.speak_of_the_future();
                }
                perform(tx, id, write, &views, &mut performed)
            };
            match engine.transact::<_, TxError>(now, space, options, store, body) {
                Ok(()) => Ok(true),
                Err(TransactError::Duplicate) => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        })?;
        let Some((result, fresh)) = called else { return Ok(()) };
        let authored = (result == Ok(true)).then_some((id, performed.deeds));
        let own = self.note_appended(node, &fresh, authored)?;
        match result {
            Ok(false) => {
                self.tally.operations += 1;
                self.tally.repeated += 1;
                let write = self.note_repeated(node, write)?;
                self.nodes[node].waiting.insert(request, Waiting::Write { write, event });
            }
            Ok(true) => {
                self.note_made(node, write, own)?;
                self.tally.operations += 1;
                self.tally.writes += 1;
                self.nodes[node].waiting.insert(request, Waiting::Write { write: own, event });
                if let Some(write_ref) = own.filter(|_| !performed.set_aside.is_empty()) {
                    let (space, values) = (write.space, performed.set_aside);
                    self.nodes[node].set_aside.push(SetAside { space, write: write_ref, values });
                }
            }
            Err(error) => {
                self.trace = mix(self.trace, error.as_bytes());
                self.tally.refused += 1;
                self.nodes[node].waiting.remove(&request);
            }
        }
        self.drain(node)?;
        let Some((bounded, amount)) = performed.wanted else { return Ok(()) };
        let request = RequestId(self.request(node, Waiting::Nothing));
        let (collection, key) = (COLLECTION.to_owned(), crate::judge::name(Object::Bounded(bounded)));
        let (amount, within) = (amount.into(), PATIENCE);
        let command = Command::AcquireRights { space, collection, key, amount, within };
        self.input(node, Input::Command { request, command })
    }

    /// What readers see of the registers that a write resolves.
    fn views(&self, node: usize, write: &Write) -> Views {
        let mut views = Views::new();
        let shown = &self.nodes[node].held[write.space].shown;
        for effect in &write.effects {
            if let Effect::Resolve { register } = *effect {
                let view = self.nodes[node].disk.view();
                let key = format!("register-{register}");
                let read =
                    comity_engine::register(view.as_ref(), &self.truth.ids[write.space], COLLECTION, &key);
                // Who cannot read it has seen nothing.
                let marks = if read.is_ok() { shown.siblings(register).to_vec() } else { Vec::new() };
                let dots = read.map(|register| register.dots()).unwrap_or_default();
                views.insert(register, (dots, marks));
            }
        }
        views
    }

    /// A core answers.
    pub(crate) fn replied(
        &mut self,
        node: usize,
        request: u64,
        reply: Result<Reply, CommandError>,
    ) -> Result<(), Violation> {
        let Some(waiting) = self.waiting(node, request) else {
            let detail = format!("replica {node} answers request {request} twice, or nobody");
            return Err(self.violation(Oracle::Robustness, detail));
        };
        self.tell(|| format!("{node} answers {waiting:?} with {reply:?}"));
        match (waiting, reply) {
            (Waiting::Write { write, event }, Ok(Reply::Acknowledged(acknowledgement))) => {
                self.acknowledged(node, write, event, &acknowledgement)
            }
            (Waiting::Token { event, seen }, Ok(Reply::Reached)) => {
                let boot = self.nodes[node].boot;
                self.at(self.now, Happening::Resume { event, node, boot, seen });
                Ok(())
            }
            (Waiting::Fresh { event, before }, Ok(Reply::Reached)) => self.is_fresh(event, node, &before),
            (Waiting::Room { event }, Ok(Reply::Room)) => {
                let boot = self.nodes[node].boot;
                self.at(self.now, Happening::Room { event, node, boot });
                Ok(())
            }
            (Waiting::Room { .. }, Err(error)) => self.held_up(node, &error),
            (Waiting::Space, Ok(Reply::SpaceCreated(space))) => {
                self.founded(node, space);
                Ok(())
            }
            (Waiting::Invitation { enrolment }, Ok(Reply::Invited(secret))) => {
                self.invited(enrolment, secret)
            }
            (Waiting::Token { .. } | Waiting::Write { .. } | Waiting::Fresh { .. }, Err(_)) => {
                self.tally.refused += 1;
                Ok(())
            }
            (_, Err(_)) | (Waiting::Nothing, Ok(_)) => Ok(()),
            (waiting, Ok(reply)) => {
                let detail = format!("replica {node} answers {waiting:?} with {reply:?}");
                Err(self.violation(Oracle::Robustness, detail))
            }
        }
    }

    /// A write was acknowledged: it must be as durable as that says.
    fn acknowledged(
        &mut self,
        node: usize,
        write: Option<WriteRef>,
        event: usize,
        acknowledgement: &Acknowledgement,
    ) -> Result<(), Violation> {
        self.tally.acknowledged += 1;
        let Event::Write(planned) = self.plan.events[event].event.clone() else { return Ok(()) };
        let (space, session) = (planned.space, planned.session);
        self.told(&planned, acknowledgement);
        let Some(write) = write else { return Ok(()) };
        let truth = self.truth.write(write);
        let (lane, lsn) = (truth.lane, truth.lsn);
        let has = |of: usize| self.nodes[of].held[space].durable(lane) >= lsn;
        if !has(node) {
            let detail = format!("replica {node} acknowledged write {write}, which is not durable there");
            return Err(self.violation(Oracle::Acknowledgement, detail));
        }
        let own = self.nodes[node].replica;
        let others = self.truth.ever.iter().filter(|((of, replica), counts)| {
            *of == space && *replica != own && counts.get(lane).is_some_and(|count| *count >= lsn)
        });
        let (copies, claimed, needed) = (others.count(), acknowledgement.remote, planned.remote);
        if copies < claimed as usize && !self.may_lie {
            let detail = format!("write {write} is said to be at {claimed} others, and is at {copies}");
            return Err(self.violation(Oracle::Acknowledgement, detail));
        }
        if acknowledgement.reached && claimed < needed {
            let detail = format!("write {write} of replica {node} was to be at {needed} others");
            return Err(self.violation(Oracle::Acknowledgement, detail));
        }
        if planned.quorum {
            self.check_quorum(node, (write, space), acknowledgement)?;
        }
        let mut seen = truth.seen.clone();
        seen.resize(seen.len().max(lane + 1), 0);
        seen[lane] = lsn;
        self.truth.writes[write as usize].acknowledged = true;
        if let Some(session) = session {
            let client = self.clients.entry((session, space)).or_default();
            merge(&mut client.seen, &seen);
            client.token.merge(&acknowledgement.token.frontier);
        }
        Ok(())
    }
}

fn value(number: i64) -> Value {
    Value::I64(number)
}

pub(crate) fn number(value: &Value) -> i64 {
    match value {
        Value::I64(number) => *number,
        _ => -1,
    }
}

/// The values of a register.
pub(crate) fn siblings(
    read: &dyn StateRead,
    space: &comity_crdts::SpaceId,
    register: u16,
) -> Result<Vec<i64>, comity_engine::ReadError> {
    let register = comity_engine::register(read, space, COLLECTION, &format!("register-{register}"))?;
    Ok(register.siblings().map(|(_, sibling)| number(&sibling.value)).collect())
}

fn perform(
    tx: &mut Tx<'_>,
    id: u32,
    write: &Write,
    views: &Views,
    performed: &mut Performed,
) -> Result<(), TxError> {
    for effect in &write.effects {
        let own = value_of(id, performed.deeds.len() as u8);
        let mut deed = Deed::from(*effect);
        let is_edited = match *effect {
            Effect::Discard { .. } => {
                let key = crate::judge::name(effect.object());
                !comity_engine::document_heads(tx.state(), &tx.space(), COLLECTION, &key)?.is_empty()
            }
            _ => false,
        };
        let done = match *effect {
            Effect::Resolve { register } => {
                let (dots, marks) = views.get(&register).cloned().unwrap_or_default();
                note_set_aside(tx, register, Some(&dots), performed);
                deed.over = marks;
                tx.register_resolve(COLLECTION, &format!("register-{register}"), value(own), &dots)
            }
            Effect::Assign { register } => {
                note_set_aside(tx, register, None, performed);
                tx.register_write(COLLECTION, &format!("register-{register}"), value(own))
            }
            Effect::Clear { register } => {
                note_set_aside(tx, register, None, performed);
                tx.register_clear(COLLECTION, &format!("register-{register}"))
            }
            effect => perform_one(tx, own, effect),
        };
        match done {
            // Nothing is removed where nothing is.
            Ok(()) if matches!(effect, Effect::Discard { .. }) && !is_edited => {}
            Ok(()) => performed.deeds.push(deed),
            // What is refused for good reason changes nothing, and the transaction goes on.
            Err(TxError::Unconfirmed { .. } | TxError::Held { .. }) => {}
            Err(TxError::Bounded { .. }) => {
                if let Effect::Lower { bounded, amount } = *effect {
                    performed.wanted = Some((bounded, amount));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn perform_one(tx: &mut Tx<'_>, own: i64, effect: Effect) -> Result<(), TxError> {
    let element_of = |element: u16| value(element.into());
    let key = crate::judge::name(effect.object());
    match effect {
        Effect::Add { delta, .. } => tx.counter_add(COLLECTION, &key, delta.into()),
        Effect::Reset { .. } => tx.remove_at(&location(Kind::Counter, &key)?),
        Effect::Insert { element, .. } => tx.set_add(COLLECTION, &key, element_of(element)),
        Effect::Remove { element, .. } => tx.set_remove(COLLECTION, &key, element_of(element)),
        Effect::Empty { .. } => tx.remove_at(&location(Kind::Set, &key)?),
        Effect::Edit { .. } => {
            use comity_crdts::automerge::ROOT;
            use comity_crdts::automerge::transaction::{Transactable, Transaction};
            let put = |edit: &mut Transaction<'_>| {
                let put =
                    edit.put(ROOT, format!("key-{own}"), own).and_then(|()| edit.put(ROOT, "last", own));
                put.expect("the root of a document is a map");
                Ok(())
            };
            // The two differ in what the change names that it depends on.
            let heads = comity_engine::document_heads(tx.state(), &tx.space(), COLLECTION, &key)?;
            if own % 2 == 0 && !heads.is_empty() {
                tx.document_edit_at(COLLECTION, &key, &heads, put)
            } else {
                tx.document_edit(COLLECTION, &key, put)
            }
        }
        Effect::Discard { .. } => tx.remove_at(&location(Kind::Document, &key)?),
        Effect::Enable { .. } => tx.flag_enable_at(&location(Kind::Flag, &key)?),
        Effect::Disable { .. } => tx.flag_disable_at(&location(Kind::Flag, &key)?),
        Effect::Permit { .. } => tx.dw_flag_enable_at(&location(Kind::DwFlag, &key)?),
        Effect::Forbid { .. } => tx.dw_flag_disable_at(&location(Kind::DwFlag, &key)?),
        Effect::Admit { element, .. } => tx.rw_set_add_at(&location(Kind::RwSet, &key)?, element_of(element)),
        Effect::Ban { element, .. } => {
            tx.rw_set_remove_at(&location(Kind::RwSet, &key)?, element_of(element))
        }
        Effect::Raise { amount, .. } => {
            tx.bounded_increment_at(&location(Kind::BoundedCounter, &key)?, amount.into())
        }
        Effect::Lower { amount, .. } => {
            tx.bounded_decrement_at(&location(Kind::BoundedCounter, &key)?, amount.into())
        }
        Effect::Rule { policy: number } => tx.set_policy(COLLECTION, &policy(number)),
        within => perform_within(tx, own, within),
    }
}

fn perform_within(tx: &mut Tx<'_>, own: i64, effect: Effect) -> Result<(), TxError> {
    match effect {
        Effect::AddWithin { map, key, delta } => {
            tx.counter_add_at(&map_location(map, &[&key.to_string()])?, delta.into())
        }
        Effect::AssignWithin { map, key } => {
            tx.register_write_at(&map_location(map, &[&key.to_string(), INNER])?, value(own))
        }
        Effect::InsertWithin { map, key, element } => {
            tx.set_add_at(&map_location(map, &[&key.to_string()])?, value(element.into()))
        }
        Effect::RemoveWithin { map, key, element } => {
            tx.set_remove_at(&map_location(map, &[&key.to_string()])?, value(element.into()))
        }
        Effect::Drop { map, key } => tx.remove_at(&map_location(map, &[&key.to_string()])?),
        effect => unreachable!("{effect:?} is done elsewhere"),
    }
}

/// The key of the register in the map under each key of a map.
pub(crate) const INNER: &str = "inner";

/// Where an object is.
pub(crate) fn location(kind: Kind, key: &str) -> Result<Location, AddressError> {
    Ok(ObjectAddress::new(kind, COLLECTION, key)?.into())
}

/// Where something in a map is.
pub(crate) fn map_location(map: u16, path: &[&str]) -> Result<Location, AddressError> {
    let mut at = location(Kind::Map, &format!("map-{map}"))?;
    at.path = path.iter().map(|key| (*key).to_owned()).collect();
    Ok(at)
}

/// The policy with this number.
pub(crate) fn policy(number: u16) -> Policy {
    match number {
        0 => Policy::Lww,
        1 => Policy::Siblings,
        2 => Policy::Union,
        3 => Policy::Max,
        _ => Policy::First,
    }
}

/// Notes the values that an operation is about to remove, if there are several.
fn note_set_aside(tx: &Tx<'_>, register: u16, only: Option<&[Dot]>, performed: &mut Performed) {
    let key = format!("register-{register}");
    let Ok(register) = comity_engine::register(tx.state(), &tx.space(), COLLECTION, &key) else { return };
    let removed = register.siblings().filter(|(dot, _)| only.is_none_or(|only| only.contains(dot)));
    let values: Vec<i64> = removed.map(|(_, sibling)| number(&sibling.value)).collect();
    if register.len() >= 2 {
        performed.set_aside.extend(values);
    }
}
