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
    reconnect::{Reconnect, RefusalKind, Running},
    registry::{Life, Lives},
    shared::ReadyFn,
};
use crate::{
    error::BoxError,
    member::{Member, MemberId, TrialVerdict},
};

/// How long an endpoint's service may take to become ready in an attempt. The service should have its own, shorter
/// connect timeout.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most attempts at the same time. An attempt at a black hole takes up its place until the timeout.
const MAX_RUNNING: usize = 256;

/// A balancer's attempts to reach endpoints that refuse requests.
pub(super) struct Reconnects<S> {
    /// The members that refuse requests, by when they are due, except those with an attempt or a trial under way.
    queue: BTreeSet<Due>,
    /// These members by when they are due during an outage, when no member accepts requests.
    hurried: BTreeSet<Due>,
    /// All members that refuse requests, with their places in both queues.
    refusing: BTreeMap<MemberId, Option<(Due, Due)>>,
    /// New members to make ready ahead that may get requests meanwhile.
    ahead: VecDeque<Due>,
    running: FuturesUnordered<BoxFuture<'static, Option<ReconnectAttempt>>>,
    /// Waits until a service is ready; `None` before the first refusal.
    ready: Option<ReadyFn<S>>,
}

type Due = (Instant, MemberId);

/// The result of an attempt.
pub(super) struct ReconnectAttempt {
    pub(super) id: MemberId,
    pub(super) result: Result<(), BoxError>,
}

impl<S: Clone + Send + 'static> Reconnects<S> {
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

    /// A member has joined that has to be made ready ahead. If it gets no requests before that, it is tried like one
    /// that refuses.
    pub(super) fn join(&mut self, life: &mut Life<S>, ready: ReadyFn<S>, now: Instant) {
        self.ready = Some(ready);
        if life.member.is_unreachable() {
            life.reconnect = Some(Reconnect::at_once(RefusalKind::NotReady, now));
            self.place(life);
        } else {
            self.ahead.push_back((now, life.member.id()));
        }
    }

    /// A member has refused a request or an attempt: it is tried again after its next pause, unless it has left or
    /// accepts requests by now.
    pub(super) fn refused(
        &mut self,
        lives: &mut Lives<S>,
        member: &Member,
        refusal: RefusalKind,
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

    /// Requests wait for this very member, at most until then.
    pub(super) fn want(&mut self, lives: &mut Lives<S>, member: &Member, until: Instant) {
        if let Some(life) = lives.get_mut(&member.id())
            && let Some(reconnect) = &mut life.reconnect
        {
            reconnect.want(until);
            self.place(life);
        }
    }

    /// Puts a member that refuses into its places in the queues.
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

    /// A member has accepted a request or an attempt, and is tried no longer. If its status says that it has refused
    /// another one since, it stays: events may come in any order.
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
    pub(super) fn ended_trials(&self, lives: &Lives<S>) -> Vec<(Arc<Member>, TrialVerdict)> {
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
            // A member that has refused meanwhile is in the queue.
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
        // Cloning the service and making the future are the user's code, and may panic, too.
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
            ReconnectAttempt { id, result }
        });
        life.running = Some(Running::new(handle));
        self.running.push(attempt.map(Result::ok).boxed());
    }

    /// Waits for the next attempt to end. `None` if it was aborted; pending while none runs.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<ReconnectAttempt>> {
        match self.running.poll_next_unpin(cx) {
            Poll::Ready(Some(attempt)) => Poll::Ready(attempt),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The attempts under way have ended with their runtime, and prove nothing: their members are tried again.
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

/// The member of an attempt, and how it had refused before, if it had; `None` if the member has left.
pub(super) fn of<S>(lives: &Lives<S>, id: MemberId) -> Option<(Arc<Member>, Option<RefusalKind>)> {
    let life = lives.get(&id)?;
    let refusal = life.reconnect.as_ref().map(Reconnect::refusal);
    Some((life.member.clone(), refusal))
}
