//! Random queries on a random data model.

use harness::Seed;
use mcache_graph::{Direction, Entity, FieldType, GraphQuery, Pagination, Schema};
use serde_json::{Map, Value, json};

use super::world::{by_key, random_value};

pub fn random_query(seed: &mut Seed, schema: &Schema) -> GraphQuery {
    let entities: Vec<&Entity> = schema.entities().iter().filter(|e| !e.is_link()).collect();
    let entity = *seed.pick(&entities);
    let paths: Vec<String> = (0..seed.usize(1..5))
        .map(|_| random_path(seed, schema, entity))
        .collect();
    let mut query = GraphQuery::new(entity.name()).fields(paths);
    match seed.u8(0..10) {
        0 | 1 => {}
        2 | 3 => {
            query = query.filters(by_key(seed, schema, entity));
        }
        _ => query = query.filters(random_filters(seed, schema, entity, 0)),
    }
    if seed.chance(55) {
        query = query.pagination(random_pagination(seed, entity));
    }
    query
}

fn random_path(seed: &mut Seed, schema: &Schema, root: &Entity) -> String {
    let mut path = String::new();
    let mut entity = root;
    while seed.chance(55) && path.len() < 40 && !entity.relations().is_empty() {
        let relation = seed.pick(entity.relations());
        path.push_str(relation.name());
        path.push('.');
        entity = schema
            .entity(relation.target())
            .expect("checked by the schema");
    }
    if seed.chance(15) {
        return path + "*";
    }
    let field = seed.pick(entity.all_fields());
    path + field.name()
}

fn random_pagination(seed: &mut Seed, entity: &Entity) -> Pagination {
    let mut pagination = Pagination::new();
    if seed.chance(60) {
        pagination = pagination.take(seed.u64(0..6));
    }
    if seed.chance(40) {
        pagination = pagination.skip(seed.u64(0..4));
    }
    for _ in 0..seed.usize(0..3) {
        let direction = *seed.pick(&[Direction::Asc, Direction::Desc]);
        let field = *seed.pick(&["text", "rank", "price", "id"]);
        if entity.get_field(field).is_some() {
            pagination = pagination.order(field, direction);
        }
    }
    pagination
}

fn random_filters(seed: &mut Seed, schema: &Schema, entity: &Entity, depth: usize) -> Value {
    let mut filters = Map::new();
    for _ in 0..seed.usize(1..3) {
        let nested = |seed: &mut Seed| random_filters(seed, schema, entity, depth + 1);
        let (name, condition) = match seed.u8(0..12) {
            0 if depth < 2 => ("$not".to_owned(), nested(seed)),
            kind @ (1 | 2) if depth < 2 => {
                let name = if kind == 1 { "$and" } else { "$or" };
                let list: Vec<Value> = (0..seed.usize(0..3)).map(|_| nested(seed)).collect();
                (name.to_owned(), json!(list))
            }
            3 | 4 if depth < 2 && !entity.relations().is_empty() => {
                let relation = seed.pick(entity.relations());
                let target = schema
                    .entity(relation.target())
                    .expect("checked by the schema");
                let filters = match seed.chance(30) {
                    true => by_key(seed, schema, target),
                    false => random_filters(seed, schema, target, depth + 1),
                };
                (relation.name().to_owned(), filters)
            }
            _ => {
                let stored = entity
                    .all_fields()
                    .iter()
                    .filter(|field| !field.is_computed());
                let stored: Vec<_> = stored.collect();
                let field = seed.pick(&stored);
                let condition = random_condition(seed, schema, entity, field.name(), field.kind());
                (field.name().to_owned(), condition)
            }
        };
        filters.insert(name, condition);
    }
    Value::Object(filters)
}

fn random_condition(
    seed: &mut Seed,
    schema: &Schema,
    entity: &Entity,
    field: &str,
    kind: FieldType,
) -> Value {
    let value = random_value(seed, schema, entity, field, false);
    let values = |seed: &mut Seed| -> Vec<Value> {
        let some = 0..seed.usize(0..4);
        some.map(|_| random_value(seed, schema, entity, field, false))
            .collect()
    };
    let is_ordered = kind != FieldType::Boolean;
    match seed.u8(0..12) {
        0 => Value::Null,
        1 => json!({ "$ne": null }),
        2 => json!({ "$ne": value }),
        3 => json!(values(seed)),
        4 => json!({ "$in": values(seed) }),
        5 => json!({ "$nin": values(seed) }),
        6 if is_ordered => json!({ "$gte": value }),
        7 if is_ordered => {
            json!({ "$gt": value, "$lte": random_value(seed, schema, entity, field, false) })
        }
        8 if kind == FieldType::Text => json!({ "$like": seed.pick(&["x%", "%", "_", "%y%"]) }),
        9 if kind == FieldType::Text => json!({ "$ilike": "x" }),
        10 => json!({ "$not": { "$eq": value } }),
        _ => value,
    }
}
