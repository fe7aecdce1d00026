//! The hash slots that this server owns in a cluster, and what changed.

/// Slots of a cluster.
pub const SLOTS: usize = 16_384;
/// More ranges than these are told as everything.
const MAX_RANGES: usize = 256;

/// A set of slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; SLOTS / 64]>);

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet(Box::new([0; SLOTS / 64]))
    }
}

impl SlotSet {
    /// Adds the slots of a range, both ends included.
    pub fn add(&mut self, first: u16, last: u16) {
        for slot in first..=last.min(SLOTS as u16 - 1) {
            self.0[usize::from(slot) / 64] |= 1 << (slot % 64);
        }
    }

    /// Whether a slot is in it.
    pub fn has(&self, slot: u16) -> bool {
        let slot = usize::from(slot);
        slot < SLOTS && self.0[slot / 64] & 1 << (slot % 64) != 0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Those that the other set has not.
    pub fn without(&self, other: &SlotSet) -> SlotSet {
        let mut rest = self.clone();
        for (word, other) in rest.0.iter_mut().zip(other.0.iter()) {
            *word &= !other;
        }
        rest
    }

    /// As items of an event, `first << 32 | last` each; `None` if they are too many.
    pub(super) fn ranges(&self) -> Option<Box<[u64]>> {
        let mut ranges: Vec<u64> = Vec::new();
        let mut slot = 0u64;
        while slot < SLOTS as u64 {
            if !self.has(slot as u16) {
                slot += 1;
                continue;
            }
            let first = slot;
            while slot < SLOTS as u64 && self.has(slot as u16) {
                slot += 1;
            }
            if ranges.len() == MAX_RANGES {
                return None;
            }
            ranges.push(first << 32 | (slot - 1));
        }
        Some(ranges.into())
    }
}

/// A line of CLUSTER NODES:
///
/// ```text
///   id address flags primary ping pong epoch state range ...      a range: 5, 0-99; [7->-id] is on its way
/// ```
struct Line<'a> {
    /// `host:port@bus-port`, behind which names may stand.
    address: &'a [u8],
    flags: &'a [u8],
    slots: SlotSet,
}

impl<'a> Line<'a> {
    fn read(line: &'a [u8]) -> Option<Line<'a>> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (address, flags) = (fields.nth(1)?, fields.next()?);
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse::<u16>().ok();
        let mut slots = SlotSet::default();
        for range in fields.skip(5).filter(|range| !range.starts_with(b"[")) {
            let mut ends = range.splitn(2, |byte| *byte == b'-');
            let first = ends.next().and_then(number);
            let last = ends.next().map_or(first, number);
            if let (Some(first), Some(last)) = (first, last) {
                slots.add(first, last);
            }
        }
        Some(Line {
            address,
            flags,
            slots,
        })
    }

    fn is_myself(&self) -> bool {
        let mut flags = self.flags.split(|byte| *byte == b',');
        flags.any(|flag| flag == b"myself")
    }
}

fn lines(nodes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    nodes.split(|byte| *byte == b'\n').filter_map(Line::read)
}

impl SlotSet {
    /// The slots of the server itself in a reply of CLUSTER NODES; `None` if it is not in it.
    pub fn of_myself(nodes: &[u8]) -> Option<SlotSet> {
        lines(nodes).find(Line::is_myself).map(|line| line.slots)
    }
}

/// What a client is told whose key is in a slot that this server does not have, by a reply of CLUSTER NODES: where it
/// is.
pub fn redirection(nodes: &[u8], slot: u16) -> String {
    let owner = lines(nodes).find(|line| line.slots.has(slot) && !line.is_myself());
    let address = owner.and_then(|line| {
        let end = line.address.iter().position(|byte| *byte == b'@')?;
        std::str::from_utf8(&line.address[..end]).ok()
    });
    match address {
        Some(address) => format!("MOVED {slot} {address}"),
        None => "CLUSTERDOWN Hash slot not served".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_slots_are_read_from_the_list_of_nodes() {
        let nodes = b"e7d1 127.0.0.1:30004@31004,host slave 67ed 0 1426238317239 4 connected\n\
            07c3 127.0.0.1:30001@31001,host myself,master - 0 0 1 connected 0-5460 6000 [93-<-292f]\n\
            292f 127.0.0.1:30003@31003,host master - 0 1426238318243 3 connected 10923-16383\n";
        let slots = SlotSet::of_myself(nodes).expect("it is there");
        assert_eq!(*slots.ranges().expect("few"), [5_460, 6_000 << 32 | 6_000]);
        assert!(SlotSet::of_myself(b"nonsense\n\n a b").is_none());
        assert!(SlotSet::of_myself(b"a b myself - 0 0 1 connected").is_some_and(|s| s.is_empty()));
    }

    #[test]
    fn a_client_is_sent_to_the_server_that_has_the_slot() {
        let nodes = b"e7d1 127.0.0.1:30004@31004,host slave 07c3 0 1 4 connected\n\
            07c3 127.0.0.1:30001@31001,host myself,master - 0 0 1 connected 0-5460\n\
            292f ::1:30003@31003 master - 0 1 3 connected 10923-16383 [93-<-07c3]\n";
        assert_eq!(redirection(nodes, 10_923), "MOVED 10923 ::1:30003");
        for slot in [0, 93, 6_000] {
            assert_eq!(
                redirection(nodes, slot),
                "CLUSTERDOWN Hash slot not served",
                "{slot}"
            );
        }
    }

    #[test]
    fn what_was_lost_is_told_as_ranges() {
        let (mut before, mut after) = (SlotSet::default(), SlotSet::default());
        before.add(0, 16_383);
        after.add(10, 12);
        after.add(100, 16_383);
        let lost = before.without(&after).ranges().expect("few");
        assert_eq!(*lost, [9, 13 << 32 | 99]);
        assert!(after.without(&before).is_empty() && !after.is_empty());
        let mut scattered = SlotSet::default();
        for slot in (0..16_384).step_by(2) {
            scattered.add(slot, slot);
        }
        assert_eq!(scattered.ranges(), None);
    }
}
