//! Promises that can be checked at a single point in time.

use std::time::Duration;

use tokio::time::Instant;
use tower_headless::{EjectionReason, EndpointState};

use crate::{
    cluster::Cluster,
    life::Log,
    lock::lock,
    plan::{CHECK_FAILURES, Checks, Config},
    promises::{ATTEMPT, BACK_OFF, ready_timeout},
    users::User,
    view::{Seen, View},
    world::{Broken, broken},
};

pub(crate) fn each_pod_is_made_once(cluster: &Cluster) -> Result<(), Broken> {
    let births = cluster.births();
    if let Some(fault) = lock(&births.faults).first() {
        return broken("each life has one service", fault);
    }
    if births.are_unborn() {
        return broken(
            "each life has one service",
            "none was made for one that joined",
        );
    }
    Ok(())
}

/// The requests in flight are those that the pod has, and those that wait for its readiness.
pub(crate) fn requests_are_counted(cluster: &Cluster, seen: &Seen) -> Result<(), Broken> {
    let Log { open, stalled, .. } = seen.log;
    // Requests of an earlier life at the address may be counted here or not.
    let earlier = cluster.departed.iter().map(|(life, _)| life);
    let earlier = earlier.filter(|life| life.host == seen.life.host);
    let earlier: u32 = earlier
        .map(|life| life.log().open + life.log().stalled)
        .sum();
    let in_flight = seen.status.in_flight;
    if in_flight < open || in_flight > open + stalled + earlier {
        let what = format!("{}; it has {open}, and {stalled} wait", seen.status);
        return broken("the requests in flight are counted right", what);
    }
    Ok(())
}

/// Only what a pod did in this life counts against it.
pub(crate) fn a_state_has_its_reason(
    config: &Config,
    cluster: &Cluster,
    seen: &Seen,
) -> Result<(), Broken> {
    use EjectionReason::{CheckFailed, ConsecutiveFailures, SuccessRate, Unresponsive};
    use EndpointState::{Ejected, Pending, Unreachable};
    let log = seen.log;
    let has_checks = config.checks != Checks::Off;
    let failed_checks = cluster.failed_checks(seen.life.host);
    let (promise, is_kept) = match seen.status.state {
        Unreachable => (
            "an unreachable pod has refused",
            log.refusals + log.handed_back > 0,
        ),
        Pending => (
            "a pending pod waits for a check",
            config.checks == Checks::First,
        ),
        Ejected(ConsecutiveFailures) => (
            "a pod ejected for failures has failed",
            log.bad >= u32::from(config.failures),
        ),
        Ejected(SuccessRate) => ("a pod ejected for failures has failed", log.bad > 0),
        Ejected(Unresponsive) => (
            "an unresponsive pod left requests waiting",
            log.most_waiting >= 2,
        ),
        Ejected(CheckFailed) => (
            "a pod ejected for checks has failed some",
            has_checks && failed_checks >= CHECK_FAILURES,
        ),
        _ => return Ok(()),
    };
    if is_kept {
        return Ok(());
    }
    broken(promise, format!("{}; in this life: {log:?}", seen.status))
}

/// A pod that refused and accepts again is found within the longest back-off.
pub(crate) fn a_pod_that_accepts_is_found(view: &View, seen: &Seen) -> Result<(), Broken> {
    let prompt_since = seen.life.prompt_since();
    let is_late = prompt_since.is_some_and(|since| view.at - since > BACK_OFF);
    let is_unreachable = seen.status.state == EndpointState::Unreachable;
    // A pod that handed requests back is tried by a request, and there may be none.
    if is_late && is_unreachable && seen.log.handed_back == 0 {
        return broken("a pod that accepts again is found", seen.status.to_string());
    }
    Ok(())
}

/// A service is dropped when its pod has left and the last request that could use it has ended.
pub(crate) fn nothing_is_kept(
    cluster: &Cluster,
    users: &[User],
    now: Instant,
) -> Result<(), Broken> {
    if users.iter().any(User::is_running) {
        return Ok(());
    }
    for (life, since) in &cluster.departed {
        if now - *since > ATTEMPT && life.is_held() {
            let what = format!("pod {} left {:?} ago", life.host, now - *since);
            return broken("nothing is kept of a pod that left", what);
        }
    }
    Ok(())
}

/// A request for one pod that doesn't take it waits no longer than the ready timeout.
pub(crate) fn a_request_for_one_pod_waits_no_longer(
    config: &Config,
    cluster: &Cluster,
    user: &User,
    now: Instant,
) -> Result<(), Broken> {
    let (Some((pin, wanted)), Some(timeout)) = (user.wants, ready_timeout(config)) else {
        return Ok(());
    };
    // Even if requests never wait for a pod that accepts, this one may wait until its own pod is ready.
    let is_at_its_pod = timeout.is_zero() && is_anybody_stalled(cluster);
    if pin.is_others() || is_at_its_pod {
        return Ok(());
    }
    // Before there is a set, it waits in `poll_ready`.
    let first = cluster.told.first().map(|told| told.at);
    let is_late = first.is_some_and(|first| now > first.max(user.begun) + timeout + MILLI);
    if is_late && user.waits() {
        let what = format!("request {} for {pin:?} {wanted} still waits", user.number);
        return broken("a request for one pod waits up to the ready timeout", what);
    }
    Ok(())
}

/// The resolution of the runtime's clock.
const MILLI: Duration = Duration::from_millis(1);

/// A request whose pod leaves before it is ready goes elsewhere.
pub(crate) fn no_request_waits_for_a_pod_that_left(cluster: &Cluster) -> Result<(), Broken> {
    let mut departed = cluster.departed.iter();
    match departed.find(|(life, _)| life.log().stalled > 0) {
        Some((life, _)) => broken(
            "no request waits for a pod that left",
            format!("pod {}", life.host),
        ),
        None => Ok(()),
    }
}

fn is_anybody_stalled(cluster: &Cluster) -> bool {
    let departed = cluster.departed.iter().map(|(life, _)| life);
    let mut lives = departed.chain(cluster.lives());
    lives.any(|life| life.log().stalled > 0)
}

/// A request that waits for an endpoint is woken as soon as there is one.
pub(crate) fn no_request_waits_while_an_endpoint_accepts(
    cluster: &Cluster,
    view: &View,
    users: &[User],
) -> Result<(), Broken> {
    // Requests that wait for their pod's readiness can't be distinguished from the others.
    if is_anybody_stalled(cluster) {
        return Ok(());
    }
    let Some(told) = cluster.told.last() else {
        return Ok(());
    };
    for user in users.iter().filter(|user| user.waits()) {
        let may_take = |seen: &&Seen| {
            let is_for_one = user.wants.is_some_and(|(pin, _)| !pin.is_others());
            // A request for one pod takes an ejected one, too.
            let gets_it = seen.is_available() || is_for_one && seen.is_ejected();
            told.fits(user.wants, seen.life.host) && gets_it && seen.life.prompt_since().is_some()
        };
        if let Some(seen) = view.pods.iter().find(may_take) {
            let what = format!("request {} does, and {}", user.number, seen.status);
            return broken("no request waits while an endpoint accepts", what);
        }
    }
    Ok(())
}
