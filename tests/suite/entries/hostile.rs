//! Any content of a dump or a file whose checksum is right: nothing crashes, nothing of others is lost, the clock
//! stays in the present, and what was let in can be written and read again.

use std::time::{SystemTime, UNIX_EPOCH};

use harness::{Seed, Server, ServerBuilder, Session};
use redis::Value;

use super::dump::{BIRTH, ENDS, Raw, Rdb, SAVED, restore};

/// Epochs that may differ by that much are believed (`fills.rs`).
const SKEW_MS: u64 = 1_000;

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

fn builder() -> ServerBuilder {
    Server::builder()
        .set("rdbcompression", "no")
        .set("mcache.on-restart", "keep")
        // Of a command in a file that makes no sense, Redis takes note and goes on: the default.
        .set("propagation-error-behavior", "ignore")
}

/// An entry of each shape, and two bystanders: a plain key and an entry that must survive.
fn prepare(redis: &mut Session) -> Vec<Raw> {
    redis.ok("SET plain value");
    redis.ok("MCACHE.SET canary 100000 value TAGS canary");
    let lines = [
        "MCACHE.SET sample 0 v",
        "MCACHE.SET sample 0 v TAGS t",
        "MCACHE.SET sample 1000 value SWR 10 MANUAL TAGS t u Product:list:*",
        "MCACHE.SET sample 1000 number SWR 100 TAGS 1 2 3",
    ];
    let samples = lines.map(|line| {
        redis.ok(line);
        Raw::of(redis, "sample")
    });
    redis.int("DEL sample");
    samples.into()
}

/// What must be true after any input.
#[track_caller]
fn assert_sound(redis: &mut Session, input: &str) {
    redis.ok("MCACHE.DEBUG SELFCHECK");
    for _ in 0..2 {
        assert_eq!(
            redis.text("GET plain").as_deref(),
            Some("value"),
            "after {input}"
        );
        assert!(redis.is_live("canary"), "after {input}");
        let epoch_ms = redis.stat("epoch") as u64 >> 16;
        assert!(epoch_ms <= now_ms() + SKEW_MS, "{epoch_ms} after {input}");
        assert_eq!(redis.stat("panics"), 0, "after {input}");
        // What the server writes itself it reads again.
        redis.ok("DEBUG RELOAD");
    }
    redis.ok("MCACHE.DEBUG SELFCHECK");
    let token = redis.token("late");
    redis.int("MCACHE.INVALIDATE TAGS t");
    let fill = format!("MCACHE.SET late 0 v TOKEN {token} TAGS t");
    assert_eq!(redis.text(&fill), None, "a late fill after {input}");
}

fn worst_number(seed: &mut Seed) -> u64 {
    let now = now_ms() << 16;
    let numbers = [
        0,
        1,
        now,
        now + (900 << 16),
        now + (5_000 << 16),
        now + (86_400_000 << 16),
        1 << 47,
        (1 << 47) - 1,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX,
    ];
    *seed.pick(&numbers)
}

/// Changes that a person with ill will, or a broken disk, would make.
fn worsen(seed: &mut Seed, raw: &mut Raw) {
    for _ in 0..seed.usize(1..4) {
        let last = raw.meta.len();
        if last < 60 {
            return;
        }
        match seed.u32(..12) {
            0 => raw.set_number(BIRTH, worst_number(seed)),
            1 => raw.set_number(SAVED, worst_number(seed)),
            2 => raw.set_number(ENDS, worst_number(seed)),
            3 => raw.meta[0] = seed.u8(..),
            4 => raw.version = *seed.pick(&[0, 1, 2, 3, 1_023]),
            5 => {
                // A number of tags, or the length of one.
                let at = seed.usize(37..last - 3);
                let claim: u32 = *seed.pick(&[0, 1, 0xffff, 0x1_0000, 1 << 31, u32::MAX]);
                raw.meta[at..at + 4].copy_from_slice(&claim.to_le_bytes());
            }
            6 => raw.meta.truncate(seed.usize(..last)),
            7 => raw.meta.extend_from_within(seed.usize(..last)..),
            8 => raw.value = vec![seed.u8(..); *seed.pick(&[0, 1, 100_000])],
            9 => raw.value = vec![0xff; 3],
            _ => {
                let at = seed.usize(..last);
                raw.meta[at] = *seed.pick(&[0, 1, 0x7f, 0x80, 0xff]);
            }
        }
    }
}

#[test]
fn a_hostile_dump_is_refused_or_an_entry_like_any_other() {
    let server = builder().start();
    let mut redis = server.session();
    let samples = prepare(&mut redis);
    let mut seed = Seed::draw("a_hostile_dump");
    let (mut stored, mut refused) = (0, 0);
    for n in 0..250 {
        let mut raw = seed.pick(&samples).clone();
        worsen(&mut seed, &mut raw);
        match restore(&mut redis, &format!("m{}", n % 20), "0", &raw) {
            Ok(_) => stored += 1,
            Err(error) => {
                assert!(error.contains("Bad data format"), "{error}");
                refused += 1;
            }
        }
        assert_sound(&mut redis, &format!("{seed}, dump {n}: {raw:?}"));
    }
    println!("{stored} stored, {refused} refused");
    assert!(stored > 20 && refused > 20);
}

#[test]
fn a_hostile_entry_in_a_file_is_dead_and_the_rest_of_the_file_is_there() {
    let server = builder().start();
    let mut redis = server.session();
    let samples = prepare(&mut redis);
    let canary = Raw::of(&mut redis, "canary");
    let mut seed = Seed::draw("a_hostile_entry_in_a_file");
    let mut live = 0;
    for n in 0..60 {
        let mut file = Rdb::new();
        let mut hostile = Vec::new();
        for m in 0..20 {
            let mut raw = seed.pick(&samples).clone();
            worsen(&mut seed, &mut raw);
            let deadline = seed.chance(30).then(|| now_ms() + 1_000_000);
            file.entry(&format!("m{m}"), deadline, &raw);
            hostile.push(raw);
        }
        file.string("plain", "value").entry("canary", None, &canary);
        file.write(&server);
        let input = format!("{seed}, file {n}: {hostile:?}");
        redis.ok("DEBUG RELOAD NOSAVE");
        live += (0..20)
            .filter(|m| redis.run(&format!("MCACHE.GET m{m}")) != Value::Nil)
            .count();
        assert_sound(&mut redis, &input);
    }
    println!("{live} of 1200 were as good as before");
    assert!(live > 0 && live < 1_200);
}

/// 24 MB that become 2 GiB when they are read: more than a value may have.
#[test]
fn a_value_that_is_compressed_from_two_gib_is_refused_and_hurts_nothing_else() {
    const REFERENCES: usize = (1 << 31) / 264 + 1;
    let server = builder().start();
    let mut redis = server.session();
    let mut samples = prepare(&mut redis);
    let canary = Raw::of(&mut redis, "canary");
    let mut raw = samples.remove(2);

    // As much as is let in shows that the payload is what Redis would have written.
    raw.compressed = Some(1_000);
    restore(&mut redis, "small", "0", &raw).expect("a value of 264 kB");
    assert_eq!(redis.typed::<Vec<u8>>("MCACHE.GET small"), [0; 264_001]);

    raw.compressed = Some(REFERENCES);
    let error = restore(&mut redis, "large", "0", &raw).unwrap_err();
    assert!(error.contains("Bad data format"), "{error}");
    assert_eq!(redis.int("EXISTS large"), 0);
    assert!(redis.is_live("small"), "nothing else died");
    assert_sound(&mut redis, "a dump of 2 GiB");

    let mut file = Rdb::new();
    file.entry("large", None, &raw)
        .string("plain", "value")
        .entry("canary", None, &canary);
    file.write(&server);
    redis.ok("DEBUG RELOAD NOSAVE");
    assert_eq!(redis.run("MCACHE.GET large"), Value::Nil);
    assert_sound(&mut redis, "a file with 2 GiB");
    let used = redis.info("memory", "used_memory");
    assert!(used < 200 << 20, "{used} bytes are kept");
}

#[test]
fn a_hostile_file_does_not_keep_the_server_from_starting() {
    for restart in ["keep", "drop"] {
        let mut server = builder().set("mcache.on-restart", restart).start();
        let mut redis = server.session();
        let samples = prepare(&mut redis);
        let canary = Raw::of(&mut redis, "canary");
        let mut seed = Seed::draw("a_hostile_file");
        let mut file = Rdb::new();
        for m in 0..500 {
            let mut raw = seed.pick(&samples).clone();
            worsen(&mut seed, &mut raw);
            file.entry(&format!("m{m}"), None, &raw);
        }
        file.string("plain", "value").entry("canary", None, &canary);
        server.stop();
        file.write(&server);
        server.start_again();
        let mut redis = server.session();
        assert_eq!(redis.is_live("canary"), restart == "keep", "{seed}");
        redis.ok("MCACHE.SET canary 100000 value TAGS canary");
        assert_sound(&mut redis, &format!("{seed}"));
        redis.drain();
        redis.ok("MCACHE.DEBUG SELFCHECK");
    }
}

/// Commands of an append-only file, with arguments that the server would never have written.
fn worst_commands(seed: &mut Seed, n: usize) -> Vec<Vec<Vec<u8>>> {
    let number = |seed: &mut Seed| match seed.u32(..6) {
        0 => b"-1".to_vec(),
        1 => b"nonsense".to_vec(),
        2 => b"99999999999999999999999".to_vec(),
        3 => (seed.u64(..1 << 40)).to_string().into_bytes(),
        4 => ((now_ms() << 16) as i64).to_string().into_bytes(),
        _ => (worst_number(seed) as i64).to_string().into_bytes(),
    };
    let mut commands = Vec::new();
    for m in 0..n {
        let key = format!("m{}", m % 7).into_bytes();
        let tags = (0..seed.usize(..4)).map(|_| seed.pick(&[&b"t"[..], b"u", b"", b"t"]).to_vec());
        let tags: Vec<Vec<u8>> = tags.collect();
        let mut command = match seed.u32(..6) {
            0..3 => vec![
                b"MCACHE.REPLSET".to_vec(),
                key,
                number(seed),
                number(seed),
                number(seed),
                b"value".to_vec(),
            ],
            3 => vec![
                b"MCACHE.REPLINVALIDATE".to_vec(),
                number(seed),
                number(seed),
                b"t".to_vec(),
            ],
            4 => {
                commands.push(vec![b"MCACHE.REPLSHORTEN".to_vec(), key, number(seed)]);
                continue;
            }
            _ => {
                let verb = *seed.pick(&["EXPIRE", "PERSIST", "RENAME", "COPY"]);
                let mut command = vec![verb.as_bytes().to_vec(), key];
                match verb {
                    "EXPIRE" => command.push(b"1000".to_vec()),
                    "PERSIST" => {}
                    _ => command.push(b"m1".to_vec()),
                }
                commands.push(command);
                continue;
            }
        };
        command.extend(tags);
        commands.push(command);
    }
    commands
}

fn encoded(commands: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        out.extend(format!("*{}\r\n", command.len()).into_bytes());
        for argument in command {
            out.extend(format!("${}\r\n", argument.len()).into_bytes());
            out.extend(argument);
            out.extend(b"\r\n");
        }
    }
    out
}

#[test]
fn hostile_commands_in_an_append_only_file_hurt_nothing_else() {
    let server = builder()
        .set("appendonly", "yes")
        .set("aof-use-rdb-preamble", "no")
        .start();
    let mut redis = server.session();
    let mut seed = Seed::draw("hostile_commands");
    let path = server.dir().join("appendonlydir/appendonly.aof.1.incr.aof");
    let epoch = redis.stat("epoch").to_string();
    for n in 0..100 {
        let line = |text: &str| {
            text.split(' ')
                .map(|word| word.as_bytes().to_vec())
                .collect()
        };
        let mut commands: Vec<Vec<Vec<u8>>> = vec![
            line("SELECT 0"),
            line("SET plain value"),
            line(&format!("MCACHE.REPLSET canary -1 {epoch} 0 value canary")),
        ];
        commands.extend(worst_commands(&mut seed, 20));
        std::fs::write(&path, encoded(&commands)).expect("written");
        redis.ok("DEBUG LOADAOF");
        let input = format!("{seed}, file {n}");
        redis.ok("MCACHE.DEBUG SELFCHECK");
        assert_eq!(redis.text("GET plain").as_deref(), Some("value"), "{input}");
        assert!(redis.is_live("canary"), "{input}");
        assert_sound(&mut redis, &input);
    }
}
