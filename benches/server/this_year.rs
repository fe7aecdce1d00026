//! The rows of servers that people install this year: the commands that users send most, on the server that
//! `MCACHE_REDIS_BIN` names, with one thread and with io-threads.

use harness::Server;

use crate::against_plain::{fill, goal_row, random_keys};
use crate::cpu::{Meter, Side};
use crate::load::Load;
use crate::results::{Goal, Part, version};
use crate::shop;

const KB: usize = 1024;

/// Commands in a pipeline.
const PIPELINE: usize = 16;

pub fn run() {
    let named = version(&Server::start());
    let mut part = Part::new(
        format!("Server CPU on {named}"),
        "make bench-servers",
        "Server CPU per operation, ours over plain GET and SET EX, medians of 7 alternating pairs; 1 KiB, pipelined by 16 over 4
connections, 10,000 keys. \"io-threads\" is a server with four of them: CPU of all threads, and of the main thread alone, which is what
limits such a server.",
    );
    println!("{}", part.name);
    let one = Server::start();
    fill(&one, KB, |n| shop::three_tags(n).to_vec());
    rows(&mut part, &mut Meter::new(&one), "", true);
    let many = Server::builder().set("io-threads", 4).start();
    fill(&many, KB, |n| shop::three_tags(n).to_vec());
    rows(&mut part, &mut Meter::new(&many), ", io-threads", false);
    rows(
        &mut part,
        &mut Meter::of_main_thread(&many),
        ", io-threads, main thread",
        false,
    );
    part.write(&one);
}

/// GET, FETCH and SET; goals are for one thread, and for GET on the main thread of many.
fn rows(part: &mut Part, meter: &mut Meter<'_>, suffix: &str, one_thread: bool) {
    let value = shop::value(KB);
    let plain_get = Load::new(
        random_keys("plain").map(|(_, key)| shop::plain_get(&key)),
        PIPELINE,
    );
    let get = Load::new(
        random_keys("ours").map(|(_, key)| shop::get(&key)),
        PIPELINE,
    );
    let fetch = Load::new(
        random_keys("ours").map(|(_, key)| shop::fetch(&key)),
        PIPELINE,
    );
    let plain_set = Load::new(
        random_keys("plain").map(|(_, key)| shop::plain_set(&key, &value)),
        PIPELINE,
    );
    let bare = Load::new(
        random_keys("ours").map(|(_, key)| shop::set::<&str>(&key, &value, &[])),
        PIPELINE,
    );
    let tagged = Load::new(
        random_keys("ours").map(|(n, key)| shop::set(&key, &value, &shop::three_tags(n))),
        PIPELINE,
    );
    let main_thread = suffix.ends_with("main thread");
    // The sides with tags come last: a bare SET takes the tags off the entries that the reads before it meet.
    for (what, ours, theirs, goal) in [
        ("GET hit", &get, &plain_get, 1.15),
        ("FETCH hit", &fetch, &plain_get, 1.15),
        ("SET, 0 tags", &bare, &plain_set, 1.0),
        ("SET, 3 tags, overwriting", &tagged, &plain_set, 1.35),
    ] {
        let comparison = meter.compare(&Side::steady(ours), &Side::steady(theirs));
        let goal = match what {
            _ if one_thread => Goal::AtMost(goal),
            "GET hit" if main_thread => Goal::AtMost(1.2),
            _ => Goal::None,
        };
        goal_row(part, format!("{what}{suffix}"), &comparison, goal);
    }
}
