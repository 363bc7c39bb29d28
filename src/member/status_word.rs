//! What a pick reads of an endpoint, in one 32-bit word.
//!
//! ```text
//!  31        30            29        28      27      26                                           0
//! ┌─────────┬─────────────┬─────────┬───────┬───────┬──────────────────────────────────────────────┐
//! │ removed │ unreachable │ ejected │ trial │ unfit │ requests in flight, again, for scans         │
//! └─────────┴─────────────┴─────────┴───────┴───────┴──────────────────────────────────────────────┘
//! ```
//!
//! Any flag makes the word larger than every word without one, so a plain minimum skips the endpoints that must not be
//! picked, at no cost. All accesses are relaxed: the words order nothing but themselves.
//!
//! An endpoint is *unfit* if its checks fail, and *ejected* because of its requests; the two are independent. A trial
//! is on offer while the endpoint is out, still in the set, and not unfit: an unfit endpoint comes back by its check.
//!
//! There are two layouts. If the policy reads all endpoints, the words are packed and count requests: 16 words to a
//! cache line, and 16 lines to a block. A block is filled across its lines: the first 16 endpoints have a line each, so
//! that threads don't take it from each other; with 256, every line is full, and least-connections reads sixteen
//! endpoints for one line fetched. For other policies, each word is stored with its endpoint and counts nothing, which
//! spares every request two atomic operations: a policy that looks at two endpoints reads the counts of their
//! references.

use super::slots::Slot;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Where an endpoint's status word is.
#[derive(Debug)]
pub(super) enum StatusWord {
    /// With the endpoint: the policy doesn't scan, and the word counts nothing.
    Own(AtomicU32),
    /// In a slot of a line, where it counts requests for scans.
    Packed(Slot),
}

impl StatusWord {
    /// A word that is stored with its endpoint.
    pub(super) fn own() -> Self {
        Self::Own(AtomicU32::new(0))
    }

    /// A word in a slot.
    pub(super) fn packed(slot: Slot) -> Self {
        slot.word().store(0, Relaxed);
        Self::Packed(slot)
    }

    #[inline]
    pub(super) fn get(&self) -> &AtomicU32 {
        match self {
            Self::Own(word) => word,
            Self::Packed(slot) => slot.word(),
        }
    }

    /// The word, if it counts requests.
    #[inline]
    pub(super) fn counting(&self) -> Option<&AtomicU32> {
        match self {
            Self::Own(_) => None,
            Self::Packed(slot) => Some(slot.word()),
        }
    }

    /// The number of its slot, if it has one.
    pub(super) fn slot(&self) -> Option<usize> {
        match self {
            Self::Own(_) => None,
            Self::Packed(slot) => Some(slot.number()),
        }
    }
}
