//! One kind of record of one name, asked again and again as its schedule says.

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

/// For how long the endpoints of an SRV target stay whose addresses can't be had.
const GAP: Duration = Duration::from_secs(60);

/// For how long a pod's own name stays where it was that can't be looked up. Not for long: the pod may have left its address to
/// another one.
const NAME_GAP: Duration = Duration::from_secs(30);

/// What came of one look, beyond the endpoints.
pub(super) enum Look {
    /// The endpoints are what DNS says.
    Done,
    /// DNS says that there are none, and there were none.
    Nothing(LookupError),
    /// DNS says that there are none, and is believed: those that there were are dropped.
    Gone { error: LookupError, changed: bool },
    /// The last endpoints stay, against what DNS says or for want of an answer.
    Kept(LookupError),
}

/// A question and what is believed of its answer.
pub(super) struct Question {
    kind: Kind,
    pace: Pace,
    schedule: Schedule,
    timer: Pin<Box<Sleep>>,
    lookup: Option<Lookup>,
    /// The last endpoints; none before the first answer that is believed.
    endpoints: Option<Vec<Endpoint>>,
    /// Whether the last records were those of a Service with a virtual IP.
    is_virtual: bool,
    /// Whether a look has ended, however it did.
    looked: bool,
    /// Why the last look left the endpoints as they were, if it did.
    kept: Option<LookupError>,
    /// The SRV targets that the endpoints are of, where they are known.
    targets: HashMap<SocketAddr, Arc<str>>,
    /// The targets whose addresses the last look could not get, and since when.
    missing: HashMap<Arc<str>, Instant>,
    /// The pods' own names that the last looks could not look up, and since when.
    unresolved: HashMap<Arc<str>, Instant>,
    /// The last answer was that the name does not exist, whatever the type.
    no_name: Option<LookupError>,
    /// That answer has been disproved by another type's records, and has been the only one since.
    is_disproved: bool,
    /// Who has told the last records, and for how long those hold.
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

    /// Another name is asked for from now on: what was believed of the last one is none of its.
    pub(super) fn forget(&mut self) {
        let looked = self.looked;
        *self = Self::new(self.kind, self.pace);
        self.looked = looked;
    }

    /// Prefers the other address family from now on, and asks again soon.
    pub(super) fn change_family(&mut self) {
        self.kind = self.kind.other_family();
        self.lookup = None;
        self.refresh();
    }

    /// Who has told the last records, and for how long those hold; none before there were any.
    pub(super) fn found(&self) -> Option<(Option<Via>, Duration)> {
        self.found
    }

    /// When it is asked next.
    pub(super) fn due(&self) -> Instant {
        self.schedule.due()
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The endpoints as last believed; empty before that.
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }

    /// Whether it is certain that there are none.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.endpoints.as_deref(), Some([]))
    }

    /// Whether DNS has said often enough that there is nothing, be it believed or not.
    pub(super) fn is_confirmed_empty(&self) -> bool {
        self.schedule.is_confirmed_empty()
    }

    /// Whether the last answer was that the name does not exist, whatever the type, and DNS has said so often enough.
    pub(super) fn is_confirmed_no_name(&self) -> bool {
        !self.is_disproved && self.no_name.is_some() && self.schedule.is_confirmed_no_name()
    }

    /// Whether endpoints of other types are to be dropped for it.
    pub(super) fn denies_all_types(&self) -> bool {
        self.is_confirmed_no_name() && self.pace.on_empty != OnEmpty::Ignore
    }

    /// Whether the last records were those of a Service with a virtual IP.
    pub(super) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    /// Whether a look has ended, however it did.
    pub(super) fn has_looked(&self) -> bool {
        self.looked
    }

    /// Whether a look is under way.
    pub(super) fn is_looking(&self) -> bool {
        self.lookup.is_some()
    }

    /// Why the endpoints are older than the last look, if they are.
    pub(super) fn kept(&self) -> Option<&LookupError> {
        self.kept.as_ref()
    }

    /// That the name does not exist, whatever the type, if the last answer was that.
    pub(super) fn no_name(&self) -> Option<&LookupError> {
        self.no_name.as_ref()
    }

    /// Waits until it is time to ask. Never while a look is under way.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lookup.is_some() {
            return Poll::Pending;
        }
        if self.timer.deadline() != self.schedule.due() {
            self.timer.as_mut().reset(self.schedule.due());
        }
        self.timer.as_mut().poll(cx)
    }

    /// The question is being asked, by whomever.
    pub(super) fn asked(&mut self) {
        self.schedule.asked(Instant::now());
    }

    /// Takes over a look that has begun.
    pub(super) fn begin(&mut self, lookup: Lookup) {
        self.lookup = Some(lookup);
    }

    /// Waits for the end of the look, if one is under way.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<Look> {
        let Some(lookup) = &mut self.lookup else {
            return Poll::Pending;
        };
        let answer = ready!(lookup.as_mut().poll(cx));
        self.lookup = None;
        Poll::Ready(self.answered(answer))
    }

    /// Takes what a look has come to.
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

    /// Where a pod's own name could not be looked up, the endpoint goes on having it that had it before, for a while.
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

    /// The endpoints of targets whose addresses can't be had are taken from the last ones, for a while: nobody says that they
    /// have gone.
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
            warn!(DISCOVERY, here(), error = %Line(&error), "the addresses of some SRV targets can't be had");
        }
        self.missing = since(&before, targets);
    }

    /// Whether an endpoint stays that the look hasn't found.
    fn is_kept(&self, endpoint: &Endpoint) -> bool {
        let since = match self.targets.get(&endpoint.address()) {
            Some(target) => self.missing.get(target),
            // It was found by the service's own name: it may be any target's.
            None => self.missing.values().min(),
        };
        since.is_some_and(|since| since.elapsed() < GAP)
    }

    /// Another type's records say that the name exists. Who says otherwise to questions for this type goes on doing so.
    pub(super) fn name_exists(&mut self) {
        self.is_disproved |= self.no_name.take().is_some();
        self.schedule.name_exists();
    }

    /// Drops the endpoints if they are older than the last look. True if there were any.
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
            // Records are never judged so.
            (Verdict::Keep | Verdict::Drop, Ok(_)) => {}
        }
        Look::Done
    }

    /// A sign of change: ask soon.
    pub(super) fn refresh(&mut self) {
        self.schedule.refresh(Instant::now());
    }

    /// Gives `endpoint` up, if DNS says that it is gone and only the confirmation is missing. True if so.
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

/// Since when there is trouble with these: those that are among the ones `before`, since then.
fn since(before: &HashMap<Arc<str>, Instant>, now: Vec<Arc<str>>) -> HashMap<Arc<str>, Instant> {
    let began = Instant::now();
    let since = |name: &Arc<str>| before.get(name).copied().unwrap_or(began);
    now.into_iter()
        .map(|name| (name.clone(), since(&name)))
        .collect()
}

/// Whether two answers have the same endpoints, in whatever order and however often each.
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

    /// Asks as often as it is due, with answers at once, until nothing is due any more; counts the questions.
    async fn drain(question: &mut Question, asked: &Cell<u32>) {
        while futures::poll!(poll_fn(|cx| question.poll_due(cx))).is_ready() {
            asked.set(asked.get() + 1);
            question.asked();
            question.begin(Box::pin(async { found() }));
            let look = poll_fn(|cx| question.poll_look(cx)).await;
            assert!(matches!(look, Look::Done));
        }
    }

    /// A suspended machine's clock jumps. Monotonic time makes one late question of it, and no burst.
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
    async fn one_question_at_a_time_however_often_a_refresh_is_forced() {
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
    async fn what_is_in_doubt_can_be_given_up_and_what_is_not_stays() {
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
