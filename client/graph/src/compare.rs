//! The order of values, for sorting rows and for filters. A total order: sorting never meets a
//! contradiction, also when a resolver returns values of several types.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::query::Direction;

/// The order of two values of a field: nulls (and absent ones) last when ascending, first when
/// descending, as in PostgreSQL.
pub(crate) fn compare_in(a: Option<&Value>, b: Option<&Value>, direction: Direction) -> Ordering {
    let ascending = match (present(a), present(b)) {
        (Some(a), Some(b)) => compare(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    match direction {
        Direction::Asc => ascending,
        Direction::Desc => ascending.reverse(),
    }
}

/// The order of two values that are not null: numbers by value, strings by their bytes, values of
/// different kinds by kind.
pub(crate) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => kind(a).cmp(&kind(b)),
    }
}

fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

/// By value as floating point first, which never contradicts the exact order, then exactly.
fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    let float = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
    let whole = |number: &Number| match (number.as_i64(), number.as_u64()) {
        (Some(whole), _) => i128::from(whole),
        (None, Some(whole)) => i128::from(whole),
        (None, None) => float(number) as i128,
    };
    let by_float = float(a).total_cmp(&float(b));
    by_float.then_with(|| whole(a).cmp(&whole(b)))
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn large_integers_and_fractions_keep_their_order() {
        let ordered = [
            json!(-1.5),
            json!(0),
            json!(0.5),
            json!(9_007_199_254_740_992_i64),
            json!(9_007_199_254_740_993_i64),
            json!(u64::MAX),
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare(&json!(1), &json!(1.0)), Ordering::Equal);
    }

    #[test]
    fn nulls_are_last_ascending_and_first_descending() {
        let (null, one) = (json!(null), json!(1));
        let null = Some(&null);
        for absent in [null, None] {
            assert_eq!(
                compare_in(absent, Some(&one), Direction::Asc),
                Ordering::Greater
            );
            assert_eq!(
                compare_in(absent, Some(&one), Direction::Desc),
                Ordering::Less
            );
            assert_eq!(compare_in(absent, null, Direction::Asc), Ordering::Equal);
        }
    }
}
