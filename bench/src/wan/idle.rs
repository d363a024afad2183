//! What a connection costs that nobody uses.

use std::sync::Arc;

use comity_transport::{Connection, Endpoint, Identity, PeerKey, TransportConfig, Trust};

use crate::Failure;
use crate::machine::resident_bytes;

/// Lets everybody in.
struct Everyone;

impl Trust for Everyone {
    fn accepts(&self, _: &PeerKey) -> bool {
        true
    }
}

/// Resident bytes for each side of an idle connection with all its streams, from so many of them in this process.
pub(super) async fn bytes_each(connections: usize) -> Result<u64, Failure> {
    let config = TransportConfig { connections_max: connections + 1, ..TransportConfig::default() };
    let bind = |key: u8| {
        let (addr, identity) = ("127.0.0.1:0".parse()?, Identity::from_secret(&[key; 32]));
        Ok::<_, Failure>((
            identity.public(),
            Endpoint::bind(addr, &identity, Arc::new(Everyone), config.clone())?,
        ))
    };
    let ((_, dialer), (key, listener)) = (bind(1)?, bind(2)?);
    let mut held: Vec<Connection> = Vec::new();
    // The first ones make what all others share.
    let mut before = 0;
    for number in 0..connections {
        if number == connections / 10 {
            before = resident_bytes();
        }
        let (dialed, accepted) = tokio::join!(dialer.connect(listener.local_addr(), key), listener.accept());
        held.push(dialed?);
        held.push(accepted.ok_or("the listener is closed")??);
    }
    let sides = 2 * (connections - connections / 10) as u64;
    let bytes = resident_bytes().saturating_sub(before) / sides.max(1);
    drop(held);
    Ok(bytes)
}
