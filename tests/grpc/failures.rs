//! The status of each failure, over this crate's client and over tonic's own `Channel`.

use std::{
    future::Ready,
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use h2::Reason;
use http::StatusCode;
use tokio::time::timeout;
use tonic::{Code, body::Body, transport};
use tonic_health::pb::health_client::HealthClient;
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, layer::layer_fn, util::BoxCloneService,
};
use tower_headless::{
    StaticEndpoints,
    http::{Client, Protocol, RequestBody, ResponseBody},
};
use tower_http::trace::TraceLayer;

use crate::{
    SERVICE, ask, known,
    scripted::{
        Does::{self, *},
        ScriptedPod, Seen, Then,
    },
    support::{PATIENCE, dns::DnsServer, within},
};

type Transport = BoxCloneService<http::Request<Body>, http::Response<Body>, BoxError>;

async fn ours(pods: &[SocketAddr]) -> Transport {
    boxed(client(pods).await)
}

async fn client(pods: &[SocketAddr]) -> Client {
    let client = Client::builder(SERVICE.parse().expect("a URI"))
        .discovery(StaticEndpoints::new(pods.iter().copied()))
        .protocol(Protocol::Http2)
        .connect_timeout(PATIENCE)
        // As a `Channel` does.
        .fail_fast();
    let client = client.build().expect("a client");
    known(&client, pods.len()).await;
    client
}

/// A client with a layer that replaces the body.
async fn layered(pods: &[SocketAddr]) -> Transport {
    let client = client(pods).await;
    boxed(client.layer(TraceLayer::new_for_grpc()))
}

fn boxed(client: Client) -> Transport {
    let client = ServiceBuilder::new()
        .map_response(|response: http::Response<ResponseBody>| response.map(Body::new))
        .map_err(BoxError::from)
        .service(client);
    BoxCloneService::new(client)
}

fn channel(uri: String) -> Transport {
    let endpoint = transport::Endpoint::from_shared(uri).expect("a URI");
    BoxCloneService::new(endpoint.connect_lazy().map_err(BoxError::from))
}

/// How a call is made.
#[derive(Clone, Copy, Debug)]
enum Call {
    Unary,
    /// With a short deadline.
    Brief,
    /// A stream of messages, of which the first arrives.
    Stream,
    BriefStream,
    /// The request is larger than the limit for sending.
    Long,
    /// The answer is larger than the limit for receiving.
    Short,
}

/// The code that the call ends with.
async fn end(transport: Transport, call: Call, pod: &ScriptedPod) -> Code {
    let mut health = HealthClient::new(transport)
        .max_encoding_message_size(if let Call::Long = call { 1 } else { 1024 })
        .max_decoding_message_size(if let Call::Short = call { 1 } else { 1024 });
    let mut request = tonic::Request::new(ask("a name"));
    if let Call::Brief | Call::BriefStream = call {
        request.set_timeout(match call {
            Call::Brief => Duration::from_millis(50),
            // Enough for the first message to arrive.
            _ => Duration::from_secs(1),
        });
    }
    let end = async {
        let (Call::Stream | Call::BriefStream) = call else {
            return health.check(request).await.map(drop);
        };
        let mut stream = health.watch(request).await?.into_inner();
        let first = stream.message().await?;
        first.ok_or_else(|| tonic::Status::data_loss("no message"))?;
        pod.told.notify_one();
        stream.message().await.map(drop)
    };
    end.await.map_or_else(|status| status.code(), |()| Code::Ok)
}

/// The call never ends over a `Channel`.
const NEVER: Option<Code> = None;

/// Longer than any deadline here: an event that hasn't come by then never comes.
const A_WHILE: Duration = Duration::from_secs(2);

const CLEAR: &str = "nothing of this is unknown: the connection is gone";
const IN_TIME: &str =
    "gRPC's deadline has a code of its own, which tonic gives to its own timeout alone";
const ENDED: &str = "hyper takes it for the end of the response";
const WORDY: &str = "the status is the caller's own encoder's; a Channel wraps it in another";

#[rustfmt::skip]
const TABLE: &[(Does, Call, Code, Option<Code>, &str)] = &[
    // what the pod does                          the call           over Client               over Channel                    why they differ
    (Refuse,                                      Call::Unary,       Code::Unavailable,        Some(Code::Unavailable),        ""),
    (Die,                                         Call::Unary,       Code::Unavailable,        Some(Code::Unknown),            CLEAR),
    (Begin(Then::Die),                            Call::Stream,      Code::Unavailable,        Some(Code::Unknown),            CLEAR),
    (Begin(Then::DieInMessage),                   Call::Stream,      Code::Unavailable,        Some(Code::Unknown),            CLEAR),
    (Hang,                                        Call::Brief,       Code::DeadlineExceeded,   Some(Code::Cancelled),          IN_TIME),
    (Begin(Then::Hang),                           Call::BriefStream, Code::DeadlineExceeded,   NEVER,                          "a Channel's deadline ends with the head"),
    (Status(StatusCode::OK, "4"),                 Call::Unary,       Code::DeadlineExceeded,   Some(Code::DeadlineExceeded),   ""),
    (Answer,                                      Call::Unary,       Code::Ok,                 Some(Code::Ok),                 ""),
    (Answer,                                      Call::Long,        Code::OutOfRange,         Some(Code::Internal),           WORDY),
    (Answer,                                      Call::Short,       Code::OutOfRange,         Some(Code::OutOfRange),         ""),
    (GoAway(Reason::NO_ERROR),                    Call::Unary,       Code::Unavailable,        Some(Code::Unknown),            CLEAR),
    (GoAway(Reason::ENHANCE_YOUR_CALM),           Call::Unary,       Code::Unavailable,        Some(Code::Unknown),            CLEAR),
    (Begin(Then::GoAway(Reason::NO_ERROR)),       Call::Stream,      Code::Unavailable,        Some(Code::Unknown),            CLEAR),
    (Reset(Reason::REFUSED_STREAM),               Call::Unary,       Code::Unavailable,        Some(Code::Unavailable),        ""),
    (Reset(Reason::CANCEL),                       Call::Unary,       Code::Cancelled,          Some(Code::Cancelled),          ""),
    (Reset(Reason::INTERNAL_ERROR),               Call::Unary,       Code::Internal,           Some(Code::Internal),           ""),
    (Reset(Reason::ENHANCE_YOUR_CALM),            Call::Unary,       Code::ResourceExhausted,  Some(Code::ResourceExhausted),  ""),
    (Begin(Then::Reset(Reason::CANCEL)),          Call::Stream,      Code::Cancelled,          Some(Code::Cancelled),          ""),
    (Begin(Then::Reset(Reason::NO_ERROR)),        Call::Stream,      Code::Internal,           Some(Code::Unknown),            ENDED),
    (Begin(Then::Reset(Reason::INTERNAL_ERROR)),  Call::Stream,      Code::Internal,           Some(Code::Internal),           ""),
    (Status(StatusCode::SERVICE_UNAVAILABLE, ""), Call::Unary,       Code::Unavailable,        Some(Code::Unavailable),        ""),
    (Status(StatusCode::NOT_FOUND, ""),           Call::Unary,       Code::Unimplemented,      Some(Code::Unimplemented),      ""),
    (Http1,                                       Call::Unary,       Code::Unavailable,        Some(Code::Unknown),            "no pod speaks HTTP/2 here, so none is reachable"),
    (Tls,                                         Call::Unary,       Code::Unavailable,        Some(Code::Unknown),            "the same"),
];

#[tokio::test]
async fn each_failure_has_tonics_code_or_a_better_one() {
    for &(does, call, here, elsewhere, why) in TABLE {
        let row = format!("{does:?} {call:?}");
        let pod = ScriptedPod::start(does).await;
        let ours = ours(&[pod.address]).await;
        assert_eq!(within(&row, end(ours, call, &pod)).await, here, "{row}");

        let pod = ScriptedPod::start(does).await;
        let layered = layered(&[pod.address]).await;
        let code = within(&row, end(layered, call, &pod)).await;
        assert_eq!(code, here, "{row}, through layers");

        let pod = ScriptedPod::start(does).await;
        let channel = end(channel(format!("http://{}", pod.address)), call, &pod);
        let channels = match elsewhere {
            NEVER => timeout(A_WHILE, channel).await.ok(),
            _ => Some(within(&row, channel).await),
        };
        assert_eq!(channels, elsewhere, "{row}, over a Channel");
        assert_eq!(elsewhere == Some(here), why.is_empty(), "{row}: why");
    }
}

/// Is never ready.
#[derive(Clone)]
struct Broken;

impl Service<http::Request<RequestBody>> for Broken {
    type Response = http::Response<ResponseBody>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("broken")))
    }

    fn call(&mut self, _: http::Request<RequestBody>) -> Self::Future {
        unreachable!("it isn't ready")
    }
}

#[tokio::test]
async fn a_layer_s_failure_is_a_status_too() {
    let pod = ScriptedPod::start(Hang).await;
    let client = client(&[pod.address]).await;
    let timeout = ServiceBuilder::new().timeout(Duration::from_millis(50));
    let late = end(boxed(client.clone().layer(timeout)), Call::Unary, &pod);
    assert_eq!(within("late", late).await, Code::DeadlineExceeded);
    let broken = boxed(client.layer(layer_fn(|_| Broken)));
    let broken = end(broken, Call::Unary, &pod);
    assert_eq!(within("broken", broken).await, Code::Unavailable);
}

#[tokio::test]
async fn an_unknown_name_is_unavailable_over_both_transports() {
    let dns = DnsServer::start().await;
    let service = "http://no-such.default.svc.cluster.local:50051";
    let client = Client::builder(service.parse().expect("a URI"))
        .dns(|it| it.name_servers([dns.addr()]))
        .protocol(Protocol::Http2)
        .fail_fast();
    let pod = ScriptedPod::start(Refuse).await;
    let ours = boxed(client.build().expect("a client"));
    let ours = within("an end", end(ours, Call::Unary, &pod)).await;
    // An empty label, so that the system doesn't even ask DNS.
    let channel = channel("http://no-such..invalid:50051".into());
    let channels = within("an end", end(channel, Call::Unary, &pod)).await;
    assert_eq!([ours, channels], [Code::Unavailable; 2]);
}

#[tokio::test]
async fn an_empty_set_is_unavailable_where_a_channel_waits_for_ever() {
    let pod = ScriptedPod::start(Refuse).await;
    let ours = end(ours(&[]).await, Call::Unary, &pod);
    assert_eq!(within("an end", ours).await, Code::Unavailable);
    let channel = transport::Channel::balance_list(std::iter::empty());
    let channel = BoxCloneService::new(channel.map_err(BoxError::from));
    let channels = timeout(A_WHILE, end(channel, Call::Unary, &pod)).await;
    assert!(channels.is_err(), "{channels:?}");
}

#[tokio::test]
async fn a_pod_learns_of_a_dropped_call_over_both_transports() {
    let pods = [
        ScriptedPod::start(Hang).await,
        ScriptedPod::start(Hang).await,
    ];
    let channel = channel(format!("http://{}", pods[1].address));
    let transports = [ours(&[pods[0].address]).await, channel];
    for (pod, transport) in pods.iter().zip(transports) {
        let has_come = |seen: &Seen| !seen.heads.lock().expect("nobody panics").is_empty();
        let call = end(transport, Call::Unary, pod);
        tokio::select! {
            code = call => panic!("{code:?}"),
            () = within("the call", pod.seen.until(has_come)) => {}
        }
        let has_heard = |seen: &Seen| {
            let resets = seen.resets.lock().expect("nobody panics");
            *resets == [Reason::CANCEL]
        };
        within("the reset", pod.seen.until(has_heard)).await;
    }
}
