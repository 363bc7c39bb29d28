//! Bounds of the settings, and the limits that are set.

use std::time::Duration;

use crate::{http::pool::AgeLimits, times::DAY};

/// A task that wakes this often costs next to nothing, and nobody needs it more often.
pub(super) const SHORTEST: Duration = Duration::from_millis(10);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// The shortest time between two pings.
pub(super) const MOST_PINGS: Duration = Duration::from_millis(100);
/// Bounds of TCP keep-alive and user timeout, which the system counts in whole seconds.
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOURS: Duration = Duration::from_secs(32_000);

/// Keeps `time` between `least` and a day.
pub(super) fn bounded(time: Duration, least: Duration) -> Duration {
    time.clamp(least, DAY)
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) first_byte: Option<Duration>,
    pub(super) whole: Option<Duration>,
    pub(super) age: AgeLimits,
    pub(super) ahead: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_idle: 32,
            idle_timeout: Duration::from_secs(30),
            max_connections: 1024,
            first_byte: None,
            whole: None,
            age: AgeLimits::default(),
            ahead: false,
        }
    }
}
