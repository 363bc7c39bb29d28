//! The set of a target's pods: those of a name, or the one address that needs no lookup.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;
use tracing::debug;

use super::{
    local::Local,
    lookup::{LookupError, Resolve},
    pod_names::PodNames,
    run::Run,
    settings::Settings,
    target::Host,
};
use crate::{discovery::shared::Source, endpoint::Endpoint};

/// Keeps the set fresh, asking `R`.
pub(super) struct Refresher<R> {
    settings: Settings,
    resolver: R,
    /// Pods that are asked for by name.
    names: PodNames,
    /// None before the first look.
    run: Option<Run<Local<R>>>,
    /// The one endpoint of a target that needs no lookup has been told.
    told: bool,
}

impl<R> Refresher<R> {
    pub(super) fn new(settings: Settings, resolver: R) -> Self {
        Self {
            settings,
            resolver,
            names: PodNames::default(),
            run: None,
            told: false,
        }
    }
}

impl<R: Resolve> Source for Refresher<R> {
    type Error = LookupError;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, LookupError>> {
        let name = match self.settings.target.host() {
            Host::Address(_) if self.told => return Poll::Pending,
            Host::Address(address) => {
                self.told = true;
                return Poll::Ready(Ok(vec![Endpoint::new(*address)]));
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
            debug!(target = %self.settings.target, %error, "lookup failed");
        }
        Poll::Ready(answer)
    }

    fn refresh(&mut self) {
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

    fn wanted(&mut self, pod: &str) {
        if self.names.want(pod, Instant::now()) {
            self.refresh();
        }
    }

    fn renewed(&self) -> Self {
        Self {
            names: self.names.copied(),
            ..Self::new(self.settings.clone(), self.resolver.renewed())
        }
    }

    fn fresh_for(&self) -> Duration {
        match self.settings.target.host() {
            Host::Address(_) => Duration::MAX,
            Host::Name(..) | Host::Service(_) => self.settings.pace.max,
        }
    }
}
