//! The slots of the endpoints' words, and what becomes of them when an endpoint leaves.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    endpoint::Endpoint,
    load::{LINES, Line, Load, line_of},
    signals::Signals,
};

/// Hands out the endpoints' words. The packed ones have slots, of which the lowest free one goes first, so that the words
/// in use stay together.
#[derive(Debug, Default)]
pub(super) struct Slots {
    lines: Arc<[Arc<Line>]>,
    free: BinaryHeap<Reverse<usize>>,
    used: usize,
    /// What has left, by its identity. An address may have been that of several pods.
    draining: HashMap<SocketAddr, Vec<Draining>>,
}

/// What an endpoint begins with.
#[derive(Clone, Copy)]
pub(super) struct New {
    /// A word among those of the others, for who scans them.
    pub(super) packed: bool,
    /// How fast what is known of its latency fades, for who looks at that.
    pub(super) decay: Option<Duration>,
    /// No pick takes it before it has passed a check.
    pub(super) held_back: bool,
}

/// An endpoint that has left, as it was known at the end.
#[derive(Debug)]
struct Draining {
    endpoint: Endpoint,
    load: Arc<Load>,
}

impl Slots {
    /// The lines of all slots there are.
    pub(super) fn lines(&self) -> Arc<[Arc<Line>]> {
        self.lines.clone()
    }

    /// The numbers of `endpoint`: those it had, if its last requests still run, else new ones. One that is `held_back` is to
    /// pass a check first.
    pub(super) fn load(
        &mut self,
        endpoint: &Endpoint,
        new: New,
        signals: &Arc<Signals>,
    ) -> Arc<Load> {
        let hold = |load: &Load| new.held_back.then(|| load.hold_back());
        if let Some(load) = self.undrain(endpoint) {
            // Before anybody may pick it.
            hold(&load);
            load.restore();
            return load;
        }
        let packed = new.packed.then(|| self.allocate());
        let load = Load::new(endpoint.clone(), packed, new.decay, signals.clone());
        hold(&load);
        load
    }

    fn undrain(&mut self, endpoint: &Endpoint) -> Option<Arc<Load>> {
        let left = self.draining.get_mut(&endpoint.identity())?;
        let index = left
            .iter()
            .rposition(|draining| draining.endpoint.is_same_pod(endpoint))?;
        Some(left.remove(index).load)
    }

    fn allocate(&mut self) -> (Arc<Line>, usize) {
        let slot = self.free.pop().map_or_else(
            || {
                self.used += 1;
                self.used - 1
            },
            |Reverse(slot)| slot,
        );
        let line = line_of(slot);
        if self.lines.len() <= line {
            let more = std::iter::repeat_with(|| Arc::new(Line::new())).take(LINES);
            self.lines = self.lines.iter().cloned().chain(more).collect();
        }
        (self.lines[line].clone(), slot)
    }

    /// Keeps an endpoint that has left for as long as there is something to keep: requests, or a slot to take back.
    pub(super) fn drain(&mut self, endpoint: &Endpoint, load: &Arc<Load>) {
        if load.in_flight() > 0 || load.slot().is_some() {
            let left = self.draining.entry(endpoint.identity()).or_default();
            left.push(Draining {
                endpoint: endpoint.clone(),
                load: load.clone(),
            });
        }
    }

    /// Takes back the slots that nothing counts in any more: no request, and no snapshot that a reader still holds.
    pub(super) fn reclaim(&mut self) {
        let free = &mut self.free;
        let mut is_used = |Draining { load, .. }: &Draining| {
            let is_used = Arc::strong_count(load) > 1 || load.in_flight() > 0;
            if !is_used {
                free.extend(load.slot().map(Reverse));
            }
            is_used
        };
        self.draining.retain(|_, left| {
            left.retain(&mut is_used);
            !left.is_empty()
        });
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    #[cfg(test)]
    pub(super) fn draining(&self) -> usize {
        self.draining.values().map(Vec::len).sum()
    }
}
