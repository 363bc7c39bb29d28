//! How to name the type of a client, or of a balancer: in a field, with bounds, as axum's state, in a `static`, as a trait
//! object.
//!
//! | | its type |
//! | --- | --- |
//! | the HTTP client, with layers or without | [`Client`], and nothing more |
//! | a balancer over a service with a name | `Balance<MyService>` |
//! | with `.completion(OnBodyEnd::new())`, as HTTP wants it | `Balance<MyService, OnBodyEnd>` |
//! | a balancer over a service without a name, of closures and layers | `Balance<BoxCloneSyncService<Request, Response, Error>>` |
//! | a balancer of [`build_connected`](crate::BalanceBuilder::build_connected) | `Balance<Connected<MyConnection>>`; a connection without a name is boxed, not the pod |
//! | a [`RetryLayer`](crate::RetryLayer) around any of these | `Retry<Balance<MyService>, MyPolicy>`, such as `Retry<_, RetryFailed>` |
//! | any of these, to whoever only sends requests | `BoxCloneSyncService<Request, Response, Error>`, or a type parameter |
//!
//! [`Client`], [`Balance`], [`Pinned`] and [`PodClient`] are `Clone + Send + Sync + 'static`, and cheap to clone. Their futures are
//! `Send + 'static`, if those of the pods' services are: spawn them, join them, wrap them.
//!
//! # A field
//!
//! A client is a plain type. Clone it rather than wrap it in an `Arc`.
//!
//! ```
//! use tower_headless::http::{Client, Error};
//!
//! #[derive(Clone)]
//! struct Shop {
//!     carts: Client,
//! }
//!
//! impl Shop {
//!     async fn has_cart(&self, user: &str) -> Result<bool, Error> {
//!         let response = self.carts.get("/cart").key(user).await?;
//!         Ok(response.status().is_success())
//!     }
//! }
//! ```
//!
//! A balancer has the type of its pods' services for a parameter. A closure's, or that of a stack of layers, can't be written
//! down: box the service of each pod, and the balancer keeps all its methods.
//!
//! ```
//! use std::net::SocketAddr;
//! use tower::{service_fn, util::BoxCloneSyncService};
//! use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};
//!
//! type Pod = BoxCloneSyncService<String, String, BoxError>;
//!
//! struct Shop {
//!     carts: Balance<Pod>,
//! }
//!
//! # async fn ask(address: SocketAddr, question: String) -> Result<String, BoxError> { Ok(question) }
//! impl Shop {
//!     fn new(pods: StaticEndpoints) -> Self {
//!         let carts = Balance::builder(pods).build(|endpoint: &Endpoint| {
//!             let address = endpoint.address();
//!             Pod::new(service_fn(move |question: String| ask(address, question)))
//!         });
//!         Self { carts }
//!     }
//! }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! # use tower::ServiceExt;
//! # let shop = Shop::new(StaticEndpoints::new(["10.0.0.1:80".parse().unwrap()]));
//! # assert_eq!(shop.carts.oneshot("?".into()).await.unwrap(), "?");
//! # });
//! ```
//!
//! Over connections it is the connection that is boxed. With retries around it:
//!
//! ```
//! use tower::{Layer, service_fn, util::BoxCloneSyncService};
//! use tower_headless::{
//!     Balance, BoxError, Connected, Connections, Endpoint, Retry, RetryFailed, RetryLayer, StaticEndpoints,
//! };
//!
//! type Connection = BoxCloneSyncService<String, String, BoxError>;
//!
//! struct Shop {
//!     carts: Retry<Balance<Connected<Connection>>, RetryFailed>,
//! }
//!
//! # async fn open(pod: Endpoint) -> Result<(), BoxError> { Ok(()) }
//! # async fn ask(question: String) -> Result<String, BoxError> { Ok(question) }
//! impl Shop {
//!     fn new(pods: StaticEndpoints) -> Self {
//!         let connect = service_fn(|pod: Endpoint| async move {
//!             let stream = open(pod).await?;
//! #           let () = stream;
//!             Ok::<_, BoxError>(Connection::new(service_fn(move |question: String| ask(question))))
//!         });
//!         let carts = Balance::builder(pods).build_connected(Connections::pooled(8, connect));
//!         Self { carts: RetryLayer::new(RetryFailed).layer(carts) }
//!     }
//! }
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! # use tower::ServiceExt;
//! # let shop = Shop::new(StaticEndpoints::new(["10.0.0.1:80".parse().unwrap()]));
//! # assert_eq!(shop.carts.oneshot("?".into()).await.unwrap(), "?");
//! # });
//! ```
//!
//! # With bounds
//!
//! Code that only sends requests takes any service: the client in production, a function in its tests.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Service, ServiceExt};
//! use tower_headless::{BoxError, http::Client};
//!
//! async fn is_well<S, B>(pods: &S) -> Result<bool, BoxError>
//! where
//!     S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>> + Clone,
//! {
//!     let request = Request::get("/healthz").body(Full::default())?;
//!     let response = pods.clone().oneshot(request).await.map_err(Into::into)?;
//!     Ok(response.status().is_success())
//! }
//!
//! async fn both(client: Client) -> Result<bool, BoxError> {
//!     let own = tower::service_fn(async |_| Ok::<_, BoxError>(Response::new(())));
//!     Ok(is_well(&client).await? && is_well(&own).await?)
//! }
//! ```
//!
//! # axum's state
//!
//! `examples/axum.rs` has JSON, bodies that are passed on, and a status for each kind of error.
//!
//! ```
//! use axum::{Router, extract::State, http::StatusCode, routing::get};
//! use tower_headless::http::Client;
//!
//! async fn front(State(pods): State<Client>) -> StatusCode {
//!     match pods.get("/").await {
//!         Ok(response) => response.status(),
//!         Err(_) => StatusCode::BAD_GATEWAY,
//!     }
//! }
//!
//! fn app(pods: Client) -> Router {
//!     Router::new().route("/", get(front)).with_state(pods)
//! }
//! ```
//!
//! # A `static`
//!
//! A client may be built before there is a runtime, and [several runtimes](crate::Balance#several-runtimes) may use it.
//!
//! ```
//! use std::sync::LazyLock;
//! use tower_headless::http::Client;
//!
//! static PODS: LazyLock<Client> = LazyLock::new(|| {
//!     let service = "http://nginx-headless.default:80".parse().expect("it is a URI");
//!     Client::builder(service).build().expect("nothing else is set")
//! });
//!
//! # async fn send() -> Result<(), tower_headless::http::Error> {
//! let response = PODS.get("/").await?;
//! # drop(response);
//! # Ok(())
//! # }
//! ```
//!
//! # A trait object
//!
//! [`BoxCloneSyncService`](tower::util::BoxCloneSyncService) hides which service it is. It is `Clone + Send + Sync` too, but only a
//! service: layer a [`Client`] with [`Client::layer`] instead, and it stays one.
//!
//! ```
//! use tower::util::BoxCloneSyncService;
//! use tower_headless::{Balance, BoxError, Error};
//!
//! type Carts = BoxCloneSyncService<String, String, Error>;
//!
//! # type Pod = BoxCloneSyncService<String, String, BoxError>;
//! fn carts(balance: Balance<Pod>) -> Carts {
//!     Carts::new(balance)
//! }
//! ```
//!
//! A trait of your own does as well, and says what your application asks of its pods:
//!
//! ```
//! use futures::future::BoxFuture;
//! use tower_headless::http::{Client, Error};
//!
//! trait Carts: Send + Sync {
//!     fn has_cart<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<bool, Error>>;
//! }
//!
//! impl Carts for Client {
//!     fn has_cart<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<bool, Error>> {
//!         Box::pin(async move { Ok(self.get("/cart").key(user).await?.status().is_success()) })
//!     }
//! }
//!
//! fn boxed(client: Client) -> Box<dyn Carts> {
//!     Box::new(client)
//! }
//! ```
//!
//! [`Balance`]: crate::Balance
//! [`Client`]: crate::http::Client
//! [`Client::layer`]: crate::http::Client::layer
//! [`Pinned`]: crate::Pinned
//! [`PodClient`]: crate::http::PodClient
