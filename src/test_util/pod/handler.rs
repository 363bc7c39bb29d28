//! The user's own function for answers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::{Body, Incoming};

use crate::error::BoxError;

/// The body of a pod's answer.
pub(super) type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// The user's function for pods' answers. Clones share it.
#[derive(Clone)]
pub(in crate::test_util) struct Handler(Arc<Respond>);

type Respond = dyn Fn(String, Request<Incoming>) -> BoxFuture<'static, Result<Response<Answer>, BoxError>>
    + Send
    + Sync;

impl Handler {
    pub(in crate::test_util) fn new<F, R, B, E>(respond: F) -> Self
    where
        F: Fn(String, Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move |pod, request| {
            let response = respond(pod, request);
            Box::pin(async move {
                let response = response.await.map_err(Into::into)?;
                Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            })
        }))
    }

    pub(super) fn respond(
        &self,
        pod: &str,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Answer>, BoxError>> {
        (self.0)(pod.to_owned(), request)
    }
}
