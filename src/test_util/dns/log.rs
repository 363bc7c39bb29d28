//! The log of queries.

use tokio::time::Instant;

use super::record::RecordType;
use crate::discovery::dns::Transport;

/// One query as it arrived, before any fault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedQuery {
    /// The queried name: lower case, with the trailing dot.
    pub name: String,
    /// The queried type of record.
    pub record_type: RecordType,
    /// UDP or TCP.
    pub transport: Transport,
    /// Whether it had an OPT record (EDNS, RFC 6891).
    pub edns: bool,
    /// When it came.
    pub at: Instant,
}
