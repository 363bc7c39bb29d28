//! Defaults for fields that an older version didn't write.

pub(super) fn whole() -> f64 {
    1.0
}

pub(super) fn one() -> u32 {
    1
}

pub(super) fn yes() -> bool {
    true
}
