//! Talking to a daemon: over its Unix socket, or over TCP with or without TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::failure::Failure;

/// Where many systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Where a daemon is.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: bool },
}

/// A way to a daemon.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    target: Target,
    token: Option<String>,
    roots: Option<PathBuf>,
}

/// What a request is made of.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: Option<(&'a str, Vec<u8>)>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: None }
    }

    pub(crate) fn new(method: Method, path: impl Into<String>, json: &Value) -> Self {
        let body = Some(("application/json", json.to_string().into_bytes()));
        Self { method, path: path.into(), headers: Vec::new(), body }
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, path: path.into(), headers: Vec::new(), body: None }
    }

    /// Adds a header, when there is something to say.
    pub(crate) fn header(mut self, name: &'a str, value: Option<String>) -> Self {
        self.headers.extend(value.map(|value| (name, value)));
        self
    }
}

impl Client {
    /// A client for a URL, or for the Unix socket where none is given.
    ///
    /// # Errors
    /// [`Failure`] when the URL is none.
    pub(crate) fn new(
        url: Option<&str>,
        socket: &Path,
        token: Option<String>,
        roots: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let target = match url {
            None => Target::Unix(socket.to_owned()),
            Some(url) => parse_url(url)?,
        };
        Ok(Self { target, token, roots })
    }

    /// Asks, and waits for the head of the answer.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] when there is no daemon; a problem when the daemon says so.
    pub(crate) async fn send(&self, ask: Ask<'_>) -> Result<Response<Incoming>, Failure> {
        let request = self.request(ask)?;
        let response = match &self.target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.unreachable(&error))?;
                self.exchange(stream, request).await?
            }
            Target::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(|error| self.unreachable(&error))?;
                if *tls {
                    let connector = TlsConnector::from(Arc::new(self.trust()?));
                    let name = ServerName::try_from(host.clone());
                    let name = name.map_err(|_| Failure::usage(format!("{host:?} is no name of a host")))?;
                    let stream = connector.connect(name, stream).await;
                    self.exchange(stream.map_err(|error| self.unreachable(&error))?, request).await?
                } else {
                    self.exchange(stream, request).await?
                }
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        Err(Failure::problem(status, &body))
    }

    /// Asks, and reads the answer as JSON.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let response = self.send(ask).await?;
        let body = response.into_body().collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        let body = serde_json::from_slice(&body)
            .map_err(|error| Failure::other(format!("the daemon's answer is no JSON: {error}")))?;
        Ok(Answer { body })
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, Failure> {
        let host = match &self.target {
            Target::Unix(_) => "localhost".to_owned(),
            Target::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp { host, port, .. } => format!("{host}:{port}"),
        };
        let mut builder = Request::builder().method(ask.method).uri(ask.path).header(HOST, host);
        if let Some(token) = &self.token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in ask.headers {
            builder = builder.header(name, value);
        }
        let bytes = match ask.body {
            Some((kind, bytes)) => {
                builder = builder.header(CONTENT_TYPE, kind);
                bytes
            }
            None => Vec::new(),
        };
        builder.body(Full::from(bytes)).map_err(|error| Failure::usage(error.to_string()))
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        // It ends with the answer, or when nobody reads it any more.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|error| self.unreachable(&error))
    }

    fn trust(&self) -> Result<ClientConfig, Failure> {
        let mut roots = RootCertStore::empty();
        let files: Vec<PathBuf> = match &self.roots {
            Some(file) => vec![file.clone()],
            None => SYSTEM_ROOTS.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect(),
        };
        for file in files {
            let certificates = CertificateDer::pem_file_iter(&file)
                .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        }
        if roots.is_empty() {
            return Err(Failure::usage(
                "no certificate is trusted here: name a file of them with --ca".to_owned(),
            ));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::other(error.to_string()))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Failure {
        let (at, advice) = match &self.target {
            Target::Unix(path) => (
                path.display().to_string(),
                "start it with `comity serve`, or say where it is with --socket, --data-dir or --url",
            ),
            Target::Tcp { host, port, .. } => {
                (format!("{host}:{port}"), "check --url, and that the daemon runs there")
            }
        };
        Failure::Unreachable(format!("no daemon answers at {at} ({error}); {advice}"))
    }
}

/// What a daemon said.
pub(crate) struct Answer {
    pub(crate) body: Value,
}

fn parse_url(url: &str) -> Result<Target, Failure> {
    let wrong = || Failure::usage(format!("--url {url:?}: write http://HOST:PORT or https://HOST:PORT"));
    let (tls, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err(wrong()),
    };
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() || rest.contains('/') {
        return Err(wrong());
    }
    let default = if tls { 443 } else { 80 };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (rest, default),
    };
    Ok(Target::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port, tls })
}

/// A name as a segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && name.len() > 2) {
            out.push(char::from(byte));
        } else {
            use std::fmt::Write;
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_so_that_they_stay_one_segment() {
        assert_eq!(segment("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
        assert_eq!((segment(".."), segment("a.b")), ("%2E%2E".to_owned(), "a.b".to_owned()));
    }

    #[test]
    fn urls_name_a_host_and_a_port() {
        let parse = |url| format!("{:?}", parse_url(url).ok());
        assert_eq!(parse("http://[::1]:80/"), "Some(Tcp { host: \"::1\", port: 80, tls: false })");
        assert_eq!(
            parse("https://desk.example"),
            "Some(Tcp { host: \"desk.example\", port: 443, tls: true })"
        );
        for url in ["desk.example:80", "ftp://a", "http://a/b", "http://a:b", "http://"] {
            assert_eq!(parse(url), "None", "{url}");
        }
    }
}
