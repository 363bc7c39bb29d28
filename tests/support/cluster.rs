//! A headless Service with its pods and its DNS, in miniature.

mod network;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{dns::DnsServer, pod::Pod, tls::Identity};
use network::Network;

/// The name of the Service unless a test chooses another.
pub const SERVICE: &str = "web.default.svc.cluster.local.";

/// How long a pod that is removed may finish its requests (kubelet's grace period is 30 s).
const GRACE: Duration = Duration::from_secs(2);

/// One headless Service: a DNS server, and pods that share a port on distinct addresses of a loopback /24.
///
/// The /24 is this cluster's own, among the tests of one process and of others that run at the same time. DNS knows what
/// was last published: every method says whether it publishes.
pub struct Cluster {
    dns: DnsServer,
    service: String,
    /// What the pods show, where they speak TLS.
    identity: Option<Identity>,
    state: Mutex<State>,
}

struct State {
    network: Network,
    /// Oldest first.
    members: Vec<Member>,
    ttl: u32,
    drain: Duration,
}

#[derive(Clone)]
struct Member {
    pod: Arc<Pod>,
    ready: bool,
}

impl Cluster {
    /// A Service of `n` pods, published with a TTL of 1 s.
    pub async fn start(n: usize) -> Self {
        Self::start_named(SERVICE, n).await
    }

    /// [`start`](Self::start) with a Service name of the caller's choice, fully qualified.
    pub async fn start_named(service: &str, n: usize) -> Self {
        Self::start_with(service, n, None).await
    }

    /// [`start`](Self::start) with pods that speak TLS, with a certificate for the Service's name.
    pub async fn start_tls(n: usize) -> Self {
        Self::start_tls_as(SERVICE, n).await
    }

    /// [`start_tls`](Self::start_tls) with a certificate for another name.
    pub async fn start_tls_as(certified: &str, n: usize) -> Self {
        Self::start_with(SERVICE, n, Some(Identity::new(certified))).await
    }

    async fn start_with(service: &str, n: usize, identity: Option<Identity>) -> Self {
        let (network, pods) = first_pods(n, identity.as_ref()).await;
        let members = pods.into_iter().map(Member::ready).collect();
        let cluster = Self {
            dns: DnsServer::start().await,
            service: service.to_owned(),
            identity,
            state: Mutex::new(State {
                network,
                members,
                ttl: 1,
                drain: Duration::ZERO,
            }),
        };
        cluster.publish();
        cluster
    }

    pub fn dns(&self) -> &DnsServer {
        &self.dns
    }

    /// The Service's name with the trailing dot, as queries ask for it.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The certificate that the pods show, which is its own authority.
    ///
    /// # Panics
    ///
    /// If the pods speak no TLS.
    pub fn trust_pem(&self) -> &str {
        self.identity().expect("pods with TLS").certificate_pem()
    }

    /// What the pods show, where they speak TLS.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The port of every pod.
    pub fn port(&self) -> u16 {
        self.lock().network.port
    }

    /// `dns://<DNS server>/<service>:<port>`
    pub fn service_target(&self) -> String {
        let service = self.service.trim_end_matches('.');
        format!("dns://{}/{service}:{}", self.dns.addr(), self.port())
    }

    /// An address that no pod has had yet, for a pod that is not this process's own: `publish` doesn't know it.
    pub fn next_address(&self) -> SocketAddr {
        self.lock().next_address()
    }

    /// The pods that are not removed, ready or not, killed or not; oldest first.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        let members = &self.lock().members;
        members
            .iter()
            .map(|member| Arc::clone(&member.pod))
            .collect()
    }

    /// `pods()[i]`
    pub fn pod(&self, i: usize) -> Arc<Pod> {
        Arc::clone(&self.lock().members[i].pod)
    }

    /// Writes the addresses of the ready pods to DNS. None at all is NXDOMAIN, as CoreDNS answers.
    pub fn publish(&self) {
        let state = self.lock();
        let ready = state.members.iter().filter(|member| member.ready);
        let addresses = ready.filter_map(|member| match member.pod.addr() {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        });
        self.dns.set_a(&self.service, state.ttl, addresses);
    }

    /// The records' TTL in seconds; publishes.
    pub fn set_ttl(&self, ttl: u32) {
        self.lock().ttl = ttl;
        self.publish();
    }

    /// How long a pod that is removed goes on serving after it has left DNS, as with a `preStop` hook that sleeps.
    ///
    /// Zero at first, so that tests are fast: then clients that act on what DNS said last are refused.
    pub fn set_drain(&self, drain: Duration) {
        self.lock().drain = drain;
    }

    /// Whether pod `i` passes its readiness probe; publishes.
    pub fn set_ready(&self, i: usize, ready: bool) {
        self.lock().members[i].ready = ready;
        self.publish();
    }

    /// Adds pods, or removes the newest ones gracefully, until there are `n`; publishes.
    pub async fn scale(&self, n: usize) {
        while self.lock().members.len() < n {
            self.start_pod().await;
        }
        self.publish();
        let surplus = {
            let mut state = self.lock();
            let kept = n.min(state.members.len());
            state.members.split_off(kept)
        };
        self.terminate(surplus).await;
    }

    /// Starts one more pod; publishes.
    pub async fn add_pod(&self) -> Arc<Pod> {
        let pod = self.start_pod().await;
        self.publish();
        pod
    }

    /// Starts one more pod that DNS doesn't tell of until something publishes.
    pub async fn start_pod(&self) -> Arc<Pod> {
        for _ in 0..Network::HOSTS {
            let address = self.lock().next_address();
            // Taken by some other process, hardly: on to the next address.
            if let Ok(pod) = Pod::start_with(address, self.identity()).await {
                let member = Member::ready(pod);
                let pod = Arc::clone(&member.pod);
                self.lock().members.push(member);
                return pod;
            }
        }
        panic!("no address is left for another pod");
    }

    /// Removes pod `i` as kubelet does: out of DNS first, told to finish after the drain, then killed. Publishes.
    pub async fn remove_pod(&self, i: usize) -> Arc<Pod> {
        let member = self.lock().members.remove(i);
        let pod = Arc::clone(&member.pod);
        self.terminate(vec![member]).await;
        pod
    }

    /// Kills pod `i`; DNS goes on telling of it.
    pub async fn kill(&self, i: usize) {
        self.pod(i).kill().await;
    }

    /// Kills every pod and starts as many on other addresses; DNS is told `dns_delay` later. Returns then.
    pub async fn replace_all(&self, dns_delay: Duration) {
        let old = std::mem::take(&mut self.lock().members);
        futures::future::join_all(old.iter().map(|member| member.pod.kill())).await;
        for _ in &old {
            self.start_pod().await;
        }
        tokio::time::sleep(dns_delay).await;
        self.publish();
    }

    /// Waits until the pods have begun `n` requests between them, those of the removed ones not counted.
    pub async fn wait_for_requests(&self, n: usize) {
        let pods = self.pods();
        loop {
            let seen: Vec<_> = pods.iter().map(|pod| pod.requests()).collect();
            if seen.iter().sum::<usize>() >= n {
                return;
            }
            let more = pods
                .iter()
                .zip(seen)
                .map(|(pod, seen)| Box::pin(pod.wait_until(move |stats| stats.requests > seen)));
            futures::future::select_all(more).await;
        }
    }

    async fn terminate(&self, leaving: Vec<Member>) {
        self.publish();
        let drain = self.lock().drain;
        tokio::time::sleep(drain).await;
        let stops = leaving.iter().map(async |member| {
            let finished = tokio::time::timeout(GRACE, member.pod.stop_gracefully()).await;
            if finished.is_err() {
                member.pod.kill().await;
            }
        });
        futures::future::join_all(stops).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn ready(pod: Pod) -> Self {
        let pod = Arc::new(pod);
        Self { pod, ready: true }
    }
}

impl State {
    /// The next address in turn that no pod has: one that was just given up is the last to come again.
    fn next_address(&mut self) -> SocketAddr {
        loop {
            let address = self.network.next_address();
            let taken = |member: &Member| member.pod.addr() == address;
            if !self.members.iter().any(taken) {
                return address;
            }
            assert!(
                self.members.len() < usize::from(Network::HOSTS),
                "a cluster has one /24 of addresses, so at most {} pods",
                Network::HOSTS
            );
        }
    }
}

async fn first_pods(n: usize, tls: Option<&Identity>) -> (Network, Vec<Pod>) {
    const ATTEMPTS: usize = 20;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let mut network = Network::next();
        match network.start_pods(n, tls).await {
            Ok(pods) => return (network, pods),
            Err(error) => last = Some(error),
        }
    }
    panic!("no pods could be started in {ATTEMPTS} loopback networks: {last:?}");
}
