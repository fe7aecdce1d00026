//! What comes from outside, mutated: command lines, entries as other servers write them, tokens. Nothing panics,
//! nothing is believed that was not said, and what is understood means the same when it is written again.
//! A failing seed is printed; `MCACHE_SEED` replays it, `MCACHE_LONG=1` goes on for minutes.

#[path = "support/seed.rs"]
mod seed;

use mcache_core::command::{Fetch, Invalidate, Limits, Scan, Set};
use mcache_core::encode::{self, decode, encode};
use mcache_core::entry::{Attributes, NEVER};
use mcache_core::epoch::{Epoch, Token};

#[path = "../fuzz/checks.rs"]
mod checks;

/// What the fuzzer (`make fuzz`) starts from, and what it once failed on.
#[test]
fn the_fuzzers_corpus_holds() {
    type Check = fn(&[u8]);
    let targets: [(&str, Check); 3] = [
        ("command", checks::command),
        ("encode", checks::encode),
        ("text", checks::text),
    ];
    for (name, check) in targets {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder)
            .expect("a corpus")
            .map(|file| file.expect("a file").path())
            .collect();
        assert!(files.len() >= 10, "{folder}");
        for file in files {
            println!("{}", file.display());
            check(&std::fs::read(&file).expect("readable"));
        }
    }
}

const LIMITS: Limits = Limits {
    tags: 8,
    tag_bytes: 12,
};

/// A seeded source and how often to draw from it.
fn draw(rounds: usize) -> (fastrand::Rng, usize) {
    let seed = seed::seed();
    let longer = if std::env::var_os("MCACHE_LONG").is_some() {
        200
    } else {
        1
    };
    (fastrand::Rng::with_seed(seed), rounds * longer)
}

/// One to four changes anywhere in `bytes`.
fn mutate(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..5) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
            continue;
        }
        let at = rng.usize(..bytes.len());
        match rng.u32(..6) {
            0 => bytes[at] = rng.u8(..),
            1 => bytes[at] ^= 1 << rng.u32(..8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.usize(..5)],
            3 => bytes.truncate(at),
            4 => bytes.insert(at, rng.u8(..)),
            _ => {
                let end = rng.usize(at..=bytes.len().min(at + 20));
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// A word of some command line: a keyword in any case, a number at a border, a token, anything.
fn word(rng: &mut fastrand::Rng) -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "TAGS",
        "tags",
        "AUTO",
        "SOFT",
        "TOKEN",
        "SWR",
        "NX",
        "xx",
        "MANUAL",
        "LEASE",
        "WAIT",
        "MATCH",
        "COUNT",
        "0",
        "-1",
        "1.5",
        "1e9",
        "18446744073709551615",
        "18446744073709551616",
        "nan",
        "inf",
        "",
        "00000000000000010000000000000002",
        "k",
    ];
    let mut word = WORDS[rng.usize(..WORDS.len())].as_bytes().to_vec();
    if rng.u32(..5) == 0 {
        mutate(rng, &mut word);
    }
    word
}

fn token(rng: &mut fastrand::Rng) -> Token {
    Token {
        incarnation: rng.u64(..),
        epoch: Epoch(rng.u64(..)),
    }
}

#[test]
fn no_command_line_panics_and_no_limit_is_passed() {
    let (mut rng, rounds) = draw(200_000);
    let mut understood = 0;
    for _ in 0..rounds {
        let mut line = vec![b"MCACHE.X".to_vec(), b"k".to_vec()];
        line.extend((0..rng.usize(..14)).map(|_| word(&mut rng)));
        let args = line.as_slice();
        if args.len() >= 4
            && let Ok(set) = Set::parse(args, LIMITS)
        {
            understood += 1;
            assert!(set.tags_from <= args.len(), "{line:?}");
            let tags = &args[set.tags_from..];
            assert!(tags.len() <= LIMITS.tags, "{line:?}");
            for tag in tags {
                assert!(!tag.is_empty() && tag.len() <= LIMITS.tag_bytes, "{line:?}");
            }
        }
        if let Ok(invalidate) = Invalidate::parse(args, LIMITS) {
            let tags = &args[invalidate.tags_from..];
            assert!((1..=LIMITS.tags).contains(&tags.len()), "{line:?}");
            let mode = invalidate.mode();
            assert_eq!(
                Invalidate::from_mode(mode, invalidate.tags_from),
                Some(invalidate)
            );
        }
        if let Ok(fetch) = Fetch::parse(args, 5_000, 600_000) {
            assert!((1..=600_000).contains(&fetch.lease_ms), "{line:?}");
            assert!(fetch.wait_ms <= 600_000, "{line:?}");
        }
        for patterns in [true, false] {
            if let Ok(scan) = Scan::parse(args, 2, patterns) {
                assert!(
                    (1..=Scan::MAX_COUNT).contains(&(scan.count as u64)),
                    "{line:?}"
                );
                assert!(scan.pattern_at.is_none_or(|at| patterns && at < args.len()));
            }
        }
    }
    assert!(
        understood > rounds / 1_000,
        "{understood} of {rounds} lines were a SET"
    );
}

#[test]
fn no_mutated_entry_panics_and_what_is_read_is_written_the_same() {
    let (mut rng, rounds) = draw(200_000);
    let mut understood = 0;
    for _ in 0..rounds {
        let tags: Vec<Vec<u8>> = (0..rng.u8(..6))
            .map(|n| {
                let mut tag = vec![n];
                tag.extend((0..rng.usize(..20)).map(|_| rng.u8(..)));
                tag
            })
            .collect();
        let attributes = Attributes {
            birth: Epoch(rng.u64(..Epoch::END.0)),
            manual: rng.bool(),
            softened: rng.bool(),
            swr_ms: rng.u32(..),
            ends_ms: rng.u64(..=NEVER),
        };
        let saved = Token {
            epoch: Epoch(rng.u64(..Epoch::END.0)),
            ..token(&mut rng)
        };
        let mut bytes = encode(attributes, saved, tags.iter().map(Vec::as_slice));
        let decoded = decode(encode::VERSION, &bytes).expect("what was written is read");
        assert_eq!((decoded.attributes, decoded.saved), (attributes, saved));
        assert!(decoded.tags.iter().eq(&tags));

        mutate(&mut rng, &mut bytes);
        for version in [encode::VERSION, 0, -1, 3, i32::MAX] {
            let Some(decoded) = decode(version, &bytes) else {
                continue;
            };
            understood += 1;
            let tags = decoded.tags.iter();
            assert!(decoded.tags.iter().all(|tag| !tag.is_empty()));
            assert!(decoded.attributes.birth < Epoch::END && decoded.saved.epoch < Epoch::END);
            assert_eq!(encode(decoded.attributes, decoded.saved, tags), bytes);
        }
    }
    assert!(understood > 0, "mutants that are all refused prove little");
}

#[test]
fn a_count_that_lies_allocates_nothing() {
    let attributes = Attributes {
        birth: Epoch(1),
        manual: false,
        softened: false,
        swr_ms: 0,
        ends_ms: NEVER,
    };
    let saved = Token {
        incarnation: 1,
        epoch: Epoch(1),
    };
    let mut bytes = encode(attributes, saved, [&b"t"[..]].into_iter());
    let count_at = bytes.len() - 9;
    for lie in [2, 65_535, 65_536, u32::MAX] {
        bytes[count_at..count_at + 4].copy_from_slice(&u32::to_le_bytes(lie));
        assert_eq!(decode(encode::VERSION, &bytes), None, "{lie} tags");
    }
}

#[test]
fn no_mutated_token_panics_and_only_its_own_text_is_a_token() {
    let (mut rng, rounds) = draw(200_000);
    for _ in 0..rounds {
        let token = token(&mut rng);
        let mut text = token.to_string().into_bytes();
        assert_eq!(Token::parse(&text), Some(token));
        mutate(&mut rng, &mut text);
        if let Some(other) = Token::parse(&text) {
            assert_eq!(other.to_string().as_bytes(), text);
        }
    }
}
