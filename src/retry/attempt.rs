//! What is retried over: services that can be told where not to send a request.

use std::{
    net::SocketAddr,
    task::{Context, Poll},
};

use futures::future::{MapOk, TryFutureExt};
use tower::Service;

use self::sealed::Attempt;
use crate::{
    balance::{Balance, ResponseFuture},
    error::{BoxError, Error},
    in_flight::{Completion, InFlight},
};

/// A service that can be told where not to send a request: a [`Balance`], or any service in [`Anywhere`].
///
/// Sealed, until a service from outside shows what it must offer.
pub trait CallAvoiding<Req>: Attempt<Req> {}

impl<T: Attempt<Req>, Req> CallAvoiding<Req> for T {}

pub(super) mod sealed {
    use std::{future::Future, net::SocketAddr};

    use tower::Service;

    pub trait Attempt<Req>: Service<Req> {
        /// The response, and where it comes from if that is known.
        type Attempt: Future<Output = Result<(Option<SocketAddr>, Self::Response), Self::Error>>;

        /// Sends a request to none of `avoid`, unless no other endpoint takes it.
        fn attempt(&mut self, request: Req, avoid: &[SocketAddr]) -> Self::Attempt;

        /// Whether there is an endpoint besides `avoid` that takes requests, as far as is known.
        fn has_other(&self, avoid: &[SocketAddr]) -> bool;

        /// The endpoint that has failed.
        fn failed(error: &Self::Error) -> Option<SocketAddr>;

        /// Whether no endpoint has got the request.
        fn is_unsent(error: &Self::Error) -> bool;
    }
}

impl<S, C, Req> Attempt<Req> for Balance<S, C>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    Req: 'static,
    C: Completion<S::Response> + Clone,
{
    type Attempt = ResponseFuture<S, Req, Located<C>>;

    fn attempt(&mut self, request: Req, avoid: &[SocketAddr]) -> Self::Attempt {
        self.call_completing(request, route(avoid), Located)
    }

    fn has_other(&self, avoid: &[SocketAddr]) -> bool {
        Self::has_other(self, &route(avoid))
    }

    fn failed(error: &Error) -> Option<SocketAddr> {
        error.endpoint().map(|endpoint| endpoint.identity())
    }

    fn is_unsent(error: &Error) -> bool {
        error.is_unsent()
    }
}

fn route(avoid: &[SocketAddr]) -> crate::route::Route {
    avoid
        .iter()
        .fold(crate::route::Route::new(), |route, &address| {
            route.avoid(&address.into())
        })
}

/// A completion that tells where the response comes from.
#[derive(Clone)]
pub struct Located<C>(C);

impl<C: Completion<R>, R> Completion<R> for Located<C> {
    type Response = (Option<SocketAddr>, C::Response);

    fn complete(&self, in_flight: InFlight, response: R) -> Self::Response {
        let endpoint = in_flight.endpoint().identity();
        (Some(endpoint), self.0.complete(in_flight, response))
    }
}

/// Any service, for [`RetryLayer`](super::RetryLayer): its requests are sent again wherever it likes.
///
/// For services that know no endpoints, and for a balancer that can't be reached directly, because there is a layer of
/// somebody else's around it. Its error is the last one's.
///
/// ```
/// use tower::{Layer, Service, ServiceExt, service_fn};
/// use tower_headless::{Anywhere, RetryLayer, RetryPolicy};
///
/// /// Up to a certain age, once more is no harm.
/// #[derive(Clone)]
/// struct OnceMore;
///
/// impl<Res, E> RetryPolicy<u32, Res, E> for OnceMore {
///     fn again(&self, request: &u32) -> Option<u32> { Some(request + 1) }
///     fn retry(&self, result: Result<&Res, &E>) -> bool { result.is_err() }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), &'static str> {
/// let odd = service_fn(|n: u32| async move { if n % 2 == 1 { Ok(n) } else { Err("even") } });
/// let mut service = RetryLayer::new(OnceMore).layer(Anywhere(odd));
/// assert_eq!(service.ready().await?.call(3).await?, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Anywhere<S>(pub S);

impl<S: Service<Req>, Req> Service<Req> for Anywhere<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> S::Future {
        self.0.call(request)
    }
}

/// A response from who knows where.
type Unlocated<R> = (Option<SocketAddr>, R);

impl<S: Service<Req>, Req> Attempt<Req> for Anywhere<S> {
    type Attempt = MapOk<S::Future, fn(S::Response) -> Unlocated<S::Response>>;

    fn attempt(&mut self, request: Req, _: &[SocketAddr]) -> Self::Attempt {
        self.0.call(request).map_ok(|response| (None, response))
    }

    fn has_other(&self, _: &[SocketAddr]) -> bool {
        true
    }

    fn failed(_: &S::Error) -> Option<SocketAddr> {
        None
    }

    fn is_unsent(_: &S::Error) -> bool {
        false
    }
}
