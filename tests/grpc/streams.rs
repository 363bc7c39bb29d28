//! A service with streams in both directions, written like tonic's generated code.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use futures::{FutureExt, StreamExt, channel::mpsc, future::BoxFuture};
use http::uri::PathAndQuery;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{self, NamedService, StreamingService},
};
use tower::Service;

use crate::{client, in_flight, pods, support::within};

/// A codec that leaves messages as they are.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends back each message that it gets.
#[derive(Clone)]
pub(crate) struct Echo;

const PATH: &str = "/test.Echo/Echo";

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        async { Ok(server::Grpc::new(Plain).streaming(Self, request).await) }.boxed()
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = Ready<Result<Response<Streaming<Bytes>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

#[tokio::test]
async fn a_stream_goes_both_ways_at_once() {
    let pods = pods::<2>().await;
    let client = client(&pods);
    let mut echo = client::Grpc::new(client.clone());
    echo.ready().await.expect("always ready");
    let (said, heard) = mpsc::unbounded();
    let call = echo.streaming(Request::new(heard), PathAndQuery::from_static(PATH), Plain);
    let answer = within("a head", call).await.expect("an answer");
    let mut answer = answer.into_inner();
    for word in ["one", "two", "three"] {
        said.unbounded_send(Bytes::from(word)).expect("open");
        let again = within("the word again", answer.next()).await;
        let again = again.expect("a message").expect("no error");
        assert_eq!(again, word, "before the next one is said");
    }
    assert_eq!(in_flight(&client), [0, 1]);
    drop(said);
    let end = within("the end", answer.message()).await;
    assert_eq!(end.expect("no error"), None);
    assert_eq!(in_flight(&client), [0, 0]);
}
