//! What discovery by EndpointSlices promises, tested under paused time with a scripted API server.
//!
//! What a real API server sends, and how kube parses it, is tested over sockets in `tests/endpoint_slices.rs`.

mod families;
mod script;
mod sets;
mod sharing;
mod trouble;

use std::{future::poll_fn, time::Duration};

use futures_util::future::poll_immediate;
use tokio::time::{Instant, timeout};

use super::{EndpointSlicesError, error::Reason, settings::Settings, watcher::Watcher};
use crate::{
    discovery::{Discovery, shared::Shared},
    endpoint::Endpoint,
    error::BoxError,
};
pub(crate) use script::Script;
use script::{Asked, hosts};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Discovery that asks the script.
fn discovery(script: &Script) -> Shared<Watcher<Script>> {
    follow("web.default:80", script)
}

/// [`discovery`], for the balancer's suite.
pub(crate) fn scripted(script: &Script) -> impl Discovery + use<> {
    discovery(script)
}

/// Discovery of `target`.
fn follow(target: &str, script: &Script) -> Shared<Watcher<Script>> {
    let settings = Settings::new(target.parse().expect("a target"));
    Shared::new(super::watcher(&settings, script.clone()))
}

/// The next answer: a set or an error.
async fn answer(discovery: &mut impl Discovery) -> Result<Vec<Endpoint>, BoxError> {
    let answer = poll_fn(|cx| discovery.poll_next(cx));
    timeout(PATIENCE, answer).await.expect("an answer")
}

/// The next answer, which is a set.
async fn set(discovery: &mut impl Discovery) -> Vec<Endpoint> {
    answer(discovery).await.expect("a set")
}

/// The next answer, which is an error.
async fn error(discovery: &mut impl Discovery) -> EndpointSlicesError {
    let error = answer(discovery).await.expect_err("an error");
    *error.downcast().expect("the error of this source")
}

/// All answers within `time`.
async fn run(
    discovery: &mut impl Discovery,
    time: Duration,
) -> Vec<Result<Vec<Endpoint>, BoxError>> {
    let end = Instant::now() + time;
    let mut answers = Vec::new();
    while let Ok(answer) = tokio::time::timeout_at(end, answer(discovery)).await {
        answers.push(answer);
    }
    answers
}
