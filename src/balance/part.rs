//! Chooses the part of discovery's set that is the balancer's set, if it has a [`Subset`]. Stands between the source's
//! answer and the registry.
//!
//! ```text
//!  source's answer ─▶ whole set ─▶ order of this client ─▶ as many as its extent says ─▶ registry
//!  peers' answer ───────────────────────┘                      │      + pods asked for one by one
//!  which accept requests, and aren't left out ─────────────────┘      + all others, while a broadcast runs
//! ```

use std::{
    collections::HashMap,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    comparison::{normalise, recall},
    discovery::{Discovery, FailureLog},
    endpoint::Endpoint,
    error::{BoxError, SharedError},
    locality::{LocalityPreference, Nearest, Proximities},
    logs::{ENDPOINTS, here, info},
    route::PodId,
    subset::{Client, Extent, Fitting, Subset, order, rank},
};

/// How long a pod that requests leave out counts as not accepting, after they last found no other one.
const LEFT_OUT: Duration = Duration::from_secs(600);

/// The least number of asked-for pods to remember.
const ROOM: usize = 64;

/// A balancer's part of discovery's set, and what it is chosen by.
pub(super) struct Part {
    size: usize,
    /// The client's identity while it isn't among its peers.
    alone: Client,
    peers: Option<Peers>,
    locality: LocalityPreference,
    /// Discovery's last set, in the order of identities; `None` before the first answer.
    whole: Option<Vec<Endpoint>>,
    /// Which of the whole set are near, if that makes a difference.
    nearest: Option<Nearest>,
    /// The whole set in the client's order, by indices.
    order: Vec<usize>,
    extent: Extent,
    /// The pods that requests have asked for, each remembered at least until then.
    wanted: HashMap<PodId, Instant>,
    /// How many of them there may be before those that no request waits for are forgotten.
    room: usize,
    /// The pods that requests left out without finding another. Until then they count as not accepting.
    left_out: HashMap<PodId, Instant>,
    /// How many broadcasts want all pods.
    broadcasts: usize,
}

/// The client's peers.
struct Peers {
    source: Box<dyn Discovery>,
    me: Box<str>,
    failures: FailureLog,
    /// The last set that had the client in it.
    set: Vec<Endpoint>,
    is_absent: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the client's own peers can't be found")]
struct PeersFailed(#[source] SharedError);

impl Part {
    pub(super) fn new(
        subset: Subset,
        locality: LocalityPreference,
        draw: impl FnOnce() -> u64,
    ) -> Self {
        let (size, alone) = (subset.size(), subset.client(draw));
        Self {
            size,
            alone,
            peers: subset.into_peers().map(|(source, me)| Peers {
                source,
                me,
                failures: FailureLog::default(),
                set: Vec::new(),
                is_absent: false,
            }),
            locality,
            whole: None,
            nearest: None,
            order: Vec::new(),
            extent: Extent::new(size),
            wanted: HashMap::new(),
            room: ROOM,
            left_out: HashMap::new(),
            broadcasts: 0,
        }
    }

    /// Whether discovery's last set has this pod.
    pub(super) fn has(&self, endpoint: &Endpoint) -> bool {
        let whole = self.whole.as_deref().unwrap_or_default();
        let index = whole.binary_search_by_key(&endpoint.identity(), Endpoint::identity);
        index.is_ok_and(|index| whole[index].is_same_pod(endpoint))
    }

    /// Discovery's whole set is now this.
    pub(super) fn set(&mut self, set: Vec<Endpoint>, now: Instant) {
        let mut whole = normalise(set);
        let before = self.whole.take().unwrap_or_default();
        // Pods are placed by name, so names stay known if the next answer lacks them.
        recall(&before, &mut whole);
        let is_new = whole != before || self.order.is_empty();
        self.whole = Some(whole);
        self.forget(now);
        if is_new {
            self.put_in_order();
        }
    }

    /// Forgets pods that no request waits for and that aren't there.
    fn forget(&mut self, now: Instant) {
        let whole = &self.whole;
        self.wanted
            .retain(|pod, until| *until > now || is_there(whole, pod));
        self.left_out.retain(|pod, _| is_there(whole, pod));
        self.room = ROOM.max(2 * self.wanted.len());
    }

    fn put_in_order(&mut self) {
        let whole = self.whole.as_deref().unwrap_or_default();
        self.nearest = self.locality.nearest(whole);
        let ranked = self.peers.as_ref().and_then(|peers| {
            let in_zone = self.nearest.is_some();
            rank(&peers.set, &peers.me, in_zone)
        });
        let near = self.nearest.as_ref();
        let near = near.map(|nearest| (&*nearest.is_near, nearest.full_share(whole)));
        self.order = order(whole, near, ranked.unwrap_or(self.alone), self.size);
    }

    /// Waits until a change among the client's peers changes the order.
    pub(super) fn poll_peers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(peers) = &mut self.peers else {
                return Poll::Pending;
            };
            let answer = ready!(peers.source.poll_next(cx));
            if peers.take(answer) {
                self.put_in_order();
                return Poll::Ready(());
            }
        }
    }

    /// The background task goes on in another runtime.
    pub(super) fn moved(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.source.refresh();
        }
    }

    /// A request waits for this pod, at most until then. True if that may change the set. A name that no pod has
    /// doesn't change it, because there may be any number of them.
    pub(super) fn want(&mut self, pod: PodId, until: Instant, now: Instant) -> bool {
        if let Some(known) = self.wanted.get_mut(&pod) {
            // Another request may wait for longer.
            *known = until.max(*known);
            return false;
        }
        if self.wanted.len() >= self.room {
            self.forget(now);
        }
        let is_there = is_there(&self.whole, &pod);
        self.wanted.insert(pod, until);
        is_there
    }

    /// Requests that leave this pod out find no other one. Remembered only if the pod is there.
    pub(super) fn leave_out(&mut self, pod: PodId, now: Instant) {
        if self.left_out.contains_key(&pod) || is_there(&self.whole, &pod) {
            self.left_out.insert(pod, now + LEFT_OUT);
        }
    }

    /// A broadcast wants all pods. True if it is the only one.
    pub(super) fn widen(&mut self) -> bool {
        self.broadcasts += 1;
        self.broadcasts == 1
    }

    /// A broadcast that wanted all pods is over. True if it was the last one.
    pub(super) fn narrow(&mut self) -> bool {
        self.broadcasts = self.broadcasts.saturating_sub(1);
        self.broadcasts == 0
    }

    /// When to call [`fit`](Self::fit) again, whatever the pods do.
    pub(super) fn due(&self) -> Option<Instant> {
        let left_out = self.left_out.values().copied().min();
        left_out.into_iter().chain(self.extent.due()).min()
    }

    /// Adapts the number of pods to how many of them may accept requests. True if that changes the set.
    pub(super) fn fit(
        &mut self,
        fitting: &mut Fitting,
        now: Instant,
        accepts: impl Fn(&Endpoint) -> bool,
    ) -> bool {
        self.left_out.retain(|_, until| *until > now);
        let Some(whole) = &self.whole else {
            return false;
        };
        let before = self.extent.of(self.order.len());
        let is_change = self.extent.fit(fitting, self.order.len(), now, |at| {
            let endpoint = &whole[self.order[at]];
            !self.left_out.keys().any(|pod| pod.is(endpoint)) && accepts(endpoint)
        });
        let now = self.extent.of(self.order.len());
        if now > before {
            info!(
                ENDPOINTS,
                here(),
                substitutes = now - self.size,
                "too few pods of the subset accept requests; substitutes join it"
            );
        }
        is_change
    }

    /// The balancer's set; `None` before discovery's first answer.
    pub(super) fn chosen(&self) -> Option<(Vec<Endpoint>, Proximities)> {
        let whole = self.whole.as_deref()?;
        let mut is_chosen = vec![false; whole.len()];
        for &index in &self.order[..self.extent.of(self.order.len())] {
            is_chosen[index] = true;
        }
        let is_wanted = |endpoint: &Endpoint| self.wanted.keys().any(|pod| pod.is(endpoint));
        let is_whole = self.broadcasts > 0;
        let is_here = |&index: &usize| is_whole || is_chosen[index] || is_wanted(&whole[index]);
        let indices: Vec<_> = (0..whole.len()).filter(is_here).collect();
        // If none of the chosen has weight, all do alike. With a weight of zero they would be no better than the others.
        let mut chosen = (0..whole.len()).filter(|&index| is_chosen[index]);
        let are_weightless = chosen.all(|index| whole[index].weight() == 0);
        let endpoint = |&index: &usize| match is_chosen[index] {
            true if are_weightless => whole[index].clone().with_weight(1),
            true => whole[index].clone(),
            // It is here only because it is asked for, or for a broadcast. It gets other requests only as the last
            // resort.
            false => whole[index].clone().with_weight(0),
        };
        let part: Vec<_> = indices.iter().map(endpoint).collect();
        let nearest = self.nearest.as_ref();
        let nearest = nearest.and_then(|nearest| nearest.part(whole, &indices, &part));
        Some((part, Proximities::Known(nearest)))
    }
}

/// Whether discovery's last set has this pod.
fn is_there(whole: &Option<Vec<Endpoint>>, pod: &PodId) -> bool {
    whole.iter().flatten().any(|endpoint| pod.is(endpoint))
}

impl Peers {
    /// Takes in an answer about the peers. True if it is news.
    fn take(&mut self, answer: Result<Vec<Endpoint>, BoxError>) -> bool {
        let answer = answer.map_err(|error| PeersFailed(error.into()).into());
        self.failures.note(&answer);
        let Ok(set) = answer else {
            return false;
        };
        let set = normalise(set);
        let is_absent = rank(&set, &self.me, false).is_none();
        if is_absent && !std::mem::replace(&mut self.is_absent, is_absent) {
            info!(
                ENDPOINTS,
                here(),
                me = &*self.me,
                peers = set.len(),
                "the client isn't among its peers; its subset stays as it was, or is random"
            );
        }
        self.is_absent = is_absent;
        if is_absent || set == self.set {
            return false;
        }
        self.set = set;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn named(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into()).with_hostname(format!("web-{host}"))
    }

    /// A subset of one of the pods from 1 to 9, and the time.
    fn part() -> (Part, Instant) {
        let now = Instant::now();
        let mut part = Part::new(Subset::of(1), LocalityPreference::default(), || 0);
        part.set((1..10).map(named).collect(), now);
        (part, now)
    }

    /// The hosts of the pods that are chosen.
    fn chosen(part: &Part) -> HashSet<u8> {
        let (chosen, _) = part.chosen().expect("there is a set");
        let hosts = chosen.iter().map(|it| match it.address().ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => unreachable!("all are IPv4"),
        });
        hosts.collect()
    }

    fn id(host: u8) -> PodId {
        format!("web-{host}").into()
    }

    #[test]
    fn a_pod_that_is_asked_for_is_kept_in_mind_for_the_request_that_waits_longest() {
        let (mut part, now) = part();
        part.want(id(50), now + 5 * SECOND, now);
        // Another request for it is about to fail.
        part.want(id(50), now + SECOND, now + SECOND);
        part.set((1..10).map(named).collect(), now + 2 * SECOND);
        part.set((1..10).chain([50]).map(named).collect(), now + 3 * SECOND);
        assert!(chosen(&part).contains(&50));
    }

    #[test]
    fn only_a_name_that_a_pod_has_may_change_the_set() {
        let (mut part, now) = part();
        assert!(!part.want(id(50), now + SECOND, now), "there is none");
        assert!(part.want(id(5), now + SECOND, now));
        assert!(!part.want(id(5), now + SECOND, now), "it is known");
        assert!(chosen(&part).contains(&5));
    }

    #[test]
    fn names_that_no_pod_has_are_forgotten() {
        let (mut part, now) = part();
        for second in 0..1000 {
            let now = now + second * SECOND;
            for pod in 0..10 {
                let absent = format!("absent-{second}-{pod}");
                part.want(absent.as_str().into(), now + 5 * SECOND, now);
            }
            // Some 50 are waited for.
            assert!(part.wanted.len() <= 2 * 64, "{}", part.wanted.len());
        }
    }
}
