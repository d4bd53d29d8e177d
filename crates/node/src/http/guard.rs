//! Who is answered: requests that name this machine, come from no other origin, and carry the token where it is needed.

use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use caudal_tracker::page::{is_address, protect};

use super::api::error;
use super::token::{TOKEN_HEADER, TOKEN_PREFIX, Token};

/// What the guard goes by.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) token: Token,
    /// Others than this machine can connect: everything needs the token.
    pub(super) is_open: bool,
}

/// The request carried the token in its path.
#[derive(Debug, Clone, Copy)]
struct InPath;

/// Takes the token out of `/t/TOKEN/…`, before routes are looked at. A wrong one stays where it is.
pub(super) fn take_token<B>(token: &Token, request: &mut hyper::Request<B>) {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let Some((given, rest)) = path.strip_prefix(TOKEN_PREFIX).and_then(|path| path.split_once('/')) else {
        return;
    };
    if !token.is(given.as_bytes()) {
        return;
    }
    let Ok(rest) = PathAndQuery::try_from(format!("/{rest}")) else { return };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(rest);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(InPath);
    }
}

pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&guard, &request) {
        Some(mut refusal) => {
            // Connections are few: who is refused holds none.
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            refusal
        }
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    protect(headers);
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

fn refusal(guard: &Guard, request: &Request) -> Option<Response> {
    let (headers, path) = (request.headers(), request.uri().path());
    let refuse = |why: &str| Some(error(StatusCode::FORBIDDEN, why));
    if !is_own_host(headers) {
        return refuse("this address answers to its own name only: open it as http://127.0.0.1:PORT");
    }
    if is_foreign(headers) {
        return refuse("pages of other sites may not use this server");
    }
    let in_header = headers.get(TOKEN_HEADER).is_some_and(|given| guard.token.is(given.as_bytes()));
    if in_header || request.extensions().get::<InPath>().is_some() {
        return None;
    }
    if path.strip_prefix(TOKEN_PREFIX).is_some_and(|given| guard.token.is(given.as_bytes())) {
        // Relative addresses on the page need the last slash.
        let there = format!("{path}/");
        return Some((StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, there)]).into_response());
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if guard.is_open || !reads || path.starts_with("/api/v1/desk") || path.starts_with(TOKEN_PREFIX) {
        return refuse(
            "the token of this node is missing or old: open the page by the address that caudal printed when it started",
        );
    }
    None
}

/// The Host header names this machine by number or as localhost: a name that somebody else controls never does.
fn is_own_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    is_address(host)
        || host.strip_prefix("localhost").is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = text("host").map(|host| format!("http://{host}"));
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("?"));
    let other_origin = origin.is_some_and(|origin| Some(origin) != own.as_deref());
    let cross_site = text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    other_origin || cross_site
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_this_machine_by_number_is_its_own_host() {
        for (host, own) in [
            ("127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("localhost", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:80", false),
        ] {
            assert_eq!(is_own_host(&headers(&[("host", host)])), own, "{host}");
        }
        assert!(!is_own_host(&HeaderMap::new()));
    }

    #[test]
    fn other_origins_are_foreign() {
        let host = ("host", "127.0.0.1:1");
        assert!(!is_foreign(&headers(&[host])));
        assert!(!is_foreign(&headers(&[
            host,
            ("origin", "http://127.0.0.1:1"),
            ("sec-fetch-site", "same-origin")
        ])));
        assert!(is_foreign(&headers(&[host, ("origin", "http://127.0.0.1:2")])));
        assert!(is_foreign(&headers(&[host, ("origin", "null")])));
        assert!(is_foreign(&headers(&[host, ("sec-fetch-site", "cross-site")])));
    }

    #[test]
    fn the_token_is_needed_for_changes_for_the_desk_and_by_whoever_is_not_on_this_machine() {
        let token = Token::new().unwrap();
        let ask = |is_open: bool, method: &str, path: &str, header: Option<&str>| {
            let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:1");
            if let Some(header) = header {
                request = request.header(TOKEN_HEADER, header);
            }
            let mut request = request.body(axum::body::Body::empty()).unwrap();
            take_token(&token, &mut request);
            let path = request.uri().to_string();
            refusal(&Guard { token: token.clone(), is_open }, &request).map_or(Ok(path), |r| Err(r.status()))
        };
        let (good, refused) = (token.reveal(), Err(StatusCode::FORBIDDEN));
        assert_eq!(ask(false, "GET", "/live.mp4", None), Ok("/live.mp4".to_owned()));
        assert_eq!(ask(true, "GET", "/live.mp4", None), refused);
        assert_eq!(ask(true, "GET", "/", None), refused);
        assert_eq!(ask(true, "GET", "/live.mp4", Some(good)), Ok("/live.mp4".to_owned()));
        assert_eq!(ask(true, "GET", &format!("/t/{good}/hls/a?b=c"), None), Ok("/hls/a?b=c".to_owned()));
        assert_eq!(ask(true, "GET", &format!("/t/{good}"), None), Err(StatusCode::PERMANENT_REDIRECT));
        assert_eq!(ask(false, "GET", "/t/0000/live.mp4", None), refused);
        assert_eq!(ask(false, "POST", "/api/v1/sessions", None), refused);
        assert_eq!(ask(false, "POST", "/api/v1/sessions", Some("0")), refused);
        assert_eq!(ask(false, "POST", "/api/v1/sessions", Some(good)), Ok("/api/v1/sessions".to_owned()));
        assert_eq!(ask(false, "GET", "/api/v1/desk", None), refused);
        assert_eq!(ask(false, "GET", &format!("/t/{good}/api/v1/desk"), None), Ok("/api/v1/desk".to_owned()));
    }
}
