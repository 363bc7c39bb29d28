//! Custom sources of endpoints, and the changes that a [`MembershipStream`] makes of them.

mod support;

use std::{
    future::poll_fn,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt, poll, stream};
use support::{
    scripted::{Hints, Pods, Request, discovery, endpoint},
    within,
};
use tokio::sync::mpsc;
use tower::{Service, ServiceExt};
use tower_headless::{
    Balance, BoxError, Discovery, Endpoint, Fallback, MembershipChange, MembershipStream,
    ServiceStream, StaticEndpoints, StreamDiscovery,
};

async fn change(stream: &mut MembershipStream) -> MembershipChange {
    let change = within("a change", stream.next()).await;
    change.expect("it never ends")
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_over_an_address_joins() {
    let (script, source) = discovery();
    let mut stream = MembershipStream::new(source);
    script.answer([1]);
    assert_eq!(change(&mut stream).await.joined, [endpoint(1)]);
    let uid = |uid: &str| endpoint(1).with_pod_uid(uid);
    script.endpoints(vec![uid("a")]); // its UID becomes known
    script.endpoints(vec![uid("b")]); // another pod
    let change = change(&mut stream).await;
    assert_eq!(
        (change.joined, change.left),
        (vec![uid("b")], vec![uid("a")])
    );
}

fn boxed(hosts: impl IntoIterator<Item = u8>) -> Box<dyn Discovery> {
    let addresses = hosts.into_iter().map(|host| endpoint(host).address());
    Box::new(StaticEndpoints::new(addresses))
}

/// The next answer, if there is one.
async fn answer(source: &mut impl Discovery) -> Option<Result<Vec<Endpoint>, BoxError>> {
    match poll!(poll_fn(|cx| source.poll_next(cx))) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn static_endpoints_are_yielded_again_on_refresh_at_most_once_a_second() {
    let mut source = StaticEndpoints::new([endpoint(1).address()]);
    source.refresh();
    for _ in 0..3 {
        let told = answer(&mut source).await.expect("an answer");
        assert_eq!(told.expect("a set"), [endpoint(1)]);
        for _ in 0..2 {
            source.refresh();
            assert!(answer(&mut source).await.is_none());
            tokio::time::advance(Duration::from_millis(499)).await;
        }
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(answer(&mut source).await.is_none());
        source.refresh();
    }
}

#[tokio::test(start_paused = true)]
async fn a_boxed_source_is_a_source() {
    let mut stream = MembershipStream::new(boxed([1]));
    assert_eq!(change(&mut stream).await.joined, [endpoint(1)]);

    let mut services = ServiceStream::new(boxed([1]), |_: &Endpoint| ());
    assert!(services.next().await.is_some());

    let mut either: Fallback<_, _> = boxed([1]).or(boxed([2]));
    let set = answer(&mut either).await.expect("at once").expect("a set");
    assert_eq!(set, [endpoint(1)]);

    let pods = Pods::default();
    let mut balance = Balance::builder(boxed([1])).build(pods.make());
    let ready = balance.ready().await.expect("a pod");
    let (pod, _) = ready.call(Request(1)).await.expect("an answer");
    assert_eq!(pod, endpoint(1));
}

/// A source whose sets are three seconds old.
struct Aged<D>(D);

impl<D: Discovery> Discovery for Aged<D> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        self.0.poll_next(cx)
    }

    fn refresh(&mut self) {
        self.0.refresh();
    }

    fn refused(&mut self, endpoint: &Endpoint) {
        self.0.refused(endpoint);
    }

    fn age(&self) -> Duration {
        Duration::from_secs(3)
    }
}

#[tokio::test(start_paused = true)]
async fn a_boxed_source_forwards_every_method() {
    let (script, source) = discovery();
    let mut source: Box<dyn Discovery> = Box::new(Aged(source));
    source.refresh();
    source.refused(&endpoint(1));
    let Hints {
        refreshes, refused, ..
    } = script.hints();
    assert_eq!((refreshes, refused), (1, vec![endpoint(1)]));
    assert_eq!(source.age(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_sets_is_a_source_and_the_last_set_stays_when_it_ends() {
    let (sets, mut receiver) = mpsc::channel::<Vec<SocketAddr>>(16);
    let source = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let pods = Pods::default();
    let mut balance = Balance::builder(StreamDiscovery::new(source)).build(pods.make());
    let mut changes = balance.watch();
    let set = |hosts: &[u8]| hosts.iter().map(|host| endpoint(*host).address()).collect();
    sets.send(set(&[1, 2])).await.expect("a receiver");
    assert_eq!(
        change(&mut changes).await.joined,
        [endpoint(1), endpoint(2)]
    );
    sets.send(set(&[2])).await.expect("a receiver");
    assert_eq!(change(&mut changes).await.left, [endpoint(1)]);
    drop(sets);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let ready = balance.ready().await.expect("a pod");
    let (pod, _) = ready.call(Request(1)).await.expect("an answer");
    assert_eq!(pod, endpoint(2));
}

#[tokio::test(start_paused = true)]
async fn a_streams_errors_are_yielded_and_do_not_end_the_source() {
    let answers = [
        Ok(vec![endpoint(1)]),
        Err("the registry is away"),
        Ok(vec![endpoint(2)]),
    ];
    let mut source = StreamDiscovery::fallible(stream::iter(answers));
    let first = answer(&mut source).await.expect("at once").expect("a set");
    assert_eq!(first, [endpoint(1)]);
    let error = answer(&mut source)
        .await
        .expect("at once")
        .expect_err("an error");
    assert_eq!(error.to_string(), "the registry is away");
    let last = answer(&mut source).await.expect("at once").expect("a set");
    assert_eq!(last, [endpoint(2)]);
    for _ in 0..2 {
        assert!(answer(&mut source).await.is_none(), "the stream has ended");
    }
}

/// An HTTP client over a boxed source sends requests.
#[cfg(feature = "http")]
#[tokio::test]
async fn an_http_client_takes_a_boxed_source() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let pod = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let read = connection.read(&mut [0; 1024]).await;
        assert!(read.expect("a request") > 0);
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        connection.write_all(response).await.expect("a client");
        connection
    });
    let source: Box<dyn Discovery> = Box::new(StaticEndpoints::new([address]));
    let uri = "http://web.default:80".parse().expect("a URI");
    let client = tower_headless::http::Client::builder(uri).discovery(source);
    let client = client.build().expect("a client");
    let request = http::Request::get("/").body(http_body_util::Empty::<bytes::Bytes>::new());
    let response = client.oneshot(request.expect("a request"));
    let response = within("a response", response).await;
    assert_eq!(response.expect("a response").status(), 200);
    within("the pod's end", pod).await.expect("no panic");
}
