//! Accepting connections: on TCP, with or without TLS, and on the Unix socket.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::StartError;
use crate::http::Via;

/// A pause after the operating system refused a connection, as when all descriptors are in use.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// A head of a request that is longer and not whole is refused, so that connections that are not known yet take little; up
/// to twice as much may have been read by then. What is longest in one is a token of a space with as many lanes as there
/// may be, of ten thousand bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// A socket that listens.
pub(crate) enum Listener {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix { listener: UnixListener, _file: SocketFile },
}

/// The file of a Unix socket, removed with it.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that stays is replaced by the next start.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    pub(crate) async fn tcp(address: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Self, StartError> {
        let listener = TcpListener::bind(address).await.map_err(|error| StartError::Http {
            at: address.to_string(),
            error,
            advice: "Choose another address in http.listen, or stop what listens there",
        })?;
        // TLS protects what leaves the machine.
        let tls = tls.filter(|_| !address.ip().is_loopback());
        Ok(Self::Tcp(listener, tls))
    }

    /// A socket that only this user can reach. Whoever calls holds the lock of the data directory, so a socket that is
    /// there is left from a process that was killed.
    pub(crate) fn unix(path: &Path) -> Result<Self, StartError> {
        let failed = |error| StartError::Http {
            at: path.display().to_string(),
            error,
            advice: "Choose a shorter or another path in http.unix, or \"\" for none",
        };
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self::Unix { listener, _file: file })
    }

    /// Where it listens, when that is an address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }
}

/// What connections are served with.
#[derive(Clone)]
pub(crate) struct Listening {
    pub(crate) router: Router,
    /// Connections that may be open on each socket, so that whoever uses up those of one leaves the others reachable.
    pub(crate) connections_max: usize,
    pub(crate) header_time_max: Duration,
    pub(crate) draining: watch::Receiver<bool>,
}

impl Listening {
    /// Serves until it is time to go down, and then until the last request under way is answered. Cancelling it cuts
    /// them.
    pub(crate) async fn run(self, listener: Listener) {
        let connections = Arc::new(Semaphore::new(self.connections_max));
        let mut open = JoinSet::new();
        let mut draining = self.draining.clone();
        loop {
            let permit = tokio::select! {
                biased;
                () = drained(&mut draining) => break,
                permit = Arc::clone(&connections).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { break };
            let accepted = tokio::select! {
                biased;
                () = drained(&mut draining) => break,
                accepted = self.accept(&listener, permit, &mut open) => accepted,
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            while open.try_join_next().is_some() {}
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn accept(
        &self,
        listener: &Listener,
        permit: OwnedSemaphorePermit,
        open: &mut JoinSet<()>,
    ) -> io::Result<()> {
        match listener {
            Listener::Tcp(listener, tls) => {
                let (stream, peer) = listener.accept().await?;
                let via = Via::Tcp { local: stream.local_addr()?, peer };
                // An answer is written at once, whole; nothing is gained by waiting for more.
                stream.set_nodelay(true)?;
                let this = self.clone();
                match tls.clone() {
                    None => open.spawn(this.serve(stream, via, permit)),
                    Some(tls) => open.spawn(async move {
                        match tokio::time::timeout(this.header_time_max, tls.accept(stream)).await {
                            Ok(Ok(stream)) => this.serve(stream, via, permit).await,
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                        }
                    }),
                };
            }
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                open.spawn(self.clone().serve(stream, Via::Unix, permit));
            }
        }
        Ok(())
    }

    async fn serve<S>(self, stream: S, via: Via, _permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = TowerToHyperService::new(self.router);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(via);
            routes.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_time_max)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let (mut connection, mut draining) = (pin!(connection), self.draining);
        let ended = tokio::select! {
            biased;
            () = drained(&mut draining) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            ended = connection.as_mut() => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

/// Waits until it is time to go down.
async fn drained(draining: &mut watch::Receiver<bool>) {
    // When nobody can say so any more, it is.
    let _ = draining.wait_for(|draining| *draining).await;
}
