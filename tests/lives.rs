//! One member, one life: what a pod was before it left is nothing to the one that comes after it; what a request is about is
//! told by its own answer; and a balancer begins whenever it is first used.

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
