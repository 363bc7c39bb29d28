//! Reads the page every second (less often if it is slow), on a thread of its own.

use std::{collections::BTreeMap, sync::mpsc, thread, time::Duration};

use reqwest::{Client, Url};
use tokio::time::{Instant, sleep};
use tower_headless::Explanation;

const EVERY: Duration = Duration::from_secs(1);

/// The longest pause after a slow reading.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A process that sends nothing for this long counts as gone. The JSON of thousands of pods may take longer, as long as
/// data keeps coming.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The balancers by name, or why they could not be read.
pub(crate) struct Reading {
    pub(crate) at: Instant,
    pub(crate) what: Result<BTreeMap<String, Explanation>, String>,
}

pub(crate) struct Reader(mpsc::Receiver<Reading>);

impl Reader {
    /// Starts the thread, which ends when the reader is dropped.
    pub(crate) fn start(url: Url) -> Self {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(read_on(url, &sender)),
                Err(error) => drop(sender.send(Reading {
                    at: Instant::now(),
                    what: Err(error.to_string()),
                })),
            }
        });
        Self(receiver)
    }

    /// The readings since the last call.
    pub(crate) fn readings(&self) -> impl Iterator<Item = Reading> {
        self.0.try_iter()
    }
}

async fn read_on(page: Url, sender: &mpsc::Sender<Reading>) {
    let url = json_of(page);
    let client = Client::builder().connect_timeout(TIMEOUT);
    let client = client.read_timeout(TIMEOUT).build();
    loop {
        let begun = Instant::now();
        let what = match &client {
            Ok(client) => read(client, &url).await,
            Err(error) => Err(chain(error)),
        };
        let at = Instant::now();
        if sender.send(Reading { at, what }).is_err() {
            return;
        }
        // Asks for at most half of the time, because a slow answer costs the process much.
        sleep(begun.elapsed().clamp(EVERY, MAX_PAUSE)).await;
    }
}

/// The JSON's address, from the page's (with or without a slash at its end) or its own.
pub(crate) fn json_of(mut page: Url) -> Url {
    let path = page.path().trim_end_matches('/');
    if !path.ends_with("/json") && !path.ends_with(".json") {
        let path = format!("{path}/json");
        page.set_path(&path);
    }
    page
}

async fn read(client: &Client, url: &Url) -> Result<BTreeMap<String, Explanation>, String> {
    let answer = client.get(url.clone()).send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    let bytes = match answer {
        Ok(answer) => answer.bytes().await,
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| chain(&error.without_url()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("this is not the page's JSON: {error}"))
}

/// The error's last cause, which says what happened: `Connection refused`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
