//! A closure of another shape than `build` takes.

use std::net::SocketAddr;

use tower_headless::{Balance, StaticEndpoints};

fn main() {
    let pods = StaticEndpoints::new([([10, 0, 0, 1], 80).into()]);
    let _balance = Balance::builder(pods).build(|address: SocketAddr| address);
}
