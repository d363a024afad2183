//! Holding what replicas do against the truth, as they do it.

use comity_crdts::automerge::{ROOT, ReadDoc};
use comity_crdts::{Frontier, Kind, Nonce, OriginId, Policy, Value};
use comity_engine::{Applied, LaneSpan, LogRead, ReadError, StoreError};

use crate::clients::{COLLECTION, INNER, location, map_location, number, policy, siblings, value_of};
use crate::disk::{Appended, History};
use crate::oracle::{Oracle, Violation};
use crate::plan::Object;
use crate::reference::{Deed, Reference};
use crate::truth::{Counts, LaneTruth, Trailing, WriteRef, WriteTruth, covers};
use crate::world::World;

impl World {
    /// The write that an entry is, if it is known.
    pub(crate) fn known(&self, entry: &Appended) -> Option<(usize, WriteRef)> {
        let space = self.truth.space(&entry.space)?;
        let lane = *self.truth.spaces[space].numbers.get(&entry.lane)?;
        let index = usize::try_from(entry.lsn).ok()?.checked_sub(1)?;
        match self.truth.spaces[space].lanes[lane].entries.get(index) {
            Some((write, checksum)) if *checksum == entry.checksum => return Some((space, *write)),
            Some(_) | None => {}
        }
        let alternate = (space, lane, entry.lsn, entry.checksum);
        self.truth.alternates.get(&alternate).map(|write| (space, *write))
    }

    /// Which write an entry is that a call put in the log: a known one, or one that the call made. `O1`.
    pub(crate) fn identify(
        &mut self,
        node: usize,
        fresh: &Nonce,
        entry: &Appended,
        authored: &mut Option<(u32, Vec<Deed>)>,
        own: &mut Option<WriteRef>,
    ) -> Result<WriteRef, Violation> {
        let Some(space) = self.truth.space(&entry.space) else {
            return Err(self.violation(Oracle::Isolation, format!("replica {node} holds an unknown space")));
        };
        if !self.members[space].contains(&node) {
            return Err(
                self.violation(Oracle::Isolation, format!("replica {node} is no member of space {space}"))
            );
        }
        if let Some((_, write)) = self.known(entry) {
            let (lane, index) = (self.truth.write(write).lane, self.truth.write(write).lsn as usize - 1);
            let entries = &mut self.truth.spaces[space].lanes[lane].entries;
            match entries.get(index) {
                Some((made, _)) => self.truth.spaces[space].forked |= *made != write,
                // It was on its way when its author forgot it, and nothing else took its place.
                None => entries.push((write, entry.checksum)),
            }
            return Ok(write);
        }
        let replica = self.nodes[node].replica;
        let lane = match self.truth.spaces[space].numbers.get(&entry.lane) {
            Some(lane) => *lane,
            None if OriginId::derive(&entry.space, &replica, fresh) == entry.lane
                || self.truth.spaces[space].first == Some(entry.lane) =>
            {
                let truth = &mut self.truth.spaces[space];
                truth.numbers.insert(entry.lane, truth.lanes.len());
                let (id, owner, maker) = (entry.lane, replica, node);
                truth.lanes.push(LaneTruth { id, owner, maker, entries: Vec::new() });
                truth.lanes.len() - 1
            }
            None => {
                let detail = format!("replica {node} writes to lane {}, which nobody made", entry.lane);
                return Err(self.violation(Oracle::Uniqueness, detail));
            }
        };
        let length = self.truth.spaces[space].lanes[lane].entries.len() as u64;
        if self.truth.spaces[space].lanes[lane].owner != replica || entry.lsn > length + 1 {
            let detail =
                format!("replica {node} holds entry {} of a lane that its owner never made", entry.lsn);
            return Err(self.violation(Oracle::Uniqueness, detail));
        }
        let write = self.truth.writes.len() as WriteRef;
        if entry.lsn <= length {
            if !self.may_fork {
                let detail = format!("replica {node} made a second entry {} of its lane", entry.lsn);
                return Err(self.violation(Oracle::Uniqueness, detail));
            }
            self.truth.spaces[space].forked = true;
            self.truth.alternates.insert((space, lane, entry.lsn, entry.checksum), write);
        } else {
            self.truth.spaces[space].lanes[lane].entries.push((write, entry.checksum));
        }
        let asked = if entry.silent { None } else { authored.take() };
        if asked.is_some() {
            *own = Some(write);
        }
        let (event, deeds) = asked.map_or((None, Vec::new()), |(event, deeds)| (Some(event), deeds));
        let seen = self.nodes[node].held[space].applied.clone();
        let lsn = entry.lsn as u32;
        let (hlc, acknowledged, destroyed, silent) = (None, false, false, entry.silent);
        let made = WriteTruth { lane, lsn, seen, event, deeds, hlc, acknowledged, destroyed, silent };
        self.truth.writes.push(made);
        Ok(write)
    }

    /// A replica applies a write: in the order of its lane, and after everything its author had applied.
    pub(crate) fn judge_application(
        &mut self,
        node: usize,
        entry: &Appended,
        write: WriteRef,
    ) -> Result<(), Violation> {
        let Some(space) = self.truth.space(&entry.space) else { return Ok(()) };
        let (truth, held) = (self.truth.write(write), &self.nodes[node].held[space]);
        let expected = held.applied(truth.lane) + 1;
        if truth.lsn != expected {
            let detail =
                format!("replica {node} appends entry {} of a lane after {}", truth.lsn, expected - 1);
            return Err(self.violation(Oracle::Prefix, detail));
        }
        if !covers(&held.applied, &truth.seen) && !self.truth.spaces[space].forked {
            let detail = format!("replica {node} applies write {write} before what its author had seen");
            return Err(self.violation(Oracle::CausalDelivery, detail));
        }
        self.judge_reach(node, space, write)?;
        self.nodes[node].held[space].apply(entry.batch, write, &self.truth);
        Ok(())
    }

    /// A process lost writes before they were durable. Its own are as if they had never been made: nobody
    /// else may have them.
    pub(crate) fn unmake(&mut self, node: usize, space: usize, lost: &[WriteRef]) -> Result<(), Violation> {
        for write in lost {
            let (lane, lsn) = (self.truth.write(*write).lane, self.truth.write(*write).lsn);
            let elsewhere = self.nodes.iter().position(|other| other.held[space].applied(lane) >= lsn);
            let truth = &mut self.truth.spaces[space].lanes[lane];
            let index = lsn as usize - 1;
            // What was durable here before came back from others, after the data was replaced.
            let was_durable = self
                .truth
                .ever
                .get(&(space, truth.owner))
                .is_some_and(|ever| ever.get(lane).is_some_and(|count| *count >= lsn));
            if was_durable
                || truth.maker != node
                || truth.entries.get(index).is_none_or(|(made, _)| made != write)
            {
                continue;
            }
            truth.entries.truncate(index);
            if let Some(elsewhere) = elsewhere {
                let detail = format!(
                    "replica {elsewhere} holds write {write}, which {node} lost before it was durable"
                );
                return Err(self.violation(Oracle::Wire, detail));
            }
        }
        Ok(())
    }

    /// What is durable on a disk grew: readers see it from here on.
    pub(crate) fn harden(&mut self, node: usize) -> Result<(), Violation> {
        let synced = self.nodes[node].disk.synced();
        let mut shown = Vec::new();
        let mut batches = Vec::new();
        let replica = self.nodes[node].replica;
        for (space, held) in self.nodes[node].held.iter_mut().enumerate() {
            let hardened = held.harden(synced, &self.truth);
            batches.extend(hardened.into_iter().map(|trailing| (trailing.batch, space, trailing)));
            self.truth.note_ever(space, replica, &held.durable);
        }
        // Spaces share the log: announcements come in its order.
        batches.sort_by_key(|(batch, ..)| *batch);
        let writes: Vec<(usize, WriteRef)> =
            batches.iter().map(|(_, space, trailing)| (*space, trailing.write)).collect();
        for (_, space, Trailing { write, is_installed, .. }) in batches {
            if !self.truth.write(write).silent && !is_installed {
                self.nodes[node].announcements.push_back((space, write));
            }
            shown.extend(self.truth.write(write).deeds.iter().map(|deed| (space, deed.object())));
        }
        shown.sort_unstable();
        shown.dedup();
        let objects = shown.into_iter().filter(|(_, object)| !matches!(object, Object::Document(_)));
        for (space, object) in objects {
            let Err(violation) = self.compare(node, space, object) else { continue };
            for (_, write) in writes.iter().filter(|(of, _)| *of == space) {
                if self.is_torn(node, space, object, *write) {
                    let detail = format!("replica {node} shows write {write} without {}", name(object));
                    return Err(self.violation(Oracle::Atomicity, detail));
                }
            }
            return Err(violation);
        }
        Ok(())
    }

    /// Whether readers of a replica are told that the state is being replaced.
    pub(crate) fn is_installing(&self, node: usize, space: usize) -> bool {
        let view = self.nodes[node].disk.view();
        comity_engine::is_installing(view.as_ref(), &self.truth.ids[space]) == Ok(true)
    }

    /// What a frontier names of each lane.
    pub(crate) fn counts(&self, space: usize, frontier: &Frontier) -> Counts {
        let lanes = self.truth.spaces[space].lanes.iter();
        lanes.map(|lane| frontier.at(&lane.id) as u32).collect()
    }

    /// The lanes of a space moved to where a snapshot has them.
    pub(crate) fn note_flips(&mut self, node: usize, written: &History) {
        for flip in &written.flips {
            let Some(space) = self.truth.space(&flip.space) else { continue };
            let counts = self.counts(space, &flip.frontier);
            self.tally.installed += 1;
            self.nodes[node].held[space].flip(flip.batch, &counts, &self.truth, space);
        }
    }

    /// Entries were let go of, after all that was appended in the same call: an announcement may be the reason.
    pub(crate) fn note_dropped(&mut self, node: usize, written: &[LaneSpan]) -> Result<(), Violation> {
        for span in written {
            self.tally.dropped += span.count;
            self.judge_dropping(node, span)?;
        }
        Ok(())
    }

    /// A replica lets go of entries: the owners of all lanes that it holds must have applied them.
    fn judge_dropping(&self, node: usize, span: &LaneSpan) -> Result<(), Violation> {
        let Some(space) = self.truth.space(&span.space) else { return Ok(()) };
        let truth = &self.truth.spaces[space];
        let Some(lane) = truth.numbers.get(&span.lane).copied().filter(|_| !truth.forked) else {
            return Ok(());
        };
        let last = (span.first + span.count - 1) as u32;
        let held = &self.nodes[node].held[space];
        for (number, other) in truth.lanes.iter().enumerate().filter(|(number, _)| *number != lane) {
            let newest = (held.applied(number) as usize).checked_sub(1).and_then(|at| other.entries.get(at));
            let Some((newest, _)) = newest else { continue };
            let seen = self.truth.write(*newest).seen.get(lane).copied().unwrap_or(0);
            if seen < last {
                let detail = format!(
                    "replica {node} lets go of entry {last} of lane {lane}, of which {seen} are known to the owner of {number}"
                );
                return Err(self.violation(Oracle::Retention, detail));
            }
        }
        Ok(())
    }

    /// Whether an object looks as it must without a write that another object shows. `O12`.
    fn is_torn(&mut self, node: usize, space: usize, object: Object, write: WriteRef) -> bool {
        let objects: Vec<Object> = self.truth.write(write).deeds.iter().map(Deed::object).collect();
        if !objects.contains(&object) {
            return false;
        }
        let with = self.nodes[node].held[space].shown.clone();
        let mut without = Reference::default();
        let durable = &self.nodes[node].held[space].durable;
        let lanes = self.truth.spaces[space].lanes.iter().zip(durable);
        let mut others: Vec<WriteRef> = lanes
            .flat_map(|(lane, count)| lane.entries.iter().take(*count as usize).map(|(other, _)| *other))
            .filter(|other| *other != write)
            .collect();
        // In the order of their making, each comes after what its author had seen.
        others.sort_unstable();
        others.into_iter().for_each(|other| self.truth.show(&mut without, other));
        let shows = |world: &Self, object| matches!(world.difference(node, space, object), Ok(None));
        let whole: Vec<Object> =
            objects.into_iter().filter(|other| *other != object && shows(self, *other)).collect();
        self.nodes[node].held[space].shown = without;
        let is_torn = shows(self, object) && whole.iter().any(|other| !shows(self, *other));
        self.nodes[node].held[space].shown = with;
        is_torn
    }

    /// A core announces that a change set became visible.
    pub(crate) fn announced(&mut self, node: usize, applied: &Applied) -> Result<(), Violation> {
        let Some((space, write)) = self.nodes[node].announcements.pop_front() else {
            let detail = format!("replica {node} announces what did not become visible: {applied:?}");
            return Err(self.violation(Oracle::Events, detail));
        };
        let truth = self.truth.write(write);
        let lane = &self.truth.spaces[space].lanes[truth.lane];
        let mut objects: Vec<(String, String)> =
            applied.objects.iter().map(|o| (o.collection().to_owned(), o.key().to_owned())).collect();
        let mut expected: Vec<(String, String)> =
            truth.deeds.iter().map(|deed| (collection(deed.object()), name(deed.object()))).collect();
        objects.sort_unstable();
        expected.sort_unstable();
        expected.dedup();
        // An operation that changes nothing is left out.
        let objects_fit = truth.event.is_none()
            || objects.iter().all(|object| expected.contains(object)) && !objects.is_empty();
        if applied.space != self.truth.ids[space] || applied.author != lane.owner || !objects_fit {
            let detail =
                format!("replica {node} announces write {write} as {applied:?}, expected {expected:?}");
            return Err(self.violation(Oracle::Events, detail));
        }
        let earlier = lane.entries.get(..(truth.lsn as usize).saturating_sub(1)).unwrap_or_default();
        let before =
            earlier.iter().rev().map(|(write, _)| self.truth.write(*write)).find(|write| !write.silent);
        let before = before.and_then(|write| write.hlc);
        let is_later = before.is_none_or(|before| before < applied.hlc) || self.truth.spaces[space].forked;
        if !is_later || truth.hlc.is_some_and(|hlc| hlc != applied.hlc) {
            let detail = format!(
                "write {write} is stamped {:?} after {before:?}, before that {:?}",
                applied.hlc, truth.hlc
            );
            return Err(self.violation(Oracle::Clock, detail));
        }
        self.truth.writes[write as usize].hlc = Some(applied.hlc);
        Ok(())
    }

    /// Compares what readers of a replica see with what they must see.
    pub(crate) fn compare(&mut self, node: usize, space: usize, object: Object) -> Result<(), Violation> {
        let has_decayed = self.decayed.as_ref().is_some_and(|decayed| decayed.node == node);
        if self.truth.spaces[space].forked || self.is_installing(node, space) || has_decayed {
            return Ok(());
        }
        self.tally.comparisons += 1;
        match self.difference(node, space, object) {
            Ok(None) => Ok(()),
            Ok(Some((oracle, detail))) => {
                let detail = format!("replica {node}, space {space}, {}: {detail}", name(object));
                Err(self.violation(oracle, detail))
            }
            // It says so where it does not know what was done to it.
            Err(ReadError::Held { .. }) if self.plan.builds.is_some() => Ok(()),
            // After a failed sync nothing can be read until the store is opened again.
            Err(ReadError::Store(StoreError::Poisoned)) => Ok(()),
            Err(error) => {
                Err(self.violation(Oracle::Robustness, format!("replica {node} cannot read: {error}")))
            }
        }
    }

    fn difference(
        &self,
        node: usize,
        space: usize,
        object: Object,
    ) -> Result<Option<(Oracle, String)>, ReadError> {
        let (view, id) = (self.nodes[node].disk.view(), &self.truth.ids[space]);
        let view = view.as_ref();
        let (shown, key) = (&self.nodes[node].held[space].shown, name(object));
        Ok(match object {
            Object::Counter(counter) => {
                let (is, must) =
                    (comity_engine::counter(view, id, COLLECTION, &key)?, shown.counter(counter));
                (is != must).then(|| (Oracle::Counters, format!("{is} instead of {must}")))
            }
            Object::Element(set, element) => {
                let value = Value::I64(element.into());
                let is = comity_engine::set_contains(view, id, (COLLECTION, &key), &value)?;
                let length = comity_engine::set_len(view, id, COLLECTION, &key)?;
                let (must, elements) = (shown.contains(set, element), shown.elements(set) as u64);
                let differs = is != must || length != elements;
                let detail = || format!("{element}: {is} of {length} instead of {must} of {elements}");
                differs.then(|| (Oracle::Absence, detail()))
            }
            Object::Register(register) => {
                let mut is = siblings(view, id, register)?;
                let must = shown.siblings(register).iter();
                let mut must: Vec<i64> = must.map(|(write, index)| self.value(*write, *index)).collect();
                is.sort_unstable();
                must.sort_unstable();
                (is != must).then(|| (Oracle::Siblings, format!("{is:?} instead of {must:?}")))
            }
            Object::Document(document) => self.document_difference(view, node, space, document)?,
            Object::Flag(flag) => {
                let at = location(Kind::Flag, &key)?;
                let (is, must) = (comity_engine::flag_at(view, id, &at)?, shown.is_enabled(flag));
                (is != must).then(|| (Oracle::Absence, format!("{is} instead of {must}")))
            }
            Object::DwFlag(flag) => {
                let at = location(Kind::DwFlag, &key)?;
                let (is, must) = (comity_engine::flag_at(view, id, &at)?, shown.is_permitted(flag));
                (is != must).then(|| (Oracle::Strict, format!("{is} instead of {must}")))
            }
            Object::RwElement(set, element) => {
                let at = location(Kind::RwSet, &key)?;
                let is = comity_engine::set_contains_at(view, id, &at, &Value::I64(element.into()))?;
                let length = comity_engine::set_len_at(view, id, &at)?;
                let (must, elements) = (shown.is_admitted(set, element), shown.admitted(set) as u64);
                let detail = || format!("{element}: {is} of {length} instead of {must} of {elements}");
                (is != must || length != elements).then(|| (Oracle::Strict, detail()))
            }
            Object::Key(map, field) => self.field_difference(view, node, space, (map, field))?,
            Object::Bounded(bounded) => {
                let is = comity_engine::bounded_counter(view, id, COLLECTION, &key)?.value();
                let must = shown.bounded(bounded);
                let detail = || format!("{is} instead of {must}, and never below 0");
                (is != must || is < 0).then(|| (Oracle::Bounded, detail()))
            }
            Object::Policy => {
                let is = comity_engine::policy_of(view, id, COLLECTION)?;
                let must: Vec<Policy> = shown.policies().into_iter().map(policy).collect();
                (!(must.contains(&is) || must.is_empty() && is == Policy::default()))
                    .then(|| (Oracle::Convergence, format!("{is} instead of one of {must:?}")))
            }
        })
    }

    /// Compares what a map holds under a key: a counter, a map with a register, a set.
    fn field_difference(
        &self,
        view: &dyn LogRead,
        node: usize,
        space: usize,
        (map, field): (u16, u16),
    ) -> Result<Option<(Oracle, String)>, ReadError> {
        let id = &self.truth.ids[space];
        let shown = &self.nodes[node].held[space].shown;
        let (must, fields) = (shown.nested(map, field), shown.fields(map) as u64);
        let (top, at) = (map_location(map, &[])?, map_location(map, &[&field.to_string()])?);
        let inner = map_location(map, &[&field.to_string(), INNER])?;
        let total = comity_engine::counter_at(view, id, &at)?;
        let register = comity_engine::register_at(view, id, &inner)?;
        let mut values: Vec<i64> = register.siblings().map(|(_, sibling)| number(&sibling.value)).collect();
        let elements = comity_engine::set_elements_at(view, id, &at, None, usize::MAX)?;
        let elements: Vec<u16> = elements.iter().map(|element| number(element) as u16).collect();
        let mut expected: Vec<i64> =
            must.values().iter().map(|(write, index)| self.value(*write, *index)).collect();
        values.sort_unstable();
        expected.sort_unstable();
        let length = comity_engine::map_len(view, id, &top)?;
        let is = (total, values, elements, length);
        let must = (must.total(), expected, must.elements(), fields);
        Ok((is != must).then(|| (Oracle::Maps, format!("{is:?} instead of {must:?}"))))
    }

    /// Compares a document with the edits that are visible: each has a key of its own, and the shared key
    /// holds the values that no other edit has seen.
    fn document_difference(
        &self,
        view: &dyn LogRead,
        node: usize,
        space: usize,
        document: u16,
    ) -> Result<Option<(Oracle, String)>, ReadError> {
        let key = name(Object::Document(document));
        let is = comity_engine::document(view, &self.truth.ids[space], COLLECTION, &key)?;
        let is = is.automerge();
        let (all, last) = self.nodes[node].held[space].shown.edits(document);
        let keys = all.len() + usize::from(!all.is_empty());
        if is.length(ROOT) != keys {
            let detail = format!("{} keys instead of {keys}", is.length(ROOT));
            return Ok(Some((Oracle::Absence, detail)));
        }
        for (write, index) in all {
            let value = self.value(*write, *index);
            if !matches!(is.get(ROOT, format!("key-{value}")), Ok(Some((found, _))) if found.as_i64() == Some(value))
            {
                return Ok(Some((Oracle::Absence, format!("key-{value} is missing"))));
            }
        }
        let shared = is.get_all(ROOT, "last").unwrap_or_default();
        let mut shared: Vec<i64> = shared.iter().filter_map(|(value, _)| value.as_i64()).collect();
        let mut must: Vec<i64> = last.iter().map(|(write, index)| self.value(*write, *index)).collect();
        shared.sort_unstable();
        must.sort_unstable();
        Ok((shared != must).then(|| (Oracle::Siblings, format!("{shared:?} instead of {must:?}"))))
    }

    /// The value that an operation wrote.
    pub(crate) fn value(&self, write: WriteRef, index: u8) -> i64 {
        self.truth.write(write).event.map_or(-1, |event| value_of(event, index))
    }
}

/// The key of an object.
pub(crate) fn name(object: Object) -> String {
    match object {
        Object::Counter(counter) => format!("counter-{counter}"),
        Object::Element(set, _) => format!("set-{set}"),
        Object::Register(register) => format!("register-{register}"),
        Object::Document(document) => format!("document-{document}"),
        Object::Flag(flag) => format!("flag-{flag}"),
        Object::DwFlag(flag) => format!("permit-{flag}"),
        Object::RwElement(set, _) => format!("club-{set}"),
        Object::Key(map, _) => format!("map-{map}"),
        Object::Bounded(bounded) => format!("stock-{bounded}"),
        Object::Policy => COLLECTION.to_owned(),
    }
}

/// The collection it is in.
fn collection(object: Object) -> String {
    if object == Object::Policy { "policy".to_owned() } else { COLLECTION.to_owned() }
}
