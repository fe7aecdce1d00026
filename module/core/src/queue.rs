//! A queue of ids that grows without copying what it holds, and takes no memory when it is empty.

use std::collections::VecDeque;

use crate::alloc::class;

/// Ids in a chunk.
const CHUNK: usize = 1024;

/// First in, first out; also taken from the end.
#[derive(Default)]
pub(crate) struct Queue {
    /// All but the first and the last are full.
    chunks: VecDeque<VecDeque<u32>>,
    len: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push_back(&mut self, id: u32) {
        match self.chunks.back_mut() {
            // A chunk that never was longer does not grow beyond its capacity.
            Some(chunk) if chunk.len() < CHUNK => chunk.push_back(id),
            _ => {
                let mut chunk = VecDeque::with_capacity(if self.len == 0 { 16 } else { CHUNK });
                chunk.push_back(id);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
    }

    pub(crate) fn front(&self) -> Option<u32> {
        self.chunks.front()?.front().copied()
    }

    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        let chunk = self.chunks.front_mut()?;
        let id = chunk.pop_front();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.took(id)
    }

    pub(crate) fn back(&self) -> Option<u32> {
        self.chunks.back()?.back().copied()
    }

    pub(crate) fn pop_back(&mut self) -> Option<u32> {
        let chunk = self.chunks.back_mut()?;
        let id = chunk.pop_back();
        if chunk.is_empty() {
            self.chunks.pop_back();
        }
        self.took(id)
    }

    fn took(&mut self, id: Option<u32>) -> Option<u32> {
        self.len -= usize::from(id.is_some());
        if self.len == 0 {
            self.chunks = VecDeque::new();
        }
        id
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &u32> {
        self.chunks.iter().flatten()
    }

    /// Bytes allocated. O(1): all but two chunks have the same capacity.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |chunk: &VecDeque<u32>| class(chunk.capacity() * 4);
        let last = self.chunks.back().filter(|_| self.chunks.len() > 1);
        class(self.chunks.capacity() * size_of::<VecDeque<u32>>())
            + self.chunks.front().map_or(0, bytes)
            + last.map_or(0, bytes)
            + self.chunks.len().saturating_sub(2) * CHUNK * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_like_a_deque_and_takes_nothing_when_empty() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let (mut queue, mut model) = (Queue::default(), VecDeque::new());
        for step in 0..40_000u32 {
            match rng.u8(..) {
                b if b < if step < 20_000 { 160 } else { 90 } => {
                    queue.push_back(step);
                    model.push_back(step);
                }
                b if b % 2 == 0 => assert_eq!(queue.pop_front(), model.pop_front()),
                _ => assert_eq!(queue.pop_back(), model.pop_back()),
            }
            assert_eq!(
                (queue.len(), queue.front()),
                (model.len(), model.front().copied())
            );
            assert_eq!(queue.back(), model.back().copied());
            let bytes: usize = queue.chunks.iter().map(|c| class(c.capacity() * 4)).sum();
            assert_eq!(queue.bytes(), bytes + class(queue.chunks.capacity() * 32));
        }
        assert!(queue.iter().eq(model.iter()));
        while queue.pop_front().is_some() {}
        assert_eq!(queue.bytes(), 0);
    }
}
