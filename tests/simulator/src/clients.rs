//! Clients: what they ask for, what they are told, and what they must then see.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_crdts::{Dot, Frontier, Value};
use comity_engine::{
    Acknowledgement, Command, CommandError, Durability, Input, Reply, RequestId, StateRead, Token, Tx,
    TxError, WriteOptions,
};

use crate::node::{SetAside, Waiting};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Effect, Event, Write};
use crate::random::mix;
use crate::reference::{Deed, Mark};
use crate::truth::{Counts, WriteRef, covers, merge};
use crate::world::{Happening, World};

/// How long clients wait for other replicas.
const PATIENCE: Duration = Duration::from_secs(2);
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
    /// Values of registers that it removed two or more at a time.
    set_aside: Vec<i64>,
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
        let client = session.and_then(|session| self.clients.get(&(session, space)));
        let Some(client) = client.filter(|client| !client.token.is_empty()) else {
            return self.resume(event, node, &Counts::new());
        };
        let token = Token { space: self.truth.ids[space], frontier: client.token.clone() };
        let seen = client.seen.clone();
        let request = RequestId(self.request(node, Waiting::Token { event, seen }));
        let command = Command::AwaitToken { token, within: PATIENCE };
        self.input(node, Input::Command { request, command })
    }

    /// The client's token is reached, or it has none. `seen` is what the token stands for.
    pub(crate) fn resume(&mut self, event: usize, node: usize, seen: &Counts) -> Result<(), Violation> {
        match self.plan.events[event].event.clone() {
            Event::Write(write) => self.write(event, node, &write),
            Event::Read(read) => {
                self.tally.operations += 1;
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

    fn write(&mut self, event: usize, node: usize, write: &Write) -> Result<(), Violation> {
        let (id, space) = (self.plan.events[event].id, self.truth.ids[write.space]);
        let views = self.views(node, write);
        let request = self.request(node, Waiting::Write { write: None, event });
        let durability = if write.remote == 0 { Durability::Local } else { Durability::Remote(write.remote) };
        let options = WriteOptions { request: RequestId(request), durability, within: PATIENCE };
        let mut performed = Performed::default();
        let called = self.call(node, |engine, now, store| {
            let body = |tx: &mut Tx<'_>| perform(tx, id, write, &views, &mut performed);
            engine.transact::<_, TxError>(now, space, options, store, body).map_err(|error| error.to_string())
        })?;
        let Some((result, fresh)) = called else { return Ok(()) };
        let authored = result.is_ok().then_some((id, performed.deeds));
        let own = self.note_appended(node, &fresh, authored)?;
        match result {
            Ok(()) => {
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
        self.drain(node)
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
                let dots = read.map(|register| register.dots()).unwrap_or_default();
                views.insert(register, (dots, shown.siblings(register).to_vec()));
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
            (Waiting::Space, Ok(Reply::SpaceCreated(space))) => {
                self.founded(node, space);
                Ok(())
            }
            (Waiting::Invitation { enrolment }, Ok(Reply::Invited(secret))) => {
                self.invited(enrolment, secret)
            }
            (Waiting::Token { .. } | Waiting::Write { .. }, Err(_)) => {
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
        let Event::Write(planned) = &self.plan.events[event].event else { return Ok(()) };
        let (space, session) = (planned.space, planned.session);
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

fn number(value: &Value) -> i64 {
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
    for (index, effect) in (0..).zip(&write.effects) {
        let own = value_of(id, index);
        let deed = match *effect {
            Effect::Add { counter, delta } => {
                tx.counter_add(COLLECTION, &format!("counter-{counter}"), delta.into())?;
                Deed::Add { counter, delta }
            }
            Effect::Insert { set, element } => {
                tx.set_add(COLLECTION, &format!("set-{set}"), value(element.into()))?;
                Deed::Insert { set, element }
            }
            Effect::Remove { set, element } => {
                tx.set_remove(COLLECTION, &format!("set-{set}"), value(element.into()))?;
                Deed::Remove { set, element }
            }
            Effect::Assign { register } => {
                note_set_aside(tx, register, None, performed);
                tx.register_write(COLLECTION, &format!("register-{register}"), value(own))?;
                Deed::Assign { register }
            }
            Effect::Resolve { register } => {
                let (dots, marks) = views.get(&register).cloned().unwrap_or_default();
                note_set_aside(tx, register, Some(&dots), performed);
                tx.register_resolve(COLLECTION, &format!("register-{register}"), value(own), &dots)?;
                Deed::Resolve { register, over: marks }
            }
            Effect::Clear { register } => {
                note_set_aside(tx, register, None, performed);
                tx.register_clear(COLLECTION, &format!("register-{register}"))?;
                Deed::Clear { register }
            }
            Effect::Edit { document } => {
                use comity_crdts::automerge::{ROOT, transaction::Transactable};
                tx.document_edit::<(), TxError>(COLLECTION, &format!("document-{document}"), |edit| {
                    let put =
                        edit.put(ROOT, format!("key-{own}"), own).and_then(|()| edit.put(ROOT, "last", own));
                    put.expect("the root of a document is a map");
                    Ok(())
                })?;
                Deed::Edit { document }
            }
        };
        performed.deeds.push(deed);
    }
    Ok(())
}

/// Notes the values that an operation is about to remove, if there are several.
fn note_set_aside(tx: &Tx<'_>, register: u16, only: Option<&[Dot]>, performed: &mut Performed) {
    let key = format!("register-{register}");
    let Ok(register) = comity_engine::register(tx.state(), &tx.space(), COLLECTION, &key) else { return };
    let removed = register.siblings().filter(|(dot, _)| only.is_none_or(|only| only.contains(dot)));
    let values: Vec<i64> = removed.map(|(_, sibling)| number(&sibling.value)).collect();
    if values.len() >= 2 {
        performed.set_aside.extend(values);
    }
}
