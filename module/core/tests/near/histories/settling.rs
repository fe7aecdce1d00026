//! Settling from the side of who invalidated.

use mcache_core::near::{Settle, Step};

#[test]
fn without_an_answer_it_is_settled_one_lease_after_the_acknowledgement() {
    let none = Settle::acknowledged(0, 0, 5);
    assert_eq!(none.step(5), Step::Settled, "no round trip more");
    let mut one = Settle::acknowledged(1, 1_000, 5);
    assert_eq!(one.step(5), Step::Ask { until_ms: 1_046 });
    assert_eq!(one.step(1_045), Step::Ask { until_ms: 1_046 });
    assert_eq!(one.step(1_046), Step::Settled);
    one.replied(1);
    assert_ne!(one.step(5), Step::Settled);
    one.replied(0);
    assert_eq!(one.step(5), Step::Settled);
    let unknown = Settle::unknown(5);
    assert_ne!(unknown.step(5_200), Step::Settled);
    assert_eq!(unknown.step(5_500), Step::Settled);
}
