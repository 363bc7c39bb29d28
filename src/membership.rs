//! The set of endpoints, for programs that need the set itself or use another balancer.

mod membership_stream;
mod service_stream;

pub use membership_stream::MembershipStream;
pub use service_stream::ServiceStream;

use crate::{
    comparison::{Fate, compare, normalise, recall},
    endpoint::Endpoint,
};

/// How the set of endpoints changed since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembershipChange {
    /// All endpoints now, in the order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// Endpoints that are new.
    pub joined: Vec<Endpoint>,
    /// Endpoints that are gone.
    pub left: Vec<Endpoint>,
}

/// The last set, with everything learnt about its pods so far; none before the first set. Each pod carries a `T` made
/// when it joined.
#[derive(Debug)]
pub(crate) struct Known<T = ()>(Option<Vec<(Endpoint, T)>>);

/// What changed since the last set.
#[derive(Debug)]
pub(crate) struct Change<T> {
    pub(crate) joined: Vec<Endpoint>,
    pub(crate) left: Vec<(Endpoint, T)>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Known<T> {
    /// Takes the new `set`, in any order and with duplicates, and returns what changed. The first set is always a
    /// change.
    ///
    /// News about a pod that stays is stored even if nothing else changes: it may distinguish the next pod at that
    /// address from this one.
    fn update(
        &mut self,
        set: Vec<Endpoint>,
        besides: impl Fn(&Endpoint) -> T,
    ) -> Option<Change<T>> {
        let is_first = self.0.is_none();
        let old = self.0.take().unwrap_or_default();
        let mut set = normalise(set);
        recall(old.iter().map(|(old, _)| old), &mut set);
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        let mut known = Vec::with_capacity(set.len());
        let old_key = |(old, _): &(Endpoint, T)| old.identity();
        let is_same = |(old, _): &(Endpoint, T), new: &Endpoint| old.is_same_pod(new);
        for fate in compare(old, set, old_key, Endpoint::identity, is_same) {
            match fate {
                Fate::Joined(new) => {
                    joined.push(new.clone());
                    let besides = besides(&new);
                    known.push((new, besides));
                }
                Fate::Left(old) => left.push(old),
                Fate::Stayed((_, besides), new) => known.push((new, besides)),
            }
        }
        self.0 = Some(known);
        let is_news = is_first || !joined.is_empty() || !left.is_empty();
        is_news.then_some(Change { joined, left })
    }
}

impl Known {
    /// Takes the new `set` and returns what changed, along with the whole set.
    fn change(&mut self, set: Vec<Endpoint>) -> Option<MembershipChange> {
        let Change { joined, left } = self.update(set, |_| ())?;
        let now = self.0.iter().flatten();
        Some(MembershipChange {
            endpoints: now.map(|(endpoint, ())| endpoint.clone()).collect(),
            joined,
            left: left.into_iter().map(|(endpoint, ())| endpoint).collect(),
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
    fn order_and_duplicates_do_not_matter() {
        let mut known = Known::<()>::default();
        let first = known
            .change(endpoints([3, 1, 2, 3]))
            .expect("the first set");
        assert_eq!(first.endpoints, endpoints([1, 2, 3]));
        assert_eq!(first.joined, endpoints([1, 2, 3]));
        assert_eq!(known.change(endpoints([2, 2, 3, 1])), None);
        let second = known.change(endpoints([4, 2, 0])).expect("a change");
        assert_eq!(second.joined, endpoints([0, 4]));
        assert_eq!(second.left, endpoints([1, 3]));
    }

    #[test]
    fn an_empty_first_set_is_a_change() {
        let mut known = Known::<()>::default();
        assert!(known.change(Vec::new()).is_some());
        assert!(known.change(Vec::new()).is_none());
    }

    #[test]
    fn a_changed_hostname_is_another_pod_but_a_missing_one_is_not() {
        let mut known = Known::<()>::default();
        let named = |name: &str| vec![endpoint(1).with_hostname(name)];
        known.change(named("web-0"));
        assert_eq!(known.change(endpoints([1])), None);
        let change = known.change(named("web-1")).expect("a change");
        assert_eq!(
            (change.joined, change.left),
            (named("web-1"), named("web-0"))
        );
    }

    #[test]
    fn a_uid_learnt_late_distinguishes_the_next_pod_at_the_address() {
        let mut known = Known::<()>::default();
        let of = |uid: &str| vec![endpoint(1).with_pod_uid(uid)];
        known.change(endpoints([1]));
        assert_eq!(known.change(of("a")), None);
        assert_eq!(
            known.change(endpoints([1])),
            None,
            "an answer that knows less"
        );
        let change = known.change(of("b")).expect("a change");
        assert_eq!((change.joined, change.left), (of("b"), of("a")));
    }
}
