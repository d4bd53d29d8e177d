//! ALTO errors (RFC 7285, section 8.5) and what HTTP itself refuses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};

use crate::types::media;

/// What a client is told to wait when the server has too much to do, s.
pub(crate) const RETRY_AFTER_S: u64 = 2;

/// A code of section 8.5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Syntax,
    MissingField,
    InvalidFieldType,
    InvalidFieldValue,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "E_SYNTAX",
            Self::MissingField => "E_MISSING_FIELD",
            Self::InvalidFieldType => "E_INVALID_FIELD_TYPE",
            Self::InvalidFieldValue => "E_INVALID_FIELD_VALUE",
        }
    }
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    /// The whole path of the field.
    pub(crate) field: Option<String>,
    /// The value, as text.
    pub(crate) value: Option<String>,
    pub(crate) syntax_error: Option<String>,
}

/// Longest value that is repeated in an error, characters.
const VALUE_CHARS_MAX: usize = 200;

impl Problem {
    pub(crate) fn syntax(why: &str) -> Self {
        Self { code: Code::Syntax, field: None, value: None, syntax_error: Some(why.to_owned()) }
    }

    pub(crate) fn missing(field: String) -> Self {
        Self { code: Code::MissingField, field: Some(field), value: None, syntax_error: None }
    }

    pub(crate) fn wrong_type(field: String) -> Self {
        Self { code: Code::InvalidFieldType, field: Some(field), value: None, syntax_error: None }
    }

    /// A wrong value, told as it was sent; what is no string is made one.
    pub(crate) fn wrong_value(field: String, value: &Value) -> Self {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Self::wrong_text(field, &value)
    }

    pub(crate) fn wrong_text(field: String, value: &str) -> Self {
        let value = value.chars().take(VALUE_CHARS_MAX).collect();
        Self { code: Code::InvalidFieldValue, field: Some(field), value: Some(value), syntax_error: None }
    }

    pub(crate) fn response(self) -> Response {
        let mut meta = Map::new();
        meta.insert("code".to_owned(), self.code.as_str().into());
        let members = [("field", self.field), ("value", self.value), ("syntax-error", self.syntax_error)];
        for (name, text) in members {
            if let Some(text) = text {
                meta.insert(name.to_owned(), text.into());
            }
        }
        let body =
            Value::Object([("meta".to_owned(), Value::Object(meta))].into_iter().collect()).to_string();
        (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, media::ERROR)], body).into_response()
    }
}

/// What HTTP refuses before ALTO has a say: no ALTO code fits, so it is said in words.
pub(crate) fn plain(status: StatusCode, what: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{what}\n")).into_response()
}

/// Too much to do (section 8.5.3).
pub(crate) fn unavailable(what: &str) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, what);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    response
}
