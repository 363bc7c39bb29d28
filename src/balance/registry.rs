//! All that the background task knows of the endpoints: one `Life` for each member.
//!
//! Discovery's answer is compared with the set before only once, when the next snapshot is written. What joins and
//! leaves there joins and leaves here. Events find a member by its number, so an event of a member that has left finds
//! nothing, even if another endpoint has its address now.

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
    /// The endpoint, with what has been learnt of it since it joined.
    pub(super) endpoint: Endpoint,
    pub(super) member: Arc<Member>,
    pub(super) service: S,
    pub(super) health: EndpointHealth,
    /// The state of its health checks, if the balancer makes any.
    pub(super) check: Option<CheckState>,
    /// What one check keeps for the next, such as a connection.
    pub(super) kept: Kept,
    /// Set while it refuses requests.
    pub(super) reconnect: Option<Reconnect>,
    /// Set while an attempt to reach it runs.
    pub(super) running: Option<Running>,
    /// Set while a check of it runs.
    pub(super) checking: Option<Running>,
    /// Its standing and next trial when the history was last told of them.
    pub(super) told: (Standing, Option<Instant>),
    /// Since when it is new, for slow start.
    pub(super) new_since: Option<Instant>,
}

/// How a set has changed.
pub(super) struct SetChange<S> {
    /// The members that joined.
    pub(super) joined: Vec<MemberId>,
    /// The members that left.
    pub(super) left: Vec<Life<S>>,
    /// How many stayed, but something about them changed.
    pub(super) altered: usize,
    /// The set was empty before.
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

    /// Replaces the set, which may be in any order. `None` if nothing changes.
    pub(super) fn update(
        &mut self,
        current: &Current<S>,
        (set, proximities): (Vec<Endpoint>, Proximities),
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<SetChange<S>> {
        let is_first = self.lives.is_empty();
        let update = self.writer.replace(current, set, proximities, rng)?;
        let Update {
            joined,
            left,
            altered,
        } = update;
        let change = SetChange {
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

    /// Its standing now, and when it is tried again.
    pub(super) fn standing(&self) -> (Standing, Option<Instant>) {
        let standing = Standing::of(&self.member, self.health.complaint_so_far());
        let next_trial = match (standing, &self.reconnect) {
            (Standing::Unreachable | Standing::Pending, Some(reconnect)) => reconnect.due(),
            (Standing::In | Standing::Pending | Standing::CheckFails, _) => None,
            _ => self.health.due(),
        };
        (standing, next_trial)
    }

    /// Whether it accepts requests, or may accept them because it is new and not tried yet.
    ///
    /// It goes by what is known of the endpoint, not by whether picks take it. A panic and the ejection limit depend on
    /// how many members there are, and how many there are depends on this: going by picks would be a circle.
    pub(super) fn may_accept(&self) -> bool {
        let refuses = self.reconnect.as_ref().is_none_or(Reconnect::has_refused);
        let fails = self.check.as_ref().is_some_and(CheckState::has_failed);
        !(self.health.is_bad() || self.member.is_unreachable() && refuses || fails)
    }
}
