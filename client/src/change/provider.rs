//! The providers of a cache as targets of automatic invalidation.
//!
//! Knows namespaces and providers, and leaves every retry to `delivery.rs`.

use std::sync::Arc;

use super::{BoxError, BoxFuture, InvalidationTarget};
use crate::provider::{Mode, Provider};
use crate::tags::Namespace;
use crate::{Cache, Codec, Tags};

impl<C: Codec> Cache<C> {
    /// Every provider of this cache, to be given to an [`Invalidator`](super::Invalidator).
    ///
    /// Whether caching is on in this process does not matter: others may have it on.
    pub fn invalidation_targets(&self) -> Vec<Arc<dyn InvalidationTarget>> {
        let core = self.core();
        let target = |provider: &Arc<dyn Provider>| -> Arc<dyn InvalidationTarget> {
            Arc::new(ProviderTarget {
                provider: provider.clone(),
                namespace: core.namespace.clone(),
            })
        };
        core.providers
            .iter()
            .map(|attached| target(&attached.provider))
            .collect()
    }
}

/// One provider, within one namespace.
struct ProviderTarget {
    provider: Arc<dyn Provider>,
    namespace: Namespace,
}

impl ProviderTarget {
    async fn invalidate(&self, tags: Tags) -> Result<(), BoxError> {
        self.provider.invalidate(&tags, Mode::Auto).await?;
        Ok(())
    }
}

impl InvalidationTarget for ProviderTarget {
    fn name(&self) -> &str {
        self.provider.id()
    }

    fn invalidate_auto<'a>(&'a self, tags: &'a [&'a [u8]]) -> BoxFuture<'a, Result<(), BoxError>> {
        let tags = self.namespace.qualify_tags(tags);
        Box::pin(self.invalidate(tags))
    }

    fn invalidate_auto_all(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        let everything = Tags::from_iter([self.namespace.everything()]);
        Box::pin(self.invalidate(everything))
    }
}
