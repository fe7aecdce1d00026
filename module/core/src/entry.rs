//! One cached value in one allocation.
//!
//! ```text
//!   0            32              32+4n         32+8n        32+8n+k
//!   ┌────────────┬───────────────┬─────────────┬────────────┬──────────────┐
//!   │ header     │ tags: n × u32 │ positions:  │ key        │ value        │  rounded up to 16 bytes
//!   │            │ (record ids)  │ n × u32     │ k bytes    │ v bytes      │
//!   └────────────┴───────────────┴─────────────┴────────────┴──────────────┘
//! ```
//!
//! `positions[i]` is where the entry stands in the member list of `tags[i]`. The key is kept because whoever frees a
//! dead entry has nothing but the entry, and Redis deletes by name.
//!
//! This is the one file of the crate with `unsafe`: the layout above does not exist as a Rust type. An [`Entry`] is
//! owned by whoever allocated it (in the server: by the keyspace, through the data type's callbacks); the index keeps
//! copies of the pointer and must be told before the entry goes away.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{NonNull, copy_nonoverlapping};
use std::slice::from_raw_parts;

use crate::epoch::Epoch;

/// Most tags that an entry can carry, whatever the configuration says.
pub const MAX_TAGS: usize = u16::MAX as usize;
/// Longest value and longest key in bytes (Redis's own default limit for a string is 512 MB).
pub const MAX_BYTES: usize = u32::MAX as usize / 2;

/// Not linked into an index.
pub(crate) const UNLINKED: u32 = u32::MAX;

const MANUAL: u8 = 1;
const SOFTENED: u8 = 2;

#[repr(C)]
struct Header {
    birth: Epoch,
    /// The large invalidation after which the entry was last found alive; see `Index::verdict`.
    checked: u32,
    /// The entry's id in its database's slab, or `UNLINKED`.
    id: u32,
    value_len: u32,
    key_len: u32,
    /// How long before its deadline the entry turns from fresh to stale.
    swr_ms: u32,
    tag_count: u16,
    flags: u8,
    _reserved: u8,
}

const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 32);

/// What an entry is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// When its fill began; [`Epoch::ZERO`] makes a dead entry.
    pub birth: Epoch,
    /// Spared by `INVALIDATE AUTO`.
    pub manual: bool,
    /// The stale part at the end of its life, in milliseconds; 0 when it is never served stale.
    pub swr_ms: u32,
    /// Softly invalidated: stale, whatever its deadline.
    pub softened: bool,
}

impl Attributes {
    /// The attributes of a *husk*: a dead entry that has nothing left but its key.
    pub const HUSK: Attributes = Attributes {
        birth: Epoch::ZERO,
        manual: false,
        swr_ms: 0,
        softened: false,
    };

    /// The flags as bits: the one encoding of them, in memory, in files and in the replication stream.
    pub fn to_bits(self) -> u8 {
        let manual = if self.manual { MANUAL } else { 0 };
        let softened = if self.softened { SOFTENED } else { 0 };
        manual | softened
    }

    /// The reverse of [`Attributes::to_bits`], with what no flag tells; `None` for a bit that has no meaning.
    pub fn from_bits(bits: u8, birth: Epoch, swr_ms: u32) -> Option<Attributes> {
        (bits & !(MANUAL | SOFTENED) == 0).then_some(Attributes {
            birth,
            manual: bits & MANUAL != 0,
            swr_ms,
            softened: bits & SOFTENED != 0,
        })
    }

    /// Flags and SWR window in one integer, for the replication stream.
    pub fn pack(self) -> u64 {
        u64::from(self.swr_ms) << 2 | u64::from(self.to_bits())
    }

    /// The reverse of [`Attributes::pack`]; `None` for a number it never makes.
    pub fn unpack(packed: u64, birth: Epoch) -> Option<Attributes> {
        let swr_ms = u32::try_from(packed >> 2).ok()?;
        Attributes::from_bits((packed & 3) as u8, birth, swr_ms)
    }
}

/// A pointer to an entry: copyable, like the pointers that Redis itself keeps of a value.
///
/// Every method but [`Entry::as_raw`] requires that the entry has not been freed. That is the contract of
/// [`Entry::from_raw`] and [`Entry::free`], so the methods themselves are safe to call, and so is handing an entry to an
/// index: whoever frees it answers for its being linked in none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(NonNull<Header>);

fn layout(tags: usize, key: usize, value: usize) -> Layout {
    let bytes = (HEADER + tags * 8 + key + value).next_multiple_of(16);
    Layout::from_size_align(bytes, align_of::<Header>())
        .expect("the parts are bounded by MAX_TAGS and MAX_BYTES")
}

impl Entry {
    /// Allocates an entry that carries the given tags, by record id; it is linked into no index yet. Where the records
    /// are not known yet, any numbers will do: [`Index::adopt`](crate::index::Index::adopt) replaces them.
    ///
    /// # Panics
    /// When a part exceeds [`MAX_TAGS`] or [`MAX_BYTES`].
    pub fn new(key: &[u8], value: &[u8], attributes: Attributes, tags: &[u32]) -> Entry {
        assert!(
            tags.len() <= MAX_TAGS && key.len() <= MAX_BYTES && value.len() <= MAX_BYTES,
            "entry too large"
        );
        let layout = layout(tags.len(), key.len(), value.len());
        // SAFETY: the size is never zero: it includes the header.
        let memory = unsafe { alloc(layout) };
        let Some(header) = NonNull::new(memory.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the allocation is large enough for the header and aligned for it.
        unsafe {
            header.write(Header {
                birth: attributes.birth,
                checked: 0,
                id: UNLINKED,
                value_len: value.len() as u32,
                key_len: key.len() as u32,
                swr_ms: attributes.swr_ms,
                tag_count: tags.len() as u16,
                flags: attributes.to_bits(),
                _reserved: 0,
            });
        }
        let entry = Entry(header);
        // SAFETY: the parts lie one behind the other inside the allocation, as `layout` computed; the sources are
        // borrowed slices and so cannot overlap memory that was allocated just now.
        unsafe {
            copy_nonoverlapping(tags.as_ptr(), entry.part(0).cast(), tags.len());
            copy_nonoverlapping(key.as_ptr(), entry.part(tags.len() * 8), key.len());
            copy_nonoverlapping(
                value.as_ptr(),
                entry.part(tags.len() * 8 + key.len()),
                value.len(),
            );
        }
        entry
    }

    /// Frees the entry.
    ///
    /// # Safety
    /// Nobody may use this entry afterwards: it is linked in no index, or that index is being thrown away whole
    /// without looking at its entries.
    pub unsafe fn free(self) {
        let layout = layout(
            self.tag_count(),
            self.header().key_len as usize,
            self.header().value_len as usize,
        );
        // SAFETY: `new` allocated with this very layout: the lengths change only within the same rounded size.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }

    /// The pointer, for Redis to keep.
    pub fn as_raw(self) -> *mut std::ffi::c_void {
        self.0.as_ptr().cast()
    }

    /// The entry behind a pointer that Redis kept.
    ///
    /// # Safety
    /// `raw` came from [`Entry::as_raw`] and the entry has not been freed, nor is it freed while the result is used.
    #[inline]
    pub unsafe fn from_raw(raw: *mut std::ffi::c_void) -> Option<Entry> {
        NonNull::new(raw.cast()).map(Entry)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: initialised in `new`, alive by the contract of the type.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: as above; the server is single-threaded where entries change, and no reference is kept across calls.
        unsafe { self.0.as_mut() }
    }

    /// The address `offset` bytes behind the header.
    #[inline]
    fn part(&self, offset: usize) -> *mut u8 {
        // SAFETY: callers stay inside the allocation, as the lengths in the header describe it.
        unsafe { self.0.as_ptr().cast::<u8>().add(HEADER + offset) }
    }

    #[inline]
    fn tag_count(&self) -> usize {
        usize::from(self.header().tag_count)
    }

    /// The value's bytes.
    #[inline]
    pub fn value(&self) -> &[u8] {
        let header = self.header();
        let offset = usize::from(header.tag_count) * 8 + header.key_len as usize;
        // SAFETY: the part was initialised in `new`.
        unsafe { from_raw_parts(self.part(offset), header.value_len as usize) }
    }

    /// The name of the key under which the keyspace holds the entry.
    pub fn key(&self) -> &[u8] {
        // SAFETY: the part was initialised in `new`.
        unsafe {
            from_raw_parts(
                self.part(self.tag_count() * 8),
                self.header().key_len as usize,
            )
        }
    }

    /// The record ids of its tags. They mean something only to the index that gave them.
    #[inline]
    pub fn tags(&self) -> &[u32] {
        // SAFETY: initialised in `new`; the header's size keeps the part aligned for u32.
        unsafe { from_raw_parts(self.part(0).cast(), self.tag_count()) }
    }

    #[inline]
    pub(crate) fn position(&self, at: usize) -> u32 {
        assert!(at < self.tag_count());
        // SAFETY: within the part of positions; `link` wrote it before anybody asks.
        unsafe { *self.part(self.tag_count() * 4).cast::<u32>().add(at) }
    }

    #[inline]
    pub(crate) fn set_position(&mut self, at: usize, position: u32) {
        assert!(at < self.tag_count());
        // SAFETY: within the part of positions.
        unsafe { *self.part(self.tag_count() * 4).cast::<u32>().add(at) = position }
    }

    /// When its fill began.
    #[inline]
    pub fn birth(&self) -> Epoch {
        self.header().birth
    }

    /// Spared by `INVALIDATE AUTO`.
    #[inline]
    pub fn is_manual(&self) -> bool {
        self.header().flags & MANUAL != 0
    }

    /// Softly invalidated: stale, whatever its deadline.
    #[inline]
    pub fn is_softened(&self) -> bool {
        self.header().flags & SOFTENED != 0
    }

    /// Marks the entry as softly invalidated.
    pub fn soften(&mut self) {
        self.header_mut().flags |= SOFTENED;
    }

    /// The stale part at the end of its life, in milliseconds.
    pub fn swr_ms(&self) -> u32 {
        self.header().swr_ms
    }

    /// What the entry was made with.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            birth: self.birth(),
            manual: self.is_manual(),
            swr_ms: self.swr_ms(),
            softened: self.is_softened(),
        }
    }

    #[inline]
    pub(crate) fn checked(&self) -> u32 {
        self.header().checked
    }

    #[inline]
    pub(crate) fn set_checked(&mut self, checked: u32) {
        self.header_mut().checked = checked;
    }

    /// Its number in the index of its database, while it is linked.
    #[inline]
    pub fn id(&self) -> u32 {
        self.header().id
    }

    #[inline]
    pub(crate) fn set_id(&mut self, id: u32) {
        self.header_mut().id = id;
    }

    /// Whether an index holds the entry.
    pub fn is_linked(&self) -> bool {
        self.id() != UNLINKED
    }

    /// Bytes allocated for the entry.
    pub fn bytes(&self) -> usize {
        layout(
            self.tag_count(),
            self.header().key_len as usize,
            self.header().value_len as usize,
        )
        .size()
    }

    /// Puts another value into the same memory, if it fits exactly enough; the tags and the key stay.
    pub fn overwrite(&mut self, value: &[u8], attributes: Attributes) -> bool {
        let key = self.header().key_len as usize;
        if value.len() > MAX_BYTES
            || layout(self.tag_count(), key, value.len()).size() != self.bytes()
        {
            return false;
        }
        debug_assert_eq!(
            self.is_manual(),
            attributes.manual,
            "the class decides about its records"
        );
        let to = self.part(self.tag_count() * 8 + key);
        // SAFETY: the rounded size is the same, so the new value fits behind the key; `value` is borrowed from elsewhere.
        unsafe { copy_nonoverlapping(value.as_ptr(), to, value.len()) };
        let header = self.header_mut();
        header.value_len = value.len() as u32;
        header.birth = attributes.birth;
        header.swr_ms = attributes.swr_ms;
        header.flags = attributes.to_bits();
        true
    }

    /// Sets the record id of one of its tags.
    pub(crate) fn set_tag(&mut self, at: usize, record: u32) {
        assert!(at < self.tag_count());
        // SAFETY: within the part of tags.
        unsafe { *self.part(0).cast::<u32>().add(at) = record }
    }

    /// Sets the record ids of its tags, as many as it was made with: for entries whose tags are known by name before
    /// there is an index to resolve them in.
    pub(crate) fn fill_tags(&mut self, tags: &[u32]) {
        assert_eq!(tags.len(), self.tag_count());
        // SAFETY: the part of tags has this very length; the source is borrowed from elsewhere.
        unsafe { copy_nonoverlapping(tags.as_ptr(), self.part(0).cast(), tags.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: Attributes = Attributes {
        birth: Epoch(7),
        manual: true,
        swr_ms: 9,
        softened: true,
    };

    #[test]
    fn parts_do_not_touch_each_other() {
        for tags in [0, 1, 3, 675, MAX_TAGS] {
            for (key, value) in [
                (&b""[..], &b""[..]),
                (b"k", b"v"),
                (b"a key\0 of bytes", &[0xff; 4096]),
            ] {
                let ids: Vec<u32> = (0..tags as u32).map(|i| i * 7).collect();
                let mut entry = Entry::new(key, value, ATTRIBUTES, &ids);
                for at in 0..tags {
                    entry.set_position(at, u32::MAX - at as u32);
                }
                assert_eq!(
                    (entry.key(), entry.value(), entry.tags()),
                    (key, value, &ids[..])
                );
                assert_eq!(entry.attributes(), ATTRIBUTES);
                assert!((0..tags).all(|at| entry.position(at) == u32::MAX - at as u32));
                assert!(!entry.is_linked());
                // SAFETY: not used afterwards.
                unsafe { entry.free() };
            }
        }
    }

    #[test]
    fn a_value_is_overwritten_in_place_only_within_the_same_memory() {
        let mut entry = Entry::new(b"key", b"0123456789", ATTRIBUTES, &[1, 2]);
        let bytes = entry.bytes();
        let newer = Attributes {
            birth: Epoch(8),
            ..ATTRIBUTES
        };
        assert!(entry.overwrite(b"01234567", newer));
        assert_eq!(
            (entry.value(), entry.key(), entry.birth()),
            (&b"01234567"[..], &b"key"[..], Epoch(8))
        );
        assert_eq!(entry.bytes(), bytes);
        assert!(!entry.overwrite(&[0; 100], newer));
        assert_eq!(entry.value(), b"01234567");
        // SAFETY: not used afterwards.
        unsafe { entry.free() };
    }
}
