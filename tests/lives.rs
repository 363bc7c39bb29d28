//! A member lives once: its successor at the same address inherits nothing; a request's outcome comes from its own
//! answer; and a balancer starts whenever it is first used.

mod support;

#[path = "lives/probes.rs"]
mod probes;
#[path = "lives/replaced.rs"]
mod replaced;
#[path = "lives/retries.rs"]
mod retries;
#[path = "lives/returns.rs"]
mod returns;
#[path = "lives/start.rs"]
mod start;
#[path = "lives/streams.rs"]
mod streams;
