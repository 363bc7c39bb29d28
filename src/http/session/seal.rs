//! Encrypts and authenticates what a session carries: only those who have the secret can read it.

use cookie::{Cookie, CookieJar, Key};

/// The shortest secret that the crate `cookie` takes.
const SHORTEST: usize = 32;

/// How many characters of a ticket are its session's number, in hexadecimal.
const ID: usize = 16;

/// A session, and the pod that it is with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The session's number. It spreads the sessions of a lost pod over different second choices.
    pub(super) id: u64,
    /// The pod's stable name.
    pub(super) pod: Box<str>,
}

/// A ticket that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) ticket: Ticket,
    /// Whether it is sealed with the current secret, and not with a previous one.
    pub(super) is_current: bool,
}

/// Seals tickets with its first key, and opens tickets of all its keys.
#[derive(Clone)]
pub(super) struct Seal(Vec<Key>);

impl Seal {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a secret, or returns what is wrong with it.
    pub(super) fn add(&mut self, secret: &[u8]) -> Result<(), String> {
        if secret.len() < SHORTEST {
            let length = secret.len();
            return Err(format!(
                "the secret of sessions has {length} bytes: take {SHORTEST} or more, at random"
            ));
        }
        self.0.push(Key::derive_from(secret));
        Ok(())
    }

    /// Seals the ticket for a cookie or a header of this name; it opens under no other name.
    pub(super) fn seal(&self, name: &str, ticket: &Ticket) -> Option<String> {
        let Ticket { id, pod } = ticket;
        let mut jar = CookieJar::new();
        let open = Cookie::new(name.to_owned(), format!("{id:0ID$x}{pod}"));
        jar.private_mut(self.0.first()?).add(open);
        Some(jar.get(name)?.value().to_owned())
    }

    /// Opens a ticket; none if `text` isn't one, or was sealed with an unknown secret.
    pub(super) fn open(&self, name: &str, text: &str) -> Option<Opened> {
        let sealed = Cookie::new(name.to_owned(), text.to_owned());
        let jar = CookieJar::new();
        let mut keys = self.0.iter().enumerate();
        let (number, open) = keys
            .find_map(|(number, key)| Some((number, jar.private(key).decrypt(sealed.clone())?)))?;
        let (id, pod) = open.value().split_at_checked(ID)?;
        let id = u64::from_str_radix(id, 16).ok()?;
        Some(Opened {
            ticket: Ticket {
                id,
                pod: pod.into(),
            },
            is_current: number == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secrets: &[u8]) -> Seal {
        let mut seal = Seal::new();
        for secret in secrets {
            seal.add(&[*secret; SHORTEST]).expect("long enough");
        }
        seal
    }

    fn ticket() -> Ticket {
        Ticket {
            id: 42,
            pod: "web-0".into(),
        }
    }

    fn opened(is_current: bool) -> Option<Opened> {
        let ticket = ticket();
        Some(Opened { ticket, is_current })
    }

    #[test]
    fn a_ticket_opens_only_with_its_secret_and_name() {
        let text = seal(&[1]).seal("lb", &ticket()).expect("a text");
        assert!(!text.contains("web"));
        assert_eq!(seal(&[1]).open("lb", &text), opened(true));
        assert_eq!(seal(&[1, 2]).open("lb", &text), opened(true));
        assert_eq!(seal(&[2]).open("lb", &text), None);
        assert_eq!(seal(&[1]).open("other", &text), None);
    }

    #[test]
    fn a_previous_secret_opens_but_does_not_seal() {
        let text = seal(&[1]).seal("lb", &ticket()).expect("a text");
        assert_eq!(seal(&[2, 1]).open("lb", &text), opened(false));
        let text = seal(&[2, 1]).seal("lb", &ticket()).expect("a text");
        assert_eq!(seal(&[1]).open("lb", &text), None);
    }

    #[test]
    fn a_ticket_with_any_byte_changed_does_not_open() {
        let seal = seal(&[1]);
        let text = seal.seal("lb", &ticket()).expect("a text");
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("text");
            assert_eq!(seal.open("lb", &forged), None, "{forged}");
        }
        for forged in ["", "A", "web-0", &text[..text.len() - 4], "====", "\u{e9}"] {
            assert_eq!(seal.open("lb", forged), None, "{forged}");
        }
    }

    #[test]
    fn a_ticket_seals_to_another_text_each_time() {
        let seal = seal(&[1]);
        assert_ne!(seal.seal("lb", &ticket()), seal.seal("lb", &ticket()));
    }

    #[test]
    fn a_short_secret_is_refused() {
        let error = Seal::new().add(&[1; SHORTEST - 1]);
        assert!(error.is_err_and(|error| error.contains("31 bytes")));
    }
}
