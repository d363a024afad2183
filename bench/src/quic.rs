//! A bare QUIC stream on the loopback: what the network takes of what Comity does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use comity_path::{Conditions, Path, client, server};

use crate::Failure;
use crate::figures::Times;

/// Two QUIC endpoints on the loopback that trust each other, and what is sent between them.
pub(crate) struct Quic {
    client: quinn::Connection,
    server: quinn::Connection,
    // Connections end with their endpoints.
    _endpoints: [quinn::Endpoint; 2],
    _path: Option<Path>,
}

impl Quic {
    pub(crate) async fn connect() -> Result<Self, Failure> {
        Self::over(None).await
    }

    /// With a path between them.
    pub(crate) async fn over(conditions: Option<Conditions>) -> Result<Self, Failure> {
        let any: SocketAddr = "127.0.0.1:0".parse()?;
        let listening = quinn::Endpoint::server(server()?, any)?;
        let mut dialing = quinn::Endpoint::client(any)?;
        dialing.set_default_client_config(client()?);
        let path =
            conditions.map(|conditions| Path::to(listening.local_addr()?, conditions, 1)).transpose()?;
        let near = path.as_ref().map_or(listening.local_addr(), |path| Ok(path.near()))?;
        let connecting = dialing.connect(near, "localhost")?;
        let accepting = async { Ok::<_, Failure>(listening.accept().await.ok_or("nobody came")?.await?) };
        let (client, server) = tokio::join!(connecting, accepting);
        Ok(Self { client: client?, server: server?, _endpoints: [listening, dialing], _path: path })
    }

    /// How long so many bytes take on one stream, until the last was read.
    pub(crate) async fn transfer(&self, bytes: u64) -> Result<Duration, Failure> {
        const CHUNK: usize = 64 * 1024;
        let begun = Instant::now();
        let sending = async {
            let mut stream = self.client.open_uni().await?;
            let (chunk, mut left) = ([0xa5; CHUNK], bytes);
            while left > 0 {
                let now = left.min(CHUNK as u64) as usize;
                stream.write_all(&chunk[..now]).await?;
                left -= now as u64;
            }
            stream.finish()?;
            Ok::<_, Failure>(())
        };
        let receiving = async {
            let mut stream = self.server.accept_uni().await?;
            let mut received = 0;
            while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
                received += chunk.bytes.len() as u64;
            }
            Ok::<_, Failure>(received)
        };
        let (sent, received) = tokio::join!(sending, receiving);
        sent?;
        if received? == bytes { Ok(begun.elapsed()) } else { Err("the stream lost bytes".into()) }
    }

    /// How long a message of 300 bytes and its echo take, one after the other on one stream, with so much time between them.
    pub(crate) async fn pings(&self, count: usize, apart: Duration) -> Result<Times, Failure> {
        let server = self.server.clone();
        let echoing = tokio::spawn(async move {
            let (mut send, mut receive) = server.accept_bi().await.map_err(|error| error.to_string())?;
            let mut message = [0; 300];
            while receive.read_exact(&mut message).await.is_ok() {
                send.write_all(&message).await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
        let (mut send, mut receive) = self.client.open_bi().await?;
        let (mut message, mut times) = ([0xa5; 300], Times::default());
        for _ in 0..count {
            if !apart.is_zero() {
                tokio::time::sleep(apart).await;
            }
            let before = Instant::now();
            send.write_all(&message).await?;
            receive.read_exact(&mut message).await?;
            times.push(before.elapsed());
        }
        send.finish()?;
        echoing.await??;
        Ok(times)
    }
}
