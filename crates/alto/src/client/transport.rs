//! HTTP as an ALTO client needs it: time limits, few redirects, bounded answers of the right type, and patience with a server
//! that asks for it (RFC 7285, section 8.5.3).

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;
use url::Url;

use super::{AddressRule, ClientError, ClientOptions};
use crate::map::MAP_LEN_MAX;
use crate::types::media;

/// How long a server may take to begin its answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to send all of it.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer, bytes.
pub const ANSWER_LEN_MAX: usize = MAP_LEN_MAX;
/// Longest directory or error, bytes.
pub(super) const SMALL_LEN_MAX: usize = 1024 * 1024;
/// Longest message of a server that is shown, characters.
const MESSAGE_CHARS_MAX: usize = 300;
const REDIRECTS_MAX: usize = 4;
/// How often a server that is busy is asked again.
const RETRIES_MAX: u32 = 3;

/// Builds the client.
pub(super) fn client(options: &ClientOptions) -> Result<Client, ClientError> {
    let tls = |error: &dyn std::fmt::Display| ClientError::Tls { why: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?;
    let config = match &options.authorities {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| tls(&error))?;
                roots.add(certificate).map_err(|error| tls(&error))?;
            }
            config.with_root_certificates(roots)
        }
        None => match config.clone().with_platform_verifier() {
            Ok(config) => config,
            // A small system may have no certificates; then HTTPS fails, and plain HTTP does not.
            Err(error) => {
                tracing::debug!("no certificates of the system: {error}");
                config.with_root_certificates(RootCertStore::empty())
            }
        },
    };
    let rule = options.addresses.clone();
    let redirects = Policy::custom(move |attempt| {
        let is_downgrade = attempt.url().scheme() != "https"
            && attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if is_downgrade {
            attempt.error("a redirect from https to http")
        } else if rule.as_ref().is_some_and(|rule| !rule.allows_url(attempt.url())) {
            attempt.error("a redirect to where the server may not lead")
        } else {
            attempt.follow()
        }
    });
    let builder = match &options.addresses {
        Some(rule) => Client::builder().dns_resolver(Arc::new(Checked(rule.clone()))),
        None => Client::builder(),
    };
    builder
        .tls_backend_preconfigured(config.with_no_client_auth())
        .redirect(redirects)
        .no_proxy()
        .referer(false)
        .connect_timeout(TIMEOUT)
        .tcp_nodelay(true)
        .user_agent(concat!("caudal-alto/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| tls(&error))
}

/// Resolves names, and lets through only the addresses that may be connected to.
struct Checked(AddressRule);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.iter().copied().filter(|address| rule.allows(address.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err("the name leads into a network to which the server may not lead".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// What `Accept` says: the type, or an error.
pub(super) fn accept(media_type: &str) -> String {
    format!("{media_type},{}", media::ERROR)
}

/// What came.
pub(super) enum Fetched {
    Whole {
        bytes: Vec<u8>,
        etag: Option<String>,
    },
    /// What the client has is the newest.
    Same,
}

/// Sends, waits as long as the server asks for and is allowed, and takes the answer if it is of the right type.
pub(super) async fn exchange(
    wait_max: Duration,
    url: &Url,
    media_type: &'static str,
    request: impl Fn() -> RequestBuilder,
) -> Result<Fetched, ClientError> {
    let mut tries = 0;
    let response = loop {
        match send(url, media_type, request()).await {
            Err(error) => {
                let wait = error.retry_after().filter(|wait| *wait <= wait_max && tries < RETRIES_MAX);
                let Some(wait) = wait else { return Err(error) };
                tries += 1;
                tokio::time::sleep(wait).await;
            }
            Ok(response) => break response,
        }
    };
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(Fetched::Same);
    }
    let etag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let len_max = if media_type == media::DIRECTORY { SMALL_LEN_MAX } else { ANSWER_LEN_MAX };
    Ok(Fetched::Whole { bytes: body(url, response, len_max).await?, etag })
}

/// Sends, and waits for the head of an answer of the right type.
pub(super) async fn send(
    url: &Url,
    media_type: &'static str,
    request: RequestBuilder,
) -> Result<Response, ClientError> {
    let response = match tokio::time::timeout(TIMEOUT, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(unreachable(url, &error)),
        Err(_) => return Err(ClientError::Timeout { url: Box::new(url.clone()) }),
    };
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    let got = content_type(&response);
    if response.status() == StatusCode::OK && got.as_deref() == Some(media_type) {
        return Ok(response);
    }
    if got.as_deref() == Some(media::ERROR) {
        return Err(alto_error(url, &body(url, response, SMALL_LEN_MAX).await?));
    }
    if response.status() == StatusCode::OK {
        let got = got.unwrap_or_else(|| "no type".to_owned());
        return Err(ClientError::MediaType { url: Box::new(url.clone()), expected: media_type, got });
    }
    let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
    let is_text = got.as_deref() == Some("text/plain");
    let text =
        if is_text { body(url, response, SMALL_LEN_MAX).await.unwrap_or_default() } else { Vec::new() };
    let text = String::from_utf8_lossy(&text);
    let printable = text.trim().chars().filter(|c| !c.is_control());
    let message = printable.take(MESSAGE_CHARS_MAX).collect();
    Err(ClientError::Status { url: Box::new(url.clone()), status, message, retry_after })
}

/// The media type without its parameters.
fn content_type(response: &Response) -> Option<String> {
    let value = response.headers().get("content-type")?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

/// Reads an error (section 8.5.2).
pub(super) fn alto_error(url: &Url, json: &[u8]) -> ClientError {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    let text = |name: &str| {
        let text = value.get("meta").and_then(|meta| meta.get(name)).and_then(Value::as_str);
        text.map(|text| text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect::<String>())
    };
    match text("code") {
        Some(code) => ClientError::Alto {
            url: Box::new(url.clone()),
            code,
            field: text("field"),
            value: text("value").or_else(|| text("syntax-error")),
        },
        None => {
            ClientError::BadAnswer { url: Box::new(url.clone()), why: "an error without a code".to_owned() }
        }
    }
}

/// The whole body, within its size and time.
async fn body(url: &Url, mut response: Response, len_max: usize) -> Result<Vec<u8>, ClientError> {
    let read = async {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
            if body.len() + chunk.len() > len_max {
                let why = format!("longer than {} MiB", len_max >> 20);
                return Err(ClientError::BadAnswer { url: Box::new(url.clone()), why });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(ClientError::Timeout { url: Box::new(url.clone()) }))
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3); a date is not worth a parser here.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get("retry-after")?;
    Some(Duration::from_secs(value.to_str().ok()?.trim().parse::<u32>().ok()?.into()))
}

/// What went wrong, with the innermost cause, which is the one that says something.
pub(super) fn unreachable(url: &Url, error: &reqwest::Error) -> ClientError {
    if error.is_timeout() {
        return ClientError::Timeout { url: Box::new(url.clone()) };
    }
    let mut why = String::from("the connection failed");
    let mut source = error.source();
    while let Some(cause) = source {
        why = cause.to_string();
        source = cause.source();
    }
    ClientError::Unreachable { url: Box::new(url.clone()), why }
}
