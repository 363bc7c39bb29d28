//! The address records that go with SRV records, so that nobody needs to ask for them.

use super::record::Record;

/// Which glue an SRV answer carries in its additional section: the A and AAAA records of its targets, target by target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Glue {
    /// All of it. Where it doesn't fit, the first of it and TC set, over TCP too, as CoreDNS does: to it the message is
    /// whole or it is truncated.
    #[default]
    Whole,
    /// None, and no TC, as Knot DNS does.
    None,
    /// The first records only, at most so many, as far as they fit. No TC for the rest: RFC 2181 §9 wants none for what
    /// is merely additional.
    Partial(usize),
}

impl Glue {
    /// Whether a message that lacks some of its glue is truncated.
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
