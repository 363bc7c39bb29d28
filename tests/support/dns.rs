//! The crate's own DNS server.

pub use tower_headless::{
    Transport,
    test_util::{DnsServer, Fault, Glue, LoggedQuery, RecordType, Srv},
};
