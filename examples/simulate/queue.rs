//! The queue of coming events, in the order of time.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

/// Events, and the clock that they move. It counts from the beginning of the simulation.
pub(crate) struct Queue<E> {
    now: Duration,
    entered: u64,
    heap: BinaryHeap<Entry<E>>,
}

struct Entry<E> {
    when: Duration,
    /// Events of the same time happen in the order in which they were added.
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            now: Duration::ZERO,
            entered: 0,
            heap: BinaryHeap::new(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn at(&mut self, when: Duration, event: E) {
        let number = self.entered;
        self.entered += 1;
        self.heap.push(Entry {
            when: when.max(self.now),
            number,
            event,
        });
    }

    pub(crate) fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// The next event; the clock goes to its time.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.now = entry.when;
        Some(entry.event)
    }
}

/// Ordered in reverse, because the heap has its greatest entry on top, and that must be the earliest.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.when, other.number).cmp(&(self.when, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Entry<E> {}
