//! The keys, values, tags and scripts that every row uses.
//!
//! Owns how plain Redis, mcache and the rivals are told to do the same thing.

use harness::Session;

use crate::load::Command;

/// Keys of the steady loads.
pub const KEYS: usize = 10_000;
/// Seconds; long enough that nothing expires during a run.
pub const TTL: &str = "3600";

/// Sixteen bytes.
pub fn key(kind: &str, number: usize) -> String {
    format!("{kind}:{number:0width$}", width = 15 - kind.len())
}

/// So many bytes that say nothing.
pub fn value(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// One tag of all, one of a hundredth, one of its own.
pub fn three_tags(number: usize) -> [String; 3] {
    [
        "Product:list:*".to_owned(),
        format!("Category:{}", number % 100),
        format!("Product:{number}"),
    ]
}

pub fn plain_get(key: &str) -> Command {
    Command::new(["GET", key])
}

pub fn plain_set(key: &str, value: &str) -> Command {
    Command::new(["SET", key, value, "EX", TTL])
}

pub fn get(key: &str) -> Command {
    Command::new(["MCACHE.GET", key])
}

pub fn fetch(key: &str) -> Command {
    Command::new(["MCACHE.FETCH", key])
}

/// As the Rust client asks.
pub fn fetch_brief(key: &str) -> Command {
    Command::new(["MCACHE.FETCH", key, "30000"])
}

pub fn set<T: AsRef<str>>(key: &str, value: &str, tags: &[T]) -> Command {
    let head = ["MCACHE.SET", key, TTL, value];
    let word = (!tags.is_empty()).then_some("TAGS");
    Command::new(
        head.into_iter()
            .chain(word)
            .chain(tags.iter().map(AsRef::as_ref)),
    )
}

pub fn invalidate(tag: &str) -> Command {
    Command::new(["MCACHE.INVALIDATE", "TAGS", tag])
}

/// The tag cache that people write in Lua: value and index in one atomic step, a set of keys per tag. Done as cheaply
/// as it can be: sets are not cleaned of keys that lost the tag, which is why theirs drift and ours does not.
const LUA_SET: &str = "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) \
    for i = 2, #KEYS do redis.call('SADD', KEYS[i], KEYS[1]) redis.call('EXPIRE', KEYS[i], ARGV[2]) end";

/// Invalidation by the same: everything in one step, or another client could see half of it.
pub const LUA_INVALIDATE: &str = "local keys = redis.call('SMEMBERS', KEYS[1]) \
    for i = 1, #keys, 1000 do redis.call('UNLINK', unpack(keys, i, math.min(i + 999, #keys))) end \
    redis.call('UNLINK', KEYS[1]) return #keys";

/// Loads the Lua rival, returns how it is called.
pub fn load_lua_set(redis: &mut Session) -> String {
    match redis.call(&["SCRIPT", "LOAD", LUA_SET]) {
        redis::Value::BulkString(hash) => String::from_utf8_lossy(&hash).into_owned(),
        other => panic!("SCRIPT LOAD: {other:?}"),
    }
}

pub fn lua_set<T: AsRef<str>>(hash: &str, key: &str, value: &str, tags: &[T]) -> Command {
    let key_count = (tags.len() + 1).to_string();
    let head = ["EVALSHA", hash, &key_count, key];
    Command::new(
        head.into_iter()
            .chain(tags.iter().map(AsRef::as_ref))
            .chain([value, TTL]),
    )
}

/// The pipeline that people send from the client: a hash with value and options, a set per tag, and their ends.
pub fn hash_and_sets<T: AsRef<str>>(key: &str, value: &str, tags: &[T]) -> Vec<Command> {
    let mut commands = vec![
        Command::new(["HSET", key, "data", value, "autoInvalidate", "1"]),
        Command::new(["EXPIRE", key, TTL]),
    ];
    for tag in tags {
        commands.extend(sadd_and_expire(tag.as_ref(), key));
    }
    commands
}

pub fn sadd_and_expire(tag: &str, key: &str) -> [Command; 2] {
    [
        Command::new(["SADD", tag, key]),
        Command::new(["EXPIRE", tag, TTL]),
    ]
}
