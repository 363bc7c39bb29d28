//! HTTP/2 requests on a shared connection don't affect each other: their places, their bodies, their end.

use std::{
    convert::Infallible,
    future::IntoFuture,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{future::join, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::UnboundedSender,
    task::JoinHandle,
    time::timeout,
};
use tower::ServiceExt;
use tower_headless::{
    BoxError, StaticEndpoints,
    http::{Client, ClientBuilder, Error, Protocol, RequestTimeout, ResponseBody},
};

use crate::{
    frames::{CANCEL, Frames, NO_ERROR},
    kit::{self, accept, in_flight, listen, wait_until, written},
    support::within,
};

const SETTINGS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

fn builder(pods: impl IntoIterator<Item = SocketAddr>) -> ClientBuilder<StaticEndpoints> {
    kit::builder(pods).protocol(Protocol::Http2)
}

fn client(pods: impl IntoIterator<Item = SocketAddr>) -> Client {
    builder(pods).build().expect("a client")
}

async fn greet(listener: &TcpListener, streams: u32) -> Frames<TcpStream> {
    Frames::greet(accept(listener).await, Some(streams)).await
}

async fn set(frames: &mut Frames<TcpStream>, setting: u16, value: u32) {
    let mut frame = vec![0, 0, 6, SETTINGS, 0, 0, 0, 0, 0];
    frame.extend(setting.to_be_bytes());
    frame.extend(value.to_be_bytes());
    frames.0.write(frame).await;
}

type Answer = Result<Response<ResponseBody>, Error>;

async fn get(client: &Client) -> Answer {
    let response = within("a response", client.get("/").into_future()).await?;
    Ok(response.into_inner())
}

async fn send<B>(client: &Client, body: B) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let request = Request::post("/upload").body(body).expect("a request");
    within("a response", client.clone().oneshot(request)).await
}

/// A client with at most one connection to each pod.
fn client_of_one(pod: SocketAddr) -> Client {
    let builder = builder([pod]).max_connections(1);
    builder.build().expect("a client")
}

/// Answers the next request, and returns its stream.
async fn answer(frames: &mut Frames<TcpStream>) -> u32 {
    let stream = frames.stream().await;
    frames.ok(stream).await;
    stream
}

/// Asserts that this doesn't happen for a moment.
async fn nothing(of: impl Future) {
    let moment = Duration::from_millis(50);
    assert!(timeout(moment, of).await.is_err(), "too soon");
}

/// Accepts a new connection, and answers one request on it.
async fn answer_anew(listener: &TcpListener) -> Frames<TcpStream> {
    let mut new = greet(listener, 1).await;
    answer(&mut new).await;
    new
}

/// A connection with room for one stream, whose upload goes on after its answer.
async fn uploading(
    listener: &TcpListener,
    client: &Client,
) -> (Frames<TcpStream>, u32, UnboundedSender<&'static str>) {
    let (sender, body) = written();
    let serve = async {
        let mut old = greet(listener, 1).await;
        let first = answer(&mut old).await;
        (old, first)
    };
    let ((old, first), response) = join(serve, send(client, body)).await;
    response.expect("a response");
    assert_eq!(in_flight(client), 0);
    let _ = sender.send("there is more");
    (old, first, sender)
}

#[tokio::test]
async fn a_stream_that_still_uploads_takes_a_place() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (_old, _, _sender) = uploading(&listener, &client).await;
    let (_new, response) = join(answer_anew(&listener), get(&client)).await;
    response.expect("over another connection");
}

#[tokio::test]
async fn an_upload_s_end_frees_its_place() {
    let (listener, pod) = listen().await;
    let client = client_of_one(pod);
    let (mut old, first, sender) = uploading(&listener, &client).await;
    let mut second = Box::pin(get(&client));
    nothing(&mut second).await;
    drop(sender);
    old.end_of(first).await;
    let (_, response) = join(answer(&mut old), second).await;
    response.expect("over the same connection");
}

/// hyper waits for the pod's window, and asks the body for nothing.
#[tokio::test]
async fn a_response_that_is_given_up_resets_its_stream_though_the_pod_takes_no_more() {
    let (listener, pod) = listen().await;
    let client = client_of_one(pod);
    let serve = async {
        let mut frames = greet(&listener, 1).await;
        let stream = frames.stream().await;
        frames.begin(stream).await;
        (frames, stream)
    };
    let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 1 << 20])));
    let endless = StreamBody::new(stream::repeat_with(chunk));
    let ((mut frames, stream), response) = join(serve, send(&client, endless)).await;
    drop(response.expect("a head"));
    let reason = within("the reset", frames.reset_of(stream)).await;
    assert_eq!(reason, CANCEL);
    let (_, response) = join(answer(&mut frames), get(&client)).await;
    response.expect("over the same connection");
}

/// RFC 9113 §8.1: a pod that has answered may reset the rest of the request.
#[tokio::test]
async fn a_reset_after_the_answer_frees_the_place() {
    let (listener, pod) = listen().await;
    let client = client_of_one(pod);
    let (mut old, first, _sender) = uploading(&listener, &client).await;
    old.reset(first, NO_ERROR).await;
    let (_, response) = join(answer(&mut old), get(&client)).await;
    response.expect("over the same connection");
}

/// A request's body that goes on doesn't keep a stream open whose response nobody reads any more.
#[tokio::test]
async fn a_response_that_is_given_up_resets_its_stream_though_the_upload_goes_on() {
    let give_up: [fn(Response<ResponseBody>); 2] = [
        drop,
        // As a layer's decoder does.
        |response| drop(response.map(|body| ResponseBody::new(body.map_err(BoxError::from)))),
    ];
    for give_up in give_up {
        for is_begun in [false, true] {
            let (listener, pod) = listen().await;
            let client = client_of_one(pod);
            let (sender, body) = written();
            if is_begun {
                sender.send("a part").expect("a body");
            }
            let serve = async {
                let mut frames = greet(&listener, 1).await;
                let stream = frames.stream().await;
                frames.begin(stream).await;
                (frames, stream)
            };
            let ((mut frames, stream), response) = join(serve, send(&client, body)).await;
            give_up(response.expect("a head"));
            let reason = within("the reset", frames.reset_of(stream)).await;
            assert_eq!(reason, CANCEL);
            assert_eq!(in_flight(&client), 0);
            let (_, response) = join(answer(&mut frames), get(&client)).await;
            response.expect("over the same connection");
            within("the body's end", sender.closed()).await;
        }
    }
}

#[tokio::test]
async fn a_response_past_its_deadline_resets_its_stream_though_the_upload_goes_on() {
    let (listener, pod) = listen().await;
    let client = client_of_one(pod);
    let (_sender, body) = written();
    let serve = async {
        let mut frames = greet(&listener, 1).await;
        let stream = frames.stream().await;
        frames.begin(stream).await;
        (frames, stream)
    };
    let timeout = RequestTimeout(Duration::from_millis(300));
    let request = Request::post("/upload").extension(timeout).body(body);
    let ask = client.clone().oneshot(request.expect("a request"));
    let ((mut frames, stream), response) = join(serve, within("a head", ask)).await;
    let mut body = response.expect("a head").into_body();
    while let Some(frame) = within("a frame", body.frame()).await {
        if let Err(error) = frame {
            assert!(error.is_timeout(), "{error:?}");
            break;
        }
    }
    // Its caller holds the body still.
    let reason = within("the reset", frames.reset_of(stream)).await;
    assert_eq!(reason, CANCEL);
    drop(body);
}

#[tokio::test]
async fn a_head_that_is_too_large_resets_its_stream_though_the_upload_goes_on() {
    let (listener, pod) = listen().await;
    let client = builder([pod]).max_response_header_size(1024);
    let client = client.max_connections(1).build().expect("a client");
    let (_sender, body) = written();
    let serve = async {
        let mut frames = greet(&listener, 1).await;
        let stream = frames.stream().await;
        frames.large(stream).await;
        (frames, stream)
    };
    let ((mut frames, stream), response) = join(serve, send(&client, body)).await;
    let error = response.expect_err("too large");
    assert!(error.is_limit(), "{error:?}");
    let reason = within("the reset", frames.reset_of(stream)).await;
    assert_eq!(reason, CANCEL);
}

/// hyper is done with such a body at once, but h2 isn't.
#[tokio::test]
async fn a_body_that_the_pod_doesn_t_take_keeps_its_place() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut old = greet(&listener, 1).await;
        answer(&mut old).await;
        old
    };
    // More than the pod's window.
    let upload = send(&client, Full::from(vec![0; 100_000]));
    let (_old, response) = join(serve, upload).await;
    response.expect("a response");
    let (_new, response) = join(answer_anew(&listener), get(&client)).await;
    response.expect("over another connection");
}

#[tokio::test]
async fn a_connection_that_goes_away_makes_room_for_another() {
    let (listener, pod) = listen().await;
    let client = client_of_one(pod);
    let (mut old, first, sender) = uploading(&listener, &client).await;
    let mut second = Box::pin(get(&client));
    nothing(&mut second).await;
    old.go_away(first, NO_ERROR).await;
    let (_new, response) = join(answer_anew(&listener), second).await;
    response.expect("over another connection");
    let _ = sender.send("and more");
    drop(sender);
    old.end_of(first).await;
}

/// A connection with two streams on which nothing more can be written, because the pod doesn't read an upload. The
/// other request was cancelled, but its reset can't be written, either.
async fn blocked(
    listener: &TcpListener,
    client: &Client,
) -> (Frames<TcpStream>, u32, JoinHandle<Answer>) {
    let mut given_up = Box::pin(get(client));
    let serve = async {
        let mut old = greet(listener, 2).await;
        set(&mut old, INITIAL_WINDOW_SIZE, i32::MAX.unsigned_abs()).await;
        // The connection's window is as large (WINDOW_UPDATE).
        let mut update = vec![0, 0, 4, 8, 0, 0, 0, 0, 0];
        update.extend((1_u32 << 30).to_be_bytes());
        old.0.write(update).await;
        old.stream().await;
        old
    };
    let mut old = tokio::select! {
        served = serve => served,
        _ = &mut given_up => panic!("not answered yet"),
    };
    let uploading = client.clone();
    let upload = tokio::spawn(async move {
        let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 1 << 20])));
        send(&uploading, StreamBody::new(stream::repeat_with(chunk))).await
    });
    let second = old.stream().await;
    // Until the system's buffer is full.
    nothing(&mut given_up).await;
    (old, second, upload)
}

#[tokio::test]
async fn a_request_that_hyper_holds_back_is_sent_elsewhere_after_a_go_away() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (mut old, last, upload) = blocked(&listener, &client).await;
    let mut held = Box::pin(send(&client, Full::from("a body")));
    nothing(&mut held).await;
    nothing(listener.accept()).await;
    old.go_away(last, NO_ERROR).await;
    let (_new, response) = join(answer_anew(&listener), held).await;
    response.expect("not a byte of it was written");
    upload.abort();
}

#[tokio::test]
async fn a_request_that_hyper_holds_back_is_sent_elsewhere_after_the_connection_s_end() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (old, _, upload) = blocked(&listener, &client).await;
    let mut held = Box::pin(send(&client, kit::stream_of(&["a ", "body"])));
    nothing(&mut held).await;
    nothing(listener.accept()).await;
    drop(old);
    let (_new, response) = join(answer_anew(&listener), held).await;
    response.expect("not a byte of it was written");
    let uploaded = upload.await.expect("no panic");
    assert!(!uploaded.expect_err("it was lost").is_unexecuted());
}

/// h2 would still send it: the GOAWAY names no last stream yet (RFC 9113 §6.8), and the connection goes on.
#[tokio::test]
async fn a_request_that_hyper_holds_back_may_be_executed_after_a_go_away_without_a_last_stream() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let (mut old, _, upload) = blocked(&listener, &client).await;
    let mut held = Box::pin(send(&client, Full::from("a body")));
    nothing(&mut held).await;
    old.go_away(i32::MAX.unsigned_abs(), NO_ERROR).await;
    let error = held.await.expect_err("it was lost");
    assert!(
        !error.is_unexecuted() && !error.is_request_body(),
        "{error:?}"
    );
    upload.abort();
}

#[tokio::test]
async fn waiting_requests_go_on_when_the_pod_allows_more_streams() {
    let (listener, pod) = listen().await;
    let client = client_of_one(pod);
    let serve = async {
        let mut frames = greet(&listener, 1).await;
        let first = frames.stream().await;
        wait_until("all requests", || in_flight(&client) == 4).await;
        set(&mut frames, MAX_CONCURRENT_STREAMS, 4).await;
        for _ in 0..3 {
            let stream = frames.stream().await;
            frames.ok(stream).await;
        }
        frames.ok(first).await;
        frames
    };
    // Each has a task of its own, so that nothing else wakes it.
    let ask = |_| {
        let client = client.clone();
        tokio::spawn(async move { get(&client).await })
    };
    let all = futures::future::join_all((0..4).map(ask));
    let (_frames, responses) = join(serve, all).await;
    for response in responses {
        response.expect("no panic").expect("a response");
    }
}

#[tokio::test]
async fn a_pod_that_allows_no_more_streams_gets_another_connection() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut old = greet(&listener, 10).await;
        let first = old.stream().await;
        set(&mut old, MAX_CONCURRENT_STREAMS, 0).await;
        old.ok(first).await;
        (old, answer_anew(&listener).await)
    };
    let ask = async {
        get(&client).await.expect("a response");
        get(&client).await.expect("over another connection");
    };
    join(serve, ask).await;
}

#[tokio::test]
async fn a_window_that_shrinks_and_grows_only_delays_an_upload() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let serve = async {
        let mut frames = greet(&listener, 10).await;
        set(&mut frames, INITIAL_WINDOW_SIZE, 10).await;
        let first = frames.stream().await;
        set(&mut frames, INITIAL_WINDOW_SIZE, 0).await;
        let second = frames.stream().await;
        frames.ok(second).await;
        set(&mut frames, INITIAL_WINDOW_SIZE, 100_000).await;
        frames.end_of(first).await;
        frames.ok(first).await;
        frames
    };
    let upload = send(&client, Full::from(vec![0; 50_000]));
    let ((_frames, upload), other) = join(join(serve, upload), get(&client)).await;
    upload.expect("a response");
    other.expect("a response");
}

/// A body that panics when it is read for the `n`th time.
struct Panicking(usize);

impl http_body::Body for Panicking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        assert_ne!(self.0, 0, "the body's own bug");
        self.0 -= 1;
        cx.waker().wake_by_ref();
        match self.0 % 2 {
            0 => Poll::Pending,
            _ => Poll::Ready(Some(Ok(Frame::data(Bytes::from("a part"))))),
        }
    }
}

#[tokio::test]
async fn a_body_that_panics_fails_only_its_own_request() {
    for reads in [0, 1, 2, 5] {
        let (listener, pod) = listen().await;
        let client = client([pod]);
        let serve = async {
            let mut frames = greet(&listener, 10).await;
            let first = frames.stream().await;
            frames.stream().await;
            wait_until("the panic", || in_flight(&client) == 1).await;
            frames.ok(first).await;
            frames
        };
        let ask = async {
            let other = get(&client);
            let panicking = async {
                wait_until("the other", || in_flight(&client) == 1).await;
                let asked = send(&client, Panicking(reads)).await;
                let error = asked.expect_err("no body");
                assert!(
                    error.is_request_body() && error.endpoint().is_none(),
                    "{error:?}"
                );
                let source = std::error::Error::source(&error).expect("a source");
                assert!(
                    source.to_string().contains("the body's own bug"),
                    "{source}"
                );
            };
            let (other, ()) = join(other, panicking).await;
            other.expect("the answer on the same connection");
        };
        join(serve, ask).await;
    }
}

/// A body that blocks its thread when it is read for the `n`th time, until it is released.
struct Blocking(usize, std::sync::mpsc::Receiver<()>);

impl http_body::Body for Blocking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.0 == 0 {
            let _ = self.1.recv_timeout(Duration::from_secs(20));
            return Poll::Ready(None);
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        match self.0 % 2 {
            0 => Poll::Pending,
            _ => Poll::Ready(Some(Ok(Frame::data(Bytes::from("a part"))))),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_body_that_blocks_its_thread_delays_no_other_request() {
    for reads in [0, 1, 2] {
        let (pod, _alive) = kit_http2().await;
        let client = client([pod]);
        get(&client).await.expect("a response");
        let (go, blocked) = std::sync::mpsc::sync_channel(1);
        let task = {
            let client = client.clone();
            tokio::spawn(async move { send(&client, Blocking(reads, blocked)).await })
        };
        wait_until("the upload", || in_flight(&client) == 1).await;
        let others = (0..20).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { timeout(Duration::from_secs(10), get(&client)).await })
        });
        for other in others.collect::<Vec<_>>() {
            let other = other.await.expect("no panic").expect("while it blocks");
            other.expect("a response");
        }
        go.send(()).expect("it blocks still");
        let response = task.await.expect("no panic");
        response.expect("a response");
    }
}

/// A pod that answers requests once they are read completely, in a runtime of its own, which no client's body can
/// block.
async fn kit_http2() -> (SocketAddr, std::sync::mpsc::Sender<()>) {
    let (bound, address) = tokio::sync::oneshot::channel();
    let (alive, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let serve = |peer: kit::Peer<TcpStream>| async move {
                let answer = |request: Request<hyper::body::Incoming>| async move {
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
                };
                let executor = hyper_util::rt::TokioExecutor::new();
                let io = hyper_util::rt::TokioIo::new(peer.into_inner());
                // Ends with the connection, whatever the result.
                let _ = hyper::server::conn::http2::Builder::new(executor)
                    .serve_connection(io, hyper::service::service_fn(answer))
                    .await;
            };
            let _ = bound.send(kit::pod(serve).await);
            let end = tokio::task::spawn_blocking(move || {
                let _: Result<(), _> = end.recv();
            });
            let _ = end.await;
        });
    });
    (address.await.expect("an address"), alive)
}

#[tokio::test]
async fn a_body_s_own_error_is_what_its_caller_sees() {
    let (listener, pod) = listen().await;
    let client = client([pod]);
    let frames = [
        Ok(Frame::data(Bytes::from("a part"))),
        Err(BoxError::from("the disk is gone")),
    ];
    let serve = async {
        let mut frames = greet(&listener, 10).await;
        frames.stream().await;
        frames
    };
    let asked = send(&client, StreamBody::new(stream::iter(frames)));
    let (_frames, asked) = join(serve, asked).await;
    let error = asked.expect_err("no body");
    assert!(error.is_request_body(), "{error:?}");
    let source = std::error::Error::source(&error).expect("a source");
    assert_eq!(source.to_string(), "the disk is gone");
}
