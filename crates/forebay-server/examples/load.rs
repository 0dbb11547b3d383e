//! A generator of load over HTTP/1.1 keep-alive connections that leaves the machine to the daemon: one
//! thread, requests made before the start, answers looked at as far as their length and status.
//!
//! `cargo run --release -p forebay-server --example load -- --to unix:/run/forebay/forebay.sock
//! --input sentences.txt --clients 16 --seconds 10 [--rate 500] [--warm 1] [--deadline-ms 1000]`
//!
//! Without `--rate` each client asks again as soon as it has its answer. With it, requests are due at
//! even times whether or not answers come, and the clients take turns; what none of them is free for
//! waits, and its latency counts from when it was due. Prints one JSON object; latencies are milliseconds.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints its figures")]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};

/// Bytes of an answer at most; a vector of 4,096 numbers is smaller.
const ANSWER_BYTES_MAX: usize = 1 << 17;

/// Requests that come due within this time are sent together, and answers looked at together: each
/// look interrupts the daemon on the same processors. Latencies include it.
const TICK: Duration = Duration::from_millis(1);

struct Arguments {
    to: String,
    input: String,
    clients: usize,
    seconds: f64,
    warm: f64,
    rate: Option<f64>,
    deadline_ms: Option<u32>,
    encoding: String,
    key: Option<String>,
}

impl Arguments {
    fn read() -> Result<Self, String> {
        let all: Vec<String> = std::env::args().skip(1).collect();
        let mut named = BTreeMap::new();
        for pair in all.chunks(2) {
            let [name, value] = pair else { return Err(format!("{pair:?} has no value")) };
            named.insert(name.trim_start_matches('-').to_owned(), value.clone());
        }
        let mut take = |name: &str| named.remove(name);
        let number = |value: Option<String>| match value {
            Some(text) => text.parse::<f64>().map(Some).map_err(|_| format!("{text} is no number")),
            None => Ok(None),
        };
        let arguments = Self {
            to: take("to").ok_or("--to unix:PATH or --to ADDRESS:PORT is missing")?,
            input: take("input").ok_or("--input FILE is missing")?,
            clients: number(take("clients"))?.unwrap_or(1.0) as usize,
            seconds: number(take("seconds"))?.unwrap_or(5.0),
            warm: number(take("warm"))?.unwrap_or(1.0),
            rate: number(take("rate"))?.filter(|rate| *rate > 0.0),
            deadline_ms: number(take("deadline-ms"))?.map(|ms| ms as u32),
            encoding: take("encoding").unwrap_or_else(|| "base64".to_owned()),
            key: take("key"),
        };
        match named.keys().next() {
            Some(unknown) => Err(format!("--{unknown} is not known")),
            None => Ok(arguments),
        }
    }

    /// Every request, whole.
    fn requests(&self) -> io::Result<Vec<Vec<u8>>> {
        let text = std::fs::read_to_string(&self.input)?;
        let request = |line: &str| {
            let (path, body) = match (self.deadline_ms, self.encoding.as_str()) {
                (Some(deadline_ms), encoding) => (
                    "/api/v1/embed",
                    json!({"text": line, "deadline_ms": deadline_ms, "encoding": encoding}),
                ),
                (None, "tei") => ("/embed", json!({"inputs": line})),
                (None, format) => {
                    ("/v1/embeddings", json!({"input": line, "encoding_format": format}))
                }
            };
            let body = body.to_string();
            let key = self.key.as_ref();
            let key =
                key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
            format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\n{key}content-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        Ok(text.lines().filter(|line| !line.is_empty()).map(request).collect())
    }
}

/// A connection that never blocks.
fn connect(to: &str) -> io::Result<OwnedFd> {
    if let Some(path) = to.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        return Ok(stream.into());
    }
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

/// One client: it has at most one request under way.
struct Client {
    socket: OwnedFd,
    answer: Vec<u8>,
    filled: usize,
    due: Instant,
    sent: Instant,
    is_busy: bool,
}

/// What came of the requests that were answered within the time that is measured, whenever they were
/// due: as many are under way when it ends as when it begins.
#[derive(Default)]
struct Outcome {
    /// From when it was due to the answer, in microseconds, of those that were served.
    served_us: Vec<u32>,
    /// From sending to the refusal, of those that were refused for want of room.
    refused_us: Vec<u32>,
    /// Of those served, how many took longer from sending than the deadline that they named.
    beyond_deadline: u64,
    /// Any other status.
    failed: BTreeMap<u16, u64>,
    /// Connections that broke off.
    broken: u64,
    /// The longest that a request waited for a client to be free.
    late_start_us_max: u128,
}

struct Load {
    arguments: Arguments,
    requests: Vec<Vec<u8>>,
    next_request: usize,
    clients: Vec<Client>,
    epoll: OwnedFd,
    outcome: Outcome,
    measured_from: Instant,
    end: Instant,
}

impl Load {
    fn new(arguments: Arguments) -> io::Result<Self> {
        let requests = arguments.requests()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = Instant::now();
        let mut clients = Vec::new();
        for number in 0..arguments.clients {
            let socket = connect(&arguments.to)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
            let answer = vec![0; ANSWER_BYTES_MAX];
            clients.push(Client { socket, answer, filled: 0, due: now, sent: now, is_busy: false });
        }
        let measured_from = now + Duration::from_secs_f64(arguments.warm);
        let end = measured_from + Duration::from_secs_f64(arguments.seconds);
        let outcome = Outcome::default();
        Ok(Self {
            arguments,
            requests,
            next_request: 0,
            clients,
            epoll,
            outcome,
            measured_from,
            end,
        })
    }

    /// Sends the next request by a client that is free.
    fn send(&mut self, number: usize, due: Instant) -> io::Result<()> {
        let request = &self.requests[self.next_request % self.requests.len()];
        self.next_request += 1;
        let client = &mut self.clients[number];
        client.due = due;
        client.sent = Instant::now();
        client.is_busy = true;
        client.filled = 0;
        if due >= self.measured_from {
            let late = client.sent.saturating_duration_since(due).as_micros();
            self.outcome.late_start_us_max = self.outcome.late_start_us_max.max(late);
        }
        let mut rest = request.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&client.socket, rest) {
                Ok(written) => rest = &rest[written..],
                // A request is far smaller than the buffer of a socket.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => std::thread::yield_now(),
                Err(_) => return self.reconnect(number),
            }
        }
        Ok(())
    }

    /// Replaces a connection that broke off, with the request that was on it lost.
    fn reconnect(&mut self, number: usize) -> io::Result<()> {
        let socket = connect(&self.arguments.to)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        let client = &mut self.clients[number];
        self.outcome.broken += u64::from(client.is_busy);
        client.socket = socket;
        client.is_busy = false;
        Ok(())
    }

    /// Reads what has come for a client; whether its answer is whole, or it is free for another
    /// reason.
    fn receive(&mut self, number: usize) -> io::Result<bool> {
        let client = &mut self.clients[number];
        match rustix::io::read(&client.socket, &mut client.answer[client.filled..]) {
            Ok(0) => return self.reconnect(number).map(|()| true),
            Ok(read) => client.filled += read,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
            Err(_) => return self.reconnect(number).map(|()| true),
        }
        let Some((status, length)) = whole(&client.answer[..client.filled]) else {
            return Ok(false);
        };
        if length != client.filled {
            let message = format!("{} bytes of an answer of {length}", client.filled);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        client.is_busy = false;
        let now = Instant::now();
        let since = |start: Instant| u32::try_from((now - start).as_micros()).unwrap_or(u32::MAX);
        let (from_due, from_sent) = (since(client.due), since(client.sent));
        if now >= self.measured_from && now <= self.end {
            match status {
                200 => {
                    self.outcome.served_us.push(from_due);
                    let limit = self.arguments.deadline_ms.map(|ms| ms.saturating_mul(1_000));
                    let is_beyond = limit.is_some_and(|limit| from_sent > limit);
                    self.outcome.beyond_deadline += u64::from(is_beyond);
                }
                429 | 503 => self.outcome.refused_us.push(from_sent),
                other => *self.outcome.failed.entry(other).or_default() += 1,
            }
        }
        Ok(true)
    }

    fn run(&mut self) -> io::Result<()> {
        let start = Instant::now();
        let every = self.arguments.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut free: VecDeque<usize> = (0..self.clients.len()).collect();
        let mut due = start;
        let mut events = Vec::with_capacity(self.clients.len().max(1));
        loop {
            let now = Instant::now();
            if now >= self.end {
                return Ok(());
            }
            while every.is_none() || due <= now {
                let Some(number) = free.pop_front() else { break };
                self.send(number, if every.is_some() { due } else { Instant::now() })?;
                if !self.clients[number].is_busy {
                    free.push_back(number);
                }
                due += every.unwrap_or_default();
            }
            let until = match every {
                Some(_) if !free.is_empty() => due.min(self.end),
                _ => self.end,
            };
            let wait = until.saturating_duration_since(Instant::now());
            // Waiting for events is counted in milliseconds; for what is due sooner it looks every tick.
            let is_soon = wait < Duration::from_millis(2);
            let whole_ms =
                if is_soon { 0 } else { i64::try_from(wait.as_millis()).unwrap_or(1) - 1 };
            let timeout =
                Timespec { tv_sec: whole_ms / 1_000, tv_nsec: (whole_ms % 1_000) * 1_000_000 };
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
            if events.is_empty() && is_soon {
                std::thread::sleep(TICK);
            }
            for event in &events {
                let number = event.data.u64() as usize;
                // One that is free already may have lost its connection.
                let was_busy = self.clients[number].is_busy;
                if self.receive(number)? && was_busy {
                    free.push_back(number);
                }
            }
        }
    }

    fn report(&mut self) -> Value {
        let seconds = self.arguments.seconds;
        let Outcome { served_us, refused_us, beyond_deadline, failed, broken, late_start_us_max } =
            &mut self.outcome;
        let failed: BTreeMap<String, u64> =
            failed.iter().map(|(status, count)| (status.to_string(), *count)).collect();
        json!({
            "clients": self.arguments.clients,
            "rate": self.arguments.rate,
            "seconds": seconds,
            "served": served_us.len(),
            "served_per_s": served_us.len() as f64 / seconds,
            "latency_ms": percentiles(served_us),
            "beyond_deadline": beyond_deadline,
            "refused": refused_us.len(),
            "refusal_ms": percentiles(refused_us),
            "failed": failed,
            "broken": broken,
            "late_start_ms_max": *late_start_us_max as f64 / 1e3,
            "generator_cpu_share": cpu_seconds() / (seconds + self.arguments.warm),
        })
    }
}

/// The status and the length of an answer, if all of it is there.
fn whole(bytes: &[u8]) -> Option<(u16, usize)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok()).flatten()
    })?;
    (bytes.len() >= head + length).then_some((status, head + length))
}

fn percentiles(taken_us: &mut [u32]) -> Value {
    taken_us.sort_unstable();
    let Some(last) = taken_us.len().checked_sub(1) else { return Value::Null };
    let at = |share: f64| f64::from(taken_us[(share * last as f64).round() as usize]) / 1e3;
    json!({"p50": at(0.5), "p90": at(0.9), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)})
}

/// Processor time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = rest.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    // A hundred ticks are a second for every process on Linux.
    ticks.sum::<f64>() / 100.0
}

fn main() -> ExitCode {
    let loaded = Arguments::read().map_err(io::Error::other).and_then(|arguments| {
        let mut load = Load::new(arguments)?;
        load.run()?;
        Ok(load.report())
    });
    match loaded {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
