//! Prefixes: which names a subscription is about.

use crate::error::Error;

/// Most prefixes of one subscription or of one SETTLE.
pub const MAX_PREFIXES: usize = 16;

/// A set of prefixes, sorted, none of which begins with another. Without any it is about every name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Prefixes(Box<[Box<[u8]>]>);

impl Prefixes {
    /// Every name.
    pub fn all() -> Self {
        Prefixes::default()
    }

    /// The set of these.
    ///
    /// # Errors
    /// More than [`MAX_PREFIXES`].
    pub fn new<'a>(prefixes: impl Iterator<Item = &'a [u8]>) -> Result<Self, Error> {
        let mut all: Vec<Box<[u8]>> = prefixes.take(MAX_PREFIXES + 1).map(Box::from).collect();
        if all.len() > MAX_PREFIXES {
            return Err(Error::TooManyPrefixes { max: MAX_PREFIXES });
        }
        all.sort_unstable();
        // Sorted, what begins with another follows it at once or after others that do as well.
        let mut kept: Vec<Box<[u8]>> = Vec::with_capacity(all.len());
        for prefix in all {
            if !kept.last().is_some_and(|last| prefix.starts_with(last)) {
                kept.push(prefix);
            }
        }
        // The empty prefix begins every name.
        if kept.first().is_some_and(|first| first.is_empty()) {
            kept.clear();
        }
        Ok(Prefixes(kept.into()))
    }

    /// Whether a name begins with one of them.
    pub fn cover(&self, name: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Whether there can be a name that both cover.
    pub fn overlap(&self, other: &Prefixes) -> bool {
        self.0.is_empty()
            || other.0.is_empty()
            || self
                .0
                .iter()
                .any(|a| other.0.iter().any(|b| a.starts_with(b) || b.starts_with(a)))
    }

    /// What a name costs to be compared with, in comparisons.
    pub fn weight(&self) -> usize {
        self.0.len().max(1)
    }

    /// Each of them; none where every name is meant.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|prefix| &**prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(prefixes: &[&str]) -> Prefixes {
        Prefixes::new(prefixes.iter().map(|p| p.as_bytes())).expect("few enough")
    }

    #[test]
    fn order_repetition_and_what_another_covers_make_no_difference() {
        assert_eq!(set(&["b", "a"]), set(&["a", "b", "a", "ab", "b:c"]));
        assert_eq!(set(&["a", ""]), Prefixes::all());
        assert!(Prefixes::new([b"x".as_slice(); MAX_PREFIXES + 1].into_iter()).is_err());
    }

    #[test]
    fn prefixes_overlap_exactly_if_some_name_is_covered_by_both() {
        let names = ["", "a", "ab", "abc", "b", "ba", "c"];
        let sets = [
            Prefixes::all(),
            set(&["a"]),
            set(&["ab"]),
            set(&["b", "c"]),
            set(&["ba", "abc"]),
        ];
        for a in &sets {
            for b in &sets {
                let both = names
                    .iter()
                    .any(|name| a.cover(name.as_bytes()) && b.cover(name.as_bytes()));
                assert_eq!(a.overlap(b), both, "{a:?} {b:?}");
            }
        }
    }
}
