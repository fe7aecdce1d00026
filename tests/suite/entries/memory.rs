//! What an entry and a membership take, told truthfully to Redis, and what happens when there is no more.

use harness::{Server, Session, host, wait};
use redis::Value;

/// The server's memory without what varies by itself: buffers of clients, query buffers, Lua.
fn data_bytes(redis: &mut Session) -> i64 {
    let stats = redis.map("MEMORY STATS").expect("statistics");
    redis::from_redis_value(stats["dataset.bytes"].clone()).expect("bytes")
}

/// Stores `count` entries of a 100-byte value with tags named by `tag`.
fn store(redis: &mut Session, count: usize, tags: usize, tag: impl Fn(usize, usize) -> String) {
    let value = "x".repeat(100);
    for start in (0..count).step_by(500) {
        let mut pipeline = redis::pipe();
        for n in start..(start + 500).min(count) {
            let names: Vec<String> = (0..tags).map(|t| tag(n, t)).collect();
            let word: &[&str] = if tags > 0 { &["TAGS"] } else { &[] };
            pipeline
                .cmd("MCACHE.SET")
                .arg(&[&format!("key:{n:012}"), "0", &value])
                .arg(word)
                .arg(names)
                .ignore();
        }
        pipeline.exec(redis.connection()).expect("fills");
    }
}

/// Bytes an entry takes of the server's memory, everything included.
fn bytes_per_entry(entries: usize, tags: usize, tag: impl Fn(usize, usize) -> String) -> f64 {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("CONFIG SET mcache.max-tags 1000");
    let before = data_bytes(&mut redis);
    let index_before = redis.stat("index_bytes");
    store(&mut redis, entries, tags, &tag);
    let taken = data_bytes(&mut redis) - before;
    let told = redis.stat("payload_bytes") + redis.stat("index_bytes") - index_before;
    // The key object, the table's slot and buffers are Redis' own; all the rest is what INFO says.
    let redis_own = 120 * entries as i64 + 128 * 1024;
    assert!(
        told <= taken && taken <= told + redis_own + told / 8,
        "{entries} entries with {tags} tags take {taken} bytes, INFO mcache says {told}"
    );
    let one: i64 = redis.int("MEMORY USAGE key:000000000000");
    // The tags that it alone carries are counted as well; the index's own spare room is not. Redis 8 keeps key and
    // object in one piece, which the headers that MEMORY USAGE adds do not know of.
    let each = taken as f64 / entries as f64;
    assert!(
        one as f64 > each * 0.75 && (one as f64) < each * 1.25,
        "MEMORY USAGE says {one} for 100 bytes and {tags} tags, of which each takes {each:.0}"
    );
    let full = redis.stat("index_bytes");
    let mut cursor = redis.scan("SCAN {} COUNT 1000");
    cursor.sort();
    cursor.dedup();
    for keys in cursor.chunks(500) {
        let mut command = vec!["UNLINK".to_owned()];
        command.extend_from_slice(keys);
        redis.call(&command);
    }
    let left = redis.stat("index_bytes") - index_before;
    assert!(
        left <= (full - index_before) / 20 + 16 * 1024,
        "{tags} tags: index bytes {index_before} empty, {full} full, {left} more than empty afterwards"
    );
    taken as f64 / entries as f64
}

#[test]
fn bytes_per_entry_and_per_membership() {
    if !host::program().allocator.starts_with("jemalloc") {
        // Another allocator's sizes, and what it keeps back, are not known.
        return host::skip("its allocator is not jemalloc");
    }
    let plain = bytes_per_entry(8_192, 0, |_, _| String::new());
    println!("no tags: {plain:.0} bytes an entry of 100 bytes with a key of 16");
    for (entries, tags) in [(8_192, 3), (8_192, 20), (1_024, 600)] {
        let base = bytes_per_entry(entries, 0, |_, _| String::new());
        let shared = bytes_per_entry(entries, tags, |_, t| format!("Product:list:{t}"));
        let own = bytes_per_entry(entries, tags, |n, t| format!("P:{n:06}:{t:03}"));
        let membership = (shared - base) / tags as f64;
        let own_tag = (own - base) / tags as f64;
        println!(
            "{tags} tags: {shared:.0} bytes an entry, {membership:.1} a shared membership; \
             {own:.0} bytes an entry, {own_tag:.1} a tag of its own (12 bytes of name)"
        );
        // 12 bytes, rounded up to the allocator's sizes; few tags bear the rounding of the whole entry.
        let rounding = if tags < 20 { 24.0 } else { 6.0 };
        assert!(
            membership <= 12.0 + rounding,
            "{membership:.1} bytes a membership"
        );
        assert!(
            own_tag <= 92.0 + rounding,
            "{own_tag:.1} bytes a tag of its own"
        );
    }
}

#[test]
fn memory_commands_know_entries() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok(&format!("MCACHE.SET small 0 {} TAGS t", "x".repeat(100)));
    redis.ok(&format!(
        "MCACHE.SET large 0 {} TAGS t",
        "x".repeat(100_000)
    ));
    let (small, large) = (
        redis.int("MEMORY USAGE small"),
        redis.int("MEMORY USAGE large"),
    );
    assert!((100..600).contains(&small), "{small}");
    assert!((100_000..140_000).contains(&large), "{large}");
    assert_eq!(redis.int("MEMORY USAGE large SAMPLES 0"), large);
    assert_eq!(redis.run("MEMORY USAGE nothing"), Value::Nil);
    // Redis itself asks for the size of a value to decide who frees it: both ways must be sound.
    redis.int("UNLINK large");
    redis.int("DEL small");
    redis.text("MEMORY DOCTOR").expect("an opinion");
    redis.ok("MEMORY PURGE");
    assert_eq!(redis.stat("payload_bytes"), 0);
}

#[test]
fn without_memory_fills_are_refused_and_everything_else_goes_on() {
    let server = Server::builder()
        .set("maxmemory-policy", "noeviction")
        .start();
    let mut redis = server.session();
    for n in 0..100 {
        redis.ok(&format!("MCACHE.SET k{n} 0 v{n} TAGS t own:{n}"));
    }
    let token = redis.token("late");
    redis.ok("CONFIG SET maxmemory 1");
    for line in [
        "MCACHE.SET k1 0 new TAGS other".to_owned(),
        "MCACHE.SET new 0 v".to_owned(),
        format!("MCACHE.SET late 0 v TOKEN {token} TAGS t"),
    ] {
        let refusal = redis.error(&line);
        assert!(refusal.starts_with("OOM "), "{line}: {refusal}");
    }
    assert_eq!(
        redis.text("MCACHE.GET k1").as_deref(),
        Some("v1"),
        "a refused overwrite"
    );
    assert_eq!(redis.entries("own:1"), ["k1"]);
    assert!(
        !redis.tags().contains_key("other"),
        "a refused command changes nothing"
    );
    let (state, value): (String, Option<String>) = {
        let fetched: (String, Option<String>, Option<String>) = redis.typed("MCACHE.FETCH k2");
        (fetched.0, fetched.1)
    };
    assert_eq!((state.as_str(), value.as_deref()), ("hit", Some("v2")));
    assert!(redis.map("MCACHE.INSPECT k3").is_some());
    assert_eq!(redis.entries("t").len(), 100);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS own:1 own:2"), 2);
    assert_eq!(redis.int("UNLINK k3"), 1);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 97);
    wait::until("the dead are freed", || redis.int("DBSIZE") == 0);
    // The refused fill did not pass as the next best thing either.
    redis.ok("CONFIG SET maxmemory 0");
    assert_eq!(
        redis.run(&format!("MCACHE.SET late 0 v TOKEN {token} TAGS t")),
        Value::Nil,
        "its tag was invalidated meanwhile"
    );
}

#[test]
fn tags_count_against_maxmemory() {
    // Tiny values with tags of their own: nearly all of it is index, and Redis must see it to keep within its limit.
    let server = Server::builder()
        .set("maxmemory-policy", "allkeys-lru")
        .start();
    let mut redis = server.session();
    let room = redis.info("memory", "used_memory") + (4 << 20);
    redis.ok(&format!("CONFIG SET maxmemory {room}"));
    for n in 0..6_000 {
        let tags: Vec<String> = (0..20).map(|t| format!("own:{n}:{t}")).collect();
        redis.ok(&format!("MCACHE.SET k{n} 0 v TAGS all {}", tags.join(" ")));
    }
    let evicted = redis.info("stats", "evicted_keys");
    let used = redis.info("memory", "used_memory");
    println!("{evicted} evicted, {} of {room} bytes used", used);
    assert!(evicted > 1_000, "{evicted} evicted");
    assert!(used < room + (1 << 20), "{used} bytes used of {room}");
    redis.ok("CONFIG SET maxmemory 0");
    let entries = redis.stat("entries");
    assert_eq!(redis.stat("memberships"), 21 * entries);
    assert_eq!(redis.stat("tags"), 20 * entries + 1);
}
