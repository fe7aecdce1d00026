//! The slots of a cluster: which one a key is in, and which ones are on their way to other servers.
//!
//! Owns the hash and the list of exports. It must not know how slots are moved: Redis and Valkey say when a migration
//! begins and ends, this file remembers.

use std::ops::RangeInclusive;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// Rows of the CRC16 that clusters hash with (polynomial 0x1021, nothing reflected, starting at 0).
static TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 {
                crc << 1 ^ 0x1021
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// The slot of a key: of what stands between the first `{` and the first `}` behind it, if that is not nothing.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let inner = &key[open + 1..];
        let close = inner.iter().position(|b| *b == b'}')?;
        (close > 0).then(|| &inner[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// A key of two bytes in this slot. There is one for every slot: a CRC of 16 bits takes all its values over two bytes.
pub fn key_in(slot: u16) -> [u8; 2] {
    (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|key| crc16(key) % SLOTS == slot % SLOTS)
        .unwrap_or_default()
}

/// Sorts items by slot and hands out those of one slot at a time: a command that names keys of several slots cancels
/// every migration of slots that is under way.
pub fn by_slot<T>(mut items: Vec<(u16, T)>, mut each: impl FnMut(&[(u16, T)])) {
    items.sort_by_key(|(slot, _)| *slot);
    items
        .chunk_by(|(one, _), (other, _)| one == other)
        .for_each(&mut each);
}

/// The slots that are being sent to other servers, by migration.
#[derive(Default, Debug)]
pub struct Exports {
    under_way: Vec<Export>,
}

#[derive(Debug)]
struct Export {
    name: Box<[u8]>,
    /// A key of its first slot.
    key: [u8; 2],
}

impl Exports {
    /// A migration begins; what has no slots, or is known, changes nothing.
    pub fn started(&mut self, name: &[u8], slots: impl IntoIterator<Item = RangeInclusive<u16>>) {
        let first = slots.into_iter().find(|range| !range.is_empty());
        let known = self.under_way.iter().any(|export| *export.name == *name);
        // No two of them share a slot, so there are never more.
        let room = self.under_way.len() < usize::from(SLOTS);
        if let (Some(range), false, true) = (first, known, room) {
            self.under_way.push(Export {
                name: name.into(),
                key: key_in(*range.start()),
            });
        }
    }

    /// A migration is over, whether it succeeded or not.
    pub fn ended(&mut self, name: &[u8]) {
        self.under_way.retain(|export| *export.name != *name);
    }

    /// All are over: this server is no primary any more.
    pub fn clear(&mut self) {
        self.under_way.clear();
    }

    /// Whether any is under way.
    pub fn any(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// For each migration a key that takes a command to its destination.
    pub fn keys(&self) -> impl Iterator<Item = [u8; 2]> {
        self.under_way.iter().map(|export| export.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_the_slot_that_clusters_say() {
        // From the cluster specification, and from CLUSTER KEYSLOT.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, expected) in [
            (&b"foo"[..], 12_182),
            (b"bar", 5_061),
            (b"{user1000}.following", slot(b"user1000")),
            (b"foo{}{bar}", crc16(b"foo{}{bar}") % SLOTS),
            (b"foo{{bar}}zap", slot(b"{bar")),
            (b"foo{bar}{zap}", slot(b"bar")),
            (b"{unclosed", crc16(b"{unclosed") % SLOTS),
            (b"", 0),
        ] {
            assert_eq!(slot(key), expected, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn there_is_a_key_of_two_bytes_for_every_slot() {
        let mut reached = vec![false; usize::from(SLOTS)];
        for bytes in 0..=u16::MAX {
            reached[usize::from(slot(&bytes.to_be_bytes()))] = true;
        }
        assert!(reached.iter().all(|reached| *reached));
        for wanted in [0, 1, 5_461, 10_922, SLOTS - 1] {
            assert_eq!(slot(&key_in(wanted)), wanted);
        }
    }

    #[test]
    fn keys_are_handed_out_slot_by_slot() {
        let mut groups = Vec::new();
        by_slot(vec![(3, 'a'), (1, 'b'), (3, 'c')], |group| {
            groups.push(group.to_vec());
        });
        assert_eq!(groups, [vec![(1, 'b')], vec![(3, 'a'), (3, 'c')]]);
        by_slot(Vec::<(u16, char)>::new(), |_| unreachable!());
    }

    #[test]
    fn an_export_is_told_by_its_name_and_has_a_key_of_its_own_slots() {
        let mut exports = Exports::default();
        assert!(!exports.any());
        exports.started(b"one", [100..=200]);
        exports.started(b"two", [7..=7, 9..=10]);
        exports.started(b"two", [8..=8]);
        #[expect(clippy::reversed_empty_ranges, reason = "what a server might say")]
        exports.started(b"none", [5..=4]);
        let slots: Vec<u16> = exports.keys().map(|key| slot(&key)).collect();
        assert_eq!(slots, [100, 7]);
        exports.ended(b"nobody");
        exports.ended(b"one");
        assert!(exports.any());
        exports.ended(b"two");
        assert!(!exports.any());
        exports.started(b"three", [1..=1]);
        exports.clear();
        assert!(!exports.any());
    }
}
