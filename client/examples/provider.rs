//! How is another place to keep entries plugged in, here one that counts what it is asked?
//!
//! `cargo run -p mcache --example provider`

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use mcache::{
    Bytes, Cache, Error, MemoryProvider, Provider, Result, Tags,
    provider::{BoxFuture, FetchOptions, Lookup, Mode, Store, Token},
};

#[derive(Clone, Default)]
struct Counting {
    inner: MemoryProvider,
    asked: Arc<AtomicUsize>,
}

/// The tests of `mcache::conformance` (feature `conformance`) tell whether it keeps what a provider promises.
impl Provider for Counting {
    fn id(&self) -> &str {
        "counting"
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.asked.fetch_add(1, Relaxed);
        self.inner.get(key)
    }

    fn fetch<'a>(&'a self, key: &'a [u8], options: FetchOptions) -> BoxFuture<'a, Result<Lookup>> {
        self.asked.fetch_add(1, Relaxed);
        self.inner.fetch(key, options)
    }

    fn token<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Token>> {
        self.inner.token(key)
    }

    fn store<'a>(&'a self, entry: Store<'a>) -> BoxFuture<'a, Result<bool>> {
        self.inner.store(entry)
    }

    fn release<'a>(&'a self, key: &'a [u8], token: &'a Token) -> BoxFuture<'a, Result<bool>> {
        self.inner.release(key, token)
    }

    fn clear<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        self.inner.clear(key)
    }

    fn invalidate<'a>(&'a self, tags: &'a Tags, mode: Mode) -> BoxFuture<'a, Result<u64>> {
        self.inner.invalidate(tags, mode)
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Error> {
    let provider = Counting::default();
    let cache = Cache::builder_with(provider.clone())
        .caching(true)
        .build()
        .await?;
    for _ in 0..3 {
        let load = || async { Ok::<_, Error>("value".to_owned()) };
        cache.key("k").get_or_load(load).await?;
    }
    println!("asked {} times", provider.asked.load(Relaxed));
    Ok(())
}
