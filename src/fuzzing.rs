//! Internals that the fuzz targets (`fuzz/`) call. Only builds with `--cfg fuzzing` have it.

pub use crate::discovery::dns::fuzzing::{NameServer, discovery, resolv_conf, resolve};
