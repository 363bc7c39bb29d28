//! Whether a request's `Content-Type` was set by its caller or by its body.

use bytes::Bytes;
use http::{
    HeaderValue, Request,
    header::{CONTENT_TYPE, Entry},
};

use crate::http::body::RequestBody;

/// Who has set the `Content-Type` of a request that is being built.
#[derive(Clone, Copy, Default)]
pub(super) struct Content {
    /// Whether the body has set it, and not the caller.
    is_of_body: bool,
}

impl Content {
    /// Sets this body, and its type unless the caller has set one.
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

    /// Removes a type that the previous body has set, because the body or its type changes.
    pub(super) fn forget(&mut self, request: &mut Request<RequestBody>) {
        if std::mem::take(&mut self.is_of_body) {
            request.headers_mut().remove(CONTENT_TYPE);
        }
    }
}
