//! Pods' own names: `web-0.<service>`, asked for beside the Service's where requests want a pod by its name.
//!
//! ```text
//!  Service's addresses ─▶ endpoints, of which nothing but the address is known
//!  each wanted name's addresses, in the same look ─▶ the endpoint at that address has this hostname, until the next look
//! ```
//!
//! A name makes no endpoint: who isn't in the Service's set isn't ready, or is none of its pods. An address that two names claim
//! has neither: one of the answers is old.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    addresses::{Addresses, addresses},
    lookup::{Family, Found, Resolve, Transport},
};

/// How many names are asked for at most.
const MOST: usize = 64;

/// How long a name is asked for that nobody wants any more.
const KEPT: Duration = Duration::from_secs(300);

/// A name that is in use is told of once a minute.
const IN_USE: Duration = Duration::from_secs(120);

/// How many names are asked for at a time.
const AT_ONCE: usize = 16;

/// How long the Service's addresses wait for their names.
const DEADLINE: Duration = Duration::from_secs(1);

/// The names that are wanted. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct PodNames(Arc<Mutex<Wanted>>);

#[derive(Clone, Debug, Default)]
struct Wanted {
    /// With the time when it was last told.
    names: BTreeMap<Arc<str>, Instant>,
    /// That there are too many has been said.
    warned: bool,
}

impl PodNames {
    /// Requests want the pod of this name. True if it was not wanted before.
    pub(super) fn want(&self, pod: &str, now: Instant) -> bool {
        is_hostname(pod) && self.lock().want(pod, now)
    }

    /// The names that are wanted now.
    pub(super) fn wanted(&self, now: Instant) -> Vec<Arc<str>> {
        let mut wanted = self.lock();
        wanted.names.retain(|_, told| now < *told + KEPT);
        wanted.names.keys().cloned().collect()
    }

    /// Others, of the same names.
    pub(super) fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn want(&mut self, pod: &str, now: Instant) -> bool {
        if let Some(told) = self.names.get_mut(pod) {
            *told = now;
            return false;
        }
        if self.names.len() >= MOST && !self.make_room(now) {
            if !std::mem::replace(&mut self.warned, true) {
                warn!(
                    pod,
                    "more than {MOST} pods are asked for by name: this one isn't looked up"
                );
            }
            return false;
        }
        self.names.insert(pod.into(), now);
        true
    }

    /// Forgets the name that has not been wanted for the longest time, unless that is in use.
    fn make_room(&mut self, now: Instant) -> bool {
        let oldest = self.names.iter().min_by_key(|(_, told)| **told);
        let oldest = oldest.filter(|(_, told)| now >= **told + IN_USE);
        let oldest = oldest.map(|(name, _)| name.clone());
        oldest.is_some_and(|oldest| self.names.remove(&oldest).is_some())
    }
}

/// Whether it is one label, as a pod's hostname is (RFC 1123). What isn't is no question for DNS.
fn is_hostname(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..64).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Asks for the addresses of `wanted` names, and tells the endpoints that have them.
pub(super) async fn learn<R: Resolve>(resolver: &R, wanted: Vec<Arc<str>>, found: &mut Found) {
    let (Some(own_names), Some(first)) = (&mut found.own_names, found.endpoints.first()) else {
        return;
    };
    let service = own_names.service.clone();
    // Where there are two, all are of the same.
    let family = match first.address() {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    let deadline = Instant::now() + DEADLINE;
    let ask = |pod: Arc<str>| {
        let name: Arc<str> = format!("{pod}.{service}").into();
        async move {
            let answer = addresses(resolver, name, family, Transport::Udp, deadline);
            (pod, answer.await)
        }
    };
    let mut answers = stream::iter(wanted).map(ask).buffer_unordered(AT_ONCE);
    let mut names = HashMap::<IpAddr, Option<Arc<str>>>::new();
    while let Some((pod, answer)) = answers.next().await {
        match answer {
            Ok(Ok(Addresses { addresses, ttl, .. })) => {
                found.ttl = found.ttl.min(ttl);
                for address in addresses {
                    let claim = names.entry(address);
                    let is_other = |other: &mut Option<Arc<str>>| {
                        if other.as_ref().is_some_and(|other| *other != pod) {
                            *other = None;
                        }
                    };
                    claim.and_modify(is_other).or_insert(Some(pod.clone()));
                }
            }
            // It is away.
            Ok(Err(_)) => {}
            Err(error) => {
                debug!(%pod, %error, "a pod's own name can't be looked up");
                own_names.unresolved.push(pod);
            }
        }
    }
    for endpoint in &mut found.endpoints {
        let name = names.get(&endpoint.address().ip()).cloned().flatten();
        if let Some(name) = name.filter(|_| endpoint.hostname().is_none()) {
            endpoint.lease_hostname(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn names_are_bounded_and_those_in_use_are_kept() {
        let (names, now) = (PodNames::default(), Instant::now());
        for pod in 0..MOST {
            assert!(names.want(&format!("web-{pod}"), now));
        }
        assert!(!names.want("web-0", now + 119 * SECOND));
        assert!(!names.want("more", now + 119 * SECOND));
        // Web-1 or another one is not wanted any more, but web-0 is.
        assert!(names.want("more", now + 120 * SECOND));
        let wanted = names.wanted(now + 120 * SECOND);
        assert_eq!(wanted.len(), MOST);
        assert!(
            ["web-0", "more"]
                .iter()
                .all(|name| wanted.iter().any(|it| **it == **name))
        );
        let wanted = names.wanted(now + 419 * SECOND);
        assert_eq!(wanted, ["more".into()]);
    }

    #[test]
    fn only_a_hostname_is_asked_for() {
        let long = "a".repeat(64);
        for name in [
            "", "-", "web.0", "Web-0", "web-0 ", "é", "*", "web_0", "-a", "a-", &long,
        ] {
            assert!(!PodNames::default().want(name, Instant::now()), "{name:?}");
        }
        assert!(PodNames::default().want(&long[1..], Instant::now()));
    }
}
