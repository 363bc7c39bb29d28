//! Balancers that are built outside of a runtime.

use std::{net::SocketAddr, time::Duration};

use tower::{Service, ServiceExt, service_fn};
use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

#[test]
fn built_outside_a_runtime_a_fail_fast_balancer_starts_when_used() {
    let pod: SocketAddr = ([10, 0, 0, 1], 80).into();
    let balance = Balance::builder(StaticEndpoints::new([pod]))
        .fail_fast()
        .build(|endpoint: &Endpoint| {
            let address = endpoint.address();
            service_fn(move |_: u32| async move { Ok::<_, BoxError>(address) })
        });
    let answered = runtime().block_on(async {
        for _ in 0..100 {
            let mut balance = balance.clone();
            let ready = balance.ready().await.expect("readiness never fails");
            if ready.call(1).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    });
    assert!(answered, "in half a second a fixed set is not discovered");
}

#[cfg(feature = "http")]
#[test]
fn built_outside_a_runtime_a_fail_fast_client_starts_when_used() {
    use tower_headless::http::Client;
    let pod: SocketAddr = ([127, 0, 0, 1], 9).into();
    let client = Client::builder("http://web.default:80".parse().expect("a URI"))
        .discovery(StaticEndpoints::new([pod]))
        .fail_fast()
        .build()
        .expect("a client");
    let known = runtime().block_on(async {
        for _ in 0..100 {
            let _ = client.get("/").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        !client.endpoints().is_empty()
    });
    assert!(known, "the background task has not been started");
}
