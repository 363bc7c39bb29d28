//! Any policy and any picker: this crate's as an enum, others boxed.

use std::{fmt, sync::Arc, time::Duration};

use rand::Rng;

use super::{
    BuiltInPolicy, Picker, Policy, Previous, Reads, any_available, consistent_hash,
    least_connections, peak_ewma, power_of_two, random, round_robin, weights::Weights,
};
use crate::{member::Members, route::Route};

/// The policy of a balancer.
#[derive(Clone)]
pub(crate) enum AnyPolicy {
    BuiltIn(BuiltInPolicy),
    Other(Arc<dyn Policy>),
}

impl AnyPolicy {
    pub(crate) fn new(policy: impl Policy) -> Self {
        match BuiltInPolicy::of(&policy) {
            Some(policy) => Self::BuiltIn(policy),
            None => Self::Other(Arc::new(policy)),
        }
    }

    /// Its name, if it is one of this crate's.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BuiltIn(policy) => policy.name(),
            Self::Other(_) => "custom",
        }
    }

    /// What its pickers read.
    pub(crate) fn reads(&self) -> Reads {
        match self {
            Self::BuiltIn(policy) => policy.reads(),
            Self::Other(_) => Reads::Few,
        }
    }

    /// Whether a request's key may decide where it goes. Assumed of any policy from outside.
    pub(crate) fn may_be_keyed(&self) -> bool {
        match self {
            Self::BuiltIn(policy) => matches!(policy, BuiltInPolicy::ConsistentHash(_)),
            Self::Other(_) => true,
        }
    }

    pub(crate) fn latency_decay(&self) -> Option<Duration> {
        match self {
            Self::BuiltIn(policy) => policy.latency_decay(),
            Self::Other(policy) => policy.latency_decay(),
        }
    }

    pub(crate) fn prepare(
        &self,
        members: &Members,
        previous: Option<(&AnyPicker, &dyn Fn(usize) -> usize)>,
        rng: &mut impl Rng,
    ) -> AnyPicker {
        let previous = previous.map(|(picker, place)| Previous::new(picker.inner(), place));
        match self {
            Self::BuiltIn(policy) => policy.picker(members, previous, rng),
            Self::Other(policy) => AnyPicker::Other {
                picker: policy.prepare(members, previous, rng),
                weights: Weights::of(members.weights()),
            },
        }
    }
}

impl fmt::Debug for AnyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(policy) => policy.fmt(f),
            Self::Other(_) => f.write_str("Policy"),
        }
    }
}

/// The picker of a set.
#[expect(
    clippy::large_enum_variant,
    reason = "a set has two or three, and a box would cost each pick of round robin a load"
)]
pub(crate) enum AnyPicker {
    RoundRobin(round_robin::Picker),
    Random(random::Picker),
    LeastConnections(least_connections::Picker),
    PowerOfTwo(power_of_two::Picker),
    PeakEwma(peak_ewma::Picker),
    ConsistentHash(consistent_hash::Picker),
    Other {
        picker: Box<dyn Picker>,
        /// For requests that the picker returns no endpoint for.
        weights: Option<Box<Weights>>,
    },
}

impl AnyPicker {
    /// Chooses an endpoint, and counts one more request in there; `None` if none is available.
    #[inline]
    pub(crate) fn pick(
        &self,
        members: &Members,
        route: &Route,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        match self {
            Self::RoundRobin(picker) => picker.pick(members, rng),
            Self::Random(picker) => picker.pick(members, rng),
            Self::LeastConnections(picker) => picker.pick(members, rng),
            Self::PowerOfTwo(picker) => picker.pick(members, rng),
            Self::PeakEwma(picker) => picker.pick(members, rng),
            Self::ConsistentHash(picker) => picker.pick(members, route, rng),
            Self::Other { .. } if members.is_empty() => None,
            Self::Other { picker, weights } => {
                let chosen = picker.pick(members, route, rng);
                chosen
                    .filter(|&index| index < members.len() && members.begin(index))
                    .or_else(|| any_available(members, weights.as_deref(), rng))
            }
        }
    }

    /// The first endpoint in the order of the request's key that `which` allows; only for `ConsistentHash`.
    pub(crate) fn first(&self, route: &Route, which: &dyn Fn(usize) -> bool) -> Option<usize> {
        match self {
            Self::ConsistentHash(picker) => picker.first(route, which),
            _ => None,
        }
    }

    /// Whether the request's key decides where it goes.
    pub(crate) fn is_keyed(&self, route: &Route) -> bool {
        match self {
            Self::ConsistentHash(_) => route.requested_key().is_some(),
            Self::Other { picker, .. } => picker.is_keyed(route),
            _ => false,
        }
    }

    /// How likely it chooses each endpoint for the next request, if that is known. For keyed policies, a request with a
    /// key.
    pub(crate) fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        match self {
            Self::RoundRobin(picker) => Some(picker.shares(members)),
            Self::Random(picker) => Some(picker.shares(members)),
            Self::LeastConnections(picker) => picker.shares(members),
            Self::PowerOfTwo(picker) => Some(picker.shares(members)),
            Self::PeakEwma(picker) => picker.shares(members),
            Self::ConsistentHash(picker) => picker.shares(members),
            Self::Other { picker, .. } => {
                let shares = picker.shares(members)?;
                (shares.len() == members.len()).then_some(shares)
            }
        }
    }

    /// The ring, if it is `ConsistentHash`.
    pub(crate) fn as_ring(&self) -> Option<&consistent_hash::Picker> {
        match self {
            Self::ConsistentHash(picker) => Some(picker),
            _ => None,
        }
    }

    /// Whether shares are exact. If so, requests are also split exactly between near and far endpoints.
    pub(crate) fn is_exact(&self) -> bool {
        matches!(self, Self::RoundRobin(_))
    }

    /// The picker as policies see it.
    fn inner(&self) -> &dyn Picker {
        match self {
            Self::Other { picker, .. } => &**picker,
            built_in => built_in,
        }
    }
}

/// For a policy from outside that wraps one of this crate's: `pick` chooses, but doesn't count the request.
impl Picker for AnyPicker {
    fn pick(&self, members: &Members, route: &Route, mut rng: &mut dyn Rng) -> Option<usize> {
        let index = Self::pick(self, members, route, &mut rng)?;
        members.all()[index].end();
        Some(index)
    }

    fn is_load_aware(&self) -> bool {
        match self {
            Self::RoundRobin(_) | Self::Random(_) | Self::ConsistentHash(_) => false,
            Self::LeastConnections(_) | Self::PowerOfTwo(_) | Self::PeakEwma(_) => true,
            Self::Other { picker, .. } => picker.is_load_aware(),
        }
    }

    fn is_keyed(&self, route: &Route) -> bool {
        Self::is_keyed(self, route)
    }

    fn shares(&self, members: &Members) -> Option<Vec<f64>> {
        Self::shares(self, members)
    }
}

impl fmt::Debug for AnyPicker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin(_) => "RoundRobin",
            Self::Random(_) => "Random",
            Self::LeastConnections(_) => "LeastConnections",
            Self::PowerOfTwo(_) => "PowerOfTwo",
            Self::PeakEwma(_) => "PeakEwma",
            Self::ConsistentHash(_) => "ConsistentHash",
            Self::Other { .. } => "Picker",
        })
    }
}
