//! What is read where an older version has written nothing.

pub(super) fn whole() -> f64 {
    1.0
}

pub(super) fn one() -> u32 {
    1
}

pub(super) fn yes() -> bool {
    true
}
