//! Sources of endpoints of one's own, and what a [`MembershipStream`] makes of them.

mod support;

use futures::StreamExt;
use support::{
    scripted::{discovery, endpoint},
    within,
};
use tower_headless::{MembershipChange, MembershipStream};

async fn change(stream: &mut MembershipStream) -> MembershipChange {
    let change = within("a change", stream.next()).await;
    change.expect("it never ends")
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_over_an_address_joins() {
    let (script, source) = discovery();
    let mut stream = MembershipStream::new(source);
    script.answer([1]);
    assert_eq!(change(&mut stream).await.joined, [endpoint(1)]);
    let uid = |uid: &str| endpoint(1).with_pod_uid(uid);
    script.endpoints(vec![uid("a")]); // which pod it is, is learnt
    script.endpoints(vec![uid("b")]); // another one
    let change = change(&mut stream).await;
    assert_eq!(
        (change.joined, change.left),
        (vec![uid("b")], vec![uid("a")])
    );
}
