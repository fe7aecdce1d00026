//! Section 2: a million entries under one tag, invalidated while others read.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Server, Session, wait};

use crate::load::{Command, Load};
use crate::results::{Goal, Part};
use crate::shop;

const ENTRIES: usize = 1_000_000;
const TAG: &str = "all";
/// How long reads are watched on an idle server, for comparison.
const IDLE: Duration = Duration::from_secs(4);

pub fn run() {
    let mut part = Part::new(
        "Large tags",
        "make bench",
        "One tag with 1,000,000 entries of 100 B. The reader sends one GET after the other over its own connection and times
each; idle is the same reader before.",
    );
    println!("{}", part.name);
    let server = Server::start();
    busy(&server, &mut part);
    idle(&server, &mut part);
    lua(&mut part);
    part.write(&server);
}

/// With a reader.
fn busy(server: &Server, part: &mut Part) {
    fill(server);
    let mut redis = server.session();
    let budget_us: f64 = redis.list("CONFIG GET mcache.reclaim-budget-us")[1]
        .parse()
        .expect("microseconds");
    redis.ok("CONFIG RESETSTAT");
    let mut calm = Reads::of(&server.socket(), || thread::sleep(IDLE));
    let mut meanwhile = Reads::of(&server.socket(), || {
        redis.int(&format!("MCACHE.INVALIDATE TAGS {TAG}"));
        await_reclaim(&mut redis);
    });
    let command_us = command_us(&mut redis, "mcache.invalidate");
    part.add(
        "INVALIDATE of 1,000,000 entries: microseconds",
        "as Redis timed the command",
        command_us,
        Goal::AtMost(100.0),
    );
    part.add(
        "GET meanwhile, p99.9 / idle",
        format!(
            "{} beside {}",
            us(meanwhile.percentile(99.9)),
            us(calm.percentile(99.9))
        ),
        meanwhile.percentile(99.9).as_secs_f64() / calm.percentile(99.9).as_secs_f64(),
        Goal::AtMost(2.0),
    );
    let allowed_us = calm.max().as_secs_f64() * 1e6 + 2.0 * budget_us;
    part.add(
        "GET meanwhile, maximum / (idle maximum + 2 budgets)",
        format!(
            "{} beside {} and {budget_us} us",
            us(meanwhile.max()),
            us(calm.max())
        ),
        meanwhile.max().as_secs_f64() * 1e6 / allowed_us,
        Goal::AtMost(1.0),
    );
    part.add(
        "longest slice / budget",
        format!(
            "{} us beside {budget_us} us",
            redis.stat("longest_slice_us")
        ),
        redis.stat("longest_slice_us") as f64 / budget_us,
        Goal::None,
    );
}

/// Without a subscriber.
fn idle(server: &Server, part: &mut Part) {
    fill(server);
    let mut redis = server.session();
    let start = Instant::now();
    redis.int(&format!("MCACHE.INVALIDATE TAGS {TAG}"));
    await_reclaim(&mut redis);
    let per_s = ENTRIES as f64 / start.elapsed().as_secs_f64();
    part.add(
        "reclaim on an idle server: entries a second",
        "from INVALIDATE to the last one",
        per_s,
        Goal::AtLeast(600_000.0),
    );
}

/// The same by a script on sets.
fn lua(part: &mut Part) {
    let server = Server::builder().without_module().start();
    let mut redis = server.session();
    let value = shop::value(100);
    let fills = (0..ENTRIES).map(|n| {
        let key = shop::key("k", n);
        vec![
            shop::plain_set(&key, &value),
            Command::new(["SADD", TAG, &key]),
        ]
    });
    Load::grouped(fills, 64)
        .run(&server.socket(), ENTRIES)
        .expect("the server takes the fills");
    let reads = Reads::of(&server.socket(), || {
        redis.call(&["EVAL", shop::LUA_INVALIDATE, "1", TAG]);
    });
    let blocked = reads.max();
    part.add(
        "Lua SMEMBERS + UNLINK: longest GET, milliseconds",
        "plain Redis, a set of keys",
        blocked.as_secs_f64() * 1e3,
        Goal::None,
    );
}

fn fill(server: &Server) {
    let value = shop::value(100);
    let fills = (0..ENTRIES).map(|n| shop::set(&shop::key("k", n), &value, &[TAG]));
    Load::new(fills, 64)
        .run(&server.socket(), ENTRIES)
        .expect("the server takes the fills");
    server.session().ok("SET probe 1");
}

fn await_reclaim(redis: &mut Session) {
    wait::until("everything is reclaimed", || {
        redis.stat("pending_reclaim") == 0
    });
}

/// What Redis itself says a command took on average.
fn command_us(redis: &mut Session, command: &str) -> f64 {
    let stats = redis.info_text("commandstats", &format!("cmdstat_{command}"));
    stats
        .split(',')
        .find_map(|field| field.strip_prefix("usec_per_call="))
        .and_then(|number| number.parse().ok())
        .expect("statistics of the command")
}

/// Times of single GETs.
struct Reads(Vec<Duration>);

impl Reads {
    /// Reads one key over and over while `work` runs.
    fn of(socket: &Path, work: impl FnOnce()) -> Self {
        let done = AtomicBool::new(false);
        let url = format!("unix://{}", socket.display());
        let connection = redis::Client::open(url)
            .and_then(|client| client.get_connection())
            .expect("the server listens");
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut session = Session::new(connection);
                let mut times = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    session.call(&["GET", "probe"]);
                    times.push(start.elapsed());
                }
                times.sort_unstable();
                times
            });
            work();
            done.store(true, Ordering::Relaxed);
            Self(reader.join().expect("the reader reads"))
        })
    }

    fn percentile(&mut self, percent: f64) -> Duration {
        let at = (percent / 100.0 * self.0.len() as f64) as usize;
        self.0[at.min(self.0.len() - 1)]
    }

    fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

fn us(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}
