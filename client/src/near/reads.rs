//! Reads and stores that go to the server, and what of them is put away.

use std::sync::Arc;

use bytes::Bytes;

use super::Near;
use super::cache::Asking;
use crate::{
    Result,
    provider::{FetchOptions, Lookup, Provider, Store},
};

impl Near {
    /// As [`Provider::fetch`].
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        key: &[u8],
        options: FetchOptions,
    ) -> Result<Lookup> {
        self.follow();
        let Some(asking) = self.asking(key).await else {
            return self.redis.fetch(key, options).await;
        };
        let position = &asking.asked.position;
        let (lookup, near) = self.redis.fetch_near(key, options, position).await?;
        match (&lookup, near) {
            (Lookup::Hit(bytes), Some(near)) => {
                self.put(&asking, key, bytes, near, options.early);
            }
            (Lookup::Hit(_), None) => self.count_not_kept(),
            _ => {}
        }
        Ok(lookup)
    }

    /// As [`Provider::get`].
    pub(crate) async fn read(self: &Arc<Self>, key: &Bytes) -> Result<Option<Bytes>> {
        let values = self.read_many(std::slice::from_ref(key)).await?;
        Ok(values.into_iter().next().flatten())
    }

    /// As [`Provider::get_many`], each key for itself.
    pub(crate) async fn read_many(self: &Arc<Self>, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        self.follow();
        let mut askings = Vec::with_capacity(keys.len());
        let ask = |node: &_| {
            let asking = self.ask(node)?;
            let position = asking.asked.position.clone();
            let number = askings.len();
            askings.push(asking);
            Some((position, number))
        };
        let found = self.redis.get_many_near(keys, ask).await?;
        let values = keys.iter().zip(found).map(|(key, found)| {
            let found = found?;
            let asking = found.asked.and_then(|number| askings.get(number));
            match (asking, found.near) {
                (Some(asking), Some(near)) => {
                    self.put(asking, key, &found.value, near, Default::default());
                }
                _ => self.count_not_kept(),
            }
            Some(found.value)
        });
        Ok(values.collect())
    }

    /// As [`Provider::store`]. The value is put away only with what the server replied.
    pub(crate) async fn store_through(
        &self,
        entry: Store<'_>,
        fill: std::time::Duration,
    ) -> Result<bool> {
        let Some(asking) = self.asking(entry.key).await else {
            return self.redis.store(entry).await;
        };
        let (key, value) = (entry.key, entry.value.clone());
        let position = &asking.asked.position;
        let (accepted, near) = self.redis.store_near(entry, position).await?;
        match near {
            Some(near) => self.put(&asking, key, &value, near, fill),
            // It replaced what was put away before.
            None if accepted => {
                self.forget_key(key);
                self.count_not_kept();
            }
            None => {}
        }
        Ok(accepted)
    }

    async fn asking(&self, key: &[u8]) -> Option<Asking> {
        let node = self.redis.node_of(key).await.ok()?;
        self.ask(&node)
    }
}

/// For positions that are passed on.
pub(crate) type Position = Arc<[u8]>;

#[cfg(test)]
mod tests;
