//! What an operator sees and sets: the policy in a configuration, the state of the pods and its age, and errors.

use std::{fmt::Write, time::Duration};

use http::Uri;
use tower_headless::{
    BoxError, BuiltInPolicy,
    http::{Client, ClientBuilder, Error},
};

/// Lines of `key = value`.
struct Config {
    service: Uri,
    policy: BuiltInPolicy,
    ready_timeout: Duration,
}

impl Config {
    fn read(text: &str) -> Result<Self, BoxError> {
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let line = lines.find(|(name, _)| name.trim() == key);
            line.map(|(_, value)| value.trim())
                .ok_or_else(|| format!("`{key}` is missing"))
        };
        Ok(Self {
            service: value("service")?.parse()?,
            policy: value("policy")?.parse()?,
            ready_timeout: Duration::from_millis(value("ready_timeout_ms")?.parse()?),
        })
    }

    fn client(&self) -> ClientBuilder {
        Client::builder(self.service.clone())
            .policy(self.policy.clone())
            .ready_timeout(self.ready_timeout)
    }
}

/// The page at `/debug/pods`.
fn page(client: &Client) -> String {
    let mut page = String::new();
    for pod in client.endpoints() {
        writeln!(page, "{pod}").expect("text");
    }
    let age = client.staleness();
    let age = age.map_or("never".into(), |age| format!("{} s ago", age.as_secs()));
    writeln!(page, "discovery answered {age}").expect("text");
    page
}

/// Decides from an error whom to wake, if anybody.
fn alarm(error: &Error) -> &'static str {
    match error {
        it if it.is_no_endpoints() => "whoever deploys: is it scaled to zero, is the name right?",
        it if it.is_unreachable() => "whoever runs the pods: none accepts connections",
        it if it.is_timeout() => "whoever runs the pods: they are slow",
        it if it.is_request() => "us: the request makes no sense",
        _ => "nobody",
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tower_headless::test_util::{Cluster, within};

    use super::*;

    fn config(cluster: &Cluster, policy: &str) -> Result<Config, BoxError> {
        let service = cluster.uri();
        Config::read(&format!(
            "service = {service}\npolicy = {policy}\nready_timeout_ms = 2000"
        ))
    }

    fn client(cluster: &Cluster) -> Result<Client, BoxError> {
        let name_server = cluster.dns().addr();
        let client = config(cluster, "least_connections")?.client();
        let client = client.dns(|dns| {
            let dns = dns.name_servers([name_server]).allow_loopback(true);
            dns.refresh_interval(Duration::from_millis(20))
        });
        Ok(client.build()?)
    }

    #[test]
    fn the_error_of_a_wrong_policy_lists_the_right_ones() {
        let text = "service = http://web.default:80\npolicy = fastest\nready_timeout_ms = 50";
        let error = Config::read(text)
            .err()
            .expect("no such policy")
            .to_string();
        for right in [
            "fastest",
            "round-robin",
            "least-connections",
            "consistent-hash",
        ] {
            assert!(error.contains(right), "{error}");
        }
    }

    #[tokio::test]
    async fn pods_that_come_and_go_are_seen() -> Result<(), BoxError> {
        let cluster = Cluster::start(3).await;
        let client = client(&cluster)?;
        assert_eq!(page(&client), "discovery answered never\n");
        let mut changes = client.watch();
        for pods in [3, 5, 2] {
            cluster.scale(pods).await;
            let seen = async {
                while changes
                    .next()
                    .await
                    .expect("the client lives")
                    .endpoints
                    .len()
                    != pods
                {}
            };
            within("the change", seen).await;
            client.get("/").await?;
            let page = page(&client);
            for pod in cluster.pods() {
                let line = format!("{}: available, 0 in flight\n", pod.addr());
                assert!(page.contains(&line), "{page}");
            }
            assert!(
                page.contains("discovery answered ") && page.ends_with(" s ago\n"),
                "{page}"
            );
            assert_eq!(page.lines().count(), pods + 1);
        }
        Ok(())
    }

    #[tokio::test]
    async fn errors_say_whom_to_wake() -> Result<(), BoxError> {
        let cluster = Cluster::start(1).await;
        let client = client(&cluster)?;
        let error = client.get("no slash").await.expect_err("no path");
        assert!(alarm(&error).starts_with("us"), "{error}");

        client.get("/").await?;
        cluster.kill(0).await;
        let error = client.get("/").await.expect_err("none is left");
        assert!(
            alarm(&error).contains("none accepts connections"),
            "{error}"
        );
        let text = error.to_string();
        let begin = "request to web.default.svc.cluster.local was not sent: ";
        assert!(text.starts_with(begin), "{text}");
        let pod = cluster.pod(0).addr();
        assert!(
            text.contains(&pod.to_string()) && text.contains("refused"),
            "{text}"
        );
        let page = page(&client);
        assert!(
            page.starts_with(&format!("{pod}: unreachable, 0 in flight\n")),
            "{page}"
        );
        Ok(())
    }

    #[tokio::test]
    async fn a_service_without_pods_is_told_apart_from_pods_that_are_down() -> Result<(), BoxError>
    {
        let cluster = Cluster::start(0).await;
        let error = client(&cluster)?.get("/").await.expect_err("there is none");
        assert!(alarm(&error).contains("scaled to zero"), "{error}");
        let text = error.to_string();
        let begin = "request to web.default.svc.cluster.local was not sent: no endpoints: ";
        assert!(text.starts_with(begin), "{text}");
        Ok(())
    }
}
