//! Watches without rights, and with a token that expires.

use std::{error::Error, fs, future::poll_fn};

use tokio::time::timeout;
use tower_headless::{Discovery, EndpointSlices, EndpointSlicesError, http::Client};

use super::{MOMENT, Use, WEB, deploy, gets, manifests, settles, until};
use crate::{
    kit::{control_plane::User, namespace::Namespace, relay::Relay},
    source::{client_by, dns, slices, uri},
    support::{servers::TempDir, within},
};

/// The error contains the manifests that help.
pub(crate) async fn rights_are_refused_then_granted() {
    let namespace = Namespace::create("watch-rights", Use::Shared).await;
    deploy(&namespace, "Deployment", 3).await;
    let uri = uri(&namespace, WEB, 80);
    let slices = slices(&uri, namespace.plane.kubeconfig(User::Watcher));
    let client = client_by(&uri, slices).build().expect("a client");
    let refused = client.get("/").await.expect_err("nothing is known");
    let refusal = refusal(&refused).unwrap_or_else(|| panic!("{refused:?}"));
    assert!(refusal.is_forbidden(), "{refusal}");
    namespace.kubectl.apply(&remedy(refusal)).await;
    settles(&client, &namespace, WEB, 3).await;
    client.get("/").await.expect("three pods");
}

/// With DNS as the fallback, the client has its pods at once, and the watch takes over as soon as it is allowed.
pub(crate) async fn dns_serves_while_rights_are_refused() {
    let namespace = Namespace::create("watch-or-dns", Use::Shared).await;
    deploy(&namespace, "StatefulSet", 3).await;
    let uri = uri(&namespace, WEB, 80);
    let mut slices = slices(&uri, namespace.plane.kubeconfig(User::Watcher));
    let client = client_by(&uri, slices.clone().or(dns(&uri))).build();
    let client = client.expect("a client");
    settles(&client, &namespace, WEB, 3).await;
    assert!(!is_watched(&client), "DNS knows of no nodes");
    let load = gets(&client, 100);
    let refusal = within("a refusal", next_error(&mut slices)).await;
    namespace.kubectl.apply(&remedy(&refusal)).await;
    until("the watch's set", async || is_watched(&client)).await;
    namespace.scale("statefulset/web", 4).await;
    settles(&client, &namespace, WEB, 4).await;
    assert!(is_watched(&client));
    load.stop().await.assert_none_failed();
}

/// The set stays while the token is rejected, and the watch goes on with the next token.
pub(crate) async fn a_token_expires() {
    let namespace = Namespace::create("watch-token", Use::Shared).await;
    deploy(&namespace, "Deployment", 3).await;
    let role = manifests::role("client");
    namespace.kubectl.apply(&role).await;
    let folder = TempDir::new().expect("a folder of its own");
    let token = folder.path().join("token");
    fs::write(&token, new_token(&namespace).await).expect("it can be written");
    let relay = Relay::start().await;
    let kubeconfig = namespace.plane.kubeconfig_of_token(&token, relay.address);
    let uri = uri(&namespace, WEB, 80);
    let mut slices = slices(&uri, &kubeconfig);
    let client = client_by(&uri, slices.clone()).build().expect("a client");
    settles(&client, &namespace, WEB, 3).await;
    let load = gets(&client, 100);
    // Deleting the account invalidates its token, but an open watch stays open.
    namespace.kubectl.run("delete serviceaccount client").await;
    until("a refusal", async || {
        relay.cut();
        let error = timeout(MOMENT, next_error(&mut slices)).await;
        error.is_ok_and(|error| error.is_unauthorized())
    })
    .await;
    assert_eq!(client.endpoints().len(), 3, "the set stays");
    fs::write(&token, new_token(&namespace).await).expect("it can be written");
    namespace.scale("deployment/web", 5).await;
    settles(&client, &namespace, WEB, 5).await;
    load.stop().await.assert_none_failed();
}

/// Creates the account `client`, and returns a token for it.
async fn new_token(namespace: &Namespace) -> String {
    let kubectl = &namespace.kubectl;
    kubectl.run("create serviceaccount client").await;
    kubectl.run("create token client").await.trim().to_owned()
}

/// The watch's next error; sets are skipped.
async fn next_error(slices: &mut EndpointSlices) -> EndpointSlicesError {
    loop {
        if let Err(error) = poll_fn(|cx| slices.poll_next(cx)).await {
            return *error.downcast().expect("it is the watch's");
        }
    }
}

/// The watch's error in a chain of errors.
fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a EndpointSlicesError> {
    let mut reason = Some(error);
    while let Some(error) = reason {
        if let Some(refusal) = error.downcast_ref() {
            return Some(refusal);
        }
        reason = error.source();
    }
    None
}

/// The manifests at the end of an error's text.
fn remedy(refusal: &EndpointSlicesError) -> String {
    let text = refusal.to_string();
    let (_, manifests) = text
        .split_once("(kubectl apply -f -):\n")
        .expect("a remedy");
    manifests.to_owned()
}

/// Whether the client's set comes from the API server: only that knows nodes.
fn is_watched(client: &Client) -> bool {
    let endpoints = client.endpoints();
    endpoints.iter().any(|it| it.endpoint.node().is_some())
}
