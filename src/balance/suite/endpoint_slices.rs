//! A balancer over EndpointSlices: how old its set is.

use super::*;
use crate::discovery::endpoint_slices::suite::{Script, scripted};

const MINUTE: Duration = Duration::from_secs(60);
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(3600);

fn balance(script: &Script) -> Balance<()> {
    Balance::builder(scripted(script)).build(|_: &Endpoint| ())
}

/// A balancer's staleness of a quiet Service never exceeds the time between bookmarks.
#[tokio::test(start_paused = true)]
async fn staleness_stays_below_a_minute_while_a_quiet_watch_is_alive() {
    let script = Script::default();
    script.slice("web-a", [1]);
    let balance = balance(&script);
    let _changes = balance.watch();
    for second in 1..=600 {
        tokio::time::sleep(SECOND).await;
        if second % 60 == 0 {
            script.bookmark();
        }
        let staleness = balance.staleness().expect("an answer");
        assert!(staleness <= MINUTE, "{second} s: {staleness:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_away_for_hours_leaves_the_last_set_and_staleness_grows() {
    let script = Script::default();
    script.slice("web-a", [1, 2]);
    let balance = balance(&script);
    let _changes = balance.watch();
    tokio::time::sleep(5 * SECOND).await;
    script.silent(true);
    tokio::time::sleep(3 * PATIENCE).await;
    assert_eq!(balance.endpoints().len(), 2);
    assert!(balance.staleness().expect("an answer") > 3 * PATIENCE - MINUTE);
    script.silent(false);
    // The longest pause, plus the timeout of an answer.
    tokio::time::sleep(50 * SECOND).await;
    assert!(balance.staleness().expect("an answer") < 50 * SECOND);
}
