//! HTTP/2 frames as a pod reads and writes them (RFC 9113 §4.1), and as much of HPACK as is needed to identify
//! requests.

use std::collections::BTreeMap;

use crate::callers::{Kind, mark};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

/// The flag of PING and SETTINGS frames.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;

/// The index of `:path` in RFC 7541's appendix A.
const PATH: usize = 4;

/// Makes a frame. A payload longer than a frame may be is cut.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(16 * 1024)];
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field of a header block, as a literal without indexing (RFC 7541 §6.2.2).
pub fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let string = |text: &[u8]| {
        let length = u8::try_from(text.len()).expect("a short string");
        assert!(length < 127, "a longer string takes another form");
        [&[length], text].concat()
    };
    [vec![0], string(name.as_bytes()), string(value)].concat()
}

/// The requests that a pod has read on a connection.
#[derive(Default)]
pub struct Requests {
    greeted: bool,
    /// The request's number, by stream.
    pub streams: BTreeMap<u32, u8>,
    /// Acknowledgements that are still to be written.
    pub acks: Vec<u8>,
}

impl Requests {
    /// Takes frames from the bytes read, up to the next request. `kind` gives the kind of a request by its number.
    pub fn next(&mut self, unread: &mut Vec<u8>, kind: impl Fn(u8) -> Option<Kind>) -> Option<u8> {
        if !self.greeted {
            let come = unread.len().min(PREFACE.len());
            assert_eq!(unread[..come], PREFACE[..come], "no preface");
            if come < PREFACE.len() {
                return None;
            }
            unread.drain(..come);
            self.greeted = true;
        }
        while let Some((&head, rest)) = unread.split_first_chunk::<HEAD>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if rest.len() < length {
                return None;
            }
            let payload = rest[..length].to_vec();
            unread.drain(..HEAD + length);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if let Some(number) = self.take(head[3], head[4], stream, &payload) {
                let kind = kind(number);
                assert!(kind.is_some(), "nobody's request: {number}");
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Option<u8> {
        match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                let payload = if kind == PING { payload } else { &[] };
                self.acks.extend(frame(kind, ACK, 0, payload));
            }
            HEADERS if !self.streams.contains_key(&stream) => {
                // No request here has padding or priority.
                let number = number(payload);
                let number = number.unwrap_or_else(|| panic!("no request: {payload:x?}"));
                self.streams.insert(stream, number);
                return Some(number);
            }
            DATA => {
                let number = self.streams.get(&stream).expect("a body has a head");
                let is_its_own = payload.iter().all(|&byte| byte == mark(*number));
                assert!(is_its_own, "{number}: {payload:x?}");
            }
            _ => {}
        }
        None
    }
}

/// The number of the request with this header block. h2 always writes the path as a literal.
fn number(mut block: &[u8]) -> Option<u8> {
    while let Some(&first) = block.first() {
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = integer(&mut block, prefix)?;
        if prefix == 7 || prefix == 5 {
            continue;
        }
        if index == 0 {
            string(&mut block)?;
        }
        let value = string(&mut block)?;
        if index == PATH {
            return u8::from_str_radix(value.strip_prefix('/')?, 2).ok();
        }
    }
    None
}

/// RFC 7541 §5.1.
fn integer(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let (&first, mut rest) = block.split_first()?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value == most {
        for shift in (0..28).step_by(7) {
            let (&next, more) = rest.split_first()?;
            rest = more;
            value += usize::from(next & 0x7f) << shift;
            if next < 0x80 {
                break;
            }
        }
    }
    *block = rest;
    Some(value)
}

/// RFC 7541 §5.2. Of the Huffman code it knows only the characters of request numbers; any other is a question mark.
fn string(block: &mut &[u8]) -> Option<String> {
    let is_coded = block.first()? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    if !is_coded {
        return Some(String::from_utf8_lossy(text).into_owned());
    }
    let bits = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let (mut decoded, mut code, mut length) = (String::new(), 0_u32, 0);
    const CODES: [(u32, u32, char); 3] = [(5, 0b00000, '0'), (5, 0b00001, '1'), (6, 0b011000, '/')];
    for bit in bits {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        let known = CODES
            .iter()
            .find(|known| (known.0, known.1) == (length, code));
        if let Some((.., character)) = known {
            decoded.push(*character);
            (code, length) = (0, 0);
        } else if length > 6 {
            decoded.push('?');
            break;
        }
    }
    Some(decoded)
}
