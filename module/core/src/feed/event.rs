//! Events: what the feed tells, and how it is written for subscribers.

use super::digest::HashKey;
use super::prefixes::Prefixes;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// INVALIDATE: everything that carries one of the tags.
    Hard,
    /// INVALIDATE AUTO: the same but MANUAL entries.
    Auto,
    /// INVALIDATE SOFT.
    Soft,
    /// Something changed under a key in one of these cells.
    Key,
    /// These slots are served by another server now.
    Slots,
    /// Everything in the database.
    Flush,
    /// Everything on the server.
    Floor,
}

impl Kind {
    const ALL: [(u8, Kind); 7] = [
        (b'h', Kind::Hard),
        (b'a', Kind::Auto),
        (b's', Kind::Soft),
        (b'k', Kind::Key),
        (b'l', Kind::Slots),
        (b'f', Kind::Flush),
        (b'r', Kind::Floor),
    ];

    /// The letter on the wire.
    pub fn letter(self) -> u8 {
        match self {
            Kind::Hard => b'h',
            Kind::Auto => b'a',
            Kind::Soft => b's',
            Kind::Key => b'k',
            Kind::Slots => b'l',
            Kind::Flush => b'f',
            Kind::Floor => b'r',
        }
    }

    /// The kind of a letter.
    pub fn from_letter(letter: u8) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|(known, _)| *known == letter)
            .map(|(_, kind)| kind)
    }

    /// Whether the items are digests of tags, so that prefixes select among them.
    fn is_about_tags(self) -> bool {
        matches!(self, Kind::Hard | Kind::Auto | Kind::Soft)
    }
}

/// All databases, where a database is asked for.
pub const ALL_DATABASES: u32 = u32::MAX;

/// One event in the log. Its number is its place there.
#[derive(Debug)]
pub(super) struct Event {
    pub db: u32,
    pub kind: Kind,
    /// Digests of tags, cells of keys, or ranges of slots (first << 32 | last).
    items: Box<[u64]>,
    /// The names of the tags, one after the other, and where each ends: prefixes are compared with them. They are never
    /// sent.
    names: Box<[u8]>,
    ends: Box<[u32]>,
}

impl Event {
    /// Of tags.
    pub fn tags<'a>(
        db: u32,
        kind: Kind,
        tags: impl Iterator<Item = &'a [u8]>,
        key: &HashKey,
    ) -> Self {
        let (mut items, mut names, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for tag in tags {
            items.push(key.digest(tag));
            names.extend_from_slice(tag);
            ends.push(names.len() as u32);
        }
        Event {
            db,
            kind,
            items: items.into(),
            names: names.into(),
            ends: ends.into(),
        }
    }

    /// Of anything else.
    pub fn other(db: u32, kind: Kind, items: Box<[u64]>) -> Self {
        Event {
            db,
            kind,
            items,
            names: Box::default(),
            ends: Box::default(),
        }
    }

    /// Bytes that it takes in the log.
    pub fn bytes(&self) -> usize {
        size_of::<Event>() + self.items.len() * 8 + self.names.len() + self.ends.len() * 4
    }

    /// What it costs to find out whom it concerns, in comparisons.
    pub fn weight(&self, prefixes: &Prefixes) -> usize {
        1 + self.ends.len() * prefixes.weight()
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().enumerate().map(|(n, end)| {
            let from = n.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.names[from as usize..*end as usize]
        })
    }

    fn reaches(&self, db: u32) -> bool {
        // A key's cell does not say the database, so it is told to all.
        self.db == db || self.db == ALL_DATABASES || self.kind == Kind::Key
    }

    /// Whether a subscription of this database and these prefixes has to be told.
    pub fn concerns(&self, db: u32, prefixes: &Prefixes) -> bool {
        self.reaches(db)
            && (!self.kind.is_about_tags() || self.names().any(|name| prefixes.cover(name)))
    }

    /// Appends what such a subscription is told; how many items that is.
    ///
    /// ```text
    ///   number 8 │ database 4 │ kind 1 │ items 4 │ item 8 × items        little-endian
    /// ```
    pub fn write(&self, number: u64, db: u32, prefixes: &Prefixes, out: &mut Vec<u8>) -> usize {
        if !self.concerns(db, prefixes) {
            return 0;
        }
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&self.db.to_le_bytes());
        out.push(self.kind.letter());
        let count_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut items = 0u32;
        if self.kind.is_about_tags() {
            for (name, digest) in self.names().zip(&self.items) {
                if prefixes.cover(name) {
                    out.extend_from_slice(&digest.to_le_bytes());
                    items += 1;
                }
            }
        } else {
            for item in &self.items {
                out.extend_from_slice(&item.to_le_bytes());
                items += 1;
            }
        }
        out[count_at..count_at + 4].copy_from_slice(&items.to_le_bytes());
        1 + items as usize
    }
}

/// One event as a subscriber reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// Its place in the feed.
    pub number: u64,
    /// Of which database, or [`ALL_DATABASES`].
    pub db: u32,
    /// What happened.
    pub kind: Kind,
    /// Digests, cells or ranges of slots.
    pub items: Vec<u64>,
}

/// Reads what `write` wrote; `None` if it is anything else.
pub fn read(mut bytes: &[u8]) -> Option<Vec<Told>> {
    let mut told = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(17)?;
        let number = u64::from_le_bytes(head[..8].try_into().ok()?);
        let db = u32::from_le_bytes(head[8..12].try_into().ok()?);
        let kind = Kind::from_letter(head[12])?;
        let items = u32::from_le_bytes(head[13..].try_into().ok()?) as usize;
        let (items, rest) = rest.split_at_checked(items.checked_mul(8)?)?;
        let items = items
            .chunks_exact(8)
            .filter_map(|item| item.try_into().ok().map(u64::from_le_bytes));
        told.push(Told {
            number,
            db,
            kind,
            items: items.collect(),
        });
        bytes = rest;
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> HashKey {
        HashKey::new([9; 16])
    }

    #[test]
    fn a_subscriber_is_told_what_its_prefixes_cover_and_no_name() {
        let tags = [b"eu:a".as_slice(), b"us:b", b"eu:c"];
        let event = Event::tags(3, Kind::Auto, tags.into_iter(), &key());
        let eu = Prefixes::new([b"eu:".as_slice()].into_iter()).expect("one");
        let mut out = Vec::new();
        assert_eq!(event.write(7, 3, &eu, &mut out), 3);
        assert!(!out.windows(2).any(|bytes| bytes == b"eu"));
        let told = read(&out).expect("what was written");
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].number, told[0].db, told[0].kind),
            (7, 3, Kind::Auto)
        );
        assert_eq!(
            told[0].items,
            [key().digest(b"eu:a"), key().digest(b"eu:c")]
        );

        let asia = Prefixes::new([b"asia:".as_slice()].into_iter()).expect("one");
        out.clear();
        assert_eq!(event.write(7, 3, &asia, &mut out), 0);
        assert_eq!(event.write(7, 4, &eu, &mut out), 0, "another database");
        assert!(out.is_empty());
        let cell = Event::other(3, Kind::Key, [5].into());
        assert!(
            cell.concerns(4, &asia),
            "cells are told to every subscriber"
        );
    }

    #[test]
    fn what_is_cut_off_or_made_up_is_no_event() {
        let mut out = Vec::new();
        Event::tags(0, Kind::Hard, [b"t".as_slice()].into_iter(), &key()).write(
            1,
            0,
            &Prefixes::all(),
            &mut out,
        );
        for end in 1..out.len() {
            assert_eq!(read(&out[..end]), None);
        }
        out[12] = b'?';
        assert_eq!(read(&out), None);
        out[12] = b'h';
        out[13..17].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&out), None, "a count is not believed");
        for (letter, kind) in Kind::ALL {
            assert_eq!(
                (kind.letter(), Kind::from_letter(letter)),
                (letter, Some(kind))
            );
        }
    }
}
