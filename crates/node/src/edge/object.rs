//! What never changes, as HTTP serves it: a strong validator, conditional and range requests, caching for ever, and other
//! sites may read it.
//!
//! RFC 9110 (sections 8.8.3, 13 and 14), RFC 9111, RFC 8246 (`immutable`), Fetch (CORS).

use std::convert::Infallible;
use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_range_header::{RangeUnsatisfiableError, parse_range_header};

/// What may be kept for as long as anybody likes.
pub(super) const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// What changes with every part, and what is not there yet.
pub(super) const SHORT: &str = "public, max-age=1";

/// Something that never changes under its address.
#[derive(Debug)]
pub(super) struct Object {
    /// In pieces, which are shared.
    pub(super) pieces: Vec<Bytes>,
    /// Without quotes; it says all that the bytes depend on.
    pub(super) tag: String,
    pub(super) content_type: &'static str,
}

/// An object, or of it what was asked for.
pub(super) fn answer(object: &Object, method: &Method, asked: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", object.tag);
    let mut headers = vec![
        (header::CACHE_CONTROL, FOR_EVER.to_owned()),
        (header::ETAG, tag.clone()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    if text(asked, header::IF_NONE_MATCH).is_some_and(|known| is_among(known, &tag)) {
        return response(StatusCode::NOT_MODIFIED, &headers, Body::empty());
    }
    headers.push((header::CONTENT_TYPE, object.content_type.to_owned()));
    let len: usize = object.pieces.iter().map(Bytes::len).sum();
    // Of another version, or of a date that nobody was told, no part helps.
    let is_same = text(asked, header::IF_RANGE).is_none_or(|known| known == tag);
    let wanted = text(asked, header::RANGE).filter(|_| is_same && method == Method::GET);
    let (status, range) = match wanted.map_or(Wanted::All, |value| read_range(value, len)) {
        Wanted::All => (StatusCode::OK, 0..len),
        Wanted::Some(range) => {
            headers.push((header::CONTENT_RANGE, format!("bytes {}-{}/{len}", range.start, range.end - 1)));
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Wanted::Nothing => {
            let headers = [
                (header::CACHE_CONTROL, "no-store".to_owned()),
                (header::CONTENT_RANGE, format!("bytes */{len}")),
            ];
            return response(StatusCode::RANGE_NOT_SATISFIABLE, &headers, Body::empty());
        }
    };
    headers.push((header::CONTENT_LENGTH, range.len().to_string()));
    if method == Method::HEAD {
        return response(status, &headers, Body::empty());
    }
    let pieces = cut(&object.pieces, range).into_iter().map(Ok::<_, Infallible>);
    response(status, &headers, Body::from_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>())))
}

fn response(status: StatusCode, headers: &[(HeaderName, String)], body: Body) -> Response {
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
    response
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether `known` (If-None-Match) names `tag`; compared weakly, as section 13.1.2 says.
fn is_among(known: &str, tag: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

enum Wanted {
    All,
    Some(Range<usize>),
    Nothing,
}

/// One range is given; of several, and of what is no range of bytes, the whole (section 14.2 leaves that to the server).
fn read_range(value: &str, len: usize) -> Wanted {
    let read = parse_range_header(value).and_then(|ranges| ranges.validate(len as u64));
    match read {
        Ok(ranges) => match ranges[..] {
            [ref one] => Wanted::Some(*one.start() as usize..*one.end() as usize + 1),
            _ => Wanted::All,
        },
        Err(RangeUnsatisfiableError::Unsatisfiable) => Wanted::Nothing,
        Err(_) => Wanted::All,
    }
}

/// The bytes of `range`, in pieces.
fn cut(pieces: &[Bytes], range: Range<usize>) -> Vec<Bytes> {
    let mut at = 0;
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (from, to) = (range.start.max(at), range.end.min(at + piece.len()));
        if from < to {
            out.push(piece.slice(from - at..to - at));
        }
        at += piece.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn ask(method: &Method, asked: &[(HeaderName, &str)]) -> Response {
        let pieces =
            vec![Bytes::from_static(b"0123"), Bytes::from_static(b"45"), Bytes::from_static(b"6789")];
        let object = Object { pieces, tag: "7-1".into(), content_type: "application/octet-stream" };
        let asked = asked.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        answer(&object, method, &asked)
    }

    async fn get(asked: &[(HeaderName, &str)]) -> (u16, String, String) {
        let response = ask(&Method::GET, asked);
        let range = text(response.headers(), header::CONTENT_RANGE).unwrap_or_default().to_owned();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 100).await.unwrap();
        (status, range, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ranges_are_as_the_standard_says() {
        let range = async |value| get(&[(header::RANGE, value)]).await;
        let all = (200, String::new(), "0123456789".to_owned());
        let some = |range: &str, body: &str| (206, format!("bytes {range}/10"), body.to_owned());
        assert_eq!(get(&[]).await, all);
        assert_eq!(range("bytes=0-0").await, some("0-0", "0"));
        assert_eq!(range("bytes=3-6").await, some("3-6", "3456"), "across pieces");
        assert_eq!(range("bytes=8-").await, some("8-9", "89"));
        assert_eq!(range("bytes=-3").await, some("7-9", "789"));
        assert_eq!(range("bytes=5-999").await, some("5-9", "56789"));
        assert_eq!(range("bytes=10-").await, (416, "bytes */10".to_owned(), String::new()));
        for whole in ["bytes=0-1,4-5", "lines=1-2", "bytes=6-3", "bytes=", "bytes=a-b", "bytes 1-2"] {
            assert_eq!(range(whole).await, all, "{whole}");
        }
        let with =
            async |condition| get(&[(header::RANGE, "bytes=3-6"), (header::IF_RANGE, condition)]).await;
        assert_eq!(with("\"7-1\"").await.0, 206);
        assert_eq!(with("\"7-2\"").await, all);
        assert_eq!(with("Wed, 21 Oct 2015 07:28:00 GMT").await, all);
    }

    #[tokio::test]
    async fn who_has_it_is_told_so_and_a_head_has_no_body() {
        for known in ["\"7-1\"", "W/\"7-1\"", "\"a\", \"7-1\"", "*"] {
            let response = ask(&Method::GET, &[(header::IF_NONE_MATCH, known)]);
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(response.headers()[header::ETAG], "\"7-1\"");
        }
        assert_eq!(get(&[(header::IF_NONE_MATCH, "\"7-2\"")]).await.0, 200);
        let head = ask(&Method::HEAD, &[(header::RANGE, "bytes=0-1")]);
        assert_eq!(
            (head.status(), &head.headers()[header::CONTENT_LENGTH]),
            (StatusCode::OK, &"10".parse().unwrap())
        );
        assert_eq!(head.headers()[header::CACHE_CONTROL], FOR_EVER);
        assert!(to_bytes(head.into_body(), 100).await.unwrap().is_empty());
    }
}
