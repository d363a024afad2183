//! Every message against every right: what a replica makes of it, in one table. A message that the table lacks does
//! not compile, and one that no test sends fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod world;

use comity_crdts::{Kind, ObjectAddress, OriginId, SpaceId};
use comity_engine::wire::{
    AuditAsk, AuditFetch, AuditReply, AuditRows, AuditSuspect, Body, Branches, Data, Denied, FrontierAnswer,
    FrontierRequest, Genesis, Gone, Group, Have, Head, Hello, Join, Knows, LaneRef, Leaves, Limit, Limited,
    Message, Op, Open, OpenLane, PROTOCOL_VERSION, Range, RangeDigest, Removed, RightsRequest, RowsEnd,
    Shared, SnapshotAsk, SnapshotOffer, SnapshotPiece, SnapshotRead, SnapshotSame, SnapshotStop, Subscribe,
    Unsubscribe,
};
use comity_engine::{CloseReason, Command, Location, Offer, Role, SessionId, SnapshotEnd, Standing};
use world::World;
use world::ghost::{Ghost, hello};

/// What a peer may do in the space that its message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// Nobody has ever heard of it.
    Stranger,
    /// It holds an invitation that it has not used.
    Invited,
    Follower,
    Writer,
    Admin,
    /// It was a writer and was removed while it had the space open on this session.
    Removed,
    /// It was removed before this session began.
    RemovedBefore,
    /// It was a writer and removed itself, before this session began.
    Left,
}

use Right::{Admin, Follower, Invited, Left, RemovedBefore, Stranger, Writer};

const RIGHTS: [Right; 8] = [Stranger, Invited, Follower, Writer, Admin, Right::Removed, RemovedBefore, Left];

/// What a replica makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It says and does nothing.
    Nothing,
    /// It says that it has heard.
    Heard,
    /// It denies the space, as it does one that it does not hold.
    Denied,
    /// It says that the peer is no member any more.
    Removed,
    /// It ends the session: the message is out of turn.
    Unexpected,
    /// It opens the space to the peer, which becomes a member.
    LetIn,
    /// It answers with what was asked for.
    Answered,
    /// It keeps what the message brings.
    Kept,
    /// It ends the subscription and keeps nothing.
    Refused,
    /// It closes the space on the session.
    Closed,
    /// It takes itself to be no member any more.
    Believed,
}

/// A type of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Hello,
    Shared,
    Heard,
    Branches,
    Leaves,
    Join,
    Open,
    Genesis,
    Denied,
    Removed,
    Subscribe,
    Offer,
    Unsubscribe,
    Range,
    Limit,
    Limited,
    Data,
    Have,
    Head,
    RightsRequest,
    FrontierRequest,
    FrontierAnswer,
    Gone,
    SnapshotAsk,
    SnapshotOffer,
    SnapshotRead,
    SnapshotSame,
    SnapshotPiece,
    SnapshotStop,
    AuditAsk,
    AuditReply,
    AuditSuspect,
    AuditFetch,
    AuditRows,
    Knows,
    Skippable,
}

/// Names the type of every message there is.
fn type_of(message: &Message<'_>) -> Type {
    match message {
        Message::Hello(_) => Type::Hello,
        Message::Knows(_) => Type::Knows,
        Message::Shared(_) => Type::Shared,
        Message::Heard => Type::Heard,
        Message::Branches(_) => Type::Branches,
        Message::Leaves(_) => Type::Leaves,
        Message::Join(_) => Type::Join,
        Message::Open(_) => Type::Open,
        Message::Genesis(_) => Type::Genesis,
        Message::Denied(_) => Type::Denied,
        Message::Removed(_) => Type::Removed,
        Message::Subscribe(_) => Type::Subscribe,
        Message::Offer(_) => Type::Offer,
        Message::Unsubscribe(_) => Type::Unsubscribe,
        Message::Range(_) => Type::Range,
        Message::Limit(_) => Type::Limit,
        Message::Limited(_) => Type::Limited,
        Message::Data(_) => Type::Data,
        Message::Have(_) => Type::Have,
        Message::Head(_) => Type::Head,
        Message::RightsRequest(_) => Type::RightsRequest,
        Message::FrontierRequest(_) => Type::FrontierRequest,
        Message::FrontierAnswer(_) => Type::FrontierAnswer,
        Message::Gone(_) => Type::Gone,
        Message::SnapshotAsk(_) => Type::SnapshotAsk,
        Message::SnapshotOffer(_) => Type::SnapshotOffer,
        Message::SnapshotRead(_) => Type::SnapshotRead,
        Message::SnapshotSame(_) => Type::SnapshotSame,
        Message::SnapshotPiece(_) => Type::SnapshotPiece,
        Message::SnapshotStop(_) => Type::SnapshotStop,
        Message::AuditAsk(_) => Type::AuditAsk,
        Message::AuditReply(_) => Type::AuditReply,
        Message::AuditSuspect(_) => Type::AuditSuspect,
        Message::AuditFetch(_) => Type::AuditFetch,
        Message::AuditRows(_) => Type::AuditRows,
        Message::Skippable(_) => Type::Skippable,
    }
}

/// The outcome for each of [`RIGHTS`], in their order. The peer has greeted, and has opened the space if that is let
/// in; each message is the first after that.
fn expected(of: Type) -> [Outcome; 8] {
    use Outcome::{Answered, Believed, Closed, Denied, Kept, LetIn, Nothing, Refused, Removed, Unexpected};
    match of {
        //  stranger, invited, follower, writer, admin, removed on this session, removed before, left
        // Without a digest of this side's there is nothing to compare.
        Type::Hello | Type::Branches | Type::Leaves => [Unexpected; 8],
        Type::Join => [Denied, LetIn, Nothing, Nothing, Nothing, Denied, Denied, Denied],
        Type::Open => [Denied, Denied, Unexpected, Unexpected, Unexpected, Removed, Removed, Removed],
        Type::Shared => [Outcome::Heard; 8],
        // What a peer knows is about no space.
        Type::Knows | Type::Heard => [Nothing; 8],
        Type::Genesis | Type::Unsubscribe | Type::Gone | Type::Skippable => [Nothing; 8],
        // Of a subscription that is not there.
        Type::Limit | Type::Limited => [Nothing; 8],
        // Of a snapshot that was not asked for.
        Type::SnapshotOffer | Type::SnapshotSame | Type::SnapshotPiece | Type::SnapshotStop => [Nothing; 8],
        Type::SnapshotRead => [Refused; 8],
        // Of a lane that is not the peer's.
        Type::Offer => [Refused, Refused, Refused, Refused, Refused, Nothing, Refused, Refused],
        Type::Denied => [Nothing, Nothing, Closed, Closed, Closed, Nothing, Nothing, Nothing],
        Type::Removed => [Nothing, Nothing, Closed, Closed, Believed, Nothing, Nothing, Nothing],
        // Of a question that was not asked.
        Type::AuditReply | Type::AuditRows => [Nothing; 8],
        // It is looked into, and right.
        Type::AuditSuspect => {
            [Unexpected, Unexpected, Nothing, Nothing, Nothing, Nothing, Unexpected, Unexpected]
        }
        Type::Subscribe
        | Type::Range
        | Type::FrontierRequest
        | Type::SnapshotAsk
        | Type::AuditAsk
        | Type::AuditFetch => {
            [Unexpected, Unexpected, Answered, Answered, Answered, Nothing, Unexpected, Unexpected]
        }
        Type::Data => [Unexpected, Unexpected, Refused, Kept, Kept, Nothing, Unexpected, Unexpected],
        Type::Have | Type::Head => {
            [Unexpected, Unexpected, Nothing, Nothing, Nothing, Nothing, Unexpected, Unexpected]
        }
        Type::RightsRequest => {
            [Unexpected, Unexpected, Nothing, Answered, Answered, Nothing, Unexpected, Unexpected]
        }
        Type::FrontierAnswer => {
            [Unexpected, Unexpected, Unexpected, Unexpected, Unexpected, Nothing, Unexpected, Unexpected]
        }
    }
}

/// A founder, and a peer with some right that has greeted it.
struct Scene {
    world: World,
    space: SpaceId,
    ghost: Ghost,
    session: SessionId,
    /// An invitation's secret: a good one for who is invited.
    secret: [u8; 16],
    subscription: u32,
    /// Entries of the ghost's lane that are known before.
    known: usize,
}

const BOUNDED: &str = "stock";

fn bounded() -> Location {
    ObjectAddress::new(Kind::BoundedCounter, "all", BOUNDED).unwrap().into()
}

/// The ghost's `Open`, with its lane as it stands.
fn opening(ghost: &Ghost, space: SpaceId, space_ref: u32) -> Message<'static> {
    let count = ghost.entries.len();
    let (lsn, hash) = (count as u64, ghost.tip(count).hash.prefix());
    let lanes = vec![OpenLane { lane: ghost.lane(), lsn, hash, subscription: None }];
    Message::Open(Open { space_ref, space, needs_genesis: false, lanes })
}

impl Scene {
    fn new(right: Right) -> Self {
        let mut world = World::new(1);
        let space = world.create_space(0);
        world.write(0, space, |tx| tx.bounded_increment_at(&bounded(), 9)).unwrap();
        let mut ghost = Ghost::new(9, space);
        ghost.add(1);
        let mut secret = [3; 16];
        let role = match right {
            Stranger => None,
            Invited => {
                secret = world.invite(0, space, Role::Writer);
                None
            }
            Follower => Some(Role::Follower),
            Writer | Right::Removed | RemovedBefore | Left => Some(Role::Writer),
            Admin => Some(Role::Admin),
        };
        let replica = ghost.replica();
        if let Some(role) = role {
            world.command(0, Command::Grant { space, replica, role }).unwrap();
        }
        // All but the follower have written before.
        let known = usize::from(role.is_some() && right != Follower);
        if known > 0 {
            let session = world.connect_ghost(0, replica);
            world.inject(0, session, hello());
            let (session, subscription) = world.offer(0, session, &ghost);
            world.inject(0, session, world::ghost::data(subscription, 1, &ghost.run(0, 1)));
            world.run();
            if right == Left {
                leave(&mut world, &mut ghost, (session, subscription));
            }
            world.disconnect(session);
        }
        if right == RemovedBefore {
            world.command(0, Command::Revoke { space, replica }).unwrap();
        }
        let session = world.connect_ghost(0, replica);
        world.inject(0, session, hello());
        ghost.add(1);
        world.inject(0, session, opening(&ghost, space, 0).encode());
        world.drain_steps();
        let subscription = world.subscription(0, session, ghost.lane()).unwrap_or(0);
        if right == Right::Removed {
            world.ask(0, Command::Revoke { space, replica });
            world.drain_steps();
        }
        Self { world, space, ghost, session, secret, subscription, known }
    }

    /// One message of every type, about a space.
    fn messages(&self, space: SpaceId) -> Vec<Vec<u8>> {
        let lane = self.world.status(0, self.space).lanes[0].lane;
        let lane = if space == self.space { lane } else { OriginId([0x55; 16]) };
        let (creator, nonce) = (self.world.replica(0), comity_crdts::Nonce([2; 16]));
        let last = self.ghost.tip(self.ghost.entries.len());
        let run = self.ghost.run(self.known, 2);
        let head = Head { space, lane, lsn: 99, hash: last.hash, proof: [5; 64].into() };
        let known = vec![(LaneRef::Known(0), 2)];
        let messages = [
            Message::Hello(Hello {
                version_min: PROTOCOL_VERSION,
                version_max: PROTOCOL_VERSION,
                wall_ms: 0,
            }),
            Message::Shared(Shared { spaces: 1, root: Some([1; 16]) }),
            Message::Heard,
            Message::Branches(Branches { depth: 0, nodes: Vec::new() }),
            Message::Leaves(Leaves { more: false, ranges: Vec::new() }),
            Message::Join(Join { space, secret: self.secret }),
            opening(&self.ghost, space, 1),
            Message::Genesis(Genesis { space, creator, nonce, name: "other".to_owned() }),
            Message::Denied(Denied { space }),
            Message::Removed(Removed { space }),
            Message::Subscribe(Subscribe { space, subscription: 6, lane, from: 1, hash: [0; 8] }),
            Message::Offer(Subscribe { space, subscription: 1 << 31, lane, from: 1, hash: [0; 8] }),
            Message::Unsubscribe(Unsubscribe { subscription: 6, refused: false }),
            Message::Range(Range { space, subscription: 7, lane, from: 1, until: 1 }),
            Message::Limit(Limit { subscription: 70, until: 1 }),
            Message::Limited(Limited { subscription: 70, last: 1 }),
            Message::Data(Data {
                subscription: self.subscription,
                more: false,
                awaited: false,
                ends: false,
                first: self.known as u64 + 1,
                bytes: &run,
            }),
            Message::Have(Have { space_ref: 0, lanes: known.clone() }),
            Message::Head(head),
            Message::RightsRequest(RightsRequest {
                space,
                collection: "all".to_owned(),
                key: BOUNDED.to_owned(),
                to: self.ghost.lane(),
                amount: 4,
            }),
            Message::FrontierRequest(FrontierRequest { space, number: 7 }),
            Message::FrontierAnswer(FrontierAnswer { number: 7, space_ref: 0, lanes: known }),
            Message::Gone(Gone { subscription: 90, floor: 1 }),
            Message::SnapshotAsk(SnapshotAsk { space, number: 8 }),
            Message::SnapshotOffer(SnapshotOffer { number: 8, offer: Offer::default() }),
            Message::SnapshotRead(SnapshotRead {
                number: 9,
                from: Vec::new(),
                until: None,
                hash: None,
                pieces: 1,
            }),
            Message::SnapshotSame(SnapshotSame { number: 8, until: vec![1], check: last.hash }),
            Message::SnapshotPiece(SnapshotPiece { number: 8, more: false, bytes: &[1] }),
            Message::SnapshotStop(SnapshotStop { number: 8, why: SnapshotEnd::Done }),
            Message::AuditAsk(AuditAsk {
                space,
                number: 3,
                frontier: comity_crdts::Frontier::new(),
                root: [0; 16],
                from: Vec::new(),
                ranges: vec![RangeDigest { until: vec![0xff], count: 1, state: 2 }],
            }),
            Message::AuditReply(AuditReply { number: 3, compared: 1, differ: Vec::new() }),
            Message::AuditSuspect(AuditSuspect { space, objects: vec![b"\x09all\0stock".to_vec()] }),
            Message::AuditFetch(AuditFetch {
                space,
                number: 4,
                object: b"\x09all\0stock".to_vec(),
                frontier: comity_crdts::Frontier::new(),
                root: [0; 16],
            }),
            Message::AuditRows(AuditRows { number: 4, rows: Vec::new(), end: RowsEnd::More }),
            Message::Knows(Knows::default()),
            Message::Skippable(0x83),
        ];
        messages.iter().map(Message::encode).collect()
    }

    /// Sends one message; what comes of it.
    fn outcome(&mut self, frame: Vec<u8>) -> (Outcome, Vec<Vec<u8>>) {
        let (session, space) = (self.session, self.space);
        let open = |scene: &Self| {
            let peers = scene.world.status(0, space).peers;
            peers.iter().any(|status| status.peer == scene.ghost.replica())
        };
        let members = |scene: &Self| scene.world.status(0, space).members.len();
        let (was_open, members_before) = (open(self), members(self));
        let before = self.world.untouched(0, space);
        let sent = self.world.link(session).sent(0).log.len();
        self.world.inject(0, session, frame);
        self.world.drain_steps();
        let is_changed = self.world.untouched(0, space) != before;
        if let Some(reason) = self.world.close_reason(0, session) {
            assert!(!is_changed && reason == CloseReason::Unexpected, "{reason:?}");
            return (Outcome::Unexpected, Vec::new());
        }
        let frames: Vec<Vec<u8>> =
            self.world.link(session).sent(0).log[sent..].iter().map(|(_, frame)| frame.clone()).collect();
        let said: Vec<Message<'_>> = frames.iter().map(|frame| Message::decode(frame).unwrap()).collect();
        let outcome = match said.as_slice() {
            [Message::Denied(_)] if !is_changed => Outcome::Denied,
            [Message::Removed(_)] if !is_changed => Outcome::Removed,
            [Message::Unsubscribe(_) | Message::SnapshotStop(_)] if !is_changed => Outcome::Refused,
            [Message::Open(_), ..] if members(self) == members_before + 1 => Outcome::LetIn,
            [] if self.world.status(0, space).standing == Standing::Removed => Outcome::Believed,
            [] if was_open && !open(self) && !is_changed => Outcome::Closed,
            [] if !is_changed => Outcome::Nothing,
            [Message::Heard] if !is_changed => Outcome::Heard,
            [Message::Have(_)] if self.world.likes(0, space) == 2 => Outcome::Kept,
            [
                Message::Data(_)
                | Message::FrontierAnswer(_)
                | Message::SnapshotOffer(_)
                | Message::AuditReply(_)
                | Message::AuditRows(_),
            ] if !is_changed => Outcome::Answered,
            [Message::Have(_)] if is_changed => Outcome::Answered,
            said => panic!("{said:?}, changed: {is_changed}"),
        };
        (outcome, frames)
    }
}

/// The ghost removes itself, having seen what made it a member.
fn leave(world: &mut World, ghost: &mut Ghost, (session, subscription): (SessionId, u32)) {
    let seen = world.status(0, ghost.space).frontier;
    let seen: comity_crdts::Frontier = seen.iter().filter(|(lane, _)| *lane != ghost.lane()).collect();
    let ops = vec![Op::Revoke { replica: ghost.replica() }];
    let mut entry = ghost.draft(vec![Group { address: ObjectAddress::members(), ops }]);
    entry.admitted = seen.clone();
    if let Body::Change(change) = &mut entry.body {
        change.context = seen;
    }
    ghost.append(entry);
    let run = ghost.run(1, 2);
    world.inject(0, session, world::ghost::data(subscription, 2, &run));
    world.drain_steps();
    assert_eq!(world.status(0, ghost.space).members.len(), 1, "it has left");
}

#[test]
fn every_message_is_answered_as_the_right_of_its_sender_demands() {
    let count = Scene::new(Stranger).messages(SpaceId([1; 16])).len();
    let mut wrong = Vec::new();
    let mut types = Vec::new();
    for message in 0..count {
        for (place, right) in RIGHTS.into_iter().enumerate() {
            let mut scene = Scene::new(right);
            let frame = scene.messages(scene.space).swap_remove(message);
            let of = type_of(&Message::decode(&frame).unwrap());
            let (outcome, _) = scene.outcome(frame);
            if outcome != expected(of)[place] {
                wrong.push(format!("{of:?} of {right:?}: {outcome:?}, not {:?}", expected(of)[place]));
            }
            types.push(of as usize);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    types.dedup();
    let all: Vec<usize> = (0..=Type::Skippable as usize).collect();
    assert_eq!(types, all, "every type is sent, once for each right");
}

#[test]
fn who_was_never_let_in_learns_nothing_from_any_message_not_even_that_there_is_a_space() {
    let unknown = SpaceId([0xaa; 16]);
    let count = Scene::new(Stranger).messages(unknown).len();
    for right in [Stranger, Invited] {
        for message in 0..count {
            let answer = |about: SpaceId, scene: &mut Scene| {
                let frame = scene.messages(about).swap_remove(message);
                let commits = scene.world.nodes[0].disk.commits();
                let (outcome, frames) = scene.outcome(frame);
                let written = scene.world.nodes[0].disk.commits() - commits;
                let masked = frames.into_iter().map(|frame| {
                    let place = frame.windows(16).position(|part| part == about.0);
                    place.map_or(frame.clone(), |at| [&frame[..at], &[0; 16], &frame[at + 16..]].concat())
                });
                (outcome, masked.collect::<Vec<_>>(), written)
            };
            let (mut here, mut elsewhere) = (Scene::new(right), Scene::new(right));
            if right == Invited && message == 5 {
                // That is what the invitation is for; any other secret is like none.
                here.secret = [4; 16];
            }
            let space = here.space;
            assert_eq!(answer(space, &mut here), answer(unknown, &mut elsewhere), "message {message}");
        }
    }
}
