//! A headless Service with its pods and its DNS, in miniature.

pub(super) mod builder;
mod member;
mod network;

use std::{fmt, mem, net::SocketAddr, panic::Location, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use http::Uri;
use tokio::sync::watch;

use self::{
    member::{Member, Template},
    network::Network,
};
use super::{
    dns::{DnsServer, record::Srv},
    pod::Pod,
    within::within_at,
};
use crate::{
    discovery::dns::Dns,
    http::{Client, ClientBuilder},
    sync::Mutex,
};

/// How long a removed pod may finish its requests (kubelet's grace period is 30 s).
const GRACE: Duration = Duration::from_secs(2);

/// A headless Service: a DNS server, and pods that share a port. Their addresses are in a loopback /24 that no other
/// cluster of the process has.
///
/// As in Kubernetes, DNS has the addresses of the ready pods, at the Service's name and at the pods' own names below
/// it. It has SRV records if the port has a [name](super::ClusterBuilder::port_name). DNS has what was last published:
/// each method says whether it publishes. Pods count from 0, the oldest first; those of a
/// [StatefulSet](super::ClusterBuilder::stateful_set) by their ordinals. Change a cluster from one task at a time.
///
/// Dropping it ends everything: the DNS server and all pods, even those that are held elsewhere. It lives in the
/// runtime that it was started in, and ends with that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_headless::BoxError> {
/// use tower_headless::test_util::Cluster;
///
/// let cluster = Cluster::start(5).await;
/// let client = cluster.client().build()?;
/// for i in 0..100 {
///     if i == 50 {
///         cluster.kill(0).await; // DNS goes on naming it
///     }
///     let response = client.get("/").await?; // and no request fails
///     assert_eq!(response.status(), 200);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the cluster ends when it is dropped"]
pub struct Cluster {
    dns: DnsServer,
    /// With the trailing dot.
    service: String,
    port_name: Option<String>,
    template: Template,
    state: Mutex<State>,
}

struct State {
    network: Network,
    /// Oldest first; of a StatefulSet, by ordinals.
    members: Vec<Member>,
    /// The pods' own names that are in DNS.
    published: Vec<String>,
    ttl: u32,
    drain: Duration,
    /// Notified when a pod is added.
    joined: watch::Sender<()>,
}

impl Cluster {
    /// The DNS server. Use it to make DNS fail.
    pub fn dns(&self) -> &DnsServer {
        &self.dns
    }

    /// The Service's name with the trailing dot, as queries ask for it.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The port of every pod.
    pub fn port(&self) -> u16 {
        self.state.lock().network.port
    }

    /// The Service's URI for [`Client::builder`](crate::http::Client::builder): `http://<service>:<port>`, or `https`
    /// if the pods speak TLS. If the port has a name: `http://_<port's name>._tcp.<service>`.
    pub fn uri(&self) -> Uri {
        let s = if self.template.pods.settings.tls.is_some() {
            "s"
        } else {
            ""
        };
        let uri = format!("http{s}://{}", self.authority()).parse();
        uri.expect("the builder has tried it")
    }

    /// A client's builder that knows the Service, and this cluster's DNS server instead of the system's.
    ///
    /// With TLS, set the certificates to trust yourself.
    pub fn client(&self) -> ClientBuilder {
        let name_server = self.dns.addr();
        Client::builder(self.uri()).dns(|dns| dns.name_servers([name_server]).allow_loopback(true))
    }

    /// The Service as a source of endpoints, for [`Balance`](crate::Balance) and others.
    pub fn discovery(&self) -> Dns {
        let target = self.service_target().parse();
        Dns::new(target.expect("the builder has tried it")).allow_loopback(true)
    }

    /// `dns://<DNS server>/<service>:<port>`, which parses into a [`Target`](crate::Target).
    pub fn service_target(&self) -> String {
        format!("dns://{}/{}", self.dns.addr(), self.authority())
    }

    fn authority(&self) -> String {
        let service = self.service.trim_end_matches('.');
        match &self.port_name {
            Some(name) => format!("_{name}._tcp.{service}"),
            None => format!("{service}:{}", self.port()),
        }
    }

    /// The pods that haven't been removed, ready or not, killed or not.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        let state = self.state.lock();
        let pods = state.members.iter().map(|it| Arc::clone(&it.pod));
        pods.collect()
    }

    /// Pod `i` of [`pods`](Self::pods).
    ///
    /// # Panics
    ///
    /// If there are no more than `i` pods.
    #[track_caller]
    pub fn pod(&self, i: usize) -> Arc<Pod> {
        Arc::clone(&self.state.lock().member(i).pod)
    }

    /// Writes the addresses of the ready pods to DNS. If there are none, DNS answers NXDOMAIN, as CoreDNS does.
    pub fn publish(&self) {
        let mut state = self.state.lock();
        let ready = || state.members.iter().filter(|member| member.ready);
        let name = |member: &Member| format!("{}.{}", member.hostname, self.service);
        let names: Vec<_> = ready().map(name).collect();
        // Names are added before the records that refer to them, and removed after those. So no query sees a target
        // without an address.
        for (member, name) in ready().zip(&names) {
            self.dns.set_a(name, state.ttl, member.ip());
        }
        if let Some(port) = &self.port_name {
            let targets = names.iter().map(|it| Srv::new(state.network.port, it));
            let service = format!("_{port}._tcp.{}", self.service);
            self.dns.set_srv(&service, state.ttl, targets);
        }
        let addresses = ready().filter_map(Member::ip);
        self.dns.set_a(&self.service, state.ttl, addresses);
        for old in &state.published {
            if !names.contains(old) {
                self.dns.remove(old);
            }
        }
        state.published = names;
    }

    /// Sets the records' TTL in seconds, 1 at first; publishes.
    pub fn set_ttl(&self, ttl: u32) {
        self.state.lock().ttl = ttl;
        self.publish();
    }

    /// Sets how long a removed pod goes on serving after it has left DNS, as with a `preStop` hook that sleeps.
    ///
    /// It is zero at first, so that tests are fast. Then clients that still use DNS's last answer are refused.
    pub fn set_drain(&self, drain: Duration) {
        self.state.lock().drain = drain;
    }

    /// Sets whether pod `i` passes its readiness probe; publishes.
    ///
    /// # Panics
    ///
    /// If there are no more than `i` pods.
    #[track_caller]
    pub fn set_ready(&self, i: usize, ready: bool) {
        self.state.lock().member(i).ready = ready;
        self.publish();
    }

    /// Adds pods, or removes the newest ones gracefully, until there are `n`; publishes.
    ///
    /// A client [confirms](crate::OnEmpty::Confirm) that there are none. For 10 s it keeps the pods that it already
    /// knew to refuse connections, and its errors are [`is_unreachable`](crate::http::Error::is_unreachable).
    ///
    /// # Panics
    ///
    /// As [`start_pod`](Self::start_pod) does.
    pub async fn scale(&self, n: usize) {
        while self.state.lock().members.len() < n {
            self.start_pod().await;
        }
        self.publish();
        let surplus = {
            let mut state = self.state.lock();
            let kept = n.min(state.members.len());
            state.members.split_off(kept)
        };
        self.terminate(surplus).await;
    }

    /// Replaces every pod, one after the other, as `kubectl rollout restart` does; publishes at each step.
    ///
    /// A new pod starts before an old one is removed. In a StatefulSet the old one goes first, from the highest ordinal
    /// down, and the new one has its name.
    ///
    /// Set a [drain](Self::set_drain) longer than the TTL first if no POST should fail. Without one, the old pods close
    /// connections that clients still send on.
    ///
    /// # Panics
    ///
    /// As [`start_pod`](Self::start_pod) does.
    pub async fn rolling_restart(&self) {
        let mut old = self.pods();
        if self.template.stateful_set.is_none() {
            for pod in &old {
                self.add_pod().await;
                self.remove(pod).await;
            }
            return;
        }
        while let Some(pod) = old.pop() {
            let ordinal = self.remove(&pod).await;
            self.start_other(ordinal, &[]).await;
            self.publish();
        }
    }

    /// Starts one more pod; publishes.
    ///
    /// # Panics
    ///
    /// As [`start_pod`](Self::start_pod) does.
    pub async fn add_pod(&self) -> Arc<Pod> {
        let pod = self.start_pod().await;
        self.publish();
        pod
    }

    /// Starts one more pod, which DNS doesn't name until something publishes. In a StatefulSet it has the lowest free
    /// ordinal.
    ///
    /// # Panics
    ///
    /// If all 254 addresses of the cluster are in use.
    pub async fn start_pod(&self) -> Arc<Pod> {
        self.start_other(None, &[]).await
    }

    /// Starts a pod with this ordinal, or with the lowest free one, and at none of the addresses `left`.
    async fn start_other(&self, ordinal: Option<usize>, left: &[SocketAddr]) -> Arc<Pod> {
        let mut last = None;
        for _ in 0..Network::HOSTS {
            let (address, ordinal) = {
                let mut state = self.state.lock();
                let ordinal = ordinal.unwrap_or_else(|| state.free_ordinal());
                (state.next_address(left), ordinal)
            };
            match self.template.start(address, ordinal).await {
                Ok(member) => {
                    let pod = Arc::clone(&member.pod);
                    self.state
                        .lock()
                        .insert(member, self.template.stateful_set.is_some());
                    return pod;
                }
                // Perhaps another process has taken it: try the next address.
                Err(error) => last = Some(error),
            }
        }
        panic!("no address is left for another pod: {last:?}");
    }

    /// Removes pod `i` as kubelet does: out of DNS first, told to finish after the [drain](Self::set_drain), then killed after
    /// 2 s. Publishes. Returns the pod when it has ended.
    ///
    /// # Panics
    ///
    /// If there are no more than `i` pods.
    pub async fn remove_pod(&self, i: usize) -> Arc<Pod> {
        let pod = self.pod(i);
        self.remove(&pod).await;
        pod
    }

    /// Kills pod `i`; DNS goes on naming it.
    ///
    /// # Panics
    ///
    /// If there are no more than `i` pods.
    pub async fn kill(&self, i: usize) {
        self.pod(i).kill().await;
    }

    /// Kills pod `i`, and starts another one at another address, as the last pod; publishes. In a StatefulSet it has
    /// the place and the name of the old one.
    ///
    /// # Panics
    ///
    /// If there are no more than `i` pods, and as [`start_pod`](Self::start_pod) does; the old address counts as in use.
    pub async fn replace(&self, i: usize) -> Arc<Pod> {
        let old = self.pod(i);
        old.kill().await;
        let taken = self.state.lock().take(&old);
        let ordinal = taken.first().map(|member| member.ordinal);
        let new = self.start_other(ordinal, &[old.addr()]).await;
        self.publish();
        new
    }

    /// Kills every pod, starts as many on other addresses, and publishes `dns_delay` later. Then it returns.
    ///
    /// # Panics
    ///
    /// If there are more than 127 pods, for which there are no other addresses, and as [`start_pod`](Self::start_pod) does.
    pub async fn replace_all(&self, dns_delay: Duration) {
        let old = {
            let mut state = self.state.lock();
            let (pods, most) = (state.members.len(), usize::from(Network::HOSTS / 2));
            assert!(
                pods <= most,
                "there are no other addresses for {pods} pods: at most {most} can be replaced at once"
            );
            mem::take(&mut state.members)
        };
        join_all(old.iter().map(|member| member.pod.kill())).await;
        let left: Vec<_> = old.iter().map(|member| member.pod.addr()).collect();
        for member in &old {
            self.start_other(Some(member.ordinal), &left).await;
        }
        tokio::time::sleep(dns_delay).await;
        self.publish();
    }

    /// Waits until the pods together have begun `n` requests. Removed pods don't count.
    ///
    /// # Panics
    ///
    /// If no request comes for [`PATIENCE`](super::PATIENCE).
    #[track_caller]
    pub fn wait_for_requests(&self, n: usize) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let mut joined = self.state.lock().joined.subscribe();
        async move {
            loop {
                joined.mark_unchanged();
                let pods = self.pods();
                let seen: Vec<_> = pods.iter().map(|pod| pod.requests()).collect();
                if seen.iter().sum::<usize>() >= n {
                    return;
                }
                let more = pods.iter().zip(seen);
                let more = more.map(|(pod, seen)| pod.more_requests(seen));
                let mut more: FuturesUnordered<_> = more.collect();
                let event = async {
                    tokio::select! {
                        Some(()) = more.next() => {}
                        // Another pod, whose requests count as well.
                        _ = joined.changed() => {}
                    }
                };
                within_at(caller, "another request", event).await;
            }
        }
    }

    /// An address that no pod has had yet, for a server of your own. [`publish`](Self::publish) doesn't know it.
    ///
    /// # Panics
    ///
    /// If all 254 addresses of the cluster are in use.
    pub fn next_address(&self) -> SocketAddr {
        self.state.lock().next_address(&[])
    }

    /// Removes the pod, and returns its ordinal, which is then free.
    async fn remove(&self, pod: &Arc<Pod>) -> Option<usize> {
        let leaving = self.state.lock().take(pod);
        let ordinal = leaving.first().map(|member| member.ordinal);
        self.terminate(leaving).await;
        ordinal
    }

    async fn terminate(&self, leaving: Vec<Member>) {
        self.publish();
        let drain = self.state.lock().drain;
        tokio::time::sleep(drain).await;
        let stops = leaving.iter().map(async |member| {
            let finished = tokio::time::timeout(GRACE, member.pod.stop_gracefully()).await;
            if finished.is_err() {
                member.pod.kill().await;
            }
        });
        join_all(stops).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &self.state.lock().members {
            member.pod.abort();
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("service", &self.service)
            .field("dns", &self.dns)
            .field("pods", &self.pods())
            .finish_non_exhaustive()
    }
}

impl State {
    #[track_caller]
    fn member(&mut self, i: usize) -> &mut Member {
        let n = self.members.len();
        let member = self.members.get_mut(i);
        member.unwrap_or_else(|| panic!("no pod {i}: the cluster has {n}, counted from 0"))
    }

    fn insert(&mut self, member: Member, by_ordinal: bool) {
        let place = match by_ordinal {
            true => self
                .members
                .partition_point(|it| it.ordinal < member.ordinal),
            false => self.members.len(),
        };
        self.members.insert(place, member);
        self.joined.send_replace(());
    }

    /// Removes this pod from the list, if it is there.
    fn take(&mut self, pod: &Arc<Pod>) -> Vec<Member> {
        let taken = self.members.extract_if(.., |it| Arc::ptr_eq(&it.pod, pod));
        taken.collect()
    }

    fn free_ordinal(&self) -> usize {
        let is_taken = |ordinal: &usize| self.members.iter().any(|it| it.ordinal == *ordinal);
        (0..).find(|ordinal| !is_taken(ordinal)).unwrap_or_default()
    }

    /// The next address in turn that is no pod's, and none of `left`. An address that was just given up comes last.
    fn next_address(&mut self, left: &[SocketAddr]) -> SocketAddr {
        for _ in 0..Network::HOSTS {
            let address = self.network.next_address();
            let taken = |member: &Member| member.pod.addr() == address;
            if !self.members.iter().any(taken) && !left.contains(&address) {
                return address;
            }
        }
        panic!(
            "a cluster has one /24 of addresses, so at most {} pods",
            Network::HOSTS
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BoxError;

    #[tokio::test]
    async fn a_killed_pod_costs_its_client_nothing() -> Result<(), BoxError> {
        let cluster = Cluster::builder().pods(2).start().await;
        let client = cluster.client().build()?;
        assert_eq!(client.get("/").await?.status(), 200);
        cluster.kill(0).await;
        for _ in 0..4 {
            let response = client.get("/").await?;
            assert_eq!(
                response.body().endpoint().expect("a pod").address(),
                cluster.pod(1).addr()
            );
        }
        Ok(())
    }
}
