//! Filters, parsed and checked against the schema. Resolvers translate [`Filter`]; the tags of a
//! list are derived from it.

use serde_json::{Map, Value};

use super::error::QueryError;
use super::schema::{Entity, FieldType, Name, Schema};

/// Filters nested deeper than this are refused: resolvers and tags walk them recursively.
const DEPTH_MAX: usize = 16;

/// A condition on a row of one entity.
///
/// Three-valued, as in SQL: a comparison with a null field is unknown, and a row is in the result
/// only if the whole is true. [`Compare`](Self::Compare), [`In`](Self::In) and [`InTuples`](Self::InTuples) never hold
/// nulls.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// All of these hold; holds if there are none.
    And(Vec<Filter>),
    /// One of these holds; does not hold if there are none.
    Or(Vec<Filter>),
    /// This does not hold (and is not unknown).
    Not(Box<Filter>),
    /// The field is null. Never unknown.
    IsNull(Name),
    /// The field compares so with the value.
    Compare(Name, Comparison, Value),
    /// The field equals one of the values; does not hold if there are none.
    In(Name, Vec<Value>),
    /// The fields, taken together, equal one of the tuples; does not hold if there are none. Only where the schema has
    /// keys of several fields.
    InTuples {
        /// The fields, two or more.
        fields: Vec<Name>,
        /// As many values each.
        values: Vec<Vec<Value>>,
    },
    /// The field matches a pattern: `%` is any characters, `_` is one, `\` makes the next literal.
    Like {
        /// The field.
        field: Name,
        /// The pattern.
        pattern: String,
        /// Whether the case of letters matters.
        case_sensitive: bool,
    },
    /// At least one row of the relation meets the filter. Never unknown.
    Related {
        /// The relation of this entity.
        relation: Name,
        /// What a related row must meet.
        filter: Box<Filter>,
    },
}

/// How a field compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

impl Comparison {
    fn from_operator(operator: &str) -> Option<Self> {
        Some(match operator {
            "$eq" => Self::Eq,
            "$ne" => Self::Ne,
            "$gt" => Self::Gt,
            "$gte" => Self::Gte,
            "$lt" => Self::Lt,
            "$lte" => Self::Lte,
            _ => return None,
        })
    }
}

impl Filter {
    /// The filter every row meets.
    pub const ALL: Self = Self::And(Vec::new());

    /// Reads the filters of a query on `entity`.
    ///
    /// # Errors
    ///
    /// [`QueryError`] for an undeclared or computed field, an unknown operator, and a value that
    /// the field's type or the operator does not take.
    pub fn parse(schema: &Schema, entity: &Entity, filters: &Value) -> Result<Self, QueryError> {
        match filters {
            Value::Null => Ok(Self::ALL),
            filters => Parser { schema }.conditions(entity, filters, 0),
        }
    }
}

/// The filter that several fields together are one of these tuples.
///
/// # Errors
///
/// [`QueryError`] if a value does not fit its field.
pub(crate) fn one_of_tuples(
    entity: &Entity,
    fields: &[Name],
    values: Vec<Vec<Value>>,
) -> Result<Filter, QueryError> {
    for values in &values {
        for (name, value) in fields.iter().zip(values) {
            field_conditions(entity, name, value, 0)?;
        }
    }
    Ok(Filter::InTuples {
        fields: fields.to_vec(),
        values,
    })
}

struct Parser<'s> {
    schema: &'s Schema,
}

impl Parser<'_> {
    /// An object of conditions, all of which must hold.
    fn conditions(
        &self,
        entity: &Entity,
        filters: &Value,
        depth: usize,
    ) -> Result<Filter, QueryError> {
        let Value::Object(members) = filters else {
            return Err(malformed(entity, "filters", "expected an object"));
        };
        if depth > DEPTH_MAX {
            return Err(malformed(entity, "filters", "nested too deeply"));
        }
        let mut all = Vec::with_capacity(members.len());
        for (name, condition) in members {
            all.push(self.member(entity, name, condition, depth)?);
        }
        Ok(and(all))
    }

    fn member(
        &self,
        entity: &Entity,
        name: &str,
        condition: &Value,
        depth: usize,
    ) -> Result<Filter, QueryError> {
        match name {
            "$and" => Ok(and(self.each(entity, name, condition, depth)?)),
            "$or" => Ok(Filter::Or(self.each(entity, name, condition, depth)?)),
            "$not" => Ok(not(self.conditions(entity, condition, depth + 1)?)),
            _ if name.starts_with('$') => Err(malformed(entity, name, "unknown operator")),
            _ => match entity.get_relation(name) {
                Some(relation) => {
                    // The schema has checked that the target exists.
                    let target = self.schema.entity(relation.target()).unwrap_or(entity);
                    Ok(Filter::Related {
                        relation: relation.name.clone(),
                        filter: Box::new(self.conditions(target, condition, depth + 1)?),
                    })
                }
                None => field_conditions(entity, name, condition, depth),
            },
        }
    }

    fn each(
        &self,
        entity: &Entity,
        name: &str,
        list: &Value,
        depth: usize,
    ) -> Result<Vec<Filter>, QueryError> {
        let Value::Array(list) = list else {
            return Err(malformed(entity, name, "expected an array of filters"));
        };
        list.iter()
            .map(|filters| self.conditions(entity, filters, depth + 1))
            .collect()
    }
}

/// What stands behind a field's name: a value, an array of values, or an object of operators.
fn field_conditions(
    entity: &Entity,
    name: &str,
    condition: &Value,
    depth: usize,
) -> Result<Filter, QueryError> {
    let field = match entity.get_field(name) {
        Some(field) if field.is_computed() => {
            return Err(malformed(
                entity,
                name,
                "a computed field cannot be filtered by",
            ));
        }
        Some(field) => field,
        None => {
            return Err(QueryError::UnknownField {
                entity: entity.name().into(),
                field: name.into(),
            });
        }
    };
    let on = On {
        entity,
        name: &field.name,
        kind: field.kind(),
    };
    match condition {
        Value::Object(operators) => on.operators(operators, depth),
        Value::Array(values) => on.one_of(values),
        value => on.compare(Comparison::Eq, value),
    }
}

/// Conditions on one field.
struct On<'a> {
    entity: &'a Entity,
    name: &'a Name,
    kind: FieldType,
}

impl On<'_> {
    fn operators(
        &self,
        operators: &Map<String, Value>,
        depth: usize,
    ) -> Result<Filter, QueryError> {
        if operators.is_empty() || depth > DEPTH_MAX {
            return Err(self.malformed("expected operators such as $gt"));
        }
        let mut all = Vec::with_capacity(operators.len());
        for (operator, operand) in operators {
            all.push(self.operator(operator, operand, depth)?);
        }
        Ok(and(all))
    }

    fn operator(
        &self,
        operator: &str,
        operand: &Value,
        depth: usize,
    ) -> Result<Filter, QueryError> {
        if let Some(comparison) = Comparison::from_operator(operator) {
            return self.compare(comparison, operand);
        }
        match (operator, operand) {
            ("$in", Value::Array(values)) => self.one_of(values),
            ("$nin", Value::Array(values)) => self.one_of(values).map(not),
            ("$like" | "$ilike", Value::String(pattern)) if self.kind == FieldType::Text => {
                Ok(Filter::Like {
                    field: self.name.clone(),
                    pattern: pattern.clone(),
                    case_sensitive: operator == "$like",
                })
            }
            ("$not", Value::Object(operators)) => self.operators(operators, depth + 1).map(not),
            ("$in" | "$nin", _) => Err(self.malformed("$in and $nin take an array")),
            ("$like" | "$ilike", _) => {
                Err(self.malformed("$like and $ilike take a pattern, on a text field"))
            }
            ("$not", _) => Err(self.malformed("$not takes an object of operators")),
            _ => Err(self.malformed("unknown operator")),
        }
    }

    fn compare(&self, comparison: Comparison, value: &Value) -> Result<Filter, QueryError> {
        self.check_time(value)?;
        match (comparison, value) {
            (Comparison::Eq, Value::Null) => Ok(Filter::IsNull(self.name.clone())),
            (Comparison::Ne, Value::Null) => Ok(not(Filter::IsNull(self.name.clone()))),
            (Comparison::Eq | Comparison::Ne, value) if self.kind.accepts(value) => Ok(
                Filter::Compare(self.name.clone(), comparison, value.clone()),
            ),
            (_, value) if self.kind.is_ordered() && self.kind.accepts(value) => Ok(
                Filter::Compare(self.name.clone(), comparison, value.clone()),
            ),
            _ => Err(self.malformed("the value does not fit the field's type or the operator")),
        }
    }

    fn one_of(&self, values: &[Value]) -> Result<Filter, QueryError> {
        values.iter().try_for_each(|value| self.check_time(value))?;
        if values.iter().all(|value| self.kind.accepts(value)) {
            return Ok(Filter::In(self.name.clone(), values.to_vec()));
        }
        Err(self.malformed("a value in the list does not fit the field's type"))
    }

    /// Refuses a time that means another moment whenever it is read.
    fn check_time(&self, value: &Value) -> Result<(), QueryError> {
        let Value::String(text) = value else {
            return Ok(());
        };
        if self.kind != FieldType::Timestamp || is_fixed_time(text) {
            return Ok(());
        }
        Err(self.malformed(
            "expected a fixed point in time: the result of `now` or `today` changes without a write; \
             compute the moment, and end the entry with a ttl, `valid_until` or a boundary of the entity",
        ))
    }

    fn malformed(&self, why: &'static str) -> QueryError {
        malformed(self.entity, self.name, why)
    }
}

/// Whether a text can only mean one moment: it begins with digits and names no day by today, or it is endless.
fn is_fixed_time(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    if matches!(&*text, "infinity" | "-infinity" | "epoch") {
        return true;
    }
    let moving = ["now", "today", "tomorrow", "yesterday", "allballs"];
    text.starts_with(|c: char| c.is_ascii_digit()) && !moving.iter().any(|word| text.contains(word))
}

fn malformed(entity: &Entity, at: &str, why: &'static str) -> QueryError {
    QueryError::Filter {
        entity: entity.name().into(),
        at: at.into(),
        why,
    }
}

fn and(mut all: Vec<Filter>) -> Filter {
    if all.len() == 1 {
        all.remove(0)
    } else {
        Filter::And(all)
    }
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}
