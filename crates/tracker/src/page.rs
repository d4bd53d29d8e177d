//! The page for people: files that were embedded when the program was built, and the headers that keep them harmless.
//!
//! A node and a tracker serve the same files. Knows nothing of what the page shows, and reads no disk.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

/// What a page may load and where it may connect: its own server only.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
     media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// The embedded page; empty in a program that was built without it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page {
    /// Paths below `/`, such as `index.html` and `assets/index-1a2b.js`, and their bytes.
    pub files: &'static [(&'static str, &'static [u8])],
    /// Version of the program.
    pub version: &'static str,
    /// Commit that the program was built from.
    pub commit: &'static str,
}

impl Page {
    /// Whether there is a page.
    pub fn is_there(&self) -> bool {
        self.file("index.html").is_some()
    }

    fn file(&self, path: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
    }

    /// The file at `path` (without the first slash), or 404. Hashed assets may be kept for ever, the rest is asked for anew.
    pub fn answer(&self, path: &str) -> Response {
        let path: Cow<'_, str> = if path.is_empty() { "index.html".into() } else { path.into() };
        let Some(bytes) = self.file(&path) else { return StatusCode::NOT_FOUND.into_response() };
        let keep =
            if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-store" };
        let headers = [(header::CONTENT_TYPE, content_type(&path)), (header::CACHE_CONTROL, keep)];
        (headers, bytes).into_response()
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" | "webmanifest" => "application/json",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// Headers for every answer that a browser may see.
pub fn protect(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
}

/// Whether a Host header names its server by an IP address, perhaps with a port: no name that somebody else controls.
pub fn is_address(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.parse::<SocketAddr>().is_ok()
        || host.parse::<IpAddr>().is_ok()
        || bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_files_are_kept_and_the_index_is_not() {
        let page =
            Page { files: &[("index.html", b"<!doctype html>"), ("assets/a-1.js", b"1")], ..Page::default() };
        assert!(page.is_there() && !Page::default().is_there());
        let kept = |path: &str| {
            let answer = page.answer(path);
            let keep = answer.headers()[header::CACHE_CONTROL].to_str().unwrap_or_default().to_owned();
            (answer.status(), keep.contains("immutable"))
        };
        assert_eq!(kept(""), (StatusCode::OK, false));
        assert_eq!(kept("assets/a-1.js"), (StatusCode::OK, true));
        for path in ["assets/../index.html", "assets/b.js", "/index.html", "assets/"] {
            assert_eq!(page.answer(path).status(), StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(Page::default().answer("").status(), StatusCode::NOT_FOUND);
    }
}
