//! A server with one planted fault, for tests of `forebay soak`: it embeds as the fake worker does,
//! and loses, swaps, doubles, delays or leaks on demand. The shipped program is `forebay`.
//!
//! `forebay-planted SOCKET FAULT` with FAULT one of those in [`Planted`].

#[path = "../support/vector.rs"]
mod vector;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Length of an embedding of the tiny model of the tests.
const WIDTH: usize = 32;
/// Which request of each [`EVERY`] is treated otherwise: an early one, which also a busy machine gets to.
const NTH: u64 = 100;
const EVERY: u64 = 10_000;
/// What one request leaks.
const LEAK_BYTES: usize = 1_024;
/// Time from the first request to the first stall, and from one to the next.
const STALL_AFTER: Duration = Duration::from_secs(4);
const STALL_EVERY: Duration = Duration::from_secs(30);

/// What is wrong with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// Each request leaks a KiB.
    Leak,
    /// One request in ten thousand has no answer.
    Drop,
    /// One request in ten thousand is answered twice, on its connection.
    Twice,
    /// One request in ten thousand has two vectors for its text.
    TwoRows,
    /// One request in ten thousand has the vector of another text.
    Swap,
    /// One request in ten fails.
    Fails,
    /// One request in ten thousand has a vector with a value that is no number.
    Null,
    /// Nothing is answered for so long, every half minute.
    Stall(Duration),
    /// One request in fifty leaves a process behind that has ended and is not waited for.
    Zombies,
    /// Each answer takes four seconds.
    Slow,
    /// One of two GPUs has been given up.
    Half,
    /// Its status cannot be read.
    Silent,
    /// After the first fault the level never comes back, though everything is answered.
    NeverHeals,
}

impl Planted {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "nothing" => Self::Nothing,
            "leak" => Self::Leak,
            "drop" => Self::Drop,
            "twice" => Self::Twice,
            "two_rows" => Self::TwoRows,
            "swap" => Self::Swap,
            "fails" => Self::Fails,
            "null" => Self::Null,
            "stall_200ms" => Self::Stall(Duration::from_millis(200)),
            "stall_1s" => Self::Stall(Duration::from_secs(1)),
            "zombies" => Self::Zombies,
            "slow" => Self::Slow,
            "half" => Self::Half,
            "silent" => Self::Silent,
            "never_heals" => Self::NeverHeals,
            _ => return None,
        })
    }
}

struct Server {
    planted: Planted,
    requests: AtomicU64,
    is_down: AtomicBool,
    first: std::sync::OnceLock<Instant>,
}

/// The vector of a text of the tiny model's words.
fn embedding(text: &str) -> Vec<f32> {
    let id = |word: &str| word.strip_prefix('w').and_then(|number| number.parse().ok());
    let ids = text.split_whitespace().map(|word| id(word).map_or(1, |number: u32| number + 4));
    let ids: Vec<u32> = std::iter::once(2).chain(ids).chain([3]).collect();
    vector::row(&ids, WIDTH).0
}

impl Server {
    async fn answer(&self, path: &str, body: &[u8]) -> Option<(Value, u32)> {
        match path {
            "/api/v1/embed" => self.embed(body).await,
            "/faults" => {
                self.is_down.store(self.planted == Planted::NeverHeals, Ordering::Relaxed);
                Some((json!({}), 1))
            }
            "/api/v1/status" if self.planted == Planted::Silent => Some((json!({}), 1)),
            "/api/v1/status" if self.planted == Planted::Half => {
                let worker = |device: &str, state: &str| json!({"device": device, "state": state});
                let workers = [worker("cuda:0", "serving"), worker("cuda:1", "quarantined")];
                Some((json!({"level": "gpu(1)", "workers": workers, "queues": []}), 1))
            }
            "/api/v1/status" => {
                let is_down = self.is_down.load(Ordering::Relaxed);
                let (level, state) = if is_down { ("down", "backoff") } else { ("cpu", "serving") };
                let worker = json!({"device": "cpu", "state": state, "incarnation": 1});
                Some((json!({"level": level, "workers": [worker], "queues": []}), 1))
            }
            _ => Some((json!({}), 1)),
        }
    }

    /// The answer and how often it is given; `None` for no answer at all.
    async fn embed(&self, body: &[u8]) -> Option<(Value, u32)> {
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let texts = request["texts"].as_array().cloned().unwrap_or_default();
        let mut rows: Vec<Vec<f32>> =
            texts.iter().map(|text| embedding(text.as_str().unwrap_or_default())).collect();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let is_chosen = number % EVERY == NTH;
        let mut times = 1;
        match self.planted {
            Planted::Leak => {
                Vec::leak(vec![1_u8; LEAK_BYTES]);
            }
            Planted::Drop if is_chosen => return None,
            Planted::Twice if is_chosen => times = 2,
            Planted::TwoRows if is_chosen => rows.extend(rows.clone()),
            Planted::Swap if is_chosen => rows = vec![embedding("w1")],
            Planted::Null if is_chosen => {
                let mut answer = json!({"embeddings": rows});
                answer["embeddings"][0][0] = Value::Null;
                return Some((answer, 1));
            }
            Planted::Fails if number.is_multiple_of(10) => {
                return Some((json!({"error": {"code": "internal"}}), 1));
            }
            Planted::Zombies if number.is_multiple_of(50) => {
                std::process::Command::new("true").spawn().ok();
            }
            Planted::Slow => tokio::time::sleep(Duration::from_secs(4)).await,
            Planted::Stall(length) => self.stall(length).await,
            _ => {}
        }
        Some((json!({"embeddings": rows}), times))
    }

    async fn stall(&self, length: Duration) {
        let first = *self.first.get_or_init(Instant::now);
        let Some(since) = first.elapsed().checked_sub(STALL_AFTER) else { return };
        let into = Duration::from_nanos((since.as_nanos() % STALL_EVERY.as_nanos()) as u64);
        tokio::time::sleep(length.saturating_sub(into)).await;
    }

    async fn connection(&self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        loop {
            let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
            loop {
                line.clear();
                if read.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                let text = line.trim_end().to_ascii_lowercase();
                if text.is_empty() {
                    break;
                }
                if path.is_empty() {
                    path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                } else if let Some(value) = text.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            let mut body = vec![0; length];
            read.read_exact(&mut body).await?;
            let Some((answer, times)) = self.answer(&path, &body).await else {
                // The connection stays, and so does the silence.
                std::future::pending().await
            };
            let status = if answer["error"].is_null() { "200 OK" } else { "500 Error" };
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            for _ in 0..times {
                write.write_all((head.clone() + &answer).as_bytes()).await?;
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, planted] = arguments.as_slice() else { return ExitCode::from(64) };
    let Some(planted) = Planted::parse(planted) else { return ExitCode::from(64) };
    let Ok(listener) = UnixListener::bind(socket) else { return ExitCode::from(73) };
    let server = Arc::new(Server {
        planted,
        requests: AtomicU64::new(0),
        is_down: AtomicBool::new(false),
        first: std::sync::OnceLock::new(),
    });
    while let Ok((stream, _)) = listener.accept().await {
        let server = Arc::clone(&server);
        // A client that leaves ends its connection, and nothing else.
        drop(tokio::spawn(async move { server.connection(stream).await.ok() }));
    }
    ExitCode::FAILURE
}
