//! A set of tags in one buffer.
//!
//! A result can have hundreds of tags; building each as its own string and hashing it through a
//! map of strings would cost more than everything else about them.

use std::fmt;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Tags without repetition, in the order of their first insertion.
#[derive(Clone, Default)]
pub struct TagSet {
    text: String,
    /// Where each tag ends in `text`; it begins where the one before ends.
    ends: Vec<u32>,
    /// Positions in `ends`, by the hash of the tag.
    positions: HashTable<u32>,
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
        let start = self.text.len();
        for part in parts {
            self.text.push_str(part);
        }
        let tag = &self.text.as_bytes()[start..];
        let hash = xxh3_64(tag);
        let known = self.positions.find(hash, |&position| {
            slice(&self.text, &self.ends, position).as_bytes() == tag
        });
        // Four gigabytes of tags do not fit any server's limits; such a tag is not kept twice, it is
        // not kept at all only if the first four gigabytes were.
        let (None, Ok(end)) = (known, u32::try_from(self.text.len())) else {
            self.text.truncate(start);
            return false;
        };
        let position = self.ends.len() as u32;
        self.ends.push(end);
        let Self {
            text,
            ends,
            positions,
        } = self;
        positions.insert_unique(hash, position, |&position| {
            xxh3_64(slice(text, ends, position).as_bytes())
        });
        true
    }

    /// Makes room for so many more tags of so many bytes together.
    pub(crate) fn reserve(&mut self, tags: usize, bytes: usize) {
        self.text.reserve(bytes);
        self.ends.reserve(tags);
        let Self {
            text,
            ends,
            positions,
        } = self;
        positions.reserve(tags, |&position| {
            xxh3_64(slice(text, ends, position).as_bytes())
        });
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
        let is_it = |&position: &u32| slice(&self.text, &self.ends, position) == tag;
        self.positions.find(hash, is_it).is_some()
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
