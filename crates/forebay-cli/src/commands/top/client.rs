//! Asks a daemon: one connection a look, over a unix socket or TCP, with a bound on time and size.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exposition::Exposition;
use super::sample::Sample;
use crate::failure::{Exit, Failure};

/// Time for a look.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of one answer.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events of one look.
const EVENTS: usize = 50;

/// Where a daemon is asked.
pub(super) struct Source {
    place: Place,
    host: HeaderValue,
    key: Option<HeaderValue>,
}

enum Place {
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

impl Source {
    pub(super) fn unix(path: PathBuf) -> Self {
        Self { place: Place::Unix(path), host: HeaderValue::from_static("localhost"), key: None }
    }

    /// A daemon at an `http://` address.
    ///
    /// # Errors
    /// It is another kind of address.
    pub(super) fn url(url: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::new(Exit::Usage, format!("`{url}` is not an address that can be asked"))
                .help("write http://HOST:PORT; where the daemon has TLS, ask its unix socket")
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or_else(wrong)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok(Self { place: Place::Tcp(address), host, key: None })
    }

    /// The same, with the key that the daemon asks for.
    ///
    /// # Errors
    /// No header can have this as a key.
    pub(super) fn with_key(self, key: &str) -> Result<Self, Failure> {
        let header = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut header = header.map_err(|_| {
            Failure::new(Exit::BadInput, "the key has characters that no key can have")
                .help("the file should hold the key and nothing else")
        })?;
        header.set_sensitive(true);
        Ok(Self { key: Some(header), ..self })
    }

    /// Everything that is shown, or why the daemon does not say it.
    pub(super) async fn look(&self) -> Result<Sample, String> {
        let look = async {
            match &self.place {
                Place::Unix(path) => self.ask(connected(UnixStream::connect(path).await)?).await,
                Place::Tcp(address) => {
                    self.ask(connected(TcpStream::connect(address).await)?).await
                }
            }
        };
        let look = tokio::time::timeout(LOOK_TIME_MAX, look).await;
        look.unwrap_or_else(|_| Err(format!("no answer within {LOOK_TIME_MAX:?}")))
    }

    async fn ask<S>(&self, stream: S) -> Result<Sample, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // What goes wrong with it is the error of the request, too.
        let task = tokio::spawn(async { connection.await.ok() });
        let status = self.get(&mut sender, "/api/v1/status").await;
        let looked = match status {
            Ok(status) => self.rest(&mut sender, &status).await,
            Err(reason) => Err(reason),
        };
        task.abort();
        looked
    }

    async fn rest(&self, sender: &mut Sender, status: &[u8]) -> Result<Sample, String> {
        let events = self.get(sender, &format!("/api/v1/events?limit={EVENTS}")).await?;
        let metrics = self.get(sender, "/metrics").await?;
        Sample::read(status, &events, Exposition::read(&String::from_utf8_lossy(&metrics)))
    }

    async fn get(&self, sender: &mut Sender, path: &str) -> Result<Bytes, String> {
        let mut request = Request::get(path).header(HOST, &self.host);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return Err("it asks for a key; name its file with --key-file FILE".to_owned());
            }
            status => return Err(format!("{path} is answered with {status}")),
        }
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|error| format!("{path} cannot be read: {error}"))?.to_bytes())
    }
}

type Sender = SendRequest<Empty<Bytes>>;

fn connected<S>(stream: std::io::Result<S>) -> Result<S, String> {
    stream.map_err(|error| format!("cannot connect: {error}"))
}
