//! The background task ends while requests wait.

use futures::{channel::oneshot, future::select};

use super::*;
use crate::interleavings::explore;

#[test]
fn requests_that_wait_fail_when_the_background_task_ends() {
    let runtime = clock();
    explore(move || {
        let Scene {
            balance,
            driver,
            source,
        } = scene(Pod::new(u32::MAX, 0), PLAIN);
        let _entered = runtime.enter();
        let (stop, stopped) = oneshot::channel::<()>();
        let driver = thread::spawn(move || drop(block_on(select(driver, stopped))));
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let mut balance = balance.clone();
                thread::spawn(move || {
                    let ready = std::future::poll_fn(|cx| balance.poll_opened(cx));
                    block_on(ready);
                    block_on(balance.call_with(7, Route::new())).unwrap_err()
                })
            })
            .collect();
        source.unbounded_send(vec![endpoint(1)]).unwrap();
        // Lets the checker switch to another thread.
        AtomicUsize::new(0).load(Relaxed);
        stop.send(()).unwrap();
        for client in clients {
            client.join().unwrap();
        }
        driver.join().unwrap();
    });
}
