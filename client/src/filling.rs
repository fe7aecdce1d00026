//! A fill by hand: begun before the source is read, ended with what was read.

use std::fmt;

use serde::Serialize;

use crate::{Codec, Json, Policy, Result, core::Handle, grant::Grants};

/// A fill begun with [`Entry::begin`](crate::Entry::begin).
///
/// ```
/// # use mcache::{Cache, MemoryProvider};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// // Before the data is read:
/// let filling = cache.key("newest").begin().await?;
/// let ids = vec![7, 8];
/// let filling = filling.tags(ids.iter().map(|id| format!("Product:{id}")));
/// assert!(filling.store(&ids).await?, "nothing changed meanwhile");
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "a fill that stores nothing was begun for nothing"]
pub struct Filling<'c, C = Json> {
    pub(crate) handle: &'c Handle<C>,
    pub(crate) grants: Grants,
    pub(crate) policy: Policy,
}

impl<C: Codec> Filling<'_, C> {
    /// Adds tags, which are often known only now.
    pub fn tags<I>(mut self, tags: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.policy.tags.extend(tags);
        self
    }

    /// Keeps the value. `false`: a provider refused it because a tag was invalidated since the fill began, or none
    /// could be reached when it began, or it is too large.
    ///
    /// # Errors
    ///
    /// As [`Entry::set`](crate::Entry::set).
    pub async fn store<T: Serialize + ?Sized>(self, value: &T) -> Result<bool> {
        let core = &self.handle.core;
        let family = || core.family_of(self.grants.key(), &self.policy);
        let Some(value) = self.handle.try_seal(value, family)? else {
            return Ok(false);
        };
        let terms = self.policy.bare_terms();
        let stored = self.grants.store(value, &terms).await?;
        Ok(stored.accepted > 0 && stored.refused == 0)
    }
}

impl<C> fmt::Debug for Filling<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filling")
            .field("key", self.grants.key())
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
