//! What is asked of an API server, whoever asks.

use std::sync::Arc;

use futures_util::{future::BoxFuture, stream::BoxStream};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::error::Reason;

/// Whoever can list and watch the slices of one Service. Nothing is asked before a future is polled.
pub(super) trait Api: Clone + Send + 'static {
    /// All of them, as they are now.
    fn list(&self) -> BoxFuture<'static, Result<Listed, Reason>>;

    /// What happens after `version`. The stream ends when the server ends it, or the connection does.
    fn watch(&self, version: &str) -> BoxFuture<'static, Result<Events, Reason>>;

    /// Who is asked, once that is known.
    fn server(&self) -> Option<Arc<str>> {
        None
    }

    /// The same for another runtime: nothing of it may depend on the one that this has been used in.
    fn renewed(&self) -> Self {
        self.clone()
    }
}

pub(super) struct Listed {
    pub(super) slices: Vec<EndpointSlice>,
    pub(super) version: String,
}

pub(super) type Events = BoxStream<'static, Result<Event, Reason>>;

/// What a watch tells; each with the version that it leads to.
pub(super) struct Event {
    pub(super) what: What,
    pub(super) version: String,
}

pub(super) enum What {
    Applied(EndpointSlice),
    Deleted(EndpointSlice),
    /// Nothing has happened up to here.
    Bookmark,
}
