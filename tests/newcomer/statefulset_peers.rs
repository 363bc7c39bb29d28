//! A replicated register of three pods, `web-0` to `web-2`. Writes go to the first, which copies them to its peers.
//! Fresh values are read from two of three.

use http::StatusCode;
use tower_headless::{
    QuorumError,
    http::{Client, Error},
};

#[derive(Clone)]
struct Register {
    pods: Client,
}

impl Register {
    /// Writes to the only pod that takes writes, and waits while it is away.
    async fn write(&self, value: u32) -> Result<(), Error> {
        let primary = self.pods.pod("web-0").own_host();
        primary
            .put("/value")
            .body(value.to_string())
            .await?
            .error_for_status()?;
        Ok(())
    }

    /// Reads from any pod but the one that this runs in.
    async fn read_from_a_peer(&self, me: &str) -> Result<String, Error> {
        self.pods
            .others(me)
            .get("/value")
            .await?
            .error_for_status()?
            .text()
            .await
    }

    /// Reads the newest value of two of three pods.
    async fn read_fresh(&self) -> Result<u32, QuorumError<Error>> {
        let answers = self.pods.get("/value").broadcast().quorum(2).await?;
        let mut newest = 0;
        for (_, answer) in answers {
            let text = answer.text().await.unwrap_or_default();
            newest = newest.max(text.parse().unwrap_or(0));
        }
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex},
    };

    use futures::StreamExt;
    use http_body_util::{BodyExt, Full};
    use tower_headless::{
        BoxError,
        test_util::{Cluster, Mode},
    };

    use super::*;

    /// Starts pods that each keep their own value. Only `web-0` takes writes.
    async fn start() -> (Cluster, Register) {
        let values = Arc::new(Mutex::new(HashMap::<String, String>::new()));
        let cluster = Cluster::builder()
            .stateful_set("web")
            .port_name("http")
            .answer(move |pod, request| {
                let values = values.clone();
                async move {
                    let host = request.headers()["host"].to_str()?.to_owned();
                    let is_write = request.method() == "PUT";
                    let body = request.into_body().collect().await?.to_bytes();
                    let mut values = values.lock().expect("no panic");
                    if is_write {
                        assert_eq!((&*pod, host.split('.').next()), ("web-0", Some("web-0")));
                        values.insert(pod.clone(), String::from_utf8(body.into())?);
                    }
                    let value = values
                        .get(&pod)
                        .cloned()
                        .unwrap_or_else(|| format!("none at {pod}"));
                    Ok::<_, BoxError>(http::Response::new(Full::from(value)))
                }
            })
            .start()
            .await;
        let pods = cluster.client().build().expect("a good builder");
        (cluster, Register { pods })
    }

    #[tokio::test]
    async fn writes_go_to_the_named_pod_and_a_quorum_sees_them() -> Result<(), BoxError> {
        let (cluster, register) = start().await;
        register.write(7).await?;
        cluster
            .pod(2)
            .set(Mode::Status(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(register.read_fresh().await?, 7);
        for _ in 0..6 {
            match register.read_from_a_peer("web-0").await {
                Ok(value) => assert_eq!(value, "none at web-1"),
                Err(error) => assert_eq!(error.pod(), Some("web-2"), "{error}"),
            }
        }
        assert_eq!(
            register
                .pods
                .endpoint("web-1")
                .expect("it is there")
                .address(),
            cluster.pod(1).addr()
        );
        Ok(())
    }

    #[tokio::test]
    async fn without_a_quorum_the_error_says_how_many_are_missing() -> Result<(), BoxError> {
        let (cluster, register) = start().await;
        for pod in [1, 2] {
            cluster
                .pod(pod)
                .set(Mode::Status(StatusCode::INTERNAL_SERVER_ERROR));
        }
        let error = register.read_fresh().await.expect_err("one is too few");
        let text = error.to_string();
        let begin = "no quorum: 2 answers were wanted of 3 endpoints; ";
        assert!(
            text.starts_with(begin) && text.ends_with("500 Internal Server Error"),
            "{text}"
        );
        assert!(error.failed().iter().all(|(_, error)| error.is_status()));
        Ok(())
    }

    #[tokio::test]
    async fn a_pod_that_is_rescheduled_is_waited_for() -> Result<(), BoxError> {
        let (cluster, register) = start().await;
        register.write(1).await?;
        let old = cluster.pod(0).addr();
        cluster.remove_pod(0).await;
        let waiting = tokio::spawn({
            let register = register.clone();
            async move { register.write(2).await }
        });
        let new = cluster.add_pod().await;
        waiting.await??;
        assert_ne!(old, new.addr());
        Ok(())
    }

    #[tokio::test]
    async fn a_pod_that_is_not_there_is_named() -> Result<(), BoxError> {
        let (cluster, _) = start().await;
        let pods = cluster.client().fail_fast().build()?;
        pods.watch().next().await; // now the pods are known
        let error = pods
            .pod("web-7")
            .get("/value")
            .await
            .expect_err("no such pod");
        assert!(error.is_absent() && error.is_unexecuted());
        assert_eq!(error.pod(), Some("web-7"));
        let text = "request to web.default.svc.cluster.local was not sent: pod web-7 isn't there; there are web-0, web-1, web-2";
        assert_eq!(error.to_string(), text);
        Ok(())
    }
}
