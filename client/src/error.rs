//! The one error type of this crate: opaque, with a kind to branch on and predicates for the usual questions.
//!
//! Knows nothing of Redis: providers translate their own errors into these kinds. A loader's error never
//! becomes an [`Error`]; it goes back to the caller in the caller's own type.

use std::{fmt, time::Duration};

/// The result of this crate's own operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why an operation on the cache did not succeed.
///
/// Reads made through [`Entry::get`](crate::Entry::get) and
/// [`Entry::get_or_load`](crate::Entry::get_or_load) never fail because the cache is away: they answer as if
/// nothing were cached. What remains are mistakes somebody has to correct (a malformed address, an unknown
/// provider, a refused permission) and writes that did not reach the cache.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    source: Option<Source>,
}

/// What went wrong, for callers that branch on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration cannot work: a malformed address, a feature that was not compiled in.
    #[error("configuration: {0}")]
    Config(String),
    /// A provider was named that this cache does not have.
    #[error("there is no provider named `{0}`")]
    UnknownProvider(String),
    /// The provider did not answer within its deadline.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The provider cannot be reached, is loading, or is known to be down.
    #[error("the cache is not available: {0}")]
    Unavailable(String),
    /// The provider understood the command and refused it: a permission, a limit, a key of another type.
    #[error("refused by the cache: {0}")]
    Refused(String),
    /// The provider answered with something that is not an answer to what it was asked.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// A value could not be encoded, or stored bytes could not be decoded.
    #[error("codec: {0}")]
    Codec(String),
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, source: None }))
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The cache could not be reached or did not answer in time. Trying later may succeed.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Timeout(_) | ErrorKind::Unavailable(_)
        )
    }

    /// The answer did not come within the deadline.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout(_))
    }

    /// The cache refused the command; trying again unchanged will not help.
    pub fn is_refused(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Refused(_))
    }

    /// The value or the stored bytes do not fit the codec.
    pub fn is_codec(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Codec(_))
    }

    /// Trying the same again later may succeed. Invalidations are retried for as long as this is true.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Timeout(_) | ErrorKind::Unavailable(_) | ErrorKind::Protocol(_)
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.kind.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}
