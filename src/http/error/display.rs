//! An error's text: the service, the pod, what happened, and the innermost cause.

use std::{error::Error as StdError, fmt};

use super::{Error, kind::Kind, plain, wait::Wait};
use crate::error::{opening, tell};

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `NotSent` says so in its own text.
        let is_told = !matches!(&*self.0, Kind::NotSent { .. });
        let is_unsent = is_told && self.last_is_unsent();
        let is_after = self.is_after_another();
        let opening = match is_after {
            true => opening_after(self.service(), is_unsent),
            false => opening(self.service(), is_unsent),
        };
        match (&*self.0, self.service()) {
            (Kind::Request(why), Some(service)) if !is_after => {
                write!(f, "invalid request to {service}: {why}")
            }
            // These name the service themselves.
            (Kind::Request(_) | Kind::Foreign { .. }, _) if !is_after => self.0.fmt(f),
            (Kind::Unsent(error) | Kind::NoAnswer(error), _) => error.tell_kind(f, &opening),
            (Kind::SessionLost { source, .. }, _) => {
                source.tell_kind(f, &format!("{opening}{}: ", self.0))
            }
            (
                kind @ Kind::NotSent {
                    wait: Wait::Pod(error),
                    ..
                },
                _,
            ) => error.tell_kind(f, &format!("{opening}{kind}: ")),
            (kind, _) => {
                let what = format!("{opening}{kind}");
                let end = self.source().filter(|_| kind.is_of_pod() && !f.alternate());
                match end.and_then(plain::words) {
                    Some(why) => write!(f, "{what}: {why}"),
                    None => tell(f, &what, self.source()),
                }
            }
        }
    }
}

/// Begins the text of an error if another request that layers made from the same one may have been executed.
fn opening_after(service: Option<&str>, is_unsent: bool) -> String {
    let what = service.map_or_else(
        || "the request".into(),
        |service| format!("request to {service}"),
    );
    let unsent = if is_unsent { " was not sent" } else { "" };
    format!("{what} may have been executed; the last request that a layer made from it{unsent}: ")
}
