//! From the file and the columns of its tables to what is captured and which tags a change clears.
//!
//! Pure: it reads only its arguments. Every column counts that the file does not name as ignored, so a change of any of
//! them clears; only the key and the links are told apart by value.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mcache::Tags;
use mcache::change::{BoxError, ChangeEvent, EventTags, Operation, key_text};
use mcache_graph::{Entity, Field, Schema};
use mcache_postgres::Mapping;
use serde_json::{Map, Value};

use super::file::{File, FileError, Table, Templates};

/// The columns of a table, each with the name of its type.
pub(crate) type Columns = BTreeMap<String, String>;

/// What is watched.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) rules: Rules,
}

/// What a change clears, by the name its table has in events.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    templates: Templates,
    tables: Arc<HashMap<String, Rule>>,
}

#[derive(Debug)]
struct Rule {
    kind: Option<String>,
    /// Fields and type of each link.
    links: Vec<(Vec<String>, String)>,
    whole: Vec<String>,
}

/// Why a plan cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("two tables cannot be told apart by their names: {0}")]
    Names(#[from] mcache_graph::SchemaError),
    #[error(transparent)]
    Mapping(#[from] mcache_postgres::PostgresError),
}

impl Plan {
    /// Makes it. `columns` has those of each of the file's tables, in the file's order; `None` for a table that does
    /// not exist.
    pub(crate) fn new(file: &File, columns: &[Option<Columns>]) -> Result<Self, PlanError> {
        let mut schema = Schema::builder();
        let mut rules = HashMap::new();
        let mut stored = Vec::new();
        for (table, columns) in file.tables.iter().zip(columns) {
            let columns = columns.as_ref().ok_or_else(|| {
                let place = table.schema.as_deref().unwrap_or(&file.database.tables_in);
                table.wrong(&format!(
                    "there is no such table in the schema {place} (or this role may not see it)"
                ))
            })?;
            let shape = Shape::new(table, columns)?;
            let name = event_name(table);
            stored.push((name.clone(), shape.mapped(table, file)));
            rules.insert(name.clone(), shape.rule(table));
            schema = schema.entity(shape.entity(&name));
        }
        let schema = schema.build()?;
        let mapping = stored.into_iter().fold(
            Mapping::builder(Arc::new(schema)),
            |mapping, (name, table)| mapping.table(&name, table),
        );
        Ok(Self {
            mapping: Arc::new(mapping.build()?),
            rules: Rules {
                templates: file.tags.clone(),
                tables: Arc::new(rules),
            },
        })
    }
}

/// What a table is called in events: by its own name, since several tables may have rows of one type, or of none.
fn event_name(table: &Table) -> String {
    let plain = |text: &str| -> String {
        let letters = text.chars();
        letters
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect()
    };
    match &table.schema {
        Some(schema) => format!("t_{}_{}", plain(schema), plain(&table.table)),
        None => format!("t_{}", plain(&table.table)),
    }
}

/// A table's columns under the names that fields may have.
struct Shape {
    /// Column and type, by field. Named by their order, since a column may have any name.
    fields: Vec<(String, String, String)>,
    key: Vec<String>,
    deleted: Option<String>,
    links: Vec<(Vec<String>, String)>,
}

impl Shape {
    fn new(table: &Table, columns: &Columns) -> Result<Self, PlanError> {
        let key = table.id.columns();
        let links = table.links.each();
        let used = key
            .iter()
            .chain(links.iter().flat_map(|(columns, _)| *columns))
            .chain(&table.deleted)
            .chain(&table.ignore);
        for column in used {
            if !columns.contains_key(column) {
                let there: Vec<&str> = columns.keys().map(String::as_str).collect();
                return Err(table
                    .wrong(&format!(
                        "it has no column {column}; it has {}",
                        there.join(", ")
                    ))
                    .into());
            }
        }
        let mut fields = Vec::new();
        let mut names = HashMap::new();
        for (number, (column, kind)) in columns.iter().enumerate() {
            if table.ignore.contains(column) {
                continue;
            }
            let is_id = key.len() == 1 && column == &key[0];
            let field = if is_id {
                "id".to_owned()
            } else {
                format!("c{number}")
            };
            names.insert(column, field.clone());
            fields.push((field, column.clone(), kind.clone()));
        }
        let named = |column: &String| names[column].clone();
        Ok(Self {
            key: key.iter().map(named).collect(),
            deleted: table.deleted.as_ref().map(named),
            links: links
                .into_iter()
                .map(|(columns, kind)| (columns.iter().map(named).collect(), kind.to_owned()))
                .collect(),
            fields,
        })
    }

    fn entity(&self, name: &str) -> Entity {
        let entity = Entity::new(name).key(self.key.clone());
        let entity =
            self.fields
                .iter()
                .fold(entity, |entity, (field, _, kind)| match kind.as_str() {
                    _ if self.key.contains(field) => entity,
                    "json" | "jsonb" => entity.field(Field::json(field)),
                    "timestamptz" | "timestamp" if self.deleted.as_ref() == Some(field) => {
                        entity.field(Field::timestamp(field))
                    }
                    _ => entity.field(Field::text(field)),
                });
        match &self.deleted {
            Some(field) => entity.soft_delete(field),
            None => entity,
        }
    }

    fn mapped(&self, table: &Table, file: &File) -> mcache_postgres::Table {
        let schema = table.schema.as_deref().unwrap_or(&file.database.tables_in);
        let mapped = mcache_postgres::Table::named(&table.table).in_schema(schema);
        self.fields
            .iter()
            .fold(mapped, |mapped, (field, column, _)| {
                mapped.column(field, column)
            })
    }

    fn rule(&self, table: &Table) -> Rule {
        Rule {
            kind: table.kind.clone(),
            links: self.links.clone(),
            whole: table.whole.clone(),
        }
    }
}

impl Rules {
    /// The tags that a change clears, each once.
    fn of(&self, event: &ChangeEvent) -> Vec<String> {
        let Some(rule) = self.tables.get(&event.entity) else {
            return Vec::new();
        };
        let mut tags = Vec::new();
        if event.ids.is_empty() {
            self.any(rule, &mut tags);
        } else {
            if let Some(kind) = &rule.kind {
                event
                    .ids
                    .iter()
                    .for_each(|id| self.row(kind, id, event.operation, &mut tags));
            }
            // A row that leads to another makes that one come into what it belongs to, perhaps.
            for (fields, kind) in &rule.links {
                match linked(event, fields) {
                    Some(ids) => ids
                        .iter()
                        .for_each(|id| self.row(kind, id, event.operation, &mut tags)),
                    None => self.whole(kind, &mut tags),
                }
            }
        }
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// What is cleared when any row of a table may have changed.
    pub(crate) fn of_any(&self, table: &Table) -> Vec<String> {
        let mut tags = Vec::new();
        if let Some(rule) = self.tables.get(&event_name(table)) {
            self.any(rule, &mut tags);
        }
        tags
    }

    fn any(&self, rule: &Rule, tags: &mut Vec<String>) {
        tags.extend(rule.whole.iter().cloned());
        let kinds = rule
            .kind
            .iter()
            .chain(rule.links.iter().map(|(_, kind)| kind));
        kinds.for_each(|kind| self.whole(kind, tags));
    }

    fn row(&self, kind: &str, id: &str, operation: Operation, tags: &mut Vec<String>) {
        let comes = matches!(
            operation,
            Operation::Created | Operation::Restored | Operation::Attached
        );
        let new = self.templates.new.iter().filter(|_| comes);
        let templates = self.templates.row.iter().chain(new);
        tags.extend(templates.map(|template| filled(template, kind, id)));
    }

    fn whole(&self, kind: &str, tags: &mut Vec<String>) {
        tags.extend(
            self.templates
                .whole
                .iter()
                .map(|template| template.replace("{type}", kind)),
        );
    }

    /// What a change of each table clears, for who wants to read it: one line a table.
    pub(crate) fn describe(&self, file: &File) -> Vec<String> {
        let line = |table: &Table| {
            let id = table.id.columns().join("|");
            let mut tags = Vec::new();
            if let Some(kind) = &table.kind {
                self.row(kind, &format!("<{id}>"), Operation::Created, &mut tags);
            }
            for (columns, kind) in table.links.each() {
                let id = format!("<{}>", columns.join("|"));
                self.row(kind, &id, Operation::Created, &mut tags);
            }
            tags.sort_unstable();
            tags.dedup();
            format!("{}: {}", table.table, tags.join(" "))
        };
        file.tables.iter().map(line).collect()
    }
}

impl EventTags for Rules {
    fn tags(&self, event: &ChangeEvent, tags: &mut Tags) -> Result<(), BoxError> {
        tags.extend(self.of(event));
        Ok(())
    }
}

fn filled(template: &str, kind: &str, id: &str) -> String {
    // The id last: it may have braces in it.
    template.replace("{type}", kind).replace("{id}", id)
}

/// The ids a link had and has, in all rows; `None` if one of them is not known.
fn linked(event: &ChangeEvent, fields: &[String]) -> Option<Vec<String>> {
    let mut ids = Vec::new();
    let had = !matches!(event.operation, Operation::Created | Operation::Attached);
    let has = !matches!(event.operation, Operation::Deleted | Operation::Detached);
    let (before, after) = (event.before.as_ref(), event.after.as_ref());
    for id in &event.ids {
        let (was, is) = (
            before.and_then(|rows| rows.get(id)),
            after.and_then(|rows| rows.get(id)),
        );
        // A restored row was marked as deleted before, and may not be told as it was then; a deleted one likewise.
        let sides = [
            (was, had && event.operation != Operation::Restored),
            (is, has),
        ];
        for (row, must_be_known) in sides {
            match row.map_or(Leads::Unknown, |row| leads_to(row, fields)) {
                Leads::Nowhere => {}
                Leads::To(id) => ids.push(id),
                Leads::Unknown if must_be_known => return None,
                Leads::Unknown => {}
            }
        }
    }
    Some(ids)
}

/// Where a link of one row leads.
enum Leads {
    To(String),
    /// One of its columns is null.
    Nowhere,
    Unknown,
}

fn leads_to(row: &Map<String, Value>, fields: &[String]) -> Leads {
    let mut parts = Vec::with_capacity(fields.len());
    let mut known = true;
    for field in fields {
        match row.get(field) {
            Some(Value::Null) => return Leads::Nowhere,
            Some(Value::String(value)) => parts.push(value.clone()),
            Some(other) => parts.push(other.to_string()),
            None => known = false,
        }
    }
    match known {
        true => Leads::To(key_text(
            &parts.iter().map(String::as_str).collect::<Vec<_>>(),
        )),
        false => Leads::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "
        database.url = 'd'
        cache.url = 'c'
        tags.new = ['{type}:new']
        [[table]]
        table = 'product'
        type = 'Product'
        links = { collection = 'Collection' }
        deleted = 'deleted_at'
        ignore = ['updated_at']
        whole = ['front page']
        [[table]]
        table = 'product tags'
        id = ['product_id', 'tag_id']
        links = { product_id = 'Product', tag_id = 'Tag' }
    ";

    fn columns(names: &[&str]) -> Option<Columns> {
        Some(
            names
                .iter()
                .map(|&name| (name.to_owned(), "text".to_owned()))
                .collect(),
        )
    }

    fn plan() -> Plan {
        let file = File::parse(FILE, |_| None).unwrap();
        let product = columns(&["id", "title", "collection", "deleted_at", "updated_at"]);
        Plan::new(&file, &[product, columns(&["product_id", "tag_id"])]).unwrap()
    }

    /// Fields are named by the order of their columns.
    const COLLECTION: &str = "c0";
    const OF_PRODUCT: &str = "c0";
    const OF_TAG: &str = "c1";

    fn row(pairs: &[(&str, Value)]) -> Map<String, Value> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    }

    fn tags(event: &ChangeEvent) -> Vec<String> {
        plan().rules.of(event)
    }

    #[test]
    fn a_changed_row_clears_itself_its_lists_and_what_it_leads_to() {
        let event = ChangeEvent::new("t_product", Operation::Updated, ["p1"])
            .with_before("p1", row(&[(COLLECTION, json!("old"))]))
            .with_after("p1", row(&[(COLLECTION, json!("new"))]));
        assert_eq!(
            tags(&event),
            [
                "Collection:list:*",
                "Collection:new",
                "Collection:old",
                "Product:list:*",
                "Product:p1"
            ]
        );
    }

    #[test]
    fn a_row_that_comes_is_said_to() {
        let event = ChangeEvent::new("t_product", Operation::Created, ["p1"])
            .with_after("p1", row(&[(COLLECTION, Value::Null)]));
        assert_eq!(
            tags(&event),
            ["Product:list:*", "Product:new", "Product:p1"]
        );
    }

    #[test]
    fn a_link_that_is_not_known_is_any() {
        let event = ChangeEvent::new("t_product", Operation::Updated, ["p1"])
            .with_after("p1", row(&[(COLLECTION, json!("new"))]));
        assert_eq!(
            tags(&event),
            ["Collection:list:*", "Product:list:*", "Product:p1"]
        );
    }

    #[test]
    fn everything_is_everything() {
        let tags = tags(&ChangeEvent::everything("t_product"));
        assert_eq!(tags, ["Collection:list:*", "Product:list:*", "front page"]);
    }

    #[test]
    fn a_table_between_two_has_no_type_of_its_own() {
        let ends = row(&[(OF_PRODUCT, json!("p1")), (OF_TAG, json!("t1"))]);
        let event = ChangeEvent::new("t_product_tags", Operation::Attached, ["p1|t1"])
            .with_after("p1|t1", ends.clone());
        let expected = ["Product:list:*", "Product:p1", "Tag:list:*", "Tag:t1"];
        let comes = [
            "Product:list:*",
            "Product:new",
            "Product:p1",
            "Tag:list:*",
            "Tag:new",
            "Tag:t1",
        ];
        assert_eq!(tags(&event), comes);
        let event = ChangeEvent::new("t_product_tags", Operation::Detached, ["p1|t1"])
            .with_before("p1|t1", ends);
        assert_eq!(tags(&event), expected);
    }

    #[test]
    fn a_link_of_several_columns_leads_somewhere_if_all_are_known_and_none_is_null() {
        let fields = ["a", "b"].map(str::to_owned);
        let leads = |a: Option<Value>, b: Option<Value>| {
            let values = [("a", a), ("b", b)].into_iter();
            let known: Vec<(&str, Value)> = values
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let event = ChangeEvent::new("t", Operation::Created, ["x"]);
            linked(&event.with_after("x", row(&known)), &fields)
        };
        let text = |text: &str| Some(json!(text));
        assert_eq!(
            leads(text("1|"), text("2")),
            Some(vec![r"1\||2".to_owned()])
        );
        assert_eq!(leads(text("1"), Some(Value::Null)), Some(Vec::new()));
        assert_eq!(leads(text("1"), None), None);
    }

    #[test]
    fn an_id_is_taken_as_it_is() {
        let event = ChangeEvent::new("t_product", Operation::Deleted, ["{type}{id}"])
            .with_before("{type}{id}", row(&[(COLLECTION, Value::Null)]));
        assert_eq!(tags(&event), ["Product:list:*", "Product:{type}{id}"]);
    }

    #[test]
    fn all_columns_count_but_the_ignored() {
        let plan = plan();
        let entity = plan.mapping.schema().entity("t_product").unwrap();
        let fields: Vec<&str> = entity.all_fields().iter().map(Field::name).collect();
        assert_eq!(fields, ["id", "c0", "c1", "c3"], "not updated_at");
        assert_eq!(
            plan.mapping.table_of("t_product_tags"),
            Some(r#""public"."product tags""#)
        );
    }

    #[test]
    fn what_the_database_lacks_is_named() {
        let file = File::parse(FILE, |_| None).unwrap();
        let said = Plan::new(&file, &[None, None]).unwrap_err().to_string();
        assert!(said.contains("no such table"), "{said}");
        let said = Plan::new(&file, &[columns(&["id", "title"]), None])
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("no column collection; it has id, title"),
            "{said}"
        );
    }
}
