//! What is to be known of an endpoint with every pick, in one 32-bit word.
//!
//! ```text
//!  31        30            29        28      27      26                                           0
//! ┌─────────┬─────────────┬─────────┬───────┬───────┬──────────────────────────────────────────────┐
//! │ removed │ unreachable │ ejected │ trial │ unfit │ requests in flight, again, for who scans it  │
//! └─────────┴─────────────┴─────────┴───────┴───────┴──────────────────────────────────────────────┘
//! ```
//!
//! Any flag makes the word larger than every word without one, so a plain minimum skips the endpoints that must not be
//! picked at no cost. All accesses are relaxed: the words order nothing but themselves.
//!
//! *Unfit* is what an endpoint's own checks have to say, beside what its requests came to (*ejected*): each comes and goes
//! without the other. A trial is on offer only while the endpoint is not unfit: its check brings it back.
//!
//! For a policy that looks at all endpoints, the words are packed and count: they stand in cache lines of 16, and the lines
//! in blocks of 16. A block is filled across its lines: the first 16 endpoints have a line each, so that threads don't take
//! it from each other; with 256, every line is full, and least-connections reads sixteen endpoints for one line fetched.
//! For the others each word stands with its endpoint and counts nothing, which spares every request two atomic operations: a
//! policy that looks at two endpoints asks for the count of their shares.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// Words in a line: 64 bytes.
pub(super) const LANES: usize = 16;

/// Lines in a block.
pub(crate) const LINES: usize = 16;

pub(super) const REMOVED: u32 = 1 << 31;
pub(super) const UNREACHABLE: u32 = 1 << 30;
pub(super) const EJECTED: u32 = 1 << 29;
pub(super) const TRIAL: u32 = 1 << 28;
pub(super) const UNFIT: u32 = 1 << 27;
/// Every word from here up carries a flag.
pub(crate) const FLAGGED: u32 = UNFIT;
pub(super) const COUNT: u32 = FLAGGED - 1;

/// Whether a word says that a request may try the endpoint.
pub(super) fn is_on_offer(word: u32) -> bool {
    word & (TRIAL | UNFIT) == TRIAL
}

/// One cache line of words.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Line([AtomicU32; LANES]);

impl Line {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU32::new(REMOVED) }; LANES])
    }

    /// The words of the first `lanes` lanes.
    #[inline]
    pub(crate) fn words(&self, lanes: usize) -> impl Iterator<Item = u32> {
        self.0[..lanes].iter().map(|word| word.load(Relaxed))
    }
}

/// The line that slot number `slot` is in, among all lines.
pub(crate) fn line_of(slot: usize) -> usize {
    slot / (LINES * LANES) * LINES + slot % LINES
}

/// The lane of slot number `slot` in its line.
pub(super) fn lane_of(slot: usize) -> usize {
    slot % (LINES * LANES) / LINES
}

/// Where an endpoint's word is.
#[derive(Debug)]
pub(super) enum Word {
    /// With the endpoint: nobody looks at all of them, and it counts nothing.
    Own(AtomicU32),
    /// In a lane of a line, where it counts the requests for those who scan.
    Packed(Arc<Line>, usize),
}

impl Word {
    /// A word with its endpoint.
    pub(super) fn own() -> Self {
        Self::Own(AtomicU32::new(0))
    }

    /// Takes slot number `slot`, which is in `line`.
    pub(super) fn packed(line: Arc<Line>, slot: usize) -> Self {
        line.0[lane_of(slot)].store(0, Relaxed);
        Self::Packed(line, lane_of(slot))
    }

    #[inline]
    pub(super) fn get(&self) -> &AtomicU32 {
        match self {
            Self::Own(word) => word,
            Self::Packed(line, lane) => &line.0[*lane],
        }
    }

    /// The same, if it counts requests.
    #[inline]
    pub(super) fn counting(&self) -> Option<&AtomicU32> {
        match self {
            Self::Own(_) => None,
            Self::Packed(line, lane) => Some(&line.0[*lane]),
        }
    }
}
