//! How much, how long and how often.

use std::time::Duration;

use http::StatusCode;

use crate::retry::{self, RETRIES, SharedBudget, UNAVAILABLE};

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

pub(in crate::http) struct Retries {
    /// Of one request, at most.
    pub(in crate::http) times: usize,
    /// Of all of them.
    pub(in crate::http) budget: SharedBudget,
    /// Answers that are asked for again elsewhere.
    pub(in crate::http) statuses: Box<[StatusCode]>,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            times: RETRIES,
            budget: retry::default_budget(),
            statuses: UNAVAILABLE.into(),
        }
    }
}
