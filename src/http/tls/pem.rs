//! Reads PEM texts, and explains why one can't be used.
//!
//! The parser skips what it doesn't know, so a file of another kind looks like an empty one. These errors say what it
//! is instead.

use rustls::{
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
    server::ParsedCertificate,
};

use crate::error::BoxError;

/// The certificates in `pem`: at least one, and all readable.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let pem = without_mark(pem);
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unreadable(&error))?;
    if found.is_empty() {
        return Err(format!("no certificate: {}", instead(pem)).into());
    }
    for (index, certificate) in found.iter().enumerate() {
        if let Err(error) = ParsedCertificate::try_from(certificate) {
            return Err(format!("certificate {} can't be read: {error}", index + 1).into());
        }
    }
    Ok(found)
}

/// The private keys in `pem`, one at least.
pub(super) fn private_keys(pem: &[u8]) -> Result<Vec<PrivateKeyDer<'static>>, BoxError> {
    let pem = without_mark(pem);
    if is_encrypted(pem) {
        return Err("the private key is encrypted: give it decrypted".into());
    }
    let found = PrivateKeyDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unreadable(&error))?;
    if found.is_empty() {
        return Err(format!("no private key: {}", instead(pem)).into());
    }
    Ok(found)
}

/// Windows editors put a byte order mark first, which would hide the first section.
fn without_mark(pem: &[u8]) -> &[u8] {
    pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(pem)
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// In plain words, because the parser's are for programmers.
fn unreadable(error: &PemError) -> BoxError {
    match error {
        PemError::MissingSectionEnd { end_marker } => {
            let label = String::from_utf8_lossy(end_marker);
            format!("cut off: no end of its last section ({label})").into()
        }
        PemError::IllegalSectionStart { .. } => {
            "a line that begins with -----BEGIN doesn't end with -----: are its line ends lost?"
                .into()
        }
        PemError::Base64Decode(why) => format!("a section isn't Base64: {why}").into(),
        other => other.to_string().into(),
    }
}

/// What `pem` is instead.
fn instead(pem: &[u8]) -> String {
    let text = String::from_utf8_lossy(pem);
    let labels: Vec<_> = text.lines().filter_map(label).collect();
    if text.trim().is_empty() {
        "it is empty".to_owned()
    } else if !labels.is_empty() {
        format!("it has {}", labels.join(", "))
    } else if pem.starts_with(b"\x30\x82") || pem.starts_with(b"\x30\x81") {
        "it is DER, not PEM: convert it".to_owned()
    } else if pem.starts_with(b"\xff\xfe") || pem.starts_with(b"\xfe\xff") {
        "it is UTF-16 text: save it as UTF-8".to_owned()
    } else if text.trim_start().starts_with("LS0tLS1CRUdJTi") {
        "it is the Base64 of a PEM text, as in a Secret's manifest: decode it".to_owned()
    } else if text.contains("-----BEGIN ") {
        "its lines with -----BEGIN are indented, or other text comes before that".to_owned()
    } else {
        "it has no line that begins with -----BEGIN".to_owned()
    }
}

fn label(line: &str) -> Option<&str> {
    let line = line.strip_prefix("-----BEGIN ")?;
    line.trim_end().strip_suffix("-----")
}
