use std::{net::SocketAddr, thread};

use http::uri::{Authority, Scheme};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use super::*;
use crate::counters::joining;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

/// A pool with room for one connection to this pod.
pub(super) fn pool(pod: SocketAddr, connector: Connector) -> Arc<Pool> {
    let config = Config {
        connector,
        service: Service::new(Scheme::HTTP, &Authority::from_static("web.default")),
        max_idle: 1,
        idle_timeout: 60 * SECOND,
        max_connections: 1,
        first_byte: None,
        age: AgeLimits::default(),
        ahead: false,
        generator: Generator::new(None),
    };
    Pool::new(pod.into(), Arc::new(config))
}

/// RFC 9113 §6.5: empty settings change nothing.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The dial was given up, and ends with a connection nevertheless.
#[tokio::test]
async fn a_connection_whose_room_was_taken_over_is_not_kept() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for is_taken_over in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let connector = Connector {
                protocol,
                ..Connector::default()
            };
            let pool = pool(listener.local_addr().expect("an address"), connector);
            let tenancy = pool.take_room(&mut pool.state.lock());
            let tenancy = tenancy.unwrap_or_else(|_full| panic!("there is room"));
            let room = tenancy.room();
            let connector = &pool.config.connector;
            let serve = async {
                let (mut stream, _) = listener.accept().await?;
                if protocol == Protocol::Http2 {
                    stream.write_all(SETTINGS).await?;
                }
                std::io::Result::Ok(stream)
            };
            let (connection, stream) = futures::join!(
                connector.connect(&pool.named.origin.pod, None, (tenancy, ())),
                serve
            );
            let _stream = stream.expect("a client");
            if is_taken_over {
                let elsewhere = || {
                    let runtime = runtime();
                    let _entered = runtime.enter();
                    pool.take_room(&mut pool.state.lock()).is_ok()
                };
                let taken = thread::scope(|scope| scope.spawn(elsewhere).join());
                assert!(taken.expect("no panic"), "nobody uses it");
            }
            pool.add(connection.expect("a connection"), None, room);
            assert_eq!(pool.state.lock().is_empty(), is_taken_over, "{protocol:?}");
        }
    }
}

/// The connection is made all the same, and nobody uses it.
#[tokio::test]
async fn a_connection_made_for_a_pod_that_has_left_is_closed_as_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connector = Connector {
        protocol: Protocol::Http2,
        ..Connector::default()
    };
    let (pool, tally) = joining(|| pool(address, connector));
    let tally = tally.expect("counters");
    let wait = pool.connect();
    let (mut stream, _) = listener.accept().await.expect("a connection");
    drop(pool);
    stream.write_all(SETTINGS).await.expect("sent");
    let Wait::Shared(dialed, ..) = wait else {
        panic!("one dial for all");
    };
    assert!(dialed.await.is_ok());
    stream.read_to_end(&mut Vec::new()).await.expect("its end");
    assert!(tally.is_closed_by(Closed::Left));
}
