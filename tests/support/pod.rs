//! The crate's own pods.

pub use tower_headless::test_util::{Mode, Pod, Stats};
