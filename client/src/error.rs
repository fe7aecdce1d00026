//! The one error type of this crate: opaque, with a kind to branch on and predicates for the usual questions.
//!
//! Knows nothing of Redis: providers translate their own errors into these kinds. A loader's error never
//! becomes an [`Error`]; it goes back to the caller in the caller's own type.

use std::{fmt, sync::Arc};

/// The result of this crate's own operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on the cache did not succeed.
///
/// Reads made through [`Entry::get`](crate::Entry::get) and
/// [`Entry::get_or_load`](crate::Entry::get_or_load) never fail because the cache is away: they answer as if
/// nothing were cached. What remains are mistakes in the program or its configuration (a malformed address, an unknown
/// provider, a refused permission) and writes that did not reach the cache.
///
/// Cheap to clone. Its text says everything there is to say: what caused it is part of the text, not a
/// [source](std::error::Error::source), so that a chain of errors does not print it twice.
///
/// ```
/// use mcache::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Refused, "NOPERM this user may not touch the key");
/// assert!(error.is_refused());
/// assert_eq!(error.to_string(), "refused by the cache: NOPERM this user may not touch the key");
/// ```
#[derive(Debug, Clone)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    /// What a server calls it.
    code: Option<Box<str>>,
    message: String,
}

/// What went wrong, for callers that branch on it.
///
/// ```
/// # use mcache::{Cache, ErrorKind, MemoryProvider};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let error = cache.key("k").providers(["another"]).get::<u8>().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::UnknownProvider);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration cannot work: a malformed address, a feature that was not compiled in.
    Config,
    /// A provider was named that this cache does not have.
    UnknownProvider,
    /// The provider did not answer within its deadline.
    Timeout,
    /// The provider cannot be reached, is loading, or is known to be down.
    Unavailable,
    /// The server answers, but does not have the module mcache. It may be restarted with it.
    ModuleMissing,
    /// The provider understood the command and refused it: a permission, a limit, a key of another type.
    Refused,
    /// The provider answered with something that is not an answer to what it was asked.
    Protocol,
    /// A value could not be encoded, or stored bytes could not be decoded.
    Codec,
}

impl ErrorKind {
    /// What the text of an error of this kind begins with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Config => "configuration",
            Self::UnknownProvider => "unknown provider",
            Self::Timeout => "the cache did not answer in time",
            Self::Unavailable => "the cache is not available",
            Self::ModuleMissing => "the server does not have the module mcache",
            Self::Refused => "refused by the cache",
            Self::Protocol => "unexpected answer",
            Self::Codec => "codec",
        }
    }
}

impl Error {
    /// An error of this kind, and what is to be said about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::with_code(kind, None, message)
    }

    /// The same, with the word by which the server that answered so calls it.
    pub(crate) fn with_code(
        kind: ErrorKind,
        code: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            code: code.map(Into::into),
            message: message.into(),
        }))
    }

    /// What the server that answered so calls it: `OOM`, `NOPERM`. `None`: no server did.
    pub(crate) fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The cache could not be reached, did not answer in time or cannot do anything yet. Trying later may succeed.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::ModuleMissing
        )
    }

    /// The answer did not come within the deadline.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == ErrorKind::Timeout
    }

    /// The cache refused the command; trying again unchanged will not help.
    pub fn is_refused(&self) -> bool {
        self.0.kind == ErrorKind::Refused
    }

    /// The value or the stored bytes do not fit the codec.
    pub fn is_codec(&self) -> bool {
        self.0.kind == ErrorKind::Codec
    }

    /// Trying the same again later may succeed. Invalidations are retried for as long as this is true.
    pub fn is_retryable(&self) -> bool {
        self.is_unavailable() || self.0.kind == ErrorKind::Protocol
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, .. } = &*self.0;
        match message.is_empty() {
            true => f.write_str(kind.prefix()),
            false => write!(f, "{}: {message}", kind.prefix()),
        }
    }
}

impl std::error::Error for Error {}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_errors_says_everything_once() {
        let error = Error::new(ErrorKind::Timeout, "500 ms");
        assert_eq!(
            error.to_string(),
            "the cache did not answer in time: 500 ms"
        );
        assert!(std::error::Error::source(&error).is_none());
        assert!(error.clone().is_timeout() && error.is_unavailable() && error.is_retryable());
        assert_eq!(Error::from(ErrorKind::Codec).to_string(), "codec");
    }
}
