//! Reads every frame that any core sends and holds the cores to what must be true on the wire: nothing
//! leaves before it is durable, no entry has two contents, windows are kept. Counts copies.

use std::collections::{BTreeMap, BTreeSet};

use comity_crdts::{LaneId, OriginId, SpaceId};
use comity_engine::SessionId;
use comity_engine::wire::{
    Body, Data, Dictionary, Hash, LaneOwner, LaneRef, LaneTip, Message, Range, decode_run,
};

use super::disk::Disk;

/// The sender's side of one direction of one session.
type Direction = (SessionId, usize);

/// A subscription as an eavesdropper follows it. `tip` is `None` when it started at a position whose
/// entries were never seen on any wire.
struct Stream {
    space: SpaceId,
    lane: LaneId,
    tip: Option<LaneTip>,
    dictionary: Dictionary,
    partial: Vec<u8>,
}

/// What went over all wires.
#[derive(Default)]
pub(crate) struct Observer {
    streams: BTreeMap<(Direction, u32), Stream>,
    refs: BTreeMap<(Direction, u32), SpaceId>,
    named: BTreeMap<(Direction, SpaceId), Vec<LaneId>>,
    owners: BTreeMap<LaneId, LaneOwner>,
    tips: BTreeMap<(LaneId, u64, [u8; 8]), LaneTip>,
    entries: BTreeMap<(LaneId, u64), Hash>,
    changes: BTreeMap<(OriginId, u64), Hash>,
    /// Every entry that was seen with two contents.
    pub(crate) forks: BTreeSet<(LaneId, u64)>,
    /// How often each entry was sent to each node.
    pub(crate) copies: BTreeMap<(usize, LaneId, u64), u32>,
    /// Bytes of runs sent, and how many.
    pub(crate) run_bytes: usize,
    pub(crate) runs: usize,
}

impl Observer {
    /// `from` sends a frame to `to`; its disk is asked what is durable.
    pub(crate) fn sent(&mut self, session: SessionId, (from, to): (usize, usize), frame: &[u8], disk: &Disk) {
        assert!(frame.len() <= comity_engine::FRAME_BYTES_MAX, "a frame of {} bytes", frame.len());
        let message = Message::decode(frame).expect("cores send messages in canonical form");
        assert_eq!(message.encode(), frame, "decoding and encoding are inverse");
        let (direction, reverse) = ((session, from), (session, to));
        match message {
            Message::Open(open) => {
                self.refs.insert((direction, open.space_ref), open.space);
                let named = open.lanes.iter().map(|lane| lane.lane).collect();
                self.named.insert((direction, open.space), named);
                for lane in open.lanes {
                    let durable = disk.durable(&open.space, &lane.lane);
                    assert!(lane.lsn <= durable, "Open speaks of what is not durable");
                    if let Some(number) = lane.subscription {
                        let from = (lane.lane, lane.lsn, lane.hash);
                        self.subscribe((reverse, number), open.space, from);
                    }
                }
            }
            Message::Subscribe(subscribe) => {
                let from = (subscribe.lane, subscribe.from - 1, subscribe.hash);
                self.subscribe((reverse, subscribe.subscription), subscribe.space, from);
            }
            Message::Range(range) => self.range((reverse, range.subscription), &range),
            Message::Offer(offer) => {
                let from = (offer.lane, offer.from - 1, offer.hash);
                self.subscribe((direction, offer.subscription), offer.space, from);
            }
            Message::Have(have) => self.have(direction, (have.space_ref, have.lanes), disk),
            Message::FrontierAnswer(answer) => {
                let space = self.refs[&(direction, answer.space_ref)];
                let lanes = answer.lanes.clone();
                self.have(direction, (answer.space_ref, answer.lanes), disk);
                let named = &self.named[&(direction, space)];
                let said = lanes.iter().map(|(lane, _)| match lane {
                    LaneRef::Known(place) => named[*place as usize],
                    LaneRef::New(lane) => *lane,
                });
                let said: BTreeSet<LaneId> = said.collect();
                let has = |lane: &&LaneId| disk.durable(&space, lane) > 0;
                assert!(
                    named.iter().filter(has).all(|lane| said.contains(lane)),
                    "an answer names all lanes"
                );
            }
            Message::Data(data) => self.data((direction, to), &data, disk),
            _ => {}
        }
    }

    fn have(&mut self, direction: Direction, (space_ref, lanes): (u32, Vec<(LaneRef, u64)>), disk: &Disk) {
        let space = self.refs[&(direction, space_ref)];
        for (lane, lsn) in lanes {
            let named = self.named.get_mut(&(direction, space)).expect("Open comes before Have");
            let lane = match lane {
                LaneRef::Known(place) => named[place as usize],
                LaneRef::New(lane) => {
                    assert!(!named.contains(&lane), "a lane is named once");
                    named.push(lane);
                    lane
                }
            };
            assert!(lsn <= disk.durable(&space, &lane), "Have speaks of what is not durable");
        }
    }

    fn subscribe(
        &mut self,
        (direction, number): (Direction, u32),
        space: SpaceId,
        (lane, lsn, hash): (LaneId, u64, [u8; 8]),
    ) {
        let start = (lsn == 0).then(|| LaneTip::start(&space, &lane));
        let tip = start.or_else(|| self.tips.get(&(lane, lsn, hash)).cloned());
        let (dictionary, partial) = (Dictionary::default(), Vec::new());
        self.streams.insert((direction, number), Stream { space, lane, tip, dictionary, partial });
    }

    /// A part is followed when it begins where exactly one content was seen.
    fn range(&mut self, key: (Direction, u32), range: &Range) {
        let (space, lane, lsn) = (range.space, range.lane, range.from - 1);
        let mut seen = self.tips.range((lane, lsn, [0; 8])..=(lane, lsn, [0xff; 8]));
        let tip = match (seen.next(), seen.next()) {
            (Some((_, tip)), None) => Some(tip.clone()),
            _ => (lsn == 0).then(|| LaneTip::start(&space, &lane)),
        };
        let (dictionary, partial) = (Dictionary::default(), Vec::new());
        self.streams.insert(key, Stream { space, lane, tip, dictionary, partial });
    }

    fn data(&mut self, (direction, to): (Direction, usize), data: &Data<'_>, disk: &Disk) {
        let Some(stream) = self.streams.get_mut(&(direction, data.subscription)) else { return };
        stream.partial.extend_from_slice(data.bytes);
        if data.more {
            return;
        }
        let bytes = std::mem::take(&mut stream.partial);
        self.runs += 1;
        self.run_bytes += bytes.len();
        let Some(before) = &stream.tip else { return };
        assert_eq!(data.first, before.lsn + 1, "a stream goes on where it stopped");
        let (space, lane) = (stream.space, stream.lane);
        let owner = self.owners.get(&lane).copied();
        let run = decode_run(&space, &lane, owner, before, &mut stream.dictionary, &bytes);
        let run = run.expect("cores send runs that their receivers accept");
        self.owners.insert(lane, run.owner);
        for (entry, after) in run.entries {
            assert!(
                after.lsn <= disk.durable(&space, &lane),
                "invariant 4: an entry left before it was durable"
            );
            *self.copies.entry((to, lane, after.lsn)).or_insert(0) += 1;
            if *self.entries.entry((lane, after.lsn)).or_insert(after.hash) != after.hash {
                self.forks.insert((lane, after.lsn));
            }
            if let Body::Change(change) = &entry.body
                && *self.changes.entry((change.origin, change.seq)).or_insert(after.change_hash)
                    != after.change_hash
            {
                self.forks.insert((lane, after.lsn));
            }
            self.tips.insert((lane, after.lsn, after.hash.prefix()), after.clone());
            stream.tip = Some(after);
        }
    }

    /// Starts counting anew; what was seen stays known.
    pub(crate) fn forget_counts(&mut self) {
        self.copies.clear();
        (self.run_bytes, self.runs) = (0, 0);
    }

    /// The average number of copies of an entry that a node was sent.
    pub(crate) fn copies_per_entry(&self) -> f64 {
        let total: u32 = self.copies.values().sum();
        f64::from(total) / self.copies.len().max(1) as f64
    }
}
