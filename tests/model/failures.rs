//! Which requests may fail, and how.

use std::{error::Error as _, sync::Arc, time::Duration};

use tokio::time::Instant;
use tower_headless::Error;

use crate::{
    cluster::{Cluster, host},
    life::Life,
    plan::{Checks, Config},
    pod::PodError,
    promises::{BACK_OFF, CHECKED, ready_timeout},
    world::{Broken, broken},
};

/// What bears upon failures.
#[derive(Default)]
pub(crate) struct Facts {
    /// When a request was last answered.
    last_answer: Option<Instant>,
    /// From now on the balancer is closed.
    pub(crate) is_closed: bool,
}

/// A request that has failed.
pub(crate) struct Case {
    pub(crate) number: u32,
    pub(crate) at: Instant,
    /// When the balancer was built.
    pub(crate) started: Instant,
    pub(crate) begun: Instant,
    /// The one pod that was to have it.
    pub(crate) wants: Option<u8>,
}

impl Facts {
    pub(crate) fn accepted(&mut self, at: Instant) {
        self.last_answer = self.last_answer.max(Some(at));
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
        } else if error.is_unreachable() && case.wants.is_some() {
            has_waited(case, timeout).and_then(|()| none_accepts(config, cluster, case))
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

    /// The ready timeout counts from the beginning of the outage, and whatever is answered ends one.
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

/// The error is that which the pod has given for this request.
fn is_the_pods_own(case: &Case, error: &Error) -> Result<(), String> {
    let given = error.source().and_then(|it| it.downcast_ref::<PodError>());
    let named = error.endpoint().map(host);
    match given {
        Some(given) if given.number == case.number && named == Some(given.host) => {
            is_wanted(case, given.host)
        }
        _ => Err("no pod said so".into()),
    }
}

fn is_wanted(case: &Case, host: u8) -> Result<(), String> {
    match case.wants {
        Some(wanted) if wanted != host => Err(format!("it was for pod {wanted}")),
        _ => Ok(()),
    }
}

/// One for a pod of its own waits for the ready timeout itself, however long there have been none.
fn has_waited(case: &Case, timeout: Option<Duration>) -> Result<(), String> {
    match timeout {
        None => Err("requests wait for ever".into()),
        Some(timeout) if case.at < case.begun + timeout => {
            Err(format!("it waited {:?}", case.at - case.begun))
        }
        Some(_) => Ok(()),
    }
}

/// The set is empty, or nothing has been discovered for the ready timeout.
fn has_no_endpoints(
    cluster: &Cluster,
    case: &Case,
    timeout: Option<Duration>,
) -> Result<(), String> {
    let Some(&(first, _)) = cluster.told.first() else {
        return is_over(case, timeout);
    };
    if case.at <= first && is_over(case, timeout).is_ok() {
        return Ok(());
    }
    // The one before counts for as long as the newer one may not have arrived.
    let before = cluster.told.iter().filter(|(told, _)| *told < case.at);
    let last = before.max_by_key(|(told, _)| *told);
    let with = cluster.told.iter().filter(|(told, _)| *told == case.at);
    if last
        .into_iter()
        .chain(with)
        .any(|(_, set)| set.iter().next().is_none())
    {
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

/// There is none that would have taken the request and could be known to.
fn none_accepts(config: &Config, cluster: &Cluster, case: &Case) -> Result<(), String> {
    let is_known = |since: Option<Instant>, bound| since.is_some_and(|at| at + bound < case.at);
    let may_take = |life: &&Arc<Life>| case.wants.is_none_or(|host| host == life.host);
    for life in cluster.lives().filter(may_take) {
        let passes = cluster.checks_pass_since(life.host);
        let is_fit = config.checks == Checks::Off || is_known(passes, BACK_OFF + CHECKED);
        if is_fit
            && is_known(life.prompt_since(), BACK_OFF)
            && is_known(Some(life.joined), BACK_OFF)
        {
            return Err(format!("pod {} accepts requests", life.host));
        }
    }
    Ok(())
}
