//! A client of HTTP/2 that does exactly what it is told: frames as bytes, windows as it likes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::client::unix;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame that came.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Http2 {
    stream: UnixStream,
    next_id: u32,
}

impl Http2 {
    /// A connection whose streams may be sent so much at first.
    pub(crate) fn connect(path: &Path, window: u32) -> Self {
        let mut client = Self { stream: unix(path).expect("connects"), next_id: 1 };
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut setting = vec![0, 4];
        setting.extend(window.to_be_bytes());
        client.write(&frame(SETTINGS, 0, 0, &setting));
        client
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // What the daemon says to it is in what it answers.
        self.stream.write_all(bytes).ok();
    }

    /// Begins a request; gives the number of its stream. `more` are literal fields.
    pub(crate) fn request(&mut self, method: &str, path: &str, more: &[(&str, &str)]) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        // Of the static table: GET (2), POST (3), http (6), path (4), authority (1).
        let mut head = vec![if method == "GET" { 0x82 } else { 0x83 }, 0x86];
        for (index, value) in [(4, path), (1, "a")] {
            head.push(index);
            literal(&mut head, value);
        }
        for (name, value) in more {
            head.push(0);
            literal(&mut head, name);
            literal(&mut head, value);
        }
        let flags = END_HEADERS | if method == "GET" { END_STREAM } else { 0 };
        self.write(&frame(HEADERS, flags, id, &head));
        id
    }

    /// Allows so much more on a stream, or on all of them together (0).
    pub(crate) fn allow(&mut self, stream: u32, bytes: u32) {
        self.write(&frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()));
    }

    /// The next frame; pings and settings are answered. `None` at the end.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if has_ended(&error) => return None,
            Err(error) => panic!("the connection says nothing: {error}"),
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        if matches!(kind, PING | SETTINGS) && flags & ACK == 0 {
            let answer = if kind == PING { &payload[..] } else { &[] };
            self.write(&frame(kind, ACK, 0, answer));
        }
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of this kind on this stream.
    pub(crate) fn until(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.read().expect("the connection goes on");
            if (frame.kind, frame.stream) == (kind, stream) {
                return frame;
            }
        }
    }

    /// Bytes of the rest of an answer, to its end.
    pub(crate) fn rest(&mut self, stream: u32) -> usize {
        let mut bytes = 0;
        loop {
            let frame = self.until(DATA, stream);
            bytes += frame.payload.len();
            if frame.flags & END_STREAM != 0 {
                return bytes;
            }
        }
    }
}

fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

fn literal(head: &mut Vec<u8>, text: &str) {
    // Longer ones would have their length in several bytes.
    assert!(text.len() < 127);
    head.push(u8::try_from(text.len()).expect("short"));
    head.extend(text.as_bytes());
}
