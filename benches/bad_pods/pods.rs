//! The pods: listeners in their own processes, which can be told how to behave, stopped and killed.

use std::{
    convert::Infallible,
    env,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    time::sleep,
};

/// The arguments that make this program pods: this one, and the last bytes of the first and the last address.
const SERVE: &str = "--serve-pods";

/// Asks the pods how many requests they have had.
const COUNT: &str = "count 0";

/// How a pod behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It answers after this many milliseconds.
    After(u64),
    /// It answers 503 at once to this many of a hundred requests.
    Failing(u64),
}

/// A process of pods.
pub(crate) struct Pods {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Pods {
    /// Pods on the addresses from 127.0.0.`first` to 127.0.0.`last`.
    pub(crate) fn start(first: u8, last: u8) -> Self {
        Self::start_at(first, last, 0)
    }

    fn start_at(first: u8, last: u8, port: u16) -> Self {
        let this = env::current_exe().expect("the path of this program");
        let mut child = Command::new(this)
            .arg(SERVE)
            .args([first.to_string(), last.to_string(), port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped above"));
        let read = output.read_line(&mut line);
        read.expect("the addresses of the pods");
        let addresses = line.split_whitespace().map(|pod| pod.parse());
        let addresses = addresses.collect::<Result<_, _>>();
        Self {
            input: child.stdin.take().expect("piped above"),
            output,
            child,
            addresses: addresses.expect("addresses"),
        }
    }

    pub(crate) fn set(&mut self, mode: Mode) {
        let (word, number) = match mode {
            Mode::After(millis) => ("after", millis),
            Mode::Failing(share) => ("failing", share),
        };
        writeln!(self.input, "{word} {number}").expect("the pods listen");
    }

    /// How many requests they have answered, or would have if they had not been cancelled.
    pub(crate) fn requests(&mut self) -> u64 {
        writeln!(self.input, "{COUNT}").expect("the pods listen");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("they count");
        line.trim().parse().expect("a number")
    }

    /// Sends SIGSTOP: the kernel goes on accepting connections and bytes.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// Sends SIGKILL: from here on nothing listens.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        self.child.wait().expect("it is our child");
    }

    /// Starts a killed pod again, at its address.
    pub(crate) fn restart(&mut self) {
        let SocketAddr::V4(address) = self.addresses[0] else {
            unreachable!("pods have IPv4 addresses");
        };
        let [.., host] = address.ip().octets();
        *self = Self::start_at(host, host, address.port());
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill is installed").success());
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the pods, to the end of the process, if it was started for that.
pub(crate) fn serve_if_told() {
    let arguments: Vec<_> = env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == SERVE) else {
        return;
    };
    let number = |offset: usize| arguments[at + offset].parse::<u16>().expect("a number");
    let behaviour = Arc::<Behaviour>::default();
    let told = behaviour.clone();
    thread::spawn(move || {
        // Ends with the parent, however that ends, because the system closes its pipes.
        for line in io::stdin().lines().map_while(Result::ok) {
            match line == COUNT {
                true => println!("{}", told.begun.load(Relaxed)),
                false => told.hear(&line),
            }
        }
        std::process::exit(0);
    });
    let runtime = Builder::new_current_thread().enable_all().build();
    let hosts = number(1) as u8..=number(2) as u8;
    runtime
        .expect("a runtime")
        .block_on(serve(hosts, number(3), behaviour));
}

#[derive(Default)]
struct Behaviour {
    after: AtomicU64,
    failing: AtomicU64,
    requests: AtomicU64,
    begun: AtomicU64,
}

impl Behaviour {
    fn hear(&self, line: &str) {
        let (word, number) = line.split_once(' ').expect("a word and a number");
        let number = number.parse().expect("a number");
        let (after, failing) = match word {
            "after" => (number, 0),
            "failing" => (0, number),
            _ => panic!("unknown word: {word}"),
        };
        self.after.store(after, Relaxed);
        self.failing.store(failing, Relaxed);
    }

    async fn answer(&self, _: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        self.begun.fetch_add(1, Relaxed);
        let after = self.after.load(Relaxed);
        if after > 0 {
            sleep(Duration::from_millis(after)).await;
        }
        let mut response = Response::new(Full::new(Bytes::from_static(&[b'x'; 128])));
        // Spread over the hundred: 37 has no factor in common with it.
        if self.requests.fetch_add(37, Relaxed) % 100 < self.failing.load(Relaxed) {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Ok(response)
    }
}

async fn serve(hosts: impl Iterator<Item = u8>, port: u16, behaviour: Arc<Behaviour>) {
    let mut addresses = Vec::new();
    for host in hosts {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)).await;
        let listener = listener.expect("an address of the loopback network");
        addresses.push(listener.local_addr().expect("bound").to_string());
        tokio::spawn(accept(listener, behaviour.clone()));
    }
    println!("{}", addresses.join(" "));
    io::stdout().flush().expect("the parent listens");
    std::future::pending().await
}

async fn accept(listener: TcpListener, behaviour: Arc<Behaviour>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, behaviour.clone()));
    }
}

async fn connection(stream: TcpStream, behaviour: Arc<Behaviour>) {
    stream.set_nodelay(true).expect("a connection");
    let service = service_fn(|request| behaviour.answer(request));
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
