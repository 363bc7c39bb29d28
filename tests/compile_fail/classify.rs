//! A closure instead of a classifier.

use http::StatusCode;
use tower_headless::{Outcome, http::Client};

fn main() {
    let _client = Client::builder("http://web-headless.default".parse().unwrap())
        .classify(|_status: StatusCode| Outcome::Success)
        .build();
}
