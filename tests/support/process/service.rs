//! A headless Service whose pods are processes.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{
    super::cluster::{Cluster, SERVICE},
    Identity, PodProcess, Software, Speech,
};

/// Pods in processes, oldest first, and a DNS server that names them after [`publish`](Self::publish).
pub struct Service {
    pub software: Software,
    pub speech: Speech,
    pub pods: VecDeque<PodProcess>,
    cluster: Cluster,
    identity: Identity,
    ttl: u32,
}

impl Service {
    /// Starts a Service of `n` pods, published with a TTL in seconds.
    pub async fn start(software: Software, speech: Speech, n: usize, ttl: u32) -> Self {
        let mut service = Self {
            software,
            speech,
            pods: VecDeque::new(),
            // Used only for its DNS server and its addresses.
            cluster: Cluster::start(0).await,
            identity: Identity::new(SERVICE),
            ttl,
        };
        for _ in 0..n {
            service.start_pod().await;
        }
        service.publish();
        service
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The pods' certificate.
    pub fn trust_pem(&self) -> &str {
        self.identity.certificate_pem()
    }

    /// `http://<name>:<port>`, or `https` if the pods speak TLS.
    pub fn uri(&self) -> String {
        let s = if self.speech == Speech::Tls { "s" } else { "" };
        let name = self.cluster.service().trim_end_matches('.');
        format!("http{s}://{name}:{}", self.cluster.port())
    }

    /// Starts one more pod, on an address that no pod has had yet. Returns when it accepts connections.
    pub async fn start_pod(&mut self) {
        const ATTEMPTS: usize = 10;
        for _ in 0..ATTEMPTS {
            match self.start_at(self.cluster.next_address()).await {
                Ok(pod) => return self.pods.push_back(pod),
                // Another process has taken the port on that address.
                Err(log) if log.to_lowercase().contains("in use") => {}
                Err(log) => panic!("{:?} doesn't start:\n{log}", self.software),
            }
        }
        panic!("{ATTEMPTS} addresses were taken");
    }

    /// Starts pod `i` again, on the same address. Kills it first if it runs.
    pub async fn restart_pod(&mut self, i: usize) {
        let address = self.pods[i].addr();
        self.pods[i].kill().await;
        let started = self.start_at(address).await;
        self.pods[i] = started.unwrap_or_else(|log| panic!("pod {i} doesn't start again:\n{log}"));
    }

    async fn start_at(&self, address: SocketAddr) -> Result<PodProcess, String> {
        let started = PodProcess::start(self.software, self.speech, address, &self.identity);
        started.await.map_err(|error| error.to_string())
    }

    /// Writes the pods' addresses to DNS.
    pub fn publish(&self) {
        let addresses = self.pods.iter().filter_map(ipv4);
        let (dns, name) = (self.cluster.dns(), self.cluster.service());
        dns.set_a(name, self.ttl, addresses);
    }
}

fn ipv4(pod: &PodProcess) -> Option<Ipv4Addr> {
    match pod.addr().ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}
