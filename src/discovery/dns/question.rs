//! One kind of record of one name, asked for again and again by its schedule.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    look::Kind,
    lookup::{Answer, Found, Incomplete, Lookup, LookupError, Nothing, Via},
};
use crate::{
    discovery::{
        filter::CAP,
        schedule::{self, OnEmpty, Pace, Schedule, Verdict},
    },
    endpoint::Endpoint,
    logs::{DISCOVERY, Line, here, warn},
};

/// How long the endpoints of an SRV target stay while the lookup of its addresses fails.
const GAP: Duration = Duration::from_secs(60);

/// How long an endpoint keeps a pod's own name while the name's lookup fails. It is short, because another pod may have
/// got the address.
const NAME_GAP: Duration = Duration::from_secs(30);

/// The result of one look, besides the endpoints.
pub(super) enum Look {
    /// The endpoints are what DNS says.
    Done,
    /// DNS says that there are no endpoints, and there were none before.
    Nothing(LookupError),
    /// DNS says that there are no endpoints, and is believed: the last ones are dropped.
    Gone { error: LookupError, changed: bool },
    /// The last endpoints stay, because DNS isn't believed yet or didn't answer.
    Kept(LookupError),
}

/// A question, and what is believed of its answers.
pub(super) struct Question {
    kind: Kind,
    pace: Pace,
    schedule: Schedule,
    timer: Pin<Box<Sleep>>,
    lookup: Option<Lookup>,
    /// The last endpoints; none before the first believed answer.
    endpoints: Option<Vec<Endpoint>>,
    /// Whether the last records were those of a Service with a virtual IP.
    is_virtual: bool,
    /// Whether a look has ended, with any result.
    looked: bool,
    /// Why the last look left the endpoints as they were, if it did.
    kept: Option<LookupError>,
    /// The SRV targets that the endpoints are of, where they are known.
    targets: HashMap<SocketAddr, Arc<str>>,
    /// The targets whose addresses the last look couldn't get, and since when.
    missing: HashMap<Arc<str>, Instant>,
    /// The pods' own names whose lookup failed in the last looks, and since when.
    unresolved: HashMap<Arc<str>, Instant>,
    /// The last answer, if it was that the name doesn't exist for any type.
    no_name: Option<LookupError>,
    /// Another type's records have disproved that answer, and it has been the only one since.
    is_disproved: bool,
    /// The server that the last records came from, and their TTL.
    found: Option<(Option<Via>, Duration)>,
}

impl Question {
    pub(super) fn new(kind: Kind, pace: Pace) -> Self {
        let now = Instant::now();
        Self {
            kind,
            pace,
            schedule: Schedule::new(pace, now),
            timer: Box::pin(sleep_until(now)),
            lookup: None,
            endpoints: None,
            is_virtual: false,
            looked: false,
            kept: None,
            targets: HashMap::new(),
            missing: HashMap::new(),
            unresolved: HashMap::new(),
            no_name: None,
            is_disproved: false,
            found: None,
        }
    }

    /// Begins anew for another name, and forgets what was believed about the last one.
    pub(super) fn forget(&mut self) {
        let looked = self.looked;
        *self = Self::new(self.kind, self.pace);
        self.looked = looked;
    }

    /// Switches to preferring the other address family, and asks again soon.
    pub(super) fn change_family(&mut self) {
        self.kind = self.kind.other_family();
        self.lookup = None;
        self.refresh();
    }

    /// The server that the last records came from, and their TTL; none before the first records.
    pub(super) fn found(&self) -> Option<(Option<Via>, Duration)> {
        self.found
    }

    /// When it is due next.
    pub(super) fn due(&self) -> Instant {
        self.schedule.due()
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The last believed endpoints; empty before the first.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }

    /// Whether it is certain that there are none.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.endpoints.as_deref(), Some([]))
    }

    /// Whether it is confirmed that there are no endpoints, even if the settings ignore that.
    pub(super) fn is_confirmed_empty(&self) -> bool {
        self.schedule.is_confirmed_empty()
    }

    /// Whether it is confirmed that the name doesn't exist for any type.
    pub(super) fn is_confirmed_no_name(&self) -> bool {
        !self.is_disproved && self.no_name.is_some() && self.schedule.is_confirmed_no_name()
    }

    /// Whether endpoints of other types must be dropped too, because the name doesn't exist.
    pub(super) fn denies_all_types(&self) -> bool {
        self.is_confirmed_no_name() && self.pace.on_empty != OnEmpty::Ignore
    }

    /// Whether the last records were those of a Service with a virtual IP.
    pub(super) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// Whether a look has ended, with any result.
    pub(super) fn has_looked(&self) -> bool {
        self.looked
    }

    /// Whether a look is in progress.
    pub(super) fn is_looking(&self) -> bool {
        self.lookup.is_some()
    }

    /// Why the endpoints are older than the last look, if they are.
    pub(super) fn kept(&self) -> Option<&LookupError> {
        self.kept.as_ref()
    }

    /// The last answer, if it was that the name doesn't exist for any type.
    pub(super) fn no_name(&self) -> Option<&LookupError> {
        self.no_name.as_ref()
    }

    /// Waits until it is time to ask. Never ready while a look is in progress.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lookup.is_some() {
            return Poll::Pending;
        }
        if self.timer.deadline() != self.schedule.due() {
            self.timer.as_mut().reset(self.schedule.due());
        }
        self.timer.as_mut().poll(cx)
    }

    /// Notes that the question is being asked, by this or by a walk.
    pub(super) fn asked(&mut self) {
        self.schedule.asked(Instant::now());
    }

    /// Takes over a look in progress.
    pub(super) fn begin(&mut self, lookup: Lookup) {
        self.lookup = Some(lookup);
    }

    /// Waits for the end of the look, if one is in progress.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<Look> {
        let Some(lookup) = &mut self.lookup else {
            return Poll::Pending;
        };
        let answer = ready!(lookup.as_mut().poll(cx));
        self.lookup = None;
        Poll::Ready(self.answered(answer))
    }

    /// Takes the answer of a look.
    pub(super) fn answered(&mut self, answer: Answer<Found>) -> Look {
        self.no_name = match &answer {
            Ok(Err(nothing)) if self.kind.is_trusted() && nothing.error.is_no_name() => {
                Some(nothing.error.clone())
            }
            _ => None,
        };
        self.is_disproved &= self.no_name.is_some() || answer.is_err();
        let look = self.judge(answer);
        self.looked = true;
        self.kept = match &look {
            Look::Kept(error) => Some(error.clone()),
            _ => None,
        };
        look
    }

    /// If the lookup of a pod's own name failed, leaves the name to the endpoint that had it, for up to [`NAME_GAP`].
    fn keep_names(&mut self, endpoints: &mut [Endpoint], unresolved: Vec<Arc<str>>) {
        let before = std::mem::take(&mut self.unresolved);
        self.unresolved = since(&before, unresolved);
        if self.unresolved.is_empty() {
            return;
        }
        let is_kept = |name: &&Arc<str>| {
            let since = self.unresolved.get(*name);
            since.is_some_and(|since| since.elapsed() < NAME_GAP)
        };
        let before = self.endpoints().iter();
        let kept = before.filter_map(|before| {
            let name = before.shared_hostname().filter(|name| is_kept(&name))?;
            Some((before.address(), name))
        });
        let kept: HashMap<_, _> = kept.collect();
        for endpoint in endpoints.iter_mut().filter(|it| it.hostname().is_none()) {
            if let Some(name) = kept.get(&endpoint.address()) {
                endpoint.lease_hostname(name.clone());
            }
        }
    }

    /// If the lookup of some targets failed, adds their last endpoints, for up to [`GAP`]: nothing says that they are
    /// gone.
    fn complete(
        &mut self,
        endpoints: &mut Vec<Endpoint>,
        mut targets: HashMap<SocketAddr, Arc<str>>,
        incomplete: Option<Box<Incomplete>>,
    ) {
        self.note_missing(incomplete);
        if !self.missing.is_empty() {
            let addresses: HashSet<_> = endpoints.iter().map(Endpoint::address).collect();
            let is_found = |old: &Endpoint| addresses.contains(&old.address());
            let old = self.endpoints().iter();
            for old in old.filter(|old| !is_found(old) && self.is_kept(old)) {
                if let Some(target) = self.targets.get(&old.address()) {
                    targets.insert(old.address(), target.clone());
                }
                endpoints.push(old.clone());
            }
            endpoints.truncate(CAP);
        }
        self.targets = targets;
    }

    fn note_missing(&mut self, incomplete: Option<Box<Incomplete>>) {
        let before = std::mem::take(&mut self.missing);
        let Some(incomplete) = incomplete else { return };
        let Incomplete { targets, error } = *incomplete;
        if before.is_empty() {
            warn!(DISCOVERY, here(), error = %Line(&error), "the lookup of some SRV targets' addresses failed");
        }
        self.missing = since(&before, targets);
    }

    /// Whether an endpoint that the look didn't find stays.
    fn is_kept(&self, endpoint: &Endpoint) -> bool {
        let since = match self.targets.get(&endpoint.address()) {
            Some(target) => self.missing.get(target),
            // It came from the service's own name, so it may belong to any target.
            None => self.missing.values().min(),
        };
        since.is_some_and(|since| since.elapsed() < GAP)
    }

    /// Notes that another type's records prove that the name exists. The server is expected to go on denying it for
    /// this type.
    pub(super) fn name_exists(&mut self) {
        self.is_disproved |= self.no_name.take().is_some();
        self.schedule.name_exists();
    }

    /// Drops the endpoints if they are older than the last look. Returns true if there were any.
    pub(super) fn drop_kept(&mut self) -> bool {
        let is_dropped = self.kept.is_some() && !self.endpoints().is_empty();
        if is_dropped {
            self.endpoints = Some(Vec::new());
        }
        is_dropped
    }

    fn judge(&mut self, answer: Answer<Found>) -> Look {
        let (answer, found) = match answer {
            Ok(Ok(Found {
                ttl,
                mut endpoints,
                targets,
                incomplete,
                is_virtual,
                own_names,
                via,
                ..
            })) => {
                self.found = Some((via, ttl));
                self.is_virtual = is_virtual;
                let unresolved = own_names.map(|own_names| own_names.unresolved);
                self.keep_names(&mut endpoints, unresolved.unwrap_or_default());
                self.complete(&mut endpoints, targets, incomplete);
                let changed = !is_same_set(self.endpoints(), &endpoints);
                (schedule::Answer::Records { ttl, changed }, Ok(endpoints))
            }
            Ok(Err(Nothing { ttl, error, .. })) => {
                let is_no_name = self.no_name.is_some();
                (schedule::Answer::Empty { ttl, is_no_name }, Err(error))
            }
            Err(error) => (schedule::Answer::Failed, Err(error)),
        };
        let verdict = self
            .schedule
            .answered(answer, Instant::now(), &mut rand::rng());
        match (verdict, found) {
            (Verdict::Replace, Ok(endpoints)) => self.endpoints = Some(endpoints),
            (Verdict::Drop, Err(error)) => {
                let changed = !self.endpoints().is_empty();
                self.endpoints = Some(Vec::new());
                return Look::Gone { error, changed };
            }
            (_, Err(error)) if error.is_not_found() && self.endpoints().is_empty() => {
                return Look::Nothing(error);
            }
            (_, Err(error)) => return Look::Kept(error),
            // The schedule always says `Replace` for records.
            (Verdict::Keep | Verdict::Drop, Ok(_)) => {}
        }
        Look::Done
    }

    /// Reacts to a sign of change: asks again soon.
    pub(super) fn refresh(&mut self) {
        self.schedule.refresh(Instant::now());
    }

    /// A pod's own name is wanted that no look has asked for: asks at once, if there have been few such questions.
    pub(super) fn want(&mut self) {
        self.schedule.want(Instant::now());
    }

    /// [`want`](Self::want) for names that were wanted during the last look.
    pub(super) fn catch_up(&mut self) {
        self.schedule.catch_up(Instant::now());
    }

    /// Drops `endpoint` if DNS already says that it is gone, though unconfirmed. Returns true if it did.
    pub(super) fn give_up(&mut self, endpoint: &Endpoint) -> bool {
        let Some(endpoints) = self
            .endpoints
            .as_mut()
            .filter(|_| self.schedule.is_in_doubt())
        else {
            return false;
        };
        let before = endpoints.len();
        endpoints.retain(|held| held.address() != endpoint.address());
        endpoints.len() < before
    }
}

/// Maps each name of `now` to its time in `before`, or to the current time if it is new.
fn since(before: &HashMap<Arc<str>, Instant>, now: Vec<Arc<str>>) -> HashMap<Arc<str>, Instant> {
    let began = Instant::now();
    let since = |name: &Arc<str>| before.get(name).copied().unwrap_or(began);
    now.into_iter()
        .map(|name| (name.clone(), since(&name)))
        .collect()
}

/// Whether two answers have the same endpoints, ignoring order and duplicates.
fn is_same_set(a: &[Endpoint], b: &[Endpoint]) -> bool {
    if a == b {
        return true;
    }
    let sorted = |endpoints: &[Endpoint]| {
        let mut endpoints = endpoints.to_vec();
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    };
    sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, time::Duration};

    use super::*;
    use crate::discovery::dns::lookup::{Family, Reason, Transport, Via};

    fn question() -> Question {
        let kind = Kind::Addresses(Family::V4, 80);
        Question::new(kind, Pace::default())
    }

    fn endpoint() -> Endpoint {
        Endpoint::new(([10, 0, 0, 1], 80).into())
    }

    fn found() -> Answer<Found> {
        let via = Via {
            name_server: ([10, 96, 0, 10], 53).into(),
            transport: Transport::Udp,
        };
        Ok(Ok(Found {
            name: "web.svc".into(),
            endpoints: vec![endpoint()],
            ttl: Duration::from_secs(5),
            via: Some(via),
            targets: HashMap::new(),
            incomplete: None,
            is_virtual: false,
            own_names: None,
        }))
    }

    /// Asks as long as a question is due, with immediate answers, and counts the questions.
    async fn drain(question: &mut Question, asked: &Cell<u32>) {
        while futures::poll!(poll_fn(|cx| question.poll_due(cx))).is_ready() {
            asked.set(asked.get() + 1);
            question.asked();
            question.begin(Box::pin(async { found() }));
            let look = poll_fn(|cx| question.poll_look(cx)).await;
            assert!(matches!(look, Look::Done));
        }
    }

    /// A suspended machine's clock jumps. With monotonic time that causes one late question, not
    /// a burst.
    #[tokio::test(start_paused = true)]
    async fn a_suspend_costs_one_question() {
        let mut question = question();
        let asked = Cell::new(0);
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 2, "one question for all that were missed");
        tokio::time::advance(Duration::from_secs(1)).await;
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 2, "and then the schedule's pace");
        tokio::time::advance(Duration::from_secs(2)).await;
        drain(&mut question, &asked).await;
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn refreshes_never_cause_two_questions_at_a_time() {
        let mut question = question();
        assert!(futures::poll!(poll_fn(|cx| question.poll_due(cx))).is_ready());
        question.asked();
        question.begin(Box::pin(std::future::pending()));
        for _ in 0..100 {
            question.refresh();
            assert!(futures::poll!(poll_fn(|cx| question.poll_due(cx))).is_pending());
            assert!(futures::poll!(poll_fn(|cx| question.poll_look(cx))).is_pending());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_can_be_given_up_only_while_dns_denies_it() {
        let mut question = question();
        question.answered(found());
        assert!(!question.give_up(&endpoint()), "DNS still has it");
        let error = LookupError::new("web.svc.", Reason::NoName);
        let look = question.answered(Ok(Err(Nothing::new(None, error))));
        assert!(matches!(look, Look::Kept(_)));
        assert_eq!(question.endpoints(), [endpoint()]);
        assert!(question.give_up(&endpoint()));
        assert!(question.endpoints().is_empty());
    }
}
