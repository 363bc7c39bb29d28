//! The head of a request, kept so that the request can be sent again.

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, uri::PathAndQuery};

use super::body::{PodRequest, RequestBody};

/// Nearly every request has a copy of its own, which nobody asks for: what requests don't have costs nothing in it.
pub(super) struct KeptHead {
    method: Method,
    target: Target,
    version: Version,
    /// None where there are none.
    headers: Option<HeaderMap>,
    extensions: Extensions,
}

enum Target {
    Path(PathAndQuery),
    Whole(Uri),
}

impl KeptHead {
    #[inline]
    pub(super) fn of(request: &PodRequest) -> Self {
        let headers = request.headers();
        Self {
            method: request.method().clone(),
            target: Target::of(request.uri()),
            version: request.version(),
            headers: (!headers.is_empty()).then(|| headers.clone()),
            extensions: match request.extensions().is_empty() {
                true => Extensions::new(),
                false => request.extensions().clone(),
            },
        }
    }

    /// The request again, with this body.
    pub(super) fn with(&self, body: RequestBody) -> PodRequest {
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.method);
        *request.uri_mut() = self.target.uri();
        *request.version_mut() = self.version;
        if let Some(headers) = &self.headers {
            request.headers_mut().clone_from(headers);
        }
        request.extensions_mut().clone_from(&self.extensions);
        request
    }
}

impl Target {
    #[inline]
    fn of(uri: &Uri) -> Self {
        match (uri.scheme(), uri.authority(), uri.path_and_query()) {
            (None, None, Some(path)) => Self::Path(path.clone()),
            _ => Self::Whole(uri.clone()),
        }
    }

    fn uri(&self) -> Uri {
        match self {
            Self::Path(path) => path.clone().into(),
            Self::Whole(uri) => uri.clone(),
        }
    }
}
