//! Section 1: each command beside the plain one that does least of the same, and beside rivals that do all of it.

use harness::Server;

use crate::cpu::{Comparison, Meter, Side};
use crate::load::Load;
use crate::results::{Goal, Part};
use crate::shop::{self, KEYS};

const KB: usize = 1024;

pub fn run() {
    let mut part = Part::new(
        "Against plain Redis",
        "make bench",
        "Server CPU per operation (INFO's used_cpu_user + used_cpu_sys), ours over theirs, medians of 7 alternating pairs.
Plain is GET and SET EX; -P is the length of the pipeline (1: 50 connections, 16: 4 connections); 10,000 keys.",
    );
    println!("{}", part.name);
    gets(&mut part);
    sets(&mut part);
    many_tags(&mut part);
    rivals(&mut part);
    invalidations(&mut part);
    part.write(&Server::start());
}

pub fn goal_row(part: &mut Part, what: String, comparison: &Comparison, goal: Goal) {
    let measured = format!(
        "{:.0} ns beside {:.0} ns",
        comparison.ours_ns, comparison.theirs_ns
    );
    part.add(what, measured, comparison.ratio(), goal);
}

/// Random keys of a kind, the same every run.
pub fn random_keys(kind: &str) -> impl Iterator<Item = (usize, String)> {
    let mut rng = fastrand::Rng::with_seed(1);
    (0..2 * KEYS).map(move |_| {
        let number = rng.usize(..KEYS);
        (number, shop::key(kind, number))
    })
}

/// A server with plain and our keys of this size.
fn filled(bytes: usize, tags_of: impl Fn(usize) -> Vec<String>) -> Server {
    let server = Server::start();
    fill(&server, bytes, tags_of);
    server
}

/// Gives a server plain and our keys of this size.
pub fn fill(server: &Server, bytes: usize, tags_of: impl Fn(usize) -> Vec<String>) {
    let value = shop::value(bytes);
    let plain = (0..KEYS).map(|n| shop::plain_set(&shop::key("plain", n), &value));
    let ours = (0..KEYS).map(|n| shop::set(&shop::key("ours", n), &value, &tags_of(n)));
    let load = Load::new(plain.chain(ours), 16);
    load.run(&server.socket(), load.len())
        .expect("the server takes the fills");
}

fn gets(part: &mut Part) {
    for (pipeline, bytes, goal) in [(1, KB, 1.02), (16, KB, 1.05), (16, 100, 1.15)] {
        let server = filled(bytes, |n| shop::three_tags(n).to_vec());
        let plain = Load::new(
            random_keys("plain").map(|(_, key)| shop::plain_get(&key)),
            pipeline,
        );
        let ours = Load::new(
            random_keys("ours").map(|(_, key)| shop::get(&key)),
            pipeline,
        );
        let fetch = Load::new(
            random_keys("ours").map(|(_, key)| shop::fetch(&key)),
            pipeline,
        );
        let mut meter = Meter::new(&server);
        let comparison = meter.compare(&Side::steady(&ours), &Side::steady(&plain));
        goal_row(
            part,
            format!("GET hit, {bytes} B, -P {pipeline}"),
            &comparison,
            Goal::AtMost(goal),
        );
        let comparison = meter.compare(&Side::steady(&fetch), &Side::steady(&plain));
        goal_row(
            part,
            format!("FETCH hit, {bytes} B, -P {pipeline}"),
            &comparison,
            Goal::AtMost(1.10),
        );
    }
}

fn sets(part: &mut Part) {
    let value = shop::value(KB);
    for (pipeline, goal) in [(1, 1.0), (16, 1.05)] {
        let server = filled(KB, |n| shop::three_tags(n).to_vec());
        let plain = Load::new(
            random_keys("plain").map(|(_, key)| shop::plain_set(&key, &value)),
            pipeline,
        );
        let tagged =
            random_keys("ours").map(|(n, key)| shop::set(&key, &value, &shop::three_tags(n)));
        let tagged = Load::new(tagged, pipeline);
        let mut meter = Meter::new(&server);
        let comparison = meter.compare(&Side::steady(&tagged), &Side::steady(&plain));
        let what = format!("SET, 3 tags, overwriting, 1 KiB, -P {pipeline}");
        goal_row(part, what, &comparison, Goal::AtMost(goal));
        let bare = Load::new(
            random_keys("ours").map(|(_, key)| shop::set::<&str>(&key, &value, &[])),
            pipeline,
        );
        let comparison = meter.compare(&Side::steady(&bare), &Side::steady(&plain));
        goal_row(
            part,
            format!("SET, 0 tags, 1 KiB, -P {pipeline}"),
            &comparison,
            Goal::None,
        );
    }
    let server = filled(KB, |n| shop::three_tags(n).to_vec());
    let plain = Load::new(
        random_keys("plain").map(|(_, key)| shop::plain_set(&key, &value)),
        16,
    );
    // Enough tags that each is gone again before it comes round.
    let renewed = (0..20 * KEYS).map(|n| {
        let tags = [0, 1, 2].map(|t| format!("tag:{t}:{n}"));
        shop::set(&shop::key("ours", n % KEYS), &value, &tags)
    });
    let renewed = Load::new(renewed, 16);
    let comparison = Meter::new(&server).compare(&Side::steady(&renewed), &Side::steady(&plain));
    goal_row(
        part,
        "SET, 3 tags all new, 1 KiB, -P 16".into(),
        &comparison,
        Goal::AtMost(1.35),
    );
}

/// A product list: 600 tags, most of them shared with other lists.
fn many_tags(part: &mut Part) {
    const TAGS: usize = 600;
    const LISTS: usize = 200;
    let server = Server::start();
    let value = shop::value(10 * KB);
    let tags = |list: usize| -> Vec<String> {
        (0..TAGS)
            .map(|n| format!("Product:{}", (list * 37 + n) % 5_000))
            .collect()
    };
    let load = |tags_of: &dyn Fn(usize) -> Vec<String>| {
        Load::new(
            (0..LISTS).map(|n| shop::set(&shop::key("list", n), &value, &tags_of(n))),
            1,
        )
    };
    let (tagged, bare) = (load(&tags), load(&|_| Vec::new()));
    let mut meter = Meter::new(&server);
    let comparison = meter.compare(&Side::steady(&tagged), &Side::steady(&bare));
    let per_tag = (comparison.ours_ns - comparison.theirs_ns) / TAGS as f64;
    let measured = format!(
        "{:.1} us with them, {:.1} us without",
        comparison.ours_ns / 1e3,
        comparison.theirs_ns / 1e3
    );
    part.add(
        "SET, 600 tags: nanoseconds a tag",
        measured,
        per_tag,
        Goal::AtMost(60.0),
    );

    let sadd = (0..LISTS).map(|n| {
        let key = shop::key("list", n);
        tags(n)
            .iter()
            .flat_map(|tag| shop::sadd_and_expire(&format!("set:{tag}"), &key))
            .collect()
    });
    let sadd = Load::grouped(sadd, 1);
    let comparison = meter.compare(&Side::steady(&tagged), &Side::steady(&sadd));
    let measured = format!(
        "{:.1} us beside {:.1} us",
        comparison.ours_ns / 1e3,
        comparison.theirs_ns / 1e3
    );
    part.add(
        "SADD + EXPIRE a tag, over SET with 600 tags",
        measured,
        1.0 / comparison.ratio(),
        Goal::AtLeast(15.0),
    );
}

/// Beside what people build on plain Redis, each with three tags.
fn rivals(part: &mut Part) {
    let server = Server::start();
    let value = shop::value(KB);
    let hash = shop::load_lua_set(&mut server.session());
    let ours = random_keys("ours").map(|(n, key)| shop::set(&key, &value, &shop::three_tags(n)));
    let ours = Load::new(ours, 16);
    let set_tags = |n: usize| shop::three_tags(n).map(|tag| format!("set:{tag}"));
    let lua = random_keys("lua").map(|(n, key)| shop::lua_set(&hash, &key, &value, &set_tags(n)));
    let lua = Load::new(lua, 16);
    let pipeline =
        random_keys("hash").map(|(n, key)| shop::hash_and_sets(&key, &value, &set_tags(n)));
    let pipeline = Load::grouped(pipeline, 16);
    let mut meter = Meter::new(&server);
    for (rival, load, goal) in [
        ("Lua tag cache", &lua, Goal::AtLeast(5.0)),
        (
            "HSET + EXPIRE + SADD + EXPIRE pipeline",
            &pipeline,
            Goal::None,
        ),
    ] {
        let comparison = meter.compare(&Side::steady(&ours), &Side::steady(load));
        let measured = format!(
            "{:.0} ns beside {:.0} ns",
            comparison.theirs_ns, comparison.ours_ns
        );
        part.add(
            format!("{rival}, 3 tags, over SET with 3 tags"),
            measured,
            1.0 / comparison.ratio(),
            goal,
        );
    }
}

fn invalidations(part: &mut Part) {
    let server = filled(100, |n| shop::three_tags(n).to_vec());
    let plain = Load::new(
        random_keys("plain").map(|(_, key)| shop::plain_get(&key)),
        16,
    );
    let nobody = Load::new(
        random_keys("nobody").map(|(_, tag)| shop::invalidate(&tag)),
        16,
    );
    let mut meter = Meter::new(&server);
    let comparison = meter.compare(&Side::steady(&nobody), &Side::steady(&plain));
    let what = "INVALIDATE of a tag without entries / GET, -P 16".to_owned();
    goal_row(part, what, &comparison, Goal::AtMost(1.05));

    const EACH: usize = 10;
    const TAGS: usize = 10_000;
    let members = |tag: usize| (0..EACH).map(move |n| (tag, shop::key("m", tag * EACH + n)));
    let value = shop::value(100);
    let fill = |ours: bool| {
        let fills = (0..TAGS).flat_map(members).map(|(tag, key)| {
            if ours {
                shop::set(&key, &value, &[format!("ten:{tag}")])
            } else {
                shop::plain_set(&key, &value)
            }
        });
        Load::new(fills, 16)
    };
    let (fill_ours, fill_plain) = (fill(true), fill(false));
    let socket = server.socket();
    let refill = |load: &Load| {
        load.run(&socket, load.len())
            .expect("the server takes the fills");
    };
    let invalidate = Load::new(
        (0..TAGS).map(|tag| shop::invalidate(&format!("ten:{tag}"))),
        16,
    );
    let unlink = (0..TAGS).map(|tag| {
        let keys = members(tag).map(|(_, key)| key);
        crate::load::Command::new(std::iter::once("UNLINK".to_owned()).chain(keys))
    });
    let unlink = Load::new(unlink, 16);
    let comparison = meter.compare(
        &Side::once(&invalidate, || refill(&fill_ours)),
        &Side::once(&unlink, || refill(&fill_plain)),
    );
    let what = "INVALIDATE of 10 entries / UNLINK of 10 keys, -P 16".to_owned();
    goal_row(part, what, &comparison, Goal::AtMost(1.5));
}
