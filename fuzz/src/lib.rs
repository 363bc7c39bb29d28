//! What the fuzz targets share.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `input.rs` | bytes of an input, one after another |
//! | `endpoints.rs` | what must hold for every endpoint of a source, whatever the answer was |
//! | `runtime.rs` | the runtime that all inputs share |
//! | `pods.rs` | loopback pods that a target controls, and a client over them |
//! | `callers.rs` | several callers' requests, and whose bytes their responses may contain |
//! | `requests.rs` | HTTP/1.1 requests as a pod reads them |
//! | `frames.rs` | HTTP/2 frames as a pod reads and writes them |

pub mod callers;
pub mod endpoints;
pub mod frames;
pub mod input;
pub mod pods;
pub mod requests;
pub mod runtime;
