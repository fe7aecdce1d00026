//! A counter of work, so that tests can see how work grows without looking at a clock.
//!
//! What is counted are comparisons and visited members, inside the loops that do them: a test that stores, invalidates
//! or lists compares the numbers of two cases and is exact on any machine. Counting is compiled into builds with debug
//! assertions only; a release build does not contain it.

#[cfg(debug_assertions)]
thread_local! {
    static DONE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    static BUG_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(u64::MAX) };
}

/// Counts `steps` comparisons or visits.
#[inline(always)]
pub(crate) fn step(steps: usize) {
    #[cfg(debug_assertions)]
    {
        let done = DONE.get() + steps as u64;
        DONE.set(done);
        if BUG_AT.get() <= done {
            BUG_AT.set(u64::MAX);
            panic!("a bug, as was asked for");
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = steps;
}

/// Has this thread panic once, when it has done so many more steps: half-way through the change it then makes. Nothing
/// in a release build.
pub fn panic_after(steps: u64) {
    #[cfg(debug_assertions)]
    BUG_AT.set(DONE.get().saturating_add(steps));
    #[cfg(not(debug_assertions))]
    let _ = steps;
}

/// Takes [`panic_after`] back; true if the panic has not come.
pub fn panic_no_more() -> bool {
    #[cfg(debug_assertions)]
    return BUG_AT.replace(u64::MAX) < u64::MAX;
    #[cfg(not(debug_assertions))]
    false
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
