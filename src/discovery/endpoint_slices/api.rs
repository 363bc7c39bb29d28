//! What this crate asks of an API server, independent of the client.

use std::sync::Arc;

use futures_util::{future::BoxFuture, stream::BoxStream};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::error::Reason;

/// Lists and watches the slices of one Service. Nothing is asked before a future is polled.
pub(super) trait Api: Clone + Send + 'static {
    /// All slices, as they are now.
    fn list(&self) -> BoxFuture<'static, Result<Listed, Reason>>;

    /// The events after `version`. The stream ends when the server or the connection ends it.
    fn watch(&self, version: &str) -> BoxFuture<'static, Result<Events, Reason>>;

    /// The address of the API server, once it is known.
    fn server(&self) -> Option<Arc<str>> {
        None
    }

    /// A copy for another runtime, independent of the runtimes that this one was used in.
    fn renewed(&self) -> Self {
        self.clone()
    }
}

pub(super) struct Listed {
    pub(super) slices: Vec<EndpointSlice>,
    pub(super) version: String,
}

pub(super) type Events = BoxStream<'static, Result<Event, Reason>>;

/// An event of a watch, with the version that it leads to.
pub(super) struct Event {
    pub(super) what: What,
    pub(super) version: String,
}

pub(super) enum What {
    Applied(EndpointSlice),
    Deleted(EndpointSlice),
    /// Nothing has changed up to this version.
    Bookmark,
}
