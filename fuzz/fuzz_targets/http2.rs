//! HTTP/2: what pods write, and when → the client over them.
//!
//! The first byte has options, the rest is a story of acts, each a byte and its arguments ([`Stage::act`]): requests,
//! frames on the last opened stream or another one, raw bytes, and ends of connections.
//!
//! Checked: no panic, no hang, no task left; a caller never sees another's secret; pods read only callers' requests
//! with their own bodies; and no request is read twice if it must not be repeated, unless a pod has said that it wasn't
//! processed.
//!
//! A request's secret is a hash of the whole input, so that no input can contain it. It appears only in what a pod
//! writes for that request.

#![no_main]

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use tower_headless::http::Protocol;
use tower_headless_fuzz::{
    callers::{Callers, Kind, MOST},
    frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Requests, SETTINGS,
        WINDOW_UPDATE, field, frame,
    },
    input::Input,
    pods::{Pods, Stream},
    runtime::{real, settle},
};

/// `:status: 200` (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let options = input.byte();
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    let seed = hasher.finish();
    real(async move {
        let pods = Pods::new(if options & 1 == 0 { 1 } else { 2 });
        let connections = if options & 2 == 0 { 8 } else { 1 };
        let patience = Duration::from_millis(if options & 4 == 0 { 0 } else { 5 });
        let client = pods.client(Protocol::Http2, connections, patience);
        let secrets: Vec<_> = (0..MOST).map(|number| secret(seed, number)).collect();
        let check = move |number, bytes: &[u8]| {
            for (other, secret) in secrets.iter().enumerate() {
                let has = bytes.windows(secret.len()).any(|window| window == *secret);
                assert!(
                    !has || other == usize::from(number),
                    "request {number} has {other}'s"
                );
            }
        };
        let stage = Stage {
            seed,
            callers: Callers::new(client, Arc::new(check)),
            pods,
            connections: Vec::new(),
            current: 0,
            seen: BTreeSet::new(),
            greets: options & 8 == 0,
            acknowledges: options & 16 == 0,
            excuses: false,
        };
        stage.play(input).await;
    });
});

fn secret(seed: u64, number: u8) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    (seed, number).hash(&mut hasher);
    // Visible characters, because it is used in header values.
    hasher.finish().to_be_bytes().map(|byte| b'A' + byte % 26)
}

struct Connection {
    stream: Stream,
    requests: Requests,
    /// Raw bytes have been written. They may change what later frames mean, so those carry no secrets.
    is_raw: bool,
    /// The streams that were answered by `finish`.
    finished: BTreeSet<u32>,
}

impl Connection {
    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.stream.write(&frame(kind, flags, stream, payload));
    }

    /// The secret of the request on a stream; empty if the frame must not carry one.
    fn secret(&self, seed: u64, stream: u32) -> Vec<u8> {
        let number = self.requests.streams.get(&stream).filter(|_| !self.is_raw);
        number.map_or_else(Vec::new, |&number| secret(seed, number).to_vec())
    }
}

struct Stage {
    seed: u64,
    pods: Pods,
    callers: Callers,
    connections: Vec<Connection>,
    /// The connection that acts apply to: the one with the latest request, unless an act chooses another.
    current: usize,
    /// The requests that pods have read.
    seen: BTreeSet<u8>,
    /// Whether pods send their SETTINGS by themselves (`greets`), and acknowledge the client's SETTINGS and pings
    /// (`acknowledges`).
    greets: bool,
    acknowledges: bool,
    /// A pod may have said that it hasn't processed a request.
    excuses: bool,
}

impl Stage {
    async fn play(mut self, mut input: Input<'_>) {
        for _ in 0..120 {
            if input.is_empty() {
                break;
            }
            if self.act(&mut input) {
                settle().await;
                self.listen();
            }
        }
        self.finish().await;
        drop((self.pods, self.connections));
        self.callers.end().await;
    }

    /// Answers every request, in the end on new connections. Since pods serve, all requests must end.
    async fn finish(&mut self) {
        (self.greets, self.acknowledges) = (true, true);
        for round in 0..20 {
            self.callers.go_on();
            settle().await;
            self.listen();
            for connection in &mut self.connections {
                let streams: Vec<_> = connection.requests.streams.keys().copied().collect();
                for stream in streams {
                    if !connection.finished.insert(stream) {
                        continue;
                    }
                    let secret = connection.secret(self.seed, stream);
                    let head = [&[STATUS_200], &*field("m", &secret)].concat();
                    connection.write(HEADERS, END_HEADERS, stream, &head);
                    connection.write(DATA, END_STREAM, stream, &secret);
                }
            }
            if self.callers.have_ended() {
                return;
            }
            if round == 5 {
                self.connections.clear();
            }
        }
    }

    /// Accepts connections, and reads what has arrived.
    fn listen(&mut self) {
        for stream in self.pods.accept() {
            self.current = self.connections.len();
            let mut connection = Connection {
                stream,
                requests: Requests::default(),
                is_raw: false,
                finished: BTreeSet::new(),
            };
            if self.greets {
                connection.write(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 10]);
            }
            self.connections.push(connection);
        }
        for (at, connection) in self.connections.iter_mut().enumerate() {
            let stream = &mut connection.stream;
            stream.read();
            let kind = |number| self.callers.kind(number);
            while let Some(number) = connection.requests.next(&mut stream.unread, kind) {
                self.current = at;
                let is_repeatable = kind(number).is_some_and(Kind::is_repeatable);
                let may_come = self.seen.insert(number) || is_repeatable || self.excuses;
                assert!(may_come, "{number} was sent twice");
            }
            let acks = std::mem::take(&mut connection.requests.acks);
            if self.acknowledges && !acks.is_empty() {
                stream.write(&acks);
            }
        }
    }

    /// Does the next act. Returns true if the client must see it before the next one.
    fn act(&mut self, input: &mut Input<'_>) -> bool {
        let act = input.byte();
        let (act, which) = (act & 15, act >> 4);
        let current = self.current;
        match (act, self.connections.get_mut(current)) {
            (0, _) => {
                let kind = input.byte();
                self.callers.start(match Kind::of(kind & 0x3f) {
                    // A CONNECT has no path, by which pods identify requests.
                    Kind::Connect => Kind::Get,
                    kind => kind,
                });
                return kind & 0x40 == 0;
            }
            (15, _) => return true,
            (12, _) => {
                match which & 3 {
                    0 => self.callers.go_on(),
                    1 => self.callers.give_up(input.byte()),
                    2 => self.pods.refuse(input.byte().into()),
                    _ => self.current = usize::from(input.byte()) % self.connections.len().max(1),
                }
                return which & 4 == 0;
            }
            (_, None) => return false,
            (13, Some(connection)) => {
                match which & 3 {
                    0 => connection.stream.close(),
                    1 => connection.stream.reset(),
                    _ => connection.stream.finish(),
                }
                return which & 4 == 0;
            }
            (_, Some(connection)) => {
                self.excuses |= answer(connection, act, which, self.seed, input)
            }
        }
        false
    }
}

/// Writes something. Returns true if it may say that a request hasn't been processed.
fn answer(
    connection: &mut Connection,
    act: u8,
    which: u8,
    seed: u64,
    input: &mut Input<'_>,
) -> bool {
    let (which, last) = (which & 7, which & 8 != 0);
    let stream = choose(connection, which);
    let end = if last { END_STREAM } else { 0 };
    let secret = connection.secret(seed, stream);
    match act {
        // A correct response head.
        1 => {
            let block = [&[STATUS_200], &*field("m", &secret)].concat();
            connection.write(HEADERS, END_HEADERS | end, stream, &block);
        }
        // A response body.
        2 => {
            let times = usize::from(input.byte());
            connection.write(DATA, end, stream, &secret.repeat(times));
        }
        // Any header block, including 1xx and strange ones.
        3 => {
            let flags = input.byte();
            let length = usize::from(input.byte() & 63);
            let payload = input.bytes(length);
            connection.write(HEADERS, flags, stream, payload);
        }
        4 => {
            let code = input.byte();
            connection.write(RST_STREAM, 0, stream, &[0, 0, 0, code]);
            return true;
        }
        5 => {
            let setting = |_| {
                let (name, value) = (input.byte(), input.byte());
                let value = (u32::from(value & 15)) << (u32::from(value >> 4) * 2);
                [&[0, name][..], &value.to_be_bytes()].concat()
            };
            let settings: Vec<_> = (0..which).flat_map(setting).collect();
            connection.write(SETTINGS, u8::from(last), 0, &settings);
        }
        6 => connection.write(PING, u8::from(last), 0, &[which; 8]),
        7 => {
            let code = input.byte();
            let payload = [&stream.to_be_bytes()[..], &[0, 0, 0, code]].concat();
            connection.write(GOAWAY, 0, 0, &payload);
            return true;
        }
        8 => {
            let increment = 1_u32 << (input.byte() & 31);
            connection.write(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
        }
        // Any frame. It counts as raw, because it may lie about itself, such as about its padding.
        9 => {
            let (kind, flags, length) = (input.byte(), input.byte(), input.byte());
            let payload = input.bytes(length.into());
            connection.is_raw = true;
            connection.write(kind, flags, stream, payload);
            return true;
        }
        10 => {
            let length = input.byte();
            connection.is_raw = true;
            connection.stream.write(input.bytes(length.into()));
            return true;
        }
        // Trailers.
        11 => connection.write(HEADERS, END_HEADERS | end, stream, &field("m", &secret)),
        // A whole response at once.
        _ => {
            let block = [&[STATUS_200], &*field("m", &secret)].concat();
            connection.write(HEADERS, END_HEADERS, stream, &block);
            connection.write(DATA, END_STREAM, stream, &secret);
        }
    }
    false
}

/// The stream that `which` selects.
fn choose(connection: &Connection, which: u8) -> u32 {
    let mut streams = connection.requests.streams.keys();
    let newest = streams.next_back().copied();
    match which {
        0 => newest.unwrap_or(1),
        1 => 0,
        2 => streams.next_back().copied().unwrap_or(1),
        3 => streams.next().copied().unwrap_or(1),
        4 => newest.map_or(1, |newest| newest + 2),
        5 => 2,
        6 => 0x7fff_ffff,
        _ => streams.nth(1).copied().unwrap_or(3),
    }
}
