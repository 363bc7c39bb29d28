//! A balancer over scripted sources, under paused time.

#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "kube")]
mod endpoint_slices;

use std::time::Duration;

#[cfg(feature = "dns")]
use tokio::time::Instant;

use super::Balance;
use crate::endpoint::Endpoint;

const SECOND: Duration = Duration::from_secs(1);
