//! Kubeconfigs, environments and slices as met in the field.

use std::{future::poll_fn, path::PathBuf, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;
use tower_headless::{Discovery, EndpointSlices};

use crate::{
    WEB,
    kit::{Cluster, addresses, drive_until, error, last_set, pod, set, slice},
    support::{api_server::Asked, tls::Identity, within},
};

// ---------------------------------------------------------------- exec plugins

impl Cluster {
    /// Writes a kubeconfig whose user has an exec plugin: a shell script, run with this cluster's folder in `FOLDER`.
    fn write_plugin(&self, script: &str) -> PathBuf {
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "/bin/sh",
            "args": ["-c", script],
            "env": [{"name": "FOLDER", "value": self.folder}],
            "interactiveMode": "IfAvailable",
        });
        self.write_user(json!({"exec": exec}), json!({"server": self.api.url()}))
    }

    fn write_user(&self, user: Value, cluster: Value) -> PathBuf {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).expect("a writable folder");
        self.kubeconfig()
    }

    fn authorizations(&self) -> Vec<Option<String>> {
        let received = self.api.received().into_iter();
        received.map(|received| received.authorization).collect()
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_token_comes_from_the_exec_plugin() {
    let cluster = Cluster::start([1]).await;
    cluster.write_plugin(
        r#"echo "$KUBERNETES_EXEC_INFO" > "$FOLDER/info"
           echo '{"kind": "ExecCredential", "status": {"token": "of the plugin"}}'"#,
    );
    let mut slices = cluster.slices(WEB);
    assert_eq!(addresses(&set(&mut slices).await), ["10.0.0.1:80"]);
    assert_eq!(
        cluster.authorizations()[0].as_deref(),
        Some("Bearer of the plugin")
    );
    let info: Value = serde_json::from_str(&cluster.lines("info")[0]).expect("JSON");
    assert_eq!(info["apiVersion"], "client.authentication.k8s.io/v1");
    assert_eq!(info["kind"], "ExecCredential");
    assert_eq!(info["spec"]["interactive"], false);
}

#[tokio::test]
async fn an_exec_plugin_with_provide_cluster_info_gets_the_kubeconfigs_cluster() {
    let cluster = Cluster::start([1]).await;
    let script = r#"echo "$KUBERNETES_EXEC_INFO" > "$FOLDER/info"
                    echo '{"status": {"token": "of the plugin"}}'"#;
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "/bin/sh",
        "args": ["-c", script],
        "env": [{"name": "FOLDER", "value": cluster.folder}],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": true,
    });
    let server = json!({"server": cluster.api.url()});
    cluster.write_user(json!({"exec": exec}), server.clone());
    set(&mut cluster.slices(WEB)).await;
    let info: Value = serde_json::from_str(&cluster.lines("info")[0]).expect("JSON");
    assert_eq!(info["spec"]["cluster"], server);
}

#[tokio::test]
async fn an_exec_plugin_runs_again_when_its_token_is_rejected() {
    let cluster = Cluster::start([1]).await;
    cluster.write_plugin(
        r#"echo run >> "$FOLDER/runs"
           echo "{\"status\": {\"token\": \"$(wc -l < "$FOLDER/runs" | tr -d ' ')\"}}""#,
    );
    cluster.api.require_token("2");
    let mut slices = cluster.slices(WEB);
    assert!(error(&mut slices).await.is_unauthorized());
    set(&mut slices).await;
    assert_eq!(cluster.lines("runs").len(), 2);
}

#[tokio::test]
async fn an_exec_plugin_runs_again_before_its_token_expires() {
    let cluster = Cluster::start([1]).await;
    // A token is renewed a minute before it expires; this one has already expired.
    cluster.write_plugin(
        r#"echo run >> "$FOLDER/runs"
           echo '{"status": {"token": "short", "expirationTimestamp": "2020-01-01T00:00:00Z"}}'"#,
    );
    let mut slices = cluster.slices(WEB);
    set(&mut slices).await;
    drive_until(&mut slices, || cluster.api.watches() == 1).await;
    assert_eq!(cluster.lines("runs").len(), 2, "for the list and the watch");
}

#[tokio::test]
async fn an_exec_plugins_failure_is_in_the_error() {
    let cluster = Cluster::start([1]).await;
    for (script, expected) in [
        ("echo 'log in first' >&2; exit 1", "log in first"),
        ("echo nonsense", "didn't print an ExecCredential in JSON"),
        ("echo '{}'", "printed neither a token nor a certificate"),
    ] {
        cluster.write_plugin(script);
        let text = error(&mut cluster.slices(WEB)).await.to_string();
        assert!(text.contains("exec plugin \"/bin/sh\""), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let missing = json!({"exec": {"command": "/there/is/none", "installHint": "buy one"}});
    cluster.write_user(missing, json!({"server": cluster.api.url()}));
    let text = error(&mut cluster.slices(WEB)).await.to_string();
    assert!(
        text.contains("can't be started") && text.contains("buy one"),
        "{text}"
    );
}

/// Whether a process exists and hasn't ended.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !stat.is_empty() && !state.starts_with('Z')
}

#[test]
fn a_runtime_shuts_down_though_an_exec_plugin_hangs_and_its_processes_are_killed() {
    let builder = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let (outside, inside) = (builder(), builder());
    let cluster = outside.block_on(Cluster::start([1]));
    cluster.write_plugin(
        r#"sleep 1000 & echo "$!" >> "$FOLDER/pids"; echo "$$" >> "$FOLDER/pids"; wait"#,
    );
    let mut slices = cluster.slices(WEB);
    inside.spawn(async move {
        let _ = poll_fn(|cx| slices.poll_next(cx)).await;
    });
    let until = |what: &'static str, is_so: &dyn Fn() -> bool| {
        outside.block_on(within(what, async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    };
    until("the plugin and what it has started", &|| {
        cluster.lines("pids").len() == 2
    });
    // This would hang if a thread waited for the plugin.
    drop(inside);
    let pids = cluster.lines("pids");
    until("their ends", &|| !pids.iter().any(|pid| is_running(pid)));
    assert_eq!(cluster.lines("pids").len(), 2, "one attempt");
}

#[tokio::test]
async fn a_hanging_exec_plugin_is_killed_with_its_last_reader_though_an_unused_clone_is_kept() {
    let cluster = Cluster::start([1]).await;
    cluster.write_plugin(r#"echo "$$" >> "$FOLDER/pids"; sleep 1000"#);
    let mut slices = cluster.slices(WEB);
    let kept = slices.clone();
    drive_until(&mut slices, || cluster.lines("pids").len() == 1).await;
    let pids = cluster.lines("pids");
    assert!(is_running(&pids[0]));
    drop(slices);
    within("its end", async {
        while is_running(&pids[0]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(kept);
}

// ---------------------------------------------------------------- proxies

/// Runs one of this file's tests in a process with this environment.
async fn child(cluster: &Cluster, test: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test's file"));
    let test = format!("field::{test}");
    command.args(["--exact", &test, "--ignored", "--nocapture"]);
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "no_proxy",
        "KUBERNETES_SERVICE_HOST",
    ] {
        command.env_remove(name);
    }
    command.env("KUBECONFIG", cluster.kubeconfig());
    command.envs(environment.iter().copied());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the end of the process", command.output()).await;
    let output = output.expect("a process");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn child_that_prints_its_first_answer() {
    let mut slices = EndpointSlices::new(WEB.parse().expect("a target"));
    match within("an answer", poll_fn(|cx| slices.poll_next(cx))).await {
        Ok(set) => println!("{:?}", addresses(&set)),
        Err(error) => println!("{error}"),
    }
}

const CHILD: &str = "child_that_prints_its_first_answer";

#[tokio::test]
async fn the_environments_proxy_does_not_apply_to_an_api_server_on_this_machine() {
    let cluster = Cluster::start_tls(Identity::new("127.0.0.1")).await;
    let proxy = ("HTTPS_PROXY", "http://proxy.example:3128");
    let output = child(&cluster, CHILD, &[proxy]).await;
    assert!(output.contains("10.0.0.1:80"), "{output}");
    let plain = Cluster::start([2]).await;
    let output = child(&plain, CHILD, &[proxy, ("NO_PROXY", "a,,b")]).await;
    assert!(output.contains("10.0.0.2:80"), "{output}");
}

#[tokio::test]
async fn no_proxy_is_heeded_and_the_error_of_an_unsupported_proxy_says_what_to_do() {
    let cluster = Cluster::start([1]).await;
    // Nobody is there: the error shows which way was tried.
    cluster.write_user(json!({}), json!({"server": "https://192.0.2.1:1"}));
    let proxy = ("https_proxy", "http://user:secret@proxy.example:3128");
    let output = child(&cluster, CHILD, &[proxy]).await;
    for part in [
        "HTTPS_PROXY names the proxy http://proxy.example,",
        "add 192.0.2.1 to NO_PROXY",
        "kube's feature `http-proxy`",
    ] {
        assert!(output.contains(part), "{output}");
    }
    assert!(!output.contains("secret"), "{output}");
    // A name that doesn't exist fails at once; an address would wait for its timeout.
    cluster.write_user(json!({}), json!({"server": "https://api.invalid:1"}));
    let output = child(&cluster, CHILD, &[proxy, ("NO_PROXY", "*")]).await;
    assert!(
        output.contains("the API server can't be reached"),
        "{output}"
    );
    assert!(!output.contains("prox"), "{output}");
}

/// The environment belongs to the machine: a mistake in it must not affect API servers that it doesn't apply to.
#[tokio::test]
async fn a_malformed_proxy_fails_only_connections_that_would_use_it() {
    let nonsense = ("HTTPS_PROXY", "http://user:secret@a proxy:3128");
    let cluster = Cluster::start([1]).await;
    let output = child(&cluster, CHILD, &[nonsense]).await;
    assert!(output.contains("10.0.0.1:80"), "{output}");
    let tls = Cluster::start_tls(Identity::new("127.0.0.1")).await;
    let output = child(&tls, CHILD, &[nonsense]).await;
    assert!(output.contains("10.0.0.1:80"), "{output}");
    // A name that doesn't exist fails at once; an address would wait for its timeout.
    cluster.write_user(json!({}), json!({"server": "https://api.invalid:1"}));
    let output = child(&cluster, CHILD, &[nonsense, ("NO_PROXY", "api.invalid")]).await;
    assert!(
        output.contains("the API server can't be reached") && !output.contains("prox"),
        "{output}"
    );
    let output = child(&cluster, CHILD, &[nonsense]).await;
    for part in [
        "HTTPS_PROXY is not a proxy URL",
        "add api.invalid to NO_PROXY",
    ] {
        assert!(output.contains(part), "{output}");
    }
    assert!(!output.contains("secret"), "{output}");
    // A kubeconfig's own proxy is always used.
    let server =
        json!({"server": "https://api.invalid:1", "proxy-url": "socks5://proxy.example:1080"});
    cluster.write_user(json!({}), server);
    let output = child(&cluster, CHILD, &[nonsense, ("NO_PROXY", "*")]).await;
    assert!(output.contains("the kubeconfig's proxy-url"), "{output}");
}

#[tokio::test]
async fn a_proxy_without_a_scheme_is_an_http_proxy() {
    let cluster = Cluster::start([1]).await;
    cluster.write_user(json!({}), json!({"server": "https://api.invalid:1"}));
    let proxy = ("HTTPS_PROXY", "user:secret@proxy.example:3128");
    let output = child(&cluster, CHILD, &[proxy]).await;
    assert!(
        output.contains("HTTPS_PROXY names the proxy http://proxy.example,"),
        "{output}"
    );
    assert!(!output.contains("secret"), "{output}");
}

/// It holds with and without kube's own proxy features, which also read `NO_PROXY`.
#[tokio::test]
async fn a_malformed_entry_of_no_proxy_leaves_the_others_in_effect() {
    let cluster = Cluster::start([1]).await;
    let proxy = ("HTTPS_PROXY", "http://proxy.example:3128");
    let exceptions = ("NO_PROXY", "a b,,[::1,:1,no/host,.invalid,");
    let output = child(&cluster, CHILD, &[proxy, exceptions]).await;
    assert!(output.contains("10.0.0.1:80"), "{output}");
    // A name that doesn't exist fails at once; an address would wait for its timeout.
    cluster.write_user(json!({}), json!({"server": "https://api.invalid:1"}));
    let output = child(&cluster, CHILD, &[proxy, exceptions]).await;
    assert!(
        output.contains("the API server can't be reached") && !output.contains("prox"),
        "{output}"
    );
}

/// It must not fall through to the pod's service account, which may exist but isn't meant.
#[tokio::test]
async fn a_malformed_proxy_url_in_an_inferred_kubeconfig_is_the_error() {
    let cluster = Cluster::start([1]).await;
    let proxy = "http://user:secret@a proxy:3128";
    let server = json!({"server": cluster.api.url(), "proxy-url": proxy});
    cluster.write_user(json!({}), server);
    let output = child(&cluster, CHILD, &[]).await;
    for part in [
        "the kubeconfig's proxy-url is not a proxy URL",
        "correct it",
    ] {
        assert!(output.contains(part), "{output}");
    }
    for part in ["service account", "NO_PROXY", "secret"] {
        assert!(!output.contains(part), "{output}");
    }
}

#[tokio::test]
async fn without_a_kubeconfig_or_a_service_account_the_error_names_both() {
    let cluster = Cluster::start([1]).await;
    std::fs::remove_file(cluster.kubeconfig()).expect("a kubeconfig");
    let output = child(&cluster, CHILD, &[]).await;
    for part in [
        "failed to read kubeconfig from",
        "no service account of a pod: failed to read",
    ] {
        assert!(output.contains(part), "{output}");
    }
}

#[tokio::test]
async fn a_kubeconfigs_proxy_url_is_used() {
    let cluster = Cluster::start([1]).await;
    let server = json!({"server": cluster.api.url(), "proxy-url": "socks5://proxy.example:1080"});
    cluster.write_user(json!({}), server);
    let text = error(&mut cluster.slices(WEB)).await.to_string();
    for part in [
        "the kubeconfig's proxy-url names the proxy socks5://proxy.example,",
        "enable kube's feature",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

// ---------------------------------------------------------------- addresses and ports

#[tokio::test]
async fn octets_with_leading_zeros_are_decimal() {
    let cluster = Cluster::start([]).await;
    let pods = ["010.000.000.001", "10.0.0.0010", "10.00.0.08"].map(pod);
    cluster
        .api
        .slice("web", "web-a", slice(pods.to_vec().into()));
    let mut slices = cluster.slices(WEB);
    assert_eq!(
        addresses(&set(&mut slices).await),
        ["10.0.0.1:80", "10.0.0.8:80", "10.0.0.10:80"]
    );
}

#[tokio::test]
async fn slices_with_only_invalid_addresses_are_an_error_and_the_last_set_stays() {
    let cluster = Cluster::start([1]).await;
    let mut slices = cluster.slices(WEB);
    set(&mut slices).await;
    let garbage = || slice(json!([pod("10.0.0.256"), pod("web-0"), {"addresses": []}]));
    cluster.api.slice("web", "web-a", garbage());
    let text = loop {
        match crate::answer(&mut slices).await {
            Ok(set) => assert_eq!(addresses(&set), ["10.0.0.1:80"]),
            Err(error) => break error.to_string(),
        }
    };
    assert!(text.contains("\"10.0.0.256\""), "{text}");
    // With a pod whose address is valid, the set is that pod.
    cluster.pods("web-b", [2]);
    let some = last_set(&mut slices, |_| true).await;
    assert_eq!(addresses(&some), ["10.0.0.2:80"]);
}

#[tokio::test]
async fn a_port_of_zero_is_left_out() {
    let cluster = Cluster::start([]).await;
    let at = |port: i64, host| {
        let mut slice = slice(json!([pod(&format!("10.0.0.{host}"))]));
        slice["ports"] = json!([{"name": "http", "port": port}]);
        slice
    };
    cluster.api.slice("web", "web-a", at(0, 1));
    cluster.api.slice("web", "web-b", at(8080, 2));
    cluster.api.slice("web", "web-c", at(70_000, 3));
    let mut slices = cluster.slices("web.default:http");
    assert_eq!(addresses(&set(&mut slices).await), ["10.0.0.2:8080"]);
    // Without any other port it is an error, not an empty set.
    cluster.api.delete("web-b");
    let mut slices = cluster.slices("web.default:http");
    let error = error(&mut slices).await;
    assert!(error.is_unknown_port(), "{error}");
    assert!(error.to_string().contains("http = 0/TCP"), "{error}");
}

// ---------------------------------------------------------------- the API server

#[tokio::test]
async fn a_list_that_comes_page_by_page_is_read_whole() {
    let cluster = Cluster::start([1]).await;
    cluster.pods("web-b", [2]);
    cluster.pods("web-c", [3]);
    cluster.api.list_by(1);
    let all = set(&mut cluster.slices(WEB)).await;
    assert_eq!(addresses(&all).len(), 3, "{all:?}");
}

/// A watch from no version would begin anywhere, and miss what was deleted meanwhile.
#[tokio::test]
async fn a_bookmark_without_a_version_is_followed_by_a_list() {
    let cluster = Cluster::start([1]).await;
    let mut slices = cluster.watching().await;
    cluster.api.bookmark_without_version();
    let error = error(&mut slices).await.to_string();
    assert!(
        error.contains("without metadata.resourceVersion"),
        "{error}"
    );
    set(&mut slices).await;
    cluster.goes_on(&mut slices, Asked::Watch(1)).await;
    let again = [Asked::List, Asked::Watch(1)];
    assert_eq!(cluster.api.asked(), [&again[..], &again].concat());
}

#[tokio::test]
async fn an_authority_that_rotates_is_read_again() {
    let mut cluster = Cluster::start_tls(Identity::new("127.0.0.1")).await;
    let mut slices = cluster.watching().await;
    cluster.api.stop();
    error(&mut slices).await;
    let new = Identity::new("127.0.0.1");
    cluster.write_kubeconfig(Some(new.certificate_pem()));
    cluster.api.restart_as(new).await;
    cluster.pods("web-a", [2]);
    last_set(&mut slices, |set| addresses(set) == ["10.0.0.2:80"]).await;
}
