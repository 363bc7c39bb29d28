//! Pods' own names, `web-0.<service>`: looked up along with the Service if requests ask for pods by name.
//!
//! ```text
//!  Service's addresses ─▶ endpoints, of which nothing but the address is known
//!  each wanted name's addresses, in the same look ─▶ the endpoint there gets this hostname until the next look
//! ```
//!
//! A name adds no endpoint: an address that isn't in the Service's set isn't ready, or isn't one of its pods. If two
//! names have the same address, neither is used, because one of the answers is old.
//!
//! There may be more wanted names than are looked up. The others wait (requests report each name only once a minute),
//! and replace names that turn out not to belong to a pod.
//!
//! The time of a look may not suffice for all names. Names that didn't get their turn come first in the next look.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    addresses::{Addresses, addresses},
    lookup::{Family, Found, Resolve, Transport},
};

use crate::{
    logs::{DISCOVERY, Line, debug, here, warn},
    sync::Mutex,
};

/// The most names that are looked up.
const MOST: usize = 64;

/// How long a name is looked up after requests last asked for it.
const KEPT: Duration = Duration::from_secs(300);

/// A name counts as in use for this long: requests report it once a minute.
const IN_USE: Duration = Duration::from_secs(120);

/// How many names are looked up at a time.
const AT_ONCE: usize = 16;

/// How long all names of a look may take; the Service's addresses wait for them.
const DEADLINE: Duration = Duration::from_secs(1);

/// The wanted names. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct PodNames(Arc<Mutex<Wanted>>);

#[derive(Clone, Debug, Default)]
struct Wanted {
    names: BTreeMap<Arc<str>, WantedName>,
    /// The names that there was no room for, and when each was last wanted, in that order.
    waiting: VecDeque<(Arc<str>, Instant)>,
    /// The warning that there are too many has been logged.
    warned: bool,
}

/// What is known about a wanted name.
#[derive(Clone, Debug)]
struct WantedName {
    /// When requests last asked for it.
    wanted_at: Instant,
    /// It has belonged to a pod of the Service.
    is_real: bool,
    /// When it last got its turn in a look, by family.
    asked: [Option<Instant>; 2],
}

impl PodNames {
    /// Notes that requests ask for the pod of this name. Returns true if it is looked up from now on and wasn't
    /// before.
    pub(super) fn want(&self, pod: &str, now: Instant) -> bool {
        is_hostname(pod) && self.0.lock().want(pod, now)
    }

    /// The wanted names, beginning with those that have waited longest for their turn in a look of this family.
    fn wanted(&self, family: Family, now: Instant) -> Vec<Arc<str>> {
        let mut wanted = self.0.lock();
        wanted.names.retain(|_, entry| now < entry.wanted_at + KEPT);
        wanted.take_in(now);
        let mut names: Vec<_> = wanted.names.iter().collect();
        names.sort_by_key(|(_, entry)| entry.asked[family as usize]);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Takes in waiting names for which there is room now, and returns them.
    fn taken_in(&self, now: Instant) -> Vec<Arc<str>> {
        self.0.lock().take_in(now)
    }

    /// Notes that a name got its turn in a look.
    fn asked(&self, pod: &str, family: Family, now: Instant) {
        if let Some(entry) = self.0.lock().names.get_mut(pod) {
            entry.asked[family as usize] = Some(now);
        }
    }

    /// Whether a name hasn't had its turn in any look.
    pub(super) fn has_unasked(&self) -> bool {
        let wanted = self.0.lock();
        wanted.names.values().any(|entry| entry.asked == [None; 2])
    }

    /// Notes that a name belongs to a pod of the Service.
    fn is_real(&self, pod: &str) {
        if let Some(entry) = self.0.lock().names.get_mut(pod) {
            entry.is_real = true;
        }
    }

    /// An independent copy.
    pub(super) fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }
}

impl Wanted {
    fn want(&mut self, pod: &str, now: Instant) -> bool {
        if let Some(entry) = self.names.get_mut(pod) {
            entry.wanted_at = now;
            return false;
        }
        self.waiting.retain(|(name, _)| **name != *pod);
        if self.names.len() >= MOST && !self.make_room(now) {
            if !std::mem::replace(&mut self.warned, true) {
                warn!(
                    DISCOVERY,
                    here(),
                    pod,
                    "more than {MOST} pods are asked for by name: this one waits until there is room"
                );
            }
            if self.waiting.len() >= MOST {
                self.waiting.pop_front();
            }
            self.waiting.push_back((pod.into(), now));
            return false;
        }
        self.names.insert(pod.into(), WantedName::new(now));
        true
    }

    /// Takes in waiting names, oldest first, as far as there is room.
    fn take_in(&mut self, now: Instant) -> Vec<Arc<str>> {
        self.waiting
            .retain(|(_, wanted_at)| now < *wanted_at + IN_USE);
        let mut taken_in = Vec::new();
        while !self.waiting.is_empty() && (self.names.len() < MOST || self.make_room(now)) {
            let Some((name, wanted_at)) = self.waiting.pop_front() else {
                break;
            };
            self.names.insert(name.clone(), WantedName::new(wanted_at));
            taken_in.push(name);
        }
        taken_in
    }

    /// Forgets the name that was wanted least recently, if it isn't in use. Failing that, forgets a name that was
    /// looked up and never belonged to a pod, so that made-up names don't keep out those of pods.
    fn make_room(&mut self, now: Instant) -> bool {
        let oldest = |may_go: &dyn Fn(&WantedName) -> bool| {
            let names = self.names.iter().filter(|(_, entry)| may_go(entry));
            let oldest = names.min_by_key(|(_, entry)| entry.wanted_at);
            oldest.map(|(name, _)| name.clone())
        };
        let unused = oldest(&|entry| now >= entry.wanted_at + IN_USE);
        let oldest = unused.or_else(|| oldest(&WantedName::is_no_pod));
        oldest.is_some_and(|oldest| self.names.remove(&oldest).is_some())
    }
}

impl WantedName {
    fn new(wanted_at: Instant) -> Self {
        Self {
            wanted_at,
            is_real: false,
            asked: [None; 2],
        }
    }

    /// Whether it has been looked up, and has never belonged to a pod.
    fn is_no_pod(&self) -> bool {
        !self.is_real && self.asked.iter().any(Option::is_some)
    }
}

/// Whether it is a single label, as a pod's hostname is (RFC 1123). Other names aren't looked up.
fn is_hostname(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..64).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Looks up the wanted names, and gives them as hostnames to the endpoints with their addresses.
pub(super) async fn learn<R: Resolve>(resolver: &R, wanted: &PodNames, found: &mut Found) {
    let (Some(own_names), Some(first)) = (&mut found.own_names, found.endpoints.first()) else {
        return;
    };
    let service = own_names.service.clone();
    // All endpoints of a look have the same family.
    let family = match first.address() {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    let now = Instant::now();
    let deadline = now + DEADLINE;
    let ask = |(place, pod): (usize, Arc<str>)| {
        let name: Arc<str> = format!("{pod}.{service}").into();
        async move {
            let answer = addresses(resolver, name, family, Transport::Udp, deadline).await;
            // The first `AT_ONCE` names had the whole time, so they got their turn even if they failed.
            let is_cut_off = answer.is_err() && place >= AT_ONCE && Instant::now() >= deadline;
            if !is_cut_off {
                wanted.asked(&pod, family, Instant::now());
            }
            (pod, answer)
        }
    };
    let (mut pods, mut before) = (wanted.wanted(family, now), 0);
    let mut names = Claims::new();
    // The second round is for waiting names that got room in the first one. Others wait for the next look.
    for _ in 0..2 {
        let places = before..before + pods.len();
        before = places.end;
        let mut answers = stream::iter(places.zip(pods))
            .map(ask)
            .buffer_unordered(AT_ONCE);
        while let Some((pod, answer)) = answers.next().await {
            match answer {
                Ok(Ok(Addresses { addresses, ttl, .. })) => {
                    found.ttl = found.ttl.min(ttl);
                    for address in addresses {
                        claim(&mut names, address, &pod);
                    }
                }
                // The pod is away.
                Ok(Err(_)) => {}
                Err(error) => {
                    debug!(DISCOVERY, here(), %pod, error = %Line(&error), "the lookup of a pod's own name failed");
                    own_names.unresolved.push(pod);
                }
            }
        }
        let unnamed = found.endpoints.iter().filter(|it| it.hostname().is_none());
        for name in unnamed.filter_map(|it| names.get(&it.address().ip())?.as_ref()) {
            wanted.is_real(name);
        }
        if Instant::now() >= deadline {
            break;
        }
        pods = wanted.taken_in(Instant::now());
    }
    for endpoint in &mut found.endpoints {
        let name = names.get(&endpoint.address().ip()).cloned().flatten();
        if let Some(name) = name.filter(|_| endpoint.hostname().is_none()) {
            endpoint.lease_hostname(name);
        }
    }
}

/// The name that claims each address; none if several do.
type Claims = HashMap<IpAddr, Option<Arc<str>>>;

fn claim(names: &mut Claims, address: IpAddr, pod: &Arc<str>) {
    let is_other = |other: &mut Option<Arc<str>>| {
        if other.as_ref().is_some_and(|other| other != pod) {
            *other = None;
        }
    };
    let claim = names.entry(address).and_modify(is_other);
    claim.or_insert_with(|| Some(pod.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn names_are_bounded_and_a_new_one_replaces_one_out_of_use() {
        let (names, now) = (PodNames::default(), Instant::now());
        for pod in 0..MOST {
            assert!(names.want(&format!("web-{pod}"), now));
        }
        assert!(!names.want("web-0", now + 119 * SECOND));
        assert!(!names.want("more", now + 119 * SECOND));
        // One of the others, such as web-1, is no longer in use; web-0 is.
        assert!(names.want("more", now + 120 * SECOND));
        let wanted = names.wanted(Family::V4, now + 120 * SECOND);
        assert_eq!(wanted.len(), MOST);
        assert!(
            ["web-0", "more"]
                .iter()
                .all(|name| wanted.iter().any(|it| **it == **name))
        );
        let wanted = names.wanted(Family::V4, now + 419 * SECOND);
        assert_eq!(wanted, [Arc::<str>::from("more")]);
    }

    #[test]
    fn a_name_that_never_belonged_to_a_pod_makes_room() {
        let (names, now) = (PodNames::default(), Instant::now());
        for pod in 0..MOST {
            assert!(names.want(&format!("web-{pod}"), now));
        }
        assert!(!names.want("more", now), "they may all be pods");
        for pod in 0..MOST {
            names.asked(&format!("web-{pod}"), Family::V4, now);
            if pod != 7 {
                names.is_real(&format!("web-{pod}"));
            }
        }
        assert!(names.want("more", now), "web-7 is no pod");
        assert!(!names.want("web-7", now), "`more` may be a pod");
        names.is_real("more");
        names.asked("more", Family::V4, now);
        assert!(!names.want("web-7", now), "all are pods, and in use");
    }

    #[test]
    fn waiting_names_are_taken_in_when_there_is_room() {
        let (names, now) = (PodNames::default(), Instant::now());
        for pod in 0..MOST {
            assert!(names.want(&format!("web-{pod}"), now));
            names.is_real(&format!("web-{pod}"));
        }
        for pod in 0..2 * MOST {
            assert!(!names.want(&format!("more-{pod}"), now));
        }
        assert!(!names.want("more-0", now + SECOND));
        assert_eq!(names.0.lock().waiting.len(), MOST);
        let later = now + IN_USE - SECOND;
        for pod in 2..MOST {
            assert!(!names.want(&format!("web-{pod}"), later));
        }
        assert_eq!(names.taken_in(later).len(), 0, "all are in use");
        // Two names are out of use now, and only one of the waiting ones has been wanted since.
        let wanted = names.wanted(Family::V4, now + IN_USE);
        assert!(wanted.contains(&"more-0".into()));
        assert_eq!(wanted.len(), MOST);
        assert_eq!(names.taken_in(now + IN_USE).len(), 0);
        assert_eq!(names.0.lock().waiting.len(), 0);
    }

    #[test]
    fn names_that_have_waited_longest_are_looked_up_first() {
        let (names, now) = (PodNames::default(), Instant::now());
        for pod in ["a", "b", "c"] {
            names.want(pod, now);
        }
        names.asked("b", Family::V4, now);
        names.asked("a", Family::V4, now + SECOND);
        let order = |family| names.wanted(family, now + SECOND);
        assert_eq!(order(Family::V4), ["c", "b", "a"].map(Arc::from));
        assert_eq!(order(Family::V6), ["a", "b", "c"].map(Arc::from));
    }

    #[test]
    fn only_hostnames_are_looked_up() {
        let long = "a".repeat(64);
        for name in [
            "", "-", "web.0", "Web-0", "web-0 ", "é", "*", "web_0", "-a", "a-", &long,
        ] {
            assert!(!PodNames::default().want(name, Instant::now()), "{name:?}");
        }
        assert!(PodNames::default().want(&long[1..], Instant::now()));
    }
}
