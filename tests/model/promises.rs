//! What is promised at any time, checked after every step.
//!
//! Each is a sentence of the README, of the crate's documentation or of the builder's settings. Where a rule needs to know
//! what happened between two looks and can't, it says nothing: a false alarm costs more than a fault that another seed finds.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;
use tower_headless::{EjectionReason, EndpointState};

use crate::{
    broadcasts::Broadcast,
    cluster::Cluster,
    failures::{self, Facts},
    keys::{self, Preferences},
    lock::lock,
    plan::{CHECK_INTERVAL, Checks, Config, Ready},
    pod::Receiver,
    states,
    subsets::Part,
    users::{Answer, User},
    view::{Seen, View},
    world::{Broken, Trace, broken},
};

/// An endpoint that refused is tried again after 5 s ± 20 % at most.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(6_100);

/// A pod whose checks pass is known to be well after so long.
pub(crate) const CHECKED: Duration = Duration::from_millis(4 * CHECK_INTERVAL);

/// The balancer's own attempt to find out whether an endpoint accepts requests may take as long.
pub(crate) const PROBE: Duration = Duration::from_millis(5_100);

/// What has been seen so far.
#[derive(Default)]
pub(crate) struct Promises {
    pub(crate) previous: Option<View>,
    pub(crate) trace: Trace,
    facts: Facts,
    preferences: Preferences,
    has_broadcast: bool,
    pub(crate) part: Part,
}

impl Promises {
    pub(crate) fn check(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        view: &mut View,
        users: &mut [User],
        broadcasts: &mut [Broadcast],
        started: Instant,
    ) -> Result<(), Broken> {
        self.note(view);
        view.note_ejections(self.previous.as_ref());
        states::each_pod_is_made_once(cluster)?;
        for seen in &view.pods {
            states::requests_are_counted(cluster, seen)?;
            states::a_state_has_its_reason(config, cluster, seen)?;
            states::who_accepts_is_found(view, seen)?;
        }
        self.who_is_pending_gets_nothing(cluster, view, !broadcasts.is_empty())?;
        self.few_are_ejected(config, view)?;
        self.who_comes_back_has_answered(config, view)?;
        self.part.check(config, cluster, view, broadcasts)?;
        if !broadcasts.iter().any(Broadcast::is_running) {
            states::nothing_is_kept(cluster, users, view.at)?;
        }
        states::nobody_waits_for_who_left(cluster)?;
        states::nobody_waits_in_vain(cluster, view, users)?;
        for broadcast in broadcasts {
            broadcast.check(config, cluster, view, &self.facts, started)?;
        }
        if let Some(before) = &self.previous {
            keys::no_pod_drowns(config, cluster, before, view, users)?;
        }
        for user in users.iter_mut() {
            if let Some(before) = &self.previous {
                self.preferences
                    .check(config, cluster, before, view, user)?;
            }
            self.no_other_pod_gets_it(cluster, user)?;
            self.who_is_avoided_is_the_last_resort(view, user)?;
            if user.times_sent() > 1 {
                return broken("nothing is sent twice", format!("request {}", user.number));
            }
            self.see(config, cluster, user, started)?;
            states::who_wants_a_pod_waits_no_longer(config, cluster, user, view.at)?;
            user.is_old = true;
        }
        Ok(())
    }

    fn note(&mut self, view: &View) {
        let mut hasher = DefaultHasher::new();
        self.trace.hash(&mut hasher);
        for seen in &view.pods {
            let log = seen.log;
            (seen.status.to_string(), log.begun, log.good, log.bad).hash(&mut hasher);
        }
        self.trace = hasher.finish();
    }

    /// The last handle has been dropped.
    pub(crate) fn close(&mut self) {
        self.facts.is_closed = true;
    }

    /// Takes note of an answer, and asks whether it may be one.
    pub(crate) fn see(
        &mut self,
        config: &Config,
        cluster: &Cluster,
        user: &mut User,
        started: Instant,
    ) -> Result<(), Broken> {
        let record = lock(&user.record);
        let Some((at, answer)) = &record.answer else {
            return Ok(());
        };
        if std::mem::replace(&mut user.is_seen, true) {
            return Ok(());
        }
        match answer {
            Answer::Head { .. } => self.facts.accepted(*at),
            Answer::Panic => {}
            Answer::Error(error) => {
                let case = failures::Case {
                    number: user.number,
                    at: *at,
                    started,
                    begun: user.begun,
                    wants: user.wants,
                };
                self.facts.may_fail(config, cluster, &case, error)?;
            }
        }
        Ok(())
    }

    /// A request for one pod is sent to that and to no other, by what the balancer knows then; and one for all others never to
    /// the one that is left out.
    fn no_other_pod_gets_it(&self, cluster: &Cluster, user: &User) -> Result<(), Broken> {
        let last = lock(&user.sent).last;
        let (Some(Receiver { host, known, .. }), Some((pin, pod))) = (last, user.wants) else {
            return Ok(());
        };
        // One that waits for readiness at one of the others may find another one in its place.
        let since = if pin.is_others() { user.known } else { known };
        let mut sets = (since..=known).filter_map(|known| cluster.told(known));
        if sets.any(|told| told.fits(user.wants, host)) || self.facts.is_closed {
            return Ok(());
        }
        let what = format!(
            "request {} for {pin:?} {pod} was sent to {host}",
            user.number
        );
        broken("no other pod will do", what)
    }

    /// A request goes to a pod that it avoids only if no other one takes it.
    fn who_is_avoided_is_the_last_resort(&self, view: &View, user: &User) -> Result<(), Broken> {
        let record = lock(&user.record);
        let (Some((at, Answer::Head { host: Some(host) })), Some(before)) =
            (&record.answer, &self.previous)
        else {
            return Ok(());
        };
        // Only of what was begun and answered since the last look, at the same time, is it known how the others were.
        let is_known = *at == user.begun && before.at == *at && before.version == view.version;
        if user.is_seen || user.is_old || !is_known || !user.avoids.contains(*host) {
            return Ok(());
        }
        let would_take = |seen: &&Seen| {
            let is_there = |was: &Seen| was.is_available() && was.refusals() == seen.refusals();
            !user.avoids.contains(seen.life.host)
                && seen.is_available()
                && before.of(&seen.life).is_some_and(is_there)
                && seen.life.prompt_since().is_some_and(|since| since <= *at)
        };
        match view.pods.iter().find(would_take) {
            Some(other) => {
                let what = format!(
                    "pod {host} got request {}, and {}",
                    user.number, other.status
                );
                broken("who is avoided is the last resort", what)
            }
            None => Ok(()),
        }
    }

    /// Unless it is asked for itself: no other one would do.
    fn who_is_pending_gets_nothing(
        &mut self,
        cluster: &Cluster,
        view: &View,
        is_broadcast: bool,
    ) -> Result<(), Broken> {
        self.has_broadcast |= is_broadcast;
        let is_asked_for = |seen: &Seen| {
            let mut sets = cluster.told.iter();
            self.has_broadcast || sets.any(|told| self.part.is_wanted(told, seen.life.host))
        };
        for seen in view.pods.iter().filter(|seen| !is_asked_for(seen)) {
            if seen.status.state == EndpointState::Pending && seen.log.begun > 0 {
                return broken("no request before the first check", seen.status.to_string());
            }
        }
        Ok(())
    }

    /// The view before, if the set is the same and nothing has come between but requests. Checks that fail may bring a panic
    /// about, in which they don't show.
    fn plainly_before(&self, config: &Config, view: &View) -> Option<&View> {
        let before = self.previous.as_ref()?;
        let is_plain = config.checks == Checks::Off
            && before.version == view.version
            && before.refusals() == view.refusals()
            && before.is_plain()
            && view.is_plain();
        is_plain.then_some(before)
    }

    fn few_are_ejected(&self, config: &Config, view: &View) -> Result<(), Broken> {
        let Some(before) = self.plainly_before(config, view) else {
            return Ok(());
        };
        // One of an earlier set may have been taken back by a panic, and shows again when that ends.
        let is_new = |seen: &&Seen| {
            seen.is_out()
                && seen.out_in == Some(view.version)
                && before.of(&seen.life).is_some_and(Seen::is_available)
        };
        let counted = view.counted();
        let Some(new) = counted.iter().copied().find(is_new) else {
            return Ok(());
        };
        let all = counted.len();
        let out = counted.iter().filter(|seen| seen.is_out()).count();
        if out as f64 > all as f64 * config.max_ejected + 1e-6 {
            let what = format!("{out} of {all}: {}", new.status);
            return broken("no more are ejected than may be", what);
        }
        if out == all {
            return broken("the last one is never ejected", new.status.to_string());
        }
        Ok(())
    }

    /// Who was ejected for what its requests came to comes back when a request succeeds; or when others count, as when a subset has
    /// shrunk, and more would be out than may be.
    fn who_comes_back_has_answered(&self, config: &Config, view: &mut View) -> Result<(), Broken> {
        let all = view.counted().len() as f64;
        let may_panic =
            all - (all * config.max_ejected + 1e-6).floor() < all * config.panic_threshold - 1e-6;
        let plainly_before = self.plainly_before(config, view);
        let Some(before) =
            plainly_before.filter(|before| !may_panic && before.counts_the_same(view))
        else {
            return Ok(());
        };
        for seen in &mut view.pods {
            let Some(was) = before.of(&seen.life) else {
                continue;
            };
            use EndpointState::{Available, Ejected};
            let good_before = match (was.status.state, seen.status.state) {
                (Available, Ejected(reason)) if reason != EjectionReason::Unresponsive => {
                    Some((was.log.good, view.version))
                }
                (Ejected(_), _) => was.good_before,
                _ => None,
            };
            if seen.is_available() && good_before.is_some_and(|(good, _)| good == seen.log.good) {
                let what = format!("{}, and was {}", seen.status, was.status.state);
                return broken("who is ejected comes back by a success", what);
            }
            seen.good_before = good_before;
        }
        Ok(())
    }
}

/// The ready timeout, if requests ever fail for want of an endpoint.
pub(crate) fn ready_timeout(config: &Config) -> Option<Duration> {
    match config.ready {
        Ready::Timeout(millis) => Some(Duration::from_millis(millis.into())),
        Ready::FailFast => Some(Duration::ZERO),
        Ready::Wait => None,
    }
}
