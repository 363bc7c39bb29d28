//! A policy's name instead of a policy.

use tower_headless::{Balance, Endpoint, StaticEndpoints};

fn main() {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    let _balance = Balance::builder(pods)
        .policy("round-robin")
        .build(|endpoint: &Endpoint| endpoint.address());
}
