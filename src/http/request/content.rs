//! Encoded parts of a request: queries, forms, JSON, credentials.

use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Uri, header::AUTHORIZATION};
use serde::Serialize;

use super::RequestBuilder;
use crate::http::error::Error;

impl RequestBuilder {
    /// Adds to the path's query, from a struct, a map, or pairs (`&[("name", "value")]`). They are percent-encoded like
    /// a form (`application/x-www-form-urlencoded`). Further calls add more.
    ///
    /// A value that is `None` is left out; a sequence is one pair for each of its elements.
    pub fn query(self, query: &(impl Serialize + ?Sized)) -> Self {
        self.try_with(|request, _| {
            let query = encoded("the query", query)?;
            if !query.is_empty() {
                let uri = with_query(request.uri(), &query);
                *request.uri_mut() = uri.map_err(|error| invalid("the query", &error))?;
            }
            Ok(())
        })
    }

    /// Sends a struct, a map, or pairs as an HTML form (`application/x-www-form-urlencoded`). It sets the
    /// `Content-Type`, unless you have set one.
    pub fn form(self, form: &(impl Serialize + ?Sized)) -> Self {
        self.try_with(|request, content| {
            let form = encoded("the form", form)?;
            content.set(request, "application/x-www-form-urlencoded", form.into());
            Ok(())
        })
    }

    /// Sends this value as JSON. It sets the `Content-Type` to `application/json`, unless you have set one.
    ///
    /// ```no_run
    /// use serde::{Deserialize, Serialize};
    /// use tower_headless::http::{Client, Error};
    ///
    /// #[derive(Serialize)]
    /// struct Order { items: Vec<u32> }
    ///
    /// #[derive(Deserialize)]
    /// struct Receipt { id: String }
    ///
    /// # async fn order(client: Client) -> Result<(), Error> {
    /// let order = Order { items: vec![1, 2] };
    /// let response = client.post("/orders").json(&order).send().await?;
    /// let receipt: Receipt = response.error_for_status()?.json().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "json")]
    #[cfg_attr(docsrs, doc(cfg(feature = "json")))]
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Self {
        self.try_with(|request, content| {
            let json = crate::http::json::encode(value);
            let json = json.map_err(|error| invalid("the JSON", &error))?;
            content.set(request, "application/json", json.into());
            Ok(())
        })
    }

    /// Sets `Authorization: Bearer token`, and replaces any other `Authorization` (RFC 6750 §2.1). It is marked
    /// sensitive: `Debug` doesn't show it, and HTTP/2 doesn't index it.
    pub fn bearer_auth(self, token: impl fmt::Display) -> Self {
        self.authorization(format_args!("Bearer {token}"))
    }

    /// Sets `Authorization: Basic …`, and replaces any other `Authorization` (RFC 7617). Without a password, an empty
    /// one is sent. It is marked sensitive. A name with a colon is an error, because the colon ends the name.
    pub fn basic_auth(self, name: impl fmt::Display, password: Option<impl fmt::Display>) -> Self {
        let name = name.to_string();
        if name.contains(':') {
            let why = "the name of basic_auth has a colon in it";
            return self.try_with(|_, _| Err(Error::request(why)));
        }
        let credentials = match password {
            Some(password) => format!("{name}:{password}"),
            None => name + ":",
        };
        let credentials = BASE64.encode(credentials.as_bytes());
        self.authorization(format_args!("Basic {credentials}"))
    }

    fn authorization(self, credentials: fmt::Arguments<'_>) -> Self {
        self.try_with(|request, _| {
            let value = Bytes::from(credentials.to_string());
            let value = HeaderValue::from_maybe_shared(value);
            let mut value = value.map_err(|error| invalid("the Authorization", &error))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
            Ok(())
        })
    }
}

fn invalid(what: &str, error: &dyn fmt::Display) -> Error {
    Error::request(format_args!("{what}: {error}"))
}

fn encoded(what: &str, value: &(impl Serialize + ?Sized)) -> Result<String, Error> {
    serde_html_form::to_string(value).map_err(|error| invalid(what, &error))
}

fn with_query(uri: &Uri, more: &str) -> Result<Uri, http::Error> {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let joint = match query.is_empty() || query.ends_with('&') {
        true => "",
        false => "&",
    };
    let whole = format!("{path}?{query}{joint}{more}");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(whole.parse()?);
    Ok(Uri::from_parts(parts)?)
}
