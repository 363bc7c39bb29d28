//! HTTP/1.1 requests as a pod reads them, strictly: whatever a client writes must be a request of one of its callers,
//! with that caller's body and no other.

use crate::callers::{Kind, mark};

/// The requests that a pod has read on a connection.
#[derive(Default)]
pub struct Requests {
    /// The request whose head was read last.
    last: Option<(u8, Kind)>,
    body: Body,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Body {
    #[default]
    Ended,
    Length(usize),
    Chunk,
}

impl Requests {
    /// The number of the request whose head was read last.
    pub fn last(&self) -> Option<u8> {
        self.last.map(|(number, _)| number)
    }

    /// Whether the last request has come completely.
    pub fn is_whole(&self) -> bool {
        self.body == Body::Ended
    }

    /// Takes the next head from the bytes read, if it is complete. `kind` gives the kind of a request by its number.
    pub fn next(&mut self, unread: &mut Vec<u8>, kind: impl Fn(u8) -> Option<Kind>) -> Option<u8> {
        self.skip_body(unread);
        self.skip_upgraded(unread);
        if self.body != Body::Ended {
            return None;
        }
        let end = unread.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else {
            let is_head = unread.iter().all(u8::is_ascii);
            assert!(
                is_head,
                "no request: {:?}",
                unread.escape_ascii().to_string()
            );
            return None;
        };
        let head: Vec<_> = unread.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head is text");
        let number = number(&head).unwrap_or_else(|| panic!("no request: {head:?}"));
        let kind = kind(number).unwrap_or_else(|| panic!("nobody's request: {head:?}"));
        self.body = body(&head);
        let has_body = self.body != Body::Ended;
        assert_eq!(has_body, kind.has_body(), "{kind:?}: {head:?}");
        self.last = Some((number, kind));
        self.skip_body(unread);
        Some(number)
    }

    fn skip_body(&mut self, unread: &mut Vec<u8>) {
        let mark = |unread: &mut Vec<u8>, length| {
            let taken: Vec<_> = unread.drain(..length).collect();
            let (number, _) = self.last.expect("a body has a head");
            let is_its_own = taken.iter().all(|&byte| byte == mark(number));
            assert!(
                is_its_own,
                "{number}: {:?}",
                taken.escape_ascii().to_string()
            );
        };
        match self.body {
            Body::Ended => {}
            Body::Length(length) => {
                let come = length.min(unread.len());
                mark(unread, come);
                self.body = match length - come {
                    0 => Body::Ended,
                    left => Body::Length(left),
                };
            }
            Body::Chunk => {
                while let Some(end) = unread.windows(2).position(|window| window == b"\r\n") {
                    let size = std::str::from_utf8(&unread[..end]).ok();
                    let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
                    let size = size.unwrap_or_else(|| panic!("no chunk: {unread:?}"));
                    if unread.len() < end + 2 + size + 2 {
                        return;
                    }
                    unread.drain(..end + 2);
                    mark(unread, size);
                    assert!(unread.starts_with(b"\r\n"), "no chunk's end: {unread:?}");
                    unread.drain(..2);
                    if size == 0 {
                        self.body = Body::Ended;
                        return;
                    }
                }
            }
        }
    }

    /// Skips what a caller writes once its connection is upgraded.
    fn skip_upgraded(&mut self, unread: &mut Vec<u8>) {
        if let Some((number, Kind::Upgrade | Kind::Connect)) = self.last {
            let other = unread.iter().position(|&byte| byte != mark(number));
            unread.drain(..other.unwrap_or(unread.len()));
        }
    }
}

/// The number in `GET /000101 HTTP/1.1` or `CONNECT n000101:80 HTTP/1.1`.
fn number(head: &str) -> Option<u8> {
    let line = head.split("\r\n").next()?;
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let digits = match method {
        "CONNECT" => target.strip_prefix('n')?.strip_suffix(":80")?,
        "GET" | "HEAD" | "POST" => target.strip_prefix('/')?,
        _ => return None,
    };
    (digits.len() == 6).then(|| u8::from_str_radix(digits, 2).ok())?
}

fn body(head: &str) -> Body {
    let header = |name: &str| {
        let mut lines = head.split("\r\n").skip(1);
        lines.find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    match (header("content-length"), header("transfer-encoding")) {
        (None, None) | (Some("0"), None) => Body::Ended,
        (Some(length), None) => Body::Length(length.parse().expect("a length")),
        (None, Some("chunked")) => Body::Chunk,
        both => panic!("two lengths: {both:?}"),
    }
}
