//! Section 3: what an entry, a membership and a tag take, and what is left when they are gone.

use harness::trace::{Call, Trace};
use harness::{Server, Session, wait};

use crate::load::{Command, Load};
use crate::results::{Goal, Part};
use crate::shop;

const ENTRIES: usize = 100_000;

pub fn run() {
    let mut part = Part::new(
        "Memory",
        "make bench",
        "Bytes of used_memory per entry over 100,000 entries with keys of 16 B; three tags are one of all, one of a hundredth, one
of its own.",
    );
    println!("{}", part.name);
    entries(&mut part);
    memberships(&mut part);
    expired(&mut part);
    survivors(&mut part);
    recorded_day(&mut part);
    part.write(&Server::start());
}

/// Bytes per entry that a load of [`ENTRIES`] adds to an empty server.
fn bytes_per_entry(server: &Server, load: &Load) -> f64 {
    let mut redis = server.session();
    redis.ok("FLUSHALL");
    let before = settled(&mut redis);
    load.run(&server.socket(), ENTRIES)
        .expect("the server takes the fills");
    (settled(&mut redis) - before) as f64 / ENTRIES as f64
}

/// `used_memory` once two looks agree: buffers of clients that left are freed a moment later.
fn settled(redis: &mut Session) -> i64 {
    let mut last = 0;
    wait::until("used_memory stands still", || {
        std::mem::replace(&mut last, redis.info("memory", "used_memory")) == last
    });
    last
}

fn of_entries(command: impl Fn(usize) -> Vec<Command>) -> Load {
    Load::grouped((0..ENTRIES).map(command), 16)
}

fn entries(part: &mut Part) {
    let server = Server::start();
    let hash = shop::load_lua_set(&mut server.session());
    let set_tags = |n: usize| shop::three_tags(n).map(|tag| format!("set:{tag}"));
    for (bytes, goal) in [(1024, 1500.0), (100, 400.0)] {
        let value = shop::value(bytes);
        let mut row = |what: &str, goal: Goal, load: Load| {
            let each = bytes_per_entry(&server, &load);
            part.add(format!("{what}, {bytes} B: bytes"), "", each, goal);
        };
        row(
            "entry with 3 tags",
            Goal::AtMost(goal),
            of_entries(|n| vec![shop::set(&shop::key("k", n), &value, &shop::three_tags(n))]),
        );
        row(
            "entry without tags",
            Goal::None,
            of_entries(|n| vec![shop::set::<&str>(&shop::key("k", n), &value, &[])]),
        );
        row(
            "plain SET EX, no tags",
            Goal::None,
            of_entries(|n| vec![shop::plain_set(&shop::key("k", n), &value)]),
        );
        row(
            "Lua SET + SADD, 3 tags",
            Goal::None,
            of_entries(|n| {
                vec![shop::lua_set(
                    &hash,
                    &shop::key("k", n),
                    &value,
                    &set_tags(n),
                )]
            }),
        );
        row(
            "HSET + SADD, 3 tags",
            Goal::None,
            of_entries(|n| shop::hash_and_sets(&shop::key("k", n), &value, &set_tags(n))),
        );
    }
}

/// The difference that a tag makes.
fn memberships(part: &mut Part) {
    const SHARED: usize = 10;
    let server = Server::start();
    let value = shop::value(100);
    let bytes = |tags: &dyn Fn(usize) -> Vec<String>| {
        bytes_per_entry(
            &server,
            &of_entries(|n| vec![shop::set(&shop::key("k", n), &value, &tags(n))]),
        )
    };
    let none = bytes(&|_| Vec::new());
    let shared = bytes(&|_| (0..SHARED).map(|t| format!("shared:{t}")).collect());
    part.add(
        "a shared membership: bytes",
        format!("{SHARED} shared tags: {shared:.0}, none: {none:.0}"),
        (shared - none) / SHARED as f64,
        Goal::AtMost(12.0),
    );
    // Sixteen letters, as `Product:prod_...` shortened.
    let unique = bytes(&|n| (0..SHARED).map(|t| format!("Product:{t}{n:07}")).collect());
    part.add(
        "a unique tag of 16 B: bytes",
        format!("{SHARED} unique tags: {unique:.0}, none: {none:.0}"),
        (unique - none) / SHARED as f64,
        Goal::AtMost(80.0),
    );
}

/// What stays of the index when every entry has expired.
fn expired(part: &mut Part) {
    let server = Server::start();
    let mut redis = server.session();
    let fills = (0..ENTRIES).map(|n| {
        let key = shop::key("k", n);
        let tags = shop::three_tags(n);
        Command::new(
            ["MCACHE.SET", &key, "0.5", "v", "TAGS"]
                .into_iter()
                .chain(tags.iter().map(String::as_str)),
        )
    });
    let before = redis.stat("index_bytes");
    Load::new(fills, 16)
        .run(&server.socket(), ENTRIES)
        .expect("the server takes the fills");
    let full = redis.stat("index_bytes");
    wait::until("everything has expired", || redis.int("DBSIZE") == 0);
    let after = redis.stat("index_bytes");
    part.add(
        "index after everything expired / full",
        format!("{before} B empty, {full} B full, {after} B afterwards"),
        (after - before) as f64 / (full - before) as f64,
        Goal::AtMost(0.05),
    );
}

/// What one entry in a thousand keeps of the index when all others have expired.
fn survivors(part: &mut Part) {
    const KEPT: usize = 1_000;
    let server = Server::start();
    let mut redis = server.session();
    let fills = (0..ENTRIES).map(|n| {
        let key = shop::key("k", n);
        let ttl = if n % KEPT == 0 { "600" } else { "0.5" };
        let tags = shop::three_tags(n);
        Command::new(
            ["MCACHE.SET", &key, ttl, "v", "TAGS"]
                .into_iter()
                .chain(tags.iter().map(String::as_str)),
        )
    });
    Load::new(fills, 16)
        .run(&server.socket(), ENTRIES)
        .expect("the server takes the fills");
    let full = redis.stat("index_bytes");
    let left = (ENTRIES / KEPT) as i64;
    wait::until("all others have expired", || redis.int("DBSIZE") == left);
    let last = index_at_rest(&mut redis);
    part.add(
        "index of one entry in 1,000 that outlives the others: bytes each",
        format!("{full} B full, {last} B for {left} entries"),
        last as f64 / left as f64,
        Goal::AtMost(1_024.0),
    );
}

/// Bytes of the index when nothing is left to be given back.
fn index_at_rest(redis: &mut Session) -> i64 {
    let mut last = 0;
    wait::until("the index stands still", || {
        // Redis' timer, ten times a second, begins what is left for later.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = redis.stat("index_bytes");
        std::mem::replace(&mut last, now) == now
    });
    last
}

/// The index beside the data at the end of the recorded day, values as long as the recorded provider stored them.
fn recorded_day(part: &mut Part) {
    let trace = Trace::read(&Trace::recorded()).unwrap_or_else(|e| panic!("{e}"));
    for (what, compressed) in [("as JSON", false), ("compressed as recorded", true)] {
        let server = Server::start();
        let mut redis = server.session();
        let mut fullest = (0, 0);
        for call in trace.calls() {
            match call {
                Call::Get { .. } => {}
                Call::Set {
                    key,
                    tags,
                    json_bytes,
                    stored_bytes,
                    ..
                } => {
                    let bytes = if compressed {
                        *stored_bytes
                    } else {
                        *json_bytes
                    };
                    let (key, value) = (format!("query:{key}"), shop::value(bytes));
                    let head = ["MCACHE.SET", &key, shop::TTL, &value, "TAGS"];
                    redis.call(
                        &head
                            .into_iter()
                            .chain(trace.names(tags))
                            .collect::<Vec<_>>(),
                    );
                }
                Call::Clear { tags } => {
                    let head = ["MCACHE.INVALIDATE", "TAGS"];
                    redis.call(
                        &head
                            .into_iter()
                            .chain(trace.names(tags))
                            .collect::<Vec<_>>(),
                    );
                }
            }
            fullest = fullest.max((redis.stat("payload_bytes"), redis.stat("index_bytes")));
        }
        let (data, index) = (redis.stat("payload_bytes"), index_at_rest(&mut redis));
        part.add(
            format!("recorded day at its end, index / data {what}"),
            format!(
                "{index} B beside {data} B in {} entries with {} tags",
                redis.stat("entries"),
                redis.stat("tags")
            ),
            index as f64 / data as f64,
            if compressed {
                Goal::None
            } else {
                Goal::AtMost(0.15)
            },
        );
        let (data, index) = fullest;
        part.add(
            format!("recorded day at its fullest, index / data {what}"),
            format!("{index} B beside {data} B"),
            index as f64 / data as f64,
            Goal::None,
        );
    }
}
