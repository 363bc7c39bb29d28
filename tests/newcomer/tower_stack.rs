//! tower's middleware in every place: around the client, in it, in a field; and a client in a `static`.

use std::{
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_headless::{
    BoxError,
    http::{Client, Error, ResponseBody},
};
use tower_http::{set_header::SetRequestHeaderLayer, trace::TraceLayer};

/// Set by `main` from the environment.
static SERVICE: OnceLock<Uri> = OnceLock::new();

static PODS: LazyLock<Client> = LazyLock::new(|| {
    let service = SERVICE.get().expect("`main` has set it");
    Client::builder(service.clone())
        .build()
        .expect("a good URI")
});

type Pods = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody>, BoxError>;

struct Shop {
    /// For code that builds its own requests.
    pods: Pods,
    /// For code that uses the client's methods.
    client: Client,
}

impl Shop {
    fn new(client: Client) -> Self {
        let pods = ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(2)
            .timeout(Duration::from_secs(60))
            .service(client.clone());
        let agent = HeaderValue::from_static("shop/1.0");
        let client = client.layer(
            ServiceBuilder::new()
                .load_shed()
                .concurrency_limit(2)
                .timeout(Duration::from_secs(60))
                .layer(TraceLayer::new_for_http())
                .layer(SetRequestHeaderLayer::overriding(AGENT, agent)),
        );
        let pods = Pods::new(pods);
        Self { pods, client }
    }

    async fn raw(&self, path: &str) -> Result<Response<ResponseBody>, BoxError> {
        let request = Request::get(path).body(Full::default())?;
        self.pods.clone().ready().await?.call(request).await
    }

    async fn status(&self, path: &str) -> Result<u16, Error> {
        Ok(self.client.get(path).await?.status().as_u16())
    }
}

const AGENT: HeaderName = http::header::USER_AGENT;

#[cfg(test)]
mod tests {
    use std::{future::pending, io, sync::Arc};

    use tokio::sync::Notify;
    use tower::{load_shed::error::Overloaded, timeout::error::Elapsed};
    use tower_headless::test_util::{Cluster, Mode};

    use super::*;

    #[tokio::test]
    async fn excess_requests_are_shed_and_no_pod_sees_them() -> Result<(), BoxError> {
        let cluster = Cluster::start(2).await;
        let shop = Arc::new(Shop::new(cluster.client().build()?));
        for pod in cluster.pods() {
            pod.set(Mode::Hung);
        }
        let raw = |shop: Arc<Shop>| tokio::spawn(async move { shop.raw("/").await });
        let hung = [raw(shop.clone()), raw(shop.clone())];
        cluster.wait_for_requests(2).await;
        let shed = shop.raw("/").await.expect_err("two are under way");
        assert!(shed.is::<Overloaded>(), "{shed}");

        for pod in cluster.pods() {
            pod.set(Mode::Healthy);
        }
        for request in hung {
            request.abort();
            assert!(request.await.expect_err("it hangs").is_cancelled());
        }
        assert_eq!(shop.raw("/").await?.status(), 200);
        assert_eq!(shop.status("/").await?, 200);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_s_error_is_a_source_of_the_client_s_error() {
        let begun = Arc::new(Notify::new());
        let tell = begun.clone();
        let hung = Client::from_fn(move |request| {
            assert_eq!(request.headers()[AGENT], "shop/1.0");
            tell.notify_one();
            pending::<Result<Response<&str>, Error>>()
        });
        let shop = Arc::new(Shop::new(hung));
        let status = |shop: Arc<Shop>| tokio::spawn(async move { shop.status("/").await });
        let waiting = [status(shop.clone()), status(shop.clone())];
        begun.notified().await;
        begun.notified().await;
        let shed = shop.status("/").await.expect_err("two are under way");
        assert!(shed.is_layer() && has::<Overloaded>(&shed), "{shed}");
        for late in waiting {
            let late = late.await.expect("no panic").expect_err("it hangs");
            assert!(late.is_layer() && has::<Elapsed>(&late), "{late}");
        }
    }

    fn has<E: std::error::Error + 'static>(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<E>())
    }

    #[test]
    fn one_client_in_a_static_serves_one_runtime_after_another() -> io::Result<()> {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
        };
        let of_pods = runtime()?;
        let cluster = of_pods.block_on(Cluster::start(1));
        let address = cluster.pod(0).addr();
        std::thread::spawn(move || of_pods.block_on(pending::<()>()));
        SERVICE
            .set(format!("http://{address}").parse().expect("an address"))
            .expect("once");
        for _ in 0..2 {
            let response = runtime()?.block_on(async { PODS.get("/").await });
            assert_eq!(response.expect("the pod is well").status(), 200);
        }
        Ok(())
    }
}
