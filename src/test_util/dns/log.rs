//! What the server was asked.

use tokio::time::Instant;

use super::record::RecordType;
use crate::discovery::dns::Transport;

/// One query as it arrived, before any fault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedQuery {
    /// The name asked for: lower case, with the trailing dot.
    pub name: String,
    /// The type of record asked for.
    pub record_type: RecordType,
    /// How it came.
    pub transport: Transport,
    /// Whether it came with an OPT record (EDNS, RFC 6891).
    pub edns: bool,
    /// When it came.
    pub at: Instant,
}
