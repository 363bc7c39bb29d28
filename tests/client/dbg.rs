use crate::kit::*;
use tower::ServiceExt;
#[tokio::test]
async fn dbg_streamed() {
    tracing_subscriber::fmt().with_env_filter("tower_headless=trace,hyper=trace").init();
    let (listener, pod) = listen().await;
    let request = http::Request::post("/").body(stream_of(&["ab", "cde"])).expect("r");
    let c = client([pod]);
    let f = tokio::time::timeout(std::time::Duration::from_secs(2), c.oneshot(request));
    let a = async { eprintln!("accept {:?}", tokio::time::timeout(std::time::Duration::from_secs(3), listener.accept()).await);};
    let (f, ()) = futures::future::join(async {let r = f.await; eprintln!("{r:?}"); r}, a).await;
}
