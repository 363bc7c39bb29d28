//! The system's resolv.conf: name servers, options, and the search list for short names.
//!
//! It is read again before each question, because a kubelet or a node's agent may replace it while the process runs. If
//! it can't be read, the last content stays; if it never could be, that is an error.
//!
//! It is parsed as glibc does (`res_init.c`), so that all processes of a pod see the same:
//!
//! | line | meaning |
//! | --- | --- |
//! | `nameserver` | one address, with an interface if it is link-local; the first 3 count, as in Kubernetes |
//! | `search`, `domain` | the last line counts, whichever it is; `.` is the root, and stands for the name as it is |
//! | `options ndots:n` | up to 15; 1 by default; a space before the number is fine |
//! | `options timeout:n`, `attempts:n` | up to 30 s and up to 5. They shorten a server's share of a question's time, and set how often it is sent; they never prolong the question |
//! | `options use-vc` | TCP only |
//! | `options edns0` | no effect: EDNS is tried anyway, and dropped for servers that don't understand it |
//! | `options single-request`, `single-request-reopen` | no effect: they are for sharing a socket, and each question has its own |
//! | `options rotate` | no effect: the order of the servers says whom to trust first |
//! | anything after `#` or `;` | a comment, in whatever encoding |

use std::{
    fs::{self, File},
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    time::Duration,
};

use super::name::Name;

use crate::logs::{DISCOVERY, here, warn};

const DNS_PORT: u16 = 53;

/// glibc's `MAXNS`, `RES_MAXNDOTS`, `RES_MAXRETRANS` and `RES_MAXRETRY`.
const MAX_NAME_SERVERS: usize = 3;
const MAX_NDOTS: u32 = 15;
const MAX_TIMEOUT: u32 = 30;
const MAX_ATTEMPTS: u32 = 5;

/// Larger than any real file. glibc no longer limits search domains; Kubernetes does, to 32.
const MAX_SIZE: u64 = 64 * 1024;
const MAX_SEARCH: usize = 32;

/// glibc's `RES_TIMEOUT` and `RES_DFLRETRY`: each applies if only the other option is given.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 2;

/// The parts of a resolv.conf that are used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) name_servers: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    pub(super) ndots: usize,
    pub(super) options: Options,
}

/// How to ask name servers. By default nothing is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) use_tcp: bool,
    timeout: Option<Duration>,
    /// How many times a question is sent; at least once.
    pub(super) attempts: Option<u32>,
}

/// The file, and its content when it was last read.
#[derive(Clone, Debug)]
pub(super) struct ResolvConfFile {
    path: PathBuf,
    last: Option<(Vec<u8>, ResolvConf)>,
}

impl ResolvConfFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    /// The file's content now, or the last one if it can't be read.
    pub(super) fn read(&mut self) -> io::Result<&ResolvConf> {
        match read(&self.path) {
            Ok(text) if self.last.as_ref().is_some_and(|(last, _)| *last == text) => {}
            Ok(text) => {
                let parsed = ResolvConf::parse(&text);
                self.last = Some((text, parsed));
            }
            Err(error) if self.last.is_none() => {
                let path = self.path.display();
                return Err(io::Error::new(error.kind(), format!("{path}: {error}")));
            }
            Err(_) => {}
        }
        let (_, parsed) = self.last.as_ref().expect("read just now or before");
        Ok(parsed)
    }
}

/// The first [`MAX_SIZE`] bytes of a file, up to the last whole line.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let length = File::open(path)?.take(MAX_SIZE).read_to_end(&mut text)?;
    if length as u64 == MAX_SIZE {
        let end = text.iter().rposition(|byte| *byte == b'\n');
        text.truncate(end.unwrap_or(0));
    }
    Ok(text)
}

impl Options {
    /// How long one server may be asked one question, if the file says so.
    pub(super) fn longest(&self) -> Option<Duration> {
        let is_said = self.timeout.is_some() || self.attempts.is_some();
        let longest = self.timeout.unwrap_or(TIMEOUT) * self.attempts.unwrap_or(ATTEMPTS);
        is_said.then_some(longest)
    }
}

impl ResolvConf {
    /// Parses a file. An empty one means, as in resolv.conf(5), the local machine's name server, no search list, and
    /// `ndots:1`.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut conf = Self {
            name_servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            options: Options::default(),
        };
        for line in text.split(|byte| *byte == b'\n') {
            let end = line.iter().position(|byte| b"#;".contains(byte));
            let line = &line[..end.unwrap_or(line.len())];
            let line = String::from_utf8_lossy(line);
            if let Err(why) = conf.read_line(line.trim()) {
                warn!(DISCOVERY, here(), %line, reason = why, "ignored a line of resolv.conf");
            }
        }
        if conf.name_servers.is_empty() {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT));
            conf.name_servers.push(local);
        }
        conf
    }

    fn read_line(&mut self, line: &str) -> Result<(), &'static str> {
        let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let words = rest.split_whitespace();
        match keyword {
            "nameserver" if self.name_servers.len() < MAX_NAME_SERVERS => {
                let server = words.take(1).next().and_then(name_server);
                self.name_servers.push(server.ok_or("not an IP address")?);
            }
            "domain" => self.read_search(words.take(1)),
            "search" => self.read_search(words),
            "options" => self.read_options(rest),
            // Name servers above the limit, keywords of other systems, and blank lines.
            "nameserver" | "sortlist" | "lookup" | "family" | "" => {}
            _ => return Err("unknown keyword"),
        }
        Ok(())
    }

    fn read_search<'a>(&mut self, domains: impl Iterator<Item = &'a str>) {
        let mut domains = domains.peekable();
        if domains.peek().is_some() {
            let parsed = domains.filter_map(|domain| Name::parse_domain(domain).ok());
            self.search = parsed.take(MAX_SEARCH).collect();
        }
    }

    fn read_options(&mut self, mut rest: &str) {
        while !rest.is_empty() {
            let (word, _) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            // There may be a space before the number, because glibc reads it with `atoi`.
            let number = |name: &str| Some(leading_number(rest.strip_prefix(name)?));
            if let Some(ndots) = number("ndots:") {
                self.ndots = ndots.min(MAX_NDOTS) as usize;
            } else if let Some(seconds) = number("timeout:") {
                let seconds = seconds.clamp(1, MAX_TIMEOUT);
                self.options.timeout = Some(Duration::from_secs(seconds.into()));
            } else if let Some(attempts) = number("attempts:") {
                self.options.attempts = Some(attempts.clamp(1, MAX_ATTEMPTS));
            } else if word == "use-vc" {
                self.options.use_tcp = true;
            }
            rest = rest[word.len()..].trim_start();
        }
    }
}

/// Reads a number as `atoi` does: 0 if there is none, and what follows it is ignored. Negative numbers become 0.
fn leading_number(text: &str) -> u32 {
    let text = text.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.bytes().map_while(|byte| char::from(byte).to_digit(10));
    digits.fold(0, |number: u32, digit| {
        number.saturating_mul(10).saturating_add(digit)
    })
}

fn name_server(text: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let address = address.parse().ok()?;
    let scope_id = scope_id(interface);
    if scope_id.is_none() {
        warn!(DISCOVERY, here(), %address, interface, "no such network interface");
    }
    Some(SocketAddrV6::new(address, DNS_PORT, 0, scope_id?).into())
}

/// The index of a network interface, which a link-local address needs (RFC 4007 §11).
fn scope_id(interface: &str) -> Option<u32> {
    interface.parse().ok().or_else(|| {
        let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
        index.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(search: &[Name]) -> Vec<&str> {
        search.iter().map(Name::text).collect()
    }

    #[test]
    fn a_pods_resolv_conf_is_parsed() {
        let conf = ResolvConf::parse(
            b"search default.svc.cluster.local svc.cluster.local cluster.local\n\
              nameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n",
        );
        let servers = ["10.96.0.10:53", "[fd00::a]:53"].map(|s| s.parse().expect("an address"));
        assert_eq!(conf.name_servers, servers);
        assert_eq!(
            names(&conf.search),
            [
                "default.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local"
            ]
        );
        assert_eq!(conf.ndots, 5);
    }

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let conf = ResolvConf::parse(b"# nothing\n");
        assert_eq!(conf.name_servers, [SocketAddr::from(([127, 0, 0, 1], 53))]);
        assert!(conf.search.is_empty());
        assert_eq!(conf.ndots, 1);
    }

    #[test]
    fn a_malformed_line_is_ignored_and_the_others_count() {
        let conf = ResolvConf::parse(
            b"nameserver kube-dns\nfrobnicate\nnameserver 10.96.0.10\nsearch .. a..b svc.cluster.local\n\xff\xfe\n",
        );
        assert_eq!(conf.name_servers, [SocketAddr::from(([10, 96, 0, 10], 53))]);
        assert_eq!(names(&conf.search), ["svc.cluster.local"]);
    }

    /// Kubernetes allows `.` in `dnsConfig.searches`, to try the name as it is before other domains.
    #[test]
    fn the_root_in_a_search_list_is_the_name_as_it_is() {
        let conf = ResolvConf::parse(b"search svc . .corp.example\noptions ndots:5\n");
        let candidates = |name| {
            let name = Name::parse(name).expect("a name");
            let candidates = name.candidates(&conf.search, conf.ndots);
            candidates.iter().map(Name::to_string).collect::<Vec<_>>()
        };
        assert_eq!(candidates("web"), ["web.svc.", "web.", "web.corp.example."]);
        assert_eq!(candidates("web."), ["web."]);
        assert!(Name::parse(".").is_err(), "no name of a service");
    }

    #[test]
    fn comments_in_any_encoding_are_ignored() {
        let conf = ResolvConf::parse(
            b"# Gr\xfc\xdfe\nnameserver 10.0.0.10 # Z\xfcrich\nnameserver 10.0.0.11\t;\xe9t\xe9\n\
              ; \xff\noptions ndots:5 # m\xf6glichst ndots:2\nsearch a.example #\xa4 b.example\r\n",
        );
        let servers = [10, 11].map(|host| SocketAddr::from(([10, 0, 0, host], 53)));
        assert_eq!(conf.name_servers, servers);
        assert_eq!(conf.ndots, 5);
        assert_eq!(names(&conf.search), ["a.example"]);
    }

    #[test]
    fn options_count_as_the_c_library_reads_them() {
        let ndots = |text: &str| ResolvConf::parse(text.as_bytes()).ndots;
        for text in [
            "options ndots:5",
            "options ndots: 5",
            "options\tndots:\t5",
            "options rotate ndots: 5 use-vc",
            "options ndots:2 ndots:5",
            "options ndots:2\noptions ndots:5\n",
            "options ndots:5x",
            "options ndots:+5",
        ] {
            assert_eq!(ndots(text), 5, "{text}");
        }
        assert_eq!(ndots("options ndots:99999999999"), 15);
        assert_eq!(ndots("options ndots:"), 0);
        assert_eq!(ndots("options ndots:-1"), 0);
        assert_eq!(ndots("options rotate"), 1);
    }

    #[test]
    fn timeout_and_attempts_are_capped_and_never_zero() {
        let options = |text: &str| ResolvConf::parse(text.as_bytes()).options;
        let seconds = |text: &str| options(text).longest().map(|longest| longest.as_secs());
        assert_eq!(seconds("options edns0"), None);
        assert_eq!(seconds("options timeout:1"), Some(2));
        assert_eq!(seconds("options attempts: 3"), Some(15));
        assert_eq!(seconds("options timeout:2 attempts:1"), Some(2));
        assert_eq!(seconds("options timeout:100 attempts:100"), Some(150));
        assert_eq!(seconds("options timeout:0 attempts:0"), Some(1));
        assert_eq!(options("options attempts:0").attempts, Some(1));
    }

    #[test]
    fn use_vc_means_tcp_only() {
        let uses_tcp = |text: &str| ResolvConf::parse(text.as_bytes()).options.use_tcp;
        assert!(uses_tcp("options use-vc"));
        assert!(uses_tcp("options ndots:5 use-vc edns0"));
        assert!(!uses_tcp("options ndots:5"));
        assert!(!uses_tcp("options ndots:5 # use-vc"));
    }

    #[test]
    fn the_first_three_name_servers_and_the_last_search_list_count() {
        let conf = ResolvConf::parse(
            b"nameserver 10.0.0.1\nnameserver 10.0.0.2 10.0.0.9\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n\
              search a.example\nsearch b.example\tc.example\nsearch\nsortlist 130.155.160.0\n",
        );
        let servers = [1, 2, 3].map(|host| SocketAddr::from(([10, 0, 0, host], 53)));
        assert_eq!(conf.name_servers, servers);
        assert_eq!(names(&conf.search), ["b.example", "c.example"]);
        let conf = ResolvConf::parse(b"search a.example\ndomain b.example c.example");
        assert_eq!(names(&conf.search), ["b.example"]);
    }

    #[test]
    fn a_link_local_name_server_needs_an_existing_interface() {
        let conf = ResolvConf::parse(
            b"nameserver fe80::1%lo\nnameserver fe80::2%3\nnameserver fe80::3%none\n",
        );
        let scopes = conf.name_servers.iter().map(|server| match server {
            SocketAddr::V6(server) => server.scope_id(),
            SocketAddr::V4(_) => 0,
        });
        assert_eq!(scopes.collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_changes_nothing() {
        let path = std::env::temp_dir().join(format!("tower-headless-{}.conf", std::process::id()));
        let mut file = ResolvConfFile::new(path.clone());
        let error = file.read().expect_err("no file yet");
        assert!(error.to_string().contains("tower-headless"), "{error}");
        let server = |file: &mut ResolvConfFile| file.read().expect("a file").name_servers[0].ip();
        for host in [1, 2] {
            fs::write(&path, format!("nameserver 10.0.0.{host}\n")).expect("a writable folder");
            assert_eq!(server(&mut file), IpAddr::from([10, 0, 0, host]));
        }
        fs::remove_file(&path).expect("the file is there");
        assert_eq!(server(&mut file), IpAddr::from([10, 0, 0, 2]));
    }

    #[test]
    fn the_first_32_domains_of_a_search_list_count() {
        let domains: Vec<_> = (0..100).map(|n| format!("d{n}.example")).collect();
        let conf = ResolvConf::parse(format!("search {}\n", domains.join(" ")).as_bytes());
        assert_eq!(names(&conf.search), domains[..32]);
    }

    #[test]
    fn the_first_64_kib_of_a_file_count_as_far_as_their_lines_are_whole() {
        let name = format!("tower-headless-long-{}.conf", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut text = b"nameserver 10.0.0.1\n".to_vec();
        let last = b"\nnameserver 10.0.0.22\n";
        // Cut between the two digits, which would be another server's address.
        let cut = last.len() - 2;
        text.resize(64 * 1024 - cut, b'#');
        text.extend(last);
        fs::write(&path, &text).expect("a writable folder");
        let servers = || {
            let mut file = ResolvConfFile::new(path.clone());
            let conf = file.read().expect("a file");
            let servers = conf.name_servers.iter().map(SocketAddr::ip);
            servers.collect::<Vec<_>>()
        };
        assert_eq!(servers(), [IpAddr::from([10, 0, 0, 1])]);
        // If the line fits, it counts.
        let comment = b"nameserver 10.0.0.1\n".len();
        text.drain(comment..comment + 3);
        fs::write(&path, &text).expect("a writable folder");
        assert_eq!(
            servers(),
            [1, 22].map(|host| IpAddr::from([10, 0, 0, host]))
        );
        fs::remove_file(&path).expect("the file is there");
    }
}
