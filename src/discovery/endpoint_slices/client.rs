//! Asks the API server with kube's client.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, TryFutureExt, future::BoxFuture};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api as Kube, Client, Error, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use rand::RngExt;
use tokio::time::Instant;

use super::{
    api::{Api, Event, Events, Listed, What},
    config::{self, Made},
    cryptography::is_tls,
    error::Reason,
    rbac::Forbidden,
    settings::{Access, Settings},
};
use crate::{error::chain, sync::Mutex};

/// How long a watch lasts, in seconds, until the API server ends it. kube allows at most 295. It is random, so that
/// clients started together don't reopen together.
const WATCH_SECONDS: std::ops::RangeInclusive<u32> = 220..=290;

/// The slices of one Service, read with one client, which is made when it is first needed.
#[derive(Clone)]
pub(super) struct ApiServer {
    settings: Arc<Settings>,
    made: Arc<Mutex<Option<Made>>>,
    /// The last client's API server; it stays while there is no client.
    server: Arc<Mutex<Option<Arc<str>>>>,
}

impl ApiServer {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            made: Arc::default(),
            server: Arc::default(),
        }
    }

    async fn slices(&self) -> Result<Slices, Reason> {
        let client = self.client().await?;
        let namespace = self.settings.target.namespace();
        let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
        Ok(Slices {
            api: Kube::namespaced(client, &namespace),
            label: format!(
                "kubernetes.io/service-name={}",
                self.settings.target.service()
            ),
            namespace,
        })
    }

    async fn client(&self) -> Result<Client, Reason> {
        if let Access::Client(client) = &self.settings.access {
            return Ok(client.clone());
        }
        if let Some(made) = &*self.made.lock()
            && made.good_until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(made.client.clone());
        }
        let made = config::client(&self.settings.access).await?;
        *self.server.lock() = made.server.clone();
        *self.made.lock() = Some(made.clone());
        Ok(made.client)
    }

    /// Drops the client if its credentials were rejected, or TLS failed because a certificate or an authority has
    /// changed. The next one reads them anew.
    fn drop_rejected(&self, reason: &Reason) {
        if matches!(reason, Reason::Unauthorized(_) | Reason::Tls(_)) {
            *self.made.lock() = None;
        }
    }
}

impl Api for ApiServer {
    fn list(&self) -> BoxFuture<'static, Result<Listed, Reason>> {
        let this = self.clone();
        let list = async move { this.slices().await?.list().await };
        let this = self.clone();
        list.inspect_err(move |reason| this.drop_rejected(reason))
            .boxed()
    }

    fn watch(&self, version: &str) -> BoxFuture<'static, Result<Events, Reason>> {
        let (this, version) = (self.clone(), version.to_owned());
        let watch = async move { this.slices().await?.watch(&version).await };
        let this = self.clone();
        watch
            .inspect_err(move |reason| this.drop_rejected(reason))
            .boxed()
    }

    fn server(&self) -> Option<Arc<str>> {
        self.server.lock().clone()
    }

    /// Drops the client, because kube's client has a task and connections in the runtime that it was made in.
    fn renewed(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            made: Arc::default(),
            server: Arc::default(),
        }
    }
}

/// The slices of one Service, as kube asks for them.
struct Slices {
    api: Kube<EndpointSlice>,
    label: String,
    namespace: String,
}

impl Slices {
    async fn list(self) -> Result<Listed, Reason> {
        // Without limit and version, the server answers from its cache, but only once that is up to date (KEP-2340).
        let mut params = ListParams::default().labels(&self.label);
        let mut slices = Vec::new();
        loop {
            let list = self.api.list(&params).await;
            let list = list.map_err(|error| reason(error, &self.namespace))?;
            slices.extend(list.items);
            // A server may answer page by page unasked.
            let rest = list.metadata.continue_;
            if let Some(rest) = rest.filter(|token| !token.is_empty()) {
                params = params.continue_token(&rest);
                continue;
            }
            let version = known(list.metadata.resource_version)?;
            return Ok(Listed { slices, version });
        }
    }

    async fn watch(self, version: &str) -> Result<Events, Reason> {
        let seconds = rand::rng().random_range(WATCH_SECONDS);
        let params = WatchParams::default().labels(&self.label).timeout(seconds);
        let Self { api, namespace, .. } = self;
        let events = api.watch(&params, version).await;
        let events = events.map_err(|error| reason(error, &namespace))?;
        let events = events.map(move |event| match event {
            Ok(event) => to_event(event, &namespace),
            Err(error) => Err(reason(error, &namespace)),
        });
        Ok(events.boxed())
    }
}

fn to_event(event: WatchEvent<EndpointSlice>, namespace: &str) -> Result<Event, Reason> {
    let version_of = |slice: &EndpointSlice| known(slice.resource_version());
    let (version, what) = match event {
        WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
            (version_of(&slice)?, What::Applied(slice))
        }
        WatchEvent::Deleted(slice) => (version_of(&slice)?, What::Deleted(slice)),
        WatchEvent::Bookmark(bookmark) => {
            let version = known(Some(bookmark.metadata.resource_version))?;
            (version, What::Bookmark)
        }
        WatchEvent::Error(status) => return Err(refusal(&status, namespace)),
    };
    Ok(Event { what, version })
}

/// The version of an answer, which must be there: a watch without one, or from an empty one, begins anywhere, and would
/// miss what was deleted before.
fn known(version: Option<String>) -> Result<String, Reason> {
    let version = version.filter(|version| !version.is_empty());
    let missing = || Reason::Transport("an answer without metadata.resourceVersion".to_owned());
    version.ok_or_else(missing)
}

fn reason(error: Error, namespace: &str) -> Reason {
    match error {
        Error::Api(status) => refusal(&status, namespace),
        error if is_tls(&error) => Reason::Tls(chain(&error)),
        error => Reason::Transport(chain(&error)),
    }
}

fn refusal(status: &Status, namespace: &str) -> Reason {
    let message = status.message.clone();
    match (status.code, &*status.reason) {
        (410, _) | (_, "Expired" | "Gone") => Reason::Expired,
        (401, _) => Reason::Unauthorized(message),
        (403, _) => Reason::Forbidden(Forbidden::new(namespace, &message)),
        (429, _) => {
            let details = status.details.as_ref();
            let seconds = details.map(|details| details.retry_after_seconds.into());
            let pause = seconds.map(Duration::from_secs);
            Reason::Throttled { message, pause }
        }
        (code, _) => Reason::Status { code, message },
    }
}
