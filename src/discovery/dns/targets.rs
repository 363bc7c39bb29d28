//! SRV targets' own addresses, asked for one by one: a bounded number of questions.

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

/// How many targets are asked for at most.
pub(super) const MOST: usize = 64;

/// How many of them at a time.
const AT_ONCE: usize = 16;

/// What came of it.
#[derive(Default)]
pub(super) struct Resolved {
    /// Those of the targets that have any.
    pub(super) addresses: HashMap<String, Vec<IpAddr>>,
    pub(super) ttl: Option<Duration>,
    /// Those that may have some more. One that doesn't exist is none of them: its pod has gone.
    pub(super) incomplete: Option<Incomplete>,
}

/// Asks for the addresses of `targets`, which the records of `query` name, until the `deadline`.
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
        // Always the same ones, in whatever order they come.
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
