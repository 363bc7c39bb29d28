//! The runtime that all inputs share.

use std::{cell::OnceCell, future::Future, sync::Once, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::yield_now,
    time::timeout,
};

/// What takes longer is a hang. Nothing in a target waits this long, even on a busy machine.
const HANG: Duration = Duration::from_secs(20);

/// Runs a future without sockets, under paused time, and then waits for the end of all tasks that it has spawned.
pub fn paused<F: Future>(future: F) -> F::Output {
    thread_local!(static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() });
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    RUNTIME.with(|runtime| {
        run(
            runtime.get_or_init(|| builder.build().expect("a runtime")),
            future,
        )
    })
}

/// Runs a future with sockets, in real time, and then waits for the end of all tasks that it has spawned.
pub fn real<F: Future>(future: F) -> F::Output {
    thread_local!(static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() });
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    ignore_sigpipe();
    RUNTIME.with(|runtime| {
        run(
            runtime.get_or_init(|| builder.build().expect("a runtime")),
            future,
        )
    })
}

/// Ignores SIGPIPE, so that a write to a closed socket is an error and doesn't end the process. Rust does this before
/// `main`, but here libFuzzer has the `main`.
fn ignore_sigpipe() {
    static ONCE: Once = Once::new();
    // Safety: no handler is set that could run.
    ONCE.call_once(|| unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    });
}

fn run<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    runtime.block_on(async {
        let output = future.await;
        in_time("the end of all tasks", no_task_is_left()).await;
        output
    })
}

async fn no_task_is_left() {
    let metrics = Handle::current().metrics();
    while metrics.num_alive_tasks() > 0 {
        settle().await;
        if metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Runs a future, and panics if it takes too long.
pub async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(HANG, future).await {
        Ok(output) => output,
        Err(_) => panic!("hangs: {what}"),
    }
}

/// Lets all tasks run until nothing but time, or the other end of a socket, can wake them.
///
/// Each yield lets them run until none is ready, and then polls the sockets (`tokio::task::yield_now`). A request takes
/// three such turns to be connected and written, and a response two to be read.
pub async fn settle() {
    for _ in 0..6 {
        yield_now().await;
    }
}
