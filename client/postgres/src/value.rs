//! From PostgreSQL's text to JSON.
//!
//! Owns what a stored value looks like in results and events. It must not know where the text came from: see
//! [`sql::text_of`](super::sql::text_of), its counterpart.

use std::borrow::Cow;

use serde_json::{Number, Value};

use mcache_graph::FieldType;

/// The JSON value of a column's text; `None` in, `null` out.
///
/// | field | JSON |
/// |---|---|
/// | text, uuid | string |
/// | integer | number |
/// | number | number if a double holds it exactly to its last digit, else a string with all digits |
/// | boolean | `true`, `false` |
/// | timestamp | string `2026-01-31T12:00:00.000000Z`, or `infinity`, `-infinity` |
/// | json | what it is; a number in it as above |
///
/// A text that is not of the type at all (the column is of another type than its field says) comes back as a string:
/// nothing is lost and nothing fails.
pub(super) fn from_text(kind: FieldType, text: Option<&str>) -> Value {
    let Some(text) = text else {
        return Value::Null;
    };
    let value = match kind {
        FieldType::Integer | FieldType::Number => number(text).map(Value::Number),
        FieldType::Boolean => match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        FieldType::Json => serde_json::from_str(&with_all_digits(text)).ok(),
        _ => None,
    };
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The number that `text` is, if JSON can hold it without changing it.
fn number(text: &str) -> Option<Number> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole.into());
    }
    let double: f64 = text.parse().ok()?;
    // `{:e}` prints the shortest digits that give this double back: the same digits mean that nothing was rounded.
    (digits(text)? == digits(&format!("{double:e}"))?)
        .then(|| Number::from_f64(double))
        .flatten()
}

/// A JSON text whose numbers a double would change are strings with all their digits instead.
fn with_all_digits(json: &str) -> Cow<'_, str> {
    let is_part = |byte: u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let bytes = json.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                // To the end of the string, over what is escaped in it.
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let begin = at;
                while at < bytes.len() && is_part(bytes[at]) {
                    at += 1;
                }
                let token = &json[begin..at];
                if number(token).is_none() {
                    out.push_str(&json[copied..begin]);
                    out.push('"');
                    out.push_str(token);
                    out.push('"');
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    match copied {
        0 => Cow::Borrowed(json),
        _ => {
            out.push_str(&json[copied..]);
            Cow::Owned(out)
        }
    }
}

/// A decimal as sign, significant digits and power of ten, the same for every spelling of one number.
fn digits(text: &str) -> Option<(bool, String, i32)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
        None => (text, 0_i32),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let trailing = all.len() - all.trim_end_matches('0').len();
    let power = exponent
        .checked_sub(i32::try_from(fraction.len()).ok()?)?
        .checked_add(i32::try_from(trailing).ok()?)?;
    Some((negative, significant.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_type_has_its_json() {
        for (kind, text, value) in [
            (FieldType::Text, "007", json!("007")),
            (FieldType::Integer, "-7", json!(-7)),
            (FieldType::Integer, "18446744073709551615", json!(u64::MAX)),
            (FieldType::Number, "10.50", json!(10.5)),
            (FieldType::Number, "1e-07", json!(1e-7)),
            (FieldType::Number, "0.1", json!(0.1)),
            (FieldType::Number, "-0.00", json!(-0.0)),
            (FieldType::Number, "1e+25", json!(1e25)),
            (FieldType::Boolean, "true", json!(true)),
            (
                FieldType::Json,
                r#"{"a":[1,null]}"#,
                json!({"a": [1, null]}),
            ),
            (FieldType::Timestamp, "infinity", json!("infinity")),
        ] {
            assert_eq!(from_text(kind, Some(text)), value, "{text}");
        }
        assert_eq!(from_text(FieldType::Json, None), Value::Null);
    }

    #[test]
    fn json_keeps_every_digit() {
        for (text, value) in [
            (
                r#"{"a": 12345678901234567890123, "b": [0.1, 1.00000000000000000001], "c": "1.00000000000000000001"}"#,
                json!({ "a": "12345678901234567890123", "b": [0.1, "1.00000000000000000001"], "c": "1.00000000000000000001" }),
            ),
            (
                r#"{"\\": "\"123456789012345678901\\", "é": -1e400}"#,
                json!({ "\\": "\"123456789012345678901\\", "é": "-1e400" }),
            ),
            ("18446744073709551615", json!(u64::MAX)),
            ("123456789012345678901", json!("123456789012345678901")),
        ] {
            assert_eq!(from_text(FieldType::Json, Some(text)), value, "{text}");
        }
    }

    #[test]
    fn digits_that_a_double_cannot_hold_are_kept_as_text() {
        for text in [
            "12345678901234567890.123456789",
            "0.12345678901234567890",
            "NaN",
            "Infinity",
        ] {
            assert_eq!(from_text(FieldType::Number, Some(text)), json!(text));
        }
    }
}
