//! The frames in a stream of bytes (RFC 9113 §4.1).

pub(super) const GOAWAY: u8 = 7;

/// A flag of HEADERS and DATA.
const END_STREAM: u8 = 1;

/// The length of a frame's head, and the position of its type.
pub(super) const HEAD: usize = 9;
pub(super) const KIND: usize = 3;
/// The head of a GOAWAY, and the last stream that it names.
const LONGEST: usize = HEAD + 4;

/// Finds the frames in a stream of bytes.
pub(super) struct Scanner {
    head: [u8; LONGEST],
    have: usize,
    /// How much is left of the current frame.
    skip: usize,
}

impl Scanner {
    pub(super) fn new(skip: u32) -> Self {
        Self {
            head: [0; LONGEST],
            have: 0,
            skip: skip as usize,
        }
    }

    /// Passes each frame's head to `see`, and the position in `all` after the part that was read.
    pub(super) fn scan(&mut self, all: &[u8], mut see: impl FnMut(&Head, usize)) {
        let mut bytes = all;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let (head, looked_at) = match bytes.first_chunk() {
                // Most heads come in one piece.
                Some(first) if self.have == 0 => {
                    let head = Head::of(first);
                    let looked_at = head.looked_at();
                    self.skip = head.rest();
                    (Some(head), looked_at)
                }
                _ => self.add(bytes),
            };
            bytes = &bytes[looked_at..];
            if let Some(head) = head {
                see(&head, all.len() - bytes.len());
            }
        }
    }

    /// Takes the next piece of a head that comes in several. Returns its length, and the head once it is complete.
    fn add(&mut self, bytes: &[u8]) -> (Option<Head>, usize) {
        let wanted = match self.have >= HEAD {
            true => Head::of(&self.head).looked_at(),
            false => HEAD,
        };
        let taken = (wanted - self.have).min(bytes.len());
        self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        let head = Head::of(&self.head);
        if self.have < HEAD || self.have < head.looked_at() {
            return (None, taken);
        }
        self.skip = head.rest();
        self.have = 0;
        (Some(head), taken)
    }
}

pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
    /// The first four bytes after the head, for a GOAWAY.
    pub(super) last: u32,
}

impl Head {
    fn of(bytes: &[u8; LONGEST]) -> Self {
        let number = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            length: (number(0) >> 8) as usize,
            kind: bytes[KIND],
            flags: bytes[4],
            stream: number(5) & !(1 << 31),
            last: number(9) & !(1 << 31),
        }
    }

    /// How much of the frame is read.
    fn looked_at(&self) -> usize {
        // h2 finds out itself that a GOAWAY is too short.
        match self.kind == GOAWAY && self.length >= LONGEST - HEAD {
            true => LONGEST,
            false => HEAD,
        }
    }

    /// How much of the frame follows.
    fn rest(&self) -> usize {
        HEAD + self.length - self.looked_at()
    }

    /// Whether the frame has no content, and doesn't end its stream.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0 && self.flags & END_STREAM == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: &[u8] = &[
        0, 0, 3, 0, 0, 0, 0, 0, 1, 7, 7, 7, // DATA
        0, 0, 0, 0, 0, 0, 0, 0, 1, // empty DATA
        0, 0, 0, 0, 1, 0, 0, 0, 1, // empty DATA that ends its stream
        0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, // GOAWAY
        0, 0, 1, 7, 0, 0, 0, 0, 0, 9, // a GOAWAY that is too short
        0, 0, 1, 1, 0, 128, 0, 0, 3, 9, // HEADERS, with a reserved bit
    ];

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        for size in 1..=FRAMES.len() {
            let (mut scanner, mut seen) = (Scanner::new(2), Vec::new());
            let all = [b"..", FRAMES].concat();
            for bytes in all.chunks(size) {
                scanner.scan(bytes, |head, end| {
                    assert!(end <= bytes.len());
                    seen.push((head.kind, head.length, head.stream, head.is_empty()));
                    if head.kind == GOAWAY && head.length == 8 {
                        assert_eq!(head.last, 5);
                    }
                });
            }
            let expected = [
                (0, 3, 1, false),
                (0, 0, 1, true),
                (0, 0, 1, false),
                (7, 8, 0, false),
                (7, 1, 0, false),
                (1, 1, 3, false),
            ];
            assert_eq!(seen, expected, "in pieces of {size}");
        }
    }
}
