//! Services of pods that speak any protocol: what the balancer asks of them, and those that it makes of connections.

mod support;

#[path = "services/connected.rs"]
mod connected;
#[path = "services/contract.rs"]
mod contract;
