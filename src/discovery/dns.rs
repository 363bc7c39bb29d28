//! A headless Service's name, resolved to its pods and kept fresh.
//!
//! Each address family is a question of its own, with its own [`Schedule`](super::schedule::Schedule): while one family
//! fails, it keeps its last addresses and the other one goes on. Nothing waits for a request: the questions are asked
//! from the balancer's background task, whether requests come or not.

mod filter;
mod lookup;
mod question;
mod target;

pub use lookup::LookupError;
pub use target::{ParseTargetError, Target};

use std::{
    collections::HashSet,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use tracing::warn;

use self::{
    lookup::{Family, Resolver},
    question::{Look, Lookup, Question},
    target::Host,
};
use super::{
    Discovery,
    schedule::{OnEmpty, Pace},
};
use crate::{endpoint::Endpoint, error::BoxError};

/// The bounds of the bounds: neither a hot loop nor a freeze.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long the first set waits for the other address family (RFC 8305 §3 gives the figure).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Discovery by DNS: the A and AAAA records of a headless Service's name.
///
/// | setting | default |
/// | --- | --- |
/// | [`max_refresh`](Self::max_refresh) | 5 s: ask again after the records' TTL, but no later than this |
/// | [`min_refresh`](Self::min_refresh) | 1 s: never ask more often than this |
/// | [`on_empty`](Self::on_empty) | [`OnEmpty::Confirm`] |
/// | [`prefer_ipv6`](Self::prefer_ipv6) | no: of a dual-stack pod's two addresses the IPv4 one is used |
/// | [`allow_loopback`](Self::allow_loopback) | no |
///
/// The price of freshness is two queries (A and AAAA) every 5 s for each process; 1,000 processes ask 400 queries a
/// second. Where a family's lookup fails, for whatever reason, its last addresses stay, for as long as it takes, and it is
/// asked again after 1 s, 1.6 s, 2.6 s … 30 s.
///
/// Names are taken as fully qualified: `web.default.svc.cluster.local`, not `web`.
///
/// A clone has the same settings and starts anew.
pub struct Dns {
    target: Target,
    pace: Pace,
    prefer_ipv6: bool,
    allow_loopback: bool,
    run: Option<Run>,
}

/// What there is once the first look has begun.
struct Run {
    resolver: Option<Resolver>,
    questions: [Question; 2],
    /// There is a set to tell.
    news: bool,
    /// A set has been told.
    begun: bool,
    /// Runs while the first set waits for the slower family.
    delay: Option<Pin<Box<Sleep>>>,
    /// Addresses that have been warned about.
    rejected: HashSet<IpAddr>,
}

impl Dns {
    /// Discovery of the pods behind `target`. Nothing is asked until a balancer is built with it.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            pace: Pace::default(),
            prefer_ipv6: false,
            allow_loopback: false,
            run: None,
        }
    }

    /// The longest time between two looks while all is well, however long the records' TTL.
    ///
    /// Raise it to save queries, up to a day. A TTL shorter than this is honoured.
    pub fn max_refresh(mut self, max: Duration) -> Self {
        self.pace.max = max.clamp(SHORTEST, LONGEST);
        self.pace.min = self.pace.min.min(self.pace.max);
        self
    }

    /// The shortest time between two looks, however short the TTL and however urgent the need; 10 ms at least.
    pub fn min_refresh(mut self, min: Duration) -> Self {
        self.pace.min = min.clamp(SHORTEST, LONGEST);
        self.pace.max = self.pace.max.max(self.pace.min);
        self
    }

    /// Looks every `interval`, whatever the TTL: both bounds at once.
    pub fn refresh_interval(self, interval: Duration) -> Self {
        self.max_refresh(interval).min_refresh(interval)
    }

    /// What to believe when DNS says that there is nothing.
    pub fn on_empty(mut self, on_empty: OnEmpty) -> Self {
        self.pace.on_empty = on_empty;
        self
    }

    /// Whether to use the IPv6 addresses where there are both.
    pub fn prefer_ipv6(mut self, prefer: bool) -> Self {
        self.prefer_ipv6 = prefer;
        self
    }

    /// Whether loopback addresses may be pods. They can't in a cluster; on a developer's machine they can.
    pub fn allow_loopback(mut self, allow: bool) -> Self {
        self.allow_loopback = allow;
        self
    }
}

impl Clone for Dns {
    fn clone(&self) -> Self {
        Self {
            target: self.target.clone(),
            run: None,
            ..*self
        }
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns")
            .field("target", &self.target)
            .field("pace", &self.pace)
            .field("prefer_ipv6", &self.prefer_ipv6)
            .field("allow_loopback", &self.allow_loopback)
            .finish_non_exhaustive()
    }
}

impl Discovery for Dns {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        let run = self.run.get_or_insert_with(|| Run::new(self.pace));
        let addresses = match self.target.host() {
            Host::Address(_) if run.begun => return Poll::Pending,
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let ask = |resolver: &mut Option<Resolver>, family| {
                    ask(resolver, self.target.name_server(), name, family)
                };
                if let Err(error) = ready!(run.poll(ask, cx)) {
                    warn!(target = %self.target, %error, "lookup failed; the last endpoints stay");
                    return Poll::Ready(Err(error.into()));
                }
                let mut addresses = run.addresses(self.prefer_ipv6).to_vec();
                addresses.retain(|&address| run.is_allowed(address, self.allow_loopback));
                filter::cap(&mut addresses);
                addresses
            }
        };
        run.begun = true;
        let port = self.target.port();
        let endpoints = addresses
            .into_iter()
            .map(|address| Endpoint::new(SocketAddr::new(address, port)));
        Poll::Ready(Ok(endpoints.collect()))
    }

    fn refresh(&mut self) {
        for question in self.run.iter_mut().flat_map(|run| &mut run.questions) {
            question.refresh();
        }
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        if let Some(run) = &mut self.run {
            for question in &mut run.questions {
                run.news |= question.give_up(endpoint.address().ip());
            }
        }
        self.refresh();
    }
}

/// Begins a lookup; the resolver is made at the first one, and again as long as that fails.
fn ask(
    resolver: &mut Option<Resolver>,
    name_server: Option<SocketAddr>,
    name: &str,
    family: Family,
) -> Lookup {
    let made = match resolver {
        Some(resolver) => Ok(resolver.clone()),
        None => Resolver::new(name_server),
    };
    match made {
        Ok(made) => Box::pin(
            resolver
                .insert(made)
                .clone()
                .addresses(name.to_owned(), family),
        ),
        Err(error) => Box::pin(std::future::ready(Err(error))),
    }
}

impl Run {
    fn new(pace: Pace) -> Self {
        Self {
            resolver: None,
            questions: [Family::V4, Family::V6].map(|family| Question::new(family, pace)),
            news: false,
            begun: false,
            delay: None,
            rejected: HashSet::new(),
        }
    }

    /// Waits until there is a set to tell, or an error.
    fn poll(
        &mut self,
        ask: impl Fn(&mut Option<Resolver>, Family) -> Lookup,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LookupError>> {
        for at in 0..self.questions.len() {
            // To the point where it waits for its next turn, so that it will wake this task.
            loop {
                let resolver = &mut self.resolver;
                match self.questions[at].poll(|family| ask(resolver, family), cx) {
                    Poll::Pending => break,
                    Poll::Ready(Look::Kept(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Look::Nothing(error)) if !self.has_addresses() => {
                        return Poll::Ready(Err(error));
                    }
                    // That one family has nothing makes the other's old addresses no fresher.
                    Poll::Ready(Look::Nothing(_)) => {
                        self.news |= !self.questions.iter().any(Question::is_stale);
                    }
                    Poll::Ready(Look::Done) => self.news = true,
                }
            }
        }
        if !self.news {
            return Poll::Pending;
        }
        ready!(self.poll_complete(cx));
        self.news = false;
        Poll::Ready(Ok(()))
    }

    /// Waits until the set can be told. Only the first one may have to wait: for the second family, so that a dual-stack
    /// service does not begin with the family that is not wanted.
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_addresses() {
            if self.begun || self.questions.iter().all(Question::has_looked) {
                return Poll::Ready(());
            }
            let delay = || Box::pin(sleep(RESOLUTION_DELAY));
            return self.delay.get_or_insert_with(delay).as_mut().poll(cx);
        }
        if self.begun || self.questions.iter().all(Question::is_empty) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn has_addresses(&self) -> bool {
        self.questions
            .iter()
            .any(|question| !question.addresses().is_empty())
    }

    /// The preferred family's addresses; the other one's where there are none.
    fn addresses(&self, prefer_ipv6: bool) -> &[IpAddr] {
        let [v4, v6] = &self.questions;
        let (first, second) = if prefer_ipv6 { (v6, v4) } else { (v4, v6) };
        match first.addresses() {
            [] => second.addresses(),
            addresses => addresses,
        }
    }

    fn is_allowed(&mut self, address: IpAddr, allow_loopback: bool) -> bool {
        let Some(why) = filter::reject(address, allow_loopback) else {
            return true;
        };
        // Bounded: a hostile answer can't fill the memory, or the log.
        if self.rejected.len() < 64 && self.rejected.insert(address) {
            let advice = match address.to_canonical().is_loopback() {
                true => "; allow it by `allow_loopback(true)`",
                false => "",
            };
            warn!(%address, "no pod can have this address ({why}){advice}");
        }
        false
    }
}
