//! Reads every frame that any core sends, as somebody who knows the protocol and nothing else would, and
//! holds the cores to what must be true on the wire.

use std::collections::BTreeMap;

use comity_crdts::{LaneId, SpaceId};
use comity_engine::wire::{Data, Dictionary, LaneOwner, LaneRef, LaneTip, Message, Range, decode_run};

use crate::oracle::{Oracle, Violation};
use crate::world::World;

/// One direction of one connection: its number and the sending end.
type Direction = (u64, usize);

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
}

impl Observer {
    /// `from` sends a frame to `to`.
    pub(crate) fn sent(
        &mut self,
        direction: Direction,
        (from, to): (usize, usize),
        frame: &[u8],
        world: &World,
    ) -> Result<(), Violation> {
        let wrong =
            |detail: String| world.violation(Oracle::Wire, format!("replica {from} to {to}: {detail}"));
        if frame.len() > comity_engine::FRAME_BYTES_MAX {
            return Err(wrong(format!("a frame of {} bytes", frame.len())));
        }
        let message = Message::decode(frame).map_err(|error| wrong(format!("no message: {error}")))?;
        if message.encode() != frame {
            return Err(wrong("a message that is not in canonical form".to_owned()));
        }
        let reverse = (direction.0, 1 - direction.1);
        match message {
            Message::Open(open) => {
                self.refs.insert((direction, open.space_ref), open.space);
                let named = open.lanes.iter().map(|lane| lane.lane).collect();
                self.named.insert((direction, open.space), named);
                for lane in open.lanes {
                    if lane.lsn > durable(world, from, &open.space, &lane.lane) {
                        return Err(wrong("Open speaks of what is not durable".to_owned()));
                    }
                    if let Some(number) = lane.subscription {
                        self.subscribe((reverse, number), open.space, (lane.lane, lane.lsn, lane.hash));
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
            Message::Have(have) => {
                return self.have(direction, from, (have.space_ref, have.lanes), world);
            }
            Message::FrontierAnswer(answer) => {
                return self.have(direction, from, (answer.space_ref, answer.lanes), world);
            }
            Message::AuditAsk(ask) => {
                let is_durable = |(lane, lsn)| lsn <= durable(world, from, &ask.space, &lane);
                if !ask.frontier.iter().all(is_durable) {
                    return Err(wrong("it compares what is not durable".to_owned()));
                }
            }
            Message::Data(data) => return self.data(direction, from, &data, world),
            _ => {}
        }
        Ok(())
    }

    fn have(
        &mut self,
        direction: Direction,
        from: usize,
        (space_ref, lanes): (u32, Vec<(LaneRef, u64)>),
        world: &World,
    ) -> Result<(), Violation> {
        let wrong = |detail: &str| world.violation(Oracle::Wire, format!("replica {from}: {detail}"));
        let Some(space) = self.refs.get(&(direction, space_ref)).copied() else {
            return Err(wrong("what it has comes before Open"));
        };
        for (lane, lsn) in lanes {
            let named = self.named.entry((direction, space)).or_default();
            let lane = match lane {
                LaneRef::Known(place) => named[place as usize],
                LaneRef::New(lane) => {
                    named.push(lane);
                    lane
                }
            };
            if lsn > durable(world, from, &space, &lane) {
                return Err(wrong("it says that it has what is not durable"));
            }
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        key: (Direction, u32),
        space: SpaceId,
        (lane, lsn, hash): (LaneId, u64, [u8; 8]),
    ) {
        let start = (lsn == 0).then(|| LaneTip::start(&space, &lane));
        let tip = start.or_else(|| self.tips.get(&(lane, lsn, hash)).cloned());
        let (dictionary, partial) = (Dictionary::default(), Vec::new());
        self.streams.insert(key, Stream { space, lane, tip, dictionary, partial });
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

    fn data(
        &mut self,
        direction: Direction,
        from: usize,
        data: &Data<'_>,
        world: &World,
    ) -> Result<(), Violation> {
        let wrong = |detail: String| world.violation(Oracle::Wire, format!("replica {from}: {detail}"));
        let Some(stream) = self.streams.get_mut(&(direction, data.subscription)) else { return Ok(()) };
        stream.partial.extend_from_slice(data.bytes);
        if data.more {
            return Ok(());
        }
        let bytes = std::mem::take(&mut stream.partial);
        let Some(before) = &stream.tip else { return Ok(()) };
        if data.first != before.lsn + 1 {
            return Err(wrong(format!("a stream goes on at {} after {}", data.first, before.lsn)));
        }
        let (space, lane) = (stream.space, stream.lane);
        let owner = self.owners.get(&lane).copied();
        let run = decode_run(&space, &lane, owner, before, &mut stream.dictionary, &bytes);
        let run = run.map_err(|error| wrong(format!("a run that nobody accepts: {error}")))?;
        self.owners.insert(lane, run.owner);
        for (_, after) in run.entries {
            if after.lsn > durable(world, from, &space, &lane) {
                return Err(wrong(format!("entry {} leaves before it is durable", after.lsn)));
            }
            self.tips.insert((lane, after.lsn, after.hash.prefix()), after.clone());
            stream.tip = Some(after);
        }
        Ok(())
    }
}

/// How much of a lane is durable at a replica.
fn durable(world: &World, node: usize, space: &SpaceId, lane: &LaneId) -> u64 {
    let Some(space) = world.truth.space(space) else { return 0 };
    let Some(lane) = world.truth.spaces[space].numbers.get(lane) else { return 0 };
    u64::from(world.nodes[node].held[space].durable(*lane))
}
