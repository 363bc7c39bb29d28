//! The set of endpoints for those who need the set itself, or another balancer than this crate's.

mod comparison;
mod membership_stream;
mod service_stream;

pub(crate) use comparison::{Fate, compare, normalise};
pub use membership_stream::MembershipStream;
pub use service_stream::ServiceStream;

use crate::endpoint::Endpoint;

/// How the set of endpoints changed since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembershipChange {
    /// All endpoints now, in the order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// Those that were not there before.
    pub joined: Vec<Endpoint>,
    /// Those that are there no more.
    pub left: Vec<Endpoint>,
}

/// The set as it was the last time; none before the first.
#[derive(Debug, Default)]
pub(crate) struct Known(Option<Vec<Endpoint>>);

impl Known {
    /// What `set`, in whatever order and with whatever repetitions it comes, changes. The first one always is a change.
    pub(crate) fn update(&mut self, set: Vec<Endpoint>) -> Option<MembershipChange> {
        let set = normalise(set);
        let old = self.0.as_deref().unwrap_or_default();
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        let identity = |endpoint: &&Endpoint| endpoint.identity();
        for fate in compare(old, &set, identity, identity, |old, new| {
            old.is_same_pod(new)
        }) {
            match fate {
                Fate::Joined(new) => joined.push(new.clone()),
                Fate::Left(old) => left.push(old.clone()),
                Fate::Stayed(..) => {}
            }
        }
        if self.0.is_some() && joined.is_empty() && left.is_empty() {
            return None;
        }
        self.0 = Some(set.clone());
        Some(MembershipChange {
            endpoints: set,
            joined,
            left,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    fn endpoints(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
        hosts.into_iter().map(endpoint).collect()
    }

    #[test]
    fn sets_are_compared_as_sets() {
        let mut known = Known::default();
        let first = known
            .update(endpoints([3, 1, 2, 3]))
            .expect("the first set");
        assert_eq!(first.endpoints, endpoints([1, 2, 3]));
        assert_eq!(first.joined, endpoints([1, 2, 3]));
        assert_eq!(known.update(endpoints([2, 2, 3, 1])), None);
        let second = known.update(endpoints([4, 2, 0])).expect("a change");
        assert_eq!(second.joined, endpoints([0, 4]));
        assert_eq!(second.left, endpoints([1, 3]));
    }

    #[test]
    fn an_empty_first_set_is_news_too() {
        let mut known = Known::default();
        assert!(known.update(Vec::new()).is_some());
        assert!(known.update(Vec::new()).is_none());
    }

    #[test]
    fn another_hostname_is_another_pod_and_an_unknown_one_is_not() {
        let mut known = Known::default();
        let named = |name: &str| vec![endpoint(1).with_hostname(name)];
        known.update(named("web-0"));
        assert_eq!(known.update(endpoints([1])), None);
        let change = known.update(named("web-1")).expect("a change");
        assert_eq!(
            (change.joined, change.left),
            (named("web-1"), named("web-0"))
        );
    }
}
