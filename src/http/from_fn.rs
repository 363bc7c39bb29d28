//! Clients that applications' own tests answer themselves.

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

/// What requests to a client of no service name.
const SERVICE: &str = "http://from-fn.test";

#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
impl Client {
    /// A client for unit tests, whose requests a function answers. There is no DNS, no socket and no pod, and it works under
    /// paused time.
    ///
    /// The function gets requests as pods do, after the client's checks: one for another service, or of another length than its
    /// `Content-Length`, is an error. It has a whole URI, of the service `http://from-fn.test`, and in its
    /// extensions the [`Route`](crate::Route) that says which pod or key it is for. What it gives is the caller's at once, and of
    /// no pod ([`ResponseBody::endpoint`]), unless an [`Endpoint`](crate::Endpoint) is in the response's extensions. Nothing is sent
    /// again. [`RequestBuilder::timeout`](super::RequestBuilder::timeout) counts. A gRPC call is told of errors by
    /// [statuses](Self#grpc).
    ///
    /// So a unit test sees what a handler does when every pod is down. Each kind of error can be made by hand, by
    /// [`Error::fake_unreachable`] and the other `fake_…`.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use tower_headless::{Endpoint, http::{Client, Error}};
    ///
    /// /// What is tested: it passes the pods' greeting on.
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
    /// To look at what was sent, keep it. Each request's future needs a handle of its own:
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
    /// It has no [`endpoints`](Self::endpoints). Of a client that has some, a [layer](Self::layer) that answers is the same:
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

    /// [`from_fn`](Self::from_fn) of any service, such as axum's `Router`, as it also goes into
    /// [`ClusterBuilder::answer`](crate::test_util::ClusterBuilder::answer).
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
            // gRPC's calls are answered as well.
            .protocol(Protocol::Http2)
            .outlier_detection(OutlierDetection::off())
            .build()
            .expect("a service's name, and nothing else that could be wrong")
            .layer(layer_fn(move |client| Answering {
                client,
                service: service.clone(),
            }))
    }
}

/// What answers in the place of pods. It gets what they would get.
#[derive(Clone)]
struct Answering<S> {
    client: Client,
    service: S,
}

impl<S, B> Service<Request<RequestBody>> for Answering<S>
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
        match self.client.look_over(&request) {
            Ok(()) => Either::Right(self.service.call(request).map_err(Into::into as _)),
            Err(error) => Either::Left(ready(Err(error.into()))),
        }
    }
}
