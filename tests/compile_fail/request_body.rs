//! A request whose body is text.

use http::Request;
use tower::Service;
use tower_headless::http::Client;

fn send(mut client: Client) {
    drop(client.call(Request::new("hello")));
}

fn main() {}
