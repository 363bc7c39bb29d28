//! nginx as a pod that gives every request the same answer.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use super::{super::servers::find_program, Identity, Speech};

/// Finds nginx. The error says what is missing.
pub(super) fn find() -> Result<PathBuf, String> {
    find_program("nginx")
}

pub(super) fn configure(
    dir: &Path,
    speech: Speech,
    address: SocketAddr,
    identity: &Identity,
) -> io::Result<Command> {
    fs::write(dir.join("cert.pem"), identity.certificate_pem())?;
    fs::write(dir.join("key.pem"), identity.key_pem())?;
    command(dir, &configuration(speech, &[address]))
}

/// A command that runs nginx in the foreground, in a folder of its own.
pub fn command(dir: &Path, configuration: &str) -> io::Result<Command> {
    let file = dir.join("nginx.conf");
    fs::write(&file, configuration)?;
    let program = find().map_err(io::Error::other)?;
    let mut command = Command::new(program);
    // Names of files in the configuration are relative to the prefix.
    command.arg("-p").arg(dir).arg("-c").arg(file);
    command.args(["-e", "stderr", "-g", "daemon off;"]);
    Ok(command)
}

/// The worker's process ID, as the first process logs it. It listens before that.
pub(super) fn worker(log: &str) -> Option<u32> {
    let (_, id) = log.split_once("start worker process ")?;
    id.lines().next()?.parse().ok()
}

/// The configuration of a pod that listens on these addresses.
pub fn configuration(speech: Speech, addresses: &[SocketAddr]) -> String {
    let (options, tls) = match speech {
        Speech::Http1 => ("", ""),
        // Without TLS, this version takes `http2` to mean only HTTP/2.
        Speech::Http2 => ("http2", ""),
        Speech::Tls => (
            "ssl http2",
            "ssl_certificate cert.pem; ssl_certificate_key key.pem;",
        ),
    };
    let listen = |address: &SocketAddr| format!("listen {address} {options};");
    let listen: Vec<_> = addresses.iter().map(listen).collect();
    let listen = listen.join("\n        ");
    format!(
        r#"
worker_processes 1;
error_log stderr notice;
pid pid;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        {listen}
        {tls}
        default_type text/plain;
        add_header x-pod $server_addr always;
        location / {{
            return 200 "200 from $server_addr\n";
        }}
    }}
}}
"#
    )
}
