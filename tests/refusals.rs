//! What a replica refuses over real connections, and that refusing leaves everything as it was.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::net::UdpSocket;

use bytes::Bytes;
use comity::{LaneId, ReplicaId, SpaceId, Ticket};
use comity_engine::CloseReason;
use comity_engine::wire::{
    Data, Genesis, Have, Join, LaneRef, Message, Open, OpenLane, Subscribe, Unsubscribe,
};
use comity_transport::{Class, CloseCode, ConnectError, PeerKey, TransportConfig};

use regions::stranger::{Stranger, Wire, hello};
use regions::{Draws, Holdings, PATIENCE, Region, converge, eventually, loopback, pair};

const MALFORMED: CloseCode = CloseCode(CloseReason::Malformed as u32);
const UNEXPECTED: CloseCode = CloseCode(CloseReason::Unexpected as u32);

/// Two honest regions, one of which is about to be bothered.
struct Honest {
    target: Region,
    other: Region,
    before: Holdings,
}

impl Honest {
    async fn pair() -> Self {
        let (target, other) = pair().await;
        let before = Holdings::of(&target).await;
        Self { target, other, before }
    }

    /// Nothing has changed, and the honest regions go on syncing over the connection they had.
    async fn unharmed(&self) {
        assert_eq!(Holdings::of(&self.target).await, self.before);
        self.go_on().await;
    }

    async fn go_on(&self) {
        let before = self.target.count();
        self.target.add_one().await.unwrap();
        self.other.add_one().await.unwrap();
        converge(&[&self.target, &self.other]).await;
        assert_eq!((self.target.count(), self.other.count()), (before + 2, before + 2));
        assert!(self.target.replica.connected().contains(&self.other.id()));
    }
}

fn open(space: SpaceId, lanes: Vec<OpenLane>) -> Message<'static> {
    Message::Open(Open { space_ref: 0, space, needs_genesis: true, lanes })
}

/// What a frame tells somebody who may know nothing of the space.
fn tells_nothing(frame: &Bytes) -> bool {
    match Message::decode(frame).unwrap() {
        Message::Shared(shared) => (shared.spaces, shared.root) == (0, None),
        message => matches!(message, Message::Hello(_) | Message::Heard | Message::Denied(_)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_refused_in_the_handshake() {
    let honest = Honest::pair().await;
    let stranger = Stranger::new([1; 32]);
    for _ in 0..3 {
        assert_eq!(stranger.try_dial(&honest.target).await.unwrap_err(), ConnectError::UnknownPeer);
    }
    assert!(!honest.target.replica.connected().contains(&stranger.id()));
    honest.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_without_the_secret_learns_nothing_while_an_invitation_is_open() {
    let honest = Honest::pair().await;
    let space = honest.target.space.id();
    let lane = honest.target.status().await.lanes[0].lane;
    let _ticket = honest.target.space.invite().await.unwrap();
    let stranger = Stranger::new([2; 32]);
    let subscribe = Subscribe { space, subscription: 0, lane, from: 1, hash: [0; 8] };
    let attempts = [
        open(space, Vec::new()),
        open(space, vec![OpenLane { lane, lsn: 0, hash: [0; 8], subscription: Some(7) }]),
        Message::Subscribe(subscribe),
        Message::Have(Have { space_ref: 0, lanes: vec![(LaneRef::New(lane), 1)] }),
        Message::Join(Join { space, secret: [0; 16] }),
        Message::Join(Join { space: SpaceId([3; 16]), secret: [0; 16] }),
    ];
    for attempt in attempts {
        let mut wire = stranger.dial(&honest.target).await;
        wire.send(&attempt);
        // A second greeting is out of turn at any time, so the connection ends and shows all that was said.
        wire.send(&Message::Hello(hello()));
        let (frames, code) = wire.until_closed().await;
        assert!(frames.iter().all(tells_nothing), "{attempt:?} is answered by {frames:?}");
        assert_eq!(code, UNEXPECTED, "{attempt:?}");
    }
    honest.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_wrong_used_or_of_another_space_lets_nobody_in() {
    let honest = Honest::pair().await;
    let space = honest.target.space.id();
    let used = honest.target.space.invite().await.unwrap().secret.unwrap();
    let member = Stranger::new([3; 32]);
    admit(&member, &honest.target, used).await.hang_up();
    let members = honest.target.status().await.members;
    assert_eq!(members.len(), 3);

    let elsewhere = honest.target.replica.create_space("elsewhere").await.unwrap();
    let foreign = elsewhere.invite().await.unwrap().secret.unwrap();
    let before = Holdings::of(&honest.target).await;
    let stranger = Stranger::new([4; 32]);
    for secret in [[0; 16], used, foreign] {
        let mut wire = stranger.dial(&honest.target).await;
        wire.send(&Message::Join(Join { space, secret }));
        wire.send(&open(space, Vec::new()));
        wire.find(|message| {
            matches!(message, Message::Denied(denied) if denied.space == space).then_some(())
        })
        .await;
        wire.send(&Message::Hello(hello()));
        let (frames, _) = wire.until_closed().await;
        assert!(frames.iter().all(tells_nothing), "{frames:?}");
    }
    assert_eq!(Holdings::of(&honest.target).await, before);
    honest.go_on().await;
    assert_eq!(honest.other.status().await.members, members);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_replica_with_a_used_ticket_gets_nothing_and_can_be_invited_again() {
    let honest = Honest::pair().await;
    let used = honest.target.space.invite().await.unwrap();
    let third = Region::joining(&honest.target).await;
    let taken = third.replica.connect(&used).await.unwrap();
    assert_eq!(taken.id(), honest.target.space.id());
    let late = Region::founder().await;
    let second = honest.target.space.invite().await.unwrap();
    redeem_elsewhere(&honest.target, &used).await;
    let space = late.replica.connect(&used).await.unwrap();
    late.replica.wait_connected(honest.target.id(), PATIENCE).await.unwrap();
    honest.go_on().await;
    let members = honest.target.status().await.members;
    assert!(members.iter().all(|(member, _)| *member != late.id()));
    let held = space.status().await.unwrap();
    assert!(held.name.is_empty() && held.lanes.is_empty() && held.members.is_empty(), "{held:?}");

    late.replica.connect(&second).await.unwrap();
    let late = Region::of(&late.directory, late.replica.clone()).await;
    let space = late.replica.space(space.id()).await.unwrap();
    regions::until(&space, async |space| {
        let members = space.status().await.unwrap().members;
        members.iter().any(|(member, _)| *member == late.id())
    })
    .await;
}

/// Uses an invitation up.
async fn redeem_elsewhere(target: &Region, ticket: &Ticket) {
    let stranger = Stranger::new([5; 32]);
    admit(&stranger, target, ticket.secret.unwrap()).await.hang_up();
}

/// Makes a stranger a member. Its connection comes back with everything said on it still to be received.
async fn admit(stranger: &Stranger, target: &Region, secret: [u8; 16]) -> Wire {
    let mut wire = stranger.dial(target).await;
    wire.send(&Message::Join(Join { space: target.space.id(), secret }));
    eventually("the stranger is a member", async || {
        target.status().await.members.iter().any(|(member, _)| *member == stranger.id())
    })
    .await;
    wire
}

/// A member that does not behave.
async fn rogue(target: &Region, stranger: Stranger) -> Stranger {
    let secret = target.space.invite().await.unwrap().secret.unwrap();
    admit(&stranger, target, secret).await.hang_up();
    stranger
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_the_limit_closes_its_connection_only() {
    let mut honest = Honest::pair().await;
    let config = TransportConfig { frame_bytes_max: 1024 * 1024, ..TransportConfig::default() };
    let rogue = rogue(&honest.target, Stranger::with_config([6; 32], config)).await;
    honest.before = Holdings::of(&honest.target).await;
    for class in Class::ALL {
        let mut wire = rogue.dial(&honest.target).await;
        wire.send_bytes(class, vec![0xff; comity_engine::FRAME_BYTES_MAX + 1]);
        assert_eq!(wire.until_closed().await.1, CloseCode::FRAME_TOO_LARGE);
    }
    let mut wire = rogue.dial(&honest.target).await;
    // The largest frame there may be, of a type that is safe to skip.
    wire.send_bytes(Class::Control, vec![0xff; comity_engine::FRAME_BYTES_MAX]);
    wire.send(&Message::Hello(hello()));
    assert_eq!(wire.until_closed().await.1, UNEXPECTED);
    honest.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_its_connection_only() {
    let mut honest = Honest::pair().await;
    let rogue = rogue(&honest.target, Stranger::new([7; 32])).await;
    honest.before = Holdings::of(&honest.target).await;
    let mut draws = Draws(7);
    for round in 0..150 {
        let mut frame: Vec<u8> = (0..=draws.below(300)).map(|_| draws.below(256) as u8).collect();
        // Types from 0x80 on are safe to skip.
        frame[0] &= 0x7f;
        let mut wire = rogue.dial(&honest.target).await;
        let class = Class::ALL[draws.below(3) as usize];
        if round % 2 == 0 {
            wire.send(&open(honest.target.space.id(), Vec::new()));
        }
        wire.send_bytes(class, frame.clone());
        // What happens to be a message is followed by one that is out of turn.
        wire.send(&Message::Hello(hello()));
        let (_, code) = wire.until_closed().await;
        assert!([MALFORMED, UNEXPECTED].contains(&code), "{frame:02x?} closes with {code}");
    }
    honest.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_garbage_are_ignored() {
    let honest = Honest::pair().await;
    let socket = UdpSocket::bind(loopback(0)).unwrap();
    let address = honest.target.ticket().addresses[0];
    let mut draws = Draws(8);
    for _ in 0..500 {
        let datagram: Vec<u8> = (0..=draws.below(1400)).map(|_| draws.below(256) as u8).collect();
        socket.send_to(&datagram, address).unwrap();
    }
    honest.unharmed().await;
}

/// One message of every type.
fn messages(space: SpaceId, lane: LaneId) -> Vec<Message<'static>> {
    let nonce = comity_crdts::Nonce([1; 16]);
    let opened = OpenLane { lane, lsn: 300, hash: [1; 8], subscription: Some(300) };
    let genesis = Genesis { space, creator: ReplicaId([1; 32]), nonce, name: "test".to_owned() };
    vec![
        Message::Hello(hello()),
        Message::Join(Join { space, secret: [1; 16] }),
        open(space, vec![opened]),
        Message::Genesis(genesis),
        Message::Denied(comity_engine::wire::Denied { space }),
        Message::Subscribe(Subscribe { space, subscription: 300, lane, from: 300, hash: [1; 8] }),
        Message::Unsubscribe(Unsubscribe { subscription: 300, refused: true }),
        Message::Have(Have {
            space_ref: 300,
            lanes: vec![(LaneRef::New(lane), 300), (LaneRef::Known(300), 1)],
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_cut_short_closes_its_connection_only() {
    let mut honest = Honest::pair().await;
    let rogue = rogue(&honest.target, Stranger::new([9; 32])).await;
    honest.before = Holdings::of(&honest.target).await;
    let lane = honest.target.status().await.lanes[0].lane;
    let mut count = 0;
    for message in messages(honest.target.space.id(), lane) {
        let whole = message.encode();
        for cut in 1..whole.len() {
            let mut wire = rogue.dial(&honest.target).await;
            wire.send_bytes(Class::Control, whole[..cut].to_vec());
            assert_eq!(wire.until_closed().await.1, MALFORMED, "{message:?} cut to {cut} bytes");
            count += 1;
        }
    }
    println!("{count} messages cut short");
    honest.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_without_the_key_of_the_ticket_is_sent_nothing() {
    let honest = Honest::pair().await;
    let stranger = Stranger::new([10; 32]);
    let mut ticket = honest.target.ticket();
    ticket.replica = stranger.id();
    // At the transport, where the reason shows.
    let dialer = Stranger::new([11; 32]);
    let refused = dialer.try_dial_as(&honest.target, PeerKey(stranger.id().0)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::WrongKey { .. }), "{refused}");
    // And by a whole replica, which goes on with the right ticket.
    let late = Region::founder().await;
    late.replica.connect(&ticket).await.unwrap();
    honest.unharmed().await;
    let space = late.replica.connect(&honest.target.space.invite().await.unwrap()).await.unwrap();
    let token = honest.target.space.token().await.unwrap();
    space.at_within(&token, PATIENCE).await.unwrap();
    assert!(!late.replica.connected().contains(&stranger.id()));
}

/// A run that the target signed, for a relay to pass on.
struct Copied {
    lane: LaneId,
    first: u64,
    run: Vec<u8>,
}

/// Lets the target write while only the relay listens, and copies what it sends.
async fn copy_a_write(target: &Region, relay: &Stranger) -> Copied {
    let mut wire = relay.dial(target).await;
    let own = |lane: &&comity::LaneStatus| lane.is_own;
    let lane = target.status().await.lanes.iter().find(own).unwrap().lane;
    let stands = wire
        .find(|message| match message {
            Message::Open(open) => open.lanes.iter().find(|opened| opened.lane == lane).cloned(),
            _ => None,
        })
        .await;
    let opened = OpenLane { subscription: Some(0), ..stands };
    wire.send(&open(target.space.id(), vec![opened]));
    target.add_one().await.unwrap();
    let (first, run) = wire
        .find(|message| match message {
            Message::Data(data) => Some((data.first, data.bytes.to_vec())),
            _ => None,
        })
        .await;
    wire.hang_up();
    Copied { lane, first, run }
}

/// Connects as a relay that claims to hold the copied run, and waits for the subscription to it.
async fn offer(relay: &Stranger, victim: &Region, copied: &Copied) -> (Wire, u32) {
    let mut wire = relay.dial(victim).await;
    let claimed = OpenLane { lane: copied.lane, lsn: copied.first, hash: [0; 8], subscription: None };
    wire.send(&open(victim.space.id(), vec![claimed]));
    let subscription = wire
        .find(|message| match message {
            Message::Open(open) => open
                .lanes
                .iter()
                .find(|opened| opened.lane == copied.lane)
                .and_then(|opened| opened.subscription),
            Message::Subscribe(subscribe) if subscribe.lane == copied.lane => Some(subscribe.subscription),
            _ => None,
        })
        .await;
    (wire, subscription)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_cannot_change_move_or_repeat_what_the_owner_signed() {
    let Honest { target, other: victim, .. } = Honest::pair().await;
    let relay = rogue(&target, Stranger::new([12; 32])).await;
    converge(&[&target, &victim]).await;
    victim.replica.go_offline().await.unwrap();
    let copied = copy_a_write(&target, &relay).await;
    // Only offline, the owner would still be dialed, and tried again as the source of its lane.
    target.replica.clone().shutdown().await;
    victim.replica.go_online();
    let before = Holdings::of(&victim).await;
    let count = victim.count();
    let sound = |subscription| Data {
        subscription,
        more: false,
        awaited: false,
        ends: false,
        first: copied.first,
        bytes: &copied.run,
    };
    let signature = CloseCode(CloseReason::Signature as u32);
    for position in 0..copied.run.len() {
        let mut changed = copied.run.clone();
        changed[position] ^= 1 << (position % 8);
        let (mut wire, subscription) = offer(&relay, &victim, &copied).await;
        wire.send(&Message::Data(Data { bytes: &changed, ..sound(subscription) }));
        let (_, code) = wire.until_closed().await;
        assert!([MALFORMED, signature].contains(&code), "byte {position} changed closes with {code}");
    }
    for (first, expected) in [(copied.first + 1, CloseReason::LaneOrder), (1, CloseReason::LaneOrder)] {
        let (mut wire, subscription) = offer(&relay, &victim, &copied).await;
        wire.send(&Message::Data(Data { first, ..sound(subscription) }));
        assert_eq!(wire.until_closed().await.1, CloseCode(expected as u32));
    }
    let (mut wire, subscription) = offer(&relay, &victim, &copied).await;
    wire.send(&Message::Data(sound(subscription + 1)));
    assert_eq!(wire.until_closed().await.1, UNEXPECTED, "nobody asked for it");
    assert_eq!(Holdings::of(&victim).await, before);
    assert_eq!(victim.count(), count);

    // The very same bytes are good when nothing is done to them, once.
    let (mut wire, subscription) = offer(&relay, &victim, &copied).await;
    wire.send(&Message::Data(sound(subscription)));
    wire.send(&Message::Data(sound(subscription)));
    assert_eq!(wire.until_closed().await.1, CloseCode(CloseReason::LaneOrder as u32));
    regions::until(&victim.space, async |_| victim.count() == count + 1).await;
    let target = target.reopen().await;
    target.replica.connect(&victim.ticket()).await.unwrap();
    converge(&[&target, &victim]).await;
    assert_eq!(target.count(), count + 1);
}
