//! Glue: the address records that go with SRV records, so that clients needn't ask for them.

use super::record::Record;

/// Which glue an SRV answer has in its additional section: the A and AAAA records of its targets, target by target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Glue {
    /// All of it. If it doesn't fit, the first of it with TC set, over TCP, too. CoreDNS does so: a message without all
    /// of its glue counts as truncated.
    #[default]
    Whole,
    /// None, and no TC, as Knot DNS does.
    None,
    /// Only the first records, at most this many, and as many as fit. TC isn't set for the rest, because RFC 2181 §9
    /// wants none for merely additional records.
    Partial(usize),
}

impl Glue {
    /// Whether a message that lacks some of its glue counts as truncated.
    pub(super) fn must_fit(self) -> bool {
        self == Self::Whole
    }

    pub(super) fn pick(self, records: &mut Vec<Record>) {
        match self {
            Self::Whole => {}
            Self::None => records.clear(),
            Self::Partial(n) => records.truncate(n),
        }
    }
}
