//! Captures what is logged.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use tracing::{Dispatch, Level, dispatcher};

/// The log at `level` and above while `body` runs on this thread.
pub(super) async fn logged(level: Level, body: impl Future<Output = ()>) -> String {
    let log = Log::default();
    let written = log.clone();
    LazyLock::force(&ANOTHER);
    let guard = dispatcher::set_default(&subscriber(level, move || written.clone()));
    body.await;
    drop(guard);
    let log = log.0.lock().expect("no panic");
    String::from_utf8(log.clone()).expect("text")
}

/// A subscriber that writes to what `writer` makes.
fn subscriber<W: io::Write + 'static>(
    level: Level,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> Dispatch {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(writer);
    Dispatch::new(subscriber.finish())
}

/// A second subscriber. With only one, tracing asks whichever thread first reaches a log line for its interest, and
/// caches the answer for all threads. That thread may belong to another test, without a subscriber. With two, it asks
/// both.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| subscriber(Level::INFO, io::sink));

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
