//! Faults that a determined attempt to break the balancer has found. Where a test's comment speaks of the past, it
//! describes the fault.

mod support;

#[path = "hardening/routes.rs"]
mod routes;
#[path = "hardening/trials.rs"]
mod trials;
#[path = "hardening/users.rs"]
mod users;
