//! The set of a name's pods, kept fresh.
//!
//! ```text
//!            a candidate has pods ───────────────▶ pinned: each question by its own schedule
//!   walking                                           │    (and from time to time the candidates before it)
//!      ▲                                              │
//!      └─── all answers say that there is nothing, and have been confirmed; or resolv.conf names other candidates
//! ```
//!
//! Each address family is a question of its own, with its own [`Schedule`](crate::discovery::schedule::Schedule): while
//! one family fails, it keeps its last addresses, and the other one goes on. A full name is pinned from the beginning.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::{
    candidates::Candidates,
    look::look,
    lookup::{LookupError, Resolve},
    name::Name,
    pod_names::PodNames,
    question::{Look, Question},
    questions::Questions,
    settings::Settings,
    single_address::SingleAddress,
    walk::{Step, Walk, Walked},
};
use crate::{
    discovery::{
        DiscoveryReport,
        families::{Families, Sets},
        filter::Filter,
    },
    endpoint::Endpoint,
    logs::{DISCOVERY, debug, here, info},
};

/// How long the first set waits for the other address family (the figure is from RFC 8305 §3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The state of discovery once the first look has begun.
pub(super) struct Run<R> {
    resolver: R,
    name: Name,
    filter: Filter,
    names: PodNames,
    questions: Questions,
    candidates: Candidates<R>,
    walk: Option<Walk<R>>,
    /// The full name that the questions' endpoints belong to.
    found: Option<Arc<str>>,
    families: Families,
    /// There is a set to yield.
    news: bool,
    /// A set has been yielded.
    has_yielded: bool,
    /// Runs while the first set waits for the slower family.
    delay: Option<Pin<Box<Sleep>>>,
    /// Why there are no endpoints, by the last look.
    reason: Option<LookupError>,
    /// A failure that is yielded only if the other family has nothing either.
    withheld: Option<LookupError>,
    /// The error to yield next: why the set just yielded is empty.
    next: Option<LookupError>,
    single: SingleAddress,
}

impl<R: Resolve> Run<R> {
    /// `names` are the pods' own names to look up as well.
    pub(super) fn new(settings: &Settings, name: Name, names: PodNames, resolver: R) -> Self {
        Self {
            resolver,
            name,
            names,
            filter: Filter::new(settings.allow_loopback),
            questions: Questions::new(settings.kinds(), settings.pace),
            candidates: Candidates::new(settings.pace.min),
            walk: None,
            found: None,
            families: Families::default(),
            news: false,
            has_yielded: false,
            delay: None,
            reason: None,
            withheld: None,
            next: None,
            single: SingleAddress::default(),
        }
    }

    /// Waits for the next set, or an error.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<Endpoint>, LookupError>> {
        if let Some(reason) = self.next.take() {
            return Poll::Ready(Err(reason));
        }
        ready!(self.poll_news(cx))?;
        let endpoints = self.endpoints().to_vec();
        self.withheld = None;
        self.next = self.reason.take().filter(|_| endpoints.is_empty());
        self.families.retain(&endpoints);
        if let Some(name) = self.candidates.pinned() {
            let is_virtual = self.questions.iter().any(Question::is_virtual);
            self.single.look(&endpoints, name, is_virtual);
        }
        Poll::Ready(Ok(endpoints))
    }

    /// Fills in what was found, and when the next look is due.
    pub(super) fn report(&self, report: &mut DiscoveryReport) {
        report.name = self.found.clone().or(self.candidates.pinned().cloned());
        let answers = self.questions.iter().filter_map(Question::found);
        if let Some((via, ttl)) = answers.min_by_key(|(_, ttl)| *ttl) {
            report.server = via.map(|via| via.name_server.to_string().into());
            report.ttl = Some(ttl);
        }
        report.next_refresh = self.questions.iter().map(Question::due).min();
    }

    /// Reacts to a sign of change: asks all questions again soon.
    pub(super) fn refresh(&mut self) {
        self.questions.refresh();
    }

    /// A pod's own name is wanted that no look has asked for: asks at once, if there have been few such names lately.
    pub(super) fn want(&mut self) {
        self.questions.iter_mut().for_each(Question::want);
    }

    /// Asks again soon, and drops `endpoint` if DNS already says that it is gone, though unconfirmed.
    pub(super) fn refused(&mut self, endpoint: &Endpoint) {
        for question in self.questions.iter_mut() {
            self.news |= question.give_up(endpoint);
        }
        self.families.refused(endpoint);
        self.refresh();
    }

    /// Notes that `endpoint` accepts connections again.
    pub(super) fn accepted(&mut self, endpoint: &Endpoint) {
        self.families.accepted(endpoint);
    }

    /// Waits until there is a set or an error to yield.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        loop {
            self.ask_what_is_due(cx);
            let mut looks = self.poll_walk(cx);
            looks.extend(self.poll_earlier(cx));
            for question in self.questions.iter_mut() {
                if let Poll::Ready(look) = question.poll_look(cx) {
                    looks.push(look);
                }
            }
            // Loop until everything is pending, so that everything has registered this task's waker.
            if looks.is_empty() && self.poll_families(cx).is_pending() {
                break;
            }
            self.take_results(looks)?;
        }
        if !self.news {
            return Poll::Pending;
        }
        ready!(self.poll_complete(cx));
        self.news = false;
        Poll::Ready(Ok(()))
    }

    fn ask_what_is_due(&mut self, cx: &mut Context<'_>) {
        if self.walk.is_some() {
            return;
        }
        let due = |question: &mut Question| question.poll_due(cx).is_ready();
        let due: Vec<_> = self.questions.iter_mut().map(due).collect();
        if !due.contains(&true) {
            return;
        }
        if let Err(error) = self.learn_candidates() {
            for (question, _) in self.questions.iter_mut().zip(due).filter(|(_, due)| *due) {
                question.asked();
                let error = error.clone();
                question.begin(Box::pin(async { Err(error) }));
            }
            return;
        }
        let Some(name) = self.candidates.pinned().cloned() else {
            self.questions.iter_mut().for_each(Question::asked);
            let looks = self
                .questions
                .looks(&self.resolver, &self.filter, &self.names);
            self.walk = Some(Walk::new(self.candidates.names().clone(), looks));
            return;
        };
        for (question, _) in self.questions.iter_mut().zip(due).filter(|(_, due)| *due) {
            question.asked();
            let kind = question.kind();
            let look = look(
                &self.resolver,
                &self.filter,
                &self.names,
                name.clone(),
                kind,
            );
            question.begin(look);
        }
    }

    /// Learns what the name may stand for, which may have changed.
    fn learn_candidates(&mut self) -> Result<(), LookupError> {
        let names = self.resolver.candidates(&self.name)?;
        self.candidates.learn(names);
        Ok(())
    }

    /// Goes on with the walk, if there is one, and passes its result to the questions.
    fn poll_walk(&mut self, cx: &mut Context<'_>) -> Vec<Look> {
        let Some(walk) = &mut self.walk else {
            return Vec::new();
        };
        let Poll::Ready(walked) = walk.poll(&self.name.to_string(), cx) else {
            return Vec::new();
        };
        self.walk = None;
        let questions = self.questions.iter_mut();
        match walked {
            Walked::Found {
                name,
                steps,
                is_provisional,
            } => {
                self.candidates.pin(&name, is_provisional);
                self.take(name, steps)
            }
            Walked::Nothing(nothing) => questions
                .map(|question| question.answered(Ok(Err(nothing.clone()))))
                .collect(),
            Walked::Failed(error) => questions
                .map(|question| question.answered(Err(error.clone())))
                .collect(),
        }
    }

    /// Checks whether a candidate before the pinned one has pods now.
    fn poll_earlier(&mut self, cx: &mut Context<'_>) -> Vec<Look> {
        let looks = || {
            self.questions
                .looks(&self.resolver, &self.filter, &self.names)
        };
        match self.candidates.poll_earlier(&self.name, looks, cx) {
            Poll::Ready((name, steps)) => self.take(name, steps),
            Poll::Pending => Vec::new(),
        }
    }

    /// Makes the questions go on with the name that was found, and forget what they know about another one.
    fn take(&mut self, name: Arc<str>, steps: Vec<Step>) -> Vec<Look> {
        debug!(DISCOVERY, here(), from = %self.name, name = %name, "name found");
        if self.found.as_ref().is_some_and(|last| *last != name) {
            self.questions.iter_mut().for_each(Question::forget);
            self.families = Families::default();
        }
        self.found = Some(name);
        let pairs = self.questions.iter_mut().zip(steps);
        let take = |(question, step): (&mut Question, _)| match step {
            Step::Done(answer) => Some(question.answered(answer)),
            Step::Asking(lookup) => {
                question.begin(lookup);
                None
            }
        };
        pairs.filter_map(take).collect()
    }

    /// Switches to the other address family if all endpoints of the one in use refuse.
    fn poll_families(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (in_use, other) = self.questions.sets(self.families.is_other());
        let preferred = self.questions.of_preferred_family();
        let sets = Sets {
            in_use,
            other: preferred.map(|_| other),
            preferred,
        };
        ready!(self.families.poll_change(sets, cx));
        info!(DISCOVERY, here(), name = %self.name, "switched to the other address family: the endpoints of this one refuse connections");
        self.news |= !self.questions.change_family();
        Poll::Ready(())
    }

    /// Takes the results of looks. Returns an error if one must be yielded.
    fn take_results(&mut self, looks: Vec<Look>) -> Result<(), LookupError> {
        if self.names.has_unasked() {
            self.questions.iter_mut().for_each(Question::catch_up);
        }
        if looks.iter().any(|look| matches!(look, Look::Done)) {
            self.questions.name_exists();
        }
        if self.questions.drop_nameless() {
            self.news = true;
            self.reason = self.questions.no_name();
        }
        if self.questions.are_gone() {
            self.candidates.release();
        }
        let is_looking = self.questions.iter().any(Question::is_looking);
        for look in looks {
            match look {
                // If the name doesn't exist, that matters more than this type's failure.
                Look::Kept(error) => {
                    self.withheld = Some(self.questions.no_name().unwrap_or(error));
                }
                // The other family decides: its look isn't over yet, or it fails.
                Look::Nothing(_) if is_looking || !self.is_fresh() => {}
                Look::Nothing(error) if !self.has_endpoints() => self.withheld = Some(error),
                Look::Nothing(_) => self.news = true,
                Look::Gone { error, changed } => {
                    self.news |= changed || self.is_fresh() || self.questions.no_name().is_some();
                    // A failure outranks a negative answer, because it leaves open what is there.
                    self.reason = Some(
                        self.questions
                            .no_name()
                            .or(self.questions.failure())
                            .unwrap_or(error),
                    );
                }
                Look::Done => self.news = true,
            }
        }
        // Readers take an error for a failure of both families, so wait if one has answered or still may.
        let is_early = match self.has_endpoints() {
            true => !self.has_yielded,
            false => is_looking,
        };
        let withheld = if is_early { None } else { self.withheld.take() };
        withheld.map_or(Ok(()), Err)
    }

    /// Waits until the set can be yielded. Only the first set may have to wait, for the second family, so that a
    /// dual-stack service doesn't begin with the other family than the preferred one.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let complete = match self.has_endpoints() {
            true => self.questions.iter().all(Question::has_looked),
            false => {
                self.questions.iter().all(Question::is_empty)
                    || self.questions.is_confirmed_no_name()
            }
        };
        if !self.has_yielded && !complete {
            if !self.has_endpoints() {
                return Poll::Pending;
            }
            let delay = || Box::pin(sleep(RESOLUTION_DELAY));
            ready!(self.delay.get_or_insert_with(delay).as_mut().poll(cx));
        }
        self.has_yielded = true;
        Poll::Ready(())
    }

    /// The endpoints of the family in use, or of the other one if it has none.
    fn endpoints(&self) -> &[Endpoint] {
        self.questions.sets(self.families.is_other()).0
    }

    fn has_endpoints(&self) -> bool {
        self.questions.have_endpoints()
    }

    /// Whether all endpoints are from the last looks. One family's negative answer doesn't make the other's old
    /// addresses fresher.
    fn is_fresh(&self) -> bool {
        self.questions.failure().is_none()
    }
}
