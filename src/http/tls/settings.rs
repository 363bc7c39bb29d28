//! TLS settings.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    client::{ResolvesClientCert, Resumption},
};

use super::{file::File, identity::Identity, pem, provider::provider};
use crate::{error::BoxError, times::DAY};

/// TLS settings: which authorities to trust, and which identity to show.
///
/// The client dials a pod's address, but the pod's certificate must name the *service*, and so does SNI. If the address
/// has been given to another service's pod, the handshake fails, and that pod is passed over. With
/// [`pod_names`](Self::pod_names) the certificate must have the pod's own name, `web-0.nginx-headless.default`, if its
/// hostname is known.
///
/// ```no_run
/// use tower_headless::http::Tls;
///
/// let tls = Tls::new().trust_file("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")?;
/// # Ok::<(), tower_headless::BoxError>(())
/// ```
///
/// # Renewed certificates
///
/// Files ([`trust_file`](Self::trust_file), [`identity_files`](Self::identity_files)) are read again every
/// [`reload_interval`](Self::reload_interval). Symbolic links are followed anew, so a mounted Secret may be swapped. A
/// change counts once two reads, at most a second apart, have found the same. Files that can't be used (half written,
/// or a key of another certificate) change nothing: the client logs one warning, and keeps reading.
/// [`TlsHandle::reload`](crate::http::TlsHandle::reload) reads at once, and
/// [`TlsHandle::replace`](crate::http::TlsHandle::replace) takes other settings.
///
/// The next handshake uses the new certificate, key and authorities, and resumes no older session. Connections that
/// were made with the old ones retire at random times within [`retire_within`](Self::retire_within): they take no more
/// requests, and close when they have none. No request fails because of it.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Those given as text, or built in.
    roots: RootCertStore,
    root_files: Vec<File>,
    identity: Own,
    config: Option<Arc<ClientConfig>>,
    pod_names: bool,
    reload_interval: Duration,
    retire_within: Duration,
}

/// The client's identity.
#[derive(Clone, Debug)]
enum Own {
    Nobody,
    Given(Identity),
    Files { chain: File, key: File },
    Resolver(Arc<dyn ResolvesClientCert>),
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

impl Tls {
    /// Trusts no authority yet, so every handshake fails until you add one.
    pub fn new() -> Self {
        Self {
            roots: RootCertStore::empty(),
            root_files: Vec::new(),
            identity: Own::Nobody,
            config: None,
            pod_names: false,
            reload_interval: Duration::from_secs(10),
            retire_within: Duration::from_secs(30),
        }
    }

    /// Trusts the authorities whose certificates are in `pem`, such as a cluster's or a cert-manager issuer's.
    ///
    /// # Errors
    ///
    /// If `pem` has no certificate, or one that can't be read. The message says what it is instead.
    pub fn trust_pem(mut self, pem: &[u8]) -> Result<Self, BoxError> {
        add(&mut self.roots, pem)?;
        Ok(self)
    }

    /// Trusts the authorities whose certificates are in this PEM file, which is read again when it changes.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or for the reasons of [`trust_pem`](Self::trust_pem).
    pub fn trust_file(mut self, path: impl Into<PathBuf>) -> Result<Self, BoxError> {
        let file = File::read(path)?;
        add(&mut RootCertStore::empty(), file.content()).map_err(|why| file.blame(&why))?;
        self.root_files.push(file);
        Ok(self)
    }

    /// Trusts Mozilla's authorities, as of this crate's build.
    #[cfg(feature = "tls-webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-webpki-roots")))]
    pub fn trust_webpki_roots(mut self) -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        self.roots.extend(roots);
        self
    }

    /// Trusts the system's authorities.
    ///
    /// # Errors
    ///
    /// If the system has none that can be read.
    #[cfg(feature = "tls-native-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-native-roots")))]
    pub fn trust_native_roots(mut self) -> Result<Self, BoxError> {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = self.roots.add_parsable_certificates(found.certs);
        match found.errors.into_iter().next() {
            Some(error) if added == 0 => Err(error.into()),
            None if added == 0 => Err("the system has no certificates".into()),
            _ => Ok(self),
        }
    }

    /// Shows pods this certificate, with its chain, if they ask for one. If there are several keys, it takes the one
    /// that belongs to the first certificate.
    ///
    /// # Errors
    ///
    /// If `chain` has no certificate, or `key` no private key; if the key is encrypted, or doesn't belong to the chain's
    /// first certificate.
    pub fn identity_pem(mut self, chain: &[u8], key: &[u8]) -> Result<Self, BoxError> {
        self.identity = Own::Given(Identity::from_pem(chain, key, &provider()?)?);
        Ok(self)
    }

    /// Shows pods the certificate in the PEM file `chain`, with the key in the file `key`, which may be the same file.
    /// Both are read again when they change.
    ///
    /// # Errors
    ///
    /// If one of the files can't be read, or for the reasons of [`identity_pem`](Self::identity_pem).
    pub fn identity_files(
        mut self,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, BoxError> {
        let (chain, key) = (File::read(chain)?, File::read(key)?);
        identity_of(&chain, &key)?;
        self.identity = Own::Files { chain, key };
        Ok(self)
    }

    /// Asks this resolver for the certificate to show, at each handshake: for keys in hardware, or identities from an
    /// API, such as SPIFFE's.
    ///
    /// TLS sessions are not resumed then, because that would keep an identity that the resolver has replaced. After a
    /// replacement call [`TlsHandle::reload`](crate::http::TlsHandle::reload): nothing else retires connections of the
    /// old identity.
    pub fn client_cert_resolver(mut self, resolver: Arc<dyn ResolvesClientCert>) -> Self {
        self.identity = Own::Resolver(resolver);
        self
    }

    /// Uses a configuration of rustls 0.23 for everything about certificates, such as a verifier of SPIFFE names. It
    /// can't be combined with this type's own settings of trust and identity:
    /// [`build`](crate::http::ClientBuilder::build) fails then.
    ///
    /// The client changes two things, in a copy. ALPN offers what the client's [`Protocol`](crate::http::Protocol) asks
    /// for. If the configuration names protocols itself, ALPN offers those that are in both; if there are none,
    /// [`build`](crate::http::ClientBuilder::build) fails. And TLS sessions are not resumed, because the client can't
    /// see whether its resolver or verifier has changed. After a change call
    /// [`TlsHandle::reload`](crate::http::TlsHandle::reload) to retire older connections.
    pub fn config(mut self, config: Arc<ClientConfig>) -> Self {
        self.config = Some(config);
        self
    }

    /// Whether a pod's certificate must name the pod itself instead of the service, if its hostname is known at the
    /// time of the handshake. With A and AAAA records, only pods that requests [ask for](crate::http::Client::pod) have
    /// known hostnames. Connections that were made before are not verified again.
    pub fn pod_names(mut self, pod_names: bool) -> Self {
        self.pod_names = pod_names;
        self
    }

    /// How often files are read again; 10 s by default. 10 ms at least, a day at most.
    pub fn reload_interval(mut self, interval: Duration) -> Self {
        self.reload_interval = interval.clamp(SHORTEST_INTERVAL, DAY);
        self
    }

    /// How long older connections may be used after certificates, keys or authorities have changed to these; 30 s by
    /// default. Zero is at once; a day at most.
    ///
    /// The longer it is, the fewer handshakes happen at the same time.
    pub fn retire_within(mut self, time: Duration) -> Self {
        self.retire_within = time.min(DAY);
        self
    }
}

/// What a client reads from them.
impl Tls {
    pub(super) fn has_pod_names(&self) -> bool {
        self.pod_names
    }

    pub(super) fn retirement(&self) -> Duration {
        self.retire_within
    }

    /// How often to read the files; none if there are none.
    pub(super) fn interval(&self) -> Option<Duration> {
        let has_files = !self.root_files.is_empty() || matches!(self.identity, Own::Files { .. });
        has_files.then_some(self.reload_interval)
    }

    /// Whether only others can see into them, so that a change can't be noticed.
    pub(super) fn is_opaque(&self) -> bool {
        self.config.is_some() || matches!(self.identity, Own::Resolver(_))
    }

    /// The settings with the files as they are now; none if those haven't changed.
    pub(super) fn read_again(&self) -> Result<Option<Self>, BoxError> {
        let mut new = self.clone();
        let files = self.root_files.iter().map(File::read_again);
        new.root_files = files.collect::<Result<_, _>>()?;
        if let Own::Files { chain, key } = &self.identity {
            let (chain, key) = (chain.read_again()?, key.read_again()?);
            new.identity = Own::Files { chain, key };
        }
        Ok((!new.has_files_of(self)).then_some(new))
    }

    /// Whether the files have the same content in both.
    pub(super) fn has_files_of(&self, other: &Self) -> bool {
        let pair = |own: &Own| match own {
            Own::Files { chain, key } => Some((chain.clone(), key.clone())),
            _ => None,
        };
        self.root_files == other.root_files && pair(&self.identity) == pair(&other.identity)
    }

    /// Makes rustls's configuration.
    pub(super) fn client_config(&self) -> Result<ClientConfig, BoxError> {
        if let Some(config) = &self.config {
            if !self.roots.is_empty()
                || !matches!(self.identity, Own::Nobody)
                || !self.root_files.is_empty()
            {
                return Err("`Tls::config` sets trust and identity already: leave out the other settings of both".into());
            }
            let mut config = ClientConfig::clone(config);
            config.resumption = Resumption::disabled();
            return Ok(config);
        }
        let mut roots = self.roots.clone();
        for file in &self.root_files {
            add(&mut roots, file.content()).map_err(|why| file.blame(&why))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()?))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(match &self.identity {
            Own::Nobody => builder.with_no_client_auth(),
            Own::Given(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
            Own::Files { chain, key } => {
                let identity = identity_of(chain, key)?;
                builder.with_client_cert_resolver(Arc::new(identity))
            }
            Own::Resolver(resolver) => {
                let mut config = builder.with_client_cert_resolver(resolver.clone());
                config.resumption = Resumption::disabled();
                config
            }
        })
    }
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), BoxError> {
    for certificate in pem::certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(())
}

fn identity_of(chain: &File, key: &File) -> Result<Identity, BoxError> {
    let identity = Identity::from_pem(chain.content(), key.content(), &provider()?);
    identity.map_err(|why| format!("{} and {}: {why}", chain.path(), key.path()).into())
}
