//! A plain HTTP client that a user could build from the library: the balancer over thin connections, with retries of
//! GETs.

use std::{future::Ready, net::IpAddr};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt, Empty};
use tower::{Service, ServiceExt, retry::Retry};
use tower_headless::{Balance, BoxError, CountedBody, Discovery, Error, OnBodyEnd, Policy};

use super::http::{Connections, PodBody};

/// A GET's body.
pub type NoBody = Empty<Bytes>;

/// The body of a balanced response.
pub type ResponseBody = CountedBody<PodBody<NoBody>>;

/// A balancer over the pods of a cluster.
pub type HttpBalance = Balance<Connections<NoBody>, OnBodyEnd>;

/// A balancer that retries requests if that is safe.
pub type HttpClient = Retry<Resend, HttpBalance>;

/// Discovery of a cluster's pods.
#[cfg(feature = "dns")]
pub fn dns(cluster: &super::cluster::Cluster) -> tower_headless::Dns {
    let target = cluster.service_target().parse().expect("a valid target");
    tower_headless::Dns::new(target).allow_loopback(true)
}

pub fn balance<P: Policy>(discovery: impl Discovery, policy: P) -> HttpBalance {
    Balance::builder(discovery)
        .policy(policy)
        .completion(OnBodyEnd::new())
        .build(|endpoint| Connections::new(endpoint.address()))
}

/// Retries GETs, because they are safe (RFC 9110 §9.2.1): if a pod died with one, another pod gets it.
#[derive(Clone, Debug)]
pub struct Resend {
    pub times: usize,
}

impl tower::retry::Policy<Request<NoBody>, Response<ResponseBody>, Error> for Resend {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<NoBody>,
        result: &mut Result<Response<ResponseBody>, Error>,
    ) -> Option<Self::Future> {
        let lost = result.as_ref().is_err_and(Error::is_endpoint);
        self.times = self.times.checked_sub(usize::from(lost))?;
        lost.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<NoBody>) -> Option<Request<NoBody>> {
        Some(request.clone())
    }
}

/// Sends a GET of `path`, and reads the answer to its end. Returns the pod that answered.
pub async fn get<S>(service: &S, path: &str) -> Result<IpAddr, BoxError>
where
    S: Service<Request<NoBody>, Response = Response<ResponseBody>, Error = Error> + Clone,
{
    let mut request = Request::new(NoBody::new());
    *request.uri_mut() = path.parse()?;
    let host = HeaderValue::from_static("web.default.svc.cluster.local");
    request.headers_mut().insert(HOST, host);
    let response = service.clone().ready().await?.call(request).await?;
    if !response.status().is_success() {
        return Err(response.status().to_string().into());
    }
    let pod = response.headers().get("x-pod").ok_or("no x-pod header")?;
    let pod = pod.to_str()?.parse()?;
    response.into_body().collect().await?;
    Ok(pod)
}
