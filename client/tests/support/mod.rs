//! A provider that can be made to fail, and to tell what it was asked.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mcache::{
    Bytes, Error, ErrorKind, MemoryProvider, Provider, Result, Tags,
    provider::{BoxFuture, FetchOptions, Inspection, Lookup, Mode, Store, Token},
};
use tokio::sync::Notify;

/// How long a call takes that hangs.
const DEADLINE: Duration = Duration::from_millis(500);

/// A memory provider behind a line that can be cut.
#[derive(Clone)]
pub struct Line {
    inner: MemoryProvider,
    state: Arc<LineState>,
}

#[derive(Default)]
struct LineState {
    /// Calls fail.
    cut: AtomicBool,
    /// Stores are refused for good, with this text.
    refusing_stores: Mutex<Option<String>>,
    /// Calls fail after a while.
    hung: AtomicBool,
    /// How long each call takes, in microseconds.
    delay_us: AtomicU64,
    /// Invalidations that name this tag are refused for good.
    forbidden: Mutex<Option<String>>,
    calls: Mutex<Vec<&'static str>>,
    invalidated: Mutex<Vec<(Vec<String>, Mode)>>,
    /// The answer to the next fetch waits for this.
    held: Mutex<Option<Arc<Notify>>>,
    /// Fetches that may wait and have not ended.
    waiting: AtomicUsize,
}

/// One of [`LineState::waiting`].
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[allow(dead_code, reason = "each test binary uses some of it")]
impl Line {
    pub fn new(id: &str) -> Self {
        Self {
            inner: MemoryProvider::builder().id(id).build(),
            state: Arc::default(),
        }
    }

    pub fn cut(&self) {
        self.state.cut.store(true, SeqCst);
    }

    pub fn mend(&self) {
        self.state.cut.store(false, SeqCst);
    }

    pub fn hang(&self) {
        self.state.hung.store(true, SeqCst);
    }

    /// Ends [`hang`](Self::hang).
    pub fn answer(&self) {
        self.state.hung.store(false, SeqCst);
    }

    /// Each call takes so long from now on.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_us.store(delay.as_micros() as u64, SeqCst);
    }

    /// How many callers wait for another caller's fill.
    pub fn waiting(&self) -> usize {
        self.state.waiting.load(SeqCst)
    }

    /// Keeps back the answer to the next fetch until told otherwise.
    pub fn hold_next_answer(&self) -> Arc<Notify> {
        let release = Arc::new(Notify::new());
        *self.state.held.lock().unwrap() = Some(release.clone());
        release
    }

    /// Refuses every store, with this text.
    pub fn refuse_stores(&self, text: &str) {
        *self.state.refusing_stores.lock().unwrap() = Some(text.to_owned());
    }

    pub fn forbid(&self, tag: &str) {
        *self.state.forbidden.lock().unwrap() = Some(tag.to_owned());
    }

    /// The calls since the last time this was asked.
    pub fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.state.calls.lock().unwrap())
    }

    pub fn count(&self, call: &str) -> usize {
        let calls = self.state.calls.lock().unwrap();
        calls.iter().filter(|name| **name == call).count()
    }

    /// Every invalidation that came through: tags, sorted, and mode.
    pub fn invalidated(&self) -> Vec<(Vec<String>, Mode)> {
        self.state.invalidated.lock().unwrap().clone()
    }

    pub fn entries(&self) -> usize {
        self.inner.len()
    }

    fn through<'a, T: Send + 'a>(
        &'a self,
        name: &'static str,
        call: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move {
            self.state.calls.lock().unwrap().push(name);
            if self.state.hung.load(SeqCst) {
                tokio::time::sleep(DEADLINE).await;
                return Err(ErrorKind::Timeout.into());
            }
            let delay_us = self.state.delay_us.load(SeqCst);
            if delay_us > 0 {
                tokio::time::sleep(Duration::from_micros(delay_us)).await;
            }
            match self.state.cut.load(SeqCst) {
                true => Err(Error::new(ErrorKind::Unavailable, "the line is cut")),
                false => call.await,
            }
        })
    }
}

impl Provider for Line {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.through("ping", self.inner.ping())
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.through("get", self.inner.get(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>>> {
        self.through("get_many", self.inner.get_many(keys))
    }

    fn fetch<'a>(&'a self, key: &'a [u8], options: FetchOptions) -> BoxFuture<'a, Result<Lookup>> {
        let held = self.state.held.lock().unwrap().take();
        self.through(
            "fetch",
            Box::pin(async move {
                let waiting = &self.state.waiting;
                let _waits = (!options.wait.is_zero()).then(|| {
                    waiting.fetch_add(1, SeqCst);
                    Waits(waiting)
                });
                let answer = self.inner.fetch(key, options).await;
                if let Some(release) = held {
                    release.notified().await;
                }
                answer
            }),
        )
    }

    fn token<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Token>> {
        self.through("token", self.inner.token(key))
    }

    fn store<'a>(&'a self, entry: Store<'a>) -> BoxFuture<'a, Result<bool>> {
        let refused = self.state.refusing_stores.lock().unwrap().clone();
        self.through(
            "store",
            match refused {
                Some(text) => Box::pin(async move { Err(Error::new(ErrorKind::Refused, text)) }),
                None => self.inner.store(entry),
            },
        )
    }

    fn release<'a>(&'a self, key: &'a [u8], token: &'a Token) -> BoxFuture<'a, Result<bool>> {
        self.through("release", self.inner.release(key, token))
    }

    fn clear<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        self.through("clear", self.inner.clear(key))
    }

    fn invalidate<'a>(&'a self, tags: &'a Tags, mode: Mode) -> BoxFuture<'a, Result<u64>> {
        self.through(
            "invalidate",
            Box::pin(async move {
                let forbidden = self.state.forbidden.lock().unwrap().clone();
                if forbidden.is_some_and(|forbidden| tags.contains(forbidden)) {
                    return Err(Error::new(ErrorKind::Refused, "NOPERM"));
                }
                let mut names: Vec<String> = tags
                    .iter()
                    .map(|tag| String::from_utf8_lossy(tag).into_owned())
                    .collect();
                names.sort();
                self.state.invalidated.lock().unwrap().push((names, mode));
                self.inner.invalidate(tags, mode).await
            }),
        )
    }

    fn inspect<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Inspection>>> {
        self.through("inspect", self.inner.inspect(key))
    }
}
