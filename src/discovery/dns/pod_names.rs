//! Pods' own names: `web-0.<service>`, asked for beside the Service's where requests want a pod by its name.
//!
//! ```text
//!  Service's addresses ─▶ endpoints, of which nothing but the address is known
//!  each wanted name's addresses, in the same look ─▶ the endpoint at that address has this hostname, until the next look
//! ```
//!
//! A name makes no endpoint: who isn't in the Service's set isn't ready, or is none of its pods. An address that two names claim
//! has neither: one of the answers is old.
//!
//! Names may be more than are asked for. Those that turn out to be no pods' make room for others, which wait for that: a request
//! tells its pod's name once a minute only.
//!
//! The time of a look may not suffice for all names. Those that didn't have theirs come first in the next one.

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
    names: BTreeMap<Arc<str>, Wish>,
    /// Those that there was no room for, and when they were last told; the last one last.
    waiting: VecDeque<(Arc<str>, Instant)>,
    /// That there are too many has been said.
    warned: bool,
}

/// What is known of a name that is wanted.
#[derive(Clone, Debug)]
struct Wish {
    /// When it was last told.
    told: Instant,
    /// It has been a pod's of the Service.
    is_real: bool,
    /// When it last had its time in a look, by family.
    asked: [Option<Instant>; 2],
}

impl PodNames {
    /// Requests want the pod of this name. True if it was not wanted before.
    pub(super) fn want(&self, pod: &str, now: Instant) -> bool {
        is_hostname(pod) && self.0.lock().want(pod, now)
    }

    /// The names that are wanted now; first those that have had no time in a look of this family for the longest.
    fn wanted(&self, family: Family, now: Instant) -> Vec<Arc<str>> {
        let mut wanted = self.0.lock();
        wanted.names.retain(|_, wish| now < wish.told + KEPT);
        wanted.take_in(now);
        let mut names: Vec<_> = wanted.names.iter().collect();
        names.sort_by_key(|(_, wish)| wish.asked[family as usize]);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// Those of the names that there was no room for which have some now.
    fn taken_in(&self, now: Instant) -> Vec<Arc<str>> {
        self.0.lock().take_in(now)
    }

    /// A name has had its time in a look.
    fn asked(&self, pod: &str, family: Family, now: Instant) {
        if let Some(wish) = self.0.lock().names.get_mut(pod) {
            wish.asked[family as usize] = Some(now);
        }
    }

    /// A name is that of a pod of the Service.
    fn is_real(&self, pod: &str) {
        if let Some(wish) = self.0.lock().names.get_mut(pod) {
            wish.is_real = true;
        }
    }

    /// Others, of the same names.
    pub(super) fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }
}

impl Wanted {
    fn want(&mut self, pod: &str, now: Instant) -> bool {
        if let Some(wish) = self.names.get_mut(pod) {
            wish.told = now;
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
        self.names.insert(pod.into(), Wish::new(now));
        true
    }

    /// Takes in those that wait, the first ones first, as far as there is room.
    fn take_in(&mut self, now: Instant) -> Vec<Arc<str>> {
        self.waiting.retain(|(_, told)| now < *told + IN_USE);
        let mut taken_in = Vec::new();
        while !self.waiting.is_empty() && (self.names.len() < MOST || self.make_room(now)) {
            let Some((name, told)) = self.waiting.pop_front() else {
                break;
            };
            self.names.insert(name.clone(), Wish::new(told));
            taken_in.push(name);
        }
        taken_in
    }

    /// Forgets the name that has not been wanted for the longest time, unless that is in use; or else one that has been looked up
    /// and was never a pod's, so that names that are made up don't shut out those of pods.
    fn make_room(&mut self, now: Instant) -> bool {
        let oldest = |may_go: &dyn Fn(&Wish) -> bool| {
            let names = self.names.iter().filter(|(_, wish)| may_go(wish));
            let oldest = names.min_by_key(|(_, wish)| wish.told);
            oldest.map(|(name, _)| name.clone())
        };
        let unused = oldest(&|wish| now >= wish.told + IN_USE);
        let oldest = unused.or_else(|| oldest(&Wish::is_no_pod));
        oldest.is_some_and(|oldest| self.names.remove(&oldest).is_some())
    }
}

impl Wish {
    fn new(told: Instant) -> Self {
        Self {
            told,
            is_real: false,
            asked: [None; 2],
        }
    }

    /// Whether it has been looked up, and was never a pod's.
    fn is_no_pod(&self) -> bool {
        !self.is_real && self.asked.iter().any(Option::is_some)
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

/// Asks for the addresses of the wanted names, and tells the endpoints that have them.
pub(super) async fn learn<R: Resolve>(resolver: &R, wanted: &PodNames, found: &mut Found) {
    let (Some(own_names), Some(first)) = (&mut found.own_names, found.endpoints.first()) else {
        return;
    };
    let service = own_names.service.clone();
    // Where there are two, all are of the same.
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
            // The first have had all the time that there is, whatever they needed it for.
            let is_cut_off = answer.is_err() && place >= AT_ONCE && Instant::now() >= deadline;
            if !is_cut_off {
                wanted.asked(&pod, family, Instant::now());
            }
            (pod, answer)
        }
    };
    let (mut pods, mut before) = (wanted.wanted(family, now), 0);
    let mut names = Claims::new();
    // Of those for which there was no room some may have it then, in the same look. The rest waits for the next one.
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
                // It is away.
                Ok(Err(_)) => {}
                Err(error) => {
                    debug!(DISCOVERY, here(), %pod, error = %Line(&error), "a pod's own name can't be looked up");
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

/// Whose addresses are: none's that two names claim.
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
    fn names_are_bounded_and_those_in_use_are_kept() {
        let (names, now) = (PodNames::default(), Instant::now());
        for pod in 0..MOST {
            assert!(names.want(&format!("web-{pod}"), now));
        }
        assert!(!names.want("web-0", now + 119 * SECOND));
        assert!(!names.want("more", now + 119 * SECOND));
        // Web-1 or another one is not wanted any more, but web-0 is.
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
    fn names_that_are_no_pods_make_room_for_others() {
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
        assert!(names.want("more", now), "web-7 is none");
        assert!(!names.want("web-7", now), "and more may be one");
        names.is_real("more");
        names.asked("more", Family::V4, now);
        assert!(!names.want("web-7", now), "all are pods, and in use");
    }

    #[test]
    fn names_that_there_was_no_room_for_are_taken_in_when_there_is_some() {
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
        // Two aren't, and of those that wait only one has been told since.
        let wanted = names.wanted(Family::V4, now + IN_USE);
        assert!(wanted.contains(&"more-0".into()));
        assert_eq!(wanted.len(), MOST);
        assert_eq!(names.taken_in(now + IN_USE).len(), 0);
        assert_eq!(names.0.lock().waiting.len(), 0);
    }

    #[test]
    fn those_that_have_waited_longest_are_asked_for_first() {
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
