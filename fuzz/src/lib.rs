//! What the fuzz targets have in common.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `input.rs` | bytes of an input, one after another |
//! | `endpoints.rs` | what holds of every endpoint that a source names, whatever the answer was |
//! | `runtime.rs` | the runtime that all inputs share |
//! | `pods.rs` | loopback pods that do what a target says, and the client over them |
//! | `callers.rs` | requests of several callers, and whose bytes their responses may have |
//! | `requests.rs` | HTTP/1.1 requests as a pod reads them |
//! | `frames.rs` | HTTP/2 frames as a pod reads and writes them |

pub mod callers;
pub mod endpoints;
pub mod frames;
pub mod input;
pub mod pods;
pub mod requests;
pub mod runtime;
