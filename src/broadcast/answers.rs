//! The answers as they come: when each endpoint is asked, and when it is out of time.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    mem::take,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    Stream, StreamExt,
    stream::{BoxStream, FuturesUnordered},
};

use crate::{
    balance::{Roster, Whole},
    endpoint::Endpoint,
    error::{Error, SharedError},
    home::Timer,
    member::MemberId,
    route::Target,
};

/// A stream of the answers to a broadcast, as they come: one for each endpoint.
///
/// Awaiting a [`Broadcast`](super::Broadcast) gives it. The requests make progress while it is polled. Dropping it
/// cancels those that are under way, and asks nobody else. Once it has ended, it stays ended.
#[must_use = "streams do nothing unless polled"]
pub struct Answers<T, E = Error> {
    terms: Terms<T, E>,
    /// Endpoints that are not asked yet.
    queue: VecDeque<Target>,
    running: FuturesUnordered<Asked<T, E>>,
    /// The errors, not yet returned, of the endpoints that the deadline cut off.
    overdue: VecDeque<Error>,
}

/// Whom a broadcast asks, how, and within what time.
pub(super) struct Terms<T, E> {
    pub(super) ask: Ask<T, E>,
    pub(super) kind: Kind<T, E>,
    /// The name of the service.
    pub(super) service: Option<Arc<str>>,
    pub(super) targets: Vec<Target>,
    /// Keeps pods outside of the subset in the set, while any may still be asked.
    pub(super) whole: Option<Whole>,
    pub(super) roster: Roster,
    pub(super) joining: Option<Joining>,
    pub(super) concurrency: usize,
    pub(super) endpoint_timeout: Duration,
    pub(super) deadline: Option<Deadline>,
}

/// Sends the request to one endpoint.
pub(super) type Ask<T, E> = Box<dyn FnMut(&Target) -> Pin<Box<dyn Asking<T, E>>> + Send>;

/// A request to one endpoint.
pub(crate) trait Asking<T, E>: Future<Output = Result<T, E>> + Send {
    /// Whether the endpoint can't have executed it, so far.
    fn is_unsent(&self) -> bool;

    /// Why the endpoint refuses it, while it does.
    fn refusal(&self) -> Option<SharedError>;
}

/// How answers are judged, and errors converted.
pub(crate) struct Kind<T, E> {
    /// Makes the caller's error of the balancer's.
    pub(crate) error: fn(Error) -> E,
    /// Turns an answer that doesn't count as a success into an error.
    pub(crate) check: fn(T) -> Result<T, E>,
}

/// A time limit and its timer.
pub(super) struct Deadline {
    timer: Timer,
    after: Duration,
}

impl Deadline {
    pub(super) fn after(after: Duration) -> Self {
        let timer = Timer::after(after);
        Self { timer, after }
    }

    /// Ready when the time is over, with how long it was.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        self.timer.poll(cx).map(|()| self.after)
    }
}

/// The endpoints that join while a broadcast runs.
pub(super) struct Joining {
    changes: BoxStream<'static, ()>,
    /// The youngest endpoint that has been queued: members are numbered as they join.
    youngest: Option<MemberId>,
}

impl Joining {
    pub(super) fn new(changes: BoxStream<'static, ()>, targets: &[Target]) -> Self {
        Self {
            changes,
            youngest: targets.iter().map(|target| target.id).max(),
        }
    }

    /// The endpoints that have joined since the last call.
    fn poll(&mut self, roster: &Roster, cx: &mut Context<'_>) -> Vec<Target> {
        let mut has_changed = false;
        while let Poll::Ready(Some(())) = self.changes.poll_next_unpin(cx) {
            has_changed = true;
        }
        if !has_changed {
            return Vec::new();
        }
        let mut joined = roster.targets();
        joined.retain(|target| Some(target.id) > self.youngest);
        self.youngest = joined
            .iter()
            .map(|target| target.id)
            .max()
            .max(self.youngest);
        joined
    }
}

impl<T, E> Answers<T, E> {
    pub(super) fn new(mut terms: Terms<T, E>) -> Self {
        Self {
            queue: take(&mut terms.targets).into(),
            terms,
            running: FuturesUnordered::new(),
            overdue: VecDeque::new(),
        }
    }

    /// How many endpoints have neither answered nor failed.
    pub(super) fn left(&self) -> usize {
        self.hopeful() + self.overdue.len()
    }

    /// How many of those still have time to answer.
    pub(super) fn hopeful(&self) -> usize {
        self.queue.len() + self.running.len()
    }

    /// Takes the errors of endpoints that the deadline cut off, unless already returned.
    pub(super) fn take_overdue(&mut self) -> Vec<(Endpoint, E)> {
        std::iter::from_fn(|| self.next_overdue()).collect()
    }

    fn next_overdue(&mut self) -> Option<(Endpoint, E)> {
        let error = self.overdue.pop_front()?;
        let endpoint = error.endpoint()?.clone();
        let error = error.of_service(self.terms.service.as_ref());
        Some((endpoint, (self.terms.kind.error)(error)))
    }

    /// Asks as many as may be asked at once.
    fn ask(&mut self) {
        while self.running.len() < self.terms.concurrency
            && let Some(target) = self.queue.pop_front()
        {
            // It may turn out to be the pod that is left out: its name may have been learnt since it was queued.
            if !self.terms.roster.has(&target) {
                continue;
            }
            self.running.push(Asked {
                answer: Some((self.terms.ask)(&target)),
                endpoint: target.endpoint,
                deadline: Deadline::after(self.terms.endpoint_timeout),
                service: self.terms.service.clone(),
                error: self.terms.kind.error,
            });
        }
    }

    /// Cancels what is under way, because the deadline is over.
    pub(super) fn cut(&mut self, after: Duration) {
        self.terms.joining = None;
        self.terms.deadline = None;
        let running = take(&mut self.running).into_iter();
        let after = (after, "`deadline`");
        let asked =
            running.map(|asked| out_of_time(asked.endpoint, after, asked.answer.as_deref()));
        self.overdue.extend(asked);
        let queue = self.queue.drain(..);
        self.overdue
            .extend(queue.map(|target| out_of_time::<T, E>(target.endpoint, after, None)));
        self.terms.whole = None;
    }
}

impl<T, E> Answers<T, E> {
    /// The next answer; an error if it doesn't count as a success.
    pub(super) async fn next_checked(&mut self) -> Option<(Endpoint, Result<T, E>)> {
        let (endpoint, answer) = self.next().await?;
        Some((endpoint, answer.and_then(self.terms.kind.check)))
    }
}

impl<T, E> Stream for Answers<T, E> {
    type Item = (Endpoint, Result<T, E>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some((endpoint, error)) = this.next_overdue() {
                return Poll::Ready(Some((endpoint, Err(error))));
            }
            if let Some(joining) = &mut this.terms.joining {
                this.queue.extend(joining.poll(&this.terms.roster, cx));
            }
            this.ask();
            if let Poll::Ready(next) = this.running.poll_next_unpin(cx) {
                // Unless the stream has ended, an endpoint that joins may be next.
                if next.is_none() || this.hopeful() == 0 && this.terms.joining.is_none() {
                    this.terms.whole = None;
                }
                if next.is_none() {
                    // An endpoint that joins later must not make the stream go on.
                    this.terms.joining = None;
                }
                return Poll::Ready(next);
            }
            let Some(deadline) = &mut this.terms.deadline else {
                return Poll::Pending;
            };
            let after = std::task::ready!(deadline.poll(cx));
            this.cut(after);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left();
        (left, self.terms.joining.is_none().then_some(left))
    }
}

impl<T, E> fmt::Debug for Answers<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers")
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}

/// One endpoint that has been asked.
struct Asked<T, E> {
    endpoint: Endpoint,
    /// `None` once it is over.
    answer: Option<Pin<Box<dyn Asking<T, E>>>>,
    deadline: Deadline,
    service: Option<Arc<str>>,
    error: fn(Error) -> E,
}

impl<T, E> Future for Asked<T, E> {
    type Output = (Endpoint, Result<T, E>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(answer) = &mut this.answer else {
            return Poll::Pending;
        };
        let answer = match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                let after = std::task::ready!(this.deadline.poll(cx));
                let after = (after, "`endpoint_timeout`");
                let error = out_of_time(this.endpoint.clone(), after, Some(&**answer));
                Err((this.error)(error.of_service(this.service.as_ref())))
            }
        };
        // The request is cancelled before its error is returned.
        this.answer = None;
        Poll::Ready((this.endpoint.clone(), answer))
    }
}

/// The error of an endpoint that has not answered. If it has been asked, `asking` knows how far that got.
fn out_of_time<T, E>(
    endpoint: Endpoint,
    after: (Duration, &'static str),
    asking: Option<&dyn Asking<T, E>>,
) -> Error {
    let is_unsent = asking.is_none_or(Asking::is_unsent);
    let refusal = asking.and_then(Asking::refusal);
    Error::no_answer(endpoint, after, is_unsent, refusal)
}
