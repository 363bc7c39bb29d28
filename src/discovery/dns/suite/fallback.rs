//! Each of the crate's sources, other than EndpointSlices, as a fallback.

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::*;
use crate::discovery::{StaticEndpoints, stream_discovery::StreamDiscovery};

/// A scripted source.
fn scripted() -> (
    mpsc::UnboundedSender<Result<Vec<Endpoint>, BoxError>>,
    StreamDiscovery,
) {
    let (sender, mut answers) = mpsc::unbounded_channel();
    let answers = stream::poll_fn(move |cx| answers.poll_recv(cx));
    (sender, StreamDiscovery::fallible(answers))
}

/// A source that yields its set once, and then stays pending.
fn once(set: Vec<Endpoint>) -> StreamDiscovery {
    StreamDiscovery::new(stream::iter([set]).chain(stream::pending()))
}

fn sources() -> Vec<(&'static str, Box<dyn Discovery>)> {
    let set = hosts([9]);
    let address = set[0].address();
    let script = Script::new();
    script.pods("web", [9]);
    let literal = Dns::new(address.to_string().parse().expect("a target"));
    let fixed = StaticEndpoints::new([address]);
    vec![
        ("a fixed set", Box::new(fixed.clone())),
        ("a literal address", Box::new(literal)),
        ("a stream", Box::new(once(set.clone()))),
        ("a name", Box::new(discovery("web.:80", &script))),
        ("a fallback", Box::new(once(set).or(fixed))),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_source_works_as_a_fallback_each_time_the_primary_fails() {
    for (source, fallback) in sources() {
        let (primary, its) = scripted();
        let mut discovery = its.or(fallback);
        for _ in 0..3 {
            primary.send(Err("no".into())).expect("a reader");
            until(&mut discovery, &hosts([9])).await;
            run(&mut discovery, 600 * SECOND).await;
            primary.send(Ok(hosts([1]))).expect("a reader");
            let back = until(&mut discovery, &hosts([1])).await;
            assert_eq!(back, Duration::ZERO, "{source}");
            run(&mut discovery, 600 * SECOND).await;
        }
    }
}

/// An address yields its set again on refresh, so a fallback needn't wait for it.
#[tokio::test(start_paused = true)]
async fn an_address_is_yielded_again_on_refresh_and_never_grows_old() {
    let dns = Dns::new("10.0.0.9:80".parse().expect("a target"));
    let (mut one, mut other) = (dns.clone(), dns);
    assert_eq!(answer(&mut one).await.expect("a set"), hosts([9]));
    one.refresh();
    assert!(poll_immediate(answer(&mut one)).await.is_none(), "paced");
    tokio::time::advance(PATIENCE).await;
    assert_eq!(answer(&mut other).await.expect("a set"), hosts([9]));
    assert_eq!(other.age(), Duration::ZERO);
    one.refresh();
    assert_eq!(answer(&mut one).await.expect("a set"), hosts([9]));
    assert_eq!(one.age(), Duration::ZERO);
}
