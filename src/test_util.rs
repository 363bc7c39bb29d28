//! What tests of your application need.

mod cluster;
mod dns;
mod lock;
mod pod;
mod within;

pub use cluster::{Cluster, builder::ClusterBuilder};
pub use dns::{
    DnsServer,
    fault::Fault,
    glue::Glue,
    log::LoggedQuery,
    record::{RecordType, Srv},
};
pub use pod::{
    Pod,
    builder::PodBuilder,
    mode::{Mode, Stats},
};
pub use within::{PATIENCE, within};
