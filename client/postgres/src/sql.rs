//! Pieces of SQL.
//!
//! Owns quoting and how a column becomes the one text that both captured changes and query results are read from. It
//! must not know tables. Values never appear in SQL: they are bound.

use mcache_graph::FieldType;

use super::form::Form;

/// Length of an identifier that PostgreSQL keeps; longer ones it cuts off silently, so that two can become one.
pub(super) const IDENTIFIER_BYTES_MAX: usize = 63;

/// A quoted identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted string constant. A function's body is read in the sessions that call it, with their
/// `standard_conforming_strings`: see [`quoted_text`].
pub(super) fn literal(name: &str) -> String {
    match name.contains('\\') {
        true => quoted_text(name),
        false => format!("'{}'", name.replace('\'', "''")),
    }
}

/// A quoted string constant of any content, for both values of `standard_conforming_strings`.
pub(super) fn quoted_text(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A body between dollar quotes whose tag does not occur in it.
pub(super) fn dollar_quoted(body: &str) -> String {
    let mut tag = String::from("$mcache$");
    while body.contains(&tag) {
        tag.insert(tag.len() - 1, '_');
    }
    format!("{tag}{body}{tag}")
}

/// A name that fits: a long one is cut and told apart by a hash.
pub(super) fn shortened(name: &str) -> String {
    if name.len() <= IDENTIFIER_BYTES_MAX {
        return name.to_owned();
    }
    let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    let kept = (0..=IDENTIFIER_BYTES_MAX - 17)
        .rev()
        .find(|&end| name.is_char_boundary(end))
        .unwrap_or(0);
    format!("{}_{hash:016x}", &name[..kept])
}

/// Every setting that the text of a value depends on, and what it is set to wherever texts are made: in trigger
/// functions, in the resolver's sessions, in the source's. (The path of schemas is another matter: see `install.rs`.)
pub(super) const TEXT_SETTINGS: [(&str, &str); 6] = [
    ("timezone", "UTC"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
];

/// The value of a column as text, in a spelling that depends on no setting of the session but those of
/// [`TEXT_SETTINGS`].
///
/// The text is what [`value::from_text`](super::value::from_text) reads. Captured changes and query results go through
/// this same pair, so that a filter evaluated on an event sees what a query saw.
pub(super) fn text_of(kind: FieldType, column: &str) -> String {
    text_in(Form::of(kind), column)
}

/// As [`text_of`], in one of the forms in which values are captured.
pub(super) fn text_in(form: Form, column: &str) -> String {
    match form {
        Form::Text => format!("({column})::pg_catalog.text"),
        // `infinity` has no digits to print, and years before the first are marked as PostgreSQL marks them.
        Form::Time => format!(
            "CASE WHEN pg_catalog.isfinite({column}) THEN pg_catalog.to_char(({column})::pg_catalog.timestamptz AT TIME ZONE 'UTC', \
             'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') OPERATOR(pg_catalog.||) CASE WHEN ({column})::pg_catalog.timestamptz \
             OPERATOR(pg_catalog.<) '0001-01-01 00:00:00+00' THEN ' BC' ELSE '' END ELSE ({column})::pg_catalog.text END"
        ),
        // Takes json, jsonb, arrays and composite types alike.
        Form::Digest => format!("pg_catalog.to_jsonb({column})::pg_catalog.text"),
    }
}

/// What PostgreSQL refuses to read if a value in this form could depend on a setting of the session or run a function
/// of another user; null if there is no such thing for the type, by its name in `pg_catalog`, or `enum`.
///
/// The ranges take elements of exactly their type. The other functions also take what PostgreSQL's own rules turn into
/// their type without being asked, which gives the same text.
pub(super) fn plain_in(form: Form, kind: &str, column: &str) -> Option<String> {
    let range =
        |range: &str| format!("pg_catalog.range_contains_elem(NULL::pg_catalog.{range}, {column})");
    let out = |function: &str| format!("pg_catalog.{function}({column})");
    Some(match (form, kind) {
        (Form::Text, "int4") => range("int4range"),
        (Form::Text, "int8") => range("int8range"),
        (Form::Text, "numeric") => range("numrange"),
        (Form::Text, "int2") => out("int2out"),
        (Form::Text, "bool") => out("boolout"),
        (Form::Text, "uuid") => out("uuid_out"),
        (Form::Text, "enum") => out("enum_out"),
        (Form::Text, "text" | "varchar" | "bpchar") => out("textout"),
        (Form::Time, "timestamptz") => range("tstzrange"),
        (Form::Digest, "json") => out("json_out"),
        (Form::Digest, "jsonb") => out("jsonb_out"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_escapes_its_quotes() {
        assert_eq!(
            identifier(r#"a"; DROP TABLE x; --"#),
            r#""a""; DROP TABLE x; --""#
        );
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"it's \"), r"E'it''s \\'");
        assert_eq!(quoted_text(r"it's \"), r"E'it''s \\'");
        let body = "x $mcache$ y $mcache_$";
        assert_eq!(dollar_quoted(body), format!("$mcache__${body}$mcache__$"));
    }

    #[test]
    fn long_names_fit_and_stay_different() {
        let long = "é".repeat(40);
        let (a, b) = (
            shortened(&format!("{long}a")),
            shortened(&format!("{long}b")),
        );
        assert_ne!(a, b);
        assert!(a.len() <= IDENTIFIER_BYTES_MAX && b.len() <= IDENTIFIER_BYTES_MAX);
        assert_eq!(shortened("short"), "short");
    }
}
