use super::*;

const ATTRIBUTES: Attributes = Attributes {
    birth: Epoch(7),
    manual: true,
    swr_ms: 9,
    softened: true,
    ends_ms: 1_000,
};

#[test]
fn parts_do_not_touch_each_other() {
    for tags in [0, 1, 3, 675, MAX_TAGS] {
        for (key, value) in [
            (&b""[..], &b""[..]),
            (b"k", b"v"),
            (b"a key\0 of bytes", &[0xff; 4096]),
        ] {
            for swr_ms in [0, 1, u32::MAX] {
                let attributes = Attributes {
                    swr_ms,
                    ..ATTRIBUTES
                };
                let ids: Vec<u32> = (0..tags as u32).map(|i| i * 7).collect();
                let mut entry = Entry::new(key, value, attributes, &ids);
                for at in 0..tags {
                    entry.set_position(at, u32::MAX - at as u32);
                }
                assert_eq!(
                    (entry.key(), entry.value(), entry.tags()),
                    (key, value, &ids[..])
                );
                assert_eq!(entry.attributes(), attributes);
                assert!((0..tags).all(|at| entry.position(at) == u32::MAX - at as u32));
                assert!(!entry.is_linked());
                // SAFETY: not used afterwards.
                unsafe { entry.free() };
            }
        }
    }
}

#[test]
fn each_attribute_is_kept_beside_the_others_at_its_borders() {
    for bits in 0..4 {
        for birth in [Epoch::ZERO, Epoch(Epoch::END.0 - 1), Epoch(u64::MAX)] {
            for swr_ms in [0, 1, u32::MAX] {
                for ends_ms in [0, 1, NEVER - 1, NEVER] {
                    let attributes = Attributes::from_bits(bits, birth, swr_ms, ends_ms).unwrap();
                    let mut entry = Entry::new(b"key", b"value", attributes, &[1, 2]);
                    assert_eq!(entry.attributes(), attributes);
                    assert!(entry.overwrite(b"other", attributes));
                    assert_eq!(entry.attributes(), attributes);
                    let packed = attributes.pack();
                    assert_eq!(Attributes::unpack(packed, birth, ends_ms), Some(attributes));
                    assert_eq!((entry.key(), entry.tags().len()), (&b"key"[..], 2));
                    // SAFETY: not used afterwards.
                    unsafe { entry.free() };
                }
            }
        }
    }
}

#[test]
fn an_end_comes_nearer_and_never_goes_away() {
    let attributes = Attributes {
        softened: false,
        ends_ms: NEVER + 5,
        ..ATTRIBUTES
    };
    let mut entry = Entry::new(b"k", b"v", attributes, &[]);
    assert_eq!(entry.ends_ms(), NEVER, "too late to be one");
    assert_eq!(entry.attributes().fresh_until_ms(), NEVER);
    entry.end_by(500);
    entry.end_by(u64::MAX);
    entry.end_by(700);
    assert_eq!((entry.ends_ms(), entry.is_manual()), (500, true));
    assert_eq!(entry.attributes().fresh_until_ms(), 500 - 9);
    entry.soften(400);
    assert_eq!((entry.ends_ms(), entry.is_softened()), (400, true));
    assert_eq!(entry.attributes().fresh_until_ms(), 0);
    // SAFETY: not used afterwards.
    unsafe { entry.free() };
}

#[test]
fn a_value_is_overwritten_in_place_only_within_the_same_memory() {
    let mut entry = Entry::new(b"key", b"0123456789abcdefghij", ATTRIBUTES, &[1, 2]);
    let bytes = entry.bytes();
    let newer = Attributes {
        birth: Epoch(8),
        ..ATTRIBUTES
    };
    assert!(entry.overwrite(b"0123456789abcdefgh", newer));
    assert_eq!(
        (entry.value(), entry.key(), entry.birth()),
        (&b"0123456789abcdefgh"[..], &b"key"[..], Epoch(8))
    );
    assert_eq!(entry.bytes(), bytes);
    assert!(!entry.overwrite(&[0; 100], newer));
    assert_eq!(entry.value(), b"0123456789abcdefgh");
    // Without an SWR window there is room for four bytes more.
    let longest = bytes - HEADER - 2 * 8 - 3;
    let without = Attributes { swr_ms: 0, ..newer };
    assert!(!entry.overwrite(&vec![1; longest], newer));
    assert!(entry.overwrite(&vec![1; longest], without));
    assert_eq!(entry.value(), vec![1; longest]);
    assert_eq!((entry.attributes(), entry.bytes()), (without, bytes));
    assert!(entry.tell_stale() && !entry.tell_stale());
    assert_eq!((entry.value().len(), entry.bytes()), (longest, bytes));
    assert!(entry.overwrite(b"0123456789abcdefgh", newer));
    assert_eq!(entry.attributes(), newer);
    assert!(entry.tell_stale(), "another value");
    // SAFETY: not used afterwards.
    unsafe { entry.free() };
}
