//! Clients whose requests an application's own tests answer.

use std::{
    future::{Future, Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    TryFutureExt,
    future::{Either, MapErr},
};
use http::{Request, Response, Uri};
use http_body::Body;
use tower::{Service, layer::layer_fn, service_fn};

use super::{
    body::RequestBody, client::Client, error::Error, protocol::Protocol, response::ResponseBody,
};
use crate::{discovery::StaticEndpoints, error::BoxError, outlier::OutlierDetection};

/// The service that requests of such a client name.
const SERVICE: &str = "http://from-fn.test";

#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
impl Client {
    /// A client for unit tests: a function answers its requests. There is no DNS, no socket and no pod, and it works
    /// under paused time.
    ///
    /// The function gets requests as pods do, after the client's checks: a request for another service, or with a wrong
    /// `Content-Length`, is an error. The request has a whole URI, of the service `http://from-fn.test`, and its
    /// extensions have the [`Route`](crate::Route) that says which pod or key it is for. The caller gets the function's
    /// answer at once. It comes from no pod ([`ResponseBody::endpoint`]), unless the response's extensions have an
    /// [`Endpoint`](crate::Endpoint). Nothing is sent again.
    /// [`RequestBuilder::timeout`](super::RequestBuilder::timeout) counts. gRPC calls get errors as
    /// [statuses](Self#grpc).
    ///
    /// So a unit test sees what a handler does when every pod is down. [`Error::fake_unreachable`] and the other
    /// `fake_…` make each kind of error.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use tower_headless::{Endpoint, http::{Client, Error}};
    ///
    /// /// The handler under test: it passes the pods' greeting on.
    /// async fn greeting(pods: &Client) -> (StatusCode, String) {
    ///     let greeting = async { pods.get("/greeting").await?.error_for_status()?.text().await };
    ///     match greeting.await {
    ///         Ok(text) => (StatusCode::OK, text),
    ///         Err(error) if error.is_unexecuted() => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    ///         Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let well = Client::from_fn(async |request| {
    ///     assert_eq!(request.uri().path(), "/greeting");
    ///     Ok(Response::new("hello"))
    /// });
    /// assert_eq!(greeting(&well).await, (StatusCode::OK, "hello".into()));
    ///
    /// let down = Client::from_fn(async |_| {
    ///     let last = Endpoint::new(([10, 244, 1, 7], 80).into());
    ///     Err::<Response<&str>, _>(Error::fake_unreachable(3, last, "connection refused"))
    /// });
    /// let (status, text) = greeting(&down).await;
    /// assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    /// assert!(text.ends_with("connection refused"), "{text}");
    /// # }
    /// ```
    ///
    /// To answer differently each time, count outside of the async block. Unlike an async closure, this one may use what
    /// it has captured:
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// use http::{Response, StatusCode};
    /// use tower_headless::http::Client;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_headless::http::Error> {
    /// let calls = AtomicUsize::new(0);
    /// let client = Client::from_fn(move |_request| {
    ///     let call = calls.fetch_add(1, Relaxed);
    ///     async move {
    ///         let mut response = Response::new("hello");
    ///         if call == 0 {
    ///             *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    ///         }
    ///         Ok(response)
    ///     }
    /// });
    /// assert_eq!(client.get("/").await?.status(), 503);
    /// assert_eq!(client.get("/").await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// To check what was sent, keep it. Each request's future needs its own handle:
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use http::Response;
    /// use tower_headless::http::Client;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_headless::http::Error> {
    /// let sent = Arc::new(Mutex::new(Vec::new()));
    /// let keep = sent.clone();
    /// let client = Client::from_fn(move |request| {
    ///     let keep = keep.clone();
    ///     async move {
    ///         let path = request.uri().path().to_owned();
    ///         let body = request.into_body().text().await.expect("a body of text");
    ///         keep.lock().expect("no panic").push((path, body));
    ///         Ok(Response::new("created"))
    ///     }
    /// });
    /// client.post("/users").body("Zoë").await?;
    /// assert_eq!(*sent.lock().expect("no panic"), [("/users".into(), "Zoë".into())]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Such a client has no [`endpoints`](Self::endpoints). For one that has some, use a [layer](Self::layer) that
    /// answers:
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use tower::{layer::layer_fn, service_fn};
    /// # use tower_headless::{BoxError, StaticEndpoints, http::{Client, RequestBody}};
    /// # fn main() -> Result<(), BoxError> {
    /// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
    /// let answer = async |_: Request<RequestBody>| Ok::<_, BoxError>(Response::new(String::from("hello")));
    /// let client = Client::builder("http://nginx-headless.default:80".parse()?)
    ///     .discovery(pods)
    ///     .build()?
    ///     .layer(layer_fn(move |_| service_fn(answer)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_fn<F, A, B>(answer: F) -> Self
    where
        F: Fn(Request<RequestBody>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Response<B>, Error>> + Send + 'static,
        B: Into<ResponseBody> + 'static,
    {
        let answer = Arc::new(answer);
        Self::from_service(service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Error>(answer.await?.map(Into::into)) }
        }))
    }

    /// Like [`from_fn`](Self::from_fn), with any service, such as axum's `Router`.
    /// [`ClusterBuilder::answer`](crate::test_util::ClusterBuilder::answer) takes the same.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_headless::http::Client;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_headless::http::Error> {
    /// let client = Client::from_service(Router::new().route("/greeting", get(async || "hello")));
    /// assert_eq!(client.get("/greeting").await?.text().await?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// An error that is an [`Error`] already stays what it is; others are [`Error::is_layer`].
    pub fn from_service<S, B>(service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Future: Send + 'static>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::builder(Uri::from_static(SERVICE))
            .discovery(StaticEndpoints::new([]))
            // So that gRPC calls are answered, too.
            .protocol(Protocol::Http2)
            .outlier_detection(OutlierDetection::off())
            .build()
            .expect("a service's name, and nothing else that could be wrong")
            .layer(layer_fn(move |client| FunctionService {
                client,
                service: service.clone(),
            }))
    }
}

/// Answers in place of pods, and gets what they would get.
#[derive(Clone)]
struct FunctionService<S> {
    client: Client,
    service: S,
}

impl<S, B> Service<Request<RequestBody>> for FunctionService<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future =
        Either<Ready<Result<S::Response, BoxError>>, MapErr<S::Future, fn(S::Error) -> BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        match self.client.check_only(&request) {
            Ok(()) => Either::Right(self.service.call(request).map_err(Into::into as _)),
            Err(error) => Either::Left(ready(Err(error.into()))),
        }
    }
}
