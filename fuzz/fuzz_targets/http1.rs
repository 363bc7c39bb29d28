//! HTTP/1.1: what pods write, and when → the client over them.
//!
//! The first byte has options, the rest is a story. Bytes from 1 to 6 are its verbs; other bytes are what pods write:
//!
//! | byte | what it does |
//! | --- | --- |
//! | 1, and a kind | starts a request of that kind; with bit 6 of the kind, the next one at the same time |
//! | text, then 3, 4 or 5 | answers a request that a pod has read; then the connection stays open, is closed, or is reset |
//! | 2, in such a text | lets the client come to rest before the answer goes on |
//! | text, then 6 and a verb | see `Verb`; the text goes to a connection without a request |
//!
//! Bytes of 128 and above become the mark of the connection's last request, or the mark of nobody. Requests without an
//! answer in the story get a correct one.
//!
//! Checked: no panic, no hang, no task left; a caller never sees another's mark or nobody's; pods read only callers'
//! requests with their own bodies; no request is read twice if it must not be repeated; and none is read that the
//! client calls unexecuted.

#![no_main]

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use tower_headless::http::Protocol;
use tower_headless_fuzz::{
    callers::{Callers, Kind, mark},
    input::Input,
    pods::{Pods, Stream},
    requests::Requests,
    runtime::{real, settle},
};

const NOBODY: u8 = 0xff;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let options = input.byte();
    let story = Story::parse(input);
    real(async move {
        let pods = Pods::new(if options & 1 == 0 { 1 } else { 2 });
        let connections = if options & 2 == 0 { 8 } else { 1 };
        let patience = Duration::from_millis(if options & 4 == 0 { 0 } else { 5 });
        let client = pods.client(Protocol::Negotiated, connections, patience);
        let check = |number, bytes: &[u8]| {
            let others = |&&byte: &&u8| byte >= 0x80 && byte != mark(number);
            assert_eq!(bytes.iter().find(others), None, "request {number}");
        };
        let stage = Stage {
            callers: Callers::new(client, Arc::new(check)),
            pods,
            connections: Vec::new(),
            seen: BTreeSet::new(),
        };
        stage.play(story).await;
    });
});

/// What happens, in order. An answer is used whenever a request waits for one.
#[derive(Default)]
struct Story {
    acts: VecDeque<Act>,
    answers: VecDeque<Answer>,
}

enum Act {
    Start {
        kind: Kind,
        more: bool,
    },
    Do {
        verb: Verb,
        index: u8,
        text: Vec<u8>,
    },
}

#[derive(Clone, Copy)]
enum Verb {
    /// Writes the text to an idle connection.
    Write,
    /// Closes an idle connection.
    Close,
    Reset,
    /// Shuts down writing on a connection.
    Finish,
    GiveUp,
    GoOn,
    Refuse,
}

struct Answer {
    parts: Vec<Vec<u8>>,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Open,
    Closed,
    Reset,
}

impl Story {
    fn parse(mut input: Input<'_>) -> Self {
        const VERBS: [Verb; 8] = [
            Verb::Write,
            Verb::Close,
            Verb::Reset,
            Verb::Finish,
            Verb::GiveUp,
            Verb::GoOn,
            Verb::Refuse,
            Verb::Write,
        ];
        let (mut story, mut parts, mut text) = (Self::default(), Vec::new(), Vec::new());
        while !input.is_empty() && story.acts.len() < 40 && story.answers.len() < 40 {
            let end = match input.byte() {
                1 => {
                    let byte = input.byte();
                    let (kind, more) = (Kind::of(byte & 0x3f), byte & 0x40 != 0);
                    story.acts.push_back(Act::Start { kind, more });
                    continue;
                }
                2 => {
                    parts.push(std::mem::take(&mut text));
                    continue;
                }
                3 => End::Open,
                4 => End::Closed,
                5 => End::Reset,
                6 => {
                    let byte = input.byte();
                    story.acts.push_back(Act::Do {
                        verb: VERBS[usize::from(byte & 7)],
                        index: byte >> 3,
                        text: std::mem::take(&mut text),
                    });
                    continue;
                }
                byte => {
                    text.push(byte);
                    continue;
                }
            };
            parts.push(std::mem::take(&mut text));
            parts.truncate(6);
            let parts = std::mem::take(&mut parts);
            story.answers.push_back(Answer { parts, end });
        }
        story
    }
}

impl Answer {
    /// An answer that any client understands.
    fn right() -> Self {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nm: \x80\r\n\r\n\x80\x80";
        Self {
            parts: vec![text.to_vec()],
            end: End::Open,
        }
    }
}

struct Connection {
    stream: Stream,
    requests: Requests,
    /// The last request has no answer yet.
    waits: bool,
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.stream.is_open() && !self.waits && self.requests.is_whole()
    }

    /// Writes a text, with the mark of the connection's last request.
    fn write(&mut self, text: &[u8]) {
        let mark = self.requests.last().map_or(NOBODY, mark);
        let marked = |&byte: &u8| if byte >= 0x80 { mark } else { byte };
        let bytes: Vec<_> = text.iter().map(marked).collect();
        self.stream.write(&bytes);
    }
}

struct Stage {
    pods: Pods,
    callers: Callers,
    connections: Vec<Connection>,
    /// The requests that pods have read.
    seen: BTreeSet<u8>,
}

impl Stage {
    async fn play(mut self, mut story: Story) {
        // More turns than there can be acts and answers.
        for _ in 0..200 {
            settle().await;
            self.listen();
            if let Some(at) = self.connections.iter().position(|it| it.waits) {
                let answer = story.answers.pop_front().unwrap_or_else(Answer::right);
                self.answer(at, answer).await;
                continue;
            }
            match story.acts.pop_front() {
                Some(act) => self.act(act, &mut story),
                None => break,
            }
        }
        self.finish().await;
        drop((self.pods, self.connections));
        for number in self.callers.end().await {
            assert!(!self.seen.contains(&number), "{number} was executed");
        }
    }

    /// Answers every request, in the end on new connections. Since pods serve, all requests must end.
    async fn finish(&mut self) {
        for round in 0..20 {
            self.callers.go_on();
            settle().await;
            self.listen();
            for at in 0..self.connections.len() {
                if self.connections[at].waits {
                    self.answer(at, Answer::right()).await;
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
        self.connections
            .extend(self.pods.accept().into_iter().map(|stream| Connection {
                stream,
                requests: Requests::default(),
                waits: false,
            }));
        for at in 0..self.connections.len() {
            self.read(at);
        }
    }

    /// Reads what has arrived on a connection. Returns true if there is another request.
    fn read(&mut self, at: usize) -> bool {
        let connection = &mut self.connections[at];
        connection.stream.read();
        let (requests, stream) = (&mut connection.requests, &mut connection.stream);
        let mut read = false;
        while let Some(number) = requests.next(&mut stream.unread, |it| self.callers.kind(it)) {
            (connection.waits, read) = (stream.is_open(), true);
            let kind = self.callers.kind(number).expect("it is known");
            let is_first = self.seen.insert(number);
            assert!(is_first || kind.is_repeatable(), "{number} was sent twice");
        }
        read
    }

    async fn answer(&mut self, at: usize, answer: Answer) {
        self.connections[at].waits = false;
        for (turn, part) in answer.parts.iter().enumerate() {
            if turn > 0 {
                settle().await;
                // The rest of the answer was for the previous request.
                if self.read(at) {
                    return;
                }
            }
            self.connections[at].write(part);
        }
        let stream = &mut self.connections[at].stream;
        match answer.end {
            End::Open => {}
            End::Closed => stream.close(),
            End::Reset => stream.reset(),
        }
    }

    fn act(&mut self, act: Act, story: &mut Story) {
        let (verb, index, text) = match act {
            Act::Start { kind, more } => {
                self.callers.start(kind);
                if more && let Some(Act::Start { .. }) = story.acts.front() {
                    let next = story.acts.pop_front().expect("seen just now");
                    self.act(next, story);
                }
                return;
            }
            Act::Do { verb, index, text } => (verb, index, text),
        };
        let mut idle: Vec<_> = self
            .connections
            .iter_mut()
            .filter(|it| it.is_idle())
            .collect();
        let count = idle.len().max(1);
        let connection = idle.get_mut(usize::from(index) % count);
        match (verb, connection) {
            (Verb::Write, Some(connection)) => connection.write(&text),
            (Verb::Close, Some(connection)) => connection.stream.close(),
            (Verb::Reset, Some(connection)) => connection.stream.reset(),
            (Verb::Finish, Some(connection)) => connection.stream.finish(),
            (Verb::GiveUp, _) => self.callers.give_up(index),
            (Verb::GoOn, _) => self.callers.go_on(),
            (Verb::Refuse, _) => self.pods.refuse(index.into()),
            (_, None) => {}
        }
    }
}
