//! What is invalidated.
//!
//! Owns the contract between the [`Invalidator`](super::Invalidator) and a cache provider. It must not know any
//! provider.

use super::{BoxError, BoxFuture};

/// A cache in which changes make entries dead: one of the providers.
///
/// Both calls spare entries stored as `MANUAL` (`auto_invalidate: false`), and both return `Ok` only when the
/// invalidation was acknowledged by every shard there is. After an error, or when the future was dropped, the caller
/// knows nothing and repeats the call: it must be idempotent.
///
/// ```
/// use mcache::change::{BoxError, BoxFuture, InvalidationTarget};
///
/// /// Says what it is told.
/// struct Log;
///
/// impl InvalidationTarget for Log {
///     fn name(&self) -> &str {
///         "log"
///     }
///
///     fn invalidate_auto<'a>(&'a self, tags: &'a [&'a [u8]]) -> BoxFuture<'a, Result<(), BoxError>> {
///         for tag in tags {
///             println!("{}", tag.escape_ascii());
///         }
///         Box::pin(async { Ok(()) })
///     }
///
///     fn invalidate_auto_all(&self) -> BoxFuture<'_, Result<(), BoxError>> {
///         println!("everything");
///         Box::pin(async { Ok(()) })
///     }
/// }
/// ```
pub trait InvalidationTarget: Send + Sync + 'static {
    /// A name for logs and counters.
    fn name(&self) -> &str;

    /// Makes dead what carries at least one of these tags.
    fn invalidate_auto<'a>(&'a self, tags: &'a [&'a [u8]]) -> BoxFuture<'a, Result<(), BoxError>>;

    /// Makes dead everything in the cache's namespace.
    fn invalidate_auto_all(&self) -> BoxFuture<'_, Result<(), BoxError>>;
}
