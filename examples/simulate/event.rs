//! What happens in a simulation.

use crate::scenario::Step;

pub(crate) enum Event {
    /// A client sends its next request.
    Arrival { client: usize },
    /// A pod has done the work of a request.
    Finished { pod: usize, job: u64 },
    /// A caller gives up.
    Timeout { request: usize },
    /// The scenario goes on.
    Step(Step),
    /// A client's discovery learns which pods there are.
    Discovered { client: usize, pods: Vec<usize> },
    /// Nothing but time: tokio's timers, which the balancer waits by, are this exact.
    Tick,
}
