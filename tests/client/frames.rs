//! HTTP/2 frame by frame (RFC 9113 §4.1), for pods that do what no library would.

// `pub` marks what other test files use; no other crate can reach it.
#![allow(unreachable_pub)]

use tokio::io::{AsyncRead, AsyncWrite};

use crate::kit::Peer;

const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PREFACE: usize = 24;

pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

pub struct Frame {
    pub kind: u8,
    flags: u8,
    pub stream: u32,
    payload: Vec<u8>,
}

/// The pod's end of an HTTP/2 connection.
pub struct Frames<S>(pub Peer<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Greets the client, and allows it this many streams at once.
    pub async fn greet(mut peer: Peer<S>, streams: Option<u32>) -> Self {
        peer.bytes::<PREFACE>().await;
        let mut settings = Vec::new();
        if let Some(streams) = streams {
            settings.extend([0, 3]); // SETTINGS_MAX_CONCURRENT_STREAMS
            settings.extend(streams.to_be_bytes());
        }
        let mut frames = Self(peer);
        frames.write(SETTINGS, 0, 0, &settings).await;
        frames
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame");
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write(frame).await;
    }

    /// Waits for something to read, and reads nothing, so it may be cancelled.
    pub async fn arrived(&mut self) {
        self.0.arrived().await;
    }

    /// One frame, or none if the connection ends first.
    pub async fn try_frame(&mut self) -> Option<Frame> {
        if !self.0.is_open().await {
            return None;
        }
        Some(self.frame().await)
    }

    /// Reads one frame. Acknowledges settings and pings.
    pub async fn frame(&mut self) -> Frame {
        let head: [u8; 9] = self.0.bytes().await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = Vec::new();
        for _ in 0..length {
            payload.extend(self.0.bytes::<1>().await);
        }
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.write(SETTINGS, ACK, 0, &[]).await;
        }
        if frame.kind == PING && frame.flags & ACK == 0 {
            self.write(PING, ACK, 0, &frame.payload).await;
        }
        frame
    }

    /// Waits for the next stream that the client opens; skips frames of others.
    pub async fn stream(&mut self) -> u32 {
        loop {
            let frame = self.frame().await;
            if frame.kind == HEADERS {
                return frame.stream;
            }
        }
    }

    /// Waits for the end of what the client sends on a stream.
    pub async fn end_of(&mut self, stream: u32) {
        loop {
            let frame = self.frame().await;
            let has_end = matches!(frame.kind, DATA | HEADERS);
            if has_end && frame.stream == stream && frame.flags & END_STREAM != 0 {
                return;
            }
        }
    }

    /// Answers 200 without a body.
    pub async fn ok(&mut self, stream: u32) {
        let status_200 = 0x88; // RFC 7541, appendix A
        let end = END_STREAM | END_HEADERS;
        self.write(HEADERS, end, stream, &[status_200]).await;
    }

    /// Answers 200 and two bytes of a body that goes on.
    pub async fn begin(&mut self, stream: u32) {
        let status_200 = 0x88; // RFC 7541, appendix A
        self.write(HEADERS, END_HEADERS, stream, &[status_200])
            .await;
        self.write(DATA, 0, stream, b"ab").await;
    }

    /// Ends a body that `begin` has begun.
    pub async fn finish(&mut self, stream: u32) {
        self.write(DATA, END_STREAM, stream, b"cd").await;
    }

    /// Sends an informational head, 103.
    pub async fn early_hints(&mut self, stream: u32) {
        // A literal `:status` (RFC 7541 §6.2.2).
        self.write(HEADERS, END_HEADERS, stream, b"\x08\x03103")
            .await;
    }

    /// Answers 200 with a header of 2 KiB, and a body that goes on.
    pub async fn large(&mut self, stream: u32) {
        let status_200 = 0x88; // RFC 7541, appendix A
        // A literal name and value, and 2048 in a prefix of 7 bits (RFC 7541 §5.1).
        let mut head = vec![status_200, 0, 1, b'a', 0x7f, 0x81, 0x0f];
        head.extend([b'b'; 2048]);
        self.write(HEADERS, END_HEADERS, stream, &head).await;
    }

    /// Waits for the client to reset a stream, and returns why.
    pub async fn reset_of(&mut self, stream: u32) -> u32 {
        loop {
            let frame = self.frame().await;
            if frame.kind == RST_STREAM && frame.stream == stream {
                let reason = frame.payload.try_into().expect("four bytes");
                return u32::from_be_bytes(reason);
            }
        }
    }

    pub async fn reset(&mut self, stream: u32, reason: u32) {
        let reason = reason.to_be_bytes();
        self.write(RST_STREAM, 0, stream, &reason).await;
    }

    pub async fn go_away(&mut self, last: u32, reason: u32) {
        let payload = [last.to_be_bytes(), reason.to_be_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }
}
