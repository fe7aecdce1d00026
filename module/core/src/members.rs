//! The members of one tag: entry ids in an array that grows without copying what it holds.
//!
//! Removal swaps the last id into the hole, so membership costs four bytes here and four in the entry (its position).
//! Most tags have one member: that one lives in the record itself and no list exists.

/// Ids in a chunk of a long list; short lists are one growing vector up to this length.
const CHUNK: usize = 1024;

/// Two members or more.
pub(crate) enum List {
    Short(Vec<u32>),
    Long { chunks: Vec<Vec<u32>>, len: u32 },
}

impl List {
    pub(crate) fn pair(first: u32, second: u32) -> Self {
        List::Short(vec![first, second])
    }

    pub(crate) fn len(&self) -> u32 {
        match self {
            List::Short(ids) => ids.len() as u32,
            List::Long { len, .. } => *len,
        }
    }

    #[inline]
    pub(crate) fn get(&self, pos: u32) -> Option<u32> {
        match self {
            List::Short(ids) => ids.get(pos as usize).copied(),
            List::Long { chunks, .. } => chunks
                .get(pos as usize / CHUNK)?
                .get(pos as usize % CHUNK)
                .copied(),
        }
    }

    pub(crate) fn push(&mut self, id: u32) {
        match self {
            List::Short(ids) if ids.len() < CHUNK => ids.push(id),
            List::Short(ids) => {
                let mut next = Vec::with_capacity(CHUNK);
                next.push(id);
                *self = List::Long {
                    len: CHUNK as u32 + 1,
                    chunks: vec![std::mem::take(ids), next],
                };
            }
            List::Long { chunks, len } => {
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

    fn pop(&mut self) -> Option<u32> {
        match self {
            List::Short(ids) => {
                let id = ids.pop();
                if ids.len() * 4 < ids.capacity() {
                    ids.shrink_to(ids.len() * 2);
                }
                id
            }
            List::Long { chunks, len } => {
                let chunk = chunks.last_mut()?;
                let id = chunk.pop();
                *len -= 1;
                if chunk.is_empty() {
                    chunks.pop();
                }
                if chunks.len() == 1 {
                    *self = List::Short(chunks.pop().unwrap_or_default());
                }
                id
            }
        }
    }

    /// Removes the id at `pos`; returns the id that took its place, if another one did.
    pub(crate) fn swap_remove(&mut self, pos: u32) -> Option<u32> {
        let last = self.pop()?;
        if pos == self.len() {
            return None;
        }
        let slot = match self {
            List::Short(ids) => ids.get_mut(pos as usize),
            List::Long { chunks, .. } => chunks
                .get_mut(pos as usize / CHUNK)
                .and_then(|c| c.get_mut(pos as usize % CHUNK)),
        };
        *slot? = last;
        Some(last)
    }

    /// Bytes allocated beyond the value itself; O(1), for it is asked at every change.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            List::Short(ids) => ids.capacity() * 4,
            List::Long { chunks, .. } => {
                chunks.capacity() * size_of::<Vec<u32>>() + chunks.len() * CHUNK * 4
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_vec() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut list = List::pair(0, 1);
        let mut model = vec![0, 1];
        for id in 2..60_000u32 {
            let growing = (id / 9_000) % 2 == 0;
            if model.len() < 2 || rng.u8(..) < if growing { 220 } else { 40 } {
                list.push(id);
                model.push(id);
            } else {
                let pos = rng.usize(..model.len());
                model.swap_remove(pos);
                assert_eq!(list.swap_remove(pos as u32), model.get(pos).copied());
            }
            assert_eq!(list.len() as usize, model.len());
            assert_eq!(list.get(list.len() - 1), model.last().copied());
        }
        assert!(
            model
                .iter()
                .enumerate()
                .all(|(i, id)| list.get(i as u32) == Some(*id))
        );
        assert_eq!(list.get(model.len() as u32), None);
    }
}
