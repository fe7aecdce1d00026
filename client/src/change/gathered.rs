//! The different tags of several lists, which are shared and not copied.
//!
//! What changed is written into one [`Tags`] for all targets; each target's inbox only remembers which of them it has
//! still to be told.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;

use crate::Tags;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    lists: Vec<Arc<Tags>>,
    /// Each different tag, in the order of hashes: which list, and which tag of it.
    seen: HashTable<Place>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    list: usize,
    tag: usize,
}

impl Gathered {
    /// Adds what is new of a list.
    pub(super) fn add(&mut self, tags: &Arc<Tags>) {
        let before = self.seen.len();
        self.see(tags.clone());
        let new = self.seen.len() - before;
        let list = self.lists.len() - 1;
        if new == 0 {
            self.lists.pop();
        } else if new < tags.len() / 2 {
            // Little of it is needed: a copy of that, or the lists could take any multiple of what is waited for.
            let mut places: Vec<usize> = self.places_of(list);
            places.sort_unstable();
            let few: Tags = places.iter().filter_map(|&tag| tags.get(tag)).collect();
            self.seen.retain(|place| place.list != list);
            self.lists.pop();
            self.see(Arc::new(few));
        }
    }

    fn see(&mut self, tags: Arc<Tags>) {
        let list = self.lists.len();
        self.lists.push(tags);
        let Self {
            lists,
            seen,
            hasher,
        } = self;
        for (tag, text) in lists[list].iter().enumerate() {
            let place = Place { list, tag };
            seen.entry(
                hasher.hash_one(text),
                |other| text_at(lists, *other) == text,
                |other| hasher.hash_one(text_at(lists, *other)),
            )
            .or_insert(place);
        }
    }

    fn places_of(&self, list: usize) -> Vec<usize> {
        let seen = self.seen.iter().filter(|place| place.list == list);
        seen.map(|place| place.tag).collect()
    }

    /// How many different tags.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn clear(&mut self) {
        self.lists.clear();
        self.seen.clear();
    }

    /// Each once, in the order in which they were added.
    pub(super) fn tags(&self) -> Vec<&[u8]> {
        let mut places: Vec<Place> = self.seen.iter().copied().collect();
        places.sort_unstable_by_key(|place| (place.list, place.tag));
        let texts = places.into_iter().map(|place| text_at(&self.lists, place));
        texts.collect()
    }
}

/// Places are of this list of lists, so there is always a tag.
fn text_at(lists: &[Arc<Tags>], place: Place) -> &[u8] {
    lists[place.list].get(place.tag).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tags: &[&str]) -> Arc<Tags> {
        Arc::new(tags.iter().collect())
    }

    #[test]
    fn each_tag_is_there_once_in_the_order_it_came() {
        let mut gathered = Gathered::default();
        gathered.add(&list(&["b", "a", "b"]));
        gathered.add(&list(&["a", "c", ""]));
        assert_eq!(gathered.tags(), [&b"b"[..], b"a", b"c", b""]);
        assert_eq!(gathered.len(), 4);
        gathered.clear();
        assert!(gathered.tags().is_empty());
        gathered.add(&list(&["c"]));
        assert_eq!(gathered.tags(), [b"c"]);
    }

    #[test]
    fn lists_are_shared_and_those_of_little_use_are_not_kept() {
        let mut gathered = Gathered::default();
        let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let numbers: Arc<Tags> = Arc::new(numbers.iter().collect());
        for _ in 0..1_000 {
            gathered.add(&numbers);
        }
        assert_eq!(gathered.lists.len(), 1);
        assert!(Arc::ptr_eq(&gathered.lists[0], &numbers), "not copied");
        for more in 0..1_000 {
            let mut known = (*numbers).clone();
            known.push(format!("new {more}"));
            gathered.add(&Arc::new(known));
        }
        assert_eq!(gathered.len(), 1_100);
        let held: usize = gathered.lists.iter().map(|list| list.len()).sum();
        assert_eq!(held, 1_100, "no list is kept for one tag of a hundred");
    }
}
