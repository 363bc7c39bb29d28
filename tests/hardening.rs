//! What a determined attempt to break the balancer has found, and what it may do no more.

mod support;

#[path = "hardening/routes.rs"]
mod routes;
#[path = "hardening/trials.rs"]
mod trials;
#[path = "hardening/users.rs"]
mod users;
