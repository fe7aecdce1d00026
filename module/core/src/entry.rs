//! One cached value in one allocation.
//!
//! ```text
//!   0            32              32+4n         32+8n        32+8n+k        32+8n+k+v
//!   ┌────────────┬───────────────┬─────────────┬────────────┬──────────────┬────────────┐
//!   │ header     │ tags: n × u32 │ positions:  │ key        │ value        │ SWR window │  rounded up to
//!   │            │ (record ids)  │ n × u32     │ k bytes    │ v bytes      │ u32, or () │  16 bytes
//!   └────────────┴───────────────┴─────────────┴────────────┴──────────────┴────────────┘
//! ```
//!
//! `positions[i]` is where the entry stands in the member list of `tags[i]`. The key is kept because the code that
//! frees a dead entry has nothing but the entry, and Redis deletes by name. The SWR window stands behind the value, and
//! only where there is one: most entries have none.
//!
//! An entry knows its own end, apart from the deadline that Redis keeps of the key: EXPIRE and PERSIST move that
//! deadline, and must not make a value fresh for longer than its fill said.
//!
//! This is the one file of the crate with `unsafe`: the layout above does not exist as a Rust type. An [`Entry`] is
//! owned by the code that allocated it (in the server: by the keyspace, through the data type's callbacks); the index
//! keeps copies of the pointer and must be told before the entry goes away.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{NonNull, copy_nonoverlapping};
use std::slice::from_raw_parts;

use crate::epoch::Epoch;

/// Most tags that an entry can carry; the configuration cannot allow more.
pub const MAX_TAGS: usize = u16::MAX as usize;
/// Longest tag in bytes; the configuration cannot allow more.
pub const MAX_TAG_BYTES: usize = 65_536;
/// Longest value in bytes (Redis's own default limit for a string is 512 MB).
pub const MAX_BYTES: usize = u32::MAX as usize / 2;
/// Longest key in bytes, as long as Redis's own default limit for a string.
pub const MAX_KEY_BYTES: usize = 1 << 29;
/// The end of an entry that has none: in milliseconds since 1970, in the year 6429. An end later than this is none,
/// either.
pub const NEVER: u64 = (1 << 47) - 1;

/// Not linked into an index.
pub(crate) const UNLINKED: u32 = u32::MAX;

const MANUAL: u8 = 1;
const SOFTENED: u8 = 2;

/// In 32 bytes, as jemalloc's size classes make the next eight bytes cost sixteen in many entries: the flags stand in
/// bits that the numbers beside them cannot reach.
#[repr(C)]
struct Header {
    birth: Epoch,
    /// From the lowest bit: the number of tags (16 bits), MANUAL (1), the end (47).
    end_and_tags: u64,
    /// The large invalidation after which the entry was last found alive; see `Index::verdict`.
    checked: u32,
    /// The entry's id in its database's slab, or `UNLINKED`.
    id: u32,
    /// From the lowest bit: the length of the value (31 bits), it was told that the entry turned stale (1).
    value_len: u32,
    /// From the lowest bit: where the value begins, behind the header (30 bits), an SWR window follows the value (1),
    /// softened (1).
    value_at: u32,
}

const END_SHIFT: u32 = 17;
const MANUAL_BIT: u64 = 1 << 16;
const AT: u32 = (1 << 30) - 1;
const SWR_BIT: u32 = 1 << 30;
const SOFTENED_BIT: u32 = 1 << 31;
const TOLD_BIT: u32 = 1 << 31;
/// The largest part behind the header still has its place in `value_at`.
const _: () =
    assert!(MAX_TAGS * 8 + MAX_KEY_BYTES <= AT as usize && NEVER == u64::MAX >> END_SHIFT);

fn end_and_tags(attributes: Attributes, tags: usize) -> u64 {
    let manual = if attributes.manual { MANUAL_BIT } else { 0 };
    attributes.ends_ms.min(NEVER) << END_SHIFT | manual | tags as u64
}

fn value_at(attributes: Attributes, at: usize) -> u32 {
    let swr = if attributes.swr_ms > 0 { SWR_BIT } else { 0 };
    let softened = if attributes.softened { SOFTENED_BIT } else { 0 };
    at as u32 | swr | softened
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
    /// Softly invalidated: stale until its end.
    pub softened: bool,
    /// When it ends, in milliseconds since 1970: never served from then on. [`NEVER`] and later: it has no end.
    pub ends_ms: u64,
}

impl Attributes {
    /// The attributes of a *husk*: a dead entry that has nothing left but its key.
    pub const HUSK: Attributes = Attributes {
        birth: Epoch::ZERO,
        manual: false,
        swr_ms: 0,
        softened: false,
        ends_ms: NEVER,
    };

    /// The flags as bits: the one encoding of them, in memory, in files and in the replication stream.
    pub fn to_bits(self) -> u8 {
        let manual = if self.manual { MANUAL } else { 0 };
        let softened = if self.softened { SOFTENED } else { 0 };
        manual | softened
    }

    /// The reverse of [`Attributes::to_bits`], with what no flag tells; `None` for a bit that has no meaning.
    pub fn from_bits(bits: u8, birth: Epoch, swr_ms: u32, ends_ms: u64) -> Option<Attributes> {
        (bits & !(MANUAL | SOFTENED) == 0).then_some(Attributes {
            birth,
            manual: bits & MANUAL != 0,
            swr_ms,
            softened: bits & SOFTENED != 0,
            ends_ms,
        })
    }

    /// Flags and SWR window in one integer, for the replication stream.
    pub fn pack(self) -> u64 {
        u64::from(self.swr_ms) << 2 | u64::from(self.to_bits())
    }

    /// The reverse of [`Attributes::pack`]; `None` for a number it never makes.
    pub fn unpack(packed: u64, birth: Epoch, ends_ms: u64) -> Option<Attributes> {
        let swr_ms = u32::try_from(packed >> 2).ok()?;
        Attributes::from_bits((packed & 3) as u8, birth, swr_ms, ends_ms)
    }

    /// Until when it is fresh, in milliseconds since 1970; from then until its end it is stale.
    pub fn fresh_until_ms(self) -> u64 {
        match self.softened {
            true => 0,
            false if self.ends_ms >= NEVER => NEVER,
            false => self.ends_ms.saturating_sub(u64::from(self.swr_ms)),
        }
    }
}

/// A pointer to an entry: copyable, like the pointers that Redis itself keeps of a value.
///
/// Every method but [`Entry::as_raw`] requires that the entry has not been freed. That is the contract of
/// [`Entry::from_raw`] and [`Entry::free`], so the methods themselves are safe to call, and so is handing an entry to
/// an index: the caller that frees it answers for its being linked in none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(NonNull<Header>);

/// How an entry with these parts lies in memory.
fn layout(value_at: usize, value: usize, swr: bool) -> Layout {
    let swr = if swr { size_of::<u32>() } else { 0 };
    let bytes = (HEADER + value_at + value + swr).next_multiple_of(16);
    Layout::from_size_align(bytes, align_of::<Header>())
        .expect("the parts are bounded by MAX_TAGS, MAX_KEY_BYTES and MAX_BYTES")
}

impl Entry {
    /// Whether a key is short enough, and a value, for [`Entry::new`].
    pub fn fits(key: &[u8], value: &[u8]) -> bool {
        key.len() <= MAX_KEY_BYTES && value.len() <= MAX_BYTES
    }

    /// Allocates an entry that carries the given tags, by record id; it is linked into no index yet. Panics when a part
    /// exceeds [`MAX_TAGS`], [`MAX_KEY_BYTES`] or [`MAX_BYTES`].
    pub fn new(key: &[u8], value: &[u8], attributes: Attributes, tags: &[u32]) -> Entry {
        let mut entry = Entry::blank(key, value, attributes, tags.len());
        entry.fill_tags(tags);
        entry
    }

    /// An entry of so many tags whose records are not known yet.
    pub(crate) fn blank(key: &[u8], value: &[u8], attributes: Attributes, tags: usize) -> Entry {
        let fits = tags <= MAX_TAGS && Entry::fits(key, value);
        assert!(fits, "entry too large");
        let at = tags * 8 + key.len();
        let layout = layout(at, value.len(), attributes.swr_ms > 0);
        // SAFETY: the size is never zero: it includes the header.
        let memory = unsafe { alloc(layout) };
        let Some(header) = NonNull::new(memory.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the allocation is large enough for the header and aligned for it.
        unsafe {
            header.write(Header {
                birth: attributes.birth,
                end_and_tags: end_and_tags(attributes, tags),
                checked: 0,
                id: UNLINKED,
                value_len: value.len() as u32,
                value_at: value_at(attributes, at),
            });
        }
        let mut entry = Entry(header);
        // SAFETY: the parts lie one behind the other in this new allocation, as `layout` computed.
        unsafe {
            entry.part(0).write_bytes(0, tags * 4);
            copy_nonoverlapping(key.as_ptr(), entry.part(tags * 8), key.len());
            copy_nonoverlapping(value.as_ptr(), entry.part(at), value.len());
        }
        entry.write_swr(attributes.swr_ms);
        entry
    }

    /// Frees the entry.
    ///
    /// # Safety
    /// No code may use this entry afterwards: it is linked in no index, or that index is being thrown away whole
    /// without looking at its entries.
    pub unsafe fn free(self) {
        let layout = self.layout();
        // SAFETY: `new` allocated with this very layout: the lengths change only within the same rounded size.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) }
    }

    /// At the end of a unit test: frees entries that are in no index any more, and that nothing else knows.
    #[cfg(test)]
    pub(crate) fn free_all(entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            // SAFETY: what each test ends with.
            unsafe { entry.free() };
        }
    }

    fn layout(&self) -> Layout {
        layout(self.value_at(), self.value_len(), self.has_swr())
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
        usize::from(self.header().end_and_tags as u16)
    }

    /// Where the value begins, behind the header.
    #[inline]
    fn value_at(&self) -> usize {
        (self.header().value_at & AT) as usize
    }

    #[inline]
    fn value_len(&self) -> usize {
        (self.header().value_len & !TOLD_BIT) as usize
    }

    /// The value's bytes.
    #[inline]
    pub fn value(&self) -> &[u8] {
        // SAFETY: the part was initialised in `new`.
        unsafe { from_raw_parts(self.part(self.value_at()), self.value_len()) }
    }

    /// The name of the key under which the keyspace holds the entry.
    pub fn key(&self) -> &[u8] {
        let at = self.tag_count() * 8;
        // SAFETY: the part was initialised in `new`; it ends where the value begins.
        unsafe { from_raw_parts(self.part(at), self.value_at() - at) }
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
        // SAFETY: within the part of positions; `link` wrote it before any caller asks.
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
        self.header().end_and_tags & MANUAL_BIT != 0
    }

    /// Softly invalidated: stale until its end.
    #[inline]
    pub fn is_softened(&self) -> bool {
        self.header().value_at & SOFTENED_BIT != 0
    }

    /// Marks the entry as softly invalidated: stale from now on, and over at `ends_ms` if it would have lived longer.
    pub fn soften(&mut self, ends_ms: u64) {
        self.header_mut().value_at |= SOFTENED_BIT;
        self.end_by(ends_ms);
    }

    /// Makes it end at `ends_ms`, if it would have lived longer.
    pub fn end_by(&mut self, ends_ms: u64) {
        let ends_ms = self.ends_ms().min(ends_ms);
        let header = self.header_mut();
        header.end_and_tags = header.end_and_tags & ((1 << END_SHIFT) - 1) | ends_ms << END_SHIFT;
    }

    /// Takes note that those who track the key are told that it turned stale; false if they were before. A note of this
    /// server's, and none of the entry's attributes.
    pub fn tell_stale(&mut self) -> bool {
        let header = self.header_mut();
        let is_new = header.value_len & TOLD_BIT == 0;
        header.value_len |= TOLD_BIT;
        is_new
    }

    /// When it ends, in milliseconds since 1970; [`NEVER`] if it does not.
    #[inline]
    pub fn ends_ms(&self) -> u64 {
        self.header().end_and_tags >> END_SHIFT
    }

    /// Whether a part of its life is stale.
    #[inline]
    pub fn has_swr(&self) -> bool {
        self.header().value_at & SWR_BIT != 0
    }

    /// The stale part at the end of its life, in milliseconds.
    pub fn swr_ms(&self) -> u32 {
        if !self.has_swr() {
            return 0;
        }
        // SAFETY: the part behind the value, which no reference aligns; written in `new` and `overwrite`.
        unsafe { self.swr_part().read_unaligned() }
    }

    fn swr_part(&self) -> *mut u32 {
        self.part(self.value_at() + self.value_len()).cast()
    }

    /// Writes the SWR window, if the header says that there is one.
    fn write_swr(&mut self, swr_ms: u32) {
        if self.has_swr() {
            // SAFETY: the part behind the value, inside the allocation by `layout`.
            unsafe { self.swr_part().write_unaligned(swr_ms) }
        }
    }

    /// What the entry was made with.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            birth: self.birth(),
            manual: self.is_manual(),
            swr_ms: self.swr_ms(),
            softened: self.is_softened(),
            ends_ms: self.ends_ms(),
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
        self.layout().size()
    }

    /// Puts another value into the same memory, if it fits exactly enough; the tags and the key stay.
    pub fn overwrite(&mut self, value: &[u8], attributes: Attributes) -> bool {
        let at = self.value_at();
        if value.len() > MAX_BYTES
            || layout(at, value.len(), attributes.swr_ms > 0).size() != self.bytes()
        {
            return false;
        }
        debug_assert_eq!(
            self.is_manual(),
            attributes.manual,
            "the class decides about its records"
        );
        // SAFETY: the rounded size is the same, so the new value fits behind the key; `value` is borrowed from
        // elsewhere.
        unsafe { copy_nonoverlapping(value.as_ptr(), self.part(at), value.len()) };
        let tags = self.tag_count();
        let header = self.header_mut();
        header.value_len = value.len() as u32;
        header.birth = attributes.birth;
        header.end_and_tags = end_and_tags(attributes, tags);
        header.value_at = value_at(attributes, at);
        self.write_swr(attributes.swr_ms);
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
        ends_ms: 1_000,
    };

    #[test]
    fn parts_do_not_touch_each_other() {
        for tags in [0, 1, 3, 675, MAX_TAGS] {
            for (key, value) in [
                (&b""[..], &b""[..]),
                (b"k", b"v"),
                (b"a key\0 of bytes", &[0xff; 4096]),
            ] {
                for swr_ms in [0, 1, u32::MAX] {
                    let attributes = Attributes {
                        swr_ms,
                        ..ATTRIBUTES
                    };
                    let ids: Vec<u32> = (0..tags as u32).map(|i| i * 7).collect();
                    let mut entry = Entry::new(key, value, attributes, &ids);
                    for at in 0..tags {
                        entry.set_position(at, u32::MAX - at as u32);
                    }
                    assert_eq!(
                        (entry.key(), entry.value(), entry.tags()),
                        (key, value, &ids[..])
                    );
                    assert_eq!(entry.attributes(), attributes);
                    assert!((0..tags).all(|at| entry.position(at) == u32::MAX - at as u32));
                    assert!(!entry.is_linked());
                    // SAFETY: not used afterwards.
                    unsafe { entry.free() };
                }
            }
        }
    }

    #[test]
    fn each_attribute_is_kept_beside_the_others_at_its_borders() {
        for bits in 0..4 {
            for birth in [Epoch::ZERO, Epoch(Epoch::END.0 - 1), Epoch(u64::MAX)] {
                for swr_ms in [0, 1, u32::MAX] {
                    for ends_ms in [0, 1, NEVER - 1, NEVER] {
                        let attributes =
                            Attributes::from_bits(bits, birth, swr_ms, ends_ms).unwrap();
                        let mut entry = Entry::new(b"key", b"value", attributes, &[1, 2]);
                        assert_eq!(entry.attributes(), attributes);
                        assert!(entry.overwrite(b"other", attributes));
                        assert_eq!(entry.attributes(), attributes);
                        let packed = attributes.pack();
                        assert_eq!(Attributes::unpack(packed, birth, ends_ms), Some(attributes));
                        assert_eq!((entry.key(), entry.tags().len()), (&b"key"[..], 2));
                        // SAFETY: not used afterwards.
                        unsafe { entry.free() };
                    }
                }
            }
        }
    }

    #[test]
    fn an_end_comes_nearer_and_never_goes_away() {
        let attributes = Attributes {
            softened: false,
            ends_ms: NEVER + 5,
            ..ATTRIBUTES
        };
        let mut entry = Entry::new(b"k", b"v", attributes, &[]);
        assert_eq!(entry.ends_ms(), NEVER, "too late to be one");
        assert_eq!(entry.attributes().fresh_until_ms(), NEVER);
        entry.end_by(500);
        entry.end_by(u64::MAX);
        entry.end_by(700);
        assert_eq!((entry.ends_ms(), entry.is_manual()), (500, true));
        assert_eq!(entry.attributes().fresh_until_ms(), 500 - 9);
        entry.soften(400);
        assert_eq!((entry.ends_ms(), entry.is_softened()), (400, true));
        assert_eq!(entry.attributes().fresh_until_ms(), 0);
        // SAFETY: not used afterwards.
        unsafe { entry.free() };
    }

    #[test]
    fn a_value_is_overwritten_in_place_only_within_the_same_memory() {
        let mut entry = Entry::new(b"key", b"0123456789abcdefghij", ATTRIBUTES, &[1, 2]);
        let bytes = entry.bytes();
        let newer = Attributes {
            birth: Epoch(8),
            ..ATTRIBUTES
        };
        assert!(entry.overwrite(b"0123456789abcdefgh", newer));
        assert_eq!(
            (entry.value(), entry.key(), entry.birth()),
            (&b"0123456789abcdefgh"[..], &b"key"[..], Epoch(8))
        );
        assert_eq!(entry.bytes(), bytes);
        assert!(!entry.overwrite(&[0; 100], newer));
        assert_eq!(entry.value(), b"0123456789abcdefgh");
        // Without an SWR window there is room for four bytes more.
        let longest = bytes - HEADER - 2 * 8 - 3;
        let without = Attributes { swr_ms: 0, ..newer };
        assert!(!entry.overwrite(&vec![1; longest], newer));
        assert!(entry.overwrite(&vec![1; longest], without));
        assert_eq!(entry.value(), vec![1; longest]);
        assert_eq!((entry.attributes(), entry.bytes()), (without, bytes));
        assert!(entry.tell_stale() && !entry.tell_stale());
        assert_eq!((entry.value().len(), entry.bytes()), (longest, bytes));
        assert!(entry.overwrite(b"0123456789abcdefgh", newer));
        assert_eq!(entry.attributes(), newer);
        assert!(entry.tell_stale(), "another value");
        // SAFETY: not used afterwards.
        unsafe { entry.free() };
    }
}
