//! Reviews of the endpoints' health, and what follows from a trial or a check.

use tokio::time::Instant;

use super::{
    super::{checks::CheckResult, reconnect::RefusalKind},
    Driver,
};
use crate::{discovery::Discovery, endpoint::Endpoint, member::TrialVerdict};

impl<D, S, M> Driver<D, S, M>
where
    D: Discovery,
    S: Clone + Send + 'static,
    M: FnMut(&Endpoint) -> S,
{
    /// Reviews the endpoints' health.
    pub(super) fn review(&mut self) {
        let generator = &mut &self.shared.generator;
        let lives = &mut self.registry.lives;
        if self.monitor.review(lives, Instant::now(), generator) {
            self.shared.current.load().recount();
            self.shared.wake();
        }
    }

    /// A request has reported something that can't wait for the next regular review.
    pub(super) fn on_review(&mut self) {
        for (member, verdict) in self.attempts.ended_trials(&self.registry.lives) {
            match verdict {
                // The trial got no answer.
                TrialVerdict::GivenUp | TrialVerdict::Failed => {
                    self.refused(&member, RefusalKind::HandedBack)
                }
                _ => {
                    member.offer_trial();
                    self.shared.wake();
                }
            }
        }
        self.review();
    }

    pub(super) fn on_checked(&mut self, result: Option<CheckResult>) {
        let generator = &mut &self.shared.generator;
        let lives = &mut self.registry.lives;
        let consequence = self.checks.judge(result, lives, Instant::now(), generator);
        if let Some((id, refusal)) = consequence.refusal {
            if let Some(life) = self.registry.lives.get(&id) {
                self.shared.note_refusal(id, &life.endpoint, refusal);
            }
        } else if consequence.is_change {
            self.shared.signals.outage.end();
        }
        if consequence.is_change {
            self.review();
        }
    }
}
