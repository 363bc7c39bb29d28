//! Adversarial: one source whose clones are used from two runtimes, of which one ends.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::StreamExt;
use tokio::time::timeout;
use tower_headless::{Dns, MembershipStream};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn a_source_outlives_the_runtime_of_one_of_its_readers() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let dns = Dns::new("web.default.svc.cluster.local.:80".parse().expect("a target"))
        .name_servers([nobody]);
    let first = runtime();
    let mut one = MembershipStream::new(dns.clone());
    first.block_on(async {
        let _ = timeout(Duration::from_millis(300), one.next()).await;
    });
    drop(one);
    drop(first);
    let second = runtime();
    let mut other = MembershipStream::new(dns);
    let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
        second.block_on(async {
            let _ = timeout(Duration::from_secs(2), other.next()).await;
        });
    }));
    assert!(polled.is_ok(), "the second runtime's reader panics");
}
