//! The slots of packed status words.
//!
//! The lowest free slot is taken first, so that the words in use stay together. A member gives its slot back when its
//! last request has ended and no snapshot has it any more: only then does the last holder drop it.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use super::flags::REMOVED;
use crate::sync::{
    CheckedMutex,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// Words in a line: 64 bytes.
pub(super) const LANES: usize = 16;

/// Lines in a block.
const LINES: usize = 16;

/// One cache line of words.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Line([AtomicU32; LANES]);

impl Line {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(REMOVED)))
    }

    /// The words of the first `lanes` lanes.
    #[inline]
    pub(super) fn words(&self, lanes: usize) -> impl Iterator<Item = u32> {
        self.0[..lanes].iter().map(|word| word.load(Relaxed))
    }
}

/// The line that slot number `slot` is in, among all lines.
pub(super) fn line_of(slot: usize) -> usize {
    slot / (LINES * LANES) * LINES + slot % LINES
}

/// The lane of slot number `slot` in its line.
pub(super) fn lane_of(slot: usize) -> usize {
    slot % (LINES * LANES) / LINES
}

/// All slots of a balancer.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    lines: Arc<[Arc<Line>]>,
    numbers: Arc<CheckedMutex<Numbers>>,
}

#[derive(Debug, Default)]
struct Numbers {
    free: BinaryHeap<Reverse<usize>>,
    /// How many there are, free ones included.
    all: usize,
}

impl Slots {
    /// The lines of all slots there are.
    pub(super) fn lines(&self) -> Arc<[Arc<Line>]> {
        self.lines.clone()
    }

    /// Takes the lowest free slot.
    pub(crate) fn take(&mut self) -> Slot {
        let number = self.numbers.lock().take();
        let line = line_of(number);
        if self.lines.len() <= line {
            let more = std::iter::repeat_with(|| Arc::new(Line::new())).take(LINES);
            self.lines = self.lines.iter().cloned().chain(more).collect();
        }
        Slot {
            line: self.lines[line].clone(),
            lane: lane_of(number),
            number,
            numbers: self.numbers.clone(),
        }
    }

    /// How many slots there are, and how many of them are free.
    #[cfg(test)]
    pub(crate) fn count(&self) -> (usize, usize) {
        let numbers = self.numbers.lock();
        (numbers.all, numbers.free.len())
    }
}

impl Numbers {
    fn take(&mut self) -> usize {
        if let Some(Reverse(number)) = self.free.pop() {
            return number;
        }
        self.all += 1;
        self.all - 1
    }
}

/// One slot, held by one member.
#[derive(Debug)]
pub(crate) struct Slot {
    line: Arc<Line>,
    lane: usize,
    number: usize,
    numbers: Arc<CheckedMutex<Numbers>>,
}

impl Slot {
    #[inline]
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.line.0[self.lane]
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Scans skip the word until it is taken again.
        self.word().store(REMOVED, Relaxed);
        self.numbers.lock().free.push(Reverse(self.number));
    }
}
