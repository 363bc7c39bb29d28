//! The events of a simulation.

use crate::scenario::Step;

pub(crate) enum Event {
    /// A client sends its next request.
    Arrival { client: usize },
    /// A pod has done the work of a request.
    Finished { pod: usize, job: u64 },
    /// A caller gives up.
    Timeout { request: usize },
    /// The scenario's next step.
    Step(Step),
    /// A client's discovery learns which pods there are.
    Discovered { client: usize, pods: Vec<usize> },
    /// Only time passes: the resolution of tokio's timers, which the balancer uses.
    Tick,
}
