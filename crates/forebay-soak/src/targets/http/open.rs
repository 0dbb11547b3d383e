//! New connections: to where, and by what.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, drive};
use super::{ASK_TIME_MAX, Inner};
use crate::targets::address::Place;

impl Inner {
    /// A new connection, for gRPC or for HTTP/1.1.
    pub(super) async fn open(&self, place: &Place, grpc: bool) -> Result<Connection, String> {
        let strays = Arc::clone(&self.pool.strays);
        let opening = async {
            match place {
                Place::Unix(path) => {
                    let stream = UnixStream::connect(path).await;
                    let stream = stream.map_err(|error| error.to_string())?;
                    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
                    // A socket that the service manager opened is not that of the server's process.
                    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 1);
                    if let Some(pid) = pid {
                        self.peer.store(pid, Ordering::Relaxed);
                    }
                    drive(TokioIo::new(stream), grpc, strays).await
                }
                Place::Tcp(address) => drive(TokioIo::new(tcp(address).await?), grpc, strays).await,
                Place::Tls(address) => {
                    let tls = self.tls.as_ref().ok_or("there are no authorities")?;
                    let protocol: &[u8] = if grpc { b"h2" } else { b"http/1.1" };
                    let stream = tls.connect(tcp(address).await?, protocol).await?;
                    drive(TokioIo::new(stream), grpc, strays).await
                }
            }
        };
        let opened = tokio::time::timeout(ASK_TIME_MAX, opening).await;
        opened.unwrap_or_else(|_| Err(format!("no connection within {ASK_TIME_MAX:?}")))
    }
}

async fn tcp(address: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}
