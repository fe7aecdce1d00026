//! Section 5: what the provider without the module costs a server, beside the module and beside plain GET and SET.
//!
//! All sides run through the client, over one connection with 32 calls under way, so that the server is met by the same
//! traffic; counted is what the server spends.

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use harness::{Server, Session};
use mcache::provider::{FetchOptions, Lookup, Mode, Store};
use mcache::{PlainRedisProvider, Provider, RedisProvider, Tags, server::RedisOptions};
use redis::aio::MultiplexedConnection;
use tokio::runtime::{Builder, Runtime};

use crate::cpu::median;
use crate::results::{Goal, Part};
use crate::shop;

/// Runs of each side, in turns.
const RUNS: usize = 5;
/// Calls under way.
const TOGETHER: usize = 32;
/// Server CPU of one run.
const RUN_US: f64 = 150_000.0;
/// Entries that are read and written.
const ENTRIES: usize = 512;
/// Entries under one tag.
const MANY: usize = 1_000_000;

pub fn run() {
    let mut part = Part::new(
        "Plain",
        "make bench",
        "Microseconds of server CPU per operation by PlainRedisProvider; beside it the module and plain GET, SET EX or UNLINK through
the same client library, 32 calls under way on one connection, medians of 5 runs in turns, on one server with the module loaded. Values of
1 KiB. \"Invalidated since\": tags that the entry does not carry, since it was last read; what that costs itself is taken
off PlainRedisProvider's figure and is part of the module's. Round trips are calls of EVALSHA; the module takes
1 each, an invalidation 1 for 1,000 tags.",
    );
    println!("{}", part.name);
    let server = Server::start();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for tags in [3, 20, 600] {
        operations(&server, &runtime, &mut part, tags);
    }
    memory(&runtime, &mut part);
    under_one_tag(&runtime, &mut part);
    part.write(&server);
}

fn plain(server: &Server) -> PlainRedisProvider {
    let plain = PlainRedisProvider::builder(server.url()).redis(patient());
    plain.namespace("bench").build().expect("an address")
}

/// A busy machine is no server that hangs.
fn patient() -> RedisOptions {
    RedisOptions::default().command_deadline(Duration::from_secs(60))
}

/// So many tags of an entry, one of them of all.
fn tags_of(entry: usize, count: usize) -> Tags {
    let own = (1..count).map(|number| format!("Product:{}", (entry * 37 + number) % 5_000));
    own.chain(["Product:list:*".to_owned()]).collect()
}

fn key(entry: usize) -> String {
    shop::key("e", entry % ENTRIES)
}

async fn store(provider: &dyn Provider, entry: usize, tags: &Tags, value: &str) {
    let key = key(entry);
    let entry = Store::new(key.as_bytes(), value.to_owned(), tags).ttl(Duration::from_secs(3_600));
    assert!(provider.store(entry).await.expect("store"));
}

async fn get(provider: &dyn Provider, entry: usize) {
    let found = provider.get(key(entry).as_bytes()).await;
    assert!(found.expect("get").is_some());
}

/// A fetch that finds nothing, and gives the lease back.
async fn miss(provider: &dyn Provider, number: usize) {
    let key = format!("missing:{number}");
    let found = provider.fetch(key.as_bytes(), FetchOptions::new()).await;
    let Lookup::Miss { token } = found.expect("fetch") else {
        panic!("nothing is there");
    };
    let released = provider.release(key.as_bytes(), &token).await;
    assert!(released.expect("release"));
}

async fn invalidate(provider: &dyn Provider, tags: &Tags) {
    let told = provider.invalidate(tags, Mode::Hard).await;
    told.expect("invalidate");
}

async fn ask(redis: &MultiplexedConnection, cmd: redis::Cmd) {
    let mut redis = redis.clone();
    cmd.exec_async(&mut redis).await.expect("an answer");
}

/// Server CPU per call, and calls of the script per call.
struct Spent {
    us: f64,
    calls: f64,
}

fn cpu_us(session: &mut Session) -> f64 {
    session.cpu_s(Session::CPU) * 1e6
}

fn script_calls(session: &mut Session) -> f64 {
    let [calls] = session.calls(["evalsha"]);
    calls as f64
}

fn measure(server: &Server, runtime: &Runtime, calls: usize, call: &Side<'_>) -> Spent {
    let mut session = server.session();
    let (cpu, scripts) = (cpu_us(&mut session), script_calls(&mut session));
    runtime.block_on(async {
        join_all((0..TOGETHER).map(|lane| async move {
            for number in (lane..calls).step_by(TOGETHER) {
                call(number).await;
            }
        }))
        .await;
    });
    let done = calls as f64;
    Spent {
        us: (cpu_us(&mut session) - cpu) / done,
        calls: (script_calls(&mut session) - scripts) / done,
    }
}

/// One call of a side, by its number.
type Side<'a> = dyn Fn(usize) -> Pin<Box<dyn Future<Output = ()> + 'a>> + 'a;

/// Medians of several sides that take turns.
fn compare(server: &Server, runtime: &Runtime, sides: &[&Side<'_>]) -> Vec<Spent> {
    let calls: Vec<usize> = sides
        .iter()
        .map(|side| {
            let rehearsal = measure(server, runtime, 20 * TOGETHER, *side);
            ((RUN_US / rehearsal.us.max(0.5)) as usize).max(20 * TOGETHER)
        })
        .collect();
    let mut spent: Vec<Vec<Spent>> = sides.iter().map(|_| Vec::new()).collect();
    for run in 0..RUNS {
        for number in 0..sides.len() {
            let side = (number + run) % sides.len();
            spent[side].push(measure(server, runtime, calls[side], sides[side]));
        }
    }
    let middle = |runs: Vec<Spent>| Spent {
        us: median(&mut runs.iter().map(|run| run.us).collect::<Vec<_>>()),
        calls: median(&mut runs.iter().map(|run| run.calls).collect::<Vec<_>>()),
    };
    spent.into_iter().map(middle).collect()
}

/// Rows about entries with so many tags.
struct Table<'a> {
    server: &'a Server,
    runtime: &'a Runtime,
    part: &'a mut Part,
    count: usize,
}

impl Table<'_> {
    /// Ours, the module's and perhaps the plain one; what is taken off ours is no part of what is meant.
    fn row(&mut self, what: &str, sides: &[&Side<'_>], less: f64) -> f64 {
        let spent = compare(self.server, self.runtime, sides);
        let mut beside = format!("module {:.1} us", spent[1].us);
        if let Some(bare) = spent.get(2) {
            beside += &format!(", plain {:.1} us", bare.us);
        }
        beside += &format!("; {:.1} round trips", spent[0].calls);
        let what = format!("{what}, {} tags", self.count);
        self.part.add(what, beside, spent[0].us - less, Goal::None);
        spent[0].us
    }
}

fn operations(server: &Server, runtime: &Runtime, part: &mut Part, count: usize) {
    let plain = plain(server);
    let module = RedisProvider::new(&server.url(), patient()).expect("an address");
    let client = redis::Client::open(server.url()).expect("an address");
    let redis = runtime.block_on(client.get_multiplexed_async_connection());
    let redis = redis.expect("a connection");
    let value = shop::value(1024);
    let tags: Vec<Tags> = (0..ENTRIES).map(|entry| tags_of(entry, count)).collect();
    let foreign: Tags = (0..count).map(|number| format!("Other:{number}")).collect();
    let (plain, module, redis, value) = (&plain, &module, &redis, &value[..]);
    let (tags, foreign) = (&tags, &foreign);
    runtime.block_on(async {
        for (entry, tags) in tags.iter().enumerate() {
            store(plain, entry, tags, value).await;
            store(module, entry, tags, value).await;
        }
    });
    let mut table = Table {
        server,
        runtime,
        part,
        count,
    };
    let command = |words: &[&str]| {
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(*word);
        }
        cmd
    };
    table.row(
        "SET",
        &[
            &|n| Box::pin(store(plain, n, &tags[n % ENTRIES], value)),
            &|n| Box::pin(store(module, n, &tags[n % ENTRIES], value)),
            &|n| {
                Box::pin(ask(
                    redis,
                    command(&["SET", &format!("p{}", key(n)), value, "EX", "3600"]),
                ))
            },
        ],
        0.0,
    );
    table.row(
        "GET hit",
        &[
            &|n| Box::pin(get(plain, n)),
            &|n| Box::pin(get(module, n)),
            &|n| Box::pin(ask(redis, command(&["GET", &format!("p{}", key(n))]))),
        ],
        0.0,
    );
    if count == 3 {
        table.row(
            "FETCH miss and RELEASE",
            &[&|n| Box::pin(miss(plain, n)), &|n| {
                Box::pin(miss(module, n))
            }],
            0.0,
        );
    }
    let each = table.row(
        "INVALIDATE naming that many tags that nothing carries",
        &[
            &|_| Box::pin(invalidate(plain, foreign)),
            &|_| Box::pin(invalidate(module, foreign)),
            &|n| Box::pin(ask(redis, command(&["UNLINK", &format!("none:{n}")]))),
        ],
        0.0,
    );
    let one: &Tags = &Tags::from_iter(["Other:one"]);
    let single = compare(server, runtime, &[&|_| Box::pin(invalidate(plain, one))])[0].us;
    // Between two reads of an entry each of the others is read once, after one invalidation.
    for entries in [TOGETHER, ENTRIES] {
        table.row(
            &format!("GET hit, about {entries} tags invalidated since"),
            &[
                &|n| {
                    Box::pin(async move {
                        invalidate(plain, one).await;
                        get(plain, n % entries).await;
                    })
                },
                &|n| {
                    Box::pin(async move {
                        invalidate(module, one).await;
                        get(module, n % entries).await;
                    })
                },
            ],
            single,
        );
    }
    if count > 3 {
        // More than the ring has: the groups are asked.
        table.row(
            "GET hit, thousands of tags invalidated since",
            &[
                &|n| {
                    Box::pin(async move {
                        invalidate(plain, foreign).await;
                        get(plain, n).await;
                    })
                },
                &|n| {
                    Box::pin(async move {
                        invalidate(module, foreign).await;
                        get(module, n).await;
                    })
                },
            ],
            each,
        );
    }
}

fn used(session: &mut Session) -> f64 {
    session.info("memory", "used_memory") as f64
}

fn memory(runtime: &Runtime, part: &mut Part) {
    const STORED: usize = 20_000;
    for count in [3, 20] {
        let value = shop::value(1024);
        let mut bytes = Vec::new();
        let server = Server::start();
        let plain = plain(&server);
        let module = RedisProvider::new(&server.url(), patient()).expect("an address");
        let providers: [&dyn Provider; 2] = [&plain, &module];
        for provider in providers {
            let mut session = server.session();
            session.ok("FLUSHALL");
            runtime.block_on(async { provider.ping().await.expect("there") });
            let before = used(&mut session);
            runtime.block_on(async {
                for entry in 0..STORED {
                    let (key, tags) = (shop::key("m", entry), tags_of(entry, count));
                    let entry = Store::new(key.as_bytes(), value.clone(), &tags);
                    let entry = entry.ttl(Duration::from_secs(3_600));
                    assert!(provider.store(entry).await.expect("store"));
                }
            });
            bytes.push((used(&mut session) - before) / STORED as f64);
        }
        part.add(
            format!("an entry of 1 KiB with {count} tags: bytes"),
            format!("module {:.0} bytes", bytes[1]),
            bytes[0],
            Goal::None,
        );
    }
}

/// The largest tag there is in any shop, cleared.
fn under_one_tag(runtime: &Runtime, part: &mut Part) {
    let server = Server::builder().without_module().start();
    let plain = plain(&server);
    let shared = Tags::from_iter(["Product:list:*"]);
    let lanes = (0..TOGETHER).map(|lane| {
        let (plain, shared) = (&plain, &shared);
        async move {
            for number in (lane..MANY).step_by(TOGETHER) {
                let key = format!("many:{number}");
                let entry = Store::new(key.as_bytes(), "x", shared);
                let entry = entry.ttl(Duration::from_secs(3_600));
                assert!(plain.store(entry).await.expect("store"));
            }
        }
    });
    runtime.block_on(join_all(lanes));
    let mut session = server.session();
    session.ok("CONFIG RESETSTAT");
    runtime.block_on(async {
        invalidate(&plain, &shared).await;
        assert_eq!(plain.get(b"many:7").await.expect("get"), None);
    });
    let stats = session.text("INFO commandstats").unwrap_or_default();
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:"));
    let us: f64 = line
        .and_then(|line| line.split("usec=").nth(1)?.split(',').next()?.parse().ok())
        .expect("it was called");
    part.add(
        "INVALIDATE of 1,000,000 entries, then a GET of one: us in the script",
        format!(
            "{:.0} MB stay until they are read or expire",
            used(&mut session) / 1e6
        ),
        us,
        Goal::None,
    );
}
