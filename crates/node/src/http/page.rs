//! The page at `/`, or what to do in a program that was built without it.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use caudal_media::hls::MULTIVARIANT_URI;

use super::Served;
use super::token::TOKEN_PREFIX;

pub(super) async fn front(State(served): State<Served>, headers: HeaderMap) -> Response {
    let page = served.shown.page;
    if page.is_there() {
        return page.answer("");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    // Who reads this had the token where it is needed.
    let token =
        if served.is_open { format!("{TOKEN_PREFIX}{}", served.token.reveal()) } else { String::new() };
    let at = format!("http://{host}{token}");
    let text = format!(
        "{}\n\nPlay it:\n  mpv {at}/live.mp4          (least delay)\n  mpv {at}/hls/{MULTIVARIANT_URI}   (LL-HLS: VLC, Safari, hls.js too)\n\nHow it goes:\n  {at}/api/v1/stats\n  {at}/metrics\n\nThis program was built without its page. One that has it: cargo xtask web, then cargo build --release (needs Node.js).\n",
        served.shown.title
    );
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

pub(super) async fn icon(State(served): State<Served>) -> Response {
    served.shown.page.answer("icon.svg")
}

pub(super) async fn asset(State(served): State<Served>, Path(name): Path<String>) -> Response {
    served.shown.page.answer(&format!("assets/{name}"))
}
