//! Tries endpoints that refuse requests again, in the background.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, abortable},
    stream::FuturesUnordered,
};
use rand::Rng;
use tokio::time::{Instant, timeout};

use super::{
    reconnect::{Reconnect, Refusal, Running},
    registry::{Life, Lives},
    shared::ReadyFn,
};
use crate::{
    error::BoxError,
    member::{Member, MemberId, Verdict},
};

/// How long an endpoint's service may take to become ready in an attempt. A connect timeout of its own, which should be
/// shorter, belongs to the service.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many attempts are made at the same time at most. An attempt at a black hole holds its place for as long as the timeout.
const MAX_RUNNING: usize = 256;

/// The attempts of a balancer.
pub(super) struct Attempts<S> {
    /// The members that refuse requests, by when they are due, unless an attempt or a trial is under way.
    queue: BTreeSet<Due>,
    /// The same members by when they are due while none accepts requests.
    hurried: BTreeSet<Due>,
    /// All members that refuse requests, with their places in both queues.
    refusing: BTreeMap<MemberId, Option<(Due, Due)>>,
    /// New members that are to be made ready, though they get requests meanwhile.
    ahead: VecDeque<Due>,
    running: FuturesUnordered<BoxFuture<'static, Option<Attempt>>>,
    /// How to wait for a service's readiness; none before the first refusal.
    ready: Option<ReadyFn<S>>,
}

type Due = (Instant, MemberId);

/// What came of an attempt.
pub(super) struct Attempt {
    pub(super) id: MemberId,
    pub(super) result: Result<(), BoxError>,
}

impl<S: Clone + Send + 'static> Attempts<S> {
    pub(super) fn new() -> Self {
        Self {
            queue: BTreeSet::new(),
            hurried: BTreeSet::new(),
            refusing: BTreeMap::new(),
            ahead: VecDeque::new(),
            running: FuturesUnordered::new(),
            ready: None,
        }
    }

    pub(super) fn set_ready(&mut self, ready: ReadyFn<S>) {
        self.ready = Some(ready);
    }

    /// When the next attempt is due, if there is room for one.
    pub(super) fn due(&self, is_outage: bool) -> Option<Instant> {
        let ahead = self.ahead.front().filter(|_| self.has_room());
        let ahead = ahead.map(|&(due, _)| due);
        self.due_again(is_outage).into_iter().chain(ahead).min()
    }

    fn due_again(&self, is_outage: bool) -> Option<Instant> {
        let queue = if is_outage {
            &self.hurried
        } else {
            &self.queue
        };
        let first = queue.first().filter(|_| self.has_room());
        first.map(|&(due, _)| due)
    }

    fn has_room(&self) -> bool {
        self.running.len() < MAX_RUNNING
    }

    /// A member has joined that is to be ready before a request needs it. If it gets none until it is, its attempts are
    /// those of one that refuses.
    pub(super) fn join(&mut self, life: &mut Life<S>, ready: ReadyFn<S>, now: Instant) {
        self.ready = Some(ready);
        if life.member.is_unreachable() {
            life.reconnect = Some(Reconnect::at_once(Refusal::NotReady, now));
            self.place(life);
        } else {
            self.ahead.push_back((now, life.member.id()));
        }
    }

    /// A member has refused a request or an attempt: it is tried again after its next pause. One that has left, or accepts
    /// requests by now, is not.
    pub(super) fn refused(
        &mut self,
        lives: &mut Lives<S>,
        member: &Member,
        refusal: Refusal,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let id = member.id();
        let Some(life) = lives.get_mut(&id).filter(|_| member.is_unreachable()) else {
            return;
        };
        member.end_unready();
        life.running = None;
        member.stats().take_trial();
        match &mut life.reconnect {
            Some(reconnect) => reconnect.refused(refusal, now, rng),
            None => life.reconnect = Some(Reconnect::new(refusal, now, rng)),
        }
        self.place(life);
    }

    /// Requests wait for this very member, until then at the most.
    pub(super) fn want(&mut self, lives: &mut Lives<S>, member: &Member, until: Instant) {
        if let Some(life) = lives.get_mut(&member.id())
            && let Some(reconnect) = &mut life.reconnect
        {
            reconnect.want(until);
            self.place(life);
        }
    }

    /// Puts a member that refuses where it belongs in the queues.
    fn place(&mut self, life: &Life<S>) {
        let id = life.member.id();
        self.leave(id);
        let refusing = self.refusing.len() + 1;
        let due = life.reconnect.as_ref().and_then(|reconnect| {
            let due = (reconnect.due()?, id);
            Some((due, (reconnect.hurried_due(refusing)?, id)))
        });
        if let Some((due, hurried)) = due {
            self.queue.insert(due);
            self.hurried.insert(hurried);
        }
        self.refusing.insert(id, due);
    }

    /// A member has accepted a request or an attempt, and is tried no longer; unless it has refused another one since, which
    /// is told by its status, in whatever order the news come.
    pub(super) fn accepted(&mut self, lives: &mut Lives<S>, member: &Member) {
        if member.is_unreachable() {
            return;
        }
        if let Some(life) = lives.get_mut(&member.id()) {
            life.reconnect = None;
            life.running = None;
        }
        self.leave(member.id());
    }

    /// A member has left.
    pub(super) fn leave(&mut self, id: MemberId) {
        if let Some(Some((due, hurried))) = self.refusing.remove(&id) {
            self.queue.remove(&due);
            self.hurried.remove(&hurried);
        }
    }

    /// The members whose trial requests have ended without an answer, and how.
    pub(super) fn ended_trials(&self, lives: &Lives<S>) -> Vec<(Arc<Member>, Verdict)> {
        let ended = |id| {
            let life: &Life<S> = lives.get(id)?;
            let verdict = life.member.stats().take_trial()?;
            Some((life.member.clone(), verdict))
        };
        self.refusing.keys().filter_map(ended).collect()
    }

    /// Begins the attempts that are due.
    pub(super) fn begin(&mut self, lives: &mut Lives<S>, now: Instant, is_outage: bool) {
        self.begin_ahead(lives);
        while self.due_again(is_outage).is_some_and(|due| due <= now) {
            let queue = if is_outage {
                &self.hurried
            } else {
                &self.queue
            };
            let Some(&(_, id)) = queue.first() else {
                return;
            };
            let life = lives.get_mut(&id).filter(|life| life.reconnect.is_some());
            match life {
                Some(life) => self.try_again(life),
                None => self.leave(id),
            }
        }
    }

    fn begin_ahead(&mut self, lives: &mut Lives<S>) {
        while self.has_room()
            && let Some((_, id)) = self.ahead.pop_front()
        {
            // One that has refused meanwhile has its turn in the queue.
            let life = lives.get_mut(&id).filter(|life| life.reconnect.is_none());
            if let (Some(life), Some(ready)) = (life, self.ready) {
                self.run(life, ready);
            }
        }
    }

    fn try_again(&mut self, life: &mut Life<S>) {
        let (Some(reconnect), Some(ready)) = (&mut life.reconnect, self.ready) else {
            return self.leave(life.member.id());
        };
        reconnect.begin();
        self.run(life, ready);
        self.place(life);
    }

    fn run(&mut self, life: &mut Life<S>, ready: ReadyFn<S>) {
        let id = life.member.id();
        // What clones the service, and what makes the future, may panic, too.
        let service = catch_unwind(AssertUnwindSafe(|| life.service.clone()));
        let ready =
            async move { ready(service.map_err(|_| "the endpoint's service panicked")?).await };
        let ready = AssertUnwindSafe(ready).catch_unwind();
        let (attempt, handle) = abortable(async move {
            let result = match timeout(TIMEOUT, ready).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("the endpoint's service panicked".into()),
                Err(elapsed) => Err(elapsed.into()),
            };
            Attempt { id, result }
        });
        life.running = Some(Running::new(handle));
        self.running.push(attempt.map(Result::ok).boxed());
    }

    /// Waits for the next attempt that has ended, with its member if that is still here. Never while none runs.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Attempt>> {
        match self.running.poll_next_unpin(cx) {
            Poll::Ready(Some(attempt)) => Poll::Ready(attempt),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The attempts under way have ended with their runtime, and say nothing of their members: others follow.
    pub(super) fn begin_anew(&mut self, lives: &mut Lives<S>, now: Instant, rng: &mut impl Rng) {
        self.running.clear();
        for life in lives.values_mut() {
            if life.running.take().is_some()
                && let Some(reconnect) = &mut life.reconnect
            {
                reconnect.refused(reconnect.refusal(), now, rng);
                self.place(life);
            }
        }
    }
}

/// The member of an attempt, and how it had refused before if it had, unless it has left.
pub(super) fn of<S>(lives: &Lives<S>, id: MemberId) -> Option<(Arc<Member>, Option<Refusal>)> {
    let life = lives.get(&id)?;
    let refusal = life.reconnect.as_ref().map(Reconnect::refusal);
    Some((life.member.clone(), refusal))
}
