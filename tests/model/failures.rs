//! Which requests may fail, and how.

use std::{error::Error as _, time::Duration};

use tokio::time::Instant;
use tower_headless::Error;

use crate::{
    cluster::{Cluster, Wanted, host},
    plan::{Checks, Config},
    pod::PodError,
    promises::{BACK_OFF, CHECKED, ready_timeout},
    world::{Broken, broken},
};

/// What decides whether a request may fail.
#[derive(Default)]
pub(crate) struct Facts {
    /// When a request was last answered.
    last_answer: Option<Instant>,
    /// The balancer is closed.
    pub(crate) is_closed: bool,
}

/// A request that has failed.
pub(crate) struct Case {
    pub(crate) number: u32,
    pub(crate) at: Instant,
    /// When the balancer was built.
    pub(crate) started: Instant,
    pub(crate) begun: Instant,
    pub(crate) wants: Wanted,
}

impl Case {
    fn is_for_one(&self) -> bool {
        self.wants.is_some_and(|(pin, _)| !pin.is_others())
    }
}

impl Facts {
    pub(crate) fn accepted(&mut self, at: Instant) {
        self.last_answer = self.last_answer.max(Some(at));
    }

    /// Whether a request may fail with this error before the first set, if it waits no longer than this.
    pub(crate) fn may_fail_before(
        &self,
        config: &Config,
        cluster: &Cluster,
        case: &Case,
        deadline: Option<Duration>,
        error: &Error,
    ) -> Result<(), Broken> {
        let is_over = deadline.is_some_and(|time| case.at >= case.begun + time);
        if is_over && error.is_no_endpoints() {
            return Ok(());
        }
        self.may_fail(config, cluster, case, error)
    }

    /// Whether a request may fail with this error.
    pub(crate) fn may_fail(
        &self,
        config: &Config,
        cluster: &Cluster,
        case: &Case,
        error: &Error,
    ) -> Result<(), Broken> {
        let timeout = ready_timeout(config);
        let result = if error.is_endpoint() {
            is_the_pods_own(case, error)
        } else if self.is_closed {
            Ok(())
        } else if error.is_no_endpoints() {
            has_no_endpoints(cluster, case, timeout)
        } else if error.is_unreachable() && case.is_for_one() {
            has_waited(case, timeout)
                .and_then(|()| says_where_it_is(cluster, case, error))
                .and_then(|()| none_accepts(config, cluster, case))
        } else if error.is_unreachable() {
            self.has_lasted(case, timeout)
                .and_then(|()| none_accepts(config, cluster, case))
        } else {
            Err("the balancer is not closed".into())
        };
        result.or_else(|why: String| {
            let Case { number, at, .. } = case;
            let at = *at - case.started;
            let source = error.source().map(ToString::to_string);
            let what =
                format!("request {number} failed after {at:?} ({error}: {source:?}), but {why}");
            broken("a request fails only if it may", what)
        })
    }

    /// Checks that the outage has lasted for the ready timeout. Any answer ends an outage.
    fn has_lasted(&self, case: &Case, timeout: Option<Duration>) -> Result<(), String> {
        let Some(timeout) = timeout else {
            return Err("requests wait for ever".into());
        };
        let since = self.last_answer.unwrap_or(case.started);
        if since < case.at && case.at < since + timeout {
            return Err(format!(
                "a request was answered {:?} before",
                case.at - since
            ));
        }
        Ok(())
    }
}

/// Checks that the error is the pod's own, for this request.
fn is_the_pods_own(case: &Case, error: &Error) -> Result<(), String> {
    let given = error.source().and_then(|it| it.downcast_ref::<PodError>());
    let named = error.endpoint().map(host);
    match given {
        Some(given) if given.number == case.number && named == Some(given.host) => Ok(()),
        _ => Err("no pod said so".into()),
    }
}

/// Checks that the error names the pod that was wanted, and says that the pod is away only if it is.
fn says_where_it_is(cluster: &Cluster, case: &Case, error: &Error) -> Result<(), String> {
    if error.pod().is_none() {
        return Err("it doesn't say for which pod".into());
    }
    let mut sets = cluster.told_by(case.at);
    match sets.any(|told| told.has(case.wants) != error.is_absent()) {
        true => Ok(()),
        false => Err(format!("it is absent: {}", error.is_absent())),
    }
}

/// Checks that a request for one pod has waited for the whole ready timeout itself, however long the outage has lasted.
fn has_waited(case: &Case, timeout: Option<Duration>) -> Result<(), String> {
    match timeout {
        None => Err("requests wait for ever".into()),
        Some(timeout) if case.at < case.begun + timeout => {
            Err(format!("it waited {:?}", case.at - case.begun))
        }
        Some(_) => Ok(()),
    }
}

/// Checks that the set is empty, or that nothing was discovered for the ready timeout.
fn has_no_endpoints(
    cluster: &Cluster,
    case: &Case,
    timeout: Option<Duration>,
) -> Result<(), String> {
    let Some(first) = cluster.told.first() else {
        return is_over(case, timeout);
    };
    if case.at <= first.at && is_over(case, timeout).is_ok() {
        return Ok(());
    }
    // The set before also counts, because the newer one may not have arrived yet.
    let left_out = case.wants.filter(|(pin, _)| pin.is_others());
    if cluster.told_by(case.at).any(|told| !told.has(left_out)) {
        return Ok(());
    }
    Err("the set is not empty".into())
}

fn is_over(case: &Case, timeout: Option<Duration>) -> Result<(), String> {
    match timeout {
        Some(timeout) if case.at >= case.started + timeout => Ok(()),
        _ => Err("the ready timeout is not over".into()),
    }
}

/// Checks that no pod was known that would have taken the request.
fn none_accepts(config: &Config, cluster: &Cluster, case: &Case) -> Result<(), String> {
    let is_known = |since: Option<Instant>, bound| since.is_some_and(|at| at + bound < case.at);
    let Some(told) = cluster.told.last() else {
        return Ok(());
    };
    // Pods outside of the subset count as well: no request should fail while one of them accepts.
    let may_take = |host: &u8| told.fits(case.wants, *host);
    for host in told.set.iter().filter(may_take) {
        let passes = cluster.checks_pass_since(host);
        let is_fit = config.checks == Checks::Off || is_known(passes, BACK_OFF + CHECKED);
        if is_fit && is_known(cluster.prompt_since(host), BACK_OFF) {
            return Err(format!("pod {host} accepts requests"));
        }
    }
    Ok(())
}
