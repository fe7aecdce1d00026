//! Who asks: a shop by its publishable key, the back office by its token.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use mcache_graph::GraphQuery;
use serde::Deserialize;
use serde_json::json;

use crate::error::ApiError;
use crate::reads::Reads;
use crate::store::Store;

const KEY_HEADER: &str = "x-publishable-api-key";

/// A request with a valid publishable key.
pub struct Shop {
    /// What it reads with.
    pub reads: Reads,
    /// The sales channel it sells through.
    pub channel: String,
    /// For what it writes.
    pub store: Arc<Store>,
}

#[derive(Deserialize)]
struct ApiKey {
    sales_channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    id: String,
    is_disabled: bool,
}

impl FromRequestParts<Arc<Store>> for Shop {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, store: &Arc<Store>) -> Result<Self, ApiError> {
        let Ok(reads) = Reads::from_request_parts(parts, store).await;
        let token = parts.headers.get(KEY_HEADER).ok_or(ApiError::Unauthorized(
            "a publishable API key is required in the header x-publishable-api-key",
        ))?;
        let wrong = ApiError::Unauthorized("the publishable API key is not valid");
        let Ok(token) = token.to_str() else {
            return Err(wrong);
        };
        // Asked with each request, so kept; a key that is revoked stops working with the next one.
        let query = GraphQuery::new("api_key")
            .fields(["id", "sales_channels.id", "sales_channels.is_disabled"])
            .filters(json!({ "token": token, "revoked_at": null }));
        let key: ApiKey = reads.first(&query).await?.ok_or(wrong)?;
        let mut channels = key.sales_channels.into_iter();
        let channel =
            channels
                .find(|channel| !channel.is_disabled)
                .ok_or(ApiError::Unauthorized(
                    "the publishable API key has no enabled sales channel",
                ))?;
        Ok(Self {
            reads,
            channel: channel.id,
            store: store.clone(),
        })
    }
}

/// A request with the back office's token.
pub struct BackOffice;

impl FromRequestParts<Arc<Store>> for BackOffice {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, store: &Arc<Store>) -> Result<Self, ApiError> {
        let given = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = given.and_then(|value| value.strip_prefix("Bearer "));
        match token == Some(store.config.admin_token.as_str()) {
            true => Ok(Self),
            false => Err(ApiError::Unauthorized(
                "the back office's bearer token is required",
            )),
        }
    }
}
