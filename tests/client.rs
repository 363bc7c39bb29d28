//! The HTTP client over pods that do what a test tells them, byte by byte where that matters. No DNS: sets are given.

mod support;

#[path = "client/above.rs"]
mod above;
#[path = "client/age.rs"]
mod age;
#[path = "client/ahead.rs"]
mod ahead;
#[path = "client/connections.rs"]
mod connections;
#[path = "client/early.rs"]
mod early;
#[path = "client/frames.rs"]
mod frames;
#[path = "client/framing.rs"]
mod framing;
#[path = "client/from_fn.rs"]
mod from_fn;
#[path = "client/heads.rs"]
mod heads;
#[path = "client/hedge.rs"]
mod hedge;
#[path = "client/http2.rs"]
mod http2;
#[path = "client/keyed.rs"]
mod keyed;
#[path = "client/kit.rs"]
mod kit;
#[path = "client/late.rs"]
mod late;
#[path = "client/layered.rs"]
mod layered;
#[path = "client/limits.rs"]
mod limits;
#[path = "client/local.rs"]
mod local;
#[path = "client/places.rs"]
mod places;
#[path = "client/pushback.rs"]
mod pushback;
#[path = "client/reading.rs"]
mod reading;
#[path = "client/replay.rs"]
mod replay;
#[path = "client/requests.rs"]
mod requests;
#[path = "client/reuse.rs"]
mod reuse;
#[path = "client/runtimes.rs"]
mod runtimes;
#[path = "client/sessions.rs"]
mod sessions;
#[path = "client/tls.rs"]
mod tls;
#[path = "client/tls_kit.rs"]
mod tls_kit;
#[path = "client/tls_pem.rs"]
mod tls_pem;
#[path = "client/tls_refusals.rs"]
mod tls_refusals;
#[path = "client/tls_reload.rs"]
mod tls_reload;
#[path = "client/tls_settings.rs"]
mod tls_settings;
#[path = "client/words.rs"]
mod words;
