//! Plain QUIC over a path: one stream, no frames, no storage. What is left of it with something on top is the measure.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::udp::UdpSocketState;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};

use crate::{Conditions, Path, tls};

/// What is written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// How a connection is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// BBR as congestion controller, or else cubic.
    pub is_bbr: bool,
    /// For one stream, and for all of them; quinn's own where none are given.
    pub windows: Option<(usize, usize)>,
    /// The buffers in the kernel, each way.
    pub socket_bytes: usize,
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
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    /// How long that took.
    pub took: Duration,
}

impl Transfer {
    /// MiB a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.took.as_secs_f64()
    }
}

/// Sends `bytes` one way, or as many as arrive within `at_most`, counted from the first byte written.
///
/// # Errors
/// No socket, or the connection breaks.
pub async fn transfer(
    conditions: Conditions,
    setup: Setup,
    (bytes, at_most): (u64, Duration),
) -> io::Result<Transfer> {
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
    let connection = client.connect(path.near(), "any.invalid").map_err(io::Error::other)?.await?;
    let mut stream = connection.open_uni().await?;
    let started = Instant::now();
    let sending = async {
        let block = Bytes::from(vec![0x5a; WRITE_BYTES]);
        for _ in 0..bytes.div_ceil(WRITE_BYTES as u64) {
            stream.write_chunk(block.clone()).await?;
        }
        stream.finish().map_err(io::Error::other)?;
        receiving.await?.ok_or_else(|| io::Error::other("nothing was accepted"))?;
        Ok::<_, io::Error>(())
    };
    if let Ok(sent) = tokio::time::timeout(at_most, sending).await {
        sent?;
    }
    let transfer = Transfer { bytes: arrived.load(Ordering::Relaxed), took: started.elapsed() };
    client.close(VarInt::from_u32(0), b"");
    server.close(VarInt::from_u32(0), b"");
    Ok(transfer)
}

fn server(setup: Setup) -> io::Result<Endpoint> {
    let mut config = tls::server()?;
    config.transport_config(Arc::new(setup.quic()));
    endpoint(setup, Some(config))
}

fn client(setup: Setup) -> io::Result<Endpoint> {
    let mut config = tls::client()?;
    config.transport_config(Arc::new(setup.quic()));
    let mut endpoint = endpoint(setup, None)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

fn endpoint(setup: Setup, server: Option<ServerConfig>) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let state = UdpSocketState::new((&socket).into())?;
    state.set_recv_buffer_size((&socket).into(), setup.socket_bytes)?;
    state.set_send_buffer_size((&socket).into(), setup.socket_bytes)?;
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))
}
