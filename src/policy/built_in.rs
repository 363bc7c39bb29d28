//! The policies of this crate as one type, for a choice at run time.

use std::{any::Any, fmt, str::FromStr, time::Duration};

use rand::Rng;

use super::{
    AnyPicker, ConsistentHash, LeastConnections, PeakEwma, Picker, Policy, PowerOfTwo, Previous,
    Random, Reads, RoundRobin, consistent_hash, least_connections, peak_ewma, power_of_two, random,
    round_robin,
};
use crate::member::Members;

/// Any policy of this crate, for a choice at run time, such as from a configuration.
///
/// | text | policy |
/// | --- | --- |
/// | `round-robin` | [`RoundRobin`] |
/// | `random` | [`Random`] |
/// | `least-connections` | [`LeastConnections`] |
/// | `power-of-two` | [`PowerOfTwo`] |
/// | `peak-ewma` | [`PeakEwma`], with its default decay |
/// | `consistent-hash` | [`ConsistentHash`], with its default load factor and names |
///
/// Parsing ignores case, and takes `_` for `-`. `Display` writes the text of the table.
///
/// ```
/// use tower_headless::{Balance, BuiltInPolicy, Endpoint, StaticEndpoints};
///
/// let policy: BuiltInPolicy = "least-connections".parse()?;
/// let balance = Balance::builder(StaticEndpoints::new([]))
///     .policy(policy)
///     .build(|endpoint: &Endpoint| endpoint.address());
/// # Ok::<(), tower_headless::ParsePolicyError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BuiltInPolicy {
    /// Each endpoint in turn.
    RoundRobin(RoundRobin),
    /// Any endpoint.
    Random(Random),
    /// The endpoint with the fewest requests in flight.
    LeastConnections(LeastConnections),
    /// The one of two random endpoints that has fewer requests in flight.
    PowerOfTwo(PowerOfTwo),
    /// The one of two random endpoints that answers sooner.
    PeakEwma(PeakEwma),
    /// The endpoint of the request's key.
    ConsistentHash(ConsistentHash),
}

/// The error of text that names no policy of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a policy: use {names}", names = names())]
pub struct ParsePolicyError(String);

/// All names, as `a, b or c`.
fn names() -> String {
    let [others @ .., last] = BuiltInPolicy::all().map(|policy| policy.name());
    format!("{} or {last}", others.join(", "))
}

impl BuiltInPolicy {
    /// Each policy, with its defaults.
    fn all() -> [Self; 6] {
        [
            RoundRobin::new().into(),
            Random::new().into(),
            LeastConnections::new().into(),
            PowerOfTwo::new().into(),
            PeakEwma::new().into(),
            ConsistentHash::new().into(),
        ]
    }

    pub(super) fn reads(&self) -> Reads {
        match self {
            Self::RoundRobin(_) | Self::Random(_) => Reads::Nothing,
            Self::ConsistentHash(policy) if policy.is_bounded() => Reads::All,
            Self::ConsistentHash(_) => Reads::Nothing,
            Self::PowerOfTwo(_) | Self::PeakEwma(_) => Reads::Few,
            Self::LeastConnections(_) => Reads::All,
        }
    }

    pub(super) fn picker(
        &self,
        members: &Members,
        previous: Option<Previous<'_>>,
        rng: &mut impl Rng,
    ) -> AnyPicker {
        let weights = members.weights();
        match self {
            Self::RoundRobin(_) => {
                let picker = round_robin::Picker::new(members.len(), weights, previous, rng);
                AnyPicker::RoundRobin(picker)
            }
            Self::Random(_) => AnyPicker::Random(random::Picker::new(weights)),
            Self::LeastConnections(_) => {
                AnyPicker::LeastConnections(least_connections::Picker::new(weights))
            }
            Self::PowerOfTwo(_) => AnyPicker::PowerOfTwo(power_of_two::Picker::new(weights)),
            Self::PeakEwma(_) => AnyPicker::PeakEwma(peak_ewma::Picker::new(weights)),
            Self::ConsistentHash(policy) => {
                AnyPicker::ConsistentHash(consistent_hash::Picker::new(policy, members, previous))
            }
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin(_) => "round-robin",
            Self::Random(_) => "random",
            Self::LeastConnections(_) => "least-connections",
            Self::PowerOfTwo(_) => "power-of-two",
            Self::PeakEwma(_) => "peak-ewma",
            Self::ConsistentHash(_) => "consistent-hash",
        }
    }
}

impl Policy for BuiltInPolicy {
    fn prepare(
        &self,
        members: &Members,
        previous: Option<Previous<'_>>,
        mut rng: &mut dyn Rng,
    ) -> Box<dyn Picker> {
        Box::new(self.picker(members, previous, &mut rng))
    }

    fn latency_decay(&self) -> Option<Duration> {
        match self {
            Self::PeakEwma(policy) => Some(policy.decay_time()),
            _ => None,
        }
    }
}

impl fmt::Display for BuiltInPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BuiltInPolicy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let name = text.trim().to_ascii_lowercase().replace('_', "-");
        let named = Self::all().into_iter().find(|policy| policy.name() == name);
        named.ok_or_else(|| ParsePolicyError(text.to_owned()))
    }
}

/// Implements [`Policy`] for the policies of this crate, through [`BuiltInPolicy`].
macro_rules! built_in {
    ($($policy:ident),*) => { $(
        impl From<$policy> for BuiltInPolicy {
            fn from(policy: $policy) -> Self {
                Self::$policy(policy)
            }
        }

        impl Policy for $policy {
            fn prepare(
                &self,
                members: &Members,
                previous: Option<Previous<'_>>,
                rng: &mut dyn Rng,
            ) -> Box<dyn Picker> {
                BuiltInPolicy::from(self.clone()).prepare(members, previous, rng)
            }

            fn latency_decay(&self) -> Option<Duration> {
                BuiltInPolicy::from(self.clone()).latency_decay()
            }
        }
    )*

        impl BuiltInPolicy {
            /// The policy of this crate that `policy` is, if it is one.
            pub(super) fn of(policy: &dyn Any) -> Option<Self> {
                let itself = policy.downcast_ref::<Self>().cloned();
                let boxed = policy.downcast_ref::<Box<dyn Policy>>();
                itself
                    $(.or_else(|| policy.downcast_ref::<$policy>().map(|policy| policy.clone().into())))*
                    .or_else(|| Self::of(&**boxed?))
            }
        }
    };
}

built_in!(
    RoundRobin,
    Random,
    LeastConnections,
    PowerOfTwo,
    PeakEwma,
    ConsistentHash
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_parsed_from_what_display_writes() {
        let error = "fastest"
            .parse::<BuiltInPolicy>()
            .expect_err("none of these")
            .to_string();
        assert!(error.starts_with("\"fastest\" is not a policy: use "));
        for name in [
            "round-robin",
            "random",
            "least-connections",
            "power-of-two",
            "peak-ewma",
            "consistent-hash",
        ] {
            let policy: BuiltInPolicy = name.parse().expect("a policy");
            assert_eq!(policy.to_string(), name);
            assert!(error.contains(name), "{error}");
        }
        let policy: BuiltInPolicy = " Least_Connections ".parse().expect("a policy");
        assert_eq!(policy.to_string(), "least-connections");
        let boxed: Box<dyn Policy> = Box::new(policy);
        assert!(BuiltInPolicy::of(&boxed).is_some(), "however it is wrapped");
    }

    #[test]
    fn the_error_for_an_unknown_name_lists_all_policies() {
        let error = "fastest".parse::<BuiltInPolicy>().expect_err("no policy");
        assert_eq!(
            error.to_string(),
            "\"fastest\" is not a policy: use round-robin, random, least-connections, power-of-two, peak-ewma or \
             consistent-hash"
        );
    }
}
