//! The head of a request, kept so that the request can be sent again.

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, uri::PathAndQuery};

use super::body::{PodRequest, RequestBody};

/// A copy of the request, if its body can be copied.
pub(super) fn again(request: &PodRequest) -> Option<PodRequest> {
    Some(KeptHead::of(request).with(request.body().again()?))
}

/// Most requests have one, and few are sent again, so a part that a request doesn't have must cost nothing.
pub(super) struct KeptHead {
    method: Method,
    target: KeptUri,
    version: Version,
    /// None if there are no headers.
    headers: Option<HeaderMap>,
    extensions: Extensions,
}

enum KeptUri {
    Path(PathAndQuery),
    Whole(Uri),
}

impl KeptHead {
    // Otherwise it would be copied once more on its way into its box.
    #[inline(always)]
    pub(super) fn of(request: &PodRequest) -> Self {
        let headers = request.headers();
        Self {
            method: request.method().clone(),
            target: KeptUri::of(request.uri()),
            version: request.version(),
            headers: (!headers.is_empty()).then(|| headers.clone()),
            extensions: match request.extensions().is_empty() {
                true => Extensions::new(),
                false => request.extensions().clone(),
            },
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
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

impl KeptUri {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u8);

    fn assert_kept(request: &PodRequest) {
        let again = KeptHead::of(request).with(RequestBody::EMPTY);
        assert_eq!(again.method(), request.method());
        assert_eq!(again.uri(), request.uri());
        assert_eq!(again.version(), request.version());
        assert_eq!(again.headers(), request.headers());
        let mark = |request: &PodRequest| request.extensions().get::<Mark>().cloned();
        assert_eq!(mark(&again), mark(request));
    }

    #[test]
    fn a_kept_head_restores_every_part_of_its_request() {
        for target in ["/", "/a?b=c", "*", "http://nginx/a?b", "nginx:80"] {
            let mut request = Request::new(RequestBody::EMPTY);
            *request.uri_mut() = target.parse().expect("a URI");
            assert_kept(&request);
            *request.method_mut() = Method::PUT;
            *request.version_mut() = Version::HTTP_2;
            for value in ["1", "2"] {
                let value = value.parse().expect("a value");
                request.headers_mut().append("x-kept", value);
            }
            request.extensions_mut().insert(Mark(3));
            assert_kept(&request);
        }
    }
}
