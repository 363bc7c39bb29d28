//! What a request takes along from one endpoint to the next: where it wants to go, and until when it waits for that.

use tokio::time::Instant;

use crate::route::Route;

/// One word, empty for most requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Errand(Option<Box<Trip>>);

#[derive(Clone, Debug)]
struct Trip {
    route: Route,
    /// Of a request for one pod, once it has been asked for.
    deadline: Option<Option<Instant>>,
}

impl Errand {
    pub(super) fn new(route: Route) -> Self {
        let has_wishes = !route.is_empty();
        Self(has_wishes.then(|| {
            let deadline = None;
            Box::new(Trip { route, deadline })
        }))
    }

    pub(super) fn route(&self) -> &Route {
        const ANYWHERE: &Route = &Route::new();
        self.0.as_ref().map_or(ANYWHERE, |trip| &trip.route)
    }

    /// Until when the request waits for its pod, which is decided when it first has to.
    pub(super) fn deadline(&mut self, decide: impl FnOnce() -> Option<Instant>) -> Option<Instant> {
        let trip = self.0.as_mut()?;
        *trip.deadline.get_or_insert_with(decide)
    }
}
