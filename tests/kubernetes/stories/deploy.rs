//! Follows `deploy/README.md` word by word, with the files in `deploy/`.

mod image;
mod log;
mod readme;
mod shell;

use super::{Use, until};
use crate::kit::namespace::Namespace;
use readme::Readme;
use shell::Shell;

/// All sections of the README, so that none is skipped or left unchecked.
const SECTIONS: [&str; 11] = [
    "The image",
    "The pods",
    "Balance",
    "Scale",
    "Roll",
    "Watch",
    "A StatefulSet",
    "One pod by its name",
    "A key",
    "All pods",
    "Clean up",
];

/// The Deployments of clients.
const BY_DNS: &str = "client";
const BY_WATCH: &str = "client-watch";

/// Runs each block of commands in order, and checks that it does what it says. Only the image isn't built by Docker or
/// pushed: the steps of its Dockerfile are done here.
pub(crate) async fn the_readme_works_as_written() {
    let readme = Readme::read();
    let titles: Vec<_> = readme.sections.iter().map(|it| &*it.title).collect();
    assert_eq!(titles, SECTIONS);
    let mut story = Story::begin().await;
    for section in &readme.sections {
        let mut told = String::new();
        for block in &section.blocks {
            if block.is_outside {
                image::builds(&block.commands).await;
                continue;
            }
            let output = story.shell.run(&block.commands).await;
            block.assert_expected(&output, &story.namespace.name);
            told += &output;
        }
        story.check(&section.title, &told).await;
    }
}

struct Story {
    namespace: Namespace,
    shell: Shell,
    /// The clients' pods so far, which must end well.
    clients: Vec<String>,
}

impl Story {
    async fn begin() -> Self {
        let namespace = Namespace::create("deploy-readme", Use::Shared).await;
        let shell = Shell::new(&namespace).await;
        Self {
            namespace,
            shell,
            clients: Vec::new(),
        }
    }

    /// Checks what must be true after a section.
    async fn check(&mut self, title: &str, told: &str) {
        match title {
            // Its block isn't run.
            "The image" => {}
            "The pods" => self.pods_are_told(told).await,
            "Balance" => {
                self.client_is_seen(BY_DNS).await;
                self.all_is_well(3).await;
            }
            "Scale" | "Roll" => self.all_is_well(5).await,
            "Watch" => {
                self.client_is_seen(BY_WATCH).await;
                self.all_is_well(5).await;
            }
            "A StatefulSet" => {
                self.hostnames_are_told(told).await;
                self.all_is_well(3).await;
            }
            "One pod by its name" => {
                let pods: Vec<_> = log::answers(told).into_iter().map(|it| it.0).collect();
                assert_eq!(pods, ["web-1", "web-1"], "{told}");
                self.all_is_well(3).await;
            }
            "A key" => {
                let answers = log::answers(told);
                let [(before, _), (after, _)] = answers[..] else {
                    panic!("one pod before, and one after:\n{told}");
                };
                assert_eq!(before, after, "{told}");
                self.all_is_well(3).await;
            }
            "All pods" => {
                let answers = log::answers(told);
                let pods: Vec<_> = answers.iter().map(|it| it.0).collect();
                assert_eq!(pods, self.in_order(["web-0", "web-1", "web-2"]), "{told}");
                assert!(answers.iter().all(|it| it.1 == answers[0].1), "{told}");
            }
            "Clean up" => self.all_has_ended().await,
            _ => panic!("there is no check of {title:?}"),
        }
    }

    /// Asserts that the ordinary Service has one address, and the headless one three: the pods'.
    async fn pods_are_told(&self, told: &str) {
        let get = "get service nginx -o jsonpath={.spec.clusterIP}";
        let address = self.namespace.kubectl.run(get).await;
        let (ordinary, headless) = told
            .split_once("1 pod behind nginx:80\n")
            .unwrap_or_else(|| panic!("nginx has one address:\n{told}"));
        assert!(ordinary.contains(&address), "{address}:\n{told}");
        let headline = "3 pods behind nginx-headless:80\n";
        assert!(headless.contains(headline), "{headless}");
        let ready = self.namespace.ready("nginx-headless").await;
        assert_eq!(ready.len(), 3);
        for pod in ready {
            assert!(headless.contains(&pod.to_string()), "{pod}:\n{told}");
        }
    }

    async fn hostnames_are_told(&self, told: &str) {
        for pod in ["web-0", "web-1", "web-2"] {
            let address = self.namespace.nodes.addresses_of(pod)[0].to_string();
            let is_told = |line: &str| line.starts_with(&address) && line.ends_with(pod);
            assert!(told.lines().any(is_told), "{pod} {address}:\n{told}");
        }
    }

    /// These pods, sorted by address.
    fn in_order<const N: usize>(&self, mut pods: [&'static str; N]) -> [&'static str; N] {
        pods.sort_by_key(|pod| self.namespace.nodes.addresses_of(pod)[0]);
        pods
    }

    async fn client_is_seen(&mut self, deployment: &str) {
        let get = format!("get pods --selector app={deployment} --output name");
        let pods = self.namespace.kubectl.run(&get).await;
        let pod = pods.trim().strip_prefix("pod/");
        let pod = pod.filter(|pod| !pod.contains('\n'));
        let pod = pod.unwrap_or_else(|| panic!("one pod of {deployment}: {pods:?}"));
        self.clients.push(pod.to_owned());
    }

    /// Asserts that each client uses exactly these pods, in equal shares, without failures.
    async fn all_is_well(&self, count: usize) {
        let ready = self.namespace.ready("nginx-headless").await;
        assert_eq!(ready.len(), count, "{ready:?}");
        for client in &self.clients {
            let what = format!("{client} on {ready:?} in equal shares");
            until(&what, async || {
                log::is_even(&self.namespace.nodes.log(client), &ready)
            })
            .await;
            log::assert_none_failed(&self.namespace.nodes.log(client));
        }
    }

    /// Asserts that nothing is left, and that the clients ended with a report.
    async fn all_has_ended(&self) {
        const KINDS: &str =
            "deployments,statefulsets,services,pods,roles,rolebindings,serviceaccounts";
        until("an empty namespace", async || {
            let get = format!("get {KINDS} --output name");
            let left = self.namespace.kubectl.run(&get).await;
            left.trim() == "serviceaccount/default"
        })
        .await;
        assert_eq!(self.clients.len(), 2);
        for client in &self.clients {
            log::assert_ended_well(&self.namespace.nodes.log(client));
        }
    }
}
