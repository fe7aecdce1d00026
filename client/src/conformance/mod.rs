//! The tests every [`Provider`] must pass (feature `conformance`).
//!
//! They speak to the provider only through its trait, use keys and tags of their own, and wait for conditions, so they
//! run against anything, side by side and as often as one likes:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let provider = std::sync::Arc::new(mcache::MemoryProvider::default());
//! for (name, test) in mcache::conformance::tests() {
//!     println!("{name}");
//!     test(provider.clone()).await;
//! }
//! # });
//! ```
//!
//! # Panics
//!
//! A test that fails panics and says why.

mod scenarios;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Tags,
    provider::{BoxFuture, EntryState, FetchOptions, Lookup, Mode, Provider, Store, Token},
};

/// One test; panics if the provider does not conform.
pub type Test = fn(Arc<dyn Provider>) -> BoxFuture<'static, ()>;

/// How long anything may take that takes no time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(30);

macro_rules! tests {
    ($($(#[$doc:meta])* async fn $name:ident($at:ident) $body:block)+) => {
        /// All tests with their names.
        pub fn tests() -> Vec<(&'static str, Test)> {
            vec![$((stringify!($name), $name as Test)),+]
        }

        $(
            $(#[$doc])*
            fn $name(provider: Arc<dyn Provider>) -> BoxFuture<'static, ()> {
                Box::pin(async move {
                    let $at = Bench::new(provider, stringify!($name));
                    $body
                })
            }
        )+
    };
}

/// A provider, and names that no other test uses.
#[derive(Clone)]
struct Bench {
    provider: Arc<dyn Provider>,
    scope: String,
}

/// How to keep an entry.
struct Keep<'a> {
    ttl: Option<Duration>,
    swr: Duration,
    manual: bool,
    token: Option<&'a Token>,
}

impl Default for Keep<'_> {
    fn default() -> Self {
        Self {
            ttl: Some(LONG),
            swr: Duration::ZERO,
            manual: false,
            token: None,
        }
    }
}

impl Keep<'static> {
    fn manual() -> Self {
        Self {
            manual: true,
            ..Self::default()
        }
    }
}

impl Bench {
    fn new(provider: Arc<dyn Provider>, test: &str) -> Self {
        Self {
            provider,
            scope: format!("{test}-{:016x}", fastrand::u64(..)),
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{}:{name}", self.scope)
    }

    fn tags(&self, tags: &[&str]) -> Tags {
        tags.iter().map(|tag| self.name(tag)).collect()
    }

    async fn store(&self, key: &str, value: &str, tags: &[&str]) -> bool {
        self.store_as(key, value, tags, Keep::default()).await
    }

    async fn fill(&self, key: &str, value: &str, tags: &[&str], token: &Token) -> bool {
        let keep = Keep {
            token: Some(token),
            ..Keep::default()
        };
        self.store_as(key, value, tags, keep).await
    }

    async fn store_as(&self, key: &str, value: &str, tags: &[&str], keep: Keep<'_>) -> bool {
        let key = self.name(key);
        let entry = Store {
            key: key.as_bytes(),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ttl: keep.ttl,
            swr: keep.swr,
            tags: &self.tags(tags),
            manual: keep.manual,
            token: keep.token,
        };
        self.provider.store(entry).await.expect("store")
    }

    async fn get(&self, key: &str) -> Option<String> {
        let value = self
            .provider
            .get(self.name(key).as_bytes())
            .await
            .expect("get");
        value.map(|value| String::from_utf8(value.to_vec()).expect("the tests store text"))
    }

    async fn gone(&self, key: &str) {
        let asked = Instant::now();
        while self.get(key).await.is_some() {
            assert!(asked.elapsed() < PATIENCE, "`{key}` is still served");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn fetch(&self, key: &str) -> Lookup {
        self.fetch_with(key, FetchOptions::default()).await
    }

    async fn fetch_with(&self, key: &str, options: FetchOptions) -> Lookup {
        let lookup = self
            .provider
            .fetch(self.name(key).as_bytes(), options)
            .await;
        lookup.expect("fetch")
    }

    /// Waits in the background.
    fn waiting(&self, key: &str, wait: Duration) -> tokio::task::JoinHandle<Lookup> {
        let (bench, key) = (self.clone(), key.to_owned());
        tokio::spawn(async move {
            let options = FetchOptions {
                wait,
                ..FetchOptions::default()
            };
            bench.fetch_with(&key, options).await
        })
    }

    async fn miss(&self, key: &str) -> Token {
        match self.fetch(key).await {
            Lookup::Miss { token } => token,
            other => panic!("expected a miss of `{key}`, got {other:?}"),
        }
    }

    async fn token(&self, key: &str) -> Token {
        self.provider
            .token(self.name(key).as_bytes())
            .await
            .expect("token")
    }

    async fn release(&self, key: &str, token: &Token) -> bool {
        let key = self.name(key);
        self.provider
            .release(key.as_bytes(), token)
            .await
            .expect("release")
    }

    async fn invalidate(&self, tags: &[&str], mode: Mode) -> u64 {
        let tags = self.tags(tags);
        self.provider
            .invalidate(&tags, mode)
            .await
            .expect("invalidate")
    }

    /// Invalidates, and compares the number of entries if the provider knows it.
    async fn invalidates(&self, tags: &[&str], mode: Mode, entries: u64) {
        let found = self.invalidate(tags, mode).await;
        let expected = if self.provider.counts_invalidated() {
            entries
        } else {
            0
        };
        assert_eq!(found, expected, "entries with any of {tags:?}");
    }
}

/// Waiting callers have to be waiting before they can be woken; there is no way to see that from outside.
async fn let_them_wait() {
    sleep(Duration::from_millis(50)).await;
}

fn hit(value: &str) -> Lookup {
    Lookup::Hit(Bytes::copy_from_slice(value.as_bytes()))
}

tests! {
    async fn it_can_be_reached(at) {
        at.provider.ping().await.expect("ping");
    }

    /// The same in every language.
    async fn the_cases_for_every_client(at) {
        scenarios::run(&at.provider, &at.scope).await;
    }

    async fn what_is_stored_is_read_and_what_is_not_is_missing(at) {
        assert_eq!(at.get("a").await, None);
        assert!(at.store("a", "1", &["t"]).await);
        assert!(at.store("c", "", &[]).await);
        assert_eq!(at.get("a").await.as_deref(), Some("1"));
        let keys = ["c", "b", "a", "a"].map(|key| Bytes::from(at.name(key)));
        let found = at.provider.get_many(&keys).await.expect("get_many");
        let one = Some(Bytes::from_static(b"1"));
        assert_eq!(found, [Some(Bytes::new()), None, one.clone(), one]);
        assert_eq!(at.provider.get_many(&[]).await.expect("get_many of nothing"), []);
    }

    async fn an_overwrite_replaces_value_and_tags(at) {
        at.store("k", "1", &["old", "both"]).await;
        at.store("k", "2", &["new", "both"]).await;
        at.invalidates(&["old"], Mode::Hard, 0).await;
        assert_eq!(at.get("k").await.as_deref(), Some("2"));
        at.invalidates(&["new"], Mode::Hard, 1).await;
        assert_eq!(at.get("k").await, None);
    }

    async fn an_entry_expires_unless_it_has_no_expiry(at) {
        at.store_as("short", "1", &[], Keep { ttl: Some(SHORT), ..Keep::default() }).await;
        at.store_as("ever", "1", &[], Keep { ttl: None, ..Keep::default() }).await;
        at.gone("short").await;
        assert_eq!(at.get("ever").await.as_deref(), Some("1"));
        let ever = at.name("ever");
        let found = at.provider.inspect(ever.as_bytes()).await.expect("inspect");
        assert_eq!(found.expect("it is there").ttl, None);
    }

    async fn an_invalidation_hits_every_entry_with_any_of_its_tags_once(at) {
        at.store("a", "1", &["x"]).await;
        at.store("b", "1", &["x", "y"]).await;
        at.store("c", "1", &["z"]).await;
        at.invalidates(&["unknown"], Mode::Hard, 0).await;
        at.invalidates(&["x", "y", "unknown", "x"], Mode::Hard, 2).await;
        assert_eq!(at.get("a").await, None);
        assert_eq!(at.get("b").await, None);
        assert_eq!(at.get("c").await.as_deref(), Some("1"));
        at.invalidates(&["x", "y"], Mode::Hard, 0).await;
    }

    async fn a_key_can_be_stored_again_after_its_tag_was_invalidated(at) {
        at.store("k", "1", &["t"]).await;
        at.invalidate(&["t"], Mode::Hard).await;
        at.store("k", "2", &["t"]).await;
        assert_eq!(at.get("k").await.as_deref(), Some("2"));
    }

    async fn automatic_invalidation_spares_manual_entries(at) {
        at.store("auto", "1", &["t"]).await;
        at.store_as("manual", "1", &["t"], Keep::manual()).await;
        at.invalidates(&["t"], Mode::Auto, 1).await;
        assert_eq!(at.get("auto").await, None);
        assert_eq!(at.get("manual").await.as_deref(), Some("1"));
        at.invalidates(&["t"], Mode::Hard, 1).await;
        assert_eq!(at.get("manual").await, None);
    }

    async fn a_fill_that_began_before_an_invalidation_of_its_tag_is_refused(at) {
        let token = at.token("k").await;
        at.invalidates(&["t"], Mode::Hard, 0).await;
        assert!(!at.fill("k", "old", &["t"], &token).await, "nothing carried the tag, and still");
        assert_eq!(at.get("k").await, None);
        assert!(at.fill("k", "other", &["u"], &token).await, "a tag that was not invalidated");
        let token = at.token("k").await;
        assert!(at.fill("k", "new", &["t"], &token).await);
        assert_eq!(at.get("k").await.as_deref(), Some("new"));
    }

    async fn a_refused_fill_leaves_what_was_there(at) {
        let token = at.token("k").await;
        at.invalidate(&["t"], Mode::Hard).await;
        at.store("k", "newer", &["t"]).await;
        assert!(!at.fill("k", "old", &["t"], &token).await);
        assert_eq!(at.get("k").await.as_deref(), Some("newer"));
    }

    async fn the_fill_of_a_manual_entry_is_not_refused_by_automatic_invalidation(at) {
        let token = at.token("k").await;
        at.invalidate(&["t"], Mode::Auto).await;
        assert!(!at.fill("k", "1", &["t"], &token).await);
        let keep = Keep { token: Some(&token), ..Keep::manual() };
        assert!(at.store_as("k", "1", &["t"], keep).await);
    }

    async fn a_token_from_elsewhere_is_not_accepted(at) {
        for foreign in ["ffffffffffffffff0000000000000001", "not a token", ""] {
            let token = Token::new(foreign);
            let key = at.name("k");
            let entry = Store {
                key: key.as_bytes(),
                value: Bytes::from_static(b"1"),
                ttl: None,
                swr: Duration::ZERO,
                tags: &at.tags(&["t"]),
                manual: false,
                token: Some(&token),
            };
            let stored = at.provider.store(entry).await;
            assert!(!matches!(stored, Ok(true)), "accepted `{foreign}`");
        }
        assert_eq!(at.get("k").await, None);
    }

    async fn clear_removes_one_entry_whatever_its_options(at) {
        at.store_as("k", "1", &["t"], Keep::manual()).await;
        at.store("other", "1", &["t"]).await;
        let key = at.name("k");
        assert!(at.provider.clear(key.as_bytes()).await.expect("clear"));
        assert!(!at.provider.clear(key.as_bytes()).await.expect("clear"));
        assert_eq!(at.get("k").await, None);
        at.invalidates(&["t"], Mode::Hard, 1).await;
    }

    async fn inspect_tells_what_is_known(at) {
        let key = at.name("k");
        let inspect = || async { at.provider.inspect(key.as_bytes()).await.expect("inspect") };
        assert_eq!(inspect().await, None);
        at.store_as("k", "12345", &["b", "a", "b"], Keep::manual()).await;
        let found = inspect().await.expect("it is there");
        assert_eq!(found.state, EntryState::Live);
        assert_eq!((found.manual, found.reason), (true, None));
        assert!(found.bytes >= 5, "{} bytes", found.bytes);
        let ttl = found.ttl.expect("it expires");
        assert!(ttl <= LONG && ttl > LONG / 2, "{ttl:?}");
        assert!(found.age < PATIENCE);
        let mut tags = found.tags;
        tags.sort();
        assert_eq!(tags, [at.name("a"), at.name("b")], "each tag once");
    }

    async fn keys_tags_and_values_are_any_bytes(at) {
        let mut key = at.name("\0\r\n ").into_bytes();
        key.push(0xFF);
        let tags = Tags::from_iter([[at.scope.as_bytes(), b"\0\xFFAUTO TAGS\r\n"].concat()]);
        let value: Vec<u8> = (0..=255).collect();
        let entry = Store {
            key: &key,
            value: value.clone().into(),
            ttl: None,
            swr: Duration::ZERO,
            tags: &tags,
            manual: false,
            token: None,
        };
        assert!(at.provider.store(entry).await.expect("store"));
        let found = at.provider.get(&key).await.expect("get");
        assert_eq!(found.as_deref(), Some(&value[..]));
        let met = at.provider.invalidate(&tags, Mode::Hard).await.expect("invalidate");
        assert_eq!(met, u64::from(at.provider.counts_invalidated()));
        assert_eq!(at.provider.get(&key).await.expect("get"), None);
    }

    async fn large_values_and_many_tags_are_kept(at) {
        let value = "0123456789abcdef".repeat(64 * 1024);
        let names: Vec<String> = (0..675).map(|number| format!("Product:{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(at.store("k", &value, &names).await);
        assert_eq!(at.get("k").await.as_deref(), Some(&value[..]));
        at.invalidates(&["Product:674"], Mode::Hard, 1).await;
        assert_eq!(at.get("k").await, None);
    }

    async fn an_invalidation_may_name_more_tags_than_one_command_carries(at) {
        at.store("first", "1", &["t0"]).await;
        at.store("last", "1", &["t2499"]).await;
        let names: Vec<String> = (0..2500).map(|number| format!("t{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        at.invalidates(&names, Mode::Hard, 2).await;
        assert_eq!(at.get("first").await, None);
        assert_eq!(at.get("last").await, None);
    }

    async fn of_those_who_miss_one_fills_and_the_others_are_told(at) {
        let token = at.miss("k").await;
        assert_eq!(at.fetch("k").await, Lookup::Busy);
        assert!(at.fill("k", "1", &["t"], &token).await);
        assert_eq!(at.fetch("k").await, hit("1"));
    }

    /// A token that was given out while a lease is held does not hold it.
    async fn a_lease_is_given_back_by_its_holders_token_only(at) {
        let before = at.token("k").await;
        let holder = at.miss("k").await;
        for _ in 0..100 {
            let other = at.token("k").await;
            assert!(!at.release("k", &other).await);
        }
        assert!(!at.release("k", &before).await);
        assert!(at.release("k", &holder).await);
    }

    async fn a_released_lease_is_the_next_ones(at) {
        let token = at.miss("k").await;
        assert!(at.release("k", &token).await);
        assert!(!at.release("k", &token).await, "it is not held any more");
        at.miss("k").await;
        assert_eq!(at.fetch("k").await, Lookup::Busy);
    }

    async fn a_lease_ends_by_itself(at) {
        let lease = Some(Duration::from_millis(100));
        let options = FetchOptions { lease, ..FetchOptions::default() };
        let Lookup::Miss { token: slow } = at.fetch_with("k", options).await else {
            panic!("expected a miss");
        };
        let waiter = at.waiting("k", PATIENCE);
        let next = timeout(PATIENCE, waiter).await.expect("woken").expect("waited");
        assert!(matches!(next, Lookup::Miss { .. }), "{next:?}");
        assert!(at.fill("k", "late", &["t"], &slow).await, "late, but nothing was invalidated");
    }

    async fn those_who_wait_get_the_value(at) {
        let token = at.miss("k").await;
        let waiters: Vec<_> = (0..10).map(|_| at.waiting("k", PATIENCE)).collect();
        let_them_wait().await;
        assert!(at.fill("k", "1", &["t"], &token).await);
        for lookup in join_all(waiters).await {
            assert_eq!(lookup.expect("waited"), hit("1"));
        }
    }

    async fn one_of_those_who_wait_takes_over_a_released_lease(at) {
        let token = at.miss("k").await;
        let waiters: Vec<_> = (0..5).map(|_| at.waiting("k", PATIENCE)).collect();
        let_them_wait().await;
        assert!(at.release("k", &token).await);
        let outcomes = join_all(waiters.into_iter().map(|waiter| {
            let at = at.clone();
            async move {
                let lookup = waiter.await.expect("waited");
                if let Lookup::Miss { token } = &lookup {
                    assert!(at.fill("k", "2", &["t"], token).await);
                }
                lookup
            }
        }));
        let outcomes = timeout(PATIENCE, outcomes).await.expect("no caller is stuck");
        let (hits, others): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|lookup| *lookup == hit("2"));
        assert_eq!(hits.len(), 4);
        assert!(matches!(others[..], [Lookup::Miss { .. }]), "{others:?}");
    }

    async fn waiting_ends_when_it_was_said_to_end(at) {
        let _token = at.miss("k").await;
        let began = Instant::now();
        let options = FetchOptions { wait: Duration::from_millis(100), ..FetchOptions::default() };
        assert_eq!(at.fetch_with("k", options).await, Lookup::Busy);
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(99) && waited < PATIENCE, "{waited:?}");
    }

    async fn a_refused_fill_hands_the_lease_on(at) {
        let token = at.miss("k").await;
        at.invalidate(&["t"], Mode::Hard).await;
        assert!(!at.fill("k", "old", &["t"], &token).await);
        assert!(!at.release("k", &token).await, "there is nothing left to give back");
        let next = at.miss("k").await;
        assert!(at.fill("k", "new", &["t"], &next).await);
    }

    async fn a_store_without_a_lease_wakes_those_who_wait_for_one(at) {
        let _token = at.miss("k").await;
        let waiter = at.waiting("k", PATIENCE);
        let_them_wait().await;
        at.store("k", "1", &[]).await;
        assert_eq!(waiter.await.expect("waited"), hit("1"));
    }

    async fn past_its_time_one_refreshes_and_the_others_are_served_stale(at) {
        let keep = Keep { ttl: Some(SHORT), swr: LONG, ..Keep::default() };
        at.store_as("k", "old", &["t"], keep).await;
        at.gone("k").await;
        let stale = Bytes::from_static(b"old");
        let Lookup::Stale { value, token: Some(token) } = at.fetch("k").await else {
            panic!("expected the stale value and the right to refresh it");
        };
        assert_eq!(value, stale);
        let others = Lookup::Stale { value: stale, token: None };
        assert_eq!(at.fetch("k").await, others);
        assert!(at.fill("k", "new", &["t"], &token).await);
        assert_eq!(at.fetch("k").await, hit("new"));
    }

    async fn near_its_end_one_who_asked_for_it_refreshes_early_and_the_others_are_served(at) {
        let ttl = Some(Duration::from_secs(10));
        at.store_as("k", "old", &["t"], Keep { ttl, ..Keep::default() }).await;
        // As if a fill took sixty times as long as the entry has to live: it is due with a chance of 98 %.
        let early = FetchOptions { early: LONG, ..FetchOptions::default() };
        let mut asked = 0;
        let token = loop {
            assert_eq!(at.fetch("k").await, hit("old"), "never for those who did not ask");
            match at.fetch_with("k", early).await {
                Lookup::Early { value, token } if value == "old" => break token,
                other => assert_eq!(other, hit("old")),
            }
            asked += 1;
            assert!(asked < 100, "no caller is told to refresh");
        };
        for _ in 0..20 {
            assert_eq!(at.fetch_with("k", early).await, hit("old"), "one is enough");
        }
        assert!(at.fill("k", "new", &["t"], &token).await);
        assert_eq!(at.fetch("k").await, hit("new"));
    }

    async fn what_never_expires_is_never_refreshed_early(at) {
        at.store_as("k", "1", &["t"], Keep { ttl: None, ..Keep::default() }).await;
        let early = FetchOptions { early: LONG, ..FetchOptions::default() };
        for _ in 0..100 {
            assert_eq!(at.fetch_with("k", early).await, hit("1"));
        }
    }

    async fn a_soft_invalidation_makes_stale_and_a_hard_one_beats_it(at) {
        at.store_as("k", "old", &["t"], Keep { swr: LONG, ..Keep::default() }).await;
        at.invalidates(&["t"], Mode::Soft, 1).await;
        assert_eq!(at.get("k").await, None, "get serves what is live");
        assert!(matches!(at.fetch("k").await, Lookup::Stale { token: Some(_), .. }));
        at.invalidates(&["t"], Mode::Hard, 1).await;
        assert!(matches!(at.fetch("k").await, Lookup::Miss { .. } | Lookup::Busy));
    }

    async fn without_a_stale_window_a_soft_invalidation_is_a_hard_one(at) {
        at.store("k", "old", &["t"]).await;
        at.invalidates(&["t"], Mode::Soft, 1).await;
        at.miss("k").await;
    }

    async fn what_never_expires_has_no_stale_window(at) {
        let keep = Keep { ttl: None, swr: LONG, ..Keep::default() };
        at.store_as("k", "old", &["t"], keep).await;
        at.invalidates(&["t"], Mode::Soft, 1).await;
        at.miss("k").await;
    }

    async fn a_soft_automatic_invalidation_spares_manual_entries(at) {
        at.store_as("k", "1", &["t"], Keep { swr: LONG, ..Keep::manual() }).await;
        at.invalidates(&["t"], Mode::AutoSoft, 0).await;
        assert_eq!(at.get("k").await.as_deref(), Some("1"));
    }
}
