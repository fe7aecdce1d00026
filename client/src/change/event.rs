//! A change of data, as plain data: what happened to which rows of which entity.
//!
//! Owns [`ChangeEvent`] and the reading of Medusa's event names. Knows nothing of tags, caches or
//! where changes come from: a source makes events, the graph turns them into tags.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::key::key_text;

/// Rows by id, each a map of stored fields to values.
pub type RowsById = BTreeMap<String, Map<String, Value>>;

/// What happened to the rows of an event.
///
/// ```
/// use mcache::change::Operation;
///
/// assert_eq!(Operation::from_word("restored"), Some(Operation::Restored));
/// assert_eq!(Operation::Created.as_str(), "created");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Operation {
    /// The rows did not exist before.
    Created,
    /// The rows existed before and still do.
    Updated,
    /// The rows do not exist (or are soft-deleted) any more.
    Deleted,
    /// Soft-deleted rows exist again.
    Restored,
    /// A link between two records was made: the link entity's row was created.
    Attached,
    /// A link between two records was dismissed: the link entity's row was deleted.
    Detached,
}

impl Operation {
    /// The word Medusa ends an event's name with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
            Self::Attached => "attached",
            Self::Detached => "detached",
        }
    }

    /// The operation a word names, if it names one.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "created" => Self::Created,
            "updated" => Self::Updated,
            "deleted" => Self::Deleted,
            "restored" => Self::Restored,
            "attached" => Self::Attached,
            "detached" => Self::Detached,
            _ => return None,
        })
    }
}

/// One change: an operation on rows of one entity, with as much detail as the source knows.
///
/// Detail buys precision, never correctness. What is left out counts as "could be anything":
///
/// | given | meaning |
/// |---|---|
/// | `ids` empty | any row of the entity (a `TRUNCATE`, a bulk statement) |
/// | `before` / `after` absent, or without a row or a field | that value is unknown |
/// | `changed` absent | unless `before` and `after` show that a field kept its value, it may have changed |
///
/// What *is* given must be true of the committed data: `changed` names every field that differs,
/// and an upsert that may have met an existing row is `Updated`, not `Created`.
///
/// ```
/// use mcache::change::{ChangeEvent, Operation};
/// use serde_json::json;
///
/// let event = ChangeEvent::parse("product.updated", &json!({ "id": "prod_1" })).unwrap();
/// assert_eq!(event.entity, "Product");
/// assert_eq!(event.operation, Operation::Updated);
/// assert_eq!(event.ids, ["prod_1"]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangeEvent {
    /// The entity in PascalCase, as in the schema: `ProductVariant`.
    pub entity: String,
    /// What happened.
    pub operation: Operation,
    /// The rows it happened to; empty when the source cannot tell. A key of several parts is written as
    /// [`key_text`] writes it.
    #[serde(default)]
    pub ids: Vec<String>,
    /// The rows as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<RowsById>,
    /// The rows as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RowsById>,
    /// The fields whose value differs, in any of the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<BTreeSet<String>>,
}

impl ChangeEvent {
    /// An event that knows the ids only.
    pub fn new<I>(entity: impl Into<String>, operation: Operation, ids: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            entity: entity.into(),
            operation,
            ids: ids.into_iter().map(Into::into).collect(),
            before: None,
            after: None,
            changed: None,
        }
    }

    /// An event that may have touched any row of the entity: a `TRUNCATE`, a gap in a stream.
    pub fn everything(entity: impl Into<String>) -> Self {
        Self::new(entity, Operation::Updated, std::iter::empty::<String>())
    }

    /// The same event, knowing how the row `id` was.
    #[must_use]
    pub fn with_before(mut self, id: impl Into<String>, row: Map<String, Value>) -> Self {
        self.before
            .get_or_insert_with(RowsById::new)
            .insert(id.into(), row);
        self
    }

    /// The same event, knowing how the row `id` is.
    #[must_use]
    pub fn with_after(mut self, id: impl Into<String>, row: Map<String, Value>) -> Self {
        self.after
            .get_or_insert_with(RowsById::new)
            .insert(id.into(), row);
        self
    }

    /// The same event, knowing every field that changed.
    #[must_use]
    pub fn with_changed<I>(mut self, fields: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.changed = Some(fields.into_iter().map(Into::into).collect());
        self
    }

    /// Reads an event as Medusa emits it: a dotted `name` whose last segment is the operation and
    /// whose segment before that is the entity in any case, and `data`: an object (or an array of
    /// objects) whose `id` is a string, a number or an array of these.
    ///
    /// A row whose key has several parts is named by `key`: `{ "key": ["tenant", 7] }`, the parts in the order in which
    /// the schema declares them. (`id` as an array is several rows.)
    ///
    /// The entity becomes PascalCase: `product.updated`, `pricing.price-set.created` and
    /// `LinkProductSalesChannel.attached` name `Product`, `PriceSet` and `LinkProductSalesChannel`.
    /// Data of `attached` and `detached` may carry the two keys of the link beside (or instead of)
    /// the id; they are kept as the link's row, so that only the records at its ends are concerned.
    ///
    /// # Errors
    ///
    /// [`EventError`] when the name has no entity or no known operation, or when the data has no
    /// id. Nothing is guessed: whether to ignore such an event is the caller's decision.
    pub fn parse(name: &str, data: &Value) -> Result<Self, EventError> {
        let unnamed = || EventError::Name { name: name.into() };
        let (rest, word) = name.rsplit_once('.').ok_or_else(unnamed)?;
        let segment = rest.rsplit_once('.').map_or(rest, |(_, last)| last);
        let entity = pascal_case(segment);
        if entity.is_empty() {
            return Err(unnamed());
        }
        let operation = Operation::from_word(word).ok_or_else(|| EventError::Operation {
            name: name.into(),
            word: word.into(),
        })?;

        let mut event = Self::new(entity, operation, std::iter::empty::<String>());
        let objects = match data {
            Value::Array(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        for object in objects {
            event
                .read_object(object)
                .ok_or_else(|| EventError::Data { name: name.into() })?;
        }
        if event.ids.is_empty() {
            return Err(EventError::Data { name: name.into() });
        }
        Ok(event)
    }

    /// Takes the ids (and a link's keys) out of one object of an event's data.
    fn read_object(&mut self, object: &Value) -> Option<()> {
        let object = match object {
            Value::Object(object) => object,
            // Medusa also emits bare ids.
            bare => return self.push_id(bare),
        };
        let link = matches!(self.operation, Operation::Attached | Operation::Detached);
        let keys = || object.iter().filter(|(field, _)| *field != "id");
        match (object.get("id"), object.get("key")) {
            // What an `id` beside it is, a part or a name of its own, is not asked.
            (_, Some(Value::Array(parts))) => self.push_key(parts)?,
            (Some(Value::Array(ids)), _) => ids.iter().try_for_each(|id| self.push_id(id))?,
            (Some(id), _) => self.push_id(id)?,
            // Link tables often have no id of their own: the keys of the row name it.
            (None, _) if link && !object.is_empty() => {
                let parts: Option<Vec<String>> = keys().map(|(_, value)| id_text(value)).collect();
                // A row all the same, of which its object says more than its name.
                let parts = parts.unwrap_or_else(|| vec![Value::from(object.clone()).to_string()]);
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.ids.push(key_text(&parts));
            }
            (None, _) => return None,
        }
        let is_list = matches!(object.get("id"), Some(Value::Array(_)));
        if link && !is_list && keys().next().is_some() {
            let id = self.ids.last()?.clone();
            let row = match self.operation {
                Operation::Attached => self.after.get_or_insert_with(RowsById::new),
                _ => self.before.get_or_insert_with(RowsById::new),
            };
            row.insert(id, object.clone());
        }
        Some(())
    }

    fn push_id(&mut self, id: &Value) -> Option<()> {
        self.ids.push(id_text(id).filter(|id| !id.is_empty())?);
        Some(())
    }

    /// Takes a key of several parts.
    fn push_key(&mut self, parts: &[Value]) -> Option<()> {
        let parts: Vec<String> = parts.iter().map(id_text).collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.ids
            .push(Some(key_text(&parts)).filter(|id| !id.is_empty())?);
        Some(())
    }
}

/// An id, or a part of one.
fn id_text(id: &Value) -> Option<String> {
    match id {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// Why an event could not be read.
///
/// ```
/// use mcache::change::{ChangeEvent, EventError};
///
/// let error = ChangeEvent::parse("auth.password_reset", &serde_json::json!({ "id": "u1" }));
/// assert!(matches!(error, Err(EventError::Operation { .. })));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The name is not `<entity>.<operation>`.
    #[error("event name {name:?} is not of the form entity.operation")]
    Name {
        /// The name as given.
        name: String,
    },
    /// The last segment of the name is not an operation on data.
    #[error(
        "event {name:?}: {word:?} is not one of created, updated, deleted, restored, attached, detached"
    )]
    Operation {
        /// The name as given.
        name: String,
        /// Its last segment.
        word: String,
    },
    /// The data holds no id, or an id that is neither a string nor a number.
    #[error("event {name:?}: its data has no usable id")]
    Data {
        /// The name as given.
        name: String,
    },
}

/// `price-set`, `price_set`, `priceSet` and `PriceSet` all become `PriceSet`.
fn pascal_case(segment: &str) -> String {
    let mut name = String::with_capacity(segment.len());
    for word in segment.split(|c: char| !c.is_alphanumeric()) {
        let shouted = word.len() > 1 && !word.chars().any(char::is_lowercase);
        let mut chars = word.chars();
        name.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        if shouted {
            name.extend(chars.flat_map(char::to_lowercase));
        } else {
            name.push_str(chars.as_str());
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_gives_the_entity_in_pascal_case() {
        for (name, entity) in [
            ("product.updated", "Product"),
            ("product-variant.updated", "ProductVariant"),
            ("pricing.price_set.created", "PriceSet"),
            ("inventory.inventory-level.deleted", "InventoryLevel"),
            ("inventoryLevel.restored", "InventoryLevel"),
            ("PRODUCT.created", "Product"),
            (
                "LinkProductSalesChannel.attached",
                "LinkProductSalesChannel",
            ),
        ] {
            let event = ChangeEvent::parse(name, &json!({ "id": "a" })).unwrap();
            assert_eq!(event.entity, entity, "{name}");
        }
    }

    #[test]
    fn ids_come_from_an_id_a_list_of_ids_or_a_list_of_objects() {
        for data in [
            json!({ "id": ["a", "7"] }),
            json!([{ "id": "a" }, { "id": 7 }]),
            json!(["a", 7]),
        ] {
            let event = ChangeEvent::parse("product.updated", &data).unwrap();
            assert_eq!(event.ids, ["a", "7"], "{data}");
            assert_eq!(event.before, None);
            assert_eq!(event.after, None);
        }
    }

    #[test]
    fn a_key_of_several_parts_is_named_in_order() {
        let data = json!([{ "key": ["a|b", 7] }, { "key": ["a", "b"], "id": "b" }]);
        let event = ChangeEvent::parse("order.updated", &data).unwrap();
        assert_eq!(event.ids, [r"a\|b|7", "a|b"]);
        for data in [
            json!({ "key": [] }),
            json!({ "key": ["a", null] }),
            json!({ "key": [""] }),
        ] {
            assert!(
                ChangeEvent::parse("order.updated", &data).is_err(),
                "{data}"
            );
        }
    }

    #[test]
    fn the_keys_of_a_link_are_its_row() {
        let data = json!([{ "product_id": "p", "channel_id": "c" }]);
        let attached = ChangeEvent::parse("LinkProductChannel.attached", &data).unwrap();
        let row = attached.after.unwrap().remove(&attached.ids[0]).unwrap();
        assert_eq!(row["product_id"], "p");
        let detached = ChangeEvent::parse("LinkProductChannel.detached", &data).unwrap();
        assert!(detached.before.is_some() && detached.after.is_none());
    }

    #[test]
    fn what_is_not_a_change_is_an_error() {
        let parse = |name: &str, data: Value| ChangeEvent::parse(name, &data).unwrap_err();
        assert!(matches!(
            parse("product", json!({"id": "a"})),
            EventError::Name { .. }
        ));
        assert!(matches!(
            parse(".updated", json!({"id": "a"})),
            EventError::Name { .. }
        ));
        assert!(matches!(
            parse("auth.password_reset", json!({"id": "a"})),
            EventError::Operation { .. }
        ));
        for data in [
            json!({}),
            json!([]),
            json!({"id": null}),
            json!({"id": [""]}),
            json!(null),
        ] {
            assert!(matches!(
                parse("product.updated", data),
                EventError::Data { .. }
            ));
        }
    }
}
