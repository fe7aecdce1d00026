//! In which form a value is captured, and the names that tell the forms apart.
//!
//! It must not know tables, nor the SQL that makes a form.

use mcache_graph::FieldType;

/// How a value is captured. One column can be needed in several forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Its text; a digest if that is long.
    Text,
    /// As a point in time.
    Time,
    /// A digest of its JSON.
    Digest,
}

impl Form {
    /// The form in which a field of this type is needed.
    pub(super) fn of(kind: FieldType) -> Self {
        match kind {
            FieldType::Timestamp => Self::Time,
            FieldType::Json => Self::Digest,
            _ => Self::Text,
        }
    }

    /// The name of a captured value: the column's, and what tells the form. No other column's value has it: `@` is
    /// doubled in names.
    pub(super) fn name(self, column: &str) -> String {
        let column = column.replace('@', "@@");
        match self {
            Self::Text => column,
            Self::Time => format!("{column}@t"),
            Self::Digest => format!("{column}@j"),
        }
    }

    /// Column and form of a captured value.
    pub(super) fn parse(name: &str) -> (String, Self) {
        let ends_in = |mark: &str| {
            let column = name.strip_suffix(mark)?;
            let ats = column.len() - column.trim_end_matches('@').len();
            (ats % 2 == 0).then_some(column)
        };
        let (column, form) = match (ends_in("@t"), ends_in("@j")) {
            (Some(column), _) => (column, Self::Time),
            (_, Some(column)) => (column, Self::Digest),
            _ => (name, Self::Text),
        };
        (column.replace("@@", "@"), form)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_captured_value_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for column in ["a", "a@t", "a@@t", "a@", "@t", "a@j", "a@@"] {
            for form in [Form::Text, Form::Time, Form::Digest] {
                let name = form.name(column);
                assert_eq!(Form::parse(&name), (column.to_owned(), form), "{name}");
                assert!(names.insert(name));
            }
        }
    }
}
