//! HTTP's completion for another protocol.

use tower::service_fn;
use tower_headless::{Balance, BoxError, Endpoint, OnBodyEnd, Route, StaticEndpoints};

fn main() {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    let balance = Balance::builder(pods)
        .completion(OnBodyEnd::new())
        .build(|_: &Endpoint| service_fn(async |question: String| Ok::<String, BoxError>(question)));
    drop(balance.call_with(String::from("hello"), Route::new()));
}
