//! The caches that are checked: mcache with its module and without, and what teams build by hand on plain Redis.

use std::time::Duration;

use futures_util::FutureExt;
use mcache::{
    Cache, Error, Loaded, NearOptions, PlainRedisProvider, Settled, Source, server::RedisOptions,
};
use redis::AsyncCommands;

use super::store::{Floors, Versions, records_of};

/// How long a loader may keep others waiting: short, so that processes that are stopped outlast it.
pub const LOADER_TIMEOUT: Duration = Duration::from_millis(400);

/// The same for the herd: so long that a busy machine is not taken for a loader that hangs.
pub const HERD_LOADER_TIMEOUT: Duration = Duration::from_secs(3);

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Module,
    /// The same, with a near cache in each process.
    Near,
    /// The provider that needs no module.
    Plain,
    ByHand,
}

impl Kind {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::Module, "module"),
        (Self::Near, "near"),
        (Self::Plain, "plain"),
        (Self::ByHand, "by hand"),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .expect("each has one")
            .1
    }

    pub fn named(name: &str) -> Self {
        Self::NAMES
            .iter()
            .find(|(_, its)| *its == name)
            .expect("a kind")
            .0
    }
}

#[derive(Clone)]
pub enum Caching {
    Mcache(Cache),
    ByHand(redis::aio::MultiplexedConnection),
}

/// What a read came to.
pub struct Read {
    pub value: Versions,
    /// Served by the cache, not loaded by this caller.
    pub cached: bool,
    /// May be as old as softly invalidated values are.
    pub may_be_stale: bool,
}

impl Read {
    /// Whether it may be served to a caller that knew these floors before it asked.
    pub fn is_allowed(&self, floors: Floors) -> bool {
        let floor = if self.may_be_stale {
            floors.stale
        } else {
            floors.live
        };
        self.value.iter().zip(floor).all(|(v, floor)| *v >= floor)
    }
}

pub fn tag(record: usize) -> String {
    format!("Record:{record}")
}

fn name(key: usize) -> String {
    format!("value:{key}")
}

impl Caching {
    pub async fn connect(url: &str, kind: Kind, loader_timeout: Duration) -> Self {
        if kind == Kind::ByHand {
            let client = redis::Client::open(url).expect("an address");
            let connection = client.get_multiplexed_async_connection().await;
            return Self::ByHand(connection.expect("a connection"));
        }
        // The client's own half second, or as long as the herd may wait: a busy machine is no server that hangs.
        let redis = RedisOptions::default()
            .breaker(5, Duration::from_millis(100))
            .command_deadline(loader_timeout.max(Duration::from_millis(500)));
        let builder = match kind {
            Kind::Plain => {
                let provider = PlainRedisProvider::builder(url)
                    .redis(redis)
                    .lease(2 * loader_timeout);
                Cache::builder_with(provider.build().expect("an address"))
            }
            Kind::Near => Cache::builder(url).redis(redis).near(NearOptions::new()),
            _ => Cache::builder(url).redis(redis),
        };
        let cache = builder
            .loader_timeout(loader_timeout)
            .caching(true)
            .build()
            .await;
        Self::Mcache(cache.expect("a cache"))
    }

    /// What the near cache serves of a key at this moment, without waiting for anything.
    pub fn near(&self, key: usize) -> Option<Versions> {
        let Self::Mcache(cache) = self else {
            return None;
        };
        // A near hit is there when it is asked for; anything else has to wait, and is given up.
        let found = cache.key(name(key)).get_arc::<Versions>().now_or_never();
        found
            .and_then(Result::ok)
            .flatten()
            .map(|versions| *versions)
    }

    /// The value of a key, from the cache or from `load`.
    pub async fn read<F, Fut>(&self, key: usize, rng: &mut fastrand::Rng, load: F) -> Read
    where
        F: Fn(usize) -> Fut,
        Fut: Future<Output = Versions>,
    {
        match self {
            Self::Mcache(cache) => read_mcache(cache, key, rng, load).await,
            Self::ByHand(redis) => read_by_hand(redis.clone(), key, load).await,
        }
    }

    /// Clears what was made from a record; true once that is acknowledged.
    pub async fn invalidate(&self, record: usize, soft: bool) -> bool {
        match self {
            Self::Mcache(cache) => {
                let tags = [tag(record)];
                let told = match soft {
                    true => cache.soft_invalidate(tags).await,
                    false => cache.invalidate(tags).await,
                };
                let Ok(told) = told else { return false };
                matches!(told.settled().await, Settled::Acknowledged)
            }
            Self::ByHand(redis) => invalidate_by_hand(redis.clone(), record).await.is_ok(),
        }
    }
}

async fn read_mcache<F, Fut>(cache: &Cache, key: usize, rng: &mut fastrand::Rng, load: F) -> Read
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Versions>,
{
    let tags = records_of(key).map(tag);
    let ttl = Duration::from_millis(rng.u64(50..3_000));
    match rng.u8(..10) {
        0 => {
            // Several at once; what comes back does not say whether it is stale.
            let load_all = |names: Vec<String>| {
                let load = &load;
                async move {
                    let mut found = std::collections::HashMap::new();
                    for name in names {
                        let key = name.trim_start_matches("value:").parse().expect("a key");
                        let tags = records_of(key).map(tag);
                        found.insert(name, Loaded::new(load(key).await).tags(tags));
                    }
                    Ok::<_, Error>(found)
                }
            };
            let others = [
                key,
                (key + 1) % super::store::KEYS,
                (key + 5) % super::store::KEYS,
            ];
            let batch = cache.keys(others.map(name)).ttl(ttl);
            let found = batch
                .get_or_load_many(load_all)
                .await
                .expect("it never fails");
            Read {
                value: found[&name(key)],
                cached: false,
                may_be_stale: true,
            }
        }
        1 => match cache.key(name(key)).get::<Versions>().await {
            Ok(Some(value)) => Read {
                value,
                cached: true,
                may_be_stale: false,
            },
            Ok(None) | Err(_) => Read {
                value: load(key).await,
                cached: false,
                may_be_stale: false,
            },
        },
        kind => {
            let mut entry = cache.key(name(key)).ttl(ttl).tags(tags);
            if kind < 5 {
                entry = entry.swr(Duration::from_millis(rng.u64(50..2_000)));
            }
            if kind == 2 {
                entry = entry.early_refresh(Duration::from_millis(200));
            }
            let load = || async { Ok::<_, Error>(Loaded::new(load(key).await)) };
            let served = entry.load(load).await.expect("it never fails");
            Read {
                value: served.value,
                cached: matches!(served.source, Source::Hit | Source::Near | Source::Stale),
                may_be_stale: served.source == Source::Stale,
            }
        }
    }
}

/// GET; on a miss load, then value and tag sets in one transaction: as careful as it can be done from outside.
async fn read_by_hand<F, Fut>(
    mut redis: redis::aio::MultiplexedConnection,
    key: usize,
    load: F,
) -> Read
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Versions>,
{
    let found: Option<String> = redis.get(name(key)).await.unwrap_or_default();
    if let Some(value) = found.and_then(|text| serde_json::from_str(&text).ok()) {
        return Read {
            value,
            cached: true,
            may_be_stale: false,
        };
    }
    let value = load(key).await;
    let text = serde_json::to_string(&value).expect("numbers");
    let mut store = redis::pipe();
    store.atomic().set_ex(name(key), text, 3_600).ignore();
    for tag in records_of(key).map(tag) {
        store
            .sadd(&tag, name(key))
            .ignore()
            .expire(&tag, 7_200)
            .ignore();
    }
    let _: Result<(), _> = store.query_async(&mut redis).await;
    Read {
        value,
        cached: false,
        may_be_stale: false,
    }
}

async fn invalidate_by_hand(
    mut redis: redis::aio::MultiplexedConnection,
    record: usize,
) -> redis::RedisResult<()> {
    let members: Vec<String> = redis.smembers(tag(record)).await?;
    if !members.is_empty() {
        let mut clear = redis::pipe();
        clear.atomic().del(&members).ignore();
        clear.srem(tag(record), &members).ignore();
        clear.query_async::<()>(&mut redis).await?;
    }
    Ok(())
}
