//! Fields of an entity and what their values are. Knows nothing of relations or queries.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::decimal::Decimal;
use super::{Dependency, FieldIndex};

/// A name out of the schema, cheap to clone.
pub type Name = Arc<str>;

/// What the values of a field are: which filters make sense, and when two values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldType {
    /// A string; equal when its characters are.
    Text,
    /// A whole number.
    Integer,
    /// Any number; decimals may also be written as strings in rows.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A point in time, written as a string. Comparable, never a lookup: one instant has many spellings.
    Timestamp,
    /// A UUID, written as a string; two spellings are equal if they differ only in case or in the grouping of the
    /// digits.
    Uuid,
    /// Anything else: arrays, objects. Only its being null can be filtered by.
    Json,
}

impl FieldType {
    /// Whether `value` may stand in a filter on a field of this type. `null` is not asked about.
    pub(crate) fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Text | Self::Timestamp | Self::Uuid => value.is_string(),
            // What JSON's numbers cannot hold is written as a string.
            Self::Integer => value.is_i64() || value.is_u64() || self.accepts_digits(value),
            Self::Number => value.is_number() || self.accepts_digits(value),
            Self::Boolean => value.is_boolean(),
            Self::Json => false,
        }
    }

    /// Whether a string is a number of this type that JSON's numbers cannot hold.
    fn accepts_digits(self, value: &Value) -> bool {
        let Some(text) = value.as_str() else {
            return false;
        };
        let Some(canonical) = self.canonical_str(text) else {
            return false;
        };
        let number: Option<serde_json::Number> = text.parse().ok();
        let held = number.map(Value::Number).filter(|number| match self {
            Self::Integer => number.is_i64() || number.is_u64(),
            _ => true,
        });
        held.and_then(|number| Some(self.canonical_text(&number)? == canonical)) != Some(true)
    }

    /// Whether values of this type have an order that `$gt` and `order` can use.
    pub(crate) const fn is_ordered(self) -> bool {
        !matches!(self, Self::Boolean | Self::Json)
    }

    /// Whether equal values have one spelling, so that a value can be part of a tag.
    pub(crate) const fn has_canonical_text(self) -> bool {
        !matches!(self, Self::Timestamp | Self::Json)
    }

    /// The one spelling of a value. Two equal values have the same text; two different ones may
    /// (`null` and the string "null" do), which costs precision and nothing else.
    ///
    /// `None` if the value is not of this type at all: the caller must treat it as unknown.
    pub fn canonical_text(self, value: &Value) -> Option<Cow<'_, str>> {
        match (self, value) {
            (_, Value::Null) => Some(Cow::Borrowed("null")),
            (_, Value::String(text)) => self.canonical_str(text),
            // Keys are sometimes numbers in one place and strings in another.
            (Self::Text, Value::Number(number)) => Some(Cow::Owned(number.to_string())),
            (Self::Boolean, Value::Bool(true)) => Some(Cow::Borrowed("true")),
            (Self::Boolean, Value::Bool(false)) => Some(Cow::Borrowed("false")),
            (Self::Integer | Self::Number, Value::Number(number)) if !number.is_f64() => {
                Some(Cow::Owned(number.to_string()))
            }
            // The shortest digits that mean this double and no other.
            (Self::Integer | Self::Number, Value::Number(number)) => self
                .canonical_str(&format!("{:e}", number.as_f64()?))
                .map(|text| Cow::Owned(text.into_owned())),
            _ => None,
        }
    }

    /// Which value this is: two values have the same text if and only if they are equal, as keys are. `None` for null,
    /// which equals nothing, and for a value that is not of this type.
    ///
    /// Tags are written with [`canonical_text`](Self::canonical_text), which may give two different values one text.
    /// Rows are matched by this.
    pub fn identity(self, value: &Value) -> Option<Cow<'_, str>> {
        match (self, value) {
            (_, Value::Null) => None,
            // What is no UUID is, in a column of texts, the text it is.
            (Self::Uuid, Value::String(text)) if !is_uuid(text) => Some(Cow::Borrowed(text)),
            _ => self.canonical_text(value),
        }
    }

    /// As [`canonical_text`](Self::canonical_text), of a value written as a string.
    pub(crate) fn canonical_str(self, text: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Text => Some(Cow::Borrowed(text)),
            Self::Uuid => Some(uuid_text(text)),
            Self::Integer | Self::Number => match Decimal::parse(text) {
                Some(decimal) if self == Self::Number || decimal.is_whole() => {
                    Some(Cow::Owned(decimal.text()))
                }
                Some(_) => None,
                // Not numbers, but each equal to itself.
                None => ["NaN", "Infinity", "-Infinity"]
                    .into_iter()
                    .find(|name| self == Self::Number && name.eq_ignore_ascii_case(text))
                    .map(Cow::Borrowed),
            },
            Self::Boolean | Self::Timestamp | Self::Json => None,
        }
    }
}

/// Whether PostgreSQL reads the text as a UUID: 32 digits, perhaps in braces, perhaps with a hyphen after any four.
fn is_uuid(text: &str) -> bool {
    let inner = text
        .strip_prefix('{')
        .map_or(Some(text), |rest| rest.strip_suffix('}'));
    let Some(inner) = inner else {
        return false;
    };
    let mut digits = 0;
    let mut after_hyphen = true;
    for byte in inner.bytes() {
        match byte {
            b'-' if !after_hyphen && digits % 4 == 0 => after_hyphen = true,
            byte if byte.is_ascii_hexdigit() => {
                digits += 1;
                after_hyphen = false;
            }
            _ => return false,
        }
    }
    digits == 32 && !after_hyphen
}

/// Lower-case digits in groups of 8-4-4-4-12, however they were grouped.
fn uuid_text(text: &str) -> Cow<'_, str> {
    let is_canonical = |(position, byte): (usize, u8)| match position {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    if text.len() == 36 && text.bytes().enumerate().all(is_canonical) {
        return Cow::Borrowed(text);
    }
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() != 32 {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    let mut canonical = String::with_capacity(36);
    for (position, digit) in digits.into_iter().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            canonical.push('-');
        }
        canonical.push(digit.to_ascii_lowercase());
    }
    Cow::Owned(canonical)
}

/// One field of an entity.
///
/// ```
/// use mcache_graph::{Dependency, Field};
///
/// let handle = Field::text("handle").lookup();
/// let stock = Field::computed("stock").depends_on(Dependency::on("InventoryLevel"));
/// assert!(handle.is_lookup() && stock.is_computed());
/// ```
#[derive(Clone, Debug)]
pub struct Field {
    pub(crate) name: Name,
    pub(crate) kind: FieldType,
    pub(crate) lookup: bool,
    pub(crate) computed: bool,
    pub(crate) depends: Vec<Dependency>,
    /// If not empty, this stands for these fields together: the key, or what rows are matched by.
    pub(crate) parts: Vec<FieldIndex>,
}

impl Field {
    /// A stored field of the given type.
    pub fn new(name: &str, kind: FieldType) -> Self {
        Self {
            name: name.into(),
            kind,
            lookup: false,
            computed: false,
            depends: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Several fields of an entity, taken together. No field has such a name.
    pub(crate) fn tuple(names: &[Name], parts: Vec<FieldIndex>) -> Self {
        Self {
            parts,
            ..Self::new(&names.join(","), FieldType::Text)
        }
    }

    /// A stored string.
    pub fn text(name: &str) -> Self {
        Self::new(name, FieldType::Text)
    }

    /// A stored whole number.
    pub fn integer(name: &str) -> Self {
        Self::new(name, FieldType::Integer)
    }

    /// A stored number.
    pub fn number(name: &str) -> Self {
        Self::new(name, FieldType::Number)
    }

    /// A stored truth value.
    pub fn boolean(name: &str) -> Self {
        Self::new(name, FieldType::Boolean)
    }

    /// A stored point in time.
    pub fn timestamp(name: &str) -> Self {
        Self::new(name, FieldType::Timestamp)
    }

    /// A stored UUID.
    pub fn uuid(name: &str) -> Self {
        Self::new(name, FieldType::Uuid)
    }

    /// A stored array, object or anything else.
    pub fn json(name: &str) -> Self {
        Self::new(name, FieldType::Json)
    }

    /// A field the resolver makes from other data: a calculated price, the stock of a variant.
    /// It can be selected, not filtered or sorted by, and `*` does not include it. Say what it is
    /// made from with [`depends_on`](Self::depends_on): nothing else can know.
    pub fn computed(name: &str) -> Self {
        Self {
            computed: true,
            ..Self::new(name, FieldType::Json)
        }
    }

    /// Makes equality filters on this field sharp: a change clears a list filtered by
    /// `status = "published"` only if the changed row has that status before or after.
    ///
    /// Every change of a row costs two or three more tags per lookup, so mark what lists are
    /// filtered by and no more. Keys of relations are lookups without being marked. Of several lookups
    /// in one filter the one declared first counts: declare the most selective first.
    ///
    /// Sound only where equal values have one spelling; [`FieldType::Timestamp`] and
    /// [`FieldType::Json`] are refused, and a column with a case-insensitive collation must not be one.
    #[must_use]
    pub fn lookup(mut self) -> Self {
        self.lookup = true;
        self
    }

    /// Declares an entity that influences this field without appearing in the result.
    #[must_use]
    pub fn depends_on(mut self, dependency: Dependency) -> Self {
        self.depends.push(dependency);
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the values are.
    pub fn kind(&self) -> FieldType {
        self.kind
    }

    /// Whether equality on this field is part of tags.
    pub fn is_lookup(&self) -> bool {
        self.lookup
    }

    /// Whether the resolver makes the value from other data.
    pub fn is_computed(&self) -> bool {
        self.computed
    }
}

/// A stored string field.
impl From<&str> for Field {
    fn from(name: &str) -> Self {
        Self::text(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_values_have_one_text() {
        let text = |kind: FieldType, value: Value| {
            kind.canonical_text(&value).map(|text| text.into_owned())
        };
        assert_eq!(
            text(FieldType::Integer, json!(1)),
            text(FieldType::Integer, json!(1.0))
        );
        assert_eq!(
            text(FieldType::Number, json!("10.50")),
            text(FieldType::Number, json!(10.5))
        );
        assert_eq!(
            text(FieldType::Number, json!("10")),
            text(FieldType::Number, json!(10.0))
        );
        assert_eq!(
            text(FieldType::Text, json!(7)),
            text(FieldType::Text, json!("7"))
        );
        let spellings = [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11}",
        ];
        for spelling in spellings {
            assert_eq!(
                text(FieldType::Uuid, json!(spelling)).as_deref(),
                Some(spellings[0])
            );
        }
        assert_eq!(
            text(FieldType::Number, json!(9_007_199_254_740_993_i64)),
            text(FieldType::Number, json!("9007199254740993.00"))
        );
        assert_ne!(
            text(FieldType::Number, json!("9007199254740993")),
            text(FieldType::Number, json!("9007199254740992")),
            "beyond what a double tells apart"
        );
        assert_ne!(
            text(
                FieldType::Integer,
                json!("99999999999999999999999999999999999999999991")
            ),
            text(
                FieldType::Integer,
                json!("99999999999999999999999999999999999999999992")
            )
        );
        assert_eq!(
            text(FieldType::Number, json!("1E+3")),
            text(FieldType::Number, json!(1000))
        );
        assert_eq!(
            text(FieldType::Number, json!("nan")).as_deref(),
            Some("NaN")
        );
        assert_eq!(text(FieldType::Integer, json!("1.5")), None);
        assert_eq!(
            text(FieldType::Number, json!(-0.0)),
            text(FieldType::Number, json!(0))
        );
        assert_eq!(text(FieldType::Boolean, json!("yes")), None);
        assert_eq!(text(FieldType::Number, json!("ten")), None);
        assert_eq!(
            text(FieldType::Integer, json!(u64::MAX)).as_deref(),
            Some("18446744073709551615")
        );
    }

    #[test]
    fn identity_tells_apart_what_tags_need_not() {
        let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let (shouted, other) = (uuid.to_uppercase(), format!("{uuid}x"));
        let both = |kind: FieldType, a: &Value, b: &Value| {
            let tags = kind.canonical_text(a) == kind.canonical_text(b);
            (tags, kind.identity(a) == kind.identity(b))
        };
        for (kind, a, b, same) in [
            (FieldType::Uuid, json!(uuid), json!(shouted), (true, true)),
            (
                FieldType::Uuid,
                json!("a0eebc999c0b4ef8-bb6d6bb9bd380a11"),
                json!(uuid),
                (true, true),
            ),
            // Of no UUID: two texts are two texts.
            (FieldType::Uuid, json!(uuid), json!(other), (true, false)),
            (FieldType::Uuid, json!("N/A"), json!("n/a"), (true, false)),
            (FieldType::Text, json!(null), json!("null"), (true, false)),
            (FieldType::Text, json!(7), json!("7"), (true, true)),
            (FieldType::Integer, json!(1.0), json!("1"), (true, true)),
            (FieldType::Number, json!("1.10"), json!(1.1), (true, true)),
        ] {
            assert_eq!(both(kind, &a, &b), same, "{a} {b}");
        }
        assert_eq!(FieldType::Text.identity(&json!(null)), None);
        assert_eq!(FieldType::Integer.identity(&json!("seven")), None);
    }
}
