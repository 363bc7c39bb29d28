//! A handle to reload or replace a client's TLS settings.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::{live::Live, settings::Tls};
use crate::error::BoxError;

/// A handle to the TLS of a [`Client`](crate::http::Client): it reloads or replaces certificates.
///
/// Cheap to clone. It doesn't keep the client alive.
///
/// ```no_run
/// # fn main() -> Result<(), tower_headless::BoxError> {
/// use tower_headless::http::{Client, Tls};
///
/// let tls = Tls::new().trust_file("/tls/ca.crt")?.identity_files("/tls/tls.crt", "/tls/tls.key")?;
/// let client = Client::builder("https://nginx-headless.default:443".parse()?).tls(tls).build()?;
/// let handle = client.tls_handle().expect("the client speaks TLS");
/// // On SIGHUP, say:
/// handle.reload()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsHandle(Weak<Live>);

impl TlsHandle {
    pub(super) fn new(live: &Arc<Live>) -> Self {
        Self(Arc::downgrade(live))
    }

    /// Reads the files again, now. If they have changed, the next handshake uses them, and older connections retire
    /// ([`Tls::retire_within`]). With a [configuration](Tls::config) or a [resolver](Tls::client_cert_resolver) of your
    /// own, older connections always retire.
    ///
    /// A pod whose certificate was refused is tried again when its back-off is over, at most 5 s later; until then
    /// requests may still fail for the old reason.
    ///
    /// It blocks like any `std::fs::read`: briefly, unless the files are on a network.
    ///
    /// # Errors
    ///
    /// If a file can't be read or used; nothing changes then. Or if the client is gone.
    pub fn reload(&self) -> Result<(), BoxError> {
        self.live()?.reload()
    }

    /// Takes other settings: the next handshake uses them, and older connections retire.
    ///
    /// # Errors
    ///
    /// If no client could be built with them; nothing changes then. Or if the client is gone.
    pub fn replace(&self, tls: Tls) -> Result<(), BoxError> {
        let live = self.live()?;
        while !live.replace(&live.current(), tls.clone())? {}
        Ok(())
    }

    fn live(&self) -> Result<Arc<Live>, BoxError> {
        self.0
            .upgrade()
            .ok_or_else(|| "the client was dropped".into())
    }
}

impl fmt::Debug for TlsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsHandle").finish_non_exhaustive()
    }
}
