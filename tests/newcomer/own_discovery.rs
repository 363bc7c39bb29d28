//! A discovery of our own: a registry gives pods with weights. If it is down, a list in the configuration is used.

use std::{
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use futures::{TryStreamExt, stream};
use tokio::sync::mpsc;
use tower_headless::{BoxError, Discovery, Endpoint, StaticEndpoints, StreamDiscovery};

/// What the registry pushes: the pods with their weights, or an error.
type News = Result<Vec<(SocketAddr, u32)>, String>;

struct Registry(mpsc::Receiver<News>);

impl Discovery for Registry {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Endpoint>, BoxError>> {
        match ready!(self.0.poll_recv(cx)) {
            Some(Ok(pods)) => Poll::Ready(Ok(pods.into_iter().map(endpoint).collect())),
            Some(Err(why)) => Poll::Ready(Err(why.into())),
            None => Poll::Pending,
        }
    }

    fn name(&self) -> Option<String> {
        Some("shop".into())
    }
}

/// The registry as a source with less code, and without a name.
fn streamed(mut news: mpsc::Receiver<News>) -> StreamDiscovery {
    let news = stream::poll_fn(move |cx| news.poll_recv(cx));
    StreamDiscovery::fallible(news.map_ok(|pods| pods.into_iter().map(endpoint)))
}

fn endpoint((address, weight): (SocketAddr, u32)) -> Endpoint {
    Endpoint::new(address).with_weight(weight)
}

fn discovery(news: mpsc::Receiver<News>, configured: Vec<SocketAddr>) -> impl Discovery {
    Registry(news).or(StaticEndpoints::new(configured))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use futures::StreamExt;
    use tower::{service_fn, util::BoxCloneSyncService};
    use tower_headless::{Balance, Error, Route};

    use super::*;

    type Pod = BoxCloneSyncService<(), SocketAddr, BoxError>;

    fn balance(discovery: impl Discovery) -> Balance<Pod> {
        let builder = Balance::builder(discovery).ready_timeout(Duration::from_secs(10));
        builder.build(|pod: &Endpoint| {
            let address = pod.address();
            Pod::new(service_fn(move |()| async move { Ok(address) }))
        })
    }

    fn pod(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 80).into()
    }

    async fn ask(
        balance: &Balance<Pod>,
        times: usize,
    ) -> Result<BTreeMap<SocketAddr, usize>, Error> {
        let mut answers = BTreeMap::new();
        for _ in 0..times {
            *answers
                .entry(balance.call_with((), Route::new()).await?)
                .or_default() += 1;
        }
        Ok(answers)
    }

    #[tokio::test(start_paused = true)]
    async fn pods_get_requests_by_their_weights() -> Result<(), BoxError> {
        let (own, of_own) = mpsc::channel(8);
        let (stream, of_stream) = mpsc::channel(8);
        let own = (own, balance(Registry(of_own)));
        let stream = (stream, balance(streamed(of_stream)));
        for (registry, balance) in [own, stream] {
            registry.send(Ok(vec![(pod(1), 3), (pod(2), 1)])).await?;
            let answers = ask(&balance, 40).await?;
            assert_eq!(answers, [(pod(1), 30), (pod(2), 10)].into());
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_registry_is_away_the_configured_pods_are_used() -> Result<(), BoxError> {
        let (registry, news) = mpsc::channel(8);
        let balance = balance(discovery(news, vec![pod(9)]));
        let mut changes = balance.watch();
        registry.send(Err("the registry is away".into())).await?;
        assert_eq!(ask(&balance, 2).await?, [(pod(9), 2)].into());

        registry.send(Ok(vec![(pod(1), 1)])).await?;
        while changes.next().await.expect("the balancer lives").endpoints != [Endpoint::new(pod(1))]
        {
        }
        assert_eq!(ask(&balance, 2).await?, [(pod(1), 2)].into());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_s_error_includes_the_registry_s_error() -> Result<(), BoxError> {
        let (registry, news) = mpsc::channel(8);
        let balance = balance(Registry(news));
        registry.send(Err("the registry is away".into())).await?;
        let error = ask(&balance, 1).await.expect_err("no pods");
        assert!(error.is_no_endpoints());
        let text = "request to shop was not sent: no endpoints: discovery has found none within 10s (`ready_timeout`): the registry is away";
        assert_eq!(error.to_string(), text);
        Ok(())
    }
}
