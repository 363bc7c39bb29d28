//! The attempt that goes on now, and the answer if its time is up.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{
    super::{
        deadline::Deadline,
        error::{Error, Wait},
        layered::Through,
        replay::{Answer, Replay},
    },
    shared::Sent,
};
use crate::{endpoint::Endpoint, hedge::Race};

pin_project! {
    #[project = AttemptProjection]
    pub(super) enum Attempt {
        Sent { #[pin] race: Race<Sent> },
        Failed { error: Option<Error> },
        // Goes through layers, which pass it on to the client below them.
        Layered { through: Through },
    }
}

impl Attempt {
    /// Whether the answer comes from another pod than the one that still has the request.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self, Self::Sent { race } if race.is_overtaken())
    }

    fn service(&self) -> Option<&Arc<str>> {
        match self {
            Self::Sent { race } => race.either()?.service(),
            Self::Failed { .. } | Self::Layered { .. } => None,
        }
    }

    /// Whether a hedge that goes on alone has used up its time.
    fn poll_overdue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            AttemptProjection::Sent { race } => race.poll_overdue(cx),
            AttemptProjection::Failed { .. } | AttemptProjection::Layered { .. } => Poll::Pending,
        }
    }
}

impl Attempt {
    /// Notes that the request is about to be cancelled, because its time is up.
    fn time_is_up(self: Pin<&mut Self>) {
        if let AttemptProjection::Sent { race } = self.project() {
            race.time_is_up();
        }
    }
}

/// Ready when a request's time is up, with the answer that was set aside, if any. Until then it reads on in an earlier
/// response.
pub(super) fn poll_late(
    mut attempt: Pin<&mut Attempt>,
    replay: &mut Option<Box<Replay>>,
    deadline: &mut Option<Deadline>,
    cx: &mut Context<'_>,
) -> Poll<Answer> {
    if let Some(replay) = replay {
        replay.poll_before(cx);
        if replay.has_aside()
            && attempt.as_mut().poll_overdue(cx).is_ready()
            && let Some(aside) = replay.take_aside()
        {
            return Poll::Ready(aside);
        }
    }
    let Some(deadline) = deadline else {
        return Poll::Pending;
    };
    ready!(deadline.poll(cx));
    attempt.as_mut().time_is_up();
    if let Some(aside) = replay.as_mut().and_then(|replay| replay.take_aside()) {
        return Poll::Ready(aside);
    }
    let error = out_of_time(&attempt, replay.as_deref(), deadline.whole());
    Poll::Ready(Err(error.of_service(attempt.service())))
}

/// The error of a request whose time is up. If no pod can have executed it, the error says what it waited for.
fn out_of_time(attempt: &Attempt, replay: Option<&Replay>, after: Duration) -> Error {
    let unanswered = || Error::unanswered(only_pod(attempt, replay).cloned(), after);
    let Attempt::Sent { race } = attempt else {
        return unanswered();
    };
    if !race.tries().all(|sent| sent.is_unsent()) || !replay.is_none_or(Replay::is_first) {
        return unanswered();
    }
    let awaited = race.tries().find_map(|sent| sent.awaited());
    let wait = awaited.map_or(Wait::None, Wait::from);
    Error::not_sent(after, wait, replay.is_some_and(Replay::was_sent))
}

/// The pod that has the request, if no other one has it or had it.
fn only_pod<'a>(attempt: &'a Attempt, replay: Option<&Replay>) -> Option<&'a Endpoint> {
    let Attempt::Sent { race } = attempt else {
        return None;
    };
    let sent = race.alone().filter(|sent| !sent.is_unsent())?;
    let is_first = replay.is_none_or(Replay::is_first);
    sent.endpoint().filter(|_| is_first)
}
