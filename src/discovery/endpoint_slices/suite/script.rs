//! A scripted API server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::unfold};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    discovery::endpoint_slices::{
        api::{Api, Event, Events, Listed, What},
        error::Reason,
    },
    endpoint::Endpoint,
    sync::Mutex,
};

/// How long the server takes to answer.
const LATENCY: Duration = Duration::from_millis(1);

/// A request that the server got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    List,
    Watch(u64),
}

/// The server. Clones share its state.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    slices: BTreeMap<String, EndpointSlice>,
    version: u64,
    refuse_list: Option<Reason>,
    refuse_watch: Option<Reason>,
    silent: bool,
    asked: Vec<(Asked, Instant)>,
    watch: Option<mpsc::UnboundedSender<Result<Event, Reason>>>,
}

/// The endpoints that sets have here: addresses, and that they aren't terminating.
pub(super) fn hosts(hosts: impl IntoIterator<Item = u8>) -> Vec<Endpoint> {
    let endpoint = |host| Endpoint::new(([10, 0, 0, host], 80).into()).with_terminating(false);
    hosts.into_iter().map(endpoint).collect()
}

/// A slice whose addresses begin with `prefix`.
fn slice(
    name: &str,
    prefix: &str,
    hosts: impl IntoIterator<Item = u8>,
    version: u64,
) -> EndpointSlice {
    let endpoint = |host: u8| json!({"addresses": [format!("{prefix}{host}")]});
    let endpoints: Vec<_> = hosts.into_iter().map(endpoint).collect();
    let slice = json!({
        "metadata": {"name": name, "resourceVersion": version.to_string()},
        "addressType": if prefix.contains(':') { "IPv6" } else { "IPv4" },
        "ports": [{"name": "http", "port": 80}],
        "endpoints": endpoints,
    });
    serde_json::from_value(slice).expect("a slice")
}

impl Script {
    /// Gives a slice these pods, and tells the watch.
    pub(crate) fn slice(&self, name: &str, hosts: impl IntoIterator<Item = u8>) {
        self.slice_at(name, "10.0.0.", hosts);
    }

    /// Gives a slice these pods by their IPv6 addresses, and tells the watch.
    pub(super) fn slice_v6(&self, name: &str, hosts: impl IntoIterator<Item = u8>) {
        self.slice_at(name, "fd00::", hosts);
    }

    /// Gives a slice these pods, by addresses that begin with `prefix`, and tells the watch.
    pub(super) fn slice_at(&self, name: &str, prefix: &str, hosts: impl IntoIterator<Item = u8>) {
        let mut state = self.0.lock();
        state.version += 1;
        let slice = slice(name, prefix, hosts, state.version);
        state.slices.insert(name.to_owned(), slice.clone());
        state.tell(What::Applied(slice));
    }

    /// Gives a slice these pods, without telling the watch.
    pub(super) fn slice_unheard(&self, name: &str, hosts: impl IntoIterator<Item = u8>) {
        let watch = self.0.lock().watch.take();
        self.slice(name, hosts);
        self.0.lock().watch = watch;
    }

    pub(super) fn delete(&self, name: &str) {
        let mut state = self.0.lock();
        state.version += 1;
        let slice = state.slices.remove(name).expect("such a slice");
        state.tell(What::Deleted(slice));
    }

    pub(crate) fn bookmark(&self) {
        let mut state = self.0.lock();
        state.version += 10;
        state.tell(What::Bookmark);
    }

    /// Makes every list fail from now on, or none.
    pub(super) fn refuse_lists(&self, reason: Option<Reason>) {
        self.0.lock().refuse_list = reason;
    }

    /// Makes every watch fail to open from now on, or none.
    pub(super) fn refuse_watches(&self, reason: Option<Reason>) {
        self.0.lock().refuse_watch = reason;
    }

    /// Makes the server answer nothing any more, or everything.
    pub(crate) fn silent(&self, silent: bool) {
        self.0.lock().silent = silent;
    }

    /// Makes the open watch fail.
    pub(super) fn fail(&self, reason: Reason) {
        let watch = self.0.lock().watch.take().expect("a watch");
        watch.send(Err(reason)).expect("somebody watches");
    }

    /// Ends the open watch.
    pub(super) fn end(&self) {
        assert!(self.0.lock().watch.take().is_some(), "a watch");
    }

    /// The requests since the last call.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let asked = self.asked_at();
        asked.into_iter().map(|(asked, _)| asked).collect()
    }

    pub(super) fn asked_at(&self) -> Vec<(Asked, Instant)> {
        std::mem::take(&mut self.0.lock().asked)
    }

    /// Answers a request after the latency, unless the server is silent.
    async fn answer<T>(
        &self,
        answer: impl FnOnce(&mut State) -> Result<T, Reason>,
    ) -> Result<T, Reason> {
        sleep(LATENCY).await;
        if self.0.lock().silent {
            std::future::pending::<()>().await;
        }
        answer(&mut self.0.lock())
    }

    fn ask(&self, asked: Asked) {
        self.0.lock().asked.push((asked, Instant::now()));
    }
}

impl State {
    fn tell(&mut self, what: What) {
        let event = Event {
            what,
            version: self.version.to_string(),
        };
        if let Some(watch) = &self.watch {
            // The send fails if the client has dropped the watch.
            let _ = watch.send(Ok(event));
        }
    }

    fn list(&mut self) -> Result<Listed, Reason> {
        match &self.refuse_list {
            Some(reason) => Err(reason.clone()),
            None => Ok(Listed {
                slices: self.slices.values().cloned().collect(),
                version: self.version.to_string(),
            }),
        }
    }

    fn watch(&mut self) -> Result<Events, Reason> {
        if let Some(reason) = &self.refuse_watch {
            return Err(reason.clone());
        }
        let (sender, events) = mpsc::unbounded_channel();
        self.watch = Some(sender);
        let next = |mut events: mpsc::UnboundedReceiver<_>| async {
            events.recv().await.map(|event| (event, events))
        };
        Ok(unfold(events, next).boxed())
    }
}

impl Api for Script {
    fn list(&self) -> BoxFuture<'static, Result<Listed, Reason>> {
        self.ask(Asked::List);
        let script = self.clone();
        Box::pin(async move { script.answer(State::list).await })
    }

    fn watch(&self, version: &str) -> BoxFuture<'static, Result<Events, Reason>> {
        self.ask(Asked::Watch(version.parse().expect("a version")));
        let script = self.clone();
        Box::pin(async move { script.answer(State::watch).await })
    }
}
