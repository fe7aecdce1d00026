//! A counter of work, so that tests can see how work grows without looking at a clock.
//!
//! What is counted are comparisons and visited members, inside the loops that do them: a test that stores, invalidates
//! or lists compares the numbers of two cases and is exact on any machine. Counting is compiled into builds with debug
//! assertions only; a release build does not contain it.

#[cfg(debug_assertions)]
thread_local! {
    static DONE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts `steps` comparisons or visits.
#[inline(always)]
pub(crate) fn step(steps: usize) {
    #[cfg(debug_assertions)]
    DONE.with(|done| done.set(done.get() + steps as u64));
    #[cfg(not(debug_assertions))]
    let _ = steps;
}

/// Steps of this thread so far; always 0 in a release build.
pub fn done() -> u64 {
    #[cfg(debug_assertions)]
    return DONE.with(std::cell::Cell::get);
    #[cfg(not(debug_assertions))]
    0
}

/// Steps that `body` takes, beside what it returns.
pub fn of<T>(body: impl FnOnce() -> T) -> (u64, T) {
    let before = done();
    let result = body();
    (done() - before, result)
}
