//! What each command takes and refuses, from its words alone.

use super::*;

const LIMITS: Limits = Limits {
    tags: 3,
    tag_bytes: 5,
};

fn set(line: &str) -> Result<Set, Error> {
    let args: Vec<&str> = line.split(' ').collect();
    Set::parse(&args[..], LIMITS)
}

fn invalidate(line: &str) -> Result<Invalidate, Error> {
    let args: Vec<&str> = line.split(' ').collect();
    Invalidate::parse(&args[..], LIMITS)
}

#[test]
fn set_understands_every_option_in_any_case_and_order() {
    let plain = Set {
        ttl_ms: Some(10_000),
        swr_ms: 0,
        token: None,
        only_if: OnlyIf::Always,
        manual: false,
        near: None,
        tags_from: 4,
    };
    assert_eq!(set("MCACHE.SET k 10 v"), Ok(plain.clone()));
    assert_eq!(set("MCACHE.SET k 0 v").map(|s| s.ttl_ms), Ok(None));
    let full = set(
        "MCACHE.SET k 1.5 v manual swr 2 nx token 0000000000000001000000000000000f tags TAGS nx",
    )
    .unwrap();
    assert_eq!(
        full,
        Set {
            ttl_ms: Some(1500),
            swr_ms: 2000,
            token: Token::parse(b"0000000000000001000000000000000f"),
            only_if: OnlyIf::Absent,
            manual: true,
            near: None,
            tags_from: 11,
        }
    );
}

#[test]
fn set_refuses_what_it_does_not_understand() {
    for line in [
        "MCACHE.SET k -1 v",
        "MCACHE.SET k abc v",
        "MCACHE.SET k 1 v FOO",
        "MCACHE.SET k 1 v TAGS",
        "MCACHE.SET k 1 v TOKEN",
        "MCACHE.SET k 1 v TOKEN xyz",
        "MCACHE.SET k 1 v NX XX",
        "MCACHE.SET k 1 v TAGS a b c d",
        "MCACHE.SET k 1 v TAGS toolong",
        "MCACHE.SET k 1 v TAGS a  b",
        "MCACHE.SET k 0 v SWR 5",
        "MCACHE.SET k 1 v SWR",
        "MCACHE.SET k 1 v SWR x",
        "MCACHE.SET k 1 v SWR 1 SWR 1",
    ] {
        let error = set(line).expect_err(line).to_string();
        assert!(error.starts_with("ERR "), "{line}: {error}");
    }
}

#[test]
fn what_a_primary_stored_is_read_back_and_nothing_else() {
    let line = |end: &str, birth: &str, attributes: &str, tag: &str| {
        let args = ["MCACHE.REPLSET", "k", end, birth, attributes, "v", tag];
        ReplSet::parse(&args.map(str::to_owned)[..])
    };
    let endless = line("-1", "65536", "0", "t").expect("as it is written");
    assert_eq!(endless.deadline_ms, None);
    assert_eq!(endless.attributes.ends_ms, NEVER);
    let ending = line("5000", "65536", "401", "t").expect("as it is written");
    assert_eq!(ending.deadline_ms, Some(5_000));
    let attributes = ending.attributes;
    assert_eq!((attributes.swr_ms, attributes.manual), (100, true));
    assert_eq!(
        (attributes.ends_ms, attributes.birth),
        (5_000, Epoch(65_536))
    );
    for (end, birth, attributes, tag) in [
        ("-2", "1", "0", "t"),
        ("soon", "1", "0", "t"),
        ("-1", "-1", "0", "t"),
        ("-1", "1", "17179869184", "t"),
        ("-1", "1", "0", ""),
    ] {
        assert_eq!(line(end, birth, attributes, tag), None);
    }
    let long = "t".repeat(MAX_TAG_BYTES + 1);
    assert_eq!(line("-1", "1", "0", &long), None);
}

#[test]
fn a_stored_entry_in_few_words_is_read_back_and_nothing_else() {
    let args = |word: &[u8]| [&b"MCACHE.REPLSET"[..], b"k", b"v", word].map(<[u8]>::to_vec);
    let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
    for _ in 0..2_000 {
        let deadline_ms = rng.bool().then(|| rng.u64(..NEVER));
        let attributes = Attributes {
            birth: Epoch(rng.u64(..)),
            manual: rng.bool(),
            softened: rng.bool(),
            swr_ms: rng.u32(..),
            ends_ms: deadline_ms.unwrap_or(NEVER),
        };
        // Names that look like what stands between them.
        let names: Vec<Vec<u8>> = (0..rng.usize(..5))
            .map(|_| {
                (0..rng.usize(1..9))
                    .map(|_| *rng.choice(b" :10a\0").expect("some"))
                    .collect()
            })
            .collect();
        let tags = names.iter().map(Vec::as_slice);
        let word = Packed::write(deadline_ms, attributes, tags.clone());
        let written = args(&word);
        let (read, carried) = Packed::parse(&written[..]).expect("as it was written");
        assert_eq!(
            (read.deadline_ms, read.attributes),
            (deadline_ms, attributes)
        );
        assert_eq!(carried.size_hint(), (names.len(), Some(names.len())));
        assert!(carried.eq(tags));
    }
    let word = b"5000 65536 401 1:t 2:uu";
    assert!(Packed::parse(&args(word)[..]).is_some());
    for end in 0..word.len() {
        let cut_off = args(&word[..end]);
        let cut = Packed::parse(&cut_off[..]);
        // Without its last tags, and before the last digits of the attributes, it is another entry.
        let is_whole =
            cut.is_none_or(|(_, tags)| [12, 13, 14, 18].contains(&end) && tags.count() <= 1);
        assert!(is_whole, "cut at {end}");
    }
    for wrong in [
        "-2 1 0",
        "-1 -1 0",
        "-1 1 17179869184",
        "-1 1",
        "",
        "-1 1 0 ",
        "-1 1 0 0:",
        "-1 1 0 2:t",
        "-1 1 0 1:tt",
        "-1 1 0 1:t ",
        "-1 1 0  1:t",
        "-1 1 0 -1:t",
        "-1 1 0 18446744073709551615:t",
        "-1 1 0 t",
    ] {
        assert!(
            Packed::parse(&args(wrong.as_bytes())[..]).is_none(),
            "{wrong}"
        );
    }
    let long = vec![b't'; MAX_TAG_BYTES + 1];
    let none = Attributes::HUSK;
    let word = Packed::write(None, none, [&long[..]].into_iter());
    assert!(Packed::parse(&args(&word)[..]).is_none());
    let many = vec![&b"t"[..]; MAX_TAGS + 1];
    let word = Packed::write(None, none, many.iter().copied());
    assert!(Packed::parse(&args(&word)[..]).is_none());
}

#[test]
fn any_byte_string_can_be_invalidated() {
    let parsed = |scope, soft, tags_from| {
        Ok(Invalidate {
            scope,
            soft,
            near: false,
            tags_from,
        })
    };
    assert_eq!(invalidate("M a b"), parsed(Scope::All, false, 1));
    assert_eq!(invalidate("M TAGS auto"), parsed(Scope::All, false, 2));
    assert_eq!(
        invalidate("M auto tags tags"),
        parsed(Scope::Auto, false, 3)
    );
    assert_eq!(
        invalidate("M soft AUTO TAGS a"),
        parsed(Scope::Auto, true, 4)
    );
    assert_eq!(invalidate("M a TAGS"), parsed(Scope::All, false, 1));
    for line in [
        "M AUTO",
        "M AUTO a",
        "M TAGS",
        "M AUTO TAGS",
        "M SOFT x TAGS a",
        "M a b c d",
    ] {
        assert!(invalidate(line).is_err(), "{line}");
    }
}

#[test]
fn fetches() {
    let parse = |line: &str| Fetch::parse(&line.split(' ').collect::<Vec<_>>()[..], 5_000, 10_000);
    assert_eq!(
        parse("F k"),
        Ok(Fetch {
            lease_ms: 5_000,
            wait_ms: 0,
            early_ms: 0,
            brief: false,
            near: None,
        })
    );
    assert_eq!(
        parse("F k 8 wait 7 LEASE 9 early 3"),
        Ok(Fetch {
            lease_ms: 9,
            wait_ms: 7,
            early_ms: 3,
            brief: true,
            near: None,
        })
    );
    for line in [
        "F k WAIT",
        "F k WAIT x",
        "F k WAIT -1",
        "F k LEASE 0",
        "F k LEASE 10001",
        "F k EARLY",
        "F k EARLY -1",
        "F k EARLY 10001",
        "F k 0",
        "F k 10001",
        "F k 1x",
        "F k -1",
        "F k 1 2",
        "F k LEASE 9 1",
        "F k 1 LEASE",
        "F k FOO 1",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn scans() {
    let parse = |line: &str| Scan::parse(&line.split(' ').collect::<Vec<_>>()[..], 1, true);
    assert_eq!(
        parse("S 0"),
        Ok(Scan {
            cursor: 0,
            pattern_at: None,
            count: 100
        })
    );
    assert_eq!(
        parse("S 7 count 5 match p*"),
        Ok(Scan {
            cursor: 7,
            pattern_at: Some(5),
            count: 5
        })
    );
    for line in [
        "S x",
        "S -1",
        "S 0 COUNT 0",
        "S 0 COUNT 10001",
        "S 0 COUNT",
        "S 0 MATCH",
        "S 0 FOO",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
