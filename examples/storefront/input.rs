//! What comes from outside, checked before a handler sees it.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// PostgreSQL's text cannot hold this character, written plainly or as JSON writes it.
const NUL: [&[u8]; 2] = [b"\0", b"\\u0000"];

/// A JSON body, its errors told in our words.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/json"));
        if !is_json {
            return Err(ApiError::MediaType);
        }
        let limit = request
            .extensions()
            .get::<BodyLimit>()
            .map_or(0, |limit| limit.0);
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status().as_u16() {
                    413 => ApiError::TooLarge(limit),
                    _ => ApiError::Invalid("the body ended early".to_owned()),
                })?;
        refuse_nul(&bytes)?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::Invalid(format!("body: {error}")))
    }
}

/// What [`Body`] says when it is exceeded.
#[derive(Clone, Copy)]
pub struct BodyLimit(pub usize);

/// The query string, its errors told in our words.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| ApiError::Invalid(format!("query: {}", innermost(&error))))
    }
}

/// The innermost cause says what is wrong in a person's words.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => innermost(cause),
        None => error.to_string(),
    }
}

fn refuse_nul(bytes: &[u8]) -> Result<(), ApiError> {
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    match NUL.iter().any(|nul| has(nul)) {
        true => Err(ApiError::Invalid(
            "text must not contain the character U+0000".to_owned(),
        )),
        false => Ok(()),
    }
}

/// A query string or path with that character in it.
pub fn has_nul(uri: &axum::http::Uri) -> bool {
    uri.path_and_query()
        .is_some_and(|text| text.as_str().contains("%00"))
}

/// Text that must say something, and not too much.
pub fn text(name: &str, value: &str, chars_max: usize) -> Result<String, ApiError> {
    let value = value.trim();
    match value.chars().count() {
        0 => Err(ApiError::Invalid(format!("{name} must not be empty"))),
        n if n > chars_max => Err(ApiError::Invalid(format!(
            "{name} has more than {chars_max} characters"
        ))),
        _ => Ok(value.to_owned()),
    }
}

/// A number within limits.
pub fn within(
    name: &str,
    value: i64,
    range: std::ops::RangeInclusive<i64>,
) -> Result<i64, ApiError> {
    match range.contains(&value) {
        true => Ok(value),
        false => Err(ApiError::Invalid(format!(
            "{name} must be from {} to {}, not {value}",
            range.start(),
            range.end()
        ))),
    }
}

/// An e-mail address, as far as that can be told without sending one.
pub fn email(value: &str) -> Result<String, ApiError> {
    let value = text("email", value, 254)?.to_lowercase();
    match value.split_once('@') {
        Some((name, host))
            if !name.is_empty() && host.contains('.') && !value.contains(char::is_whitespace) =>
        {
            Ok(value)
        }
        _ => Err(ApiError::Invalid("email is not an address".to_owned())),
    }
}
