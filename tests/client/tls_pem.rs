//! What users pass as certificates and keys.

use tower_headless::http::Tls;

use crate::{
    kit::get,
    tls_kit::{Authority, Folder, H2, NAME, client, secure},
};

/// The errors for this text as an authority, as a chain and as a key.
fn refusals(pem: impl AsRef<[u8]>) -> [String; 3] {
    let (pem, authority) = (pem.as_ref(), Authority::new());
    let (chain, key, _) = authority.client();
    let folder = Folder::new();
    let trusted = Tls::new().trust_pem(pem).err();
    let file = Tls::new().trust_file(folder.write("ca.crt", pem)).err();
    let chained = Tls::new().identity_pem(pem, key.as_bytes()).err();
    let keyed = Tls::new().identity_pem(chain.as_bytes(), pem).err();
    let file = file.expect("an error").to_string();
    let trusted = trusted.expect("an error").to_string();
    assert!(
        file.contains("ca.crt") && file.ends_with(&trusted),
        "{file}"
    );
    let text =
        |error: Option<tower_headless::BoxError>| error.map_or("-".into(), |it| it.to_string());
    [trusted, text(chained), text(keyed)]
}

#[test]
fn what_has_no_certificate_is_an_error_that_tells_what_it_is() {
    let authority = Authority::new();
    let der = authority.sign(&["web"]).0.der().to_vec();
    let utf16: Vec<u8> = "-----BEGIN"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let indented = authority.pem().replace("-----BEGIN", "  -----BEGIN");
    for (pem, told) in [
        (&b""[..], "it is empty"),
        (b" \n\r\n", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (
            b"/etc/ssl/certs/ca.crt",
            "no line that begins with -----BEGIN",
        ),
        (
            b"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t",
            "Base64 of a PEM text",
        ),
        (&der, "it is DER, not PEM"),
        (&[b"\xff\xfe", &*utf16].concat(), "UTF-16"),
        (
            b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "it has X509 CRL",
        ),
        (
            b"-----BEGIN NEWS-----\nAAAA\n-----END NEWS-----\n",
            "it has NEWS",
        ),
        (indented.as_bytes(), "indented"),
    ] {
        for error in refusals(pem) {
            assert!(error.contains(told), "{error} for {told}");
        }
    }
}

#[test]
fn a_private_key_is_no_authority_and_no_chain() {
    let (_, key, _) = Authority::new().client();
    let [trusted, chained, _] = refusals(&key);
    assert_eq!(trusted, "no certificate: it has PRIVATE KEY");
    assert_eq!(chained, "the chain: no certificate: it has PRIVATE KEY");
}

#[test]
fn a_certificate_that_cannot_be_read_is_an_error() {
    let good = Authority::new().pem();
    let cut = good
        .trim_end()
        .trim_end_matches("-----END CERTIFICATE-----");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let one_line = good.replace('\n', "\\n");
    for (pem, told) in [
        (cut.to_owned(), "cut off"),
        (format!("{good}{cut}"), "cut off"),
        (good.replace("\nM", "\n!"), "Base64"),
        (broken.to_owned(), "certificate 1 can't be read"),
        (format!("{good}{broken}"), "certificate 2 can't be read"),
        (one_line, "line ends"),
    ] {
        let [trusted, chained, _] = refusals(&pem);
        assert!(trusted.contains(told), "{trusted} for {told}");
        assert!(chained.contains(told), "{chained} for {told}");
    }
}

#[test]
fn an_encrypted_or_unrelated_key_is_an_error() {
    let authority = Authority::new();
    let (chain, key, _) = authority.client();
    let (_, other, _) = authority.client();
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (key, told) in [
        (&*encrypted, "the private key is encrypted"),
        (old, "the private key is encrypted"),
        (&other, "the key doesn't belong to the certificate"),
        (&chain, "no private key: it has CERTIFICATE"),
        (nonsense, "key"),
    ] {
        let error = Tls::new().identity_pem(chain.as_bytes(), key.as_bytes());
        let error = error.expect_err("no key").to_string();
        assert!(error.contains(told), "{error} for {told}");
    }
}

#[test]
fn a_chain_in_the_wrong_order_is_an_error_that_tells_which_certificate_goes_first() {
    let authority = Authority::new();
    let (chain, key, _) = authority.client();
    let wrong = format!("{}{chain}", authority.pem());
    let error = Tls::new().identity_pem(wrong.as_bytes(), key.as_bytes());
    let error = error.expect_err("the wrong order").to_string();
    assert!(
        error.contains("belongs to certificate 2 of the chain"),
        "{error}"
    );
}

/// One file with byte order marks and line ends of Windows, text before, between and after the sections, and several
/// keys.
#[tokio::test]
async fn additions_of_editors_and_tools_are_ignored() {
    let authority = Authority::new();
    let (pod, _) = secure(authority.server(&[NAME], &[H2], true)).await;
    let (chain, key, _) = authority.client();
    let (_, other, _) = authority.client();
    let marked = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let tattling = |text: &str| format!("Issuer: CN=us\n{text}\nand so on, -----END\n\0\n");
    let whole = format!("{chain}{}{key}", authority.pem());
    for (ca, chain, key) in [
        (marked(&authority.pem()), marked(&chain), marked(&key)),
        (tattling(&authority.pem()), tattling(&chain), tattling(&key)),
        (authority.pem(), whole.clone(), whole.clone()),
        (whole.clone(), whole.clone(), whole),
        (authority.pem(), chain.clone(), format!("{other}{key}")),
        (authority.pem().replace('\n', "\r"), chain, key),
    ] {
        let tls = Tls::new().trust_pem(ca.as_bytes()).expect("an authority");
        let tls = tls.identity_pem(chain.as_bytes(), key.as_bytes());
        let answer = get(&client([pod], tls.expect("an identity")), "/").await;
        let clients = answer.expect("a response");
        assert!(clients.starts_with(&format!("{NAME} ")), "{clients}");
        assert!(!clients.starts_with(&format!("{NAME} 0")), "{clients}");
    }
}
