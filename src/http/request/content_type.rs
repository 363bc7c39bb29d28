//! Whose the `Content-Type` of a request is: its caller's, or that of the body it was given.

use bytes::Bytes;
use http::{
    HeaderValue, Request,
    header::{CONTENT_TYPE, Entry},
};

use crate::http::body::RequestBody;

/// Whose the `Content-Type` of a request in the making is.
#[derive(Clone, Copy, Default)]
pub(super) struct Content {
    /// That of the body that it has, and nothing that its caller has said.
    is_of_body: bool,
}

impl Content {
    /// The body is this one, of this type unless the caller has said another.
    pub(super) fn set(
        &mut self,
        request: &mut Request<RequestBody>,
        is: &'static str,
        body: Bytes,
    ) {
        self.forget(request);
        *request.body_mut() = body.into();
        if let Entry::Vacant(entry) = request.headers_mut().entry(CONTENT_TYPE) {
            entry.insert(HeaderValue::from_static(is));
            self.is_of_body = true;
        }
    }

    /// The body, or its type, will be another.
    pub(super) fn forget(&mut self, request: &mut Request<RequestBody>) {
        if std::mem::take(&mut self.is_of_body) {
            request.headers_mut().remove(CONTENT_TYPE);
        }
    }
}
