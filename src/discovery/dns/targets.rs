//! Looks up SRV targets' addresses one by one, with a bounded number of questions.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    addresses::{Addresses, either},
    lookup::{Answer, Family, Incomplete, LookupError, Query, Reason, Resolve, Transport},
};

/// The most targets that are asked for.
pub(super) const MOST: usize = 64;

/// How many are asked for at a time.
const AT_ONCE: usize = 16;

/// What the lookups found.
#[derive(Default)]
pub(super) struct Resolved {
    /// The addresses, by target.
    pub(super) addresses: HashMap<String, Vec<IpAddr>>,
    pub(super) ttl: Option<Duration>,
    /// The targets that weren't asked for, or whose lookup failed. A target that doesn't exist isn't among them: its
    /// pod is gone.
    pub(super) incomplete: Option<Incomplete>,
}

/// Looks up the addresses of `targets`, which come from the records of `query`, by the `deadline`.
pub(super) async fn resolve<R: Resolve>(
    resolver: &R,
    query: &Query,
    mut targets: Vec<Arc<str>>,
    family: Family,
    deadline: Instant,
) -> Resolved {
    let mut resolved = Resolved::default();
    if targets.len() > MOST {
        let reason = Reason::ManyTargets(targets.len(), MOST);
        // Sorted by hash, so that the same ones are asked for each time, whatever their order.
        targets.sort_by_cached_key(|target| hash(target));
        resolved.incomplete = Some(Incomplete {
            targets: targets.split_off(MOST),
            error: LookupError::new(query, reason),
        });
    }
    let ask = |target: Arc<str>| async move {
        let answer = either(resolver, target.clone(), family, Transport::Udp, deadline).await;
        (target, answer)
    };
    let mut answers = stream::iter(targets).map(ask).buffer_unordered(AT_ONCE);
    while let Some((target, answer)) = answers.next().await {
        resolved.take(target, answer);
    }
    resolved
}

impl Resolved {
    fn take(&mut self, target: Arc<str>, answer: Answer<Addresses>) {
        match answer {
            Ok(Ok(found)) => {
                let ttls = [self.ttl, Some(found.ttl)].into_iter().flatten();
                self.ttl = ttls.min();
                self.addresses.insert(target.to_string(), found.addresses);
            }
            Ok(Err(_)) => {}
            Err(error) => {
                let targets = self.incomplete.take().map(|before| before.targets);
                let mut targets = targets.unwrap_or_default();
                targets.push(target);
                self.incomplete = Some(Incomplete { targets, error });
            }
        }
    }
}

fn hash(target: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    hasher.finish()
}
