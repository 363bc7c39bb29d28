//! The page in a real browser: what a user sees and does there.
//!
//! Screenshots are left in `target/tmp`. `TOWER_HEADLESS_BLESS=1 cargo test --all-features --test inspect_browser`
//! renews `docs/inspect.png`, the documentation's screenshot.

mod support;

use std::{env, fs, path::Path, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    response::{Html, IntoResponse, Redirect, Response},
    routing,
};
use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use support::browser::{Browser, ENTER};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tower::{Service, ServiceExt, service_fn};
use tower_headless::{
    Balance, Balancers, BoxError, Endpoint, StaticEndpoints,
    http::Client,
    inspect::Page,
    test_util::{Cluster, Mode},
};

const DESKTOP: (u32, u32) = (1440, 800);
const PHONE: (u32, u32) = (390, 844);

/// The page on a port of its own. Its URL has no slash at the end, which is the harder case.
struct Site(JoinHandle<()>, String);

impl Site {
    async fn of(balancers: &Balancers) -> Self {
        Self::serve(Router::new().nest_service("/debug/it", Page::new(balancers.clone()))).await
    }

    /// A page without balancers. The test answers each request for its JSON.
    async fn told() -> (Self, mpsc::UnboundedSender<Response>) {
        let (sender, answers) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers));
        let json = async move || match answers.lock().await.recv().await {
            Some(answer) => answer,
            None => StatusCode::GONE.into_response(),
        };
        let app = Router::new()
            .nest_service("/debug/it", Page::new(Balancers::new()))
            .route("/debug/it/json", routing::get(json));
        (Self::serve(app).await, sender)
    }

    async fn serve(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self(task, format!("http://{address}/debug/it"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a request every ten milliseconds, whether others are answered or not, until it is dropped.
fn load(client: &Client) -> JoinSet<()> {
    let (client, mut set) = (client.clone(), JoinSet::new());
    set.spawn(async move {
        let mut asked = JoinSet::new();
        loop {
            let request = client.get("/").timeout(Duration::from_secs(60));
            asked.spawn(async move {
                // Their results don't matter here: the page is checked instead.
                if let Ok(answer) = request.await {
                    let _ = answer.bytes().await;
                }
            });
            while asked.try_join_next().is_some() {}
            sleep(Duration::from_millis(10)).await;
        }
    });
    set
}

/// The text of the row at this place.
fn row(place: usize) -> String {
    format!("tbody tr:nth-child({place})")
}

/// Checks that nothing overflows in a window of this width. (A phone's window reports a larger width if its contents
/// overflow.)
async fn has_no_overflow(browser: &Browser, width: u32) {
    let shown: u32 = browser
        .run("return document.scrollingElement.scrollWidth;")
        .await;
    assert!(shown <= width, "{shown} on {width}");
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// One of several pods hangs, and a user who has never seen the page looks at it.
#[tokio::test]
async fn a_hung_pod_is_in_the_first_row_and_says_why() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let builder = Cluster::builder()
        .pods(6)
        .stateful_set("web")
        .port_name("http");
    let cluster = builder.start().await;
    let client = cluster.client().build().expect("a client");
    let balancers = Balancers::new();
    balancers.add_as("web.default", &client);
    let site = Site::of(&balancers).await;
    let _load = load(&client);
    browser.resize(DESKTOP.0, DESKTOP.1).await;
    browser.prefer("light").await;
    browser.open(&site.1).await;
    browser
        .until("document.querySelectorAll('tbody tr.good').length === 6")
        .await;
    assert_eq!(browser.text(".trouble").await, "");
    says(&browser.text(&row(1)).await, &["web-0", "picked"]);
    // Rates need a second reading.
    browser
        .until("document.querySelector('.summary').innerText.includes('a second')")
        .await;

    cluster.pod(4).set(Mode::Hung);
    browser
        .until("document.querySelector('tbody tr:first-child.bad')")
        .await;
    let first = browser.text(&row(1)).await;
    says(
        &first,
        &["web-4", "ejected", "none is answered", "while the others"],
    );
    says(&browser.text(".trouble").await, &["web-4", "ejected"]);
    says(
        &browser.text(".summary").await,
        &["5 of 6 pods get requests"],
    );
    says(&browser.text(".events").await, &["Events of the last hour"]);
    says(
        &browser.text(".facts").await,
        &["dns", "TTL 1.0 s", "round-robin", "requests"],
    );
    browser.click("summary").await;
    says(
        &browser.text(".events ol").await,
        &["web-4", "ejected: unresponsive"],
    );
    browser.click("summary").await;

    browser.picture("hung-desktop-light.png").await;
    browser.resize(1100, 565).await;
    let picture = browser.picture("hung-docs.png").await;
    bless(&picture);
    browser.resize(DESKTOP.0, DESKTOP.1).await;

    browser.keys(&format!("{} button", row(1)), ENTER).await;
    let whole = browser.text("tbody pre").await;
    says(
        &whole,
        // Without "next trial", because the trial may be due by now.
        &["web-4", "ejected", "since", "in flight", "event"],
    );
    let is_expanded =
        "document.querySelector('tbody button').getAttribute('aria-expanded') === 'true'";
    browser.until(is_expanded).await;
    browser.prefer("dark").await;
    browser.picture("hung-desktop-dark.png").await;
    has_no_overflow(&browser, DESKTOP.0).await;
    for (width, name) in [(1100, "hung-1100.png"), (870, "hung-870.png")] {
        browser.resize(width, 800).await;
        has_no_overflow(&browser, width).await;
        browser.picture(name).await;
    }

    browser.resize(PHONE.0, PHONE.1).await;
    has_no_overflow(&browser, PHONE.0).await;
    browser.picture("hung-phone-dark.png").await;
    browser.prefer("light").await;
    browser
        .run::<()>("document.querySelector('tbody').scrollIntoView();")
        .await;
    browser.picture("hung-phone-light.png").await;
    // A second press closes it. The pod's button still has the focus, wherever the row has moved.
    let name: String = browser
        .run("return document.activeElement.innerText;")
        .await;
    assert_eq!(name, "web-4");
    browser.click(&format!("{} button", row(1))).await;
    browser
        .until("document.querySelector('tbody .whole').hidden")
        .await;
    assert_eq!(browser.complaints().await, [""; 0]);

    cluster.pod(4).set(Mode::Healthy);
    // The requests that it got while it hung still have no answer, and the page says so.
    let is_picked =
        "[...document.querySelectorAll('.verdict')].every((it) => it.textContent === 'picked')";
    browser.until(is_picked).await;
    says(
        &browser.text(".summary").await,
        &["6 of 6 pods get requests"],
    );
    says(
        &browser.text(&row(1)).await,
        &["web-4", "its requests wait, those of other pods don't"],
    );

    drop(site);
    browser
        .until("document.body.classList.contains('stale')")
        .await;
    says(
        &browser.text("#reading").await,
        &["No answer", "its last reading"],
    );
    says(&browser.text("tbody").await, &["web-0", "web-4"]);
    browser.picture("gone-phone.png").await;
}

/// Renews the documentation's screenshot, if asked to.
fn bless(picture: &Path) {
    if env::var_os("TOWER_HEADLESS_BLESS").is_none() {
        return;
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    fs::create_dir_all(&docs).expect("a folder");
    let length = fs::copy(picture, docs.join("inspect.png")).expect("a copy");
    assert!(
        length <= 100_000,
        "{length} bytes are too many for a repository"
    );
}

#[tokio::test]
async fn names_and_errors_from_outside_are_shown_as_text() {
    const IMAGE: &str = "<img src=x onerror=\"window.hurt=1\">";
    const SCRIPT: &str = "</script><script>window.hurt=1</script>";
    let Some(browser) = Browser::start().await else {
        return;
    };
    let bad = Endpoint::new(([10, 0, 0, 1], 80).into())
        .with_hostname(IMAGE)
        .with_zone(SCRIPT);
    let good = Endpoint::new(([10, 0, 0, 2], 80).into()).with_node(IMAGE);
    let answers = [
        Ok(vec![bad, good]),
        Err(BoxError::from(format!("refused {SCRIPT} {IMAGE}"))),
    ];
    let source = tower_headless::StreamDiscovery::fallible(futures::stream::iter(answers));
    let mut balance = Balance::builder(source)
        .counters(true)
        .build(|_: &Endpoint| {
            service_fn(|_: u32| async move {
                Err::<u32, _>(BoxError::from(format!("failed {IMAGE} {SCRIPT}")))
            })
        });
    for _ in 0..20 {
        let balance = balance.ready().await.expect("it is ready");
        let _ = balance.call(1).await;
    }
    let balancers = Balancers::new();
    balancers.add_as(format!("{SCRIPT}{IMAGE}"), &balance);
    balancers
        .add_as("__proto__", &balance)
        .add_as("constructor", &balance);
    let site = Site::of(&balancers).await;
    browser.open(&site.1).await;
    browser
        .until("document.querySelectorAll('tbody tr').length === 6")
        .await;
    browser.click("tbody button").await;
    browser.click("summary").await;
    let page = browser.text("body").await;
    says(&page, &[IMAGE, SCRIPT, "failed <img", "refused </script>"]);
    assert!(!browser.run::<bool>("return 'hurt' in window;").await);
    let made: (usize, usize) = browser
        .run("return [document.images.length, document.scripts.length];")
        .await;
    assert_eq!(made, (0, 1));
    // The content security policy holds even if something got through.
    browser
        .run::<()>("const it = document.createElement('script'); it.textContent = 'window.hurt = 1'; document.body.append(it);")
        .await;
    assert!(!browser.run::<bool>("return 'hurt' in window;").await);
    let complaints = browser.complaints().await;
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    says(&complaints[0], &["Content Security Policy"]);
    browser.resize(PHONE.0, PHONE.1).await;
    has_no_overflow(&browser, PHONE.0).await;
}

#[tokio::test]
async fn a_thousand_pods_are_all_there_and_stay_where_they_are() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let endpoints = (0..1_000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        let zone = format!("zone-{}", number % 3);
        let endpoint = Endpoint::new(([10, 0, high, low], 80).into());
        endpoint
            .with_hostname(format!("web-{number}"))
            .with_zone(zone)
    });
    let source = StaticEndpoints::from_iter(endpoints);
    let balance = Balance::builder(source)
        .counters(true)
        .build(|endpoint: &Endpoint| {
            let fails = endpoint.hostname() == Some("web-700");
            service_fn(move |_: u32| async move {
                if fails {
                    Err(BoxError::from("no room"))
                } else {
                    Ok(1_u32)
                }
            })
        });
    let mut caller = balance.clone();
    let mut send = async |times| {
        for _ in 0..times {
            let ready = caller.ready().await.expect("it is ready");
            let _ = ready.call(1).await;
        }
    };
    send(8_000).await;
    let balancers = Balancers::new();
    balancers.add_as("large", &balance);
    let site = Site::of(&balancers).await;
    browser.resize(DESKTOP.0, DESKTOP.1).await;
    browser.open(&site.1).await;
    browser
        .until("document.querySelectorAll('tbody tr').length === 1000")
        .await;
    says(
        &browser.text(&row(1)).await,
        &["web-700", "ejected", "no room"],
    );
    says(&browser.text(&row(2)).await, &["web-0", "picked"]);
    browser.picture("thousand-desktop.png").await;
    // Each row can be scrolled to, found and sorted.
    browser
        .run::<()>("document.querySelector('tbody').lastElementChild.scrollIntoView();")
        .await;
    says(&browser.text(&row(1_000)).await, &["web-999"]);
    let scrolled: f64 = browser.run("return scrollY;").await;
    assert!(scrolled > 10_000.0, "{scrolled}");
    browser.picture("thousand-end.png").await;
    browser.run::<()>("window.row = document.querySelector('tbody').lastElementChild; getSelection().selectAllChildren(row.querySelector('.name'));").await;
    // Measured relative to the window, because the height of rows that haven't been shown is an estimate.
    let top = "return Math.round(window.row.getBoundingClientRect().top);";
    let seen_at: i64 = browser.run(top).await;
    send(2_000).await;
    browser
        .until("window.row.querySelector('.total').innerText === '10'")
        .await;
    let stays: (String, bool) = browser
        .run("return [String(getSelection()), row.isConnected];")
        .await;
    assert_eq!(stays, ("web-999".into(), true));
    assert_eq!(browser.run::<i64>(top).await, seen_at);
    browser.keys("input", "web-77").await;
    let shown =
        "[...document.querySelectorAll('tbody tr')].filter((it) => it.checkVisibility()).length";
    browser.until(&format!("{shown} === 11")).await;
    says(&browser.text(".shown").await, &["11 of 1,000 pods"]);
    browser.run::<()>("const it = document.querySelector('input'); it.value = ''; it.dispatchEvent(new Event('input'));").await;
    browser.click("th.c-pod button").await;
    says(&browser.text(&row(1_000)).await, &["web-999"]);
    let order: String = browser
        .run("return document.querySelector('th.c-pod').getAttribute('aria-sort');")
        .await;
    assert_eq!(order, "ascending");
    browser.click("th.c-pod button").await;
    says(&browser.text(&row(1)).await, &["web-999"]);
    // A column whose least values come first shows its real order.
    for (place, order) in [(1, "ascending"), (1_000, "descending")] {
        browser.click("th.c-success button").await;
        says(&browser.text(&row(place)).await, &["web-700"]);
        let told: String = browser
            .run("return document.querySelector('th.c-success').getAttribute('aria-sort');")
            .await;
        assert_eq!(told, order);
    }
    browser.resize(PHONE.0, PHONE.1).await;
    has_no_overflow(&browser, PHONE.0).await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_hidden_page_makes_no_requests() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::of(&Balancers::new()).await;
    browser.open(&site.1).await;
    browser
        .until("document.getElementById('reading').innerText.includes('No balancer')")
        .await;
    browser
        .run::<()>("const real = fetch; window.asked = 0; window.fetch = (...all) => { asked += 1; return real(...all); };")
        .await;
    browser.until("asked >= 1").await;
    // A reading that is under way or due may be the last. Both values are read at once, or a reading could come
    // between.
    let last: usize = browser
        .run(
            "Object.defineProperty(document, 'hidden', { value: true, configurable: true }); \
             return asked + (isReading ? 0 : 1);",
        )
        .await;
    let is_last = format!("asked === {last} && !isReading");
    browser.until(&is_last).await;
    let ages = "Number(document.getElementById('age').innerText.match(/\\d+/)[0]) >= 4";
    browser.until(ages).await;
    assert!(browser.run::<bool>(&format!("return {is_last};")).await);
    browser
        .run::<()>("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'));")
        .await;
    browser.until(&format!("asked > {last}")).await;
}

/// Makes the page ask now, unless it is asking already.
async fn ask(browser: &Browser) {
    browser
        .run::<()>("document.dispatchEvent(new Event('visibilitychange'));")
        .await;
}

/// Waits until the page shows this fault. It must still show its last reading, and not "no answer".
async fn is_told(browser: &Browser, fault: &str) {
    let reading = "document.getElementById('reading').innerText";
    browser
        .until(&format!("{reading}.includes({fault:?})"))
        .await;
    let text = browser.text("#reading").await;
    says(&text, &["This is its last reading", "Trying again"]);
    assert!(!text.contains("has ended"), "{text}");
    let is_stale = "return document.body.classList.contains('stale');";
    assert!(browser.run::<bool>(is_stale).await);
    says(&browser.text("tbody").await, &["web-0"]);
}

/// A response whose body is sent in pieces. It ends when the sender is dropped.
fn pieces() -> (UnboundedSender<Result<Bytes, BoxError>>, Response) {
    let (sender, pieces) = unbounded();
    let head = [(CONTENT_TYPE, "application/json")];
    (sender, (head, Body::from_stream(pieces)).into_response())
}

#[tokio::test]
async fn the_page_says_what_is_wrong_with_an_answer() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let endpoint = Endpoint::new(([10, 0, 0, 1], 80).into()).with_hostname("web-0");
    let balance = Balance::builder(StaticEndpoints::from_iter([endpoint]))
        .build(|_: &Endpoint| service_fn(|it: u32| async move { Ok::<_, BoxError>(it) }));
    balance.discovered().await.expect("an endpoint");
    let balancers = Balancers::new();
    balancers.add_as("web", &balance);
    let (site, answers) = Site::told().await;
    let good = || Json(balancers.explain()).into_response();
    let tell = |answer| answers.send(answer).expect("it is served");
    let wrong = |text: &str| (StatusCode::INTERNAL_SERVER_ERROR, text.to_owned()).into_response();

    tell(wrong("the balancers could not be explained: a panic <b>\n"));
    browser.open(&site.1).await;
    let stale = "document.body.classList.contains('stale')";
    browser.until(stale).await;
    let text = browser.text("#reading").await;
    says(
        &text,
        &["It answers 500: the balancers could not be explained: a panic <b>"],
    );
    assert!(!text.contains("last reading"), "there is none: {text}");

    // JSON that can't be shown.
    tell(Json(json!({"web": {}})).into_response());
    ask(&browser).await;
    browser
        .until("document.getElementById('reading').innerText.includes(\"can't be shown\")")
        .await;
    assert_eq!(browser.run::<Value>("return lastRead;").await, Value::Null);
    tell(good());
    ask(&browser).await;
    browser.until(&format!("!{stale}")).await;
    says(&browser.text("tbody").await, &["web-0", "picked"]);
    let read: f64 = browser.run("return lastRead;").await;

    let forbidden = (StatusCode::FORBIDDEN, Html("<h1>Log in</h1>")).into_response();
    for (answer, words) in [
        (wrong(""), "It answers 500."),
        (forbidden, "It answers 403."),
        (
            Html("<h1>Log in</h1>").into_response(),
            "This is not the page's JSON",
        ),
        (
            Redirect::to("/login").into_response(),
            "It redirects to another address",
        ),
        (
            Json(json!({"web": {}})).into_response(),
            "The answer can't be shown",
        ),
    ] {
        tell(answer);
        ask(&browser).await;
        is_told(&browser, words).await;
    }
    let (broken, body) = pieces();
    tell(body);
    ask(&browser).await;
    let send = |piece| broken.unbounded_send(piece).expect("it is read");
    send(Ok("{".into()));
    browser.until("received === 1").await;
    send(Err("broken".into()));
    is_told(&browser, "The answer broke off").await;
    assert_eq!(browser.run::<f64>("return lastRead;").await, read);
    tell(good());
    ask(&browser).await;
    browser.until(&format!("!{stale}")).await;
    says(&browser.text("#reading").await, &["Live"]);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_while_its_data_keeps_coming() {
    // From now on, the test drives the page's timers.
    const TIMERS: &str = "const [set, clear, now] = [setTimeout, clearTimeout, performance.now.bind(performance)]; \
        window.timers = new Map(); window.late = 0; performance.now = () => now() + late; \
        window.setTimeout = (run, ms) => { const id = set(() => {}, 0); timers.set(id, { run, ms }); return id; }; \
        window.clearTimeout = (id) => { clear(id); timers.delete(id); };";
    // The only timer that isn't for the next reading.
    const SILENCE: &str = "return [...timers.keys()].filter((id) => timers.get(id).run !== read);";
    let Some(browser) = Browser::start().await else {
        return;
    };
    let (site, answers) = Site::told().await;
    let tell = |answer| answers.send(answer).expect("it is served");
    tell(Json(json!({})).into_response());
    browser.open(&site.1).await;
    let is_live = "document.getElementById('reading').innerText.includes('No balancer')";
    browser.until(is_live).await;
    browser.run::<()>(TIMERS).await;

    let (large, body) = pieces();
    let send = |piece: Vec<u8>| large.unbounded_send(Ok(piece.into())).expect("it is read");
    tell(body);
    ask(&browser).await;
    send(vec![b' '; 1_500_000]);
    browser.until("received === 1500000").await;
    let first: Vec<u32> = browser.run(SILENCE).await;
    browser
        .until("document.getElementById('age').innerText.includes('1.5 MB of the next')")
        .await;
    send(b"{".to_vec());
    browser.until("received === 1500001").await;
    let second: Vec<u32> = browser.run(SILENCE).await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second, "each piece begins the silence anew");
    browser
        .run::<()>(&format!("timers.get({}).run();", second[0]))
        .await;
    browser
        .until("document.body.classList.contains('stale')")
        .await;
    let text = browser.text("#reading").await;
    says(
        &text,
        &["has stopped coming, after 1,500 kB", "its last reading"],
    );
    assert!(
        !text.contains("has ended") && !text.contains(" MB"),
        "{text}"
    );

    // After a reading that took seven seconds, the page pauses for as long.
    let (slow, body) = pieces();
    tell(body);
    ask(&browser).await;
    browser.until("isReading").await;
    browser.run::<()>("late = 7000;").await;
    slow.unbounded_send(Ok("{}".into())).expect("it is read");
    drop(slow);
    browser.until(&format!("{is_live} && !isReading")).await;
    let pauses: Vec<f64> = browser
        .run("return [...timers.values()].filter((it) => it.run === read).map((it) => it.ms);")
        .await;
    assert_eq!(pauses.len(), 1, "{pauses:?}");
    assert!((7_000.0..=30_000.0).contains(&pauses[0]), "{pauses:?}");
}

#[tokio::test]
async fn rates_and_stuck_pods_are_computed_from_readings() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let site = Site::of(&Balancers::new()).await;
    browser.open(&site.1).await;
    // The clock is set back after the second reading, and the pod rejoins before the last one.
    let rates: Vec<(Option<f64>, usize)> = browser
        .run(
            "const readings = []; \
             return [[100, 10], [102, 30], [50, 40], [52, 60], [54, 5], [56, 7]].map(([at, requests]) => { \
               const { rate } = recent(readings, at * 1000, { requests, successes: requests, overloads: 0 }, 0); \
               return [rate, readings.length]; \
             });",
        )
        .await;
    let expected = [None, Some(10.0), None, Some(10.0), None, Some(1.0)];
    assert_eq!(
        rates,
        expected
            .into_iter()
            .zip([1, 2].repeat(3))
            .collect::<Vec<_>>()
    );
    // As in the tests of examples/top.
    for (waiting, is_stuck) in [
        (&[0, 40][..], true),
        (&[0, 1, 40], true),
        (&[9, 9, 40], true),
        (&[1, 4], false),
        (&[40], false),
        (&[40, 40], false),
        (&[10, 40], false),
        (&[0, 40, 40], false),
    ] {
        let script = format!(
            "const rows = {waiting:?}.map((waiting) => ({{ pod: {{ waiting }} }})); \
             markStuck(rows); return rows.map((row) => row.isStuck);"
        );
        let mut expected = vec![false; waiting.len()];
        expected[waiting.len() - 1] = is_stuck;
        assert_eq!(
            browser.run::<Vec<bool>>(&script).await,
            expected,
            "{waiting:?}"
        );
    }
}
