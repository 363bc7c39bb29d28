//! A request is spawned whose pod's future can't leave its thread.

use std::rc::Rc;

use tower::{ServiceExt, service_fn};
use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};

fn spawn<T: Send>(_: T) {}

fn main() {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    let balance = Balance::builder(pods).build(|_: &Endpoint| {
        service_fn(async |(): ()| {
            let here = Rc::new(());
            std::future::ready(()).await;
            drop(here);
            Ok::<_, BoxError>(())
        })
    });
    spawn(balance.oneshot(()));
}
