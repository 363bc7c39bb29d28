//! A page that shows all balancers of a process, and JSON beside it. Feature `inspect`.
//!
//! [`Page`] is a tower service: mount it in any HTTP server, on a port that strangers can't reach. It is read-only. It
//! shows names, addresses and errors, but nothing that requests carry.
//!
//! ```
//! # #[cfg(not(feature = "http"))]
//! # fn main() {}
//! # #[cfg(feature = "http")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_headless::BoxError> {
//! use axum::Router;
//! use tower_headless::{Balancers, http::Client, inspect::Page};
//!
//! let client = Client::builder("http://web-headless.default:80".parse()?).build()?;
//! let balancers = Balancers::new();
//! balancers.add(&client);
//! let app: Router = Router::new().nest_service("/debug/tower-headless", Page::new(balancers));
//! // let listener = tokio::net::TcpListener::bind("127.0.0.1:9090").await?;
//! // axum::serve(listener, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! If the server hands over the whole path, as hyper does, tell the page its path with [`Page::mounted_at`].
//!
//! | path | what is there |
//! | --- | --- |
//! | `/`, or none | the page. It needs JavaScript, and loads nothing from other sites |
//! | `/json`, `.json` | an object: each balancer's [`Explanation`](crate::Explanation) under its name in [`Balancers`] |
//!
//! GET and HEAD are answered, other methods with 405, other paths with 404. Nothing is cached, and browsers let no other site frame
//! the page or load it.
//!
//! There is no login: anybody who reaches the port can read the page. It answers any `Host`, so a site that points its
//! own name at your `localhost` (DNS rebinding) can read it through your browser. If that matters, let your server
//! answer only the names you use.
//!
//! The JSON is made at most four times a second, off the runtime's threads, however many clients ask. So an answer is
//! up to 250 ms old; its `at_unix_ms` says when it was made.
//!
//! It takes about 2 kB for each pod: 20 MB for 10,000 pods, uncompressed. The page asks every 2 s. If an answer takes
//! longer than that, the page then pauses for as long as the answer took, but at most 30 s. It gives up if nothing
//! arrives for 10 s.
//!
//! # How to find a hung pod
//!
//! Open the page. What is wrong now is on top, in red sentences. Below is the table of pods, the worst first: the hung
//! pod is in the first row. *State* says that it is ejected, and why: requests wait for it and none is answered, while
//! the others answer. *Waiting* says how many. *Share* is 0 %, because it gets no more requests. *Next trial* says when
//! it is tried again.
//!
//! `docs/inspect.png` in the crate's repository is a picture of it, made by the test that plays this story
//! (`tests/inspect_browser.rs`).
//!
//! Click on the pod, or press Enter on it, to see everything about it: its requests by outcome, its latencies, its last
//! error, and its events of the last hour.
//!
//! | what you see | what it means |
//! | --- | --- |
//! | one pod is red, the others are green | that pod is at fault: its *state* says why |
//! | all pods are red | the service is down, or the network between; or a certificate is refused: see the *last error* |
//! | *discovery* is red | the set of pods is out of date: new pods get nothing, and pods that are gone are tried |
//! | all pods are green, but requests wait | too few connections or pods: the sentence on top says what they wait for |
//! | the head of the page is red | it says why: no answer, or one that isn't the page's JSON. What you see is the last reading |
//!
//! | file | what lives there |
//! | --- | --- |
//! | `inspect/answer.rs` | the responses, their headers and their body |
//! | `inspect/json.rs` | the JSON, made once for all clients that ask at the same time |
//! | `inspect/html.rs` | puts the files below into one page |
//! | `inspect/page.html`, `.css` | its structure and its style |
//! | `inspect/text.js`, `row.js`, `page.js`, `live.js` | how values are written; a pod's row; a balancer; what keeps it current |

mod answer;
mod html;
mod json;

pub use answer::{Body, ResponseFuture};

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response};
use tower::Service;

use crate::explain::Balancers;

/// A [`Service`] that shows balancers, for any HTTP server. See the [module](self).
///
/// Clones are cheap and share the JSON.
#[derive(Clone)]
pub struct Page {
    json: Arc<json::Json>,
    prefix: Arc<str>,
}

impl Page {
    /// Shows these balancers, and those that are added to `balancers` later.
    pub fn new(balancers: Balancers) -> Self {
        Self {
            json: Arc::new(json::Json::new(balancers)),
            prefix: Arc::from(""),
        }
    }

    /// The path's beginning, such as `/debug/tower-headless`, for a server that hands over the whole path. Other paths
    /// are not found.
    ///
    /// Don't set it under axum's `nest_service` and the like, which strip the beginning.
    pub fn mounted_at(mut self, prefix: &str) -> Self {
        let prefix = prefix.trim_matches('/');
        self.prefix = match prefix {
            "" => Arc::from(""),
            _ => Arc::from(format!("/{prefix}")),
        };
        self
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Page");
        debug.field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Page {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let is_head = request.method() == Method::HEAD;
        let is_known = is_head || request.method() == Method::GET;
        let future = match request.uri().path().strip_prefix(&*self.prefix) {
            Some("" | "/") if is_known => answer::html(),
            Some("/json" | ".json" | "/.json") if is_known => answer::json(self.json.bytes()),
            Some("" | "/" | "/json" | ".json" | "/.json") => answer::not_allowed(),
            _ => answer::not_found(),
        };
        future.without_body(is_head)
    }
}
