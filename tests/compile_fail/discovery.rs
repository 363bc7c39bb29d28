//! A Service's name instead of a source.

use tower_headless::{Balance, Endpoint};

fn main() {
    let _balance = Balance::builder("web-headless.default:80").build(|endpoint: &Endpoint| endpoint.address());
}
