//! Damaged and hostile dumps: refused or stored, never a crash, and what is stored is a sound entry.
//!
//! RESTORE checks a checksum first, so mutated bytes alone never get past the door; here each mutant gets a checksum of
//! its own, as an attacker would do it.

use harness::{Seed, Server, Session};
use redis::Value;

use super::dump::{FOOTER, crc64};

const MUTANTS: usize = 4_000;

/// `body` with the version of `dump` and a checksum that is right.
fn sealed(body: &[u8], dump: &[u8]) -> Vec<u8> {
    let mut payload = body.to_vec();
    payload.extend_from_slice(&dump[dump.len() - FOOTER..][..2]);
    let checksum = crc64(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

fn restore(redis: &mut Session, key: &str, payload: &[u8]) -> Result<Value, String> {
    redis.try_call(&[&b"RESTORE"[..], key.as_bytes(), b"0", payload, b"REPLACE"])
}

/// Dumps of every shape an entry has.
fn samples(redis: &mut Session) -> Vec<Vec<u8>> {
    let many: Vec<String> = (0..300).map(|n| format!("Product:prod_{n}")).collect();
    let value = "compressible ".repeat(100);
    for line in [
        "MCACHE.SET s0 0 v".to_owned(),
        "MCACHE.SET s1 0 v TAGS t".to_owned(),
        "MCACHE.SET s2 100 value SWR 10 MANUAL TAGS t u Product:list:*".to_owned(),
        format!("MCACHE.SET s3 0 \"{value}\" TAGS t"),
        format!("MCACHE.SET s4 0 v TAGS {}", many.join(" ")),
        "MCACHE.SET s5 0 \"\" TAGS t".to_owned(),
        "MCACHE.SET s6 0 12345 TAGS 1 2 3".to_owned(),
    ] {
        redis.ok(&line);
    }
    (0..7).map(|n| redis.dump(&format!("s{n}"))).collect()
}

/// One to four changes: a byte, a bit, a cut, an insertion, a piece of the same doubled.
fn mutate(seed: &mut Seed, body: &mut Vec<u8>, from: usize) {
    for _ in 0..seed.usize(1..5) {
        if body.len() <= from + 1 {
            return;
        }
        let at = seed.usize(from..body.len());
        match seed.u32(..10) {
            0..4 => body[at] = seed.u8(..),
            4..6 => body[at] ^= 1 << seed.u32(..8),
            6 => body[at] = *seed.pick(&[0, 1, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xff]),
            7 => body.truncate(at),
            8 => body.insert(at, seed.u8(..)),
            _ => {
                let end = seed.usize(at..body.len().min(at + 40) + 1);
                let piece = body[at..end].to_vec();
                body.splice(at..at, piece);
            }
        }
    }
}

/// The type byte and the nine bytes of the type's name and encoding version: with others, it is not ours to read.
const OURS: usize = 10;

#[test]
fn a_mutated_dump_with_a_valid_checksum_never_crashes_the_server() {
    for sanitize in ["no", "clients", "yes"] {
        let server = Server::builder()
            .set("sanitize-dump-payload", sanitize)
            .set("mcache.on-restart", "keep")
            .start();
        let mut redis = server.session();
        let mut seed = Seed::draw("a_mutated_dump");
        let samples = samples(&mut redis);
        assert_eq!(
            sealed(&samples[1][..samples[1].len() - FOOTER], &samples[1]),
            samples[1],
            "the checksum is the one Redis makes"
        );
        let mut accepted = 0;
        for n in 0..MUTANTS {
            let sample = seed.pick(&samples).clone();
            let mut body = sample[..sample.len() - FOOTER].to_vec();
            mutate(&mut seed, &mut body, OURS);
            let payload = sealed(&body, &sample);
            let key = format!("m{}", n % 50);
            match restore(&mut redis, &key, &payload) {
                Ok(_) => {
                    accepted += 1;
                    // One that was invalidated, by what it says of its birth, may be freed at any moment.
                    redis.run(&format!("MCACHE.GET {key}"));
                    redis.run(&format!("MCACHE.INSPECT {key}"));
                    redis.run(&format!("MEMORY USAGE {key}"));
                    if let Value::BulkString(again) = redis.run(&format!("DUMP {key}")) {
                        restore(&mut redis, "again", &again).expect("what is stored can be dumped");
                    }
                }
                Err(refusal) => assert!(
                    refusal.contains("Bad data format"),
                    "{seed}, mutant {n}: {refusal}"
                ),
            }
            if n % 500 == 0 {
                redis.ok("MCACHE.DEBUG SELFCHECK");
            }
        }
        println!("sanitize-dump-payload {sanitize}: {accepted} of {MUTANTS} were entries");
        assert!(accepted > 0 && accepted < MUTANTS);
        // What was let in is as good as any entry: it is saved, loaded, listed and invalidated.
        redis.ok("DEBUG RELOAD");
        redis.ok("MCACHE.DEBUG SELFCHECK");
        let keys = redis.int("DBSIZE");
        redis.ok("MCACHE.DEBUG SELFCHECK");
        assert!(keys > 0);
        redis.int("MCACHE.INVALIDATE TAGS t");
        redis.drain();
        redis.ok("FLUSHALL");
        assert_eq!(redis.stat("memberships"), 0);
        assert_eq!(redis.stat("panics"), 0, "{seed}");
    }
}

#[test]
fn every_single_byte_of_a_dump_may_have_any_of_the_worst_values() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 100 value SWR 10 MANUAL TAGS t Product:list:*");
    let sample = redis.dump("k");
    let body = &sample[..sample.len() - FOOTER];
    for at in OURS..body.len() {
        for worst in [0, 1, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xff] {
            let mut body = body.to_vec();
            body[at] = worst;
            let _ = restore(&mut redis, "m", &sealed(&body, &sample));
        }
        redis.ok("MCACHE.DEBUG SELFCHECK");
    }
    assert_eq!(redis.stat("panics"), 0);
    assert!(redis.is_live("k"));
}

#[test]
fn a_value_of_a_type_or_version_that_nobody_knows_is_refused() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 value TAGS t");
    let sample = redis.dump("k");
    let body = &sample[..sample.len() - FOOTER];
    for at in 1..OURS {
        for bit in 0..8 {
            let mut body = body.to_vec();
            body[at] ^= 1 << bit;
            let _ = restore(&mut redis, "m", &sealed(&body, &sample))
                .expect_err("not a type we ever had");
        }
    }
    assert_eq!(redis.int("EXISTS m"), 0);
}

/// The field `birth` of a dump that carries no other eight bytes like it.
fn with_birth(sample: &[u8], old: u64, new: u64) -> Vec<u8> {
    let mut body = sample[..sample.len() - FOOTER].to_vec();
    let at = body
        .windows(8)
        .position(|window| window == old.to_le_bytes())
        .expect("the birth is in the dump");
    body[at..at + 8].copy_from_slice(&new.to_le_bytes());
    sealed(&body, sample)
}

/// Epochs are taken over from the writer of the dump, so a lie about them must not stop the clock.
#[test]
fn a_dump_from_the_end_of_time_does_not_undo_invalidations() {
    for birth in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1] {
        // Compressed, the birth could not be changed without making the dump unreadable.
        let server = Server::builder().set("rdbcompression", "no").start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET k 0 value TAGS t");
        let report = redis.map("MCACHE.INSPECT k").expect("an entry");
        let old: u64 = redis::from_redis_value(report["birth"].clone()).expect("an epoch");
        let sample = redis.dump("k");
        let restored = restore(&mut redis, "future", &with_birth(&sample, old, birth));
        assert!(restored.is_err(), "birth {birth}");
        for round in 0..3 {
            let token = redis.token("late");
            redis.ok("MCACHE.SET present 0 v TAGS t");
            redis.int("MCACHE.INVALIDATE TAGS t");
            assert!(!redis.is_live("future"), "birth {birth}, round {round}");
            assert!(!redis.is_live("present"), "birth {birth}, round {round}");
            assert_eq!(
                redis.run(&format!("MCACHE.SET late 0 v TOKEN {token} TAGS t")),
                Value::Nil,
                "birth {birth}, round {round}: the fill began before the invalidation"
            );
            let token = redis.token("fresh");
            redis.ok(&format!("MCACHE.SET fresh 0 v TOKEN {token} TAGS t"));
            assert!(redis.is_live("fresh"), "birth {birth}, round {round}");
        }
        assert_eq!(redis.stat("panics"), 0);
    }
}
