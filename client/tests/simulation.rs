//! Readers and writers of two processes over a bad network, in virtual time: in any order of events, no reader is
//! served what an invalidation it could know of has made wrong, nothing wrong is left at rest, and no reader is stuck.
//!
//! Each seed is one history. `MCACHE_SEED` replays one, `MCACHE_LONG` runs thirty times as many.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mcache::{
    Bytes, Cache, ErrorKind, Loaded, MemoryProvider, Provider, Result, Settled, Tags,
    provider::{BoxFuture, FetchOptions, Inspection, Lookup, Mode, Store, Token},
};
use tokio::time::{sleep, timeout};

const KEYS: usize = 3;
const READERS_PER_PROCESS: usize = 8;
const WRITERS_PER_PROCESS: usize = 2;
const STEPS: usize = 25;

/// More virtual time than any history needs.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Draws that depend on the seed only: one thread, one clock.
#[derive(Clone)]
struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    fn chance(&self, percent: u32) -> bool {
        self.0.lock().unwrap().u32(..100) < percent
    }

    fn below(&self, bound: usize) -> usize {
        self.0.lock().unwrap().usize(..bound)
    }

    async fn pause(&self, max_ms: usize) {
        let millis = self.below(max_ms + 1) as u64;
        sleep(Duration::from_millis(millis)).await;
    }
}

/// A provider at the far end of a network that delays, loses questions and loses answers.
#[derive(Clone)]
struct Network {
    inner: MemoryProvider,
    dice: Dice,
    /// How many calls of a hundred are lost.
    loss: Arc<AtomicUsize>,
}

impl Network {
    fn carry<'a, T: Send + 'a>(
        &'a self,
        call: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        let lost = || Err(mcache::Error::new(ErrorKind::Unavailable, "lost"));
        Box::pin(async move {
            let loss = self.loss.load(SeqCst) as u32;
            self.dice.pause(5).await;
            if self.dice.chance(loss / 2) {
                return lost();
            }
            let answer = call.await;
            self.dice.pause(5).await;
            match self.dice.chance(loss / 2) {
                true => lost(),
                false => answer,
            }
        })
    }
}

impl Provider for Network {
    fn id(&self) -> &str {
        "network"
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.carry(self.inner.ping())
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.carry(self.inner.get(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>>> {
        self.carry(self.inner.get_many(keys))
    }

    fn fetch<'a>(&'a self, key: &'a [u8], options: FetchOptions) -> BoxFuture<'a, Result<Lookup>> {
        self.carry(self.inner.fetch(key, options))
    }

    fn token<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Token>> {
        self.carry(self.inner.token(key))
    }

    fn store<'a>(&'a self, entry: Store<'a>) -> BoxFuture<'a, Result<bool>> {
        self.carry(self.inner.store(entry))
    }

    fn release<'a>(&'a self, key: &'a [u8], token: &'a Token) -> BoxFuture<'a, Result<bool>> {
        self.carry(self.inner.release(key, token))
    }

    fn clear<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        self.carry(self.inner.clear(key))
    }

    fn invalidate<'a>(&'a self, tags: &'a Tags, mode: Mode) -> BoxFuture<'a, Result<u64>> {
        self.carry(self.inner.invalidate(tags, mode))
    }

    fn inspect<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Inspection>>> {
        self.carry(self.inner.inspect(key))
    }
}

/// A version for each key, and up to which version changes are known to have been invalidated.
#[derive(Default)]
struct Truth {
    versions: [AtomicU64; KEYS],
    /// By acknowledged invalidations: binding for every reader.
    acknowledged: [AtomicU64; KEYS],
}

/// One process: a cache, and what its own invalidations promise its own readers even while they are pending.
struct Process {
    cache: Cache,
    network: Network,
    promised: [AtomicU64; KEYS],
}

#[derive(Clone)]
struct World {
    dice: Dice,
    truth: Arc<Truth>,
    process: Arc<Process>,
    reads: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
}

impl World {
    async fn read(&self) {
        let floors: Vec<u64> = (0..KEYS).map(|key| self.known(key)).collect();
        let read = self.read_somehow();
        // Some callers have no patience.
        let values = match self.dice.chance(15) {
            true => timeout(Duration::from_millis(self.dice.below(20) as u64), read)
                .await
                .unwrap_or_default(),
            false => timeout(PATIENCE, read).await.expect("a reader is stuck"),
        };
        for (key, value) in values {
            let floor = floors[key];
            assert!(
                value >= floor,
                "key {key}: served {value}, but {floor} was known"
            );
            self.reads.fetch_add(1, SeqCst);
        }
    }

    /// The version that readers of this process can know to be invalidated.
    fn known(&self, key: usize) -> u64 {
        let acknowledged = self.truth.acknowledged[key].load(SeqCst);
        acknowledged.max(self.process.promised[key].load(SeqCst))
    }

    /// One key through a loader, one without, or all in a batch; a failed load is the source's affair.
    async fn read_somehow(&self) -> Vec<(usize, u64)> {
        let key = self.dice.below(KEYS);
        match self.dice.below(10) {
            0 => {
                let found = self.process.cache.key(format!("k{key}")).get::<u64>().await;
                found
                    .expect("nothing is refused")
                    .map(|value| (key, value))
                    .into_iter()
                    .collect()
            }
            1 => self.load_all().await,
            _ => self
                .load(key)
                .await
                .map(|value| (key, value))
                .into_iter()
                .collect(),
        }
    }

    async fn load_all(&self) -> Vec<(usize, u64)> {
        let names: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
        let load = |missing: Vec<String>| async move {
            let mut loaded = HashMap::new();
            for name in missing {
                let key: usize = name[1..].parse().expect("a key of ours");
                loaded.insert(name, self.ask_source(key).await?);
            }
            Ok::<_, &'static str>(loaded)
        };
        let values = self
            .process
            .cache
            .keys(names)
            .get_or_load_many(load)
            .await
            .unwrap_or_default();
        let values = values.into_iter();
        values
            .map(|(name, value)| (name[1..].parse().expect("a key of ours"), value))
            .collect()
    }

    async fn load(&self, key: usize) -> std::result::Result<u64, &'static str> {
        let entry = self
            .process
            .cache
            .key(format!("k{key}"))
            .ttl(Duration::from_secs(3600));
        entry.get_or_load_tagged(|| self.ask_source(key)).await
    }

    async fn ask_source(&self, key: usize) -> std::result::Result<Loaded<u64>, &'static str> {
        self.dice.pause(10).await;
        let version = self.truth.versions[key].load(SeqCst);
        self.dice.pause(10).await;
        self.loads.fetch_add(1, SeqCst);
        match self.dice.chance(5) {
            true => Err("the source has a bad day"),
            false => Ok(Loaded::new(version).tags([format!("t{key}")])),
        }
    }

    async fn write(&self) {
        let key = self.dice.below(KEYS);
        let version = self.truth.versions[key].fetch_add(1, SeqCst) + 1;
        let invalidation = self.process.cache.invalidate([format!("t{key}")]).await;
        let invalidation = invalidation.expect("nothing is refused");
        self.process.promised[key].fetch_max(version, SeqCst);
        if invalidation.is_acknowledged() || self.dice.chance(20) {
            let settled = timeout(PATIENCE, invalidation.settled()).await;
            assert_eq!(
                settled.expect("an invalidation is stuck"),
                Settled::Acknowledged
            );
            self.truth.acknowledged[key].fetch_max(version, SeqCst);
        }
    }
}

async fn history(seed: u64) -> (usize, usize) {
    let dice = Dice::new(seed);
    let server = MemoryProvider::default();
    let truth = Arc::new(Truth::default());
    let (reads, loads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut worlds = Vec::new();
    for _ in 0..2 {
        let network = Network {
            inner: server.clone(),
            dice: dice.clone(),
            loss: Arc::default(),
        };
        let cache = Cache::builder_with(network.clone())
            .caching(true)
            .loader_timeout(Duration::from_millis(200));
        worlds.push(World {
            dice: dice.clone(),
            truth: truth.clone(),
            process: Arc::new(Process {
                cache: cache.build().await.expect("a cache"),
                network,
                promised: Default::default(),
            }),
            reads: reads.clone(),
            loads: loads.clone(),
        });
    }
    let over = Arc::new(AtomicBool::new(false));
    let weather = tokio::spawn({
        let (worlds, over) = (worlds.clone(), over.clone());
        async move {
            while !over.load(SeqCst) {
                for world in &worlds {
                    let loss = [0, 0, 0, 20, 100][world.dice.below(5)];
                    world.process.network.loss.store(loss, SeqCst);
                }
                worlds[0].dice.pause(200).await;
            }
        }
    });
    let mut tasks = Vec::new();
    for world in &worlds {
        for number in 0..READERS_PER_PROCESS + WRITERS_PER_PROCESS {
            let world = world.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..STEPS {
                    match number < READERS_PER_PROCESS {
                        true => world.read().await,
                        false => world.write().await,
                    }
                    world.dice.pause(30).await;
                }
            }));
        }
    }
    for task in tasks {
        if let Err(panic) = task.await {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
    over.store(true, SeqCst);
    weather.await.expect("the weather does not panic");
    at_rest(&worlds).await;
    (reads.load(SeqCst), loads.load(SeqCst))
}

/// The weather is good, everything has been told: what is served now is the truth.
async fn at_rest(worlds: &[World]) {
    for world in worlds {
        world.process.network.loss.store(0, SeqCst);
    }
    for world in worlds {
        let settled = async {
            while world.process.cache.pending_invalidations() > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, settled)
            .await
            .expect("invalidations are stuck");
    }
    for world in worlds {
        for key in 0..KEYS {
            let truth = world.truth.versions[key].load(SeqCst);
            let mut served = world.load(key).await;
            while served.is_err() {
                served = world.load(key).await;
            }
            assert_eq!(served, Ok(truth), "key {key} is wrong at rest");
        }
    }
}

#[test]
fn nobody_is_served_what_he_could_know_to_be_wrong() {
    let seeds = match (
        std::env::var("MCACHE_SEED"),
        std::env::var_os("MCACHE_LONG"),
    ) {
        (Ok(seed), _) => {
            let seed = seed.parse().expect("MCACHE_SEED is a number");
            seed..=seed
        }
        (Err(_), Some(_)) => 1..=9_000,
        (Err(_), None) => 1..=300,
    };
    let (mut reads, mut loads, histories) = (0, 0, seeds.clone().count());
    for seed in seeds {
        // The client's own draws, of pauses between retries.
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let run = std::panic::AssertUnwindSafe(|| runtime.block_on(history(seed)));
        match std::panic::catch_unwind(run) {
            Ok((some_reads, some_loads)) => {
                reads += some_reads;
                loads += some_loads;
            }
            Err(panic) => {
                eprintln!("MCACHE_SEED={seed} shows it again");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{histories} histories, {reads} reads, {loads} loads, 0 stale");
    assert!(reads > loads, "a cache that is never hit shows nothing");
}
