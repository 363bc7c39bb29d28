//! Programs like those that a newcomer would write after an hour with the documentation, each with its author's own
//! tests.

mod axum_json;
mod line_protocol;
mod operator;
mod own_discovery;
mod statefulset_peers;
mod tonic_health;
mod tower_stack;
mod unit_test;
