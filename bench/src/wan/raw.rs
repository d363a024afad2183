//! Plain QUIC over a path: one stream, no frames, no storage. What is left of it with Comity on top is the measure.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use comity_path::{Conditions, Path};
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::udp::UdpSocketState;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};

use crate::{Failure, quic};

/// What is written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// How a connection is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) is_bbr: bool,
    /// For one stream, and for all of them; quinn's own where none are given.
    pub(super) windows: Option<(usize, usize)>,
}

impl Setup {
    fn quic(self) -> TransportConfig {
        let mut quic = TransportConfig::default();
        match self.is_bbr {
            true => quic.congestion_controller_factory(Arc::new(BbrConfig::default())),
            false => quic.congestion_controller_factory(Arc::new(CubicConfig::default())),
        };
        if let Some((stream, all)) = self.windows {
            quic.stream_receive_window(VarInt::from_u32(stream as u32))
                .receive_window(VarInt::from_u32(all as u32))
                .send_window(all as u64);
        }
        quic
    }
}

/// What a transfer came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// Sends `bytes` one way, or as many as arrive within `at_most`, counted from the first byte written.
pub(super) async fn transfer(
    conditions: Conditions,
    setup: Setup,
    (bytes, at_most): (u64, Duration),
) -> Result<Transfer, Failure> {
    let server = server(setup)?;
    let path = Path::to(server.local_addr()?, conditions, 1)?;
    let arrived = Arc::new(AtomicU64::new(0));
    let (counter, acceptor) = (Arc::clone(&arrived), server.clone());
    let receiving = tokio::spawn(async move {
        let connection = acceptor.accept().await?.await.ok()?;
        let mut stream = connection.accept_uni().await.ok()?;
        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
            counter.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
        }
        Some(())
    });
    let client = client(setup)?;
    let connection = client.connect(path.near(), "any.invalid")?.await?;
    let mut stream = connection.open_uni().await?;
    let started = Instant::now();
    let sending = async {
        let block = Bytes::from(vec![0x5a; WRITE_BYTES]);
        for _ in 0..bytes.div_ceil(WRITE_BYTES as u64) {
            stream.write_chunk(block.clone()).await?;
        }
        stream.finish()?;
        receiving.await?.ok_or("nothing was accepted")?;
        Ok::<_, Failure>(())
    };
    if let Ok(sent) = tokio::time::timeout(at_most, sending).await {
        sent?;
    }
    let transfer = Transfer { bytes: arrived.load(Ordering::Relaxed), took: started.elapsed() };
    client.close(VarInt::from_u32(0), b"");
    server.close(VarInt::from_u32(0), b"");
    Ok(transfer)
}

fn server(setup: Setup) -> Result<Endpoint, Failure> {
    let mut config = quic::server()?;
    config.transport_config(Arc::new(setup.quic()));
    endpoint(Some(config))
}

fn client(setup: Setup) -> Result<Endpoint, Failure> {
    let mut config = quic::client()?;
    config.transport_config(Arc::new(setup.quic()));
    let mut endpoint = endpoint(None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// One with the buffers in the kernel that replicas have.
fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (state, bytes) =
        (UdpSocketState::new((&socket).into())?, comity::TransportConfig::default().socket_bytes);
    state.set_recv_buffer_size((&socket).into(), bytes)?;
    state.set_send_buffer_size((&socket).into(), bytes)?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))?)
}
