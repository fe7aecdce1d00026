//! How far one consumer has come, and when it may say so.
//!
//! Owns [`Snapshot`], a position that cannot be wrong, and [`Ledger`], which knows what is in hand. Pure: it must not
//! know connections, and the database alone decides which rows a snapshot leaves.
//!
//! Transactions commit in another order than they took their ids in, so "everything up to number n" is not a position.
//! A snapshot is: it names the transactions that were still open when it was taken, and what these transactions write
//! is not behind it. It is stored in the database it speaks of, so a restore or a failover takes both back to the same
//! moment.

use std::collections::BTreeMap;

/// What PostgreSQL calls a `pg_snapshot`: everything below `xmax` has ended, except what is in `open`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    text: String,
    xmax: u64,
    open: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:open,open,…`. `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let _xmin: u64 = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let open: Option<Vec<u64>> = match parts.next()? {
            "" => Some(Vec::new()),
            open => open.split(',').map(|xid| xid.parse().ok()).collect(),
        };
        (parts.next().is_none()).then_some(Self {
            text: text.to_owned(),
            xmax,
            open: open?,
        })
    }

    /// As PostgreSQL writes it.
    pub(super) fn as_text(&self) -> &str {
        &self.text
    }

    /// No transaction from this id on had ended. What is not behind this snapshot is of these, or of the
    /// [`open`](Self::open).
    pub(super) fn xmax(&self) -> String {
        self.xmax.to_string()
    }

    /// The transactions below that had not ended.
    pub(super) fn open(&self) -> Vec<String> {
        self.open.iter().map(u64::to_string).collect()
    }

    /// Whether this transaction had not begun.
    pub(super) fn is_before(&self, xid: &str) -> bool {
        xid.parse().is_ok_and(|xid: u64| xid >= self.xmax)
    }

    /// Whether every transaction that had begun before the other was taken has ended.
    pub(super) fn outlives(&self, other: &Self) -> bool {
        self.open.iter().all(|&open| open >= other.xmax) && self.xmax >= other.xmax
    }

    /// Whether this one was taken later than the other, or at the same moment.
    pub(super) fn is_beyond(&self, other: &Self) -> bool {
        self.xmax >= other.xmax
    }
}

/// What was handed out and how far acknowledging it carries.
///
/// Batches are acknowledged in any order. The position moves over a batch only when all that were handed out before it
/// are acknowledged, too.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    last: u64,
    /// Handed out, not acknowledged.
    open: BTreeMap<u64, Option<Snapshot>>,
    /// Acknowledged, but something before it is not.
    ahead: BTreeMap<u64, Option<Snapshot>>,
}

impl Ledger {
    /// A batch is handed out; once it and all before it are acknowledged, everything behind `position` is.
    pub(super) fn hand_out(&mut self, position: Option<Snapshot>) -> u64 {
        self.last += 1;
        self.open.insert(self.last, position);
        self.last
    }

    /// Nothing was found up to `position`: there is nothing to acknowledge, but something before it may be in hand.
    pub(super) fn pass(&mut self, position: Snapshot) -> Option<Snapshot> {
        self.last += 1;
        // Only the last of several is of use, and looks are many while a batch hangs.
        if let Some(mut entry) = self.ahead.last_entry()
            && self
                .open
                .last_key_value()
                .is_none_or(|(&open, _)| open < *entry.key())
        {
            entry.insert(Some(position));
        } else {
            self.ahead.insert(self.last, Some(position));
        }
        self.advance()
    }

    /// A batch is acknowledged. The new position, if it moved.
    pub(super) fn acknowledged(&mut self, number: u64) -> Option<Snapshot> {
        let position = self.open.remove(&number)?;
        self.ahead.insert(number, position);
        self.advance()
    }

    /// How many batches are in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.open.len()
    }

    fn advance(&mut self) -> Option<Snapshot> {
        let first_open = self.open.first_key_value().map(|(&number, _)| number);
        let mut reached = None;
        while let Some(entry) = self.ahead.first_entry()
            && first_open.is_none_or(|open| *entry.key() < open)
        {
            reached = entry.remove().or(reached);
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(xmax: u64) -> Snapshot {
        Snapshot::parse(&format!("{xmax}:{xmax}:")).unwrap()
    }

    #[test]
    fn a_snapshot_names_what_is_not_behind_it() {
        let snapshot = Snapshot::parse("10:20:10,14").unwrap();
        assert_eq!(
            (snapshot.xmax(), snapshot.open()),
            ("20".into(), vec!["10".into(), "14".into()])
        );
        assert_eq!(snapshot.as_text(), "10:20:10,14");
        assert!(at(20).is_beyond(&snapshot) && !snapshot.is_beyond(&at(21)));
        assert!(snapshot.is_before("20") && !snapshot.is_before("19") && !snapshot.is_before("x"));
        for (later, outlives) in [
            ("10:30:10", false),
            ("19:30:19", false),
            ("20:30:20", true),
            ("30:30:", true),
        ] {
            assert_eq!(
                Snapshot::parse(later).unwrap().outlives(&snapshot),
                outlives,
                "{later}"
            );
        }
        for nonsense in ["", "1:2", "a:2:", "1:2:x", "1:2::"] {
            assert_eq!(Snapshot::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_position_never_overtakes_what_is_in_hand() {
        let mut ledger = Ledger::default();
        let first = ledger.hand_out(None);
        let second = ledger.hand_out(Some(at(10)));
        let third = ledger.hand_out(Some(at(20)));
        assert_eq!(ledger.acknowledged(third), None);
        assert_eq!(
            ledger.acknowledged(first),
            None,
            "its position comes with the second"
        );
        assert_eq!(ledger.acknowledged(second), Some(at(20)));
        assert_eq!(ledger.acknowledged(second), None, "twice is once");
        assert_eq!(ledger.in_hand(), 0);
    }

    #[test]
    fn looks_that_find_nothing_move_on_when_nothing_is_in_hand() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.pass(at(5)), Some(at(5)));
        let batch = ledger.hand_out(Some(at(10)));
        for later in 11..1_000 {
            assert_eq!(ledger.pass(at(later)), None);
        }
        assert_eq!(ledger.ahead.len(), 1, "and what waits stays small");
        let next = ledger.hand_out(Some(at(2_000)));
        assert_eq!(ledger.acknowledged(batch), Some(at(999)));
        assert_eq!(ledger.acknowledged(next), Some(at(2_000)));
    }
}
