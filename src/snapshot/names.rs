//! An index of a set's pods by name, so that a request for one of them needn't search a large set.

use std::cmp::Ordering;

use crate::{endpoint::Endpoint, route::PodName};

/// The index of one set of endpoints by name.
#[derive(Debug)]
pub(super) struct Names {
    /// In the order of names; for one name, terminating endpoints come last.
    places: Box<[Place]>,
    /// The StatefulSet that all numbered pods belong to, if there is one.
    set: Option<Box<str>>,
}

/// A name, and the endpoint that has it.
#[derive(Clone, Copy, Debug)]
struct Place {
    index: usize,
    /// The name is the pod's own, not its hostname.
    is_own: bool,
}

impl Names {
    pub(super) fn of(endpoints: &[Endpoint]) -> Self {
        let both = endpoints.iter().enumerate().flat_map(|(index, endpoint)| {
            let place = |is_own| Place { index, is_own };
            let (hostname, own) = (endpoint.hostname(), endpoint.pod_name());
            let own = own.filter(|_| hostname != own).map(|_| place(true));
            hostname.map(|_| place(false)).into_iter().chain(own)
        });
        let mut places: Box<[_]> = both.collect();
        places.sort_by_cached_key(|place| place.order(endpoints));
        Self {
            places,
            set: set(endpoints).map(Box::from),
        }
    }

    /// The StatefulSet that all numbered pods belong to, if there is one.
    pub(super) fn set(&self) -> Option<&str> {
        self.set.as_deref()
    }

    /// The indices of the endpoints of this name, terminating ones last. `endpoints` has to be the indexed set.
    pub(super) fn indices<'a>(
        &'a self,
        name: PodName<'_>,
        endpoints: &'a [Endpoint],
    ) -> impl Iterator<Item = usize> + use<'a> {
        let before = |place: &Place| place.name(endpoints).cmp(&name);
        let from = self
            .places
            .partition_point(|it| before(it) == Ordering::Less);
        let rest = &self.places[from..];
        let len = rest.partition_point(|it| before(it) == Ordering::Equal);
        rest[..len].iter().map(|place| place.index)
    }
}

impl Place {
    fn name<'a>(&self, endpoints: &'a [Endpoint]) -> PodName<'a> {
        let endpoint = &endpoints[self.index];
        let name = match self.is_own {
            true => endpoint.pod_name(),
            false => endpoint.hostname(),
        };
        name.unwrap_or_default().into()
    }

    fn order<'a>(&self, endpoints: &'a [Endpoint]) -> (PodName<'a>, bool, usize) {
        let terminates = endpoints[self.index].is_terminating();
        (self.name(endpoints), terminates, self.index)
    }
}

/// The StatefulSet that all numbered pods belong to, if there is one.
fn set(endpoints: &[Endpoint]) -> Option<&str> {
    let names = endpoints.iter().filter_map(Endpoint::name);
    let mut sets = names.filter_map(|name| Some(PodName::from(name).stateful()?.0));
    let first = sets.next()?;
    sets.all(|set| set == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::route::PodId;

    fn name() -> impl Strategy<Value = Option<String>> {
        let names = prop::sample::select(vec![
            "web-0", "web-1", "web-2", "web-10", "web-01", "web", "api-1", "",
        ]);
        prop::option::weighted(0.7, names.prop_map(String::from))
    }

    fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
        let endpoint = (name(), name(), any::<bool>());
        prop::collection::vec(endpoint, 0..12).prop_map(|all| {
            let all = all.into_iter().zip(1..);
            all.map(|((hostname, own, terminates), host)| {
                let mut endpoint = Endpoint::new(([10, 0, 0, host], 80).into());
                if let Some(hostname) = hostname {
                    endpoint = endpoint.with_hostname(hostname);
                }
                if let Some(own) = own {
                    endpoint = endpoint.with_pod_name(own);
                }
                endpoint.with_terminating(terminates)
            })
            .collect()
        })
    }

    /// The endpoints of the pod, by linear search.
    fn found(pod: &PodId, endpoints: &[Endpoint]) -> Vec<usize> {
        let Ok(pod) = pod.among(endpoints) else {
            return Vec::new();
        };
        let mut all: Vec<_> = (0..endpoints.len()).collect();
        all.retain(|&index| pod.is(&endpoints[index]));
        all.sort_by_key(|&index| endpoints[index].is_terminating());
        all
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_linear_search_finds(endpoints in endpoints()) {
            let names = Names::of(&endpoints);
            for name in ["web-0", "web-1", "web-10", "web-01", "web", "web-3", "api-1", "zzz"] {
                let indices: Vec<_> = names.indices(name.into(), &endpoints).collect();
                prop_assert_eq!(indices, found(&name.into(), &endpoints), "{}", name);
            }
            for number in [0, 1, 3, 10] {
                let pod = PodId::ordinal(number);
                let name = pod.name_with(names.set()).into_iter();
                let indices: Vec<_> = name.flat_map(|it| names.indices(it, &endpoints)).collect();
                prop_assert_eq!(indices, found(&pod, &endpoints), "{}", number);
            }
        }
    }
}
