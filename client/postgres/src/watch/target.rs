//! One Redis as what is told of changes, with the prefix exactly as the clients spell it.

use mcache::change::{BoxError, BoxFuture, InvalidationTarget};
use mcache::provider::Mode;
use mcache::{Provider, RedisProvider, Tags};

/// Entries whose tags begin with a prefix.
pub(crate) struct Prefixed {
    redis: RedisProvider,
    prefix: String,
    everything: String,
}

impl Prefixed {
    /// `everything` is the tag that every entry carries, without the prefix.
    pub(crate) fn new(redis: RedisProvider, prefix: &str, everything: &str) -> Self {
        Self {
            redis,
            prefix: prefix.to_owned(),
            everything: format!("{prefix}{everything}"),
        }
    }

    async fn invalidate(&self, tags: Tags) -> Result<(), BoxError> {
        let cleared = self.redis.invalidate(&tags, Mode::Auto).await?;
        tracing::debug!(tags = tags.len(), cleared, "invalidated");
        Ok(())
    }
}

impl InvalidationTarget for Prefixed {
    fn name(&self) -> &str {
        self.redis.place()
    }

    fn invalidate_auto<'a>(&'a self, tags: &'a [&'a [u8]]) -> BoxFuture<'a, Result<(), BoxError>> {
        let named = tags
            .iter()
            .map(|tag| [self.prefix.as_bytes(), *tag].concat());
        let named: Tags = named.collect();
        Box::pin(self.invalidate(named))
    }

    fn invalidate_auto_all(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(self.invalidate(Tags::from_iter([&self.everything])))
    }
}
