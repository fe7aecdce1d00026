//! Servers in trouble: they answer, and not what they are asked. The cache bypasses them, serves nothing old, loses no
//! invalidation, says once what is wrong, counts it, and takes part again when they are well.

#[path = "../../../../client/tests/support/book.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod book;
#[path = "../../../../client/tests/support/log.rs"]
mod log;

mod answers;
mod batches;
mod connections;
mod permissions;
mod settings;

use std::time::Duration;

use harness::{Server, Session, wait::PATIENCE};
use mcache::{Cache, Error, Loaded, NearOptions, Settled, Source, server::RedisOptions};
use tokio::time::{sleep, timeout};

use book::Book;
use log::Log;

/// What a test sees of one cache and of all that it says and counts.
struct Observed {
    cache: Cache,
    log: Log,
    book: Book,
}

fn options() -> RedisOptions {
    RedisOptions::default()
        .command_deadline(Duration::from_millis(300))
        .breaker(3, Duration::from_millis(100))
}

/// A cache on this server.
fn observed(url: &str, test: impl AsyncFnOnce(&Observed)) {
    let build = async || {
        let builder = Cache::builder(url).redis(options()).caching(true);
        builder.build().await.expect("a cache")
    };
    observed_with(build, test);
}

/// In one thread, whose log and metrics are kept.
fn observed_with(build: impl AsyncFnOnce() -> Cache, test: impl AsyncFnOnce(&Observed)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (log, book) = (Log::listen(tracing::Level::WARN), Book::default());
    metrics::with_local_recorder(&book.clone(), || {
        runtime.block_on(async {
            let cache = build().await;
            test(&Observed { cache, log, book }).await;
        });
    });
}

impl Observed {
    /// Reads from a source that has this value; where it came from.
    async fn read(&self, key: &str, value: u32) -> (u32, Source) {
        read(&self.cache, key, value).await
    }

    async fn until_cached(&self) {
        self.until("the cache takes part", async || {
            self.read("probe", 0).await.1 == Source::Hit
        })
        .await;
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let all = async {
            while !condition().await {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            panic!("never: {what}; said: {:#?}", self.log.lines_with(&[]));
        }
    }

    /// Said once, and no more.
    fn said_once(&self, words: &[&str]) {
        let lines = self.log.lines_with(words);
        assert_eq!(
            lines.len(),
            1,
            "{words:?} of {:#?}",
            self.log.lines_with(&[])
        );
    }

    /// How often calls failed and were answered as if nothing were cached.
    fn errors(&self, operation: &str) -> usize {
        let labels = format!("provider=redis,operation={operation}");
        let name = format!("mcache_client_errors_total{{{labels}}}");
        self.book.of(&name).len()
    }

    /// The trouble, from the moment at which it is there to the moment at which it is over. Meanwhile the data changes.
    /// It is said once, in these words.
    async fn endures<T>(
        &self,
        words: &[&str],
        begin: impl AsyncFnOnce() -> T,
        end: impl AsyncFnOnce(T),
    ) {
        self.until_cached().await;
        assert!(
            self.cache
                .key("old")
                .tags(["t"])
                .set(&1)
                .await
                .expect("stored")
        );
        let trouble = begin().await;
        self.until("the server is in trouble", async || {
            self.read("new", 5).await;
            !self.log.lines_with(words).is_empty()
        })
        .await;
        // The data changes: what is in the server is old from now on.
        let invalidation = self.cache.invalidate(["t"]).await.expect("kept");
        for _ in 0..20 {
            assert_eq!(self.read("old", 2).await.0, 2, "nothing old");
            assert_eq!(self.read("new", 5).await.0, 5);
        }
        end(trouble).await;
        let well = std::time::Instant::now();
        let settled = timeout(PATIENCE, invalidation.settled()).await;
        assert_eq!(settled.expect("in time"), Settled::Acknowledged);
        assert_eq!(self.read("old", 2).await.0, 2, "nothing old");
        self.until_cached().await;
        println!(
            "{words:?}: cached {:?} after the server is well",
            well.elapsed()
        );
        assert_eq!(self.read("old", 3).await, (2, Source::Hit), "it is kept");
        self.said_once(words);
        let counted = ["fetch", "token", "get", "store"].map(|name| self.errors(name));
        assert!(counted.iter().sum::<usize>() > 0, "{:?}", self.book.names());
    }
}

async fn read(cache: &Cache, key: &str, value: u32) -> (u32, Source) {
    let load = || async move { Ok::<_, Error>(Loaded::new(value)) };
    let served = cache.key(key).tags(["t"]).load(load).await;
    let served = served.expect("the source answers");
    (served.value, served.source)
}

/// The address of a server for a user who may do all but what these rules take away.
fn url_of_user(server: &Server, rules: &str) -> String {
    let mut redis = server.session();
    redis.ok(&format!("ACL SETUSER shop on >secret ~* +@all {rules}"));
    format!("redis://shop:secret@127.0.0.1:{}", server.port())
}

/// A cache on this server that keeps values near.
async fn near_cache(url: &str) -> Cache {
    let builder = Cache::builder(url).redis(options());
    let near = builder.near(NearOptions::new()).caching(true);
    near.build().await.expect("a cache")
}

/// A command that keeps its connection waiting, in a thread of its own.
fn apart(server: &Server, command: &'static [&'static str]) -> std::thread::JoinHandle<()> {
    let mut session: Session = server.session();
    std::thread::spawn(move || {
        // Ended by the test, with an error.
        let _ = session.try_call(command);
    })
}
