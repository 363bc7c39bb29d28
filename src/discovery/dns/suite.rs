//! What discovery by DNS promises, tested under paused time with a scripted resolver.
//!
//! What real servers send, and how hickory parses it, is tested over sockets in `tests/dns.rs` and `tests/servers.rs`.

mod fallback;
mod families;
mod hostile;
mod local;
mod logs;
mod names;
mod own_names;
mod script;
mod services;
mod sharing;
mod single;
mod trouble;

use std::{collections::BTreeSet, future::poll_fn, time::Duration};

use futures_util::future::poll_immediate;
use tokio::time::{Instant, timeout};

pub(crate) use super::lookup::RecordType;
use super::{Dns, OnEmpty, refresher::Refresher};
use crate::{
    discovery::{Discovery, FailureLog, shared::Shared},
    endpoint::Endpoint,
    error::BoxError,
};
pub(crate) use script::{Say, Script, hosts};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Discovery that asks the script.
fn discovery(target: &str, script: &Script) -> Shared<Refresher<Script>> {
    with(Dns::new(target.parse().expect("a target")), script)
}

/// Discovery with the settings of `dns`, that asks the script.
fn with(dns: Dns, script: &Script) -> Shared<Refresher<Script>> {
    Shared::new(Refresher::new(dns.settings, script.clone()))
}

/// [`with`], for the balancer's suite.
pub(crate) fn scripted(dns: Dns, script: &Script) -> impl Discovery + use<> {
    with(dns, script)
}

/// The next answer: a set or an error.
async fn answer(discovery: &mut impl Discovery) -> Result<Vec<Endpoint>, BoxError> {
    let answer = poll_fn(|cx| discovery.poll_next(cx));
    timeout(PATIENCE, answer).await.expect("an answer")
}

/// The next answer that is a set.
async fn set(discovery: &mut impl Discovery) -> Vec<Endpoint> {
    let set = async {
        loop {
            if let Ok(set) = answer(discovery).await {
                return set;
            }
        }
    };
    timeout(PATIENCE, set).await.expect("a set")
}

/// How long it takes until the set is `expected`, whatever comes before. Fails after an hour.
async fn until(discovery: &mut impl Discovery, expected: &[Endpoint]) -> Duration {
    let began = Instant::now();
    let arrival = async { while set(discovery).await != expected {} };
    timeout(PATIENCE, arrival).await.expect("that set");
    began.elapsed()
}

/// The next set that differs from `last`, and how long it took. Fails after an hour.
async fn next(discovery: &mut impl Discovery, last: &[Endpoint]) -> (Vec<Endpoint>, Duration) {
    let began = Instant::now();
    let other = async {
        loop {
            let set = set(discovery).await;
            if set != last {
                return set;
            }
        }
    };
    let set = timeout(PATIENCE, other).await.expect("another set");
    (set, began.elapsed())
}

/// Lets discovery run for `time`.
async fn run(discovery: &mut impl Discovery, time: Duration) {
    let end = Instant::now() + time;
    while tokio::time::timeout_at(end, answer(discovery))
        .await
        .is_ok()
    {}
}

/// How a source's set changes. An error changes nothing, and is logged.
struct Watch<D> {
    source: D,
    failures: FailureLog,
    known: BTreeSet<Endpoint>,
}

struct Change {
    joined: Vec<Endpoint>,
    left: Vec<Endpoint>,
}

impl<D: Discovery> Watch<D> {
    fn new(source: D) -> Self {
        Self {
            source,
            failures: FailureLog::default(),
            known: BTreeSet::new(),
        }
    }

    async fn next(&mut self) -> Change {
        loop {
            let answer = poll_fn(|cx| self.source.poll_next(cx)).await;
            self.failures.note(&answer);
            let Ok(set) = answer.map(BTreeSet::from_iter) else {
                continue;
            };
            let without = |of: &BTreeSet<_>, others| of.difference(others).cloned().collect();
            let (joined, left) = (without(&set, &self.known), without(&self.known, &set));
            let change = Change { joined, left };
            self.known = set;
            if !change.joined.is_empty() || !change.left.is_empty() {
                return change;
            }
        }
    }
}

async fn change(watch: &mut Watch<impl Discovery>) -> Change {
    let change = timeout(PATIENCE, watch.next()).await;
    change.expect("a change")
}
