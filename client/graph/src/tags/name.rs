//! The text of tags: the vocabulary in which entries say what they were made from and changes say
//! what they changed. The two sides meet here and nowhere else.
//!
//! ```text
//! Entity:42                 the row 42, if any field of it changes
//! Entity:42#title           the row 42, if its title changes
//! Entity:42#+               the row 42, if it comes or goes
//! Entity:shop=7…            the rows whose shop is 7:      likewise, with #title and #+
//! Entity:shop=*…            the rows of some unknown shop: likewise
//! Entity:list:*             any row, if any field of it changes
//! Entity:list:title         any row, if its title changes
//! Entity:list:+             any row, if it comes or goes
//! Entity:*                  said by a change that may have touched any row in any way
//! ```
//!
//! `Entity:42` and `Entity:list:*` are Medusa's; the others are ours. Two meanings that happen to
//! share a text clear too much, never too little.

use std::borrow::Cow;

use mcache::Tags;
use xxhash_rust::xxh3::xxh3_128;

use super::super::schema::{Entity, FieldIndex, ID};
use super::super::tagset::TagSet;

/// Values longer than this are hashed: a tag is a name, not a copy of the data.
const VALUE_BYTES_MAX: usize = 64;

/// Some rows of an entity.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Region<'a> {
    /// All rows.
    All,
    /// The rows whose field (a lookup, or `id`) has the value, given as canonical text.
    Value(FieldIndex, &'a str),
    /// The rows whose lookup has a value that is not known.
    Unknown(FieldIndex),
}

/// What about these rows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aspect {
    /// Anything at all.
    Any,
    /// That there are such rows: one is created, deleted, or its lookup changes.
    Member,
    /// The value of a field, in a row that belongs to the region before and after.
    Field(FieldIndex),
}

/// Where tags are written: the set of an entry, or the list of what changes clear.
pub(crate) trait TagSink {
    /// Adds the tag made of these parts, unless the sink sees that it has it.
    fn insert_parts(&mut self, parts: &[&str]);

    /// Adds the tag made of these parts, which the caller knows not to be there.
    fn append(&mut self, parts: &[&str]) {
        self.insert_parts(parts);
    }
}

impl TagSink for TagSet {
    fn insert_parts(&mut self, parts: &[&str]) {
        Self::insert_parts(self, parts);
    }

    fn append(&mut self, parts: &[&str]) {
        Self::append(self, parts);
    }
}

/// As it is sent, but for the namespace; who tells it leaves repetitions out.
impl TagSink for Tags {
    fn insert_parts(&mut self, parts: &[&str]) {
        self.push_parts(parts);
    }
}

/// Writes tags of one entity.
pub(crate) struct TagWriter<'a, S = TagSet> {
    pub(crate) set: &'a mut S,
    pub(crate) entity: &'a Entity,
    /// Whether no tag is written twice, so that no check is needed.
    pub(crate) distinct: bool,
}

impl<S: TagSink> TagWriter<'_, S> {
    /// The tag every precise entry carries for each entity it was made from.
    pub(crate) fn put_entity(&mut self) {
        let entity = self.entity;
        self.add(&[&entity.name, ":*"]);
    }

    /// The tag of some aspect of some rows.
    pub(crate) fn put(&mut self, region: Region<'_>, aspect: Aspect) {
        let entity = self.entity;
        let name = &*entity.name;
        let field_name = |field: FieldIndex| &*entity.field_at(field).name;
        let what = match aspect {
            Aspect::Any => None,
            Aspect::Member => Some("+"),
            Aspect::Field(field) => Some(field_name(field)),
        };
        match (region, what) {
            (Region::All, what) => self.add(&[name, ":list:", what.unwrap_or("*")]),
            (Region::Value(ID, id), None) => self.add(&[name, ":", &short(id)]),
            (Region::Value(ID, id), Some(what)) => self.add(&[name, ":", &short(id), "#", what]),
            (Region::Value(field, value), None) => {
                self.add(&[name, ":", field_name(field), "=", &short(value)]);
            }
            (Region::Value(field, value), Some(what)) => {
                self.add(&[name, ":", field_name(field), "=", &short(value), "#", what]);
            }
            (Region::Unknown(field), None) => self.add(&[name, ":", field_name(field), "=*"]),
            (Region::Unknown(field), Some(what)) => {
                self.add(&[name, ":", field_name(field), "=*#", what]);
            }
        }
    }

    fn add(&mut self, parts: &[&str]) {
        if self.distinct {
            self.set.append(parts);
        } else {
            self.set.insert_parts(parts);
        }
    }
}

fn short(value: &str) -> Cow<'_, str> {
    if value.len() <= VALUE_BYTES_MAX {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("~{:032x}", xxh3_128(value.as_bytes())))
    }
}
