//! Every source of the crate that asks nobody but DNS, as the fallback of another one.

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::*;
use crate::discovery::{StaticEndpoints, stream_discovery::StreamDiscovery};

/// A source that says what it is told.
fn told() -> (
    mpsc::UnboundedSender<Result<Vec<Endpoint>, BoxError>>,
    StreamDiscovery,
) {
    let (sender, mut answers) = mpsc::unbounded_channel();
    let answers = stream::poll_fn(move |cx| answers.poll_recv(cx));
    (sender, StreamDiscovery::fallible(answers))
}

/// A source that tells its set once, and then says nothing more.
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
async fn every_source_is_used_as_a_fallback_as_often_as_the_primary_fails() {
    for (source, fallback) in sources() {
        let (primary, its) = told();
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

/// One that tells its set again when asked needn't be waited for.
#[tokio::test(start_paused = true)]
async fn an_address_is_told_again_when_it_is_asked_for_and_never_grows_old() {
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
