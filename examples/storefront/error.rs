//! What a caller is told when something does not work, and what is kept from them.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mcache_graph::GraphError;
use serde_json::json;
use tokio_postgres::error::SqlState;

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request makes no sense: 400.
    #[error("{0}")]
    Invalid(String),
    /// The caller is not known: 401.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// What is asked for does not exist: 404.
    #[error("{what} with id {id} was not found")]
    NotFound {
        /// What it would be.
        what: &'static str,
        /// The id that was given.
        id: String,
    },
    /// The request made sense, but not in the present state of things: 409.
    #[error("{0}")]
    Conflict(String),
    /// The body is too large: 413.
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
    /// The body is not JSON: 415.
    #[error("the body must be JSON: say Content-Type: application/json")]
    MediaType,
    /// There is no such endpoint: 404.
    #[error("there is nothing at this path")]
    NoRoute,
    /// The endpoint does not have this method: 405.
    #[error("this path does not have that method")]
    Method,
    /// The database is away: 503.
    #[error("the store cannot reach its database; try again")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A bug: 500. The caller is not told which.
    #[error("an unknown error occurred")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    /// A bug.
    pub fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(error.into())
    }

    /// Something that a request names and that does not exist.
    pub fn not_found(what: &'static str, id: impl Into<String>) -> Self {
        Self::NotFound {
            what,
            id: id.into(),
        }
    }

    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_data"),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NotFound { .. } | Self::NoRoute => (StatusCode::NOT_FOUND, "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "not_allowed"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_data"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "unknown_error"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind) = self.status();
        if let Self::Unavailable(source) | Self::Internal(source) = &self {
            tracing::error!(error = %source, details = ?source, "a request failed");
        }
        let body = json!({ "type": kind, "message": self.to_string() });
        (status, Json(body)).into_response()
    }
}

impl From<GraphError> for ApiError {
    fn from(error: GraphError) -> Self {
        match error {
            // The queries are the store's own: only values in them come from the caller.
            GraphError::Resolver { .. } => Self::Unavailable(error.into()),
            GraphError::NotFound { .. } => Self::Invalid(error.to_string()),
            _ => Self::internal(error),
        }
    }
}

impl From<deadpool_postgres::PoolError> for ApiError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<tokio_postgres::Error> for ApiError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return Self::Unavailable(error.into());
        };
        match *said.code() {
            SqlState::UNIQUE_VIOLATION => Self::Conflict("this exists already".to_owned()),
            SqlState::FOREIGN_KEY_VIOLATION => {
                Self::Invalid("the request names something that does not exist".to_owned())
            }
            SqlState::CHECK_VIOLATION if said.constraint() == Some("never_oversold") => {
                Self::Conflict("that many are not in stock".to_owned())
            }
            SqlState::CHECK_VIOLATION => Self::Invalid("a value is out of its range".to_owned()),
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => {
                Self::Conflict(
                    "another request changed this at the same time; try again".to_owned(),
                )
            }
            SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
                Self::Unavailable(error.into())
            }
            _ => Self::internal(error),
        }
    }
}
