//! What the feed costs the server while none, one and a hundred near caches subscribe, beside a server that has none.
//!
//! Server CPU of one SET and one INVALIDATE that concerns it, as INFO counts it: what the near caches do in this
//! process is not in it, what waking and answering them costs the server is.

use std::time::{Duration, Instant};

use harness::{Server, Session, wait};
use mcache::Cache;
use tokio::runtime::Runtime;

use crate::median_and_p99;

const PAIRS: usize = 5_000;
const TURNS: usize = 5;
const MANY: usize = 100;

pub fn run(runtime: &Runtime) {
    let off = Server::builder().tcp().start();
    let none = Server::builder().set("mcache.feed", "yes").tcp().start();
    let servers = [1, MANY].map(|subscribers| {
        let server = Server::builder().feed(5_000).tcp().start();
        let caches: Vec<Cache> = runtime.block_on(async {
            let mut caches = Vec::new();
            for _ in 0..subscribers {
                caches.push(crate::near(&server).await);
            }
            caches
        });
        let mut session = server.session();
        wait::until("all subscribe", || {
            session.stat("near_subscribers") == subscribers as i64
        });
        (server, caches)
    });
    let sides: [(&str, &Server); 4] = [
        ("`mcache.feed no`", &off),
        ("`mcache.feed yes`, without a subscriber", &none),
        ("one near cache", &servers[0].0),
        ("100 near caches", &servers[1].0),
    ];
    let mut figures = sides.map(|_| (Vec::new(), Vec::new()));
    for _ in 0..TURNS {
        for ((_, server), figures) in sides.iter().zip(&mut figures) {
            let (cpu, took) = pairs(&mut server.session());
            figures.0.push(cpu);
            figures.1.push(took);
        }
    }
    println!("\n| one SET and one INVALIDATE, one after the other | server CPU | round trips |");
    println!("|---|---|---|");
    for ((what, _), (mut cpu, mut took)) in sides.into_iter().zip(figures) {
        let each =
            |times: &mut Vec<Duration>| median_and_p99(times).0.as_secs_f64() * 1e6 / PAIRS as f64;
        println!(
            "| {what} | {:.2} us | {:.2} us |",
            each(&mut cpu),
            each(&mut took)
        );
    }
}

/// Server CPU and time of many pairs.
fn pairs(session: &mut Session) -> (Duration, Duration) {
    let (began, before) = (Instant::now(), session.cpu_s(Session::CPU));
    for _ in 0..PAIRS {
        session.run("MCACHE.SET mc:k 60000 value TAGS mc:t");
        session.run("MCACHE.INVALIDATE TAGS mc:t");
    }
    let cpu = session.cpu_s(Session::CPU) - before;
    (Duration::from_secs_f64(cpu), began.elapsed())
}
