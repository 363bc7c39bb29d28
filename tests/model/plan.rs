//! What a world is made of, as plain data that can be printed, shrunk and pasted into a test.

use std::fmt;

/// A set of pods, by their numbers from 1 to 6.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hosts(pub(crate) u8);

/// The pods of these numbers.
pub(crate) const fn hosts(numbers: &[u8]) -> Hosts {
    let (mut bits, mut index) = (0, 0);
    while index < numbers.len() {
        bits |= 1 << numbers[index];
        index += 1;
    }
    Hosts(bits)
}

impl Hosts {
    pub(crate) fn contains(self, host: u8) -> bool {
        self.0 & (1 << host) != 0
    }

    pub(crate) fn toggle(self, host: u8) -> Self {
        Self(self.0 ^ (1 << host))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.iter().count()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |&host| self.contains(host))
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hosts(&{:?})", self.iter().collect::<Vec<_>>())
    }
}

/// How a pod behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers 200 at once.
    Well,
    /// It answers after this many milliseconds.
    Slow(u16),
    /// It answers 503 at once.
    Unavailable,
    /// Its service fails with an error of its own.
    Error,
    /// It fails to become ready.
    Refuse,
    /// It becomes ready once its mood changes.
    Stall,
    /// It takes requests and hands them back unsent.
    HandBack,
    /// It takes requests and answers once its mood changes.
    Hang,
    /// It answers 200 at once; the body ends once its mood changes.
    Stream,
    /// It answers 503 at once; the body ends once its mood changes.
    StreamUnavailable,
    /// It answers 200 at once; the body breaks off.
    Break,
    /// Its service panics in `call`.
    Panic,
    /// Its service panics in `poll_ready`.
    PanicInReady,
}

impl Mood {
    /// Whether every request gets an answer or an error at once.
    pub(crate) fn is_prompt(self) -> bool {
        use Mood::*;
        matches!(
            self,
            Well | Unavailable | Error | Stream | StreamUnavailable | Break
        )
    }
}

/// How a request names a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum By {
    /// The one of this name.
    Name,
    /// The one of this number in its StatefulSet.
    Number,
    /// The one at this address.
    Address,
    /// Any but the one of this name.
    OthersByName,
    /// Any but the one at this address.
    OthersByAddress,
}

impl By {
    /// Whether the request is for any pod but this one.
    pub(crate) fn is_others(self) -> bool {
        matches!(self, Self::OthersByName | Self::OthersByAddress)
    }

    pub(crate) fn is_by_address(self) -> bool {
        matches!(self, Self::Address | Self::OthersByAddress)
    }
}

/// What a user does with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Drop,
    /// Reads the body to its end.
    Read,
    /// Holds it, unread, until it is released.
    Keep,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next step comes before other tasks get a turn.
    Rush,
    Advance(u16),
    /// Discovery answers with these pods. A pod that joins is well.
    Set(Hosts),
    /// Another pod takes this one's address. The balancer can see that only if UIDs are told.
    Replace(u8),
    /// The pod at the first address is rescheduled, with its name, to the second one. If a pod is there, the two swap
    /// addresses.
    Reschedule(u8, u8),
    /// From now on discovery reports the pod's UID, or doesn't.
    Uid(u8, bool),
    Weight(u8, u8),
    /// The zone that the pod is in and hinted for: 1 is the client's. Zero: not told.
    Zone(u8, u8),
    SourceFails,
    Behave(u8, Mood),
    Check(u8, bool),
    Send(Hosts, Take),
    /// A request for this pod alone, by its name, number or address; or for any but this one.
    SendTo(By, u8, Take),
    /// A request with this key.
    SendKey(u8, Take),
    /// A request for any pod, without `poll_ready`.
    Call(Take),
    /// This many requests, with this many milliseconds between two of them.
    Traffic(u8, u16, Take),
    /// A request to all pods: how many at once, within how many milliseconds (zero: no limit), and whether also to pods
    /// that join.
    Broadcast(u8, u16, bool),
    /// A running broadcast is dropped.
    DropBroadcast(u8),
    /// A request that is polled this many times and dropped.
    Glance(u8),
    /// A running request is cancelled.
    GiveUp(u8),
    /// A kept response is dropped.
    Release(u8),
    CloneHandle,
    DropHandle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PolicyName {
    RoundRobin,
    Random,
    LeastConnections,
    PowerOfTwo,
    PeakEwma,
    /// Without a load factor.
    ConsistentHash,
    /// With the load factor of `BOUND`.
    BoundedHash,
}

impl PolicyName {
    pub(crate) fn is_keyed(self) -> bool {
        matches!(self, Self::ConsistentHash | Self::BoundedHash)
    }
}

/// Which names discovery reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// The names of the pods, as EndpointSlices do.
    Pods,
    /// The hostnames, as SRV records do.
    Hostnames,
    /// None, as A records do.
    Untold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checks {
    Off,
    On,
    /// With `require_initial_pass`.
    First,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// A ready timeout of this many milliseconds.
    Timeout(u16),
    FailFast,
    Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locality {
    Off,
    Zone,
    PreferZone,
}

/// How a world ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// First all pods become well and all requests end.
    Quiet,
    /// The last handle is dropped while requests run.
    Abrupt,
}

/// Defines the configuration, a plain one, its simplifications, and a `Debug` that shows only what is not plain.
macro_rules! config {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $plain:expr,)*) => {
        /// How the balancer is built.
        #[derive(Clone, Copy, PartialEq)]
        pub(crate) struct Config { $($(#[$doc])* pub(crate) $field: $type,)* }

        impl Config {
            pub(crate) const PLAIN: Self = Self { $($field: $plain,)* };

            /// For each setting, this configuration with the setting from the plain one.
            pub(crate) fn simpler(self) -> Vec<Self> {
                let all = vec![$(Self { $field: Self::PLAIN.$field, ..self },)*];
                all.into_iter().filter(|&simpler| simpler != self).collect()
            }
        }

        impl fmt::Debug for Config {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Config { ")?;
                $(if self.$field != Self::PLAIN.$field {
                    write!(f, "{}: {:?}, ", stringify!($field), self.$field)?;
                })*
                f.write_str("..Config::PLAIN }")
            }
        }
    };
}

config! {
    policy: PolicyName = PolicyName::RoundRobin,
    seed: u64 = 1,
    checks: Checks = Checks::Off,
    /// In milliseconds.
    slow_start: u16 = 0,
    locality: Locality = Locality::Off,
    names: Names = Names::Pods,
    /// How many pods the client uses; all if zero.
    subset: u8 = 0,
    ready: Ready = Ready::Timeout(5_000),
    detection: bool = true,
    failures: u8 = 5,
    /// In milliseconds.
    min_ejection: u16 = 5_000,
    /// In milliseconds.
    max_ejection: u16 = 20_000,
    max_ejected: f64 = 0.5,
    panic_threshold: f64 = 0.5,
    ending: Ending = Ending::Quiet,
}

/// The interval of health checks, in milliseconds; they take two failures, or one success.
pub(crate) const CHECK_INTERVAL: u64 = 300;
/// How long a check may take, in milliseconds.
pub(crate) const CHECK_TIMEOUT: u64 = 100;
/// The load factor, if there is one.
pub(crate) const BOUND: f64 = 1.25;
/// How many keys there are.
pub(crate) const KEYS: u8 = 12;
/// How long each pod has to answer a broadcast, in milliseconds.
pub(crate) const BROADCAST_TIMEOUT: u64 = 3_000;
/// How many failed checks eject.
pub(crate) const CHECK_FAILURES: u32 = 2;
