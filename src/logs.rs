//! One way to write events, so that each names its service, has one of a few targets, and shows errors in one line.
//!
//! [`info!`] and the others take the target, the name of the service (an `Option`), and what tracing's macros take.
//! A source of endpoints doesn't know which balancer polls it: its events use the name that is in force [`here`].

mod changes;

pub(crate) use changes::{Change, Changes, Untold};

pub(crate) use tracing::field::display;

use std::{cell::RefCell, error::Error as StdError, fmt, sync::Arc};

use crate::error::line;

/// For events about the sources of endpoints.
pub(crate) const DISCOVERY: &str = "tower_headless::discovery";
/// For events about which endpoints there are, and which of them get requests.
pub(crate) const ENDPOINTS: &str = "tower_headless::endpoints";
/// For single requests: spans, and events when one is refused, retried or hedged.
pub(crate) const REQUESTS: &str = "tower_headless::requests";
/// For events about the HTTP client's connections, and their TLS.
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

/// Writes that an endpoint gets requests from now on, or gets none: as `info`, or as `debug` if there are too many such
/// [`Changes`].
macro_rules! change {
    ($change:ident, $signals:expr, $($rest:tt)+) => {{
        let (change, now) = ($crate::logs::Change::$change, ::tokio::time::Instant::now());
        match $signals.changes.is_told(change, now) {
            true => $crate::logs::info!($crate::logs::ENDPOINTS, $signals.service(), $($rest)+),
            false => $crate::logs::debug!($crate::logs::ENDPOINTS, $signals.service(), $($rest)+),
        }
    }};
}

// `warn` is a built-in attribute, so a macro of this name would be ambiguous.
pub(crate) use {change, debug, error, event, info, warning as warn};

thread_local! {
    static HERE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The name of the service whose background task, or whose source's reader, runs on this thread now.
pub(crate) fn here() -> Option<Arc<str>> {
    HERE.with_borrow(Clone::clone)
}

/// Puts the name of a service in force, until the returned guard is dropped.
#[must_use]
pub(crate) fn enter(service: Option<&Arc<str>>) -> Entered {
    Entered(HERE.replace(service.cloned()))
}

/// [`enter`] if no name is in force: for a source that is polled outside of any balancer.
#[cfg(any(feature = "dns", feature = "kube"))]
pub(crate) fn enter_anonymous(service: impl FnOnce() -> Option<String>) -> Option<Entered> {
    let is_anonymous = HERE.with_borrow(Option::is_none);
    is_anonymous.then(|| enter(service().map(Arc::from).as_ref()))
}

/// Keeps a name in force; holds the name before it.
pub(crate) struct Entered(Option<Arc<str>>);

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(self.0.take());
    }
}

/// Whether events about single requests are enabled.
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
