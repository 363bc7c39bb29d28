//! Compares two sets of endpoints: which of them joined, left or stayed.
//!
//! Both sets are in the order of [`Endpoint::identity`], without repetitions ([`normalise`]), so one merge compares them:
//! no hashing, no allocation, and one pass over each side.

use std::{cmp::Ordering, collections::HashSet, iter::Peekable, net::SocketAddr, sync::Arc};

use crate::endpoint::Endpoint;

/// What happens to one member of the old set `O` or the new set `N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate<O, N> {
    /// Only the new set has it.
    Joined(N),
    /// Only the old set has it.
    Left(O),
    /// Both sets have it: the old member and the new one are the same pod.
    Stayed(O, N),
}

/// Sorts `set` by identity, and keeps one endpoint of each identity; which one doesn't depend on their order.
pub(crate) fn normalise(mut set: Vec<Endpoint>) -> Vec<Endpoint> {
    set.sort_unstable();
    set.dedup_by_key(|endpoint| endpoint.identity());
    set
}

/// Fills in what was known before of the pods in `set` that stay. Both sets are in the order of identities.
///
/// A hostname isn't filled in if another pod in `set` has it now.
pub(crate) fn recall<'a>(before: impl IntoIterator<Item = &'a Endpoint>, set: &'a mut [Endpoint]) {
    let told = told(set);
    let is_same = |old: &&Endpoint, new: &&mut Endpoint| old.is_same_pod(new);
    let old_key = |old: &&Endpoint| old.identity();
    for fate in compare(before, set, old_key, |new| new.identity(), is_same) {
        if let Fate::Stayed(old, new) = fate
            && new != old
        {
            let is_unnamed = new.hostname().is_none();
            new.recall(old);
            let name = new.hostname().filter(|_| is_unnamed);
            if name.is_some_and(|name| told.contains(name)) {
                new.forget_hostname();
            }
        }
    }
}

/// The hostnames in `set`; empty if all endpoints have one.
fn told(set: &[Endpoint]) -> HashSet<Arc<str>> {
    let is_partial = set.iter().any(|endpoint| endpoint.hostname().is_none());
    let names = set.iter().filter(|_| is_partial);
    names.filter_map(Endpoint::shared_hostname).collect()
}

/// Compares two sets; both have to be in the order of their keys, which don't repeat.
///
/// The fates come in the order of the keys. If one key stands for two different pods, by `is_same`, the old one
/// leaves and then the new one joins.
pub(crate) fn compare<O, N>(
    old: impl IntoIterator<Item = O>,
    new: impl IntoIterator<Item = N>,
    old_key: impl Fn(&O) -> SocketAddr,
    new_key: impl Fn(&N) -> SocketAddr,
    is_same: impl Fn(&O, &N) -> bool,
) -> impl Iterator<Item = Fate<O, N>> {
    let mut old = old.into_iter().peekable();
    let mut new = new.into_iter().peekable();
    std::iter::from_fn(
        move || match side(&mut old, &mut new, &old_key, &new_key)? {
            Ordering::Less => old.next().map(Fate::Left),
            Ordering::Greater => new.next().map(Fate::Joined),
            Ordering::Equal => {
                let (older, newer) = (old.next()?, new.peek()?);
                match is_same(&older, newer) {
                    true => new.next().map(|newer| Fate::Stayed(older, newer)),
                    // The new one isn't taken yet. Its key is the smallest now, so it comes next.
                    false => Some(Fate::Left(older)),
                }
            }
        },
    )
}

/// The side with the smallest key: `Less` is the old one, `Equal` both. `None` at the end of both.
fn side<O, N>(
    old: &mut Peekable<impl Iterator<Item = O>>,
    new: &mut Peekable<impl Iterator<Item = N>>,
    old_key: impl Fn(&O) -> SocketAddr,
    new_key: impl Fn(&N) -> SocketAddr,
) -> Option<Ordering> {
    match (old.peek(), new.peek()) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(old), Some(new)) => Some(old_key(old).cmp(&new_key(new))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn endpoint(host: u8) -> Endpoint {
        Endpoint::new(([10, 0, 0, host], 80).into())
    }

    fn compared<'a>(
        old: &'a [Endpoint],
        new: &'a [Endpoint],
    ) -> Vec<Fate<&'a Endpoint, &'a Endpoint>> {
        let key = |endpoint: &&Endpoint| endpoint.identity();
        compare(old, new, key, key, |old, new| old.is_same_pod(new)).collect()
    }

    /// The fates, by comparing each pair.
    fn naive<'a>(
        old: &'a [Endpoint],
        new: &'a [Endpoint],
    ) -> Vec<Fate<&'a Endpoint, &'a Endpoint>> {
        let mut fates = Vec::new();
        for host in 0..=u8::MAX {
            let is_here =
                |endpoint: &&Endpoint| endpoint.identity() == self::endpoint(host).identity();
            match (old.iter().find(is_here), new.iter().find(is_here)) {
                (None, None) => {}
                (Some(old), None) => fates.push(Fate::Left(old)),
                (None, Some(new)) => fates.push(Fate::Joined(new)),
                (Some(old), Some(new)) if old.is_same_pod(new) => {
                    fates.push(Fate::Stayed(old, new))
                }
                (Some(old), Some(new)) => fates.extend([Fate::Left(old), Fate::Joined(new)]),
            }
        }
        fates
    }

    /// A set in any order, with repetitions and with pods that may be known or unknown by UID.
    fn set() -> impl Strategy<Value = Vec<Endpoint>> {
        let pod = (0..24_u8, proptest::option::of(0..3_u8));
        vec(pod, 0..32).prop_map(|pods| {
            let endpoint = |(host, uid): (u8, Option<u8>)| match uid {
                Some(uid) => endpoint(host).with_pod_uid(uid.to_string()),
                None => endpoint(host),
            };
            pods.into_iter().map(endpoint).collect()
        })
    }

    proptest! {
        #[test]
        fn a_merge_finds_what_comparing_each_pair_finds(old in set(), new in set()) {
            let (old, new) = (normalise(old), normalise(new));
            prop_assert_eq!(compared(&old, &new), naive(&old, &new));
        }

        #[test]
        fn a_normalised_set_is_sorted_whatever_the_order_before(set in set()) {
            let reversed = normalise(set.iter().rev().cloned().collect());
            let normal = normalise(set.clone());
            prop_assert!(normal.is_sorted_by(|a, b| a.identity() < b.identity()));
            prop_assert!(set.iter().all(|it| normal.iter().any(|kept| kept.identity() == it.identity())));
            prop_assert_eq!(normal, reversed);
        }
    }

    #[test]
    fn a_replaced_pod_leaves_before_its_successor_joins() {
        let old = [endpoint(1).with_pod_uid("a"), endpoint(2)];
        let new = [endpoint(1).with_pod_uid("b"), endpoint(2)];
        let expected = [
            Fate::Left(&old[0]),
            Fate::Joined(&new[0]),
            Fate::Stayed(&old[1], &new[1]),
        ];
        assert_eq!(compared(&old, &new), expected);
    }

    #[test]
    fn a_name_stays_known_unless_another_pod_has_it_now() {
        let named = |host, name| endpoint(host).with_hostname(name);
        let before = [named(1, "web-0"), named(2, "web-1"), named(3, "web-2")];
        let recalled = |mut set: Vec<Endpoint>| {
            recall(&before, &mut set);
            let names = set.iter().map(|it| it.hostname().map(str::to_owned));
            names.map(Option::unwrap_or_default).collect::<Vec<_>>()
        };
        let bare = |hosts: &[u8]| hosts.iter().copied().map(endpoint).collect::<Vec<_>>();
        assert_eq!(recalled(bare(&[1, 2, 4])), ["web-0", "web-1", ""]);
        let mut moved = bare(&[1, 2, 3]);
        moved.push(named(4, "web-0"));
        assert_eq!(recalled(moved), ["", "web-1", "web-2", "web-0"]);
        let swapped = vec![named(1, "web-1"), named(2, "web-0")];
        assert_eq!(recalled(swapped), ["web-1", "web-0"]);
    }

    #[test]
    fn a_looked_up_name_is_known_only_while_the_source_reports_it() {
        let looked_up = |host, name: &str| {
            let mut endpoint = endpoint(host);
            endpoint.lease_hostname(name.into());
            endpoint
        };
        let mut set = [endpoint(1)];
        recall(&[looked_up(1, "web-0")], &mut set);
        assert_eq!(set, [endpoint(1)]);
        let told = [endpoint(1).with_hostname("web-0")];
        let mut set = [looked_up(1, "web-0")];
        recall(&told, &mut set);
        assert_eq!(set, told, "it has been told without that");
    }
}
