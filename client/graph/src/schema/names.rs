//! Names of one field or of several, as keys and relations take them.

use super::Name;

/// One field or several, by name: what rows are named or matched by.
///
/// Made from a name or an array of names:
///
/// ```
/// use mcache_graph::{FieldNames, Relation};
///
/// Relation::has_many("variants", "Variant", "product_id");
/// Relation::has_many("lines", "OrderLine", ["tenant_id", "order_id"]);
/// assert_eq!(FieldNames::from(["tenant_id", "order_id"]).as_slice().len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldNames(pub(crate) Vec<Name>);

impl FieldNames {
    /// The names.
    pub fn as_slice(&self) -> &[Name] {
        &self.0
    }
}

impl From<&str> for FieldNames {
    fn from(name: &str) -> Self {
        Self(vec![name.into()])
    }
}

impl From<&String> for FieldNames {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl<N: AsRef<str>> From<&[N]> for FieldNames {
    fn from(names: &[N]) -> Self {
        Self(names.iter().map(|name| name.as_ref().into()).collect())
    }
}

impl<N: AsRef<str>> From<Vec<N>> for FieldNames {
    fn from(names: Vec<N>) -> Self {
        names.as_slice().into()
    }
}

impl<N: AsRef<str>, const COUNT: usize> From<[N; COUNT]> for FieldNames {
    fn from(names: [N; COUNT]) -> Self {
        names.as_slice().into()
    }
}

impl<N: AsRef<str>, const COUNT: usize> From<&[N; COUNT]> for FieldNames {
    fn from(names: &[N; COUNT]) -> Self {
        names.as_slice().into()
    }
}
