//! What stands for a tag in the script: eight bytes, the same in every process and in every language.

/// FNV-1a of 64 bits, its bits then mixed so that the first byte, which names the group, is as good as any. Two tags
/// with the same digest are invalidated together: a user that chooses tags can make that happen, and only gains one
/// more load of a value.
pub(super) fn digest(tag: &[u8]) -> u64 {
    let hash = tag.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// Each once, in order: the tags of one group are next to each other.
pub(super) fn digests<'a>(tags: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut digests: Vec<u64> = tags.map(digest).collect();
    digests.sort_unstable();
    digests.dedup();
    digests.into_iter().flat_map(u64::to_be_bytes).collect()
}

/// What is invalidated when a key is cleared, so that a fill under way is refused. No tag of a cache looks like it.
pub(super) fn mark(key: &[u8]) -> [u8; 8] {
    digest(&[&b"\0cleared\0"[..], key].concat()).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_it_has_always_been() {
        assert_eq!(digest(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(digest(b"store-eu:Product:42"), 0xdb55_a054_a808_69ab);
        assert_ne!(digest(b"a"), digest(b"b"));
    }

    #[test]
    fn groups_are_about_equally_full() {
        let mut groups = [0_u32; 256];
        for number in 0..25_600 {
            groups[(digest(format!("eu:Product:{number}").as_bytes()) >> 56) as usize] += 1;
        }
        assert!(
            groups.iter().all(|tags| (50..160).contains(tags)),
            "{groups:?}"
        );
    }

    #[test]
    fn each_digest_is_there_once() {
        let tags: [&[u8]; 4] = [b"a", b"b", b"a", b"c"];
        assert_eq!(digests(tags.into_iter()).len(), 24);
    }
}
