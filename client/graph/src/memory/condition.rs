//! Whether a filter holds for a row, with SQL's three values.

use serde_json::Value;

use super::Tables;
use crate::compare::compare;
use crate::filter::{Comparison, Filter};
use crate::resolver::Row;
use crate::schema::{Entity, FieldType, Schema};

/// What conditions are evaluated against.
#[derive(Clone, Copy)]
pub(super) struct Conditions<'a> {
    pub(super) schema: &'a Schema,
    pub(super) tables: &'a Tables,
}

impl Conditions<'_> {
    /// `None` is "unknown".
    pub(super) fn holds(self, entity: &Entity, filter: &Filter, row: &Row) -> Option<bool> {
        match filter {
            Filter::And(all) => all
                .iter()
                .try_fold_three(true, |f| self.holds(entity, f, row)),
            Filter::Or(any) => any
                .iter()
                .try_fold_three(false, |f| self.holds(entity, f, row)),
            Filter::Not(filter) => self.holds(entity, filter, row).map(|holds| !holds),
            Filter::IsNull(field) => Some(present(row, field).is_none()),
            Filter::Compare(field, comparison, value) => {
                let found = present(row, field)?;
                Some(compares(kind(entity, field), found, *comparison, value))
            }
            Filter::In(_, values) if values.is_empty() => Some(false),
            Filter::In(field, values) => {
                let found = present(row, field)?;
                let kind = kind(entity, field);
                Some(
                    values
                        .iter()
                        .any(|value| compares(kind, found, Comparison::Eq, value)),
                )
            }
            Filter::InTuples { fields, values } => {
                let mut is_unknown = false;
                for tuple in values {
                    let equal = fields
                        .iter()
                        .zip(tuple)
                        .try_fold_three(true, |(field, value)| {
                            let found = present(row, field)?;
                            Some(same(kind(entity, field), found, value))
                        });
                    match equal {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => is_unknown = true,
                    }
                }
                (!is_unknown).then_some(false)
            }
            Filter::Like {
                field,
                pattern,
                case_sensitive,
            } => {
                let text = present(row, field)?.as_str()?;
                Some(if *case_sensitive {
                    like(text, pattern)
                } else {
                    like(&text.to_lowercase(), &pattern.to_lowercase())
                })
            }
            Filter::Related { relation, filter } => {
                Some(self.related(entity, relation, filter, row))
            }
        }
    }

    fn related(self, entity: &Entity, relation: &str, filter: &Filter, row: &Row) -> bool {
        let related = || {
            let relation = entity.get_relation(relation)?;
            let target = self.schema.entity(relation.target())?;
            let meets = |row: &Row| self.holds(target, filter, row) == Some(true);
            let tables = self.tables;
            let found = match relation.through() {
                None => tables
                    .with(target, relation.foreign(), row, relation.local())
                    .any(meets),
                Some(through) => {
                    let link = self.schema.entity(&through.link)?;
                    let mut links = tables.with(link, &through.near, row, relation.local());
                    links.any(|link| {
                        let found = tables.with(target, relation.foreign(), link, &through.far);
                        found.into_iter().any(meets)
                    })
                }
            };
            Some(found)
        };
        related().unwrap_or(false)
    }
}

/// Folds three-valued conditions: `and` if `neutral` is true, `or` if it is false.
trait FoldThree: Iterator + Sized {
    fn try_fold_three(
        self,
        neutral: bool,
        mut holds: impl FnMut(Self::Item) -> Option<bool>,
    ) -> Option<bool> {
        let mut result = Some(neutral);
        for condition in self {
            match holds(condition) {
                Some(holds) if holds == neutral => {}
                Some(_) => return Some(!neutral),
                None => result = None,
            }
        }
        result
    }
}

impl<I: Iterator> FoldThree for I {}

fn kind(entity: &Entity, field: &str) -> FieldType {
    entity
        .get_field(field)
        .map_or(FieldType::Json, |field| field.kind())
}

pub(super) fn present<'a>(row: &'a Row, field: &str) -> Option<&'a Value> {
    row.get(field).filter(|value| !value.is_null())
}

fn compares(kind: FieldType, found: &Value, comparison: Comparison, value: &Value) -> bool {
    let order = compare(found, value);
    match comparison {
        Comparison::Eq => same(kind, found, value),
        Comparison::Ne => !same(kind, found, value),
        Comparison::Gt => order.is_gt(),
        Comparison::Gte => order.is_ge(),
        Comparison::Lt => order.is_lt(),
        Comparison::Lte => order.is_le(),
    }
}

/// Whether two values of a field are equal, however they are written.
fn same(kind: FieldType, a: &Value, b: &Value) -> bool {
    match (kind.identity(a), kind.identity(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// SQL's LIKE: `%` is any characters, `_` is one, `\` makes the next literal.
fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern = parse_pattern(pattern);
    let (mut t, mut p) = (0, 0);
    // Where to go back to: the last `%`, and how much of the text it has swallowed.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Glob::Many) => {
                back = Some((p, t));
                p += 1;
            }
            Some(Glob::One) => {
                t += 1;
                p += 1;
            }
            Some(Glob::Char(c)) if *c == text[t] => {
                t += 1;
                p += 1;
            }
            _ => match back {
                Some((many, swallowed)) => {
                    back = Some((many, swallowed + 1));
                    t = swallowed + 1;
                    p = many + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|glob| matches!(glob, Glob::Many))
}

enum Glob {
    Many,
    One,
    Char(char),
}

fn parse_pattern(pattern: &str) -> Vec<Glob> {
    let mut globs = Vec::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        globs.push(match c {
            '%' => Glob::Many,
            '_' => Glob::One,
            '\\' => Glob::Char(chars.next().unwrap_or('\\')),
            c => Glob::Char(c),
        });
    }
    globs
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn like_is_sqls() {
        for (text, pattern, matches) in [
            ("shirt", "shirt", true),
            ("shirt", "s%t", true),
            ("shirt", "%hir%", true),
            ("shirt", "_hirt", true),
            ("shirt", "_hir", false),
            ("shirt", "", false),
            ("", "%", true),
            ("", "_", false),
            ("aab", "%ab", true),
            ("aab", "a%a_b", false),
            ("50%", "50\\%", true),
            ("500", "50\\%", false),
            ("größe", "gr__e", true),
        ] {
            assert_eq!(like(text, pattern), matches, "{text} {pattern}");
        }
    }
}
