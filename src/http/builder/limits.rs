//! How much and how long.

use std::time::Duration;

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_idle: usize,
    pub(super) idle_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) first_byte: Option<Duration>,
    pub(super) whole: Option<Duration>,
    /// None waits for as long as it takes.
    pub(super) ready: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_idle: 32,
            idle_timeout: Duration::from_secs(30),
            max_connections: 1024,
            first_byte: None,
            whole: None,
            ready: Some(Duration::from_secs(5)),
        }
    }
}
