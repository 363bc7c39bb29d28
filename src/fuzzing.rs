//! What the fuzz targets (`fuzz/`) call below the public interface. Only a build with `--cfg fuzzing` has it.

pub use crate::discovery::dns::fuzzing::{NameServer, discovery, resolv_conf, resolve};
