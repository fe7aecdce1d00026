//! A list of tags in one buffer, and the namespace that is put before keys and tags.
//!
//! A product list carries several hundred tags; one allocation each would cost more than the command that
//! carries them. Knows nothing of providers.

use bytes::Bytes;

use crate::{Codec, Json};

/// An ordered list of tags, kept in one buffer. Tags are any bytes; duplicates are kept (the server ignores
/// them).
///
/// ```
/// let mut tags = mcache::Tags::from_iter(["Product:42", "Product:list:*"]);
/// tags.push("Region:eu");
/// assert_eq!(tags.len(), 3);
/// assert!(tags.contains("Region:eu"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    bytes: Vec<u8>,
    /// Where each tag ends in `bytes`; it begins where the one before ends.
    ends: Vec<usize>,
}

impl Tags {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the tag that is made of these parts, one after the other.
    ///
    /// ```
    /// let mut tags = mcache::Tags::new();
    /// tags.push_parts(&["Product:", "42"]);
    /// assert!(tags.contains("Product:42"));
    /// ```
    pub fn push_parts(&mut self, parts: &[impl AsRef<[u8]>]) {
        for part in parts {
            self.bytes.extend_from_slice(part.as_ref());
        }
        self.ends.push(self.bytes.len());
    }

    /// Adds one tag.
    pub fn push(&mut self, tag: impl AsRef<[u8]>) {
        self.push_parts(&[tag.as_ref()]);
    }

    /// How many tags there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether this very tag is in the list. Looks at each: meant for tests and small lists.
    pub fn contains(&self, tag: impl AsRef<[u8]>) -> bool {
        self.iter().any(|other| other == tag.as_ref())
    }

    /// The tags in the order they were added.
    pub fn iter(&self) -> TagsIter<'_> {
        TagsIter {
            tags: self,
            next: 0,
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        Some(&self.bytes[start..end])
    }
}

impl<T: AsRef<[u8]>> Extend<T> for Tags {
    fn extend<I: IntoIterator<Item = T>>(&mut self, tags: I) {
        for tag in tags {
            self.push(tag);
        }
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Tags {
    fn from_iter<I: IntoIterator<Item = T>>(tags: I) -> Self {
        let mut list = Self::new();
        list.extend(tags);
        list
    }
}

impl<'a> IntoIterator for &'a Tags {
    type Item = &'a [u8];
    type IntoIter = TagsIter<'a>;

    fn into_iter(self) -> TagsIter<'a> {
        self.iter()
    }
}

/// The tags of a [`Tags`], in order.
///
/// ```
/// let tags = mcache::Tags::from_iter(["a", "b"]);
/// let mut iter = tags.iter();
/// assert_eq!((iter.len(), iter.next()), (2, Some(&b"a"[..])));
/// ```
#[derive(Debug, Clone)]
pub struct TagsIter<'a> {
    tags: &'a Tags,
    next: usize,
}

impl<'a> Iterator for TagsIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let tag = self.tags.get(self.next)?;
        self.next += 1;
        Some(tag)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.tags.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for TagsIter<'_> {}

/// What is put before every key and tag of one environment: `<ns>:`.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    prefix: Bytes,
    everything: Bytes,
    /// Put before keys beside the prefix: how values are written, unless that is the usual way.
    form: Bytes,
}

/// A key that begins with this gets another one in front, so that no key looks like one with a form.
const FORM: u8 = b'#';

/// A tag that begins with this gets another one in front, so that no tag is the one of everything.
const EVERYTHING: u8 = b'*';

impl Namespace {
    /// `codec` and `schema` say how values are written: two ways of writing do not overwrite each other's entries. JSON
    /// of schema 0 is the usual way.
    pub(crate) fn new(name: &str, codec: u8, schema: u16) -> Self {
        // A colon ends the name, so the name has none: `a` with the key `b:k` is not `a:b` with the key `k`.
        let name = name.replace('%', "%25").replace(':', "%3A");
        let form = match (codec, schema) {
            (Json::ID, 0) => String::new(),
            _ => format!("#{codec}.{schema}:"),
        };
        Self {
            prefix: Bytes::from(format!("{name}:")),
            everything: Bytes::from(format!("{name}:*")),
            form: Bytes::from(form),
        }
    }

    /// What every key and tag of the namespace begins with.
    pub(crate) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The tag every entry of the namespace carries, so that clearing it is one command.
    pub(crate) fn everything(&self) -> &[u8] {
        &self.everything
    }

    /// The key as the provider knows it.
    pub(crate) fn qualify(&self, key: &[u8]) -> Bytes {
        let mut full = Vec::with_capacity(self.prefix.len() + self.form.len() + key.len() + 1);
        full.extend_from_slice(&self.prefix);
        full.extend_from_slice(&self.form);
        if key.first() == Some(&FORM) {
            full.push(FORM);
        }
        full.extend_from_slice(key);
        full.into()
    }

    /// As [`qualify`](Self::qualify), into a buffer; how long it is, or `None` if there is no room.
    pub(crate) fn qualify_into(&self, key: &[u8], buffer: &mut [u8]) -> Option<usize> {
        let doubled = match key.first() {
            Some(&FORM) => &[FORM][..],
            _ => &[],
        };
        let mut end = 0;
        for part in [&self.prefix[..], &self.form[..], doubled, key] {
            buffer.get_mut(end..end + part.len())?.copy_from_slice(part);
            end += part.len();
        }
        Some(end)
    }

    /// The key as its caller spelled it, but for a doubled first letter.
    pub(crate) fn key_of<'a>(&self, full: &'a [u8]) -> &'a [u8] {
        let start = self.prefix.len() + self.form.len();
        full.get(start..).unwrap_or_default()
    }

    /// The tags as the provider knows them.
    pub(crate) fn qualify_tags<I>(&self, tags: I) -> Tags
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut full = Tags::new();
        for tag in tags {
            self.push_full(&mut full, tag.as_ref());
        }
        full
    }

    fn push_full(&self, full: &mut Tags, tag: &[u8]) {
        let doubled = match tag.first() {
            Some(&EVERYTHING) => &[EVERYTHING][..],
            _ => &[],
        };
        full.push_parts(&[&self.prefix[..], doubled, tag]);
    }

    /// The tags a stored entry carries: its own, and the one that means all of the namespace.
    pub(crate) fn stored_tags(&self, tags: &Tags) -> Tags {
        let extra = (self.prefix.len() + 1) * tags.len() + self.everything.len();
        let mut full = Tags {
            bytes: Vec::with_capacity(tags.bytes.len() + extra),
            ends: Vec::with_capacity(tags.len() + 1),
        };
        for tag in tags {
            self.push_full(&mut full, tag);
        }
        full.push(&self.everything);
        full
    }

    /// The tag as the caller knows it; unchanged if it is not of this namespace.
    pub(crate) fn strip_tag<'a>(&self, full: &'a [u8]) -> &'a [u8] {
        match full.strip_prefix(&self.prefix[..]) {
            Some([EVERYTHING, tag @ ..]) => tag,
            Some(tag) => tag,
            None => full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_any_bytes_come_back_in_order() {
        let tags = Tags::from_iter([&b"a"[..], b"", b"\xff\x00", b"a"]);
        assert_eq!(
            tags.iter().collect::<Vec<_>>(),
            [&b"a"[..], b"", b"\xff\x00", b"a"]
        );
        assert_eq!(tags.iter().len(), 4);
        assert!(tags.contains(b"\xff\x00"));
        assert!(!tags.contains("b"));
    }

    #[test]
    fn a_namespace_is_put_before_keys_and_tags_and_taken_off_again() {
        let namespace = Namespace::new("eu", Json::ID, 0);
        assert_eq!(namespace.qualify(b"k"), "eu:k");
        assert_eq!(namespace.key_of(b"eu:k"), b"k");
        let stored = namespace.stored_tags(&Tags::from_iter(["Product:1"]));
        assert_eq!(
            stored.iter().collect::<Vec<_>>(),
            [&b"eu:Product:1"[..], b"eu:*"]
        );
        assert_eq!(namespace.strip_tag(b"eu:Product:1"), b"Product:1");
        assert_eq!(namespace.strip_tag(b"us:k"), b"us:k");
    }

    /// Names that look like what is put around them.
    const NAMES: [&str; 12] = [
        "", "a", "b", "a:b", "a%3Ab", ":", "*", "**", "#", "##", "#1.7:", "#1.7:a",
    ];

    #[test]
    fn no_spelling_of_a_key_or_namespace_reaches_another_entry() {
        let mut seen = std::collections::HashMap::new();
        for name in NAMES {
            for (codec, schema) in [(1, 0), (1, 7), (2, 0)] {
                let namespace = Namespace::new(name, codec, schema);
                for key in NAMES {
                    let who = (name, codec, schema, key);
                    let full = namespace.qualify(key.as_bytes());
                    let other = seen.insert(full.clone(), who);
                    assert_eq!(other, None, "{who:?} has the same key {full:?}");
                }
            }
        }
    }

    #[test]
    fn no_spelling_of_a_tag_or_namespace_reaches_another_tag_nor_everything() {
        let mut seen = std::collections::HashMap::new();
        for name in NAMES {
            let namespace = Namespace::new(name, Json::ID, 0);
            let everything = Bytes::copy_from_slice(namespace.everything());
            assert_eq!(seen.insert(everything, (name, None)), None);
            for tag in NAMES {
                let full = namespace.qualify_tags([tag]);
                let full = full.iter().next().expect("one");
                let who = (name, Some(tag));
                assert_eq!(namespace.strip_tag(full), tag.as_bytes());
                assert_eq!(
                    seen.insert(Bytes::copy_from_slice(full), who),
                    None,
                    "{who:?}"
                );
            }
        }
    }

    #[derive(serde::Deserialize)]
    struct Names {
        keys: Vec<KeyCase>,
        tags: Vec<TagCase>,
        everything: Vec<TagCase>,
    }

    #[derive(serde::Deserialize)]
    struct KeyCase {
        namespace: String,
        codec: u8,
        schema: u16,
        key: String,
        full: String,
    }

    #[derive(serde::Deserialize)]
    struct TagCase {
        namespace: String,
        #[serde(default)]
        tag: String,
        full: String,
    }

    #[test]
    fn names_are_spelled_as_every_client_spells_them() {
        let cases = include_str!("../vectors/names.json");
        let cases: Names = serde_json::from_str(cases).expect("JSON of the known form");
        for case in cases.keys {
            let namespace = Namespace::new(&case.namespace, case.codec, case.schema);
            assert_eq!(namespace.qualify(case.key.as_bytes()), case.full);
        }
        for case in cases.tags {
            let namespace = Namespace::new(&case.namespace, Json::ID, 0);
            let tags = namespace.qualify_tags([case.tag]);
            assert!(tags.contains(&case.full), "{}", case.full);
        }
        for case in cases.everything {
            let namespace = Namespace::new(&case.namespace, Json::ID, 0);
            assert_eq!(namespace.everything(), case.full.as_bytes());
        }
    }
}
