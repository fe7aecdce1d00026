//! The members of one tag: entry ids in an array that grows without copying what it holds.
//!
//! Removal swaps the last id into the hole, so a membership costs four bytes here and four in the entry: its position.
//! The entry that moves must then be told its new position, for which its *place* has to be found: where among its own
//! tags it has this one. Entries of up to [`FEW`] tags are searched. For those with more the place is kept beside the
//! id, in two bytes; a list without such members keeps none.
//!
//! Most tags have one member: that one lives in the record itself and no list exists. A member at position 0 never
//! moves, so its place need not be known.

use crate::alloc::{class, is_too_long, shrink};

/// An entry of up to so many tags is searched for a tag.
pub(crate) const FEW: usize = 32;

/// Ids in a chunk of a long list; short lists are one growing vector up to this length.
const CHUNK: usize = 1024;

/// Two members or more.
pub(crate) enum List {
    Bare(Ids),
    Placed(Box<Placed>),
}

const _: () = assert!(size_of::<Option<List>>() == 32);

/// The array itself.
pub(crate) enum Ids {
    Short(Vec<u32>),
    Long { chunks: Vec<Vec<u32>>, len: u32 },
}

/// An array and, for members with many tags, their places.
pub(crate) struct Placed {
    ids: Ids,
    places: Places,
}

/// A member that moved into the position of one that left.
pub(crate) struct Moved {
    pub(crate) entry: u32,
    /// Where among its tags it has this one, if that was kept; else any number.
    pub(crate) place: usize,
}

impl List {
    /// `first` stands at position 0; `place` is that of `second` if it has many tags.
    pub(crate) fn pair(first: u32, second: u32, place: Option<u16>) -> Self {
        let mut list = List::Bare(Ids::Short(vec![first]));
        list.push(second, place);
        list
    }

    #[inline]
    fn ids(&self) -> &Ids {
        match self {
            List::Bare(ids) => ids,
            List::Placed(placed) => &placed.ids,
        }
    }

    #[inline]
    fn ids_mut(&mut self) -> &mut Ids {
        match self {
            List::Bare(ids) => ids,
            List::Placed(placed) => &mut placed.ids,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.ids().len()
    }

    #[inline]
    pub(crate) fn get(&self, pos: u32) -> Option<u32> {
        self.ids().get(pos)
    }

    /// Where among its tags the member at `pos` has this one, if that was noted; else any number.
    pub(crate) fn place(&self, pos: u32) -> usize {
        match self {
            List::Bare(_) => 0,
            List::Placed(placed) => usize::from(placed.places.get(pos)),
        }
    }

    /// The member at `pos` has another id now.
    pub(crate) fn renumber(&mut self, pos: u32, id: u32) {
        if let Some(slot) = self.ids_mut().get_mut(pos) {
            *slot = id;
        }
    }

    /// Adds a member if that takes no more memory, and returns its position; else nothing changes but a place beyond
    /// the end.
    #[inline]
    pub(crate) fn push_within(&mut self, id: u32, place: Option<u16>) -> Option<u32> {
        match self {
            List::Bare(ids) if place.is_none() => ids.push_within(id),
            List::Bare(_) => None,
            List::Placed(placed) => {
                if let Some(place) = place
                    && !placed.places.set_within(placed.ids.len(), place)
                {
                    return None;
                }
                placed.ids.push_within(id)
            }
        }
    }

    /// Adds a member; `place` is given if it has more than [`FEW`] tags.
    #[inline]
    pub(crate) fn push(&mut self, id: u32, place: Option<u16>) {
        let ids = self.ids_mut();
        let pos = ids.len();
        ids.push(id);
        if let Some(place) = place {
            self.set_place(pos, place);
        }
    }

    /// Notes the place of a member with many tags.
    pub(crate) fn set_place(&mut self, pos: u32, place: u16) {
        if let List::Bare(ids) = self {
            let ids = std::mem::replace(ids, Ids::Short(Vec::new()));
            *self = List::Placed(Box::new(Placed {
                ids,
                places: Places::default(),
            }));
        }
        if let List::Placed(placed) = self {
            placed.places.set(pos, place);
        }
    }

    /// [`List::swap_remove`] if it neither takes nor gives back memory; `None` if it would, and nothing is changed.
    #[inline]
    pub(crate) fn swap_remove_within(&mut self, pos: u32) -> Option<Option<Moved>> {
        match self {
            List::Bare(ids) => {
                if ids.shrinks() {
                    return None;
                }
                let entry = ids.replace_by_last(pos);
                Some(entry.map(|entry| Moved { entry, place: 0 }))
            }
            List::Placed(placed) => {
                let last = placed.ids.len().checked_sub(1)?;
                let place = placed.places.get(last);
                if placed.ids.shrinks()
                    || placed.places.shrinks(last)
                    || !placed.places.set_within(pos, place)
                {
                    return None;
                }
                let entry = placed.ids.replace_by_last(pos);
                let place = usize::from(place);
                Some(entry.map(|entry| Moved { entry, place }))
            }
        }
    }

    /// Removes the id at `pos`; returns the one that took its place, if another one did.
    pub(crate) fn swap_remove(&mut self, pos: u32) -> Option<Moved> {
        let (entry, last) = match self {
            List::Bare(ids) => (ids.swap_remove(pos)?, 0),
            List::Placed(placed) => {
                let entry = placed.ids.swap_remove(pos);
                let last = placed.ids.len();
                let place = placed.places.get(last);
                if entry.is_some() {
                    placed.places.set(pos, place);
                }
                placed.places.shorten(last);
                (entry?, usize::from(place))
            }
        };
        Some(Moved { entry, place: last })
    }

    /// Lets go of up to `chunks` chunks of members that are never looked at again; true while there are more.
    pub(crate) fn shed(&mut self, chunks: usize) -> bool {
        if let List::Placed(placed) = self {
            let reached = placed.places.chunks.len().saturating_sub(chunks);
            placed.places.shorten((reached * CHUNK) as u32);
            if reached > 0 {
                return true;
            }
            let ids = std::mem::replace(&mut placed.ids, Ids::Short(Vec::new()));
            *self = List::Bare(ids);
        }
        match self {
            List::Bare(Ids::Long { chunks: all, len }) if all.len() > chunks => {
                all.truncate(all.len() - chunks);
                *len = (all.len() * CHUNK) as u32;
                true
            }
            _ => false,
        }
    }

    /// Gives back what a short list has no use for: places, if none is noted, and room for more members.
    pub(crate) fn tidy(&mut self) {
        if let List::Placed(placed) = self
            && placed.ids.len() as usize <= CHUNK
            && placed
                .places
                .chunks
                .iter()
                .all(|chunk| chunk.iter().all(|place| *place == 0))
        {
            let ids = std::mem::replace(&mut placed.ids, Ids::Short(Vec::new()));
            *self = List::Bare(ids);
        }
        if let Ids::Short(ids) = self.ids_mut() {
            ids.shrink_to_fit();
        }
    }

    /// Bytes allocated beyond the value itself. O(1).
    pub(crate) fn bytes(&self) -> usize {
        match self {
            List::Bare(ids) => ids.bytes(),
            List::Placed(placed) => {
                class(size_of::<Placed>()) + placed.ids.bytes() + placed.places.bytes()
            }
        }
    }
}

impl Ids {
    fn len(&self) -> u32 {
        match self {
            Ids::Short(ids) => ids.len() as u32,
            Ids::Long { len, .. } => *len,
        }
    }

    #[inline]
    fn get(&self, pos: u32) -> Option<u32> {
        match self {
            Ids::Short(ids) => ids.get(pos as usize).copied(),
            Ids::Long { chunks, .. } => chunks
                .get(pos as usize / CHUNK)?
                .get(pos as usize % CHUNK)
                .copied(),
        }
    }

    fn get_mut(&mut self, pos: u32) -> Option<&mut u32> {
        match self {
            Ids::Short(ids) => ids.get_mut(pos as usize),
            Ids::Long { chunks, .. } => chunks
                .get_mut(pos as usize / CHUNK)?
                .get_mut(pos as usize % CHUNK),
        }
    }

    fn push(&mut self, id: u32) {
        match self {
            Ids::Short(ids) if ids.len() < CHUNK => ids.push(id),
            Ids::Short(ids) => {
                let mut next = Vec::with_capacity(CHUNK);
                next.push(id);
                *self = Ids::Long {
                    len: CHUNK as u32 + 1,
                    chunks: vec![std::mem::take(ids), next],
                };
            }
            Ids::Long { chunks, len } => {
                match chunks.last_mut() {
                    Some(chunk) if chunk.len() < CHUNK => chunk.push(id),
                    _ => {
                        let mut chunk = Vec::with_capacity(CHUNK);
                        chunk.push(id);
                        chunks.push(chunk);
                    }
                }
                *len += 1;
            }
        }
    }

    /// Adds an id if there is room; returns its position.
    #[inline]
    fn push_within(&mut self, id: u32) -> Option<u32> {
        match self {
            Ids::Short(ids) => {
                let pos = ids.len();
                if pos >= ids.capacity().min(CHUNK) {
                    return None;
                }
                ids.push(id);
                Some(pos as u32)
            }
            Ids::Long { chunks, len } => {
                let chunk = chunks.last_mut().filter(|chunk| chunk.len() < CHUNK)?;
                chunk.push(id);
                *len += 1;
                Some(*len - 1)
            }
        }
    }

    /// Whether [`Ids::pop`] gives memory back.
    #[inline]
    fn shrinks(&self) -> bool {
        match self {
            Ids::Short(ids) => is_too_long(ids.len().saturating_sub(1), ids.capacity()),
            Ids::Long { len, .. } => *len as usize % CHUNK == 1,
        }
    }

    fn pop(&mut self) -> Option<u32> {
        match self {
            Ids::Short(ids) => {
                let id = ids.pop();
                shrink(ids);
                id
            }
            Ids::Long { chunks, len } => {
                let chunk = chunks.last_mut()?;
                let id = chunk.pop();
                *len -= 1;
                if chunk.is_empty() {
                    chunks.pop();
                    shrink(chunks);
                }
                if chunks.len() == 1 {
                    *self = Ids::Short(chunks.pop().unwrap_or_default());
                }
                id
            }
        }
    }

    /// [`Ids::swap_remove`], for a caller who knows that it does not give memory back ([`Ids::shrinks`]).
    #[inline]
    fn replace_by_last(&mut self, pos: u32) -> Option<u32> {
        let (last, slot) = match self {
            Ids::Short(ids) => (ids.pop()?, ids.get_mut(pos as usize)),
            Ids::Long { chunks, len } => {
                let last = chunks.last_mut()?.pop()?;
                *len -= 1;
                let chunk = chunks.get_mut(pos as usize / CHUNK)?;
                (last, chunk.get_mut(pos as usize % CHUNK))
            }
        };
        *slot? = last;
        Some(last)
    }

    fn swap_remove(&mut self, pos: u32) -> Option<u32> {
        let last = self.pop()?;
        if pos == self.len() {
            return None;
        }
        *self.get_mut(pos)? = last;
        Some(last)
    }

    fn bytes(&self) -> usize {
        match self {
            Ids::Short(ids) => class(ids.capacity() * 4),
            Ids::Long { chunks, .. } => {
                class(chunks.capacity() * size_of::<Vec<u32>>()) + chunks.len() * CHUNK * 4
            }
        }
    }
}

/// Places by position, in chunks that are allocated when the first one is noted in them; 0 where none is.
#[derive(Default)]
struct Places {
    chunks: Vec<Box<[u16]>>,
    /// Bytes of the chunks.
    bytes: usize,
}

impl Places {
    /// Room of the first chunk while the list is short: it doubles.
    const FIRST: usize = 8;

    fn get(&self, pos: u32) -> u16 {
        let (chunk, at) = (pos as usize / CHUNK, pos as usize % CHUNK);
        let place = self.chunks.get(chunk).and_then(|chunk| chunk.get(at));
        place.copied().unwrap_or(0)
    }

    /// Notes a place if there is room for it, or if it is 0; false if there is none, and nothing is changed.
    #[inline]
    fn set_within(&mut self, pos: u32, place: u16) -> bool {
        let (chunk, at) = (pos as usize / CHUNK, pos as usize % CHUNK);
        match self.chunks.get_mut(chunk).and_then(|c| c.get_mut(at)) {
            Some(slot) => {
                *slot = place;
                true
            }
            None => place == 0,
        }
    }

    fn set(&mut self, pos: u32, place: u16) {
        let (chunk, at) = (pos as usize / CHUNK, pos as usize % CHUNK);
        if self.chunks.get(chunk).is_none_or(|c| c.len() <= at) {
            if place == 0 {
                return;
            }
            self.make_room(chunk, at);
        }
        self.chunks[chunk][at] = place;
    }

    fn make_room(&mut self, chunk: usize, at: usize) {
        if self.chunks.len() <= chunk {
            // A vector that grows begins with four of them.
            if chunk == 0 {
                self.chunks.reserve_exact(1);
            }
            self.chunks.resize_with(chunk + 1, Box::default);
        }
        let room = match chunk {
            0 => (at + 1).next_power_of_two().max(Self::FIRST),
            _ => CHUNK,
        };
        let places = &mut self.chunks[chunk];
        let mut longer = vec![0; room].into_boxed_slice();
        longer[..places.len()].copy_from_slice(places);
        self.bytes = self.bytes + class(room * 2) - class(places.len() * 2);
        *places = longer;
    }

    /// Whether [`Places::shorten`] gives memory back.
    #[inline]
    fn shrinks(&self, len: u32) -> bool {
        match self.chunks.as_slice() {
            [only] => only.len() > Self::FIRST && is_too_long(len as usize, only.len()),
            chunks => chunks.len() > (len as usize).div_ceil(CHUNK),
        }
    }

    /// Drops the chunks that a list of this length does not reach, and shortens the only one.
    fn shorten(&mut self, len: u32) {
        while self.chunks.len() > (len as usize).div_ceil(CHUNK) {
            let dropped = self.chunks.pop();
            self.bytes -= dropped.map_or(0, |chunk| class(chunk.len() * 2));
        }
        shrink(&mut self.chunks);
        if self.shrinks(len)
            && let [only] = self.chunks.as_mut_slice()
        {
            let room = (len as usize * 2).next_power_of_two().max(Self::FIRST);
            self.bytes = self.bytes + class(room * 2) - class(only.len() * 2);
            *only = only[..room].into();
        }
    }

    fn bytes(&self) -> usize {
        class(self.chunks.capacity() * size_of::<Box<[u16]>>()) + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids and places, against a plain vector of both. Even ids are entries with many tags.
    #[test]
    fn behaves_like_a_vec_and_keeps_the_places_of_members_with_many_tags() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut list = List::pair(1, 3, None);
        let mut model: Vec<(u32, u16)> = vec![(1, 0), (3, 0)];
        let mut grew_or_shrank = 0;
        for id in 4..60_000u32 {
            let growing = (id / 9_000) % 2 == 0;
            if model.len() < 2 || rng.u8(..) < if growing { 220 } else { 40 } {
                let place = rng.u16(..);
                // The first third goes without, so that a long list becomes one with places.
                let many = id % 2 == 0 && id > 20_000;
                let (place_noted, before) = (many.then_some(place), list.bytes());
                match list.push_within(id, place_noted) {
                    Some(pos) => assert_eq!((pos as usize, list.bytes()), (model.len(), before)),
                    None => list.push(id, place_noted),
                }
                model.push((id, place));
            } else {
                let pos = rng.usize(..model.len());
                model.swap_remove(pos);
                let before = list.bytes();
                let moved = list.swap_remove_within(pos as u32);
                assert!(moved.is_none() || list.bytes() == before);
                grew_or_shrank += usize::from(moved.is_none());
                let moved = moved.unwrap_or_else(|| list.swap_remove(pos as u32));
                assert_eq!(moved.as_ref().map(|m| m.entry), model.get(pos).map(|m| m.0));
                if let Some(moved) = moved
                    && moved.entry % 2 == 0
                    && moved.entry > 20_000
                {
                    assert_eq!(moved.place, usize::from(model[pos].1));
                }
            }
            assert_eq!(list.len() as usize, model.len());
            assert_eq!(list.get(list.len() - 1), model.last().map(|m| m.0));
        }
        for (pos, (id, _)) in model.iter().enumerate() {
            assert_eq!(list.get(pos as u32), Some(*id));
        }
        assert!((1..1_000).contains(&grew_or_shrank), "{grew_or_shrank}");
        assert_eq!(list.get(model.len() as u32), None);
    }

    #[test]
    fn a_list_is_let_go_of_in_pieces() {
        let mut list = List::pair(0, 1, None);
        (2..100_000).for_each(|id| list.push(id, (id % 7 == 0).then_some(1)));
        let mut steps = 1;
        while list.shed(10) {
            steps += 1;
        }
        assert!((10..=21).contains(&steps), "{steps}");
    }
}
