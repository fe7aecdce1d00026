//! Random data models and random data for them: small domains, so that everything meets everything.

use std::sync::Arc;

use harness::Seed;
use mcache_graph::{
    Dependency, Entity, Field, FieldType, MemoryResolver, Relation, Row, Schema, Tables,
};
use serde_json::{Map, Value, json};

const NAMES: [&str; 4] = ["A", "B", "C", "D"];

/// Ids are drawn from so many; about half of them exist.
const IDS: i64 = 8;

/// What ids are drawn for in entities whose keys have two fields. One is written with an escape.
const SHOPS: [&str; 2] = ["s|1", "s2"];

/// How the rows of an entity are named.
#[derive(Clone, Copy)]
struct Key {
    id: FieldType,
    /// Whether by `shop` and `id` together.
    has_shop: bool,
}

impl Key {
    /// The fields that refer to a row by its key, given the one for the id.
    fn referring(self, id: &str) -> Vec<String> {
        let shop = id.strip_suffix("_id").map(|end| format!("{end}_shop"));
        let shop = shop.filter(|_| self.has_shop);
        shop.into_iter().chain([id.to_owned()]).collect()
    }

    /// The fields of the key itself.
    fn fields(self) -> Vec<&'static str> {
        match self.has_shop {
            true => vec!["shop", "id"],
            false => vec!["id"],
        }
    }
}

/// A data model and its (initially random) data.
pub struct World {
    pub schema: Arc<Schema>,
    pub store: MemoryResolver,
}

/// A computed field: what it reads besides its own row.
#[derive(Clone)]
struct Computed {
    entity: &'static str,
    reads: &'static str,
    /// Their fields that must equal ours.
    key: Option<(Vec<String>, Vec<&'static str>)>,
    /// Only this field of theirs, or any.
    field: Option<&'static str>,
}

impl World {
    pub fn random(seed: &mut Seed) -> Self {
        let names = &NAMES[..seed.usize(2..=NAMES.len())];
        let mut computed = Vec::new();
        let schema = Arc::new(random_schema(seed, names, &mut computed));
        let mut store = MemoryResolver::new(schema.clone());
        for computed in computed {
            let name = computed.entity;
            store = store.compute(name, "computed", move |tables, row, _| {
                computed.value(tables, row)
            });
        }
        for entity in schema.entities() {
            for _ in 0..seed.usize(0..10) {
                let row = random_row(seed, &schema, entity);
                store
                    .put(entity.name(), row)
                    .expect("random rows fit the schema");
            }
        }
        Self { schema, store }
    }
}

impl Computed {
    fn declare(&self) -> Dependency {
        let mut dependency = Dependency::on(self.reads).fields(self.field);
        if self.field.is_none() {
            dependency = Dependency::on(self.reads);
        }
        match &self.key {
            Some((theirs, ours)) => dependency.keyed(theirs.clone(), ours.clone()),
            None => dependency,
        }
    }

    fn value(&self, tables: &Tables, row: &Row) -> Value {
        let concerned = tables.rows(self.reads).filter(|other| match &self.key {
            Some((theirs, ours)) => theirs.iter().zip(ours).all(|(theirs, ours)| {
                let ours = &row[*ours];
                !ours.is_null() && text(&other[theirs]) == text(ours)
            }),
            None => true,
        });
        let seen = concerned.map(|other| match self.field {
            Some(field) => other[field].clone(),
            None => Value::Object(other.clone()),
        });
        Value::Array(seen.collect())
    }
}

/// Keys are numbers on one side and strings on the other at times.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn random_schema(seed: &mut Seed, names: &[&'static str], computed: &mut Vec<Computed>) -> Schema {
    let mut keys = Vec::new();
    let mut entities: Vec<Entity> = Vec::new();
    for name in names {
        let id = *seed.pick(&[FieldType::Text, FieldType::Text, FieldType::Integer]);
        let key = Key {
            id,
            has_shop: seed.chance(40),
        };
        keys.push(key);
        let mut entity = Entity::new(name).id_type(id).key(key.fields());
        for field in [
            Field::text("text"),
            Field::text("code"),
            Field::integer("rank"),
            Field::number("price"),
            Field::boolean("flag"),
        ] {
            entity = entity.field(if seed.chance(35) {
                field.lookup()
            } else {
                field
            });
        }
        if seed.chance(35) {
            entity = entity
                .field(Field::timestamp("deleted_at"))
                .soft_delete("deleted_at");
        }
        entities.push(entity);
    }
    let mut links = Vec::new();
    for i in 0..names.len() {
        for j in 0..names.len() {
            if seed.chance(45) {
                join_by_key(seed, &mut entities, &keys, names, i, j);
            }
            if i <= j && seed.chance(35) {
                links.push(join_by_link(seed, &mut entities, &keys, names, i, j));
            }
            if seed.chance(15) {
                let name = format!("alike_{}", names[j].to_lowercase());
                let relation = Relation::has_many(&name, names[j], "code").local_key("code");
                entities[i] = entities[i].clone().relation(relation);
            }
        }
        if seed.chance(40) {
            let target = seed.usize(0..names.len());
            let by_key = entities[target]
                .get_field(&key_to(names, target, i))
                .is_some();
            let new = Computed {
                entity: names[i],
                reads: names[target],
                key: match seed.u8(0..3) {
                    0 if by_key => {
                        let theirs = keys[i].referring(&key_to(names, target, i));
                        Some((theirs, keys[i].fields()))
                    }
                    1 => Some((vec!["code".into()], vec!["code"])),
                    _ => None,
                },
                field: if seed.bool() { Some("rank") } else { None },
            };
            let entity = entities[i].clone();
            // Declared on the field or on the entity: both must do.
            entities[i] = if seed.bool() {
                entity.field(Field::computed("computed").depends_on(new.declare()))
            } else {
                entity
                    .field(Field::computed("computed"))
                    .depends_on(new.declare())
            };
            computed.push(new);
        }
    }
    let all = entities.into_iter().chain(links);
    let builder = all.fold(Schema::builder(), |builder, entity| builder.entity(entity));
    builder.build().expect("random schemas are well-formed")
}

/// The field of entity `from` that holds ids of entity `to`.
fn key_to(names: &[&str], from: usize, to: usize) -> String {
    match from == to {
        true => "parent_id".into(),
        false => format!("{}_id", names[to].to_lowercase()),
    }
}

/// Gives `i` a key to `j`, a relation along it, and often one back.
fn join_by_key(
    seed: &mut Seed,
    entities: &mut [Entity],
    keys: &[Key],
    names: &[&str],
    i: usize,
    j: usize,
) {
    let id = key_to(names, i, j);
    let kind = key_type(seed, keys[j].id);
    let key = keys[j].referring(&id);
    let forward = format!("to_{}", names[j].to_lowercase());
    entities[i] = entities[i]
        .clone()
        .fields(key.iter().map(|name| Field::text(name)))
        .field(Field::new(&id, kind))
        .relation(Relation::belongs_to(&forward, names[j], key.clone()));
    if seed.chance(75) {
        let back = format!("from_{}", names[i].to_lowercase());
        let mut relation = match seed.chance(30) {
            true => Relation::has_one(&back, names[i], key),
            false => Relation::has_many(&back, names[i], key),
        };
        if seed.chance(40) {
            let field = *seed.pick(&["rank", "text"]);
            relation = relation.ordered_by(field);
        }
        entities[j] = entities[j].clone().relation(relation);
    }
}

/// Makes a link entity between `i` and `j`, and relations through it.
fn join_by_link(
    seed: &mut Seed,
    entities: &mut [Entity],
    keys: &[Key],
    names: &[&str],
    i: usize,
    j: usize,
) -> Entity {
    let name = format!("Link{}{}", names[i], names[j]);
    let ids = match i == j {
        true => ["left_id".to_owned(), "right_id".to_owned()],
        false => [i, j].map(|end| format!("{}_id", names[end].to_lowercase())),
    };
    let ends = [keys[i].referring(&ids[0]), keys[j].referring(&ids[1])];
    for (from, to, end) in [(i, j, 0), (j, i, 1)] {
        let near = &ends[end];
        let relation = format!("linked_{}_{}", names[to].to_lowercase(), ids[end]);
        let mut relation = match seed.chance(30) {
            true => Relation::linked_one(&relation, names[to], &name),
            false => Relation::linked_many(&relation, names[to], &name),
        };
        if i == j {
            relation = relation.near_key(near.clone());
        }
        if seed.chance(30) {
            relation = relation.ordered_by("rank");
        }
        entities[from] = entities[from].clone().relation(relation);
    }
    let left = Field::new(&ids[0], key_type(seed, keys[i].id));
    let right = Field::new(&ids[1], key_type(seed, keys[j].id));
    let [from, to] = ends;
    let mut link = Entity::link(&name, (from, names[i]), (to, names[j]))
        .fields([left, right])
        .field(Field::text("text"));
    if seed.chance(20) {
        link = link
            .field(Field::timestamp("deleted_at"))
            .soft_delete("deleted_at");
    }
    link
}

/// A key has the type of the id, or holds it as text.
fn key_type(seed: &mut Seed, id: FieldType) -> FieldType {
    if seed.chance(20) { FieldType::Text } else { id }
}

/// A row with random values, its id perhaps taken.
pub fn random_row(seed: &mut Seed, schema: &Schema, entity: &Entity) -> Value {
    let mut row = Row::new();
    for field in entity
        .all_fields()
        .iter()
        .filter(|field| !field.is_computed())
    {
        let value = match field.name() {
            "deleted_at" if seed.chance(80) => Value::Null,
            name => random_value(seed, schema, entity, name, true),
        };
        row.insert(field.name().to_owned(), value);
    }
    Value::Object(row)
}

/// A value for a field: of its type, or (if allowed and not of the key) null.
pub fn random_value(
    seed: &mut Seed,
    schema: &Schema,
    entity: &Entity,
    name: &str,
    nulls: bool,
) -> Value {
    let is_required = entity.key_fields().iter().any(|key| &**key == name);
    if nulls && !is_required && seed.chance(20) {
        return Value::Null;
    }
    if name == "shop" || name.ends_with("_shop") {
        return json!(seed.pick(&SHOPS));
    }
    let kind = entity
        .get_field(name)
        .map_or(FieldType::Json, |field| field.kind());
    if name == "id" || name.ends_with("_id") {
        let id_kind = ends_at(schema, entity, name)
            .get_field("id")
            .map(|id| id.kind());
        let number = seed.i64(0..IDS);
        return match (kind, id_kind) {
            (FieldType::Text, Some(FieldType::Text)) => json!(format!("i{number}")),
            (FieldType::Text, _) => json!(number.to_string()),
            _ => json!(number),
        };
    }
    match kind {
        FieldType::Integer => json!(seed.i64(0..4)),
        FieldType::Number => json!(seed.i64(0..6) as f64 / 2.0),
        FieldType::Boolean => json!(seed.bool()),
        FieldType::Timestamp => json!("2026-01-01T00:00:00Z"),
        _ => json!(seed.pick(&[
            "",
            "x",
            "y",
            "X",
            "a long text that is hashed when it gets to be part of a tag, because it is long"
        ])),
    }
}

/// Filters that name a few rows by their keys.
pub fn by_key(seed: &mut Seed, schema: &Schema, entity: &Entity) -> Value {
    let names = entity.key_fields();
    let values = |seed: &mut Seed, name: &str, count: usize| -> Vec<Value> {
        let values = (0..count).map(|_| random_value(seed, schema, entity, name, false));
        values.collect()
    };
    let count = seed.usize(0..4);
    if names.len() > 1 && seed.bool() {
        // Each by all of its key.
        let rows = (0..count).map(|_| {
            let parts = names.iter().map(|name| {
                (
                    name.to_string(),
                    random_value(seed, schema, entity, name, false),
                )
            });
            Value::Object(parts.collect())
        });
        let rows: Vec<Value> = rows.collect();
        return json!({ "$or": rows });
    }
    let mut filters = Map::new();
    for name in names {
        let some = values(seed, name, count);
        let one = some.first().cloned().filter(|_| seed.bool());
        filters.insert(name.to_string(), one.unwrap_or(json!(some)));
    }
    Value::Object(filters)
}

/// The entity a key leads to; the entity itself for its id.
fn ends_at<'s>(schema: &'s Schema, entity: &'s Entity, key: &str) -> &'s Entity {
    match key {
        "id" | "parent_id" => entity,
        // `LinkAA`
        "left_id" | "right_id" => schema.entity(&entity.name()[4..5]).unwrap_or(entity),
        key => schema.entity(&key[..1].to_uppercase()).unwrap_or(entity),
    }
}
