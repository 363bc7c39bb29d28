//! A real browser: Debian's chromium, driven by its chromedriver (WebDriver, W3C).
//!
//! `.ci/servers` installs both. If they are missing, tests that need them are skipped, as with the servers of
//! `servers.rs`.

use std::{
    fs,
    future::IntoFuture,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower_headless::{
    StaticEndpoints,
    http::{Client, Method},
};

use super::{
    servers::{Process, TempDir, find_program, skip},
    within,
};

/// How often a condition on the page is polled.
const POLL: Duration = Duration::from_millis(20);

/// The Enter key (WebDriver §17.4.2).
pub const ENTER: &str = "\u{e007}";

/// A window of chromium. It is closed when dropped.
pub struct Browser {
    driver: SocketAddr,
    client: Client,
    session: String,
    // Dropped in this order: the processes use the folder.
    _process: Process,
    _folder: TempDir,
}

impl Browser {
    /// Starts it. `None`, with a line on stderr, if chromium isn't installed and isn't required.
    pub async fn start() -> Option<Self> {
        let found = find_program("chromium").and_then(|it| Ok((it, find_program("chromedriver")?)));
        match found {
            Ok((chromium, driver)) => Some(Self::launch(&chromium, &driver).await),
            Err(missing) => {
                skip("chromium", &missing);
                None
            }
        }
    }

    async fn launch(chromium: &Path, driver: &Path) -> Self {
        let folder = TempDir::new().expect("a folder of its own");
        let mut command = Command::new(driver);
        command.arg("--port=0").env("HOME", folder.path());
        let log = folder.path().join("log");
        let process = Process::spawn(command, &log).expect("it may be run");
        let port = within("chromedriver's port", async {
            loop {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let port = text.split("successfully on port ").nth(1);
                let port = port.and_then(|rest| rest.split_once('.'));
                if let Some(Ok(port)) = port.map(|(port, _)| port.parse::<u16>()) {
                    return port;
                }
                sleep(POLL).await;
            }
        })
        .await;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let client = Client::builder("http://localhost".parse().expect("a URI"))
            .discovery(StaticEndpoints::new([address]))
            .build()
            .expect("a client");
        let mut browser = Self {
            driver: address,
            client,
            session: String::new(),
            _process: process,
            _folder: folder,
        };
        let options = json!({
            "binary": chromium,
            // chromium has no sandbox for root, and /dev/shm is small in containers.
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.ask(Method::POST, "/session", &wanted).await;
        let id = session["sessionId"].as_str().expect("a session's ID");
        browser.session = format!("/session/{id}");
        browser
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        let mut request = self.client.request(method.clone(), &path);
        if method == Method::POST {
            request = request.json(body);
        }
        let response = within(&path, request.into_future()).await;
        let mut answer: Value = within(&path, response.expect("an answer").json())
            .await
            .expect("JSON");
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{path}: {value}");
        value
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, path, &body).await
    }

    async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", body).await;
    }

    /// Sets the size of the page, in CSS pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// Sets the preferred colour scheme: `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        )
        .await;
    }

    pub async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Runs this function body in the page, and returns its result.
    pub async fn run<T: DeserializeOwned>(&self, script: &str) -> T {
        let body = json!({"script": script, "args": []});
        let value = self.post("/execute/sync", body).await;
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until this expression is true in the page.
    pub async fn until(&self, condition: &str) {
        let script = format!("return Boolean({condition});");
        within(condition, async {
            while !self.run::<bool>(&script).await {
                sleep(POLL).await;
            }
        })
        .await;
    }

    /// The text of the first element that this selector finds, as a user sees it after scrolling there.
    pub async fn text(&self, selector: &str) -> String {
        let script = format!(
            "const it = document.querySelector({selector:?}); \
             if (!it.innerText) it.scrollIntoView({{ block: 'nearest' }}); return it.innerText;"
        );
        self.run(&script).await
    }

    async fn element(&self, selector: &str) -> String {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.post("/element", body).await;
        let id = found
            .as_object()
            .and_then(|it| it.values().next())
            .and_then(Value::as_str);
        format!("/element/{}", id.expect("an element's ID"))
    }

    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.post(&format!("{element}/click"), json!({})).await;
    }

    /// Types into the element that this selector finds.
    pub async fn keys(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.post(&format!("{element}/value"), json!({ "text": text }))
            .await;
    }

    /// Takes a screenshot of the visible part, under this name in the tests' temporary folder.
    pub async fn picture(&self, name: &str) -> PathBuf {
        let png = self.ask(Method::GET, "/screenshot", &Value::Null).await;
        let png = BASE64.decode(png.as_str().expect("text").as_bytes());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, png.expect("base64")).expect("a picture");
        path
    }

    /// The console's messages since the last call: errors, and violations of the page's content security policy.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        let bad = entries.iter().filter(|entry| entry["level"] != "DEBUG");
        bad.map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    /// Closes chromium first, because a killed chromedriver would leave it running.
    fn drop(&mut self) {
        let close = || {
            let mut stream = TcpStream::connect(self.driver)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let (session, host) = (&self.session, self.driver);
            write!(
                stream,
                "DELETE {session} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            )?;
            stream.read_to_end(&mut Vec::new())
        };
        // It may have ended by itself.
        let _ = close();
    }
}
