//! Endpoints that refuse requests, the attempts to reach them, and those that accept requests again.

use tokio::time::Instant;

use super::{
    super::{
        attempts::{self, ReconnectAttempt},
        reconnect::RefusalKind,
    },
    Driver,
};
use crate::{
    discovery::Discovery,
    endpoint::Endpoint,
    error::{BoxError, is_timeout},
    logs::{ENDPOINTS, Line, change, debug, display},
    member::Member,
};

impl<D, S, M> Driver<D, S, M>
where
    D: Discovery,
    S: Clone + Send + 'static,
    M: FnMut(&Endpoint) -> S,
{
    pub(super) fn refused(&mut self, member: &Member, refusal: RefusalKind) {
        let (lives, now) = (&mut self.registry.lives, Instant::now());
        let generator = &mut &self.shared.generator;
        self.attempts
            .refused(lives, member, refusal, now, generator);
    }

    /// An attempt has ended. It is ignored if its member has left.
    pub(super) fn on_attempt(&mut self, attempt: Option<ReconnectAttempt>) {
        let Some(ReconnectAttempt { id, result }) = attempt else {
            return;
        };
        let Some((member, refusal)) = attempts::of(&self.registry.lives, id) else {
            return;
        };
        match (result, refusal) {
            // A new endpoint, and no request has found out yet that it refuses.
            (Err(error), None) => {
                self.shared
                    .note_refusal(id, member.endpoint(), error.into());
                if member.refuse() {
                    self.tell_of_refusal(&member);
                    self.discovery.refused(member.endpoint());
                    self.refused(&member, RefusalKind::NotReady);
                    self.shared.current.load().recount();
                }
            }
            (Ok(()), None) => {}
            (Err(error), Some(refusal)) => {
                self.tell_of_repeated_refusal(member.endpoint(), &error);
                self.shared
                    .note_refusal(id, member.endpoint(), error.into());
                self.refused(&member, refusal);
            }
            (Ok(()), Some(RefusalKind::NotReady)) => {
                member.accept();
                self.shared.current.load().recount();
                self.accepted(&member);
                self.shared.wake();
            }
            (Ok(()), Some(RefusalKind::HandedBack)) => {
                member.offer_trial();
                self.shared.wake();
            }
        }
    }

    pub(super) fn accepted(&mut self, member: &Member) {
        let (endpoint, signals) = (member.endpoint(), &self.shared.signals);
        change!(Accepts, signals, %endpoint, "endpoint accepts requests again");
        self.discovery.accepted(member.endpoint());
        // It accepts requests again, so earlier failures don't count.
        member.stats().forget_failures();
        self.attempts.accepted(&mut self.registry.lives, member);
        let life = self.registry.lives.get(&member.id());
        if life.is_some_and(|life| life.health.is_half_open()) {
            // It became half-open while it refused, so its trial had to wait.
            member.offer_trial();
        }
        self.shared.signals.outage.end();
    }

    pub(super) fn tell_of_refusal(&self, member: &Member) {
        let (endpoint, signals) = (member.endpoint(), &self.shared.signals);
        let error = self.shared.notes().refusals.get(&member.id()).cloned();
        let is_late = error.as_deref().is_some_and(|error| is_timeout(error));
        let error = error.as_deref().map(|error| display(Line(error)));
        match is_late {
            true => {
                change!(Refuses, signals, %endpoint, error, "endpoint doesn't answer in time");
            }
            false => change!(Refuses, signals, %endpoint, error, "endpoint refuses requests"),
        }
    }

    fn tell_of_repeated_refusal(&self, endpoint: &Endpoint, error: &BoxError) {
        let (service, why) = (self.shared.signals.service(), Line(&**error));
        match is_timeout(&**error) {
            true => {
                debug!(ENDPOINTS, service, %endpoint, error = %why, "endpoint still doesn't answer in time");
            }
            false => {
                debug!(ENDPOINTS, service, %endpoint, error = %why, "endpoint still refuses");
            }
        }
    }
}
