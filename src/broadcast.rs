//! Broadcasts: one request goes to every endpoint, for cache invalidation, configuration, scatter and gather, quorum
//! reads.
//!
//! ```text
//!  the set when it begins ──▶ queue ──▶ so many at once ──▶ each to its own endpoint, for one life of it ──▶ Answers
//!  those that join, by choice ──▲        │ a slot for each                │ no answer in its time: an error
//!                                        └── all out of time: an error for each that is left ──────────────▶ Answers
//! ```
//!
//! Nothing is spawned: the stream does all the work, and dropping it ends the broadcast.

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

/// How long each endpoint has to answer.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(30);

/// A request to every endpoint, not sent yet: [`Balance::broadcast`], `http::Client::broadcast`.
///
/// Awaiting it sends it, and gives the [`Answers`] as they come. [`all`](Self::all), [`first`](Self::first),
/// [`quorum`](Self::quorum) and [`majority`](Self::majority) wait for so many answers.
///
/// - **Whom it asks**: every endpoint of the set when it begins, in the order of their addresses, whatever the policy
///   prefers: near or far, ejected or failing its checks. Optionally it also asks those that
///   [join](Self::include_joining) while it runs, and one pod may be [left out](Self::leave_out). With a
///   [subset](crate::Subset), it asks all pods that discovery finds: those outside of the subset join the set while the
///   broadcast runs.
/// - **Each endpoint answers for itself**: no other endpoint gets its request, nor a new pod at its address. If it
///   leaves before it gets the request, the answer is an error for which [`Error::is_gone`] is true.
/// - **An endpoint that refuses connections** is tried again up to the [ready
///   timeout](crate::BalanceBuilder::ready_timeout). After that the answer is an error for which
///   [`Error::is_unreachable`] is true; at once if the balancer [fails fast](crate::BalanceBuilder::fail_fast).
/// - **Time**: each endpoint has a [timeout of its own](Self::endpoint_timeout), from when it is asked, and all of them
///   together may have a [deadline](Self::deadline). If an endpoint hasn't answered by then, its error [is a
///   timeout](Error::is_timeout). So is that of an endpoint that refuses connections, if the time is shorter than the
///   ready timeout; its refusal is then the error's source.
/// - **How many at once**: [64](Self::concurrency). Slow endpoints hold up no others while there are fewer of them than
///   that.
///
/// The requests count as in flight, and their outcomes count for their endpoints' health, as with any other requests.
///
/// # Errors
///
/// If discovery has found no endpoint yet, the broadcast waits for the first as a request does, up to the ready timeout
/// or the deadline, and fails with the same error. If discovery says that there are none, it fails at once. Nothing was
/// sent then. A failure at an endpoint is that endpoint's answer, not an error of the whole broadcast.
///
/// # Cancellation
///
/// Dropping it, its future, or the [`Answers`] cancels the requests that are under way, and asks nobody else.
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
    /// Sends a request to every endpoint. See [`Broadcast`].
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

    /// Sends a request to every endpoint. `request` makes each one when its endpoint's turn comes.
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

    /// A broadcast that can't be sent: it fails when it is awaited, and asks nobody.
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

    /// How many endpoints are asked at once; 64 by default, at least 1.
    pub fn concurrency(mut self, endpoints: usize) -> Self {
        self.concurrency = endpoints.max(1);
        self
    }

    /// How long each endpoint has, from when it is asked until its answer begins; 30 s by default. `Duration::MAX`
    /// means for ever.
    pub fn endpoint_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint_timeout = timeout;
        self
    }

    /// How long the whole broadcast may take, from when it is awaited; for ever by default.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Whether to ask also the endpoints that join the set before the last one has answered; `false` by default.
    pub fn include_joining(mut self, include: bool) -> Self {
        self.include_joining = include;
        self
    }

    /// Leaves one pod out, such as the caller itself: by its name or address, or else as [`PodId`] says.
    /// [`majority`](Self::majority) then means a majority of the others. If there is no other pod, the broadcast fails
    /// as it does without endpoints. It also fails with an empty name, such as that of a variable that isn't set, and
    /// says so.
    ///
    /// With A and AAAA records alone, use the address (`status.podIP`): a name leaves nobody out until it has been
    /// looked up.
    pub fn leave_out(mut self, pod: impl Into<PodId>) -> Self {
        if let Ok(plan) = &mut self.plan {
            plan.roster.leave_out(pod.into());
        }
        self
    }

    /// Finds the endpoints to ask.
    async fn begin(self) -> Result<Answers<T, E>, E> {
        let plan = self.plan?;
        let mut deadline = self.deadline.map(Deadline::after);
        // Subscribed before the set is read, so that no change is missed.
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

    /// Waits until every endpoint has answered or timed out, and says which have failed.
    ///
    /// # Errors
    ///
    /// If there is no endpoint to ask. A failed endpoint is not an error here: see [`Collected::failed`].
    pub async fn all(self) -> Result<Collected<T, E>, E> {
        self.first(usize::MAX).await
    }

    /// Waits for this many successes, and cancels the rest. If it gives fewer, every endpoint has answered or failed.
    ///
    /// It asks all endpoints, not only so many. With 0 it asks nobody.
    ///
    /// # Errors
    ///
    /// If there is no endpoint to ask. A failed endpoint is not an error here: see [`Collected::failed`].
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

    /// Waits for this many successes, and cancels the rest. It fails as soon as too few endpoints are left to succeed,
    /// and then cancels the rest, too. With 0 it succeeds at once, and asks nobody.
    ///
    /// # Errors
    ///
    /// If there is no endpoint to ask, or too few exist or succeed. The error has all failures so far.
    pub async fn quorum(self, successes: usize) -> Result<Vec<(Endpoint, T)>, QuorumError<E>> {
        match successes {
            0 => self.plan.map(|_| Vec::new()).map_err(QuorumError::unbegun),
            _ => self.quorum_of(|_| successes).await,
        }
    }

    /// Waits for successes from more than half of the endpoints that there are when it begins; see
    /// [`quorum`](Self::quorum).
    ///
    /// # Errors
    ///
    /// Those of [`quorum`](Self::quorum).
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
