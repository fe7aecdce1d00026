//! Values that are shared by their readers: reads of one key that decode nothing where the near cache has it.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Codec, Entry, Result, Served, Source, core::Opened, telemetry};

impl<C: Codec> Entry<'_, C> {
    /// As [`get`](Self::get), shared: what is in the [near cache](crate::Builder::near) is neither decoded again nor
    /// copied, and nothing is allocated for it. Without a near cache it is `get` and an [`Arc`].
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # async fn example(cache: mcache::Cache) -> mcache::Result<()> {
    /// let product: Option<Arc<String>> = cache.key("product:42").get_arc().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_arc<T>(self) -> Result<Option<Arc<T>>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        if let Some(value) = self.near_arc() {
            return Ok(Some(value));
        }
        // Boxed: a hit should not pay for the size of a miss.
        Ok(Box::pin(self.get::<T>()).await?.map(Arc::new))
    }

    /// As [`get_or_load`](Self::get_or_load), shared as in [`get_arc`](Self::get_arc).
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_arc<T, E, F, Fut>(self, loader: F) -> Result<Arc<T>, E>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        if let Some(value) = self.near_arc() {
            return Ok(value);
        }
        Box::pin(self.get_or_load(loader)).await.map(Arc::new)
    }

    /// What the [near cache](crate::Builder::near) of the first provider serves at this moment, shared as in
    /// [`get_arc`](Self::get_arc). Asks no server and waits for nothing. For layers that have their own way of asking
    /// for what is not near.
    pub fn near<T>(&self) -> Option<Served<Arc<T>>>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let value = self.near_arc()?;
        Some(Served {
            value,
            source: Source::Near,
        })
    }

    /// The decoded value that the near cache of the first provider may serve.
    #[inline]
    fn near_arc<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let core = &self.handle.core;
        if !self.policy.targets.is_empty() || self.policy.bypass_near {
            return None;
        }
        let held = core.active().first()?.near_value(self.key.as_slice())?;
        let value = held.shared(|bytes| self.handle.open(bytes).and_then(Opened::value))?;
        telemetry::near_read(self.policy.family_label());
        Some(value)
    }
}
