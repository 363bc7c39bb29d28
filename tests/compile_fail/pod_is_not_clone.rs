//! The service of a pod can't be cloned.

use tower::util::BoxService;
use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};

fn main() {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    let _balance = Balance::builder(pods).build(|endpoint: &Endpoint| {
        let address = endpoint.address();
        BoxService::new(tower::service_fn(move |(): ()| async move { Ok::<_, BoxError>(address) }))
    });
}
