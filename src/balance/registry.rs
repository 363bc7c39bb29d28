//! All that the background task knows of the endpoints, a life each.
//!
//! Discovery's answer is compared with the set before, once, when the next snapshot is written; what has joined and left by
//! that, joins and leaves here. What is told of a member finds it by its number: of one that has left nothing is here any
//! more, whatever has its address now.

use std::{collections::BTreeMap, sync::Arc};

use rand::Rng;
use tokio::time::Instant;

use super::{
    history::Standing,
    reconnect::{Reconnect, Running},
};
use crate::{
    check::{CheckState, Kept},
    endpoint::Endpoint,
    locality::Proximities,
    member::{Member, MemberId},
    outlier::EndpointHealth,
    snapshot::{Current, Update, Writer},
};

/// The members of a balancer, in the order in which they have joined.
pub(super) struct Registry<S, M> {
    writer: Writer<M>,
    pub(super) lives: Lives<S>,
}

/// The members, by their numbers.
pub(super) type Lives<S> = BTreeMap<MemberId, Life<S>>;

/// What is known of one member.
pub(super) struct Life<S> {
    /// The endpoint, with all that has been learnt of it.
    pub(super) endpoint: Endpoint,
    pub(super) member: Arc<Member>,
    pub(super) service: S,
    pub(super) health: EndpointHealth,
    /// If the balancer makes health checks.
    pub(super) check: Option<CheckState>,
    /// What its checks leave to one another.
    pub(super) kept: Kept,
    /// While it refuses requests.
    pub(super) reconnect: Option<Reconnect>,
    /// While an attempt to reach it runs.
    pub(super) running: Option<Running>,
    /// While a check of it runs.
    pub(super) checking: Option<Running>,
    /// How it stood when that was last told, and when it was to be tried again.
    pub(super) told: (Standing, Option<Instant>),
    /// Since when it is new, for slow start.
    pub(super) new_since: Option<Instant>,
}

/// How a set has changed.
pub(super) struct Change<S> {
    /// What is here now, and wasn't.
    pub(super) joined: Vec<MemberId>,
    /// What was here, and isn't any more.
    pub(super) left: Vec<Life<S>>,
    /// How many stay, but with something else known of them.
    pub(super) altered: usize,
    /// There was nothing before.
    pub(super) is_first: bool,
}

impl<S, M> Registry<S, M>
where
    S: Clone,
    M: FnMut(&Endpoint) -> S,
{
    pub(super) fn new(writer: Writer<M>) -> Self {
        Self {
            writer,
            lives: Lives::new(),
        }
    }

    /// The set is now this, in whatever order. None if nothing changes by it.
    pub(super) fn update(
        &mut self,
        current: &Current<S>,
        (set, proximities): (Vec<Endpoint>, Proximities),
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Change<S>> {
        let is_first = self.lives.is_empty();
        let update = self.writer.replace(current, set, proximities, rng)?;
        let Update {
            joined,
            left,
            altered,
        } = update;
        let change = Change {
            joined: joined.iter().map(|(member, _)| member.id()).collect(),
            left: left
                .iter()
                .filter_map(|member| self.lives.remove(&member.id()))
                .collect(),
            altered: altered.len(),
            is_first,
        };
        for (member, service) in joined {
            self.lives
                .insert(member.id(), Life::new(member, service, now));
        }
        for (id, endpoint) in altered {
            if let Some(life) = self.lives.get_mut(&id) {
                life.endpoint = endpoint;
            }
        }
        Some(change)
    }
}

impl<S> Life<S> {
    pub(super) fn new(member: Arc<Member>, service: S, now: Instant) -> Self {
        Self {
            endpoint: member.endpoint().clone(),
            member,
            service,
            health: EndpointHealth::new(now),
            check: None,
            kept: Kept::default(),
            reconnect: None,
            running: None,
            checking: None,
            told: (Standing::In, None),
            new_since: None,
        }
    }

    /// How it stands now, and when it is tried again.
    pub(super) fn standing(&self) -> (Standing, Option<Instant>) {
        let standing = Standing::of(&self.member, self.health.complaint_so_far());
        let next_trial = match (standing, &self.reconnect) {
            (Standing::Unreachable | Standing::Pending, Some(reconnect)) => reconnect.due(),
            (Standing::In | Standing::Pending | Standing::CheckFails, _) => None,
            _ => self.health.due(),
        };
        (standing, next_trial)
    }

    /// Whether it accepts requests, or may: it is new, and is to be found ready, or to pass a check, first. By what is known of
    /// it, and not by whether picks take it: how many members there are decides on a panic, which takes back those that are out,
    /// and on how many may be ejected, and this decides on how many there are.
    pub(super) fn may_accept(&self) -> bool {
        let refuses = self.reconnect.as_ref().is_none_or(Reconnect::has_refused);
        let fails = self.check.as_ref().is_some_and(CheckState::has_failed);
        !(self.health.is_bad() || self.member.is_unreachable() && refuses || fails)
    }
}
