//! What an allocation really takes, so that what is reported is what `maxmemory` counts, and when a vector gives room
//! back.

/// Bytes that jemalloc, the allocator Redis is built with on Linux, sets aside for a request: steps of 16 up to 128 and
/// four steps to each doubling from there. Redis counts these, not what was asked for. (Built with another allocator it
/// counts a little more.)
#[inline]
pub fn class(bytes: usize) -> usize {
    match bytes {
        0..=8 => bytes.next_multiple_of(8),
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// Whether a vector that holds so many has far more room than it needs.
#[inline]
pub(crate) fn is_too_long(len: usize, capacity: usize) -> bool {
    len * 4 < capacity
}

/// Gives back most of what a vector has far too much.
pub(crate) fn shrink<T>(vector: &mut Vec<T>) {
    if is_too_long(vector.len(), vector.capacity()) {
        vector.shrink_to(vector.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn classes_are_those_that_jemalloc_documents() {
        for (asked, gets) in [
            (0, 0),
            (1, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (112, 112),
            (128, 128),
            (129, 160),
            (161, 192),
            (257, 320),
            (1025, 1280),
            (2576, 3072),
            (4096, 4096),
            (14337, 16384),
            (16385, 20480),
        ] {
            assert_eq!(class(asked), gets, "{asked}");
        }
    }
}
