//! Endpoints that have asked for a pause in retries.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::{endpoint::Endpoint, route::Route, sync::Mutex};

/// The longest pause that is respected, whatever an endpoint asks for.
const LONGEST: Duration = Duration::from_secs(30);

/// How many endpoints are remembered: a retry looks at all of them.
const MOST: usize = 32;

/// Which endpoints want no retries, and until when. Other requests go to them as usual.
#[derive(Debug, Default)]
pub(crate) struct Delays {
    /// Whether there may be any, so that most requests skip the lock.
    any: AtomicBool,
    until: Mutex<Vec<(Endpoint, Instant)>>,
}

impl Delays {
    /// Notes that `endpoint` wants no retries for `delay` from now on.
    pub(crate) fn note(&self, endpoint: &Endpoint, delay: Duration) {
        let (now, mut all) = (Instant::now(), self.until.lock());
        all.retain(|(other, until)| *until > now && !other.is_same_pod(endpoint));
        if delay.is_zero() {
            return;
        }
        if all.len() == MOST {
            // The one whose pause ends first.
            let first = (0..MOST).min_by_key(|&index| all[index].1);
            first.map(|index| all.swap_remove(index));
        }
        all.push((endpoint.clone(), now + delay.min(LONGEST)));
        self.any.store(true, Relaxed);
    }

    /// Makes the route avoid the endpoints that want no retries now.
    pub(super) fn avoid(&self, mut route: Route) -> Route {
        if !self.any.load(Relaxed) || route.is_for_one() {
            return route;
        }
        let (now, mut all) = (Instant::now(), self.until.lock());
        all.retain(|(_, until)| *until > now);
        for (endpoint, _) in all.iter() {
            if !route.avoids(endpoint) {
                route = route.avoid(endpoint);
            }
        }
        self.any.store(!all.is_empty(), Relaxed);
        route
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    fn avoided(delays: &Delays) -> Vec<u8> {
        let route = delays.avoid(Route::new());
        let hosts = 1..=u8::MAX;
        hosts
            .filter(|&host| route.avoids(&endpoint(host)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_avoided_for_as_long_as_it_asks_and_half_a_minute_at_most() {
        let delays = Delays::default();
        assert!(avoided(&delays).is_empty());
        delays.note(&endpoint(1), Duration::from_secs(3));
        delays.note(&endpoint(2), Duration::MAX);
        delays.note(&endpoint(3), Duration::ZERO);
        assert_eq!(avoided(&delays), [1, 2]);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(avoided(&delays), [2]);
        tokio::time::advance(LONGEST).await;
        assert!(avoided(&delays).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_s_latest_request_for_a_pause_replaces_its_earlier_ones() {
        let delays = Delays::default();
        delays.note(&endpoint(1), Duration::from_secs(20));
        delays.note(&endpoint(1), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(avoided(&delays).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_remembered_endpoints_is_bounded() {
        let delays = Delays::default();
        for host in 1..=200 {
            delays.note(&endpoint(host), Duration::from_secs(1) * host.into());
        }
        assert_eq!(avoided(&delays).len(), MOST);
        delays.note(&endpoint(1), Duration::from_secs(9));
        assert_eq!(avoided(&delays).len(), MOST);
    }

    #[test]
    fn a_request_for_one_pod_goes_there_in_spite_of_a_pause() {
        let delays = Delays::default();
        delays.note(&endpoint(1), Duration::from_secs(3));
        let route = delays.avoid(Route::new().pod("web-0"));
        assert!(!route.avoids(&endpoint(1)));
    }
}
