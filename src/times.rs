//! How times are written and read, with the feature `serde`: points in time as milliseconds since 1970, durations as
//! seconds.

#[cfg(feature = "serde")]
mod written;

use std::time::Duration;

#[cfg(feature = "serde")]
pub(crate) use written::{maybe_seconds, maybe_unix_ms, seconds, unix_ms};

/// The longest time that a setting takes. It is far from where adding it to a clock overflows.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
