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

/// The set as it was the last time, with all that was ever learnt of its pods; none before the first.
#[derive(Debug, Default)]
pub(crate) struct Known(Option<Vec<Endpoint>>);

impl Known {
    /// What `set`, in whatever order and with whatever repetitions it comes, changes. The first one always is a change.
    ///
    /// What is learnt of a pod that stays is kept even if nothing else changes: it may tell the next pod at that address
    /// from this one.
    pub(crate) fn update(&mut self, set: Vec<Endpoint>) -> Option<MembershipChange> {
        let mut endpoints = normalise(set);
        let is_first = self.0.is_none();
        let old = self.0.take().unwrap_or_default();
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        let key = |new: &&mut Endpoint| new.identity();
        let is_same = |old: &Endpoint, new: &&mut Endpoint| old.is_same_pod(new);
        for fate in compare(old, &mut endpoints, Endpoint::identity, key, is_same) {
            match fate {
                Fate::Joined(new) => joined.push(new.clone()),
                Fate::Left(old) => left.push(old),
                Fate::Stayed(old, new) => new.recall(&old),
            }
        }
        if !is_first && joined.is_empty() && left.is_empty() {
            self.0 = Some(endpoints);
            return None;
        }
        self.0 = Some(endpoints.clone());
        Some(MembershipChange {
            endpoints,
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

    #[test]
    fn what_is_learnt_late_tells_the_next_pod_from_this_one() {
        let mut known = Known::default();
        let of = |uid: &str| vec![endpoint(1).with_pod_uid(uid)];
        known.update(endpoints([1]));
        assert_eq!(known.update(of("a")), None);
        assert_eq!(
            known.update(endpoints([1])),
            None,
            "an answer that knows less"
        );
        let change = known.update(of("b")).expect("a change");
        assert_eq!((change.joined, change.left), (of("b"), of("a")));
    }
}
