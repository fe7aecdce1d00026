//! Values on their way to PostgreSQL.
//!
//! Owns how a value of a filter becomes a bound parameter. Every parameter travels as text and is cast in the statement
//! to the type its field has, so that the server decides what it means and an index on the column can be used. It must
//! not build statements.

use std::error::Error;

use serde_json::Value;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use mcache_graph::FieldType;

/// A parameter, as the text PostgreSQL reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Param(String);

impl Param {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// An array, in PostgreSQL's notation: every element quoted, so that none is taken for `NULL` or a brace.
    pub(super) fn array(elements: impl IntoIterator<Item = String>) -> Self {
        let mut array = String::from("{");
        for element in elements {
            if array.len() > 1 {
                array.push(',');
            }
            array.push('"');
            for c in element.chars() {
                if matches!(c, '"' | '\\') {
                    array.push('\\');
                }
                array.push(c);
            }
            array.push('"');
        }
        array.push('}');
        Self(array)
    }
}

impl ToSql for Param {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_type: &Type) -> bool {
        true
    }

    fn encode_format(&self, _type: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// Longer texts are not taken for numbers.
const DIGITS_MAX: usize = 1_000;

/// The type a parameter compared with a column of this kind is cast to: one for which PostgreSQL has a comparison with
/// every column type the kind can stand for.
pub(super) fn sql_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Integer => "int8",
        FieldType::Number => "numeric",
        FieldType::Boolean => "boolean",
        FieldType::Timestamp => "timestamptz",
        FieldType::Uuid => "uuid",
        FieldType::Json => "jsonb",
        _ => "text",
    }
}

/// As [`sql_type`], for one value: whole numbers that 64 bits cannot hold are compared as decimals.
pub(super) fn sql_type_of(kind: FieldType, text: &str) -> &'static str {
    match kind {
        FieldType::Integer if text.parse::<i64>().is_err() => "numeric",
        _ => sql_type(kind),
    }
}

/// The text of a value, if a column of this kind can hold it at all. A value it cannot hold is equal to nothing, which
/// is an answer and not an error: such values come from the outside, in an address for example.
pub(super) fn storable(kind: FieldType, value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) if matches!(kind, FieldType::Integer | FieldType::Number) => {
            kind.canonical_text(value)?;
            text.clone()
        }
        Value::String(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(_) => kind.canonical_text(value)?.into_owned(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let fits = match kind {
        // PostgreSQL's decimals have at most 131,072 digits before the point.
        FieldType::Integer => {
            text.len() <= DIGITS_MAX && text.parse::<f64>().is_ok_and(f64::is_finite)
        }
        FieldType::Number => text.len() <= DIGITS_MAX && text.parse::<f64>().is_ok(),
        FieldType::Boolean => matches!(text.as_str(), "true" | "false"),
        FieldType::Uuid => is_uuid(&text),
        FieldType::Json => false,
        _ => !text.contains('\0'),
    };
    fits.then_some(text)
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A pattern for `LIKE … ESCAPE '\'`. A last `\` that escapes nothing means itself; PostgreSQL would call it an error.
pub(super) fn pattern(pattern: &str) -> Option<String> {
    if pattern.contains('\0') {
        return None;
    }
    let trailing = pattern.len() - pattern.trim_end_matches('\\').len();
    let missing = if trailing % 2 == 1 { "\\" } else { "" };
    Some(format!("{pattern}{missing}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_element_escapes_its_array() {
        let array = Param::array([r#"a","b"#, r"\", "NULL", "", "{}"].map(str::to_owned));
        assert_eq!(array.0, r#"{"a\",\"b","\\","NULL","","{}"}"#);
        assert_eq!(Param::array([]).0, "{}");
    }

    #[test]
    fn what_a_column_cannot_hold_is_not_sent() {
        let storable = |kind, value| storable(kind, &value);
        assert_eq!(
            storable(FieldType::Text, json!("it's")),
            Some("it's".into())
        );
        assert_eq!(storable(FieldType::Text, json!("a\0b")), None);
        assert_eq!(storable(FieldType::Text, json!(7)), Some("7".into()));
        let beyond = storable(FieldType::Integer, json!(u64::MAX)).unwrap();
        assert_eq!(beyond, "18446744073709551615");
        assert_eq!(sql_type_of(FieldType::Integer, &beyond), "numeric");
        assert_eq!(sql_type_of(FieldType::Integer, "7"), "int8");
        assert_eq!(storable(FieldType::Integer, json!(2.0)), Some("2".into()));
        assert_eq!(storable(FieldType::Integer, json!(2.5)), None);
        assert_eq!(
            storable(FieldType::Number, json!("NaN")),
            Some("NaN".into())
        );
        assert_eq!(storable(FieldType::Number, json!("ten")), None);
        assert_eq!(
            storable(
                FieldType::Uuid,
                json!("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11")
            ),
            Some("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11".into())
        );
        assert_eq!(storable(FieldType::Uuid, json!("1' OR '1'='1")), None);
    }

    #[test]
    fn a_pattern_never_ends_in_an_escape() {
        assert_eq!(pattern(r"a%\"), Some(r"a%\\".into()));
        assert_eq!(pattern(r"a%\\"), Some(r"a%\\".into()));
        assert_eq!(pattern("a\0"), None);
    }
}
