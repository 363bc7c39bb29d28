//! The flags of a status word, which is drawn in [`status_word`](super::status_word).

pub(super) const REMOVED: u32 = 1 << 31;
pub(super) const UNREACHABLE: u32 = 1 << 30;
pub(super) const EJECTED: u32 = 1 << 29;
pub(super) const TRIAL: u32 = 1 << 28;
pub(super) const UNFIT: u32 = 1 << 27;
/// Every word from here up carries a flag.
pub(crate) const FLAGGED: u32 = UNFIT;
pub(super) const COUNT: u32 = FLAGGED - 1;

/// Whether a word says that one request may try the endpoint.
#[inline]
pub(super) fn is_on_offer(word: u32) -> bool {
    word & (TRIAL | UNFIT | REMOVED) == TRIAL && word & (UNREACHABLE | EJECTED) != 0
}
