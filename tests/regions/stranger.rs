//! A peer that speaks the transport but is no replica: it says what it likes.

use std::sync::Arc;

use bytes::Bytes;
use comity::{ReplicaId, Ticket};
use comity_engine::wire::{Hello, Message, PROTOCOL_VERSION};
use comity_transport::{
    Class, CloseCode, CloseReason, ConnectError, Connection, ConnectionHandle, Endpoint, FrameReceiver,
    FrameSender, Identity, PeerKey, RecvError, TransportConfig, Trust,
};

use super::{Region, loopback, within};

struct Nobody;

impl Trust for Nobody {
    fn accepts(&self, _peer: &PeerKey) -> bool {
        false
    }
}

/// A key and a socket.
pub(crate) struct Stranger {
    identity: Identity,
    endpoint: Endpoint,
}

impl Stranger {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self::with_config(secret, TransportConfig::default())
    }

    pub(crate) fn with_config(secret: [u8; 32], config: TransportConfig) -> Self {
        let identity = Identity::from_secret(&secret);
        let endpoint = Endpoint::bind(loopback(0), &identity, Arc::new(Nobody), config).unwrap();
        Self { identity, endpoint }
    }

    pub(crate) fn id(&self) -> ReplicaId {
        ReplicaId(self.identity.public().0)
    }

    /// Dials and waits until the region has accepted this key.
    pub(crate) async fn try_dial(&self, region: &Region) -> Result<Connection, ConnectError> {
        self.try_dial_as(region, PeerKey(region.id().0)).await
    }

    /// As [`Stranger::try_dial`], of whoever holds `expected`.
    pub(crate) async fn try_dial_as(
        &self,
        region: &Region,
        expected: PeerKey,
    ) -> Result<Connection, ConnectError> {
        let address = region.ticket().addresses[0];
        within("the dial", self.endpoint.connect(address, expected)).await
    }

    /// As [`Stranger::try_dial`], of the replica a ticket names.
    pub(crate) async fn dial_ticket(&self, ticket: &Ticket) -> Result<Connection, ConnectError> {
        self.endpoint.connect(ticket.addresses[0], PeerKey(ticket.replica.0)).await
    }

    /// A connection on which this peer has said hello.
    pub(crate) async fn dial(&self, region: &Region) -> Wire {
        let connection = self.try_dial(region).await.unwrap();
        let handle = connection.handle();
        let (sender, receiver) = connection.split();
        let mut wire = Wire { sender, receiver, handle };
        wire.send(&Message::Hello(hello()));
        wire
    }
}

pub(crate) fn hello() -> Hello {
    Hello { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION, wall_ms: 0 }
}

/// A connection to a region.
pub(crate) struct Wire {
    sender: FrameSender,
    receiver: FrameReceiver,
    handle: ConnectionHandle,
}

impl Wire {
    pub(crate) fn send(&mut self, message: &Message<'_>) {
        let class = if matches!(message, Message::Data(_)) { Class::Live } else { Class::Control };
        self.send_bytes(class, message.encode());
    }

    pub(crate) fn send_bytes(&mut self, class: Class, frame: Vec<u8>) {
        self.sender.try_send(class, Bytes::from(frame)).unwrap();
    }

    /// The next frame, or why there is none.
    pub(crate) async fn receive(&mut self) -> Result<Bytes, RecvError> {
        within("the next frame", self.receiver.recv()).await.map(|(_, frame)| frame)
    }

    /// The next frame that `pick` wants; others are passed over.
    pub(crate) async fn find<T>(&mut self, mut pick: impl FnMut(&Message<'_>) -> Option<T>) -> T {
        loop {
            let frame = self.receive().await.expect("the connection is open");
            if let Some(found) = pick(&Message::decode(&frame).unwrap()) {
                return found;
            }
        }
    }

    /// Everything that comes until the region closes the connection, and the code it closes with.
    pub(crate) async fn until_closed(mut self) -> (Vec<Bytes>, CloseCode) {
        let mut frames = Vec::new();
        loop {
            match self.receive().await {
                Ok(frame) => frames.push(frame),
                Err(RecvError::Closed(CloseReason::Peer { code, .. })) => return (frames, code),
                Err(error) => panic!("the region does not say why: {error}"),
            }
        }
    }

    /// Ends the connection from this side.
    pub(crate) fn hang_up(self) {
        self.handle.close(CloseCode::NORMAL, "");
    }
}
