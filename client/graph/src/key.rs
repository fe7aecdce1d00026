//! The key of a query: a 128-bit hash of its canonical form, its options and the schema.
//!
//! Two queries share a key if and only if they are written alike up to the order of object members.
//! Knows nothing of tags or results.

use serde_json::{Map, Number, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::options::GraphOptions;
use super::query::{Direction, GraphQuery};
use super::schema::Schema;

/// Changes with the form of tags or results, so that entries of another form are never read.
const FORMAT: u8 = 2;

/// What every computed key begins with.
const PREFIX: &str = "graph:";

/// Room for most queries, so that the buffer rarely grows.
const CANONICAL_BYTES: usize = 1_024;

/// The key under which the result of a query is kept. `origin` is [where the rows come from](super::Resolver::origin).
///
/// ```
/// use mcache_graph::{Entity, GraphOptions, GraphQuery, Schema, compute_key};
/// use serde_json::json;
///
/// let schema = Schema::builder().entity(Entity::new("Product").field("title")).build()?;
/// let key = |filters| {
///     let query = GraphQuery::new("product").fields(["id"]).filters(filters);
///     compute_key(&schema, "", &query, &GraphOptions::default())
/// };
/// assert_eq!(key(json!({ "id": "a", "title": "b" })), key(json!({ "title": "b", "id": "a" })));
/// assert_ne!(key(json!({ "id": ["a", "b"] })), key(json!({ "id": ["b", "a"] })));
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
pub fn compute_key(
    schema: &Schema,
    origin: &str,
    query: &GraphQuery,
    options: &GraphOptions,
) -> String {
    let mut canonical = Vec::with_capacity(CANONICAL_BYTES);
    canonical.push(FORMAT);
    canonical.extend_from_slice(&schema.fingerprint().to_le_bytes());
    write_string(&mut canonical, origin);
    write_query(&mut canonical, schema, query);
    write_options(&mut canonical, options);

    let mut key = String::with_capacity(PREFIX.len() + 32);
    key.push_str(PREFIX);
    for byte in xxh3_128(&canonical).to_be_bytes() {
        for digit in [byte >> 4, byte & 15] {
            key.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    key
}

/// Everything in the query, each part in its fixed place.
fn write_query(out: &mut Vec<u8>, schema: &Schema, query: &GraphQuery) {
    // `product` and `Product` are one entity.
    let entity = schema
        .entity(&query.entity)
        .map_or(&*query.entity, |entity| entity.name());
    write_string(out, entity);
    out.push(b'[');
    for field in &query.fields {
        write_string(out, field);
    }
    out.push(b']');
    write_value(out, &query.filters);
    if let Some(pagination) = &query.pagination {
        for rows in [pagination.skip, pagination.take] {
            write_option(
                out,
                rows.map(u64::to_le_bytes).as_ref().map(|bytes| &bytes[..]),
            );
        }
        for (field, direction) in &pagination.order {
            write_string(out, field);
            out.push(match direction {
                Direction::Asc => b'+',
                Direction::Desc => b'-',
            });
        }
    }
    out.push(b';');
    write_value(out, &query.context);
}

/// The options that change the result; those about caching do not.
fn write_options(out: &mut Vec<u8>, options: &GraphOptions) {
    write_option(out, options.locale.as_deref().map(str::as_bytes));
    out.push(b'0' + u8::from(options.throw_if_key_not_found));
}

fn write_option(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            out.push(b'1');
            write_bytes(out, bytes);
        }
        None => out.push(b'0'),
    }
}

/// Length before content: unlike escaping, its cost depends only on the length.
fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_bytes(out, text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(b'n'),
        Value::Bool(false) => out.push(b'f'),
        Value::Bool(true) => out.push(b't'),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                write_value(out, item);
            }
            out.push(b']');
        }
        Value::Object(members) => write_members(out, members),
    }
}

fn write_number(out: &mut Vec<u8>, number: &Number) {
    let (kind, bytes) = if let Some(whole) = number.as_i64() {
        (b'i', whole.to_le_bytes())
    } else if let Some(whole) = number.as_u64() {
        (b'u', whole.to_le_bytes())
    } else {
        (b'd', number.as_f64().unwrap_or(f64::NAN).to_le_bytes())
    };
    out.push(kind);
    out.extend_from_slice(&bytes);
}

fn write_members(out: &mut Vec<u8>, members: &Map<String, Value>) {
    out.push(b'{');
    if members.keys().is_sorted() {
        for (name, value) in members {
            write_string(out, name);
            write_value(out, value);
        }
    } else {
        // Only if some crate switched serde_json's `preserve_order` on.
        let mut members: Vec<_> = members.iter().collect();
        members.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in members {
            write_string(out, name);
            write_value(out, value);
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;
    use crate::{Entity, Field, Pagination};

    fn schema(version: &str) -> Schema {
        let product = Entity::new("Product")
            .field("title")
            .field(Field::integer("rank"));
        Schema::builder()
            .entity(product)
            .version(version)
            .build()
            .unwrap()
    }

    fn query() -> GraphQuery {
        GraphQuery::new("product").fields(["id", "title"])
    }

    #[test]
    fn everything_that_can_change_the_result_changes_the_key() {
        let schema_1 = schema("1");
        let plain = GraphOptions::default;
        let page = Pagination::new;
        let mut keys = HashSet::new();
        let queries = [
            query(),
            query().fields(["rank"]),
            GraphQuery::new("product").fields(["title", "id"]),
            GraphQuery::new("order").fields(["id", "title"]),
            query().filters(json!({})),
            query().filters(json!({ "title": "1" })),
            query().filters(json!({ "title": 1 })),
            query().filters(json!({ "title": [1] })),
            query().filters(json!({ "title": null })),
            query().context(json!({})),
            query().context(json!({ "title": "1" })),
            query().pagination(page()),
            query().pagination(page().skip(1)),
            query().pagination(page().take(1)),
            query().pagination(page().order("title", Direction::Asc)),
            query().pagination(page().order("title", Direction::Desc)),
            query().pagination(page().order("a", Direction::Asc).order("b", Direction::Asc)),
            query().pagination(page().order("b", Direction::Asc).order("a", Direction::Asc)),
        ];
        for query in &queries {
            assert!(
                keys.insert(compute_key(&schema_1, "", query, &plain())),
                "{query:?}"
            );
        }
        for options in [plain().locale("de"), plain().throw_if_key_not_found(true)] {
            assert!(
                keys.insert(compute_key(&schema_1, "", &query(), &options)),
                "{options:?}"
            );
        }
        assert!(keys.insert(compute_key(&schema("2"), "", &query(), &plain())));
        assert!(keys.insert(compute_key(&schema_1, "tenant b", &query(), &plain())));
        assert!(keys.iter().all(|key| key.len() == PREFIX.len() + 32));
    }

    #[test]
    fn what_cannot_change_the_result_does_not_change_the_key() {
        let schema = schema("1");
        let key = compute_key(&schema, "", &query(), &GraphOptions::default());
        let shouted = GraphQuery::new("Product").fields(["id", "title"]);
        assert_eq!(
            key,
            compute_key(&schema, "", &shouted, &GraphOptions::default())
        );
        let mut options = GraphOptions::default();
        options.cache.enable = Some(true);
        assert_eq!(key, compute_key(&schema, "", &query(), &options));
    }
}
