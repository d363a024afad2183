//! Both stores do what one simple model says, whatever the order of commits, syncs, crashes and reads.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use comity_crdts::{OriginId, SpaceId};
use comity_engine::{Batch, LaneRecord, LaneSpan, LogRead, Position, Put, Row, StateRead, Store};
use comity_store::{EmbeddedStore, MemoryStore, Opened, StoreOptions};
use proptest::prelude::*;

const SPACE: SpaceId = SpaceId([9; 16]);

/// What a store must hold.
#[derive(Clone, Default)]
struct Model {
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    log: BTreeMap<(OriginId, u64), Vec<u8>>,
}

impl Model {
    fn apply(&mut self, batch: &Batch) {
        for entry in &batch.entries {
            self.log.insert((entry.lane, entry.lsn), entry.bytes.clone());
        }
        for span in &batch.dropped {
            self.log.retain(|(lane, lsn), _| {
                *lane != span.lane || !(span.first..span.first + span.count).contains(lsn)
            });
        }
        for (key, value) in batch.facts.iter().chain(&batch.state) {
            match value {
                Some(value) => drop(self.state.insert(key.clone(), value.clone())),
                None => drop(self.state.remove(key)),
            }
        }
    }

    fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Vec<Row> {
        let inside = self.state.iter().filter(|(key, _)| from <= key.as_slice() && key.as_slice() < until);
        inside.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn lane_entries(&self, lane: OriginId, from: u64, bytes_max: usize) -> Vec<(u64, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for lsn in from.. {
            let Some(entry) = self.log.get(&(lane, lsn)) else { break };
            bytes += entry.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((lsn, entry.clone()));
        }
        entries
    }
}

/// A store under test.
trait Subject {
    type Store: Store;
    type View: LogRead;
    fn store(&mut self) -> &mut Self::Store;
    fn sync(&mut self) -> Position;
    fn crash(&mut self);
    fn view(&self) -> Self::View;
}

impl Subject for MemoryStore {
    type Store = Self;
    type View = comity_store::MemorySnapshot;

    fn store(&mut self) -> &mut Self {
        self
    }

    fn sync(&mut self) -> Position {
        Self::sync(self)
    }

    fn crash(&mut self) {
        Self::crash(self);
    }

    fn view(&self) -> Self::View {
        Self::view(self)
    }
}

/// Small files and frequent checkpoints, so that there are many of both.
fn options() -> StoreOptions {
    StoreOptions { log_file_bytes: 4096, checkpoint_bytes_max: 2000, ..StoreOptions::default() }
}

struct Embedded {
    dir: tempfile::TempDir,
    opened: Option<Opened>,
}

impl Embedded {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let opened = EmbeddedStore::open(dir.path(), options()).unwrap();
        assert!(opened.created);
        Self { dir, opened: Some(opened) }
    }

    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().unwrap()
    }
}

impl Subject for Embedded {
    type Store = EmbeddedStore;
    type View = comity_store::Snapshot;

    fn store(&mut self) -> &mut EmbeddedStore {
        &mut self.opened().store
    }

    fn sync(&mut self) -> Position {
        self.opened().syncer.sync().unwrap()
    }

    fn crash(&mut self) {
        let instance = self.opened.take().unwrap().instance;
        let opened = EmbeddedStore::open(self.dir.path(), options()).unwrap();
        assert!(!opened.created);
        assert_eq!(opened.instance, instance);
        self.opened = Some(opened);
    }

    fn view(&self) -> Self::View {
        self.opened.as_ref().unwrap().reader.snapshot().unwrap()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Sync,
    Crash,
    Get(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, usize),
    Lane(OriginId, u64, usize),
    View,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0u8..3, 0..4)
}

fn lane() -> impl Strategy<Value = OriginId> {
    (0u8..3).prop_map(|number| OriginId([number; 16]))
}

fn puts() -> impl Strategy<Value = Vec<Put>> {
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..20));
    proptest::collection::vec((key(), value), 0..5)
}

fn batch() -> impl Strategy<Value = Batch> {
    let lsn = prop_oneof![8 => 1u64..9, 1 => Just(u64::MAX - 1), 1 => Just(u64::MAX)];
    let entry = (lane(), lsn, proptest::collection::vec(any::<u8>(), 0..12))
        .prop_map(|(lane, lsn, bytes)| LaneRecord { space: SPACE, lane, lsn, bytes });
    let span = (lane(), 1u64..9, 1u64..5).prop_map(|(lane, first, count)| LaneSpan {
        space: SPACE,
        lane,
        first,
        count,
    });
    let dropped = prop_oneof![3 => Just(None), 1 => span.prop_map(Some)];
    let entries = proptest::collection::vec(entry, 0..4);
    (entries, dropped, puts(), puts()).prop_map(|(entries, dropped, facts, state)| Batch {
        entries,
        dropped: dropped.into_iter().collect(),
        facts,
        state,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => batch().prop_map(Step::Commit),
        3 => Just(Step::Sync),
        1 => Just(Step::Crash),
        3 => key().prop_map(Step::Get),
        5 => (key(), key(), 0usize..9).prop_map(|(from, until, limit)| Step::Scan(from, until, limit)),
        4 => (lane(), 0u64..9, 0usize..40).prop_map(|(lane, from, max)| Step::Lane(lane, from, max)),
        2 => Just(Step::View),
    ]
}

/// A subject beside its model.
struct Trial<S: Subject> {
    subject: S,
    live: Model,
    durable: Model,
    committed: u64,
    views: Vec<(S::View, Model)>,
}

impl<S: Subject> Trial<S> {
    fn new(subject: S) -> Self {
        let (live, durable) = Default::default();
        Self { subject, live, durable, committed: 0, views: Vec::new() }
    }

    fn run(&mut self, steps: Vec<Step>) {
        for step in steps {
            self.step(step);
        }
        self.check_views();
        self.step(Step::Crash);
        self.check_whole();
    }

    fn step(&mut self, step: Step) {
        let store = self.subject.store();
        match step {
            Step::Commit(batch) => {
                self.live.apply(&batch);
                self.committed += 1;
                assert_eq!(store.commit(batch), Ok(Position(self.committed)));
            }
            Step::Sync => {
                assert_eq!(self.subject.sync(), Position(self.committed));
                self.durable = self.live.clone();
            }
            Step::Crash => {
                self.views.clear();
                self.subject.crash();
                self.live = self.durable.clone();
                self.committed = 0;
            }
            Step::Get(key) => assert_eq!(store.get(&key), Ok(self.live.state.get(&key).cloned())),
            Step::Scan(from, until, limit) => {
                let expected = self.live.scan(&from, &until, limit);
                assert_eq!(store.scan(&from, &until, limit), Ok(expected));
            }
            Step::Lane(lane, from, bytes_max) => {
                let expected = self.live.lane_entries(lane, from, bytes_max);
                assert_eq!(store.lane_entries(&SPACE, &lane, from, bytes_max), Ok(expected));
                let entry = self.live.log.get(&(lane, from)).cloned();
                assert_eq!(store.lane_entry(&SPACE, &lane, from), Ok(entry));
            }
            Step::View => {
                self.views.push((self.subject.view(), self.durable.clone()));
                self.check_views();
            }
        }
    }

    /// No view ever changes, and none shows what was not synced when it was taken.
    fn check_views(&self) {
        for (view, model) in &self.views {
            let rows = model.scan(&[], &[255], usize::MAX);
            assert_eq!(view.scan(&[], &[255], usize::MAX), Ok(rows));
            assert_eq!(view.get(&[1]), Ok(model.state.get([1].as_slice()).cloned()));
            for (lane, lsn) in self.live.log.keys() {
                let entry = model.log.get(&(*lane, *lsn)).cloned();
                assert_eq!(view.lane_entry(&SPACE, lane, *lsn), Ok(entry));
            }
        }
    }

    fn check_whole(&mut self) {
        let rows = self.live.scan(&[], &[255], usize::MAX);
        let store = self.subject.store();
        assert_eq!(store.scan(&[], &[255], usize::MAX), Ok(rows));
        for ((lane, lsn), entry) in &self.live.log {
            assert_eq!(store.lane_entry(&SPACE, lane, *lsn), Ok(Some(entry.clone())));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_memory_store_conforms(steps in proptest::collection::vec(step(), 0..60)) {
        Trial::new(MemoryStore::new()).run(steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_embedded_store_conforms(steps in proptest::collection::vec(step(), 0..60)) {
        Trial::new(Embedded::new()).run(steps);
    }
}
