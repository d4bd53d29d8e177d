//! HTTP as a tracker's client needs it: short timeouts, no redirects, no proxy, bounded answers, checked addresses.
//!
//! No proxy, because a tracker registers the address that a request comes from, and because a proxy would resolve the
//! name where the check of [`AllowedUrl`] cannot see it.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, RequestBuilder, Response};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::client::ClientError;
use crate::url::{AllowedUrl, Reach, TrackerUrl};

/// How long a tracker may take to answer.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer, bytes: a page of the directory with the longest descriptors, and some room.
pub const ANSWER_LEN_MAX: usize = 2 * 1024 * 1024;
/// Kept open for the next request for less long than trackers and edges keep it, so that no request meets a closing one.
pub const IDLE: Duration = Duration::from_secs(8);
/// What a client says that it is.
pub const USER_AGENT: &str = concat!("caudal/", env!("CARGO_PKG_VERSION"));

/// Builds a client that connects only to where `url` may lead, and follows nobody elsewhere.
///
/// # Errors
/// [`ClientError::Tls`] when TLS cannot be set up.
pub fn client(url: &AllowedUrl) -> Result<Client, ClientError> {
    Client::builder()
        .tls_backend_preconfigured(tls_config(url)?)
        .dns_resolver(Arc::new(Checked(url.reach())))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(TIMEOUT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .user_agent(USER_AGENT)
        .build()
        .map_err(|error| ClientError::Tls { why: error.to_string() })
}

/// How a TLS connection to where `url` leads is made.
///
/// # Errors
/// [`ClientError::Tls`] when the system has no certificates.
pub fn tls_config(url: &AllowedUrl) -> Result<ClientConfig, ClientError> {
    let tls = |error: &dyn std::fmt::Display| ClientError::Tls { why: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?;
    // A plain connection needs no certificates, which a small system may not have.
    let config = if url.url().is_plain() {
        config.with_root_certificates(RootCertStore::empty())
    } else {
        config.with_platform_verifier().map_err(|error| tls(&error))?
    };
    Ok(config.with_no_client_auth())
}

/// Resolves names, and lets through only the addresses that the URL may lead to.
#[derive(Debug, Clone, Copy)]
pub struct Checked(pub Reach);

impl Checked {
    /// The addresses of `name`, without ports.
    ///
    /// # Errors
    /// None is found, or none may be gone to.
    pub async fn lookup(
        self,
        name: &str,
    ) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
        let some = !found.is_empty();
        let allowed: Vec<SocketAddr> =
            found.into_iter().filter(|address| self.0.allows(address.ip().to_canonical())).collect();
        if some && allowed.is_empty() {
            return Err("the name leads into a network that this URL may not lead to".into());
        }
        Ok(allowed)
    }
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let checked = *self;
        Box::pin(async move { Ok(Box::new(checked.lookup(name.as_str()).await?.into_iter()) as Addrs) })
    }
}

/// Sends, and waits for the head of the answer.
pub(crate) async fn send(url: &TrackerUrl, request: RequestBuilder) -> Result<Response, ClientError> {
    match tokio::time::timeout(TIMEOUT, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(unreachable(url, &error)),
        Err(_) => Err(ClientError::Timeout { url: url.clone() }),
    }
}

/// The whole body, within its size and time.
pub(crate) async fn body(url: &TrackerUrl, mut response: Response) -> Result<Vec<u8>, ClientError> {
    let read = async {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
            if body.len() + chunk.len() > ANSWER_LEN_MAX {
                return Err(ClientError::bad_answer(url, &"longer than 2 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    tokio::time::timeout(TIMEOUT, read)
        .await
        .unwrap_or_else(|_| Err(ClientError::Timeout { url: url.clone() }))
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); a date is not worth a parser here.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?;
    Some(Duration::from_secs(value.to_str().ok()?.trim().parse::<u32>().ok()?.into()))
}

/// What went wrong, with the innermost cause, which is the one that says something.
pub(crate) fn unreachable(url: &TrackerUrl, error: &reqwest::Error) -> ClientError {
    if error.is_timeout() {
        return ClientError::Timeout { url: url.clone() };
    }
    let mut why = String::from("the connection failed");
    let mut source = error.source();
    while let Some(cause) = source {
        why = cause.to_string();
        source = cause.source();
    }
    // The cause may quote what came: names in a certificate, for one.
    ClientError::Unreachable { url: url.clone(), why: super::cleaned(&why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::UrlOrigin;

    fn allowed(url: &str, origin: UrlOrigin) -> AllowedUrl {
        url.parse::<TrackerUrl>().unwrap().check(origin, false).unwrap()
    }

    /// The name is checked where it is resolved: any name may turn out to lead inwards.
    #[tokio::test]
    async fn a_strangers_name_that_resolves_inwards_is_not_connected_to() {
        for (origin, reaches) in
            [(UrlOrigin::Foreign, false), (UrlOrigin::TypedLink, false), (UrlOrigin::Typed, true)]
        {
            let resolver = Checked(allowed("https://tracker.example", origin).reach());
            let found = resolver.resolve("localhost".parse().unwrap()).await;
            assert_eq!(found.is_ok_and(|mut found| found.next().is_some()), reaches, "{origin:?}");
        }
    }

    #[test]
    fn a_client_is_built_for_either_scheme_or_says_what_is_missing() {
        assert!(client(&allowed("http://127.0.0.1:7777", UrlOrigin::Typed)).is_ok());
        let tls = client(&allowed("https://tracker.example", UrlOrigin::Typed));
        assert!(matches!(tls, Ok(_) | Err(ClientError::Tls { .. })));
    }
}
