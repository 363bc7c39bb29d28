//! The same request to every endpoint: for cache invalidation, configuration, scatter and gather, quorum reads.
//!
//! ```text
//!  the set when it begins ──▶ queue ──▶ so many at once ──▶ each to its own endpoint, for one life of it ──▶ Answers
//!  those that join, by choice ──▲        │ a slot for each                │ no answer in its time: an error
//!                                        └── all out of time: an error for each that is left ──────────────▶ Answers
//! ```
//!
//! Nothing is spawned: all of it is the stream's, and ends where that is dropped.

mod answers;
mod outcomes;

pub use answers::Answers;
pub(crate) use answers::{Asking, Kind};
pub use outcomes::{Collected, QuorumError};

use std::{
    fmt,
    future::{Future, IntoFuture, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use tower::Service;

use self::answers::{Ask, Deadline, Joining, Terms};
use crate::{
    balance::{Balance, ResponseFuture, Roster},
    endpoint::Endpoint,
    error::{BoxError, Error, SharedError},
    in_flight::Completion,
    route::{PodId, Route, Target},
};

/// How many endpoints are asked at once.
const CONCURRENCY: usize = 64;

/// How long each has to answer.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(30);

/// A request to every endpoint, in the making: [`Balance::broadcast`], `http::Client::broadcast`.
///
/// Awaiting it begins it, and gives the [`Answers`] as they come; [`all`](Self::all), [`first`](Self::first),
/// [`quorum`](Self::quorum) and [`majority`](Self::majority) wait for what they are named after.
///
/// - **Whom it asks**: every endpoint of the set at the time when it begins, in the order of their addresses, whatever the
///   policy prefers: near or far, and also those that are ejected or fail their checks. Those that
///   [join](Self::include_joining) while it runs are asked by choice, and one may be [left out](Self::leave_out).
///   With a [subset](crate::Subset), these are all pods that discovery finds: those outside of the subset join the set for as
///   long as the broadcast runs.
/// - **Each endpoint answers for itself**: no other one gets its request, and no other pod that gets its address meanwhile. One
///   that leaves before it has got the request is an error that [is gone](Error::is_gone).
/// - **One that refuses connections** is tried again for as long as the [ready timeout](crate::BalanceBuilder::ready_timeout),
///   and is an error after that which [is unreachable](Error::is_unreachable). With a balancer that
///   [fails fast](crate::BalanceBuilder::fail_fast) it is one at once.
/// - **Time**: each endpoint has its [own](Self::endpoint_timeout), from when it is asked, and all of them may have a
///   [deadline](Self::deadline). Each that hasn't answered by then is an error that [is a timeout](Error::is_timeout): also one that
///   refuses connections, if that time is shorter than the ready timeout. Its refusal is the error's source then.
/// - **How many at once**: [64](Self::concurrency). A slow one holds up nobody else, as long as there are fewer slow ones than
///   that.
///
/// The requests count as in flight, and what comes of them counts for their endpoints' health, as with any others.
///
/// # Errors
///
/// While discovery has found no endpoint yet, it waits for the first as a request does, up to the ready timeout or the deadline, and
/// fails with the same error; at once if discovery says that there are none. Nothing was sent then. What happens to the request
/// at an endpoint is that endpoint's answer, and no error of the whole.
///
/// # Cancellation
///
/// Dropping this, its future, or the [`Answers`] cancels the requests that are under way, and asks nobody else.
#[must_use = "a broadcast begins when it is awaited"]
pub struct Broadcast<T, E = Error> {
    plan: Result<Plan<T, E>, E>,
    concurrency: usize,
    endpoint_timeout: Duration,
    deadline: Option<Duration>,
    include_joining: bool,
}

/// Whom a broadcast asks, and how.
struct Plan<T, E> {
    roster: Roster,
    ask: Ask<T, E>,
    kind: Kind<T, E>,
}

impl<S, C: Clone> Balance<S, C> {
    /// The same request to every endpoint. See [`Broadcast`].
    ///
    /// ```
    /// use futures::StreamExt;
    /// use tower::service_fn;
    /// use tower_headless::{Balance, BoxError, Endpoint, StaticEndpoints};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let pods = StaticEndpoints::new(["10.244.1.7:80".parse()?, "10.244.2.4:80".parse()?]);
    /// let balance = Balance::builder(pods).build(|_: &Endpoint| {
    ///     service_fn(|key: String| async move { Ok::<_, BoxError>(format!("{key} is gone")) })
    /// });
    /// let mut answers = balance.broadcast("user-42".to_owned()).await?;
    /// while let Some((endpoint, answer)) = answers.next().await {
    ///     match answer {
    ///         Ok(answer) => println!("{endpoint}: {answer}"),
    ///         Err(error) => println!("{endpoint} still has it: {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn broadcast<Req>(&self, request: Req) -> Broadcast<C::Response>
    where
        S: Service<Req, Future: Send> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response, Response: Send>,
        Req: Clone + Send + 'static,
    {
        self.broadcast_with(move |_| request.clone())
    }

    /// A request to every endpoint, made for each by `request`, when its turn comes.
    pub fn broadcast_with<Req>(
        &self,
        mut request: impl FnMut(&Endpoint) -> Req + Send + 'static,
    ) -> Broadcast<C::Response>
    where
        S: Service<Req, Future: Send> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        C: Completion<S::Response, Response: Send>,
        Req: Send + 'static,
    {
        let balance = self.clone();
        let kind = Kind {
            error: |error| error,
            check: Ok,
        };
        Broadcast::new(self.roster(), kind, move |target| {
            let request = request(&target.endpoint);
            let route = Route::new().member(target.clone());
            Box::pin(balance.call_with(request, route))
        })
    }
}

impl<S, Req, C> Asking<C::Response, Error> for ResponseFuture<S, Req, C>
where
    S: Service<Req, Future: Send> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    C: Completion<S::Response>,
    Req: Send + 'static,
{
    fn is_unsent(&self) -> bool {
        self.is_unsent()
    }

    fn refusal(&self) -> Option<SharedError> {
        self.refusal()
    }
}

impl<T, E> Broadcast<T, E> {
    pub(crate) fn new(
        roster: Roster,
        kind: Kind<T, E>,
        ask: impl FnMut(&Target) -> Pin<Box<dyn Asking<T, E>>> + Send + 'static,
    ) -> Self {
        let ask = Box::new(ask);
        Self::of(Ok(Plan { roster, ask, kind }))
    }

    /// One that can't be: it fails when it is awaited, and asks nobody.
    #[cfg(feature = "http")]
    pub(crate) fn failed(error: E) -> Self {
        Self::of(Err(error))
    }

    fn of(plan: Result<Plan<T, E>, E>) -> Self {
        Self {
            plan,
            concurrency: CONCURRENCY,
            endpoint_timeout: ENDPOINT_TIMEOUT,
            deadline: None,
            include_joining: false,
        }
    }

    /// How many endpoints are asked at once; 64 by default, 1 at least.
    pub fn concurrency(mut self, endpoints: usize) -> Self {
        self.concurrency = endpoints.max(1);
        self
    }

    /// How long each endpoint has, from when it is asked until its answer begins; 30 s by default. `Duration::MAX`: for ever.
    pub fn endpoint_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint_timeout = timeout;
        self
    }

    /// How long all of it may take, from when it is awaited; for ever by default.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Whether endpoints are asked, too, that join the set before the last one has answered. They are not by default.
    pub fn include_joining(mut self, include: bool) -> Self {
        self.include_joining = include;
        self
    }

    /// Leaves one pod out, as a peer does itself: by its name or address, or else as [`PodId`] says. So
    /// [`majority`](Self::majority) is one of the others. Where there is no other one, it fails as it does without endpoints; so it
    /// does with an empty name, as that of a variable that isn't set, and says so.
    ///
    /// With A and AAAA records alone, the address (`status.podIP`) is the better one: until a name has been looked up, it leaves
    /// nobody out.
    pub fn leave_out(mut self, pod: impl Into<PodId>) -> Self {
        if let Ok(plan) = &mut self.plan {
            plan.roster.leave_out(pod.into());
        }
        self
    }

    /// Finds whom to ask.
    async fn begin(self) -> Result<Answers<T, E>, E> {
        let plan = self.plan?;
        let mut deadline = self.deadline.map(Deadline::after);
        // Before the look at the set, so that no change falls between the two.
        let changes = self.include_joining.then(|| plan.roster.changes());
        let service = plan.roster.service().cloned();
        let mut gathering = plan.roster.gather();
        let gathered = poll_fn(|cx| match (gathering.poll_unpin(cx), &mut deadline) {
            (Poll::Pending, Some(deadline)) => deadline.poll(cx).map(Err),
            (polled, _) => polled.map(Ok),
        });
        let (gathered, over) = match gathered.await {
            Ok(gathered) => (gathered, None),
            Err(after) => (plan.roster.gathered().map(|it| (it, None)), Some(after)),
        };
        let (targets, whole) = gathered
            .map_err(|error| error.of_service(service.as_ref()))
            .map_err(plan.kind.error)?;
        let joining = changes.map(|changes| Joining::new(changes, &targets));
        let mut answers = Answers::new(Terms {
            ask: plan.ask,
            kind: plan.kind,
            service,
            targets,
            whole,
            roster: plan.roster,
            joining,
            concurrency: self.concurrency,
            endpoint_timeout: self.endpoint_timeout,
            deadline,
        });
        if let Some(after) = over {
            answers.cut(after);
        }
        Ok(answers)
    }

    /// Waits until every endpoint has answered, or has no time left, and tells which have failed.
    ///
    /// # Errors
    ///
    /// If there is no endpoint to be asked. That endpoints fail is no error: see [`Collected::failed`].
    pub async fn all(self) -> Result<Collected<T, E>, E> {
        self.first(usize::MAX).await
    }

    /// Waits for so many successes, and cancels the rest. If there are fewer, every endpoint has answered by then, or failed.
    ///
    /// All of them are asked meanwhile, not only so many. For 0 there is nothing to wait for, and nobody is asked.
    ///
    /// # Errors
    ///
    /// If there is no endpoint to be asked. That endpoints fail is no error: see [`Collected::failed`].
    pub async fn first(self, successes: usize) -> Result<Collected<T, E>, E> {
        let mut collected = Collected::default();
        if successes == 0 {
            return self.plan.map(|_| collected);
        }
        let mut answers = self.begin().await?;
        while collected.answered.len() < successes
            && let Some((endpoint, answer)) = answers.next_checked().await
        {
            collected.add(endpoint, answer);
        }
        Ok(collected)
    }

    /// Waits for so many successes, and cancels the rest. Fails as soon as there can't be so many any more, and then
    /// cancels the rest, too. 0 successes are there at once, and nobody is asked.
    ///
    /// # Errors
    ///
    /// If there is no endpoint to be asked, or too few of them are there or succeed. The error has all failures until then.
    pub async fn quorum(self, successes: usize) -> Result<Vec<(Endpoint, T)>, QuorumError<E>> {
        match successes {
            0 => self.plan.map(|_| Vec::new()).map_err(QuorumError::unbegun),
            _ => self.quorum_of(|_| successes).await,
        }
    }

    /// [`quorum`](Self::quorum) of more than half of the endpoints that there are when it begins.
    ///
    /// # Errors
    ///
    /// As [`quorum`](Self::quorum).
    pub async fn majority(self) -> Result<Vec<(Endpoint, T)>, QuorumError<E>> {
        self.quorum_of(|endpoints| endpoints / 2 + 1).await
    }

    async fn quorum_of(
        self,
        successes: impl FnOnce(usize) -> usize,
    ) -> Result<Vec<(Endpoint, T)>, QuorumError<E>> {
        let mut answers = self.begin().await.map_err(QuorumError::unbegun)?;
        let wanted = successes(answers.left());
        let mut collected = Collected::default();
        while collected.answered.len() < wanted {
            if collected.answered.len() + answers.hopeful() < wanted {
                for (endpoint, error) in answers.take_overdue() {
                    collected.failed.push((endpoint, error));
                }
                return Err(QuorumError::unreached(wanted, collected, answers.left()));
            }
            if let Some((endpoint, answer)) = answers.next_checked().await {
                collected.add(endpoint, answer);
            }
        }
        Ok(collected.answered)
    }
}

impl<T, E> IntoFuture for Broadcast<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<Answers<T, E>, E>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

impl<T, E> fmt::Debug for Broadcast<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast")
            .field("concurrency", &self.concurrency)
            .field("endpoint_timeout", &self.endpoint_timeout)
            .field("deadline", &self.deadline)
            .field("include_joining", &self.include_joining)
            .finish_non_exhaustive()
    }
}
