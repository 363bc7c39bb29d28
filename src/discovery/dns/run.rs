//! The set of a name's pods, kept fresh.
//!
//! ```text
//!            a candidate has pods ───────────────▶ pinned: each question by its own schedule
//!   walking                                           │
//!      ▲                                              │
//!      └─── all answers say that there is nothing, and have been confirmed; or resolv.conf names other candidates
//! ```
//!
//! Each address family is a question of its own, with its own [`Schedule`](crate::discovery::schedule::Schedule): while one
//! fails, it keeps its last addresses and the other one goes on. A name that is whole is pinned from the beginning.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use tracing::debug;

use super::{
    look::look,
    lookup::{Lookup, LookupError, Resolve},
    name::Name,
    question::{Look, Question},
    settings::Settings,
    single_address::SingleAddress,
    walk::{Step, Walk, Walked},
};
use crate::{discovery::filter::Filter, endpoint::Endpoint};

/// How long the first set waits for the other address family (RFC 8305 §3 gives the figure).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// What there is once the first look has begun.
pub(super) struct Run<R> {
    resolver: R,
    name: Name,
    questions: Vec<Question>,
    /// What `name` may stand for, as far as is known.
    candidates: Arc<[Arc<str>]>,
    /// The candidate that it does stand for.
    pinned: Option<Arc<str>>,
    walk: Option<Walk>,
    /// There is a set to tell.
    news: bool,
    /// A set has been told.
    begun: bool,
    /// Runs while the first set waits for the slower family.
    delay: Option<Pin<Box<Sleep>>>,
    /// Why there are no endpoints, as the last look says.
    reason: Option<LookupError>,
    /// What is to be told next: why the set is empty that has just been told.
    next: Option<LookupError>,
    single: SingleAddress,
}

impl<R: Resolve> Run<R> {
    pub(super) fn new(settings: &Settings, name: Name, resolver: R) -> Self {
        let filter = Filter::new(settings.allow_loopback);
        let question = |kind| Question::new(kind, settings.pace, filter.clone());
        Self {
            resolver,
            name,
            questions: settings.kinds().into_iter().map(question).collect(),
            candidates: Arc::default(),
            pinned: None,
            walk: None,
            news: false,
            begun: false,
            delay: None,
            reason: None,
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
        self.next = self.reason.take().filter(|_| endpoints.is_empty());
        if let Some(name) = &self.pinned {
            let is_virtual = self.questions.iter().any(Question::is_virtual);
            self.single.look(&endpoints, name, is_virtual);
        }
        Poll::Ready(Ok(endpoints))
    }

    /// A sign of change: all is asked again soon.
    pub(super) fn refresh(&mut self) {
        self.questions.iter_mut().for_each(Question::refresh);
    }

    /// Drops `endpoint` if DNS says that it is gone and only the confirmation is missing, and asks again soon.
    pub(super) fn refused(&mut self, endpoint: &Endpoint) {
        for question in &mut self.questions {
            self.news |= question.give_up(endpoint);
        }
        self.refresh();
    }

    /// Waits until there is a set to tell, or an error.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        loop {
            self.ask_what_is_due(cx);
            let mut looks = self.poll_walk(cx);
            for question in &mut self.questions {
                if let Poll::Ready(look) = question.poll_look(cx) {
                    looks.push(look);
                }
            }
            // To the point where all wait for their next turn, so that they will wake this task.
            if looks.is_empty() {
                break;
            }
            self.heed(looks)?;
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
        let Some(name) = self.pinned.clone() else {
            self.questions.iter_mut().for_each(Question::asked);
            let look = looks(&self.resolver, &self.questions);
            self.walk = Some(Walk::new(self.candidates.clone(), look));
            return;
        };
        for (question, _) in self.questions.iter_mut().zip(due).filter(|(_, due)| *due) {
            question.asked();
            question.begin(look(&self.resolver, name.clone(), question.kind()));
        }
    }

    /// Finds out what the name may stand for, and whether that has changed.
    fn learn_candidates(&mut self) -> Result<(), LookupError> {
        let candidates = self.resolver.candidates(&self.name)?;
        if *candidates != *self.candidates {
            self.candidates = candidates.into();
            self.pinned = None;
            if let [only] = &*self.candidates {
                self.pinned = Some(only.clone());
            }
        }
        Ok(())
    }

    /// Goes on with the walk, if there is one, and brings what it comes to to the questions.
    fn poll_walk(&mut self, cx: &mut Context<'_>) -> Vec<Look> {
        let Some(walk) = &mut self.walk else {
            return Vec::new();
        };
        let begin = looks(&self.resolver, &self.questions);
        let Poll::Ready(walked) = walk.poll(&self.name.to_string(), begin, cx) else {
            return Vec::new();
        };
        self.walk = None;
        let questions = self.questions.iter_mut();
        match walked {
            Walked::Found { name, steps } => {
                debug!(from = %self.name, name = %name, "name found");
                self.pinned = Some(name);
                let pairs = questions.zip(steps);
                let take = |(question, step): (&mut Question, _)| match step {
                    Step::Done(answer) => Some(question.answered(answer)),
                    Step::Asking(lookup) => {
                        question.begin(lookup);
                        None
                    }
                };
                pairs.filter_map(take).collect()
            }
            Walked::Nothing(nothing) => questions
                .map(|question| question.answered(Ok(Err(nothing.clone()))))
                .collect(),
            Walked::Failed(error) => questions
                .map(|question| question.answered(Err(error.clone())))
                .collect(),
        }
    }

    /// Takes note of what looks came to; an error is for telling.
    fn heed(&mut self, looks: Vec<Look>) -> Result<(), LookupError> {
        let gone = self.questions.iter().all(Question::is_confirmed_empty);
        if gone && self.candidates.len() > 1 {
            self.pinned = None;
        }
        let is_looking = self.questions.iter().any(Question::is_looking);
        let mut result = Ok(());
        for look in looks {
            match look {
                Look::Kept(error) => result = Err(error),
                // The other family decides: what it comes to is not known yet, or it fails, which has been told.
                Look::Nothing(_) if is_looking || !self.is_fresh() => {}
                Look::Nothing(error) if !self.has_endpoints() => result = Err(error),
                Look::Nothing(_) => self.news = true,
                Look::Gone { error, changed } => {
                    self.news |= changed || !self.has_endpoints() || self.is_fresh();
                    self.reason = Some(error);
                }
                Look::Done => self.news = true,
            }
        }
        result
    }

    /// Whether all endpoints are as old as the last looks: that one family has nothing makes the other's old addresses no
    /// fresher.
    fn is_fresh(&self) -> bool {
        !self.questions.iter().any(Question::is_stale)
    }

    /// Waits until the set can be told. Only the first one may have to wait: for the second family, so that a dual-stack
    /// service does not begin with the family that is not wanted.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let complete = match self.has_endpoints() {
            true => self.questions.iter().all(Question::has_looked),
            false => self.questions.iter().all(Question::is_empty),
        };
        if !self.begun && !complete {
            if !self.has_endpoints() {
                return Poll::Pending;
            }
            let delay = || Box::pin(sleep(RESOLUTION_DELAY));
            ready!(self.delay.get_or_insert_with(delay).as_mut().poll(cx));
        }
        self.begun = true;
        Poll::Ready(())
    }

    fn has_endpoints(&self) -> bool {
        !self.endpoints().is_empty()
    }

    /// The preferred family's endpoints; the other one's where there are none.
    fn endpoints(&self) -> &[Endpoint] {
        let mut sets = self.questions.iter().map(Question::endpoints);
        sets.find(|set| !set.is_empty()).unwrap_or_default()
    }
}

/// Begins what is wanted of a candidate: a look for each question.
fn looks<R: Resolve>(resolver: &R, questions: &[Question]) -> impl Fn(&Arc<str>) -> Vec<Lookup> {
    let resolver = resolver.clone();
    let kinds: Vec<_> = questions.iter().map(Question::kind).collect();
    move |name| {
        let looks = kinds
            .iter()
            .map(|&kind| look(&resolver, name.clone(), kind));
        looks.collect()
    }
}
