//! Certificates and keys, as in files → a client that uses them.
//!
//! Up to three parts, with `SEPARATOR` between them: CA certificates, a chain, a key.
//!
//! Checked: no panic; the same files give the same result.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_headless::http::{Client, Tls};
use tower_headless_fuzz::{input::parts, runtime::paused};

fuzz_target!(|data: &[u8]| {
    let parts = parts(data);
    let [first, second] = [(), ()].map(|()| outcome(&parts));
    assert_eq!(first, second);
});

fn outcome(parts: &[&[u8]]) -> Result<(), String> {
    let part = |at: usize| parts.get(at).copied();
    let mut tls = Tls::new();
    tls = tls.trust_pem(parts[0]).map_err(|error| error.to_string())?;
    if let Some(chain) = part(1) {
        let key = part(2).unwrap_or(chain);
        tls = tls
            .identity_pem(chain, key)
            .map_err(|error| error.to_string())?;
    }
    let _ = format!("{tls:?}");
    let uri = "https://web.default:443".parse().expect("a URI");
    paused(async {
        let client = Client::builder(uri).tls(tls).build();
        client.map(drop).map_err(|error| error.to_string())
    })
}
