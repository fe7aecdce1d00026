//! A set of tags in one buffer.
//!
//! A result can have hundreds of tags; building each as its own string and hashing it through a
//! map of strings would cost more than everything else about them. Where tags cannot repeat, not even
//! the set's own index is kept up: hashing what was written a moment ago is most of the cost.

use std::fmt;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

/// Tags without repetition, in the order of their first insertion.
///
/// ```
/// use mcache_graph::TagSet;
///
/// let mut tags = TagSet::new();
/// tags.extend(["Product:p1", "Product:list:*", "Product:p1"]);
/// assert_eq!(tags.iter().collect::<Vec<_>>(), ["Product:p1", "Product:list:*"]);
/// ```
#[derive(Clone, Default)]
pub struct TagSet {
    text: String,
    /// Where each tag ends in `text`; it begins where the one before ends.
    ends: Vec<u32>,
    slots: HashTable<Slot>,
    /// How many of the tags `slots` knows; those behind were [appended](Self::append).
    indexed: usize,
}

/// A tag, by its position in `ends`. The hash is kept so that growing does not look at the text.
#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    position: u32,
}

impl TagSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag; `false` if it was there.
    pub fn insert(&mut self, tag: &str) -> bool {
        self.insert_parts(&[tag])
    }

    /// Adds the tag made of these parts; `false` if it was there.
    pub(crate) fn insert_parts(&mut self, parts: &[&str]) -> bool {
        while self.indexed < self.ends.len() {
            self.index_next();
        }
        self.append(parts);
        if self.indexed == self.ends.len() || self.index_next() {
            return true;
        }
        self.ends.pop();
        self.indexed = self.ends.len();
        self.text
            .truncate(self.ends.last().map_or(0, |&end| end as usize));
        false
    }

    /// Adds the tag made of these parts, which the caller knows not to be there. If it is there all
    /// the same, it is kept twice, which costs its bytes and nothing else.
    pub(crate) fn append(&mut self, parts: &[&str]) {
        let start = self.text.len();
        for part in parts {
            self.text.push_str(part);
        }
        // Four gigabytes of tags in one set exceed every limit of every server by far.
        match u32::try_from(self.text.len()) {
            Ok(end) => self.ends.push(end),
            Err(_) => self.text.truncate(start),
        }
    }

    /// Indexes the first tag that is not; `false` if the index has an equal one.
    fn index_next(&mut self) -> bool {
        let position = self.indexed as u32;
        self.indexed += 1;
        let Self {
            text, ends, slots, ..
        } = self;
        let tag = slice(text, ends, position);
        let hash = xxh3_64(tag.as_bytes());
        let same = |slot: &Slot| slot.hash == hash && slice(text, ends, slot.position) == tag;
        match slots.entry(hash, same, |slot| slot.hash) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { hash, position });
                true
            }
        }
    }

    /// Makes room for so many more tags of so many bytes together.
    pub(crate) fn reserve(&mut self, tags: usize, bytes: usize) {
        self.text.reserve(bytes);
        self.ends.reserve(tags);
    }

    /// How many tags there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether the tag is in the set.
    pub fn contains(&self, tag: &str) -> bool {
        let hash = xxh3_64(tag.as_bytes());
        let same =
            |slot: &Slot| slot.hash == hash && slice(&self.text, &self.ends, slot.position) == tag;
        let appended = self.indexed..self.ends.len();
        self.slots.find(hash, same).is_some()
            || appended
                .into_iter()
                .any(|position| slice(&self.text, &self.ends, position as u32) == tag)
    }

    /// The tags, in the order of their insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        (0..self.ends.len()).map(|position| slice(&self.text, &self.ends, position as u32))
    }
}

fn slice<'a>(text: &'a str, ends: &[u32], position: u32) -> &'a str {
    let position = position as usize;
    let start = match position {
        0 => 0,
        _ => ends[position - 1] as usize,
    };
    &text[start..ends[position] as usize]
}

impl<'a> Extend<&'a str> for TagSet {
    fn extend<I: IntoIterator<Item = &'a str>>(&mut self, tags: I) {
        for tag in tags {
            self.insert(tag);
        }
    }
}

impl fmt::Debug for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_kept_once_and_in_order() {
        let mut tags = TagSet::new();
        assert!(tags.insert_parts(&["Product:", "1"]));
        assert!(tags.insert("Product:2"));
        assert!(!tags.insert("Product:1"));
        assert!(tags.insert(""));
        assert_eq!(
            tags.iter().collect::<Vec<_>>(),
            ["Product:1", "Product:2", ""]
        );
        assert!(tags.contains("Product:2") && !tags.contains("Product:"));
    }

    #[test]
    fn tags_appended_unseen_are_found_and_not_inserted_again() {
        let mut tags = TagSet::new();
        tags.append(&["a"]);
        tags.append(&["b", "c"]);
        assert!(tags.contains("bc") && !tags.contains("b"));
        assert!(!tags.insert("a"));
        assert!(tags.insert("d"));
        tags.append(&["e"]);
        assert!(!tags.insert("e") && !tags.insert("bc") && !tags.insert("d"));
        assert_eq!(tags.iter().collect::<Vec<_>>(), ["a", "bc", "d", "e"]);
    }

    #[test]
    fn thousands_of_tags_are_all_found_again() {
        let mut tags = TagSet::new();
        tags.reserve(10, 10);
        for round in 0..2 {
            for number in 0..5_000 {
                assert_eq!(tags.insert(&format!("T:{number}")), round == 0);
            }
        }
        assert_eq!(tags.len(), 5_000);
        assert!((0..5_000).all(|number| tags.contains(&format!("T:{number}"))));
    }
}
