//! Tells pods the client's own limit of headers, in place of h2's.

use super::scanner::{HEAD, KIND};

/// The length of what a client sends before its first frame (RFC 9113 §3.4).
pub(super) const PREFACE: u32 = 24;

const SETTINGS: u8 = 4;
/// The length of a setting.
const SETTING: usize = 6;
const MAX_HEADER_LIST_SIZE: [u8; 2] = [0, 6];

/// The first outgoing frame, our SETTINGS, in which h2 announces its own limit of headers.
pub(super) struct Announcement {
    header_size: u32,
    /// The part of preface and frame that has been written.
    written: Vec<u8>,
}

impl Announcement {
    pub(super) fn new(header_size: u32) -> Self {
        Self {
            header_size,
            written: Vec::new(),
        }
    }

    /// `bytes` with the limit replaced; none if nothing must be replaced.
    pub(super) fn corrected(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut all = [&self.written, bytes].concat();
        let begin = PREFACE as usize;
        if all.len() <= begin || self.is_over() {
            return None;
        }
        let end = all.len().min(self.end_of(&all));
        let settings = all.get_mut(begin + HEAD..end)?;
        for setting in settings.chunks_mut(SETTING) {
            if setting[..].starts_with(&MAX_HEADER_LIST_SIZE) {
                let size = self.header_size.to_be_bytes();
                let value = &mut setting[2..];
                let there = value.len();
                value.copy_from_slice(&size[..there]);
            }
        }
        all.drain(..self.written.len());
        Some(all)
    }

    /// Where the SETTINGS end in these bytes, if their head is in them.
    fn end_of(&self, all: &[u8]) -> usize {
        let begin = PREFACE as usize;
        match all.get(begin..begin + HEAD) {
            Some(head) if head[KIND] == SETTINGS => {
                begin + HEAD + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
            }
            Some(_) => 0,
            None => usize::MAX,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.written.len() >= self.end_of(&self.written)
    }

    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Preface and SETTINGS, whose second setting is the limit of headers; then another frame.
    fn bytes(limit: u8) -> Vec<u8> {
        let mut bytes = vec![b'.'; PREFACE as usize];
        bytes.extend([0, 0, 12, SETTINGS, 0, 0, 0, 0, 0]);
        bytes.extend([0, 4, 0, 0, 0, 6, 0, 6, 0, 0, 0, limit]);
        bytes.extend([0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 9]);
        bytes
    }

    #[test]
    fn the_first_settings_have_the_client_s_limit_in_writes_of_any_size() {
        let all = bytes(1);
        for size in 1..=all.len() {
            let (mut announcement, mut written) = (Announcement::new(7), Vec::new());
            for bytes in all.chunks(size) {
                let corrected = announcement.corrected(bytes);
                let bytes = corrected.as_deref().unwrap_or(bytes);
                announcement.wrote(bytes);
                written.extend_from_slice(bytes);
            }
            assert_eq!(written, bytes(7), "in pieces of {size}");
            assert!(announcement.is_over());
        }
    }
}
