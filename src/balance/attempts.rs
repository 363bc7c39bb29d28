//! Tries endpoints that refuse requests again, in the background.

use std::{collections::BTreeSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{
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
    member::{Member, MemberId},
};

/// How long an endpoint's service may take to become ready in an attempt. A connect timeout of its own, which should be
/// shorter, belongs to the service.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many attempts are made at the same time at most.
const MAX_RUNNING: usize = 16;

/// The attempts of a balancer.
pub(super) struct Attempts<S> {
    /// The members that refuse requests.
    refusing: BTreeSet<MemberId>,
    running: FuturesUnordered<BoxFuture<'static, Option<Attempt>>>,
    /// How to wait for a service's readiness; none before the first refusal.
    ready: Option<ReadyFn<S>>,
}

/// What came of an attempt.
pub(super) struct Attempt {
    pub(super) id: MemberId,
    pub(super) result: Result<(), BoxError>,
}

impl<S: Clone + Send + 'static> Attempts<S> {
    pub(super) fn new() -> Self {
        Self {
            refusing: BTreeSet::new(),
            running: FuturesUnordered::new(),
            ready: None,
        }
    }

    pub(super) fn set_ready(&mut self, ready: ReadyFn<S>) {
        self.ready = Some(ready);
    }

    /// When the next attempt is due, if there is room for one.
    pub(super) fn due(&self, lives: &Lives<S>, is_outage: bool) -> Option<Instant> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        self.next_due(lives, is_outage).map(|(due, _)| due)
    }

    fn next_due(&self, lives: &Lives<S>, is_outage: bool) -> Option<(Instant, MemberId)> {
        let due = |&id: &MemberId| {
            let reconnect = lives.get(&id)?.reconnect.as_ref()?;
            Some((reconnect.due(is_outage)?, id))
        };
        self.refusing.iter().filter_map(due).min()
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
        life.running = None;
        match &mut life.reconnect {
            Some(reconnect) => reconnect.refused(refusal, now, rng),
            None => life.reconnect = Some(Reconnect::new(refusal, now, rng)),
        }
        self.refusing.insert(id);
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
        self.refusing.remove(&member.id());
    }

    /// A member has left.
    pub(super) fn leave(&mut self, id: MemberId) {
        self.refusing.remove(&id);
    }

    /// Begins the attempts that are due.
    pub(super) fn begin(&mut self, lives: &mut Lives<S>, now: Instant, is_outage: bool) {
        while self.running.len() < MAX_RUNNING
            && let Some((due, id)) = self.next_due(lives, is_outage)
            && due <= now
            && let Some(life) = lives.get_mut(&id)
        {
            self.try_again(life);
        }
    }

    fn try_again(&mut self, life: &mut Life<S>) {
        let (Some(reconnect), Some(ready)) = (&mut life.reconnect, self.ready) else {
            return;
        };
        reconnect.begin();
        let id = life.member.id();
        let ready = AssertUnwindSafe(ready(life.service.clone())).catch_unwind();
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

    /// The next attempt that has ended, with its member if that is still here; none, at once, while none runs.
    pub(super) async fn next(&mut self) -> Option<Option<Attempt>> {
        self.running.next().await
    }
}

/// The member of an attempt, and how it had refused before, unless it has left.
pub(super) fn of<S>(lives: &Lives<S>, id: MemberId) -> Option<(Arc<Member>, Refusal)> {
    let life = lives.get(&id)?;
    let refusal = life.reconnect.as_ref()?.refusal();
    Some((life.member.clone(), refusal))
}
