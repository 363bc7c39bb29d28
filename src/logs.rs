//! One way to write an event, so that each names its service, under one of few targets, and errors are told in one line.
//!
//! [`info!`] and its kin take the target, the name of the service (an `Option`), and what tracing's take.
//! A source of endpoints doesn't know who polls it: its events have the name that is in force [`here`].

mod changes;

pub(crate) use changes::{Change, Changes, Untold};

pub(crate) use tracing::field::display;

use std::{cell::RefCell, error::Error as StdError, fmt, sync::Arc};

use crate::error::line;

/// What finds the endpoints.
pub(crate) const DISCOVERY: &str = "tower_headless::discovery";
/// Which endpoints there are, and which of them get requests.
pub(crate) const ENDPOINTS: &str = "tower_headless::endpoints";
/// Single requests: that one is offered or sent again, or hedged; and their spans.
pub(crate) const REQUESTS: &str = "tower_headless::requests";
/// The HTTP client's connections, and their TLS.
#[cfg(feature = "http")]
pub(crate) const CONNECTIONS: &str = "tower_headless::connections";

macro_rules! event {
    ($level:ident, $target:expr, $service:expr, $($rest:tt)+) => {
        ::tracing::$level!(
            target: $target,
            service = $service.as_ref().map(|name| -> &str { name }),
            $($rest)+
        )
    };
}

macro_rules! error {
    ($($all:tt)+) => { $crate::logs::event!(error, $($all)+) };
}

macro_rules! warning {
    ($($all:tt)+) => { $crate::logs::event!(warn, $($all)+) };
}

macro_rules! info {
    ($($all:tt)+) => { $crate::logs::event!(info, $($all)+) };
}

macro_rules! debug {
    ($($all:tt)+) => { $crate::logs::event!(debug, $($all)+) };
}

/// An endpoint gets requests from now on, or doesn't: as `info`, and as `debug` where there are too many such [`Changes`].
macro_rules! change {
    ($change:ident, $signals:expr, $($rest:tt)+) => {{
        let (change, now) = ($crate::logs::Change::$change, ::tokio::time::Instant::now());
        match $signals.changes.is_told(change, now) {
            true => $crate::logs::info!($crate::logs::ENDPOINTS, $signals.service(), $($rest)+),
            false => $crate::logs::debug!($crate::logs::ENDPOINTS, $signals.service(), $($rest)+),
        }
    }};
}

// `warn` is an attribute, too.
pub(crate) use {change, debug, error, event, info, warning as warn};

thread_local! {
    static HERE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The name of the service whose background task, or whose reader, runs on this thread now.
pub(crate) fn here() -> Option<Arc<str>> {
    HERE.with_borrow(Clone::clone)
}

/// The name of the service is in force until what this returns is dropped.
#[must_use]
pub(crate) fn enter(service: Option<&Arc<str>>) -> Entered {
    Entered(HERE.replace(service.cloned()))
}

/// The same where none is in force: a source is polled outside of any balancer.
#[cfg(any(feature = "dns", feature = "kube"))]
pub(crate) fn enter_anonymous(service: impl FnOnce() -> Option<String>) -> Option<Entered> {
    let is_anonymous = HERE.with_borrow(Option::is_none);
    is_anonymous.then(|| enter(service().map(Arc::from).as_ref()))
}

/// A name in force, and the one before.
pub(crate) struct Entered(Option<Arc<str>>);

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(self.0.take());
    }
}

/// Whether anybody wants to know of single requests.
pub(crate) fn are_requests_told() -> bool {
    tracing::enabled!(target: REQUESTS, tracing::Level::DEBUG)
}

/// An error in one line, with all its causes.
pub(crate) struct Line<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_force_is_the_innermost() {
        let (web, dns) = (Arc::from("web"), Arc::from("dns"));
        let entered = enter(Some(&web));
        let inner = enter(Some(&dns));
        assert_eq!(here(), Some(dns.clone()));
        drop(inner);
        assert_eq!(here(), Some(web.clone()));
        drop(entered);
        assert_eq!(here(), None);
    }
}
