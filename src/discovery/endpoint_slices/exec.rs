//! Runs a kubeconfig's exec plugin: a program that prints credentials.
//!
//! kube's client would wait for it without a limit, in a thread that can't be stopped: each run of a plugin that hangs
//! would leave a process and a thread behind, and the runtime couldn't shut down. So it is run here, one at a time. It
//! is killed, with all processes that it has started, when its time is up or nobody waits for it any more.
//!
//! The protocol is that of `client.authentication.k8s.io`: `KUBERNETES_EXEC_INFO` in the environment, and an
//! `ExecCredential` in JSON on the standard output.

use std::{fmt, io, process::Stdio, time::Duration};

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time};
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::{Instant, timeout},
};

use super::error::Reason;

/// How long a plugin may take. Together with the API server's answer, it must fit into the time for a list.
const LIMIT: Duration = Duration::from_secs(8);

/// How many bytes of a plugin's standard output, and of its standard error, are kept.
const OUTPUT: usize = 1 << 20;
const COMPLAINT: usize = 500;

/// Credentials are renewed this many seconds before they expire, as kube does.
const EARLY: i64 = 60;

/// Runs the plugin of `user`, if its credentials come from one, and replaces it by them. Returns until when they are
/// good, if the plugin says so.
pub(super) async fn authenticate(user: &mut AuthInfo) -> Result<Option<Instant>, Reason> {
    let has_others = user.auth_provider.is_some()
        || user.token.is_some()
        || user.token_file.is_some()
        || (user.username.is_some() && user.password.is_some());
    let Some(exec) = user.exec.take().filter(|_| !has_others) else {
        return Ok(None);
    };
    let credential = run(&exec, LIMIT).await?;
    if let Some(token) = credential.token {
        user.token = Some(token.into());
    }
    if let Some((certificate, key)) = credential.certificate {
        user.client_certificate_data = Some(certificate);
        user.client_key_data = Some(key.into());
    }
    Ok(credential.good_until)
}

/// The credentials that a plugin printed.
#[derive(Debug, Default)]
struct Credential {
    token: Option<String>,
    /// A certificate and its key, in base64 over PEM.
    certificate: Option<(String, String)>,
    good_until: Option<Instant>,
}

async fn run(exec: &ExecConfig, limit: Duration) -> Result<Credential, Reason> {
    let failed = |what: &dyn fmt::Display| {
        let name = exec.command.as_deref().unwrap_or_default();
        Reason::Exec(name.to_owned(), what.to_string())
    };
    let mut command = command(exec).map_err(|what| failed(&what))?;
    let started = command.spawn().map_err(|error| {
        let hint = exec.install_hint.as_deref().unwrap_or_default();
        failed(&format_args!("can't be started: {error}. {hint}"))
    });
    let mut plugin = Plugin::new(started?);
    let Ok(ended) = timeout(limit, plugin.end()).await else {
        return Err(failed(&format_args!(
            "has not ended within {limit:?}, and was killed"
        )));
    };
    let (success, output, complaint) = ended.map_err(|error| failed(&error))?;
    if !success {
        let complaint = String::from_utf8_lossy(&complaint);
        return Err(failed(&format_args!("failed: {}", complaint.trim())));
    }
    read(&output).map_err(|what| failed(&what))
}

fn command(exec: &ExecConfig) -> Result<Command, &'static str> {
    let program = exec.command.as_deref().ok_or("has no command")?;
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err("needs a terminal (interactiveMode: Always), and there is none");
    }
    let mut command = Command::new(program);
    command.args(exec.args.iter().flatten());
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    command.env("KUBERNETES_EXEC_INFO", info(exec)?);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    Ok(command)
}

fn info(exec: &ExecConfig) -> Result<String, &'static str> {
    let mut spec = json!({"interactive": false});
    if exec.provide_cluster_info {
        let cluster = exec.cluster.as_ref().map(serde_json::to_value);
        let cluster =
            cluster.ok_or("needs the cluster's data (provideClusterInfo), which isn't known")?;
        spec["cluster"] = cluster.map_err(
            |_| "needs the cluster's data (provideClusterInfo), which can't be written as JSON",
        )?;
    }
    let info = json!({
        "kind": "ExecCredential",
        "apiVersion": exec.api_version,
        "spec": spec,
    });
    Ok(info.to_string())
}

fn read(output: &[u8]) -> Result<Credential, String> {
    let credential: Value = serde_json::from_slice(output)
        .map_err(|error| format!("didn't print an ExecCredential in JSON: {error}"))?;
    let status = &credential["status"];
    let text = |field: &str| status[field].as_str().map(str::to_owned);
    let pem = |field: &str| {
        let pem = ByteString(text(field)?.into_bytes());
        Some(serde_json::to_value(pem).ok()?.as_str()?.to_owned())
    };
    let token = text("token").filter(|token| !token.is_empty());
    let certificate = pem("clientCertificateData").zip(pem("clientKeyData"));
    if token.is_none() && certificate.is_none() {
        return Err("printed neither a token nor a certificate with its key".to_owned());
    }
    let good_until = match &status["expirationTimestamp"] {
        Value::Null => None,
        time => Some(good_until(time)?),
    };
    Ok(Credential {
        token,
        certificate,
        good_until,
    })
}

/// When to renew a credential that expires at `time`.
fn good_until(time: &Value) -> Result<Instant, String> {
    let expires: Time = serde_json::from_value(time.clone())
        .map_err(|error| format!("printed the invalid expirationTimestamp {time}: {error}"))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the time of expiry is wall-clock time"
    )]
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let left = expires.0.as_second().saturating_sub(now) - EARLY;
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    let now = Instant::now();
    Ok(now.checked_add(left).unwrap_or(now))
}

/// A running plugin. If this is dropped before the plugin has ended, the plugin is killed, with all processes that it
/// has started.
struct Plugin {
    child: Child,
    /// Its process ID, which is also its group's; none once all processes that hold its output open have ended.
    group: Option<u32>,
}

impl Plugin {
    fn new(child: Child) -> Self {
        Self {
            group: child.id(),
            child,
        }
    }

    /// Waits for its end. Returns whether it succeeded, its standard output, and its standard error.
    async fn end(&mut self) -> io::Result<(bool, Vec<u8>, Vec<u8>)> {
        let output = begin_of(self.child.stdout.take(), OUTPUT);
        let complaint = begin_of(self.child.stderr.take(), COMPLAINT);
        let (output, complaint, status) = tokio::join!(output, complaint, self.child.wait());
        self.group = None;
        Ok((status?.success(), output, complaint))
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.group.and_then(|id| i32::try_from(id).ok())
            && let Some(group) = rustix::process::Pid::from_raw(id)
        {
            // This fails if the group has just ended.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Reads everything, so that the plugin never blocks on a full pipe, and keeps the beginning.
async fn begin_of(from: Option<impl AsyncRead + Unpin>, most: usize) -> Vec<u8> {
    let (mut kept, mut part) = (Vec::new(), vec![0; 4096]);
    let Some(mut from) = from else { return kept };
    while let Ok(read @ 1..) = from.read(&mut part).await {
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(&part[..read.min(room)]);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_must_have_a_token_or_a_certificate() {
        let read = |text: &str| read(text.as_bytes());
        let token = read(r#"{"status": {"token": "t"}}"#).expect("a token");
        assert_eq!(token.token.as_deref(), Some("t"));
        assert!(token.good_until.is_none());
        let both = r#"{"status": {"clientCertificateData": "PEM", "clientKeyData": "KEY"}}"#;
        let certificate = read(both).expect("a certificate").certificate;
        assert_eq!(
            certificate,
            Some(("UEVN".to_owned(), "S0VZ".to_owned())),
            "in base64"
        );
        for useless in [
            "",
            "garbage",
            "{}",
            r#"{"status": {}}"#,
            r#"{"status": {"token": ""}}"#,
            r#"{"status": {"clientKeyData": "KEY"}}"#,
            r#"{"status": {"token": "t", "expirationTimestamp": "soon"}}"#,
        ] {
            read(useless).expect_err(useless);
        }
    }

    fn plugin(script: &str) -> ExecConfig {
        let exec = json!({"command": "/bin/sh", "args": ["-c", script]});
        serde_json::from_value(exec).expect("a plugin")
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_plugin_is_killed_at_its_limit_with_all_that_it_has_started() {
        // In the last script, a child outlives the plugin and holds its output open.
        let short = Duration::from_millis(200);
        for script in ["sleep 1000", "sleep 1000 & sleep 1000", "sleep 1000 &"] {
            let error = run(&plugin(script), short).await.expect_err("it hangs");
            let text = error.to_string();
            assert!(text.contains("within 200ms, and was killed"), "{text}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn output_above_the_limit_is_read_but_not_kept() {
        let chatty = "yes | head -c 3000000 >&2; yes | head -c 3000000; exit 3";
        let error = run(&plugin(chatty), LIMIT).await.expect_err("it fails");
        assert!(error.to_string().len() < 2 * COMPLAINT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_is_good_until_a_minute_before_it_expires() {
        let now = Instant::now();
        let until = |time: &str| good_until(&json!(time)).expect("a time");
        assert_eq!(until("2001-01-01T00:00:00Z"), now, "it is over");
        assert!(until("2999-01-01T00:00:00Z") > now + Duration::from_secs(1_000_000));
    }
}
