//! Internals that the fuzz targets (`fuzz/`) call. Only builds with `--cfg tower_headless_fuzzing` have it.

pub use crate::discovery::dns::fuzzing::{NameServer, discovery, resolv_conf, resolve};
