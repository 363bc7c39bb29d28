//! Balance a [`tower::Service`] over the pods of a Kubernetes *headless* Service.
//!
//! A headless Service (`clusterIP: None`) has no virtual IP and no proxy: DNS answers with the addresses of its ready
//! pods, and the choice is the client's. Long-lived connections make that choice last: one connection, one pod, for
//! ever. This crate is that choice, made for each request: it keeps the set of pods fresh, spreads requests over it, and
//! keeps working while pods and DNS fail.
//!
//! ```no_run
//! # use tower::{Service, ServiceExt, service_fn};
//! # async fn send(_: std::net::SocketAddr, request: String) -> Result<String, std::io::Error> { Ok(request) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! use tower_headless::{Balance, Dns, Endpoint, LeastConnections};
//!
//! let discovery = Dns::new("nginx-headless.default:80".parse()?);
//! let mut balance = Balance::builder(discovery)
//!     .policy(LeastConnections::new())
//!     .build(|endpoint: &Endpoint| {
//!         let address = endpoint.address(); // any tower service that talks to one pod
//!         service_fn(move |request: String| send(address, request))
//!     });
//! let response = balance.ready().await?.call("hello".to_owned()).await?;
//! # drop(response);
//! # Ok(())
//! # }
//! ```
//!
//! # Terms
//!
//! | term | means |
//! | --- | --- |
//! | pod, endpoint | one address and port that discovery names, and the pod's name where that is known: an [`Endpoint`]. Types and settings say endpoint; text about Kubernetes says pod |
//! | refuses | takes no request: it can't be connected to, or hands the request back unsent. A pod that answers, be it 503, doesn't refuse |
//! | available, ejected, unreachable, pending | a pod's [state](EndpointState). *Available*: it gets requests. *Ejected*: none, for what its requests or checks came to. *Unreachable*: it refused, and is tried in the background. *Pending*: it is new, and hasn't passed a check. The last three are *passed over* |
//! | away, absent, gone | *Away*: a pod that is asked for by name isn't in the set, and requests wait for it. *Absent*: it still wasn't there when the wait was over ([`Error::is_absent`]). *Gone*: a broadcast's pod left the set before its turn ([`Error::is_gone`]) |
//! | request, attempt | a caller makes one request; each sending of it to a pod is an attempt. Retries and hedges are further attempts |
//! | pick | the policy's choice of a pod for one attempt |
//! | outage | from when no pod accepts requests, until one does |
//!
//! # What it does
//!
//! | when | what happens |
//! | --- | --- |
//! | pods come and go | DNS is asked in the background, at the records' TTL but every 5 s at least; pods that stay keep their connections |
//! | DNS fails | the last set stays, for as long as it takes; [`Balance::staleness`] tells for how long |
//! | DNS answers with nothing | the last set stays until that is [confirmed](OnEmpty); a pod that refuses meanwhile is dropped |
//! | a name server fails or is silent | the next one is asked, and the failed one last for a while; that there is nothing is believed only of the first server that has named pods, or of all; one that has never answered doesn't count |
//! | the name is short | resolv.conf's search list is walked once; a refresh asks for the name that had pods, and no other; an earlier one that gets pods wins back within a minute |
//! | the API server hints which pods are near | they get the requests as long as they have [their fair part](#near-pods-first) of the pods |
//! | a pod refuses a connection | the same request goes to another pod; that one is passed over until it accepts again, and DNS is asked at once |
//! | a pod's requests fail, or get no answer | [it is passed over](#bad-pods) for a while, and then tried with one request |
//! | all addresses of one family refuse | the other family's are used, if there are any |
//! | every pod refuses | requests wait for a new set or a pod that accepts, up to the [ready timeout](BalanceBuilder::ready_timeout) from the outage's start; after that they fail at once |
//! | a pod fails a request that it had | with [`RetryLayer`], or in the HTTP client where that is safe, another pod gets it, within a budget |
//! | an answer is late | with [hedging](Hedge), off by default, the same safe request goes to one more pod, and the first good answer counts; a pod that is slow again and again is passed over for a while |
//! | pods are asked whether they are well | a [`HealthCheck`], by TCP, HTTP, gRPC or anything else: a pod that fails its checks gets no requests until one passes; a new one may have to pass one first |
//! | a request is for one pod | [`Balance::pod`] follows it by its name, waits for it while it is away, and asks no other one; [`Balance::others`] asks any but one |
//! | a request is for all pods | [`Balance::broadcast`] asks each of them, some at a time, and gives the [answers](Answers) as they come |
//! | a request has a key, or a session | its pod is the [same](ConsistentHash) for each request of the key, by the pods' names; with feature `sessions`, a cookie [names it](http::Sessions) |
//! | a request is cancelled | it stops counting as in flight, at any stage |
//! | clients and pods are many | each client uses a [`Subset`] of the pods, with substitutes while too few of it accept requests |
//! | the last clone is dropped | the background task ends and every service is dropped |
//! | a runtime ends, and another one goes on | so does the balancer, [there](Balance#several-runtimes); connections of a runtime that has ended, or that nobody drives, are not used |
//!
//! An endpoint's service has two ways to refuse a request so that it costs its caller nothing: `poll_ready` fails, or
//! the response future fails with [`Unsent`] and the request in it. A service that connects in `poll_ready` loses
//! nothing: [`Connections`] makes one for any protocol, of a function that connects. If a service connects in `call` and consumes
//! the request when that fails, as many HTTP clients do, nothing can be sent again: its error reaches the caller.
//!
//! # HTTP
//!
//! Feature `http` is [`http::Client`]: the balancer over connections of its own, HTTP/1.1 and HTTP/2, with TLS by feature
//! `tls`. What was never written goes to another pod, whatever it is; what was lost is sent again where that is safe. It
//! is a service of `http` requests, for tower's layers and for tonic's generated clients. [Its page](http) begins with an example,
//! and `examples/axum.rs` shows it in axum's handlers. It
//! [finds keys](http::ClientBuilder::key_from) in requests, and feature `sessions` keeps
//! [sessions](http::ClientBuilder::sessions) with their pods.
//!
//! # What no client can do
//!
//! - A request that a pod was executing when it died is lost, unless it may be executed twice. [`Error::is_unsent`]
//!   tells which of the two it was; [`RetryLayer`] sends again what may be, to another pod.
//! - A pod that is terminating leaves DNS while it still serves, and one that is not ready is not in DNS at all.
//! - DNS tells as late as its caches do: up to the records' TTL, 30 s in kubeadm's clusters where something caches them.
//! - One DNS message carries up to 4,091 A or 2,338 AAAA records, or 675 SRV records with their addresses. CoreDNS 1.15
//!   sends up to 1,132 SRV records with a part of the addresses; then, and where a server sends none, the addresses come
//!   from the Service's own name and the pods' hostnames are not known. What doesn't fit even so is an error, and the last set
//!   stays; a watch of EndpointSlices has no such limit.
//!
//! # The set itself
//!
//! If you need the pods and not a balancer, for gossip, sharding or a cache's ring, read [`MembershipStream`], a stream of what joins
//! and leaves. [`ServiceStream`] is the same for tower's own balancers. [`Dns::resolve`] looks once.
//!
//! # Policies
//!
//! | policy | choose it when | cost of a pick |
//! | --- | --- | --- |
//! | [`RoundRobin`] | requests cost about the same; shares must be exact | constant |
//! | [`Random`] | many clients of few requests each, which a common order would synchronise | constant |
//! | [`LeastConnections`] | requests differ in cost, or pods in speed: load moves away from the slow ones | grows up to 256 endpoints, constant above |
//! | [`PowerOfTwo`] | as with least connections, where the set is large: a little less even, and as cheap for any size | constant |
//! | [`PeakEwma`] | pods differ in speed, and latency counts: those that answer late get next to nothing, before requests pile up there | constant |
//! | [`ConsistentHash`] | pods remember: caches, sessions, shards. Requests of one key go to one pod, and stay there while others come and go | constant |
//! | [one of your own](Policy#a-policy-of-your-own) | these don't know what you know of your pods or your requests | yours |
//!
//! A [`BuiltInPolicy`] is read from a configuration: `"least-connections".parse()`. A request may say where it wants to go: a
//! [`Route`] has a key, which policies see, one pod that is wanted, one that is left out, or pods to avoid.
//!
//! Where pods are to get more than others, a source gives them [weights](Endpoint::weight): SRV records do, and any
//! [`Discovery`] of one's own may. Kubernetes knows none.
//!
//! A new pod gets its share at once, or [by and by](BalanceBuilder::slow_start).
//!
//! A pod that answers errors at once looks idle, for it has nothing in flight. So what counts requests in flight goes on
//! counting the failed ones for four times as long as an answer usually takes, so that failing fast attracts nothing;
//! to [`PeakEwma`], a failure is a slow answer besides; and under every policy a pod that goes on failing is [ejected](OutlierDetection).
//!
//! # Bad pods
//!
//! Each request ends once, with an [`Outcome`]: a success, a failure, an overload, or nothing, where it was cancelled or its
//! caller is to blame. The [`Completion`] says which, and a classifier of one's own may ([`OnResponse::by`], [`OnBodyEnd::by`],
//! [`http::ClientBuilder::classify`]). Of HTTP 502, 503 and 504 are failures, and of gRPC `UNAVAILABLE` and
//! `DEADLINE_EXCEEDED`.
//!
//! - **An endpoint is ejected** after 5 failures in a row, or when fewer than 80 % of its requests of 30 s succeed; also when
//!   several of its requests wait and none is answered, four times as long as usual, while the others answer theirs
//!   ([`OutlierDetection`]). A request waits until the head of its response comes: a stream is no silence.
//! - **It comes back** when one request that is let through to it succeeds: after 5 s the first time, and twice as long after
//!   each failure, up to 5 minutes. One that was silent is back at its first answer. A pod that leaves the set and returns is a new one:
//!   nothing of its former life counts.
//! - **Half of the endpoints at most** are out, and never the last one that accepts requests. When fewer than half are
//!   available, all get requests again: so many bad pods are more likely to be something else. Pods that refuse count as not
//!   available.
//! - **Failing fast attracts nothing.** A policy that counts requests goes on counting one that was turned away, four times as
//!   long as an answer takes, so that a pod that says 503 at once never looks idle.
//! - **A caller that gives up** says something of a pod if it has waited for long, and the pod has answered nobody meanwhile: a
//!   timeout around a hung pod is a failure, and a hedge that lost its race is not.
//!
//! What one bad pod of ten does to 2,000 requests a second, measured over HTTP/1.1 (`cargo bench --bench bad_pods`) and
//! computed (`cargo run --release --example simulate`), without anything sent again:
//!
//! | one of ten | | [`RoundRobin`] | [`Random`] | [`LeastConnections`] | [`PowerOfTwo`] | [`PeakEwma`] |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | takes 20 ms, the others 1: p99 | live | 21.7 ms | 21.7 ms | 21.2 ms | 21.3 ms | 2.6 ms |
//! | | simulated | 38.2 ms | 37.9 ms | 19.2 ms | 23.8 ms | 3.2 ms |
//! | its share | live | 10 % | 10 % | 2.1 % | 3.2 % | 0.01 % |
//! | | simulated | 10 % | 9.8 % | 1.9 % | 2.7 % | 0.02 % |
//! | hangs for 3 s: failed of 16,000 | live | 15 | 10–15 | 2 | 4 | 1–2 |
//! | | simulated | 15 | 6 | 6 | 5 | 3 |
//! | answers 503 to 30 %: out after | live | 2.0 s | 2.1 s | 2.9 s | 2.7 s | 3.8 s |
//! | | simulated | 2.2 s | 2.1 s | 2.4 s | 2.2 s | 2.2 s |
//!
//! Live and simulated, the policies rank alike by what a slow pod gets and what it does to the latency. What is simulated are
//! pods with a queue each and service times that vary, which is why they are slower. By how many requests a hung pod costs, only
//! two groups differ measurably: the policies that look at what is in flight, and those that don't.
//!
//! # Near pods first
//!
//! A headless Service has no kube-proxy that would honour its `spec.trafficDistribution`. The control plane puts hints into
//! its EndpointSlices all the same: `PreferSameZone` the zones whose clients a pod is meant for, `PreferSameNode` the nodes
//! as well ([`Endpoint::zone_hints`], [`node_hints`](Endpoint::node_hints)). A balancer that is told where it runs, by
//! [`zone`](BalanceBuilder::zone) and [`node`](BalanceBuilder::node), follows them, over any policy:
//!
//! - **Near** are the pods that are meant for its node; if none is, those that are meant for its zone. As kube-proxy does, it
//!   ignores hints that not all pods have, and those of which none is for it. Without hints all pods are alike, unless
//!   [`prefer_zone`](BalanceBuilder::prefer_zone) or [`prefer_node`](BalanceBuilder::prefer_node) says that the pods in
//!   the same zone or on the same node are the near ones.
//! - **The near pods get** the share `min(1, near ÷ all × zones)` of the requests, by the numbers of pods that accept
//!   requests now, and the others get the rest in proportion, as with Envoy's [zone aware routing]. So everything stays
//!   in the zone as long as its pods are not fewer than in the other zones. If they are, because pods refuse or were never
//!   there, what is too much for them spills over: with 10, 10 and 5 pods in three zones, the zone of 5 keeps 5/25 × 3 = 60 %
//!   of its clients' requests, and each of its pods gets as much as every other one, 1/25 of all. One near pod of many gets no
//!   herd. If no near pod accepts requests, the far ones get them all, and the other way round.
//! - **It assumes** that the clients are spread evenly over the zones that there are hints for (or pods in), for a client
//!   does not know of the others. Where all clients are in one zone, they still send some requests elsewhere only if its
//!   pods are fewer than their fair part; a zone with most of the clients loads its own pods more than the others'.
//!   Of several zones that have less than their fair part, each gets a part of what the others spill: its pods get up to 1.2
//!   times their share while one other of three zones has half of its part, and below twice in any case.
//!
//! [`Balance::endpoints`] says of each pod whether it is [near or far](Proximity). Requests that are sent again stay near in
//! the same proportion.
//!
//! The pod's own node comes from the downward API. Its zone does so from Kubernetes 1.35 on, where pods get the zone of
//! their node as a label (before: by a feature gate, or write it into one Deployment a zone, or let an init container with
//! the right to read nodes look it up):
//!
//! ```yaml
//! env:
//!   - name: NODE_NAME
//!     valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
//!   - name: ZONE
//!     valueFrom: { fieldRef: { fieldPath: "metadata.labels['topology.kubernetes.io/zone']" } }
//! ```
//!
//! ```
//! # use tower_headless::{Balance, Endpoint, StaticEndpoints};
//! # let discovery = StaticEndpoints::new([]);
//! use std::env::var;
//!
//! let balance = Balance::builder(discovery)
//!     .zone(var("ZONE").unwrap_or_default()) // what is empty is not known
//!     .node(var("NODE_NAME").unwrap_or_default())
//!     .build(|endpoint: &Endpoint| endpoint.address());
//! ```
//!
//! [zone aware routing]: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware
//!
//! # Seeing why
//!
//! [`Balance::explain`] and [`http::Client::explain`] tell of each pod whether a request would get it now, and if not why, since when,
//! and when it is tried next; its load, share, latency and last error; who answered for discovery, and what failed there; what has
//! happened in the last hour. What is wrong now comes first, in sentences. Print it, or write it as JSON (feature `serde`):
//!
//! ```
//! # use tower_headless::{Balance, Endpoint, StaticEndpoints};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_headless::Error> {
//! # let discovery = StaticEndpoints::new(["10.244.1.7:80".parse().unwrap()]);
//! let balance = Balance::builder(discovery)
//!     .name("greeter")
//!     .counters(true) // what needs a memory; an HTTP client has it unless told otherwise
//!     .build(|pod: &Endpoint| pod.address());
//! # balance.discovered().await?;
//! let explanation = balance.explain();
//! assert_eq!((explanation.available, explanation.size), (1, 1));
//! assert!(explanation.trouble.is_empty(), "{explanation}");
//! # Ok(())
//! # }
//! ```
//!
//! A pod's share is that of the very next request, worked out from loads and latencies as the policy sees them, with weights, slow start
//! and near pods first. Under [`ConsistentHash`] it is a part of the keys, beside the part that is at home there (`key_share`), and
//! [`Balance::explain_key`] says which pod has a key, which ones come next, and why those before it don't get it.
//!
//! # Logging
//!
//! Events are [tracing](https://docs.rs/tracing)'s. Each names its `service` ([`BalanceBuilder::name`], by default
//! discovery's), and where it is about one, the `endpoint`; why something happened is in `error` or `reason`. Errors are told in
//! one line with all their causes, but for the warning that shows a Role to copy.
//!
//! | target | `warn` and `error` | `info` | `debug` |
//! | --- | --- | --- | --- |
//! | `tower_headless::discovery` | discovery fails (a text once in ten minutes); settings, slices and addresses that make no sense | it succeeds again; another source or address family is used | each failed look, each name server that fails |
//! | `tower_headless::endpoints` | too few are healthy, so that some get requests that would be passed over; a service, a policy or the background task has panicked | the set has changed, with how many have joined and left; an endpoint refuses, accepts again, is ejected, readmitted, fails its checks; enough are healthy again | each one that joins or leaves; each check and each attempt to reconnect that fails |
//! | `tower_headless::requests` | | | a request is refused unsent, sent again, or hedged: with pod and cause, over HTTP with the method |
//! | `tower_headless::connections` | TLS files can't be used | they are read again | connections made, failed, broken, closed |
//!
//! Nothing is told of single requests at `info`. Of changes of single endpoints, `info` has the first 20 of a minute, and then one line
//! with how many more of each kind there were; `debug` has them all. A URI's query, headers and credentials are in no event and no
//! span.
//!
//! With `tracing_subscriber`'s `EnvFilter`, `RUST_LOG=info,tower_headless::requests=debug` tells of retries. An `EnvFilter` goes by
//! the fields of spans, not of events: `tower_headless::requests[{service=web-headless.default}]=debug` is for the
//! requests of one service that have [spans](#spans). For all that is told of one service, have a `Filter` whose `event_enabled`
//! looks at `service`, or choose by it where logs are read.
//!
//! ## Spans
//!
//! [`http::ClientBuilder::request_spans`] gives each request a span, at `info` under `tower_headless::requests`, from the call to the end
//! of the response's body, or to its drop. It has the attributes of [OpenTelemetry's conventions] for HTTP clients
//! (`http.request.method`, `server.address`, `server.port`, `url.full` without its query, `http.response.status_code`, `error.type`,
//! `http.request.resend_count`, `network.peer.address`, `network.peer.port`, `otel.name`, `otel.status_code`), or of gRPC's
//! (`rpc.system`, `rpc.service`, `rpc.method`, `rpc.grpc.status_code`). In it, each attempt has a span `attempt` with its pod and what came
//! of it: the first, retries, and hedges, of which the one that loses is `cancelled`.
//!
//! Around [layers](http::Client::layer) there is one span, and it is the current one in them. So a layer puts its context into requests.
//! All attempts of a request send the same:
//!
//! ```
//! # #[cfg(feature = "http")]
//! # fn main() -> Result<(), tower_headless::BoxError> {
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # let _entered = runtime.enter();
//! # fn traceparent(_: tracing::Span) -> Option<http::HeaderValue> { None }
//! use http::Request;
//! use tower::util::MapRequestLayer;
//! use tower_headless::http::{Client, RequestBody};
//!
//! let inject = |mut request: Request<RequestBody>| {
//!     // With tracing-opentelemetry: `span.context()`, and the propagator's `inject_context`.
//!     if let Some(value) = traceparent(tracing::Span::current()) {
//!         request.headers_mut().insert("traceparent", value);
//!     }
//!     request
//! };
//! let client = Client::builder("http://web-headless.default:80".parse()?)
//!     .request_spans(true)
//!     .build()?
//!     .layer(MapRequestLayer::new(inject));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "http"))]
//! # fn main() {}
//! ```
//!
//! A tonic interceptor runs before the client, and has its caller's span for the current one.
//!
//! [OpenTelemetry's conventions]: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
//!
//! # Architecture
//!
//! ```text
//!  DNS answer ───▶ discovery ──▶ whole set of endpoints ──▶ snapshot (one Arc, swapped)
//!  (A, AAAA, SRV)  schedule decides when to ask again          │ immutable: endpoints, members, prepared picker
//!                      ▲                                       ▼
//!                      │   request ──▶ Balance::call ──▶ pick ──▶ endpoint's service: poll_ready ──▶ call ──▶ response
//!                      │    (+ Route)       ▲               │                │                    │
//!                      │                    └───────────────┴── the request comes back, unsent ◀──┘
//!                      │                                                     │
//!  "ask again" ◀── background task ◀── "this member refuses" ◀───────────────┘
//!                      └──▶ tries it after a back-off ──▶ it accepts: picked again
//!
//!  response (or its body) ends, or is dropped ──▶ in-flight guard drops ──▶ one request fewer, and its outcome
//! ```
//!
//! With a [`Subset`] the whole set passes through `balance/part.rs` before the snapshot's writer sees it: what is below it knows of no
//! other pods. While a broadcast runs, the part is the whole, and what is outside of the subset has weight zero.
//!
//! ```text
//!  whole set of endpoints ──▶ part: this client's order (subset.rs) ──▶ the first of it ──▶ snapshot
//!  the client's own peers ────────────┘      more of it ◀── background task ◀── "too few of these accept requests"
//! ```
//!
//! The background task (`balance/driver.rs`) is the one writer. It keeps a registry of members (`balance/registry.rs`), which
//! holds all that is known of an endpoint, for one life:
//!
//! ```text
//!  source's answer ─▶ compare(old set, new set) ─▶ joined: Member::new (a new life, even at an old address)
//!     (comparison.rs, the only place)           ├▶ stayed: what is newly known of it
//!                                               └▶ left:   no pick takes it, its requests end, then nothing of it is left
//!
//!  requests' ends ─┐                                                            ┌─▶ status word: ejected, unfit, unreachable
//!  checks ─────────┼─▶ observations ─▶ outlier detector (pure) ─▶ decisions ────┼─▶ one trial request on offer
//!  refusals ───────┘                                                            └─▶ picks see it at once, in one word
//! ```
//!
//! A broadcast is many requests, each with a [`Route`] to one member for one life of it, and nobody's task but its reader's. A
//! subset is made the whole first:
//!
//! ```text
//!  broadcast ─▶ the members now ─▶ 64 at once ─▶ Balance::call_with (route: this member) ─▶ answers, as they come
//!     (those that join, by choice) ──▲                 └── no time left, refuses, has left ─▶ an error of that endpoint
//! ```
//!
//! Hedging is another request beside the first, of the same caller's future (`hedge/race.rs`):
//!
//! ```text
//!  request ─▶ one pod ── late by all pods' usual p95 ──▶ another pod (Route: not the first), if share and budget allow
//!                │                                          │
//!                └── the first good answer is the caller's ─┴─▶ the other one is cancelled ─▶ lost three times: "slow"
//! ```
//!
//! A request for one pod carries its name, not its address: each look at the set finds where the pod is by then. Where the
//! source doesn't tell names, it is told which ones are asked for, and looks for them:
//!
//! ```text
//!  Balance::pod("web-0") ─▶ call_with (route: web-0) ─▶ the member of that name ── none, or it refuses ──▶ waits, then an error
//!            │                                                   ▲
//!            └── once a minute: "web-0 is asked for" ─▶ discovery ──▶ endpoint with this hostname
//! ```
//!
//! What is not in a subset is taken into it first ("one waits for web-0" ─▶ part, with weight zero). A name that has been looked up
//! so is none that keys or subsets go by: other clients don't know it.
//!
//! Over HTTP, a request that names neither a pod nor a key may get its [`Route`] from what it brings, and its response tells the next
//! one (`http/affinity.rs`):
//!
//! ```text
//!  request ─▶ header, cookie, path ─▶ Route: this key ──────────────┐
//!     └─▶ session's cookie, opened ─▶ Route: rather this pod, ──────┴─▶ Balance::call_with ─▶ another pod than that has answered
//!                                     and this key if it is out                                └─▶ a new cookie, and the hook
//! ```
//!
//! The way of a request: `balance.rs` (`call`) ▶ `balance/place.rs` (which endpoint gets it, and what if that refuses) ▶
//! `snapshot.rs` (`pick`) ▶ `policy/` ▶ `balance/future.rs` (to the response) ▶ `in_flight.rs` (to its end).
//!
//! | file | what lives there |
//! | --- | --- |
//! | `sync.rs`, `interleavings.rs`, `interleavings/` | the atomics and the lock by which threads meet: std's, or those of a checker; what the tests under such a checker share |
//! | `endpoint.rs`, `endpoint/counted.rs` | one pod as discovery names it, and when two answers mean the same pod; which of a set count |
//! | `stable_hash.rs` | a hash that is the same everywhere and always |
//! | `comparison.rs` | how two sets differ: who joined, left, stayed |
//! | `error.rs` | what can go wrong |
//! | `logs.rs`, `logs/` | one way to write an event, which names its service; how many changes of single endpoints are told as `info` |
//! | `backoff.rs` | growing delays and jitter |
//! | `home.rs` | which runtime something lives in, and timers that may move to another one |
//! | `signals.rs` | rare conditions that each pick checks with one load: a trial on offer, a new endpoint, an outage |
//! | `counters.rs`, `counters/` | what is counted of requests, endpoint by endpoint and in all; a histogram of latencies |
//! | `latency.rs`, `latency/` | how long an endpoint takes to answer: a moving average that believes bad news at once, and a 95th percentile |
//! | `member.rs`, `member/` | one endpoint as a balancer has it, for one life: status word, requests in flight, statistics; a set of them, as policies see it |
//! | `route.rs`, `route/` | what a request says of where it wants to go; what one pod is asked for by |
//! | `outcome.rs` | what a request's end says of its endpoint |
//! | `in_flight.rs`, `in_flight/` | the guard that counts a request from the pick to the end of its response, and reports what came of it |
//! | `outlier.rs`, `outlier/` | which endpoints are passed over for what their requests came to: observations in, decisions out; pure |
//! | `check.rs`, `check/scheduler.rs` | how endpoints are asked whether they are well; which one when; the latter pure |
//! | `policy.rs`, `policy/` | which endpoint gets a request, one algorithm a file; the traits for policies of one's own |
//! | `locality.rs`, `locality/split.rs` | which endpoints are near the client; the two groups under any policy |
//! | `snapshot.rs`, `snapshot/` | the immutable set; one writer, many readers |
//! | `discovery.rs` | where sets come from |
//! | `discovery/fallback.rs`, `discovery/stream_discovery.rs` | a primary source with a fallback; any stream of sets as a source |
//! | `discovery/failure_log.rs` | which of a source's failures are worth a warning |
//! | `discovery/schedule.rs` | when to ask again, what to believe; pure |
//! | `discovery/shared.rs`, `discovery/shared/` | one source for the readers of each runtime |
//! | `discovery/dns.rs`, `discovery/dns/` | A, AAAA and SRV lookups, short names, name servers; `client.rs` alone of it names hickory |
//! | `discovery/filter.rs` | which addresses can be pods |
//! | `discovery/endpoint_slices.rs`, `discovery/endpoint_slices/` | feature `kube`: the API server's slices, listed and watched; nothing else names kube |
//! | `subset.rs`, `subset/` | which part of a set a client uses: its order of the pods, and how much of that; pure |
//! | `membership.rs`, `membership/` | what joins and leaves, for those who need the set itself |
//! | `explain.rs`, `explain/` | why requests go where they go: plain data that a balancer makes of itself, and its text |
//! | `balance.rs`, `balance/` | the service, its builder and layer, its future, its one background task and the registry of members |
//! | `balance/connected.rs`, `balance/connected/` | a pod's service over connections of any protocol: one for each request, or one for all |
//! | `pinned.rs` | the services of one pod, and of all but one |
//! | `broadcast.rs`, `broadcast/` | the same request to every endpoint: who is asked when, and what it all comes to |
//! | `hedge.rs`, `hedge/` | a second endpoint asked while the first one is late: one engine, for `retry` and `http` |
//! | `retry.rs`, `retry/` | requests sent again, elsewhere and within a budget: one engine, the layer, its policies |
//! | `http.rs`, `http/` | feature `http`: the client, one pool of connections for each pod |
//! | `naming.rs` | a page of the documentation: how to name a balancer's type |
//! | `test_util.rs`, `test_util/` | feature `test-util`: a DNS server, pods and a cluster of both, for tests; nothing else names it, and `test_util/dns/wire.rs` alone of it names hickory |
//! | `fuzzing.rs`, `discovery/dns/fuzzing.rs` | what the fuzz targets (`fuzz/`) call below the public interface; in no other build |
//!
//! Imports go downwards only, between the rooms and inside them; policies and discovery never meet. Decision code (`schedule`,
//! `policy`, `subset`, `outlier`, `scheduler`, `reconnect`, `share`) does no I/O, reads no clock and draws from the generator it is given. A pick
//! allocates nothing, and takes no lock unless its balancer is [seeded](BalanceBuilder::seed).
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `dns` | yes | [`Dns`]: discovery by A, AAAA and SRV records, on hickory-proto |
//! | `http-body` | yes | [`OnBodyEnd`]: HTTP requests count as in flight to the end of the response's body |
//! | `http` | no | [`http::Client`]: HTTP/1.1 and HTTP/2, on hyper, over the pods that `dns`, or any other discovery, finds; [`HealthCheck::http`] and [`HealthCheck::grpc`] |
//! | `json` | no | JSON in requests and responses: [`http::RequestBuilder::json`], [`http::Response::json`] |
//! | `inspect` | no | [`inspect`]: a page that shows all balancers of a process, and JSON beside it |
//! | `metrics`, `otel` | no | [`metrics`]: what is counted, on the facade of that name, or on OpenTelemetry's API |
//! | `serde` | no | [`Explanation`] and [`BalanceCounts`] can be written and read, as JSON and the like |
//! | `sessions` | no | [`http::Sessions`]: sticky sessions by cookie or header, on cookie |
//! | `test-util` | no | [`test_util`]: an embedded DNS server, pods that fail on demand and a cluster of both, and [clients that a function answers](http::Client::from_fn), for [your own tests](test_util#how-to-test-your-application) |
//! | `tls` | no | HTTPS, on rustls; takes one of the two below |
//! | `tls-ring`, `tls-aws-lc` | no | its provider of cryptography |
//! | `tls-native-roots`, `tls-webpki-roots` | no | the system's and Mozilla's authorities, beside those of a file |
//! | `kube` | no | [`EndpointSlices`]: discovery by a watch of the API server, on kube; from Rust 1.89; takes a version of k8s-openapi, and one of the two below or above |
//! | `kube-ring`, `kube-aws-lc` | no | its provider of cryptography |
//! | `kube-latest` | no | all of it, for applications that don't care which |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod balance;
mod broadcast;
mod check;
mod comparison;
mod counters;
mod discovery;
mod endpoint;
mod error;
mod explain;
#[cfg(all(fuzzing, feature = "dns"))]
#[doc(hidden)]
pub mod fuzzing;
mod hedge;
mod home;
#[cfg(feature = "http")]
pub mod http;
mod in_flight;
#[cfg(feature = "inspect")]
pub mod inspect;
#[cfg(all(test, any(tower_headless_loom, tower_headless_shuttle)))]
mod interleavings;
mod latency;
mod locality;
mod logs;
mod member;
mod membership;
#[cfg(any(feature = "metrics", feature = "otel"))]
pub mod metrics;
#[cfg(all(feature = "http", any(doc, doctest)))]
pub mod naming;
mod outcome;
mod outlier;
mod pinned;
mod policy;
mod retry;
mod route;
mod signals;
mod snapshot;
mod stable_hash;
mod subset;
mod sync;
#[cfg(feature = "test-util")]
pub mod test_util;

pub use balance::{
    Balance, BalanceBuilder, BalanceLayer, Connected, ConnectedFuture, Connections, EndpointState,
    EndpointStatus, Proximity, ResponseFuture,
};
pub use broadcast::{Answers, Broadcast, Collected, QuorumError};
pub use check::HealthCheck;
pub use counters::{
    BalanceCounts, DiscoveryCounts, EjectionCounts, EndpointCounts, FailureCounts, LATENCY_BOUNDS,
    LatencyCounts, RetryCounts, WaitCounts, Waits,
};
#[cfg(feature = "kube")]
pub use discovery::endpoint_slices::{
    EndpointSlices, EndpointSlicesError, ParseServiceTargetError, ServiceTarget,
};
pub use discovery::{
    Discovery, DiscoveryReport, StaticEndpoints, fallback::Fallback,
    stream_discovery::StreamDiscovery,
};
#[cfg(feature = "dns")]
pub use discovery::{
    dns::{Dns, LookupError, ParseTargetError, Resolution, Target, Transport},
    schedule::OnEmpty,
};
pub use endpoint::Endpoint;
pub use error::{BoxError, Error, Unsent};
pub use explain::{
    Balancers, DiscoveryExplanation, EndpointExplanation, Event, EventKind, Explainer, Explanation,
    KeyChoice, KeyExplanation, LastError, PolicyExplanation, Verdict,
};
pub use hedge::Hedge;
pub use in_flight::{Completion, InFlight, OnResponse};
#[cfg(feature = "http-body")]
pub use in_flight::{CountedBody, OnBodyEnd};
pub use member::{EjectionReason, Members};
pub use membership::{MembershipChange, MembershipStream, ServiceStream};
pub use outcome::{ByResult, Classify, Outcome};
#[cfg(feature = "http-body")]
pub use outcome::{ByStatus, ClassifyHttp};
pub use outlier::OutlierDetection;
pub use pinned::Pinned;
pub use policy::{
    BuiltInPolicy, ConsistentHash, LeastConnections, ParsePolicyError, PeakEwma, Picker, Policy,
    PowerOfTwo, Previous, Random, RoundRobin,
};
#[cfg(feature = "http-body")]
pub use retry::RetryUnavailable;
pub use retry::{Retry, RetryFailed, RetryFuture, RetryLayer, RetryPolicy};
pub use route::{PodId, Route, RouteKey};
pub use subset::Subset;
