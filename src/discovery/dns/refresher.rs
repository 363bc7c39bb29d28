//! Keeps the set of a target's pods fresh: those of a name, or one address, which needs no lookup.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    local::Local,
    lookup::{LookupError, Resolve},
    pod_names::PodNames,
    run::Run,
    settings::Settings,
    target::Host,
};
use crate::{
    discovery::{Discovery, DiscoveryReport, StaticEndpoints, shared::Source},
    endpoint::Endpoint,
    logs::{DISCOVERY, Line, debug, here},
};

/// A target's set, kept fresh by asking `R`.
pub(super) struct Refresher<R> {
    settings: Settings,
    resolver: R,
    /// The pods that requests ask for by name.
    names: PodNames,
    /// None before the first look.
    run: Option<Run<Local<R>>>,
    /// The endpoint of a target that is an address; otherwise empty.
    literal: StaticEndpoints,
}

impl<R> Refresher<R> {
    pub(super) fn new(settings: Settings, resolver: R) -> Self {
        let literal = match settings.target.host() {
            Host::Address(address) => Some(*address),
            Host::Name(..) | Host::Service(_) => None,
        };
        Self {
            settings,
            resolver,
            names: PodNames::default(),
            run: None,
            literal: StaticEndpoints::new(literal),
        }
    }
}

impl<R: Resolve> Source for Refresher<R> {
    type Error = LookupError;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, LookupError>> {
        let name = match self.settings.target.host() {
            Host::Address(_) => {
                let set = self.literal.next();
                return set.map_or(Poll::Pending, |set| Poll::Ready(Ok(set)));
            }
            Host::Name(name, _) | Host::Service(name) => name,
        };
        let run = || {
            let hosts_file = self.settings.hosts_file.clone();
            let resolver = Local::new(self.resolver.clone(), hosts_file, name);
            Run::new(&self.settings, name.clone(), self.names.clone(), resolver)
        };
        let run = self.run.get_or_insert_with(run);
        let answer = ready!(run.poll_next(cx));
        if let Err(error) = &answer {
            debug!(DISCOVERY, here(), target = %self.settings.target, error = %Line(error), "lookup failed");
        }
        Poll::Ready(answer)
    }

    fn refresh(&mut self) {
        self.literal.refresh();
        if let Some(run) = &mut self.run {
            run.refresh();
        }
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        if let Some(run) = &mut self.run {
            run.refused(endpoint);
        }
    }

    fn accepted(&mut self, endpoint: &Endpoint) {
        if let Some(run) = &mut self.run {
            run.accepted(endpoint);
        }
    }

    fn wanted(&mut self, pod: &str) -> bool {
        if matches!(self.settings.target.host(), Host::Address(_)) {
            return false;
        }
        if self.names.want(pod, Instant::now())
            && let Some(run) = &mut self.run
        {
            run.want();
        }
        true
    }

    fn report(&self) -> DiscoveryReport {
        let mut report = DiscoveryReport::new("dns");
        if let Some(run) = &self.run {
            run.report(&mut report);
        }
        report
    }

    fn renewed(&self) -> Self {
        Self {
            names: self.names.copied(),
            ..Self::new(self.settings.clone(), self.resolver.renewed())
        }
    }

    fn fresh_for(&self) -> Option<Duration> {
        match self.settings.target.host() {
            Host::Address(_) => None,
            Host::Name(..) | Host::Service(_) => Some(self.settings.pace.max),
        }
    }
}
