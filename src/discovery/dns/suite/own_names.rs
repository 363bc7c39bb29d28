//! Pods' own names, looked up along with the Service's.

use super::*;
use crate::discovery::dns::lookup::{RecordType, Service};

const SERVICE: &str = "web.default.svc.cluster.local";

fn own(pod: &str) -> String {
    format!("{pod}.{SERVICE}")
}

fn named(host: u8, pod: &str) -> Endpoint {
    let mut endpoint = hosts([host]).remove(0);
    endpoint.lease_hostname(pod.into());
    endpoint
}

/// A Service of pods 1 to 3. Pod 1 is web-0, and requests ask for it.
async fn stateful() -> (Script, Shared<Refresher<Script>>, Vec<Endpoint>) {
    let script = Script::new();
    script.pods(SERVICE, [1, 2, 3]);
    script.pods(&own("web-0"), [1]);
    let mut discovery = discovery("web:80", &script);
    discovery.wanted("web-0");
    let first = set(&mut discovery).await;
    (script, discovery, first)
}

fn with(pods: [Option<&str>; 3]) -> Vec<Endpoint> {
    let pods = pods.into_iter().zip(1..);
    pods.map(|(pod, host)| pod.map_or_else(|| hosts([host]).remove(0), |pod| named(host, pod)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_wanted_name_is_known_from_the_first_look_on() {
    let (_script, _discovery, first) = stateful().await;
    assert_eq!(first, with([Some("web-0"), None, None]));
}

#[tokio::test(start_paused = true)]
async fn a_name_moves_to_the_address_that_the_last_look_found() {
    let (script, mut discovery, _) = stateful().await;
    discovery.wanted("web-1");
    script.pods(&own("web-1"), [2]);
    until(&mut discovery, &with([Some("web-0"), Some("web-1"), None])).await;
    // They swap.
    script.pods(&own("web-0"), [2]);
    script.pods(&own("web-1"), [1]);
    until(&mut discovery, &with([Some("web-1"), Some("web-0"), None])).await;
    // One goes, and another pod that nobody asks for gets its address.
    script.forget(&own("web-1"));
    until(&mut discovery, &with([None, Some("web-0"), None])).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_name_is_looked_up_at_once() {
    let (script, mut discovery, _) = stateful().await;
    script.pods(&own("web-1"), [2]);
    discovery.wanted("web-1");
    let known = with([Some("web-0"), Some("web-1"), None]);
    let after = until(&mut discovery, &known).await;
    assert!(after < SECOND / 10, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_comes_too_late_for_a_look_is_looked_up_right_after_it() {
    let (script, mut discovery, _) = stateful().await;
    script.pods(&own("web-1"), [2]);
    script.slow(RecordType::A, SECOND / 10);
    discovery.refresh();
    // The Service has answered, and web-0 is being looked up.
    run(&mut discovery, SECOND + 3 * SECOND / 20).await;
    discovery.wanted("web-1");
    let known = with([Some("web-0"), Some("web-1"), None]);
    let after = until(&mut discovery, &known).await;
    assert!(after < SECOND / 2, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_comes_in_time_for_a_look_makes_no_other() {
    let (script, mut discovery, _) = stateful().await;
    script.pods(&own("web-1"), [2]);
    script.slow(RecordType::A, SECOND / 10);
    discovery.refresh();
    // The Service is being looked up.
    run(&mut discovery, SECOND + SECOND / 20).await;
    script.take_asked();
    discovery.wanted("web-1");
    let known = with([Some("web-0"), Some("web-1"), None]);
    until(&mut discovery, &known).await;
    run(&mut discovery, SECOND / 2).await;
    let asked = script.take_asked();
    assert!(asked.iter().all(|(name, _)| name != SERVICE), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_new_names_makes_few_looks() {
    let (script, mut discovery, _) = stateful().await;
    script.take_asked();
    for pod in 0..1_000 {
        discovery.wanted(&format!("made-up-{pod}"));
        run(&mut discovery, SECOND / 100).await;
    }
    let asked = script.take_asked();
    let service = (SERVICE.to_owned(), RecordType::A);
    let looks = asked.iter().filter(|it| **it == service).count();
    // Ten seconds: the usual one each second, four early ones, and one more each second.
    assert!((10..=10 + 4 + 10).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn a_name_adds_no_endpoint() {
    let (script, mut discovery, _) = stateful().await;
    script.pods(&own("web-0"), [9]);
    until(&mut discovery, &with([None; 3])).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_two_names_claim_gets_neither() {
    let (script, mut discovery, first) = stateful().await;
    discovery.wanted("web-1");
    script.pods(&own("web-1"), [1]);
    // This comes before names are forgotten.
    let (second, after) = next(&mut discovery, &first).await;
    assert!(after < 60 * SECOND, "{after:?}");
    assert_eq!(second, with([None; 3]));
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_lookup_fails_stays_while_its_address_does() {
    for say in [Say::ServFail, Say::Silence] {
        let (script, mut discovery, first) = stateful().await;
        script.fails_name(&own("web-0"), Some(say));
        for _ in 0..3 {
            assert_eq!(set(&mut discovery).await, first);
        }
        script.pods(SERVICE, [2, 3]);
        until(&mut discovery, &hosts([2, 3])).await;
        script.pods(SERVICE, [1, 2, 3]);
        until(&mut discovery, &with([None; 3])).await;
        script.fails_name(&own("web-0"), None);
        until(&mut discovery, &first).await;
    }
}

/// Its pod may be gone, and another pod may have its address by now.
#[tokio::test(start_paused = true)]
async fn a_name_whose_lookup_fails_is_forgotten_after_30_s() {
    for say in [Say::ServFail, Say::Silence] {
        let (script, mut discovery, first) = stateful().await;
        script.fails_name(&own("web-0"), Some(say));
        let (second, after) = next(&mut discovery, &first).await;
        assert_eq!(second, with([None; 3]));
        // Until the first failing look, 30 s, and one more look.
        assert!((30 * SECOND..42 * SECOND).contains(&after), "{after:?}");
        script.fails_name(&own("web-0"), None);
        until(&mut discovery, &first).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_fails_now_and_then_stays() {
    let (script, mut discovery, first) = stateful().await;
    for _ in 0..8 {
        for (say, seconds) in [(Some(Say::ServFail), 15), (None, 7)] {
            script.fails_name(&own("web-0"), say);
            run(&mut discovery, seconds * SECOND).await;
            assert_eq!(set(&mut discovery).await, first);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_slow_names_get_their_turn() {
    let script = Script::new();
    script.slow(RecordType::A, 300 * SECOND / 1000);
    script.pods(SERVICE, 1..=64);
    let mut discovery = discovery("web:80", &script);
    let pods = (1..=64).map(|host| (host, format!("web-{host}")));
    let pods: Vec<_> = pods
        .inspect(|(host, pod)| {
            script.pods(&own(pod), [*host]);
            discovery.wanted(pod);
        })
        .map(|(host, pod)| named(host, &pod))
        .collect();
    until(&mut discovery, &pods).await;
    // None is forgotten while others get theirs.
    for _ in 0..50 {
        assert_eq!(set(&mut discovery).await, pods);
    }
}

/// Names without an answer use up all the time that they get.
#[tokio::test(start_paused = true)]
async fn names_without_an_answer_do_not_keep_others_from_their_turn() {
    let (script, mut discovery, _) = stateful().await;
    for pod in 0..40 {
        let pod = format!("a-{pod}");
        script.fails_name(&own(&pod), Some(Say::Silence));
        discovery.wanted(&pod);
    }
    for _ in 0..3 {
        discovery.wanted("web-1");
        script.pods(&own("web-1"), [2]);
        until(&mut discovery, &with([Some("web-0"), Some("web-1"), None])).await;
        script.forget(&own("web-1"));
        until(&mut discovery, &with([Some("web-0"), None, None])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn made_up_names_do_not_keep_out_a_pods() {
    let (script, mut discovery, _) = stateful().await;
    for pod in 0..100 {
        discovery.wanted(&format!("made-up-{pod}"));
    }
    // They have been looked up by then.
    run(&mut discovery, 10 * SECOND).await;
    script.pods(&own("web-1"), [2]);
    discovery.wanted("web-1");
    until(&mut discovery, &with([Some("web-0"), Some("web-1"), None])).await;
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_with_the_service_until_nobody_asks_for_them() {
    let (script, mut discovery, _) = stateful().await;
    script.take_asked();
    run(&mut discovery, 60 * SECOND).await;
    let asked = script.take_asked();
    let count = |name: &str, record_type| {
        let same = |it: &&(String, RecordType)| it.0 == name && it.1 == record_type;
        asked.iter().filter(same).count()
    };
    let [addresses, own_name] = [SERVICE, &own("web-0")].map(|name| count(name, RecordType::A));
    assert!(
        addresses >= 12 && own_name == addresses,
        "{own_name} of {addresses}"
    );
    // The Service has no IPv6 addresses, so its pods aren't asked for any.
    assert_eq!(count(&own("web-0"), RecordType::Aaaa), 0);
    until(&mut discovery, &with([None; 3])).await;
    script.take_asked();
    run(&mut discovery, 60 * SECOND).await;
    assert!(script.take_asked().iter().all(|(name, _)| name == SERVICE));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_asked_for_again_is_kept() {
    let (_script, mut discovery, first) = stateful().await;
    for _ in 0..10 {
        discovery.wanted("web-0");
        run(&mut discovery, 60 * SECOND).await;
    }
    assert_eq!(set(&mut discovery).await, first);
}

#[tokio::test(start_paused = true)]
async fn a_clone_in_another_runtime_knows_the_wanted_names() {
    let (_script, discovery, _) = stateful().await;
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let mut discovery = discovery.clone();
        runtime.block_on(async {
            discovery.refresh();
            run(&mut discovery, 20 * SECOND).await;
            set(&mut discovery).await
        })
    });
    let set = other.join().expect("no panic");
    assert_eq!(set, with([Some("web-0"), None, None]));
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_if_srv_records_do_not_carry_them() {
    let script = Script::new();
    let services = (0..3).map(|pod| Service {
        priority: 0,
        weight: 33,
        port: 80,
        target: own(&format!("web-{pod}")),
    });
    let name = format!("_http._tcp.{SERVICE}");
    script.say(
        &name,
        RecordType::Srv,
        Say::Services {
            services: services.collect(),
            glue: Vec::new(),
            truncated: false,
        },
    );
    script.pods(SERVICE, [1, 2, 3]);
    script.pods(&own("web-1"), [3]);
    let mut discovery = discovery("_http._tcp.web", &script);
    assert_eq!(set(&mut discovery).await, hosts([1, 2, 3]));
    discovery.wanted("web-1");
    until(&mut discovery, &with([None, None, Some("web-1")])).await;
}
