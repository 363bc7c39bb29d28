//! Pods' services for any protocol: what the balancer requires of them, and those that it makes from connections.

mod support;

#[path = "services/connected.rs"]
mod connected;
#[path = "services/contract.rs"]
mod contract;
