//! Replays the recording through the client crate and keeps the score.
//!
//! Owns what is compared and measured. It must not know how it is shown.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use harness::page::Page;
use harness::trace::{Call, Trace};
use mcache::Cache;

/// What happened during a replay.
#[derive(Default)]
pub struct Score {
    /// Reads that were hits.
    pub hits: u64,
    /// Reads that were misses.
    pub misses: u64,
    /// Reads that were the other way in the recording.
    pub differing: u64,
    /// Hits that were not the value stored last.
    pub wrong_values: u64,
    /// Fills.
    pub sets: u64,
    /// Fills the server refused.
    pub refused: u64,
    /// Invalidations.
    pub clears: u64,
    /// Entries these made dead.
    pub entries_invalidated: u64,
    /// JSON bytes of all fills.
    pub json_bytes: u64,
    /// How long each kind of call took, as the application sees it: encoding and decoding included.
    pub hit_times: Times,
    pub miss_times: Times,
    pub set_times: Times,
    pub clear_times: Times,
}

/// Durations of one kind of call.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// The fastest time that `percent` of the calls did not exceed.
    pub fn percentile(&mut self, percent: f64) -> Duration {
        self.0.sort_unstable();
        let at = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0
            .get(at.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    /// How many calls there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The shop: the cache, the recording, and what a cache that does the obvious would hold.
pub struct Shop<'a> {
    cache: &'a Cache,
    trace: &'a Trace,
    expected: HashMap<u32, Fill>,
    score: Score,
}

/// What was stored last for a key, unless a tag of it was invalidated since.
struct Fill {
    number: u32,
    json_bytes: usize,
    tags: HashSet<u32>,
}

impl<'a> Shop<'a> {
    pub fn new(cache: &'a Cache, trace: &'a Trace) -> Self {
        Self {
            cache,
            trace,
            expected: HashMap::new(),
            score: Score::default(),
        }
    }

    /// Replays one call.
    ///
    /// # Errors
    ///
    /// The cache's.
    pub async fn replay(&mut self, call: &Call) -> mcache::Result<()> {
        match call {
            Call::Get { key, hit } => self.get(*key, *hit).await,
            Call::Set {
                key,
                tags,
                json_bytes,
                ttl_s,
                ..
            } => {
                self.set(*key, tags, *json_bytes, Duration::from_secs(*ttl_s))
                    .await
            }
            Call::Clear { tags } => self.clear(tags).await,
        }
    }

    /// What happened so far.
    pub fn score(&mut self) -> &mut Score {
        &mut self.score
    }

    /// Bytes of JSON that live entries stand for.
    pub fn live_json_bytes(&self) -> usize {
        self.expected.values().map(|fill| fill.json_bytes).sum()
    }

    async fn get(&mut self, key: u32, recorded_hit: bool) -> mcache::Result<()> {
        let start = Instant::now();
        let found = self.cache.key(name(key)).get::<Page>().await?;
        let took = start.elapsed();
        match &found {
            Some(page) => {
                self.score.hits += 1;
                self.score.hit_times.0.push(took);
                let right = self
                    .expected
                    .get(&key)
                    .is_some_and(|fill| *page == Page::new(key, fill.number, fill.json_bytes));
                self.score.wrong_values += u64::from(!right);
            }
            None => {
                self.score.misses += 1;
                self.score.miss_times.0.push(took);
            }
        }
        self.score.differing += u64::from(found.is_some() != recorded_hit);
        Ok(())
    }

    async fn set(
        &mut self,
        key: u32,
        tags: &[u32],
        json_bytes: usize,
        ttl: Duration,
    ) -> mcache::Result<()> {
        let number = self.score.sets as u32;
        let page = Page::new(key, number, json_bytes);
        let entry = self
            .cache
            .key(name(key))
            .ttl(ttl)
            .tags(self.trace.names(tags));
        let start = Instant::now();
        let stored = entry.set(&page).await?;
        self.score.set_times.0.push(start.elapsed());
        self.score.sets += 1;
        self.score.json_bytes += json_bytes as u64;
        self.score.refused += u64::from(!stored);
        let fill = Fill {
            number,
            json_bytes,
            tags: tags.iter().copied().collect(),
        };
        self.expected.insert(key, fill);
        Ok(())
    }

    async fn clear(&mut self, tags: &[u32]) -> mcache::Result<()> {
        let start = Instant::now();
        let done = self.cache.invalidate_auto(self.trace.names(tags)).await?;
        self.score.clear_times.0.push(start.elapsed());
        self.score.clears += 1;
        self.score.entries_invalidated += done.entries();
        self.expected
            .retain(|_, fill| tags.iter().all(|tag| !fill.tags.contains(tag)));
        Ok(())
    }
}

fn name(key: u32) -> String {
    format!("query:{key}")
}
