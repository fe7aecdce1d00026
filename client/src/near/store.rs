//! The values: a bounded map that many threads read at once and one thread changes at a time.
//!
//! It is a quick_cache; `docs/near.md` says why that one. Readers take no lock but that of a shard.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::Origin;

/// Bytes of an average entry: the map makes room for as many as fit of these.
const USUAL_BYTES: u64 = 1_024;

/// No shard is smaller than this, so that the largest values fit.
const SHARD_BYTES_MIN: u64 = 8 << 20;

/// One value.
pub(crate) struct Held {
    /// As the provider keeps it.
    pub(super) bytes: Bytes,
    /// The decoded value, once a caller has asked for it.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
    pub(super) origin: Arc<Origin>,
    /// When its life ends.
    pub(super) end_ms: u64,
    /// Its number in the index.
    pub(super) id: u32,
    weight: u64,
}

impl Held {
    pub(super) fn new(
        bytes: Bytes,
        origin: Arc<Origin>,
        end_ms: u64,
        id: u32,
        weight: u64,
    ) -> Self {
        Self {
            bytes,
            decoded: OnceLock::new(),
            origin,
            end_ms,
            id,
            weight,
        }
    }

    /// The stored bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The decoded value, shared by all callers that ask for this type. A caller that asks for another type gets its
    /// own value.
    #[inline]
    pub(crate) fn shared<T: Send + Sync + 'static>(
        &self,
        decode: impl FnOnce(&Bytes) -> Option<T>,
    ) -> Option<Arc<T>> {
        if let Some(decoded) = self.decoded.get()
            && let Ok(value) = Arc::clone(decoded).downcast::<T>()
        {
            return Some(value);
        }
        let value = Arc::new(decode(&self.bytes)?);
        // Another caller may have been faster, or asks for another type.
        let _ = self.decoded.set(value.clone());
        Some(value)
    }
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Arc<[u8]>, Arc<Held>> for Weigh {
    fn weight(&self, _: &Arc<[u8]>, held: &Arc<Held>) -> u64 {
        held.weight
    }
}

/// Collects the values that are evicted.
#[derive(Clone)]
struct Collect;

impl Lifecycle<Arc<[u8]>, Arc<Held>> for Collect {
    type RequestState = Vec<Arc<Held>>;

    fn begin_request(&self) -> Vec<Arc<Held>> {
        Vec::new()
    }

    fn on_evict(&self, gone: &mut Vec<Arc<Held>>, _: Arc<[u8]>, held: Arc<Held>) {
        gone.push(held);
    }
}

/// See the module.
pub(super) struct Store(Cache<Arc<[u8]>, Arc<Held>, Weigh, DefaultHashBuilder, Collect>);

impl Store {
    pub(super) fn new(bytes: u64) -> Self {
        let shards = (bytes / SHARD_BYTES_MIN).clamp(1, 64) as usize;
        let options = OptionsBuilder::new()
            .weight_capacity(bytes)
            .estimated_items_capacity((bytes / USUAL_BYTES).max(1) as usize)
            .shards(shards)
            .build();
        // The two options that have no default are set.
        let options = options.expect("complete");
        Self(Cache::with_options(
            options,
            Weigh,
            DefaultHashBuilder::default(),
            Collect,
        ))
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<Held>> {
        self.0.get(key)
    }

    /// As [`get`](Self::get), without counting as a use.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Arc<Held>> {
        self.0.peek(key)
    }

    /// Returns the values that were evicted for it, perhaps the new one itself. The key must not be in the map yet.
    pub(super) fn insert(&self, key: Arc<[u8]>, held: Arc<Held>) -> Vec<Arc<Held>> {
        self.0.insert_with_lifecycle(key, held)
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.0.remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.weight()
    }
}
