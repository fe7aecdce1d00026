//! Random rows and queries, on a schema with a field of each kind.

use std::sync::Arc;

use harness::{Postgres, Seed};
use mcache_graph::{
    Direction, Entity, Field, FieldType, GraphQuery, MemoryResolver, Pagination, Relation, Schema,
};
use mcache_postgres::{Mapping, PostgresResolver, Table};
use serde_json::{Map, Value, json};
use tokio_postgres::NoTls;

/// One table for each entity below, with a column type for each kind of field, and two spellings of some.
pub(super) const TABLES: &str = r#"
    CREATE DOMAIN status AS varchar(20) CHECK (VALUE IN ('draft', 'published', 'it''s "odd"'));
    CREATE TABLE brand (id bigint PRIMARY KEY, name varchar(40));
    CREATE TABLE "Items; --" (
        id text PRIMARY KEY, title text, status status, "from" int, weight float8, price numeric(12,4),
        active bool, made_at timestamptz, code uuid, extra jsonb, brand_id bigint, deleted_at timestamp);
    CREATE TABLE part (id uuid PRIMARY KEY, label text, item_id text, rank smallint);
    CREATE TABLE tag (id text PRIMARY KEY, label text, deleted_at timestamptz);
    CREATE TABLE link_item_tag (item_id text, tag_id text, deleted_at timestamptz, PRIMARY KEY (item_id, tag_id));
"#;

pub(super) fn schema() -> Arc<Schema> {
    let schema = Schema::builder()
        .entity(
            Entity::new("Brand")
                .id_type(FieldType::Integer)
                .field("name")
                .relation(Relation::has_many("items", "Item", "brand_id").ordered_by("title")),
        )
        .entity(
            Entity::new("Item")
                .fields(["title", "status"])
                .field(Field::integer("rank"))
                .field(Field::number("weight"))
                .field(Field::number("price"))
                .field(Field::boolean("active"))
                .field(Field::timestamp("made_at"))
                .field(Field::uuid("code"))
                .field(Field::json("extra"))
                .field(Field::integer("brand_id"))
                .field(Field::timestamp("deleted_at"))
                .soft_delete("deleted_at")
                .relation(Relation::belongs_to("brand", "Brand", "brand_id"))
                .relation(Relation::has_many("parts", "Part", "item_id").ordered_by("rank"))
                .relation(Relation::has_one("part", "Part", "item_id"))
                .relation(Relation::linked_many("tags", "Tag", "LinkItemTag")),
        )
        .entity(
            Entity::new("Part")
                .id_type(FieldType::Uuid)
                .fields(["label", "item_id"])
                .field(Field::integer("rank"))
                .relation(Relation::belongs_to("item", "Item", "item_id")),
        )
        .entity(
            Entity::new("Tag")
                .field("label")
                .field(Field::timestamp("deleted_at"))
                .soft_delete("deleted_at")
                .relation(Relation::linked_many("items", "Item", "LinkItemTag")),
        )
        .entity(
            Entity::link("LinkItemTag", ("item_id", "Item"), ("tag_id", "Tag"))
                .field(Field::timestamp("deleted_at"))
                .soft_delete("deleted_at"),
        )
        .build();
    Arc::new(schema.unwrap())
}

pub(super) fn mapping() -> Arc<Mapping> {
    let mapping = Mapping::builder(schema())
        .table("Item", Table::named("Items; --").column("rank", "from"))
        .build();
    Arc::new(mapping.unwrap())
}

pub(super) fn resolver(postgres: &Postgres) -> PostgresResolver {
    PostgresResolver::new(postgres.conninfo().parse().unwrap(), NoTls, mapping()).unwrap()
}

/// Strings with everything in them that has ever broken a statement, an array literal or a pattern.
pub(super) const STRINGS: [&str; 14] = [
    "",
    "a",
    "b",
    "shirt",
    "Shirt",
    "it's",
    "\"quoted\"",
    "back\\slash",
    "{a,b}",
    "NULL",
    "50%_off",
    "größe",
    "'; DROP TABLE part; --",
    "$1",
];

pub(super) fn string(seed: &mut Seed) -> Value {
    json!(*seed.pick(&STRINGS))
}

pub(super) fn uuid(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

pub(super) fn instant(seed: &mut Seed) -> Value {
    json!(format!(
        "2026-01-{:02}T12:00:00.{:06}Z",
        seed.u32(1..=5),
        seed.u32(..2) * 250_000
    ))
}

/// A value for a field of this type, as results spell it.
pub(super) fn value(seed: &mut Seed, kind: FieldType) -> Value {
    match kind {
        FieldType::Text => string(seed),
        FieldType::Integer => json!(seed.i64(-3..=3)),
        FieldType::Number => json!(f64::from(seed.i32(-8..=8)) / 4.0 + 0.125),
        FieldType::Boolean => json!(seed.bool()),
        FieldType::Timestamp => instant(seed),
        FieldType::Uuid => json!(uuid(seed.u64(..5))),
        _ => json!({ "a": [seed.u32(..3), null, "x"] }),
    }
}

pub(super) fn or_null(seed: &mut Seed, value: Value) -> Value {
    if seed.chance(20) { Value::Null } else { value }
}

/// The same random rows in both stores.
pub(super) fn fill(seed: &mut Seed, postgres: &Postgres, memory: &MemoryResolver) {
    let schema = schema();
    let mut rows: Vec<(&str, &str, Map<String, Value>)> = Vec::new();
    for (entity, table, count) in [
        ("Brand", "brand", 4_u64),
        ("Item", "\"Items; --\"", 30),
        ("Part", "part", 40),
        ("Tag", "tag", 6),
    ] {
        for n in 0..count {
            let mut row = Map::new();
            for field in schema.entity(entity).unwrap().all_fields() {
                let drawn = value(seed, field.kind());
                let drawn = match (entity, field.name()) {
                    ("Brand", "id") => json!(n),
                    ("Part", "id") => json!(uuid(n)),
                    (_, "id") => json!(format!("{}{n}", STRINGS[n as usize % STRINGS.len()])),
                    (_, "status") => {
                        let status = json!(*seed.pick(&["draft", "published", "it's \"odd\""]));
                        or_null(seed, status)
                    }
                    (_, "brand_id") => {
                        let brand = json!(seed.u64(..6));
                        or_null(seed, brand)
                    }
                    (_, "item_id") => {
                        let n = seed.usize(..35);
                        let item = json!(format!("{}{n}", STRINGS[n % STRINGS.len()]));
                        or_null(seed, item)
                    }
                    (_, "deleted_at") => {
                        if seed.chance(80) {
                            Value::Null
                        } else {
                            drawn
                        }
                    }
                    _ => or_null(seed, drawn),
                };
                row.insert(field.name().to_owned(), drawn);
            }
            rows.push((entity, table, row));
        }
    }
    for item in 0..30_usize {
        for (tag, name) in STRINGS.iter().enumerate().take(6) {
            if seed.chance(20) {
                let row = json!({
                    "item_id": format!("{}{item}", STRINGS[item % STRINGS.len()]),
                    "tag_id": format!("{name}{tag}"),
                    "deleted_at": if seed.chance(80) { Value::Null } else { instant(seed) },
                });
                let Value::Object(row) = row else {
                    unreachable!()
                };
                rows.push(("LinkItemTag", "link_item_tag", row));
            }
        }
    }
    for (entity, table, row) in rows {
        memory.put(entity, Value::Object(row.clone())).unwrap();
        let mut row = row;
        if entity == "Item" {
            let rank = row.remove("rank").unwrap();
            row.insert("from".into(), rank);
        }
        let row = Value::Object(row).to_string().replace('\'', "''");
        postgres.psql(&format!(
            "SET timezone = 'UTC'; INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, E'{}')",
            row.replace('\\', "\\\\")
        ));
    }
}

/// A random filter on an entity.
pub(super) fn filter(seed: &mut Seed, schema: &Schema, entity: &str, depth: u32) -> Value {
    let entity = schema.entity(entity).unwrap();
    let mut members = Map::new();
    for _ in 0..seed.u32(..3) {
        match seed.u32(..12) {
            0 if depth > 0 => {
                let both = [(); 2].map(|()| filter(seed, schema, entity.name(), depth - 1));
                members.insert("$or".into(), json!(both));
            }
            1 if depth > 0 => {
                members.insert(
                    "$not".into(),
                    filter(seed, schema, entity.name(), depth - 1),
                );
            }
            2 | 3 if depth > 0 && !entity.relations().is_empty() => {
                let relation = seed.pick(entity.relations()).clone();
                let inner = filter(seed, schema, relation.target(), depth - 1);
                members.insert(relation.name().into(), inner);
            }
            _ => {
                let field = seed.pick(entity.all_fields()).clone();
                members.insert(field.name().into(), condition(seed, field.kind()));
            }
        }
    }
    Value::Object(members)
}

pub(super) fn condition(seed: &mut Seed, kind: FieldType) -> Value {
    if kind == FieldType::Json || seed.chance(10) {
        return if seed.bool() {
            Value::Null
        } else {
            json!({ "$ne": null })
        };
    }
    let ordered = kind != FieldType::Boolean;
    match seed.u32(..6) {
        0 => json!([value(seed, kind), value(seed, kind)]),
        1 => json!({ "$nin": [value(seed, kind)] }),
        2 => json!({ "$ne": value(seed, kind) }),
        3 if ordered => {
            let operator = *seed.pick(&["$gt", "$gte", "$lt", "$lte"]);
            json!({ operator: value(seed, kind) })
        }
        4 if kind == FieldType::Text => {
            let operator = *seed.pick(&["$like", "$ilike"]);
            let pattern = *seed.pick(&["%s%", "s_irt", "%\\%%", "%'%", "%\\", "", "%{%", "gr__e"]);
            json!({ operator: pattern })
        }
        _ => value(seed, kind),
    }
}

pub(super) fn query(seed: &mut Seed, schema: &Schema) -> GraphQuery {
    let entity = *seed.pick(&["Brand", "Item", "Part", "Tag"]);
    let fields: &[&str] = match entity {
        "Brand" => &["*", "items.title", "items.tags.label"],
        "Item" => &[
            "*",
            "brand.*",
            "parts.label",
            "parts.rank",
            "part.id",
            "tags.*",
            "tags.items.status",
        ],
        "Part" => &["*", "item.*", "item.brand.name"],
        _ => &["*", "items.rank", "items.parts.id"],
    };
    let fields: Vec<&str> = fields
        .iter()
        .copied()
        .filter(|_| seed.chance(70))
        .chain(["id"])
        .collect();
    let stored: Vec<String> = schema
        .entity(entity)
        .unwrap()
        .all_fields()
        .iter()
        .filter(|field| !matches!(field.kind(), FieldType::Json | FieldType::Boolean))
        .map(|field| field.name().to_owned())
        .collect();
    let mut pagination = Pagination::new();
    for _ in 0..seed.u32(..3) {
        let direction = *seed.pick(&[Direction::Asc, Direction::Desc]);
        let field = seed.pick(&stored).clone();
        if pagination.order.iter().all(|(known, _)| *known != field) {
            pagination = pagination.order(field, direction);
        }
    }
    if seed.bool() {
        pagination = pagination.take(seed.u64(..8)).skip(seed.u64(..8));
    }
    GraphQuery::new(entity)
        .fields(fields)
        .filters(filter(seed, schema, entity, 3))
        .pagination(pagination)
}
