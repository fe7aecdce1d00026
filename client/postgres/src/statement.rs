//! From a fetch to one SQL statement.
//!
//! Owns the shape of the statements. Identifiers come from the mapping only; every value is a parameter, so that the
//! text depends on the query's shape alone and its plan can be used again.

use std::fmt::Write as _;

use serde_json::Value;

use mcache_graph::{
    Comparison, Direction, Entity, FieldType, Filter, List, Name, Relation, Schema, Select,
};

use super::error::PostgresError;
use super::facts::{Equality, Facts};
use super::mapping::{MappedTable, Mapping};
use super::param::{Param, pattern, sql_type, sql_type_of, storable};
use super::sql::text_of;

/// A statement and the values of its parameters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) params: Vec<Param>,
}

/// The table of the rows that are fetched.
const ROOT: &str = "t0";

/// Builds the statements of one fetch.
pub(super) struct Builder<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) schema: &'a Schema,
    pub(super) facts: &'a Facts,
}

impl Builder<'_> {
    /// Reads the stored ones among `fields` of the selected rows, as text, in this order.
    pub(super) fn rows(
        &self,
        entity: &Entity,
        fields: &[&Name],
        select: &Select<'_>,
    ) -> Result<Statement, PostgresError> {
        let table = self.table(entity)?;
        let mut writer = self.writer();
        let mut columns = Vec::with_capacity(fields.len());
        for name in fields {
            let (kind, column) = column(entity, table, name, ROOT)?;
            columns.push(text_of(kind, &column));
        }
        if columns.is_empty() {
            // Rows without any value are still rows.
            columns.push("NULL::text".to_owned());
        }
        writer.sql = format!(
            "SELECT {} FROM {} AS {ROOT} WHERE ",
            columns.join(", "),
            table.quoted
        );
        writer.live(entity, table, ROOT);
        writer.sql.push_str(" AND ");
        match select {
            Select::Keys {
                field,
                values,
                order,
            } => {
                writer.one_of(entity, table, field, ROOT, values)?;
                writer.order(entity, table, order)?;
            }
            Select::Tuples {
                fields,
                values,
                order,
            } => {
                let tuples = values.iter().filter_map(Value::as_array);
                let tuples: Vec<&[Value]> = tuples.map(Vec::as_slice).collect();
                writer.one_of_tuples(entity, table, fields, ROOT, &tuples)?;
                writer.order(entity, table, order)?;
            }
            Select::List(list) => {
                writer.filter(entity, table, ROOT, list.filter)?;
                writer.page(entity, table, list)?;
            }
            _ => return Err(unknown_form(entity)),
        }
        Ok(writer.finish())
    }

    /// How many seconds until the nearest boundary that is ahead, as text; null if there is none.
    pub(super) fn next_boundary(
        &self,
        entity: &Entity,
        fields: &[Name],
    ) -> Result<String, PostgresError> {
        let table = self.table(entity)?;
        let mut ends = Vec::with_capacity(fields.len());
        for field in fields {
            let (_, column) = column(entity, table, field, ROOT)?;
            ends.push(format!(
                "SELECT min({column}::timestamptz) AS at FROM {} AS {ROOT}
                 WHERE {column}::timestamptz > clock_timestamp() AND isfinite({column})",
                table.quoted
            ));
        }
        Ok(format!(
            "SELECT extract(epoch FROM min(at) - clock_timestamp())::text FROM ({}) AS ends",
            ends.join(" UNION ALL ")
        ))
    }

    /// Counts the rows that meet a filter.
    pub(super) fn count(
        &self,
        entity: &Entity,
        filter: &Filter,
    ) -> Result<Statement, PostgresError> {
        let table = self.table(entity)?;
        let mut writer = self.writer();
        writer.sql = format!("SELECT count(*) FROM {} AS {ROOT} WHERE ", table.quoted);
        writer.live(entity, table, ROOT);
        writer.sql.push_str(" AND ");
        writer.filter(entity, table, ROOT, filter)?;
        Ok(writer.finish())
    }

    fn table(&self, entity: &Entity) -> Result<&MappedTable, PostgresError> {
        match self.mapping.entity(entity.name()) {
            Some((_, table)) => Ok(table),
            None => Err(PostgresError::Unknown {
                what: format!("entity {}", entity.name()),
            }),
        }
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            builder: self,
            sql: String::new(),
            params: Vec::new(),
            aliases: 0,
        }
    }
}

/// A statement being written.
struct Writer<'a> {
    builder: &'a Builder<'a>,
    sql: String,
    params: Vec<Param>,
    aliases: usize,
}

impl Writer<'_> {
    fn finish(self) -> Statement {
        Statement {
            sql: self.sql,
            params: self.params,
        }
    }

    /// Writes SQL that is known to be harmless.
    fn write(&mut self, sql: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.sql.write_fmt(sql);
    }

    /// Writes a parameter, cast to a type.
    fn bind(&mut self, param: Param, sql_type: &str) {
        self.params.push(param);
        let number = self.params.len();
        self.write(format_args!("${number}::{sql_type}"));
    }

    /// Writes a parameter of the type of the column it is compared with, which the server infers.
    fn bind_as_column(&mut self, param: Param) {
        self.params.push(param);
        let number = self.params.len();
        self.write(format_args!("${number}"));
    }

    /// How the values of a field's column compare.
    fn equality(&self, table: &MappedTable, field: &str) -> Equality {
        let column = table.bare_column(field).unwrap_or_default();
        self.builder.facts.equality(&table.quoted, column)
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("t{}", self.aliases)
    }

    /// Writes whether a row exists, as far as soft deletion is concerned.
    fn live(&mut self, entity: &Entity, table: &MappedTable, alias: &str) {
        match entity
            .soft_delete_field()
            .and_then(|field| table.column(field))
        {
            Some(column) => self.write(format_args!("{alias}.{column} IS NULL")),
            None => self.sql.push_str("true"),
        }
    }

    /// Writes a filter, in parentheses where it needs them.
    fn filter(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        alias: &str,
        filter: &Filter,
    ) -> Result<(), PostgresError> {
        match filter {
            Filter::And(all) => self.each(entity, table, alias, all, " AND ", "true"),
            Filter::Or(any) => self.each(entity, table, alias, any, " OR ", "false"),
            Filter::Not(filter) => {
                self.sql.push_str("NOT (");
                self.filter(entity, table, alias, filter)?;
                self.sql.push(')');
                Ok(())
            }
            Filter::IsNull(field) => {
                let (_, column) = column(entity, table, field, alias)?;
                self.write(format_args!("{column} IS NULL"));
                Ok(())
            }
            Filter::Compare(field, comparison, value) => {
                self.compare(entity, table, field, alias, *comparison, value)
            }
            Filter::In(field, values) => self.one_of(entity, table, field, alias, values),
            Filter::InTuples { fields, values } => {
                let tuples: Vec<&[Value]> = values.iter().map(Vec::as_slice).collect();
                self.one_of_tuples(entity, table, fields, alias, &tuples)
            }
            Filter::Like {
                field,
                pattern: like,
                case_sensitive,
            } => {
                let (_, column) = column(entity, table, field, alias)?;
                let operator = if *case_sensitive { "LIKE" } else { "ILIKE" };
                match pattern(like) {
                    Some(pattern) => {
                        self.write(format_args!("{column}::text {operator} "));
                        self.bind(Param::text(pattern), "text");
                        self.sql.push_str(" ESCAPE '\\'");
                    }
                    None => self.never(&column),
                }
                Ok(())
            }
            Filter::Related { relation, filter } => {
                self.related(entity, table, alias, relation, filter)
            }
            _ => Err(unknown_form(entity)),
        }
    }

    fn each(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        alias: &str,
        filters: &[Filter],
        joint: &str,
        none: &str,
    ) -> Result<(), PostgresError> {
        if filters.is_empty() {
            self.sql.push_str(none);
            return Ok(());
        }
        for (position, filter) in filters.iter().enumerate() {
            self.sql.push_str(if position == 0 { "(" } else { joint });
            self.filter(entity, table, alias, filter)?;
        }
        self.sql.push(')');
        Ok(())
    }

    fn compare(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        field: &str,
        alias: &str,
        comparison: Comparison,
        value: &Value,
    ) -> Result<(), PostgresError> {
        let (kind, column) = column(entity, table, field, alias)?;
        let Some(text) = storable(kind, value) else {
            return match comparison {
                Comparison::Eq => {
                    self.never(&column);
                    Ok(())
                }
                Comparison::Ne => {
                    // Unknown for null, as every comparison is.
                    self.write(format_args!("({column} IS NOT NULL OR NULL)"));
                    Ok(())
                }
                _ => self.compare_beyond(entity, field, kind, &column, comparison, value),
            };
        };
        let equality = self.equality(table, field);
        let is_order = !matches!(comparison, Comparison::Eq | Comparison::Ne);
        let native = match (kind, equality) {
            (FieldType::Text, Equality::Own) => true,
            (FieldType::Text, Equality::Ordered) => is_order,
            _ => false,
        };
        if native {
            self.write(format_args!("{column} {} ", operator(comparison)));
            self.bind_as_column(Param::text(text));
        } else {
            self.write(format_args!(
                "{} {} ",
                compared(kind, &column),
                operator(comparison)
            ));
            let kind_of_text = sql_type_of(kind, &text);
            self.bind(Param::text(text), kind_of_text);
        }
        Ok(())
    }

    /// An order with a value that the column's type cannot hold: there is one for numbers only.
    fn compare_beyond(
        &mut self,
        entity: &Entity,
        field: &str,
        kind: FieldType,
        column: &str,
        comparison: Comparison,
        value: &Value,
    ) -> Result<(), PostgresError> {
        match value {
            Value::Number(number) if kind == FieldType::Integer => {
                self.write(format_args!("{column} {} ", operator(comparison)));
                self.bind(Param::text(number.to_string()), "numeric");
                Ok(())
            }
            _ => Err(PostgresError::Value {
                field: format!("{}.{field}", entity.name()),
            }),
        }
    }

    /// False, or unknown if the column is null: what comparing with a value that cannot be stored is.
    fn never(&mut self, column: &str) {
        self.write(format_args!("({column} IS NULL AND NULL)"));
    }

    fn one_of(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        field: &str,
        alias: &str,
        values: &[Value],
    ) -> Result<(), PostgresError> {
        let (kind, column) = column(entity, table, field, alias)?;
        if values.is_empty() {
            // Not even unknown.
            self.sql.push_str("false");
            return Ok(());
        }
        let texts: Vec<String> = values
            .iter()
            .filter_map(|value| storable(kind, value))
            .collect();
        if texts.is_empty() {
            self.never(&column);
            return Ok(());
        }
        if kind == FieldType::Text && self.equality(table, field) == Equality::Own {
            self.write(format_args!("{column} = ANY ("));
            self.bind_as_column(Param::array(texts));
        } else {
            self.write(format_args!("{} = ANY (", compared(kind, &column)));
            let wide = texts
                .iter()
                .map(|text| sql_type_of(kind, text))
                .find(|name| *name != sql_type(kind));
            let name = wide.unwrap_or(sql_type(kind));
            self.bind(Param::array(texts), &format!("{name}[]"));
        }
        self.sql.push(')');
        Ok(())
    }

    /// The fields, taken together, equal one of the tuples. One array a field, so that the text of the statement does
    /// not depend on how many there are and an index on the columns can be used.
    fn one_of_tuples(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        fields: &[Name],
        alias: &str,
        tuples: &[&[Value]],
    ) -> Result<(), PostgresError> {
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            columns.push(column(entity, table, field, alias)?);
        }
        // A tuple with a value that its column cannot hold is equal to none.
        let texts = tuples.iter().filter_map(|tuple| {
            let parts = columns.iter().zip(*tuple);
            let texts: Option<Vec<String>> = parts
                .map(|((kind, _), value)| storable(*kind, value))
                .collect();
            texts.filter(|texts| texts.len() == columns.len())
        });
        let texts: Vec<Vec<String>> = texts.collect();
        if texts.is_empty() {
            self.sql.push_str("false");
            return Ok(());
        }
        for (position, (kind, column)) in columns.iter().enumerate() {
            let joint = if position == 0 { "(" } else { ", " };
            self.write(format_args!("{joint}{}", compared(*kind, column)));
        }
        self.sql.push_str(") IN (SELECT * FROM unnest(");
        for (position, (kind, _)) in columns.iter().enumerate() {
            if position > 0 {
                self.sql.push_str(", ");
            }
            let parts = || texts.iter().map(|texts| &texts[position]);
            let mut names = parts().map(|text| sql_type_of(*kind, text));
            let wide = names.find(|name| *name != sql_type(*kind));
            let name = wide.unwrap_or(sql_type(*kind));
            self.bind(Param::array(parts().cloned()), &format!("{name}[]"));
        }
        self.sql.push_str("))");
        Ok(())
    }

    /// Writes that the fields of one row equal those of another.
    fn equal(
        &mut self,
        (entity, table, alias): (&Entity, &MappedTable, &str),
        fields: &[Name],
        (other, other_table, other_alias): (&Entity, &MappedTable, &str),
        theirs: &[Name],
    ) -> Result<(), PostgresError> {
        for (position, (field, their)) in fields.iter().zip(theirs).enumerate() {
            let (_, ours) = column(entity, table, field, alias)?;
            let (_, theirs) = column(other, other_table, their, other_alias)?;
            let joint = if position == 0 { "" } else { " AND " };
            self.write(format_args!("{joint}{ours} = {theirs}"));
        }
        Ok(())
    }

    /// At least one related row meets the filter.
    fn related(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        alias: &str,
        relation: &str,
        filter: &Filter,
    ) -> Result<(), PostgresError> {
        let unknown = |what: &str| PostgresError::Unknown {
            what: format!("{what} of {}.{relation}", entity.name()),
        };
        let builder = self.builder;
        let relation: &Relation = entity
            .get_relation(relation)
            .ok_or_else(|| unknown("relation"))?;
        let target = builder
            .schema
            .entity(relation.target())
            .ok_or_else(|| unknown("target"))?;
        let target_table = builder.table(target)?;
        let far_alias = self.alias();
        let (here, there) = ((entity, table, alias), (target, target_table, &*far_alias));
        match relation.through() {
            None => {
                let table = &target_table.quoted;
                self.write(format_args!(
                    "EXISTS (SELECT FROM {table} AS {far_alias} WHERE "
                ));
                self.equal(there, relation.foreign(), here, relation.local())?;
            }
            Some(through) => {
                let link = builder
                    .schema
                    .entity(&through.link)
                    .ok_or_else(|| unknown("link"))?;
                let link_table = builder.table(link)?;
                let link_alias = self.alias();
                let between = (link, link_table, &*link_alias);
                self.write(format_args!(
                    "EXISTS (SELECT FROM {} AS {link_alias} JOIN {} AS {far_alias} ON ",
                    link_table.quoted, target_table.quoted
                ));
                self.equal(there, relation.foreign(), between, &through.far)?;
                self.sql.push_str(" WHERE ");
                self.equal(between, &through.near, here, relation.local())?;
                self.sql.push_str(" AND ");
                self.live(link, link_table, &link_alias);
            }
        }
        self.sql.push_str(" AND ");
        self.live(target, target_table, &far_alias);
        self.sql.push_str(" AND ");
        self.filter(target, target_table, &far_alias, filter)?;
        self.sql.push(')');
        Ok(())
    }

    /// Writes an order: the database's own, of nulls too.
    fn order(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        order: &[(Name, Direction)],
    ) -> Result<(), PostgresError> {
        for (position, (field, direction)) in order.iter().enumerate() {
            let (_, column) = column(entity, table, field, ROOT)?;
            let joint = if position == 0 { " ORDER BY " } else { ", " };
            let direction = match direction {
                Direction::Asc => "ASC",
                Direction::Desc => "DESC",
            };
            self.write(format_args!("{joint}{column} {direction}"));
        }
        Ok(())
    }

    /// Writes order, limit and offset.
    fn page(
        &mut self,
        entity: &Entity,
        table: &MappedTable,
        list: &List<'_>,
    ) -> Result<(), PostgresError> {
        self.order(entity, table, list.order)?;
        let bounded = |rows: u64| Param::text(rows.min(i64::MAX as u64).to_string());
        if let Some(take) = list.take {
            self.sql.push_str(" LIMIT ");
            self.bind(bounded(take), "int8");
        }
        if list.skip > 0 {
            self.sql.push_str(" OFFSET ");
            self.bind(bounded(list.skip), "int8");
        }
        Ok(())
    }
}

/// What this version does not know how to write.
fn unknown_form(entity: &Entity) -> PostgresError {
    PostgresError::Unknown {
        what: format!("form of a query on {}", entity.name()),
    }
}

/// The kind of a field and its column, with the table's alias.
fn column(
    entity: &Entity,
    table: &MappedTable,
    field: &str,
    alias: &str,
) -> Result<(FieldType, String), PostgresError> {
    match (entity.get_field(field), table.column(field)) {
        (Some(field), Some(column)) => Ok((field.kind(), format!("{alias}.{column}"))),
        _ => Err(PostgresError::Unknown {
            what: format!("stored field {}.{field}", entity.name()),
        }),
    }
}

/// A column as it is compared and sorted. Text may stand for enumerations and other types that only print as text;
/// for text itself the cast is nothing.
fn compared(kind: FieldType, column: &str) -> String {
    match kind {
        FieldType::Text => format!("{column}::text"),
        _ => column.to_owned(),
    }
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "=",
        Comparison::Ne => "<>",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
    }
}
