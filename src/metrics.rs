//! What is counted, as metrics: on the facade of `metrics`, or on OpenTelemetry's API.
//!
#![doc = include_str!("metrics/table.md")]
