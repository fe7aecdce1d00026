//! What the server holds, as it tells itself.
//!
//! Owns the questions to the server. They are asked beside the replay, on a connection of their own.

use harness::Session;

/// INFO's numbers at one moment.
#[derive(Default, Clone)]
pub struct Holdings {
    pub entries: i64,
    pub tags: i64,
    pub memberships: i64,
    pub payload_bytes: i64,
    pub index_bytes: i64,
    /// Before compression, of which the server knows nothing.
    pub json_bytes: i64,
}

impl Holdings {
    pub fn ask(redis: &mut Session, json_bytes: usize) -> Self {
        Self {
            entries: redis.stat("entries"),
            tags: redis.stat("tags"),
            memberships: redis.stat("memberships"),
            payload_bytes: redis.stat("payload_bytes"),
            index_bytes: redis.stat("index_bytes"),
            json_bytes: json_bytes as i64,
        }
    }

    /// Index bytes as a share of the JSON that the entries stand for.
    pub fn index_per_json(&self) -> f64 {
        self.index_bytes as f64 / self.json_bytes.max(1) as f64
    }
}

/// Index and keyspace, counted each by its own commands.
pub struct Comparison {
    /// DBSIZE.
    pub keys: i64,
    /// Entries according to the index.
    pub entries: i64,
    /// Memberships found by asking every tag for its entries.
    pub listed: i64,
    /// Memberships according to the index.
    pub memberships: i64,
    /// The server's own comparison, entry by entry.
    pub self_check: Result<(), String>,
}

impl Comparison {
    /// Reclaims what is pending, then counts.
    pub fn make(redis: &mut Session) -> Self {
        redis.drain();
        let tags = redis.tags();
        let listed = tags
            .keys()
            .map(|tag| {
                let keys: Vec<String> = tagged(redis, tag);
                keys.len() as i64
            })
            .sum();
        Self {
            keys: redis.int("DBSIZE"),
            entries: redis.stat("entries"),
            listed,
            memberships: redis.stat("memberships"),
            self_check: redis.try_run("MCACHE.DEBUG SELFCHECK").map(drop),
        }
    }

    pub fn agrees(&self) -> bool {
        self.self_check.is_ok() && self.keys == self.entries && self.listed == self.memberships
    }
}

fn tagged(redis: &mut Session, tag: &str) -> Vec<String> {
    redis.entries(&harness::line::join(&[tag]))
}
