//! The file that says what is watched, and for whom.
//!
//! Owns its words and what is checked without a server. What it leaves out comes from the environment, so that a file
//! with no secrets in it can be shipped.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Names this watcher among all that are told of the database's changes. Default: the cache's place and prefix.
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) database: Database,
    #[serde(default)]
    pub(crate) cache: Cache,
    #[serde(default)]
    pub(crate) tags: Templates,
    #[serde(rename = "table", default)]
    pub(crate) tables: Vec<Table>,
}

/// Where changes come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    /// Default: the environment's `DATABASE_URL`.
    pub(crate) url: Option<String>,
    /// The schema of tables that do not name theirs.
    pub(crate) tables_in: String,
    /// The schema in which the capture keeps its own tables.
    pub(crate) capture_in: String,
    /// Certificates to trust beside those of the system, in PEM.
    pub(crate) ca: Option<String>,
    /// For how long changes wait for a watcher that is away.
    pub(crate) hold_hours: u32,
    /// Whether the capture is installed at the start. Without, a run of `--install` must have done it.
    pub(crate) install: bool,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            tables_in: "public".to_owned(),
            capture_in: "mcache".to_owned(),
            ca: None,
            hold_hours: 24,
            install: true,
        }
    }
}

/// Whose entries are cleared.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cache {
    /// Default: the environment's `CACHE_REDIS_URL`.
    pub(crate) url: Option<String>,
    /// What stands before every tag, as the clients have it.
    pub(crate) prefix: String,
    /// What clears everything, after the prefix.
    pub(crate) everything: String,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            url: None,
            prefix: "mc:".to_owned(),
            everything: "*".to_owned(),
        }
    }
}

/// How tags are spelled: `{type}` and `{id}` stand for what their names say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Templates {
    /// A row changed in any way.
    pub(crate) row: Vec<String>,
    /// A row came: it was inserted or is no longer marked as deleted.
    pub(crate) new: Vec<String>,
    /// Any row may have changed. Every entry made from a row of the type must carry one of these.
    pub(crate) whole: Vec<String>,
}

impl Default for Templates {
    fn default() -> Self {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
        Self {
            row: words(&["{type}:{id}", "{type}:list:*"]),
            new: Vec::new(),
            whole: words(&["{type}:list:*"]),
        }
    }
}

/// One table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Its name, exactly.
    pub(crate) table: String,
    /// Its schema.
    pub(crate) schema: Option<String>,
    /// The word for its rows in tags. A table between two others may have none.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// The column that names a row, or several that name it together.
    #[serde(default)]
    pub(crate) id: Key,
    /// Columns that name rows of other types, which count as changed with this one.
    #[serde(default)]
    pub(crate) links: Links,
    /// The column that, when it is not null, marks a row as deleted.
    pub(crate) deleted: Option<String>,
    /// Columns whose change clears nothing.
    #[serde(default)]
    pub(crate) ignore: Vec<String>,
    /// Cleared beside the rest when any row may have changed.
    #[serde(default)]
    pub(crate) whole: Vec<String>,
}

/// The columns of a key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Key {
    One(String),
    Several(Vec<String>),
}

impl Default for Key {
    fn default() -> Self {
        Self::One("id".to_owned())
    }
}

impl Key {
    /// The columns.
    pub(crate) fn columns(&self) -> &[String] {
        match self {
            Self::One(column) => std::slice::from_ref(column),
            Self::Several(columns) => columns,
        }
    }
}

/// The rows of other types that a row leads to.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Links {
    /// `{ column = "Type" }`.
    ByColumn(BTreeMap<String, String>),
    /// `[{ id = ["column", "column"], type = "Type" }]`: also for rows with a key of several columns.
    Listed(Vec<Link>),
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    /// The columns that name the other row, in the order of its key.
    pub(crate) id: Key,
    /// Its type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

impl Default for Links {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Links {
    /// Columns and type of each.
    pub(crate) fn each(&self) -> Vec<(&[String], &str)> {
        match self {
            Self::ByColumn(links) => links
                .iter()
                .map(|(column, kind)| (std::slice::from_ref(column), kind.as_str()))
                .collect(),
            Self::Listed(links) => links
                .iter()
                .map(|link| (link.id.columns(), link.kind.as_str()))
                .collect(),
        }
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    #[error("no [[table]] is named; nothing would be watched")]
    Nothing,
    #[error("[[table]] {table}: {reason}")]
    Table { table: String, reason: String },
    #[error("[tags] {list}: {reason}")]
    Tags { list: &'static str, reason: String },
    #[error(
        "it is not known {what}: set {key} in the file, or the environment variable {variable}"
    )]
    Address {
        what: &'static str,
        key: &'static str,
        variable: &'static str,
    },
}

impl File {
    /// Reads the text of a file, and asks `environment` for what it leaves out.
    pub(crate) fn parse(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, FileError> {
        let mut file: Self = toml::from_str(text)?;
        let of = |variable| environment(variable).filter(|value| !value.is_empty());
        file.database.url = file.database.url.or_else(|| of("DATABASE_URL"));
        file.cache.url = file.cache.url.or_else(|| of("CACHE_REDIS_URL"));
        file.check()?;
        Ok(file)
    }

    /// The database's address.
    pub(crate) fn database_url(&self) -> Result<&str, FileError> {
        self.database.url.as_deref().ok_or(FileError::Address {
            what: "where the database is",
            key: "database.url",
            variable: "DATABASE_URL",
        })
    }

    /// The cache's address.
    pub(crate) fn cache_url(&self) -> Result<&str, FileError> {
        self.cache.url.as_deref().ok_or(FileError::Address {
            what: "where the cache is",
            key: "cache.url",
            variable: "CACHE_REDIS_URL",
        })
    }

    fn check(&self) -> Result<(), FileError> {
        self.database_url()?;
        self.cache_url()?;
        if self.tables.is_empty() {
            return Err(FileError::Nothing);
        }
        self.tags.check()?;
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for table in &self.tables {
            table.check()?;
            let schema = table.schema.as_deref().unwrap_or(&self.database.tables_in);
            let name = (schema, table.table.as_str());
            if seen.contains(&name) {
                return Err(table.wrong("it is named twice"));
            }
            seen.push(name);
        }
        Ok(())
    }
}

impl Templates {
    fn check(&self) -> Result<(), FileError> {
        let wrong = |list, reason: String| FileError::Tags { list, reason };
        for (list, templates, known) in [
            ("row", &self.row, &["{type}", "{id}"][..]),
            ("new", &self.new, &["{type}", "{id}"][..]),
            ("whole", &self.whole, &["{type}"][..]),
        ] {
            for template in templates {
                let rest = known
                    .iter()
                    .fold(template.clone(), |rest, word| rest.replace(word, ""));
                if rest.contains(['{', '}']) {
                    let reason = format!(
                        "{template:?} has braces around more than {}",
                        known.join(" and ")
                    );
                    return Err(wrong(list, reason));
                }
            }
        }
        if self.row.is_empty() {
            return Err(wrong(
                "row",
                "no tag is named, so a change would clear nothing".to_owned(),
            ));
        }
        if !self
            .whole
            .iter()
            .any(|template| template.contains("{type}"))
        {
            let reason =
                "none names its {type}; a change of many rows would clear nothing, or everything";
            return Err(wrong("whole", reason.to_owned()));
        }
        Ok(())
    }
}

impl Table {
    fn check(&self) -> Result<(), FileError> {
        let links = self.links.each();
        if self.kind.is_none() && links.is_empty() {
            return Err(
                self.wrong("it has neither a type nor links, so its changes would clear nothing")
            );
        }
        let kinds = links.iter().map(|(_, kind)| *kind);
        for kind in self.kind.as_deref().into_iter().chain(kinds) {
            let mut bytes = kind.bytes();
            let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic());
            if !starts || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                let reason = format!(
                    "{kind:?} cannot be a type: letters, digits and underscores, a letter first"
                );
                return Err(self.wrong(&reason));
            }
        }
        let keys = links.iter().map(|(columns, _)| ("a link's id", *columns));
        for (what, columns) in std::iter::once(("id", self.id.columns())).chain(keys) {
            if columns.is_empty() {
                return Err(self.wrong(&format!("{what} names no column")));
            }
            for (place, column) in columns.iter().enumerate() {
                if columns[..place].contains(column) {
                    return Err(self.wrong(&format!("{what} names the column {column} twice")));
                }
            }
        }
        let linked = links.iter().flat_map(|(columns, _)| *columns);
        let used = self.id.columns().iter().chain(linked).chain(&self.deleted);
        for column in used {
            if self.ignore.contains(column) {
                return Err(self.wrong(&format!("column {column} is ignored and used")));
            }
        }
        Ok(())
    }

    /// An error about this table.
    pub(crate) fn wrong(&self, reason: &str) -> FileError {
        FileError::Table {
            table: self.table.clone(),
            reason: reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "database.url = 'd'\ncache.url = 'c'\n";

    fn parse(rest: &str) -> Result<File, FileError> {
        File::parse(&format!("{HEAD}{rest}"), |_| None)
    }

    #[test]
    fn a_short_file_is_enough() {
        let file = parse("[[table]]\ntable = 'product'\ntype = 'Product'").unwrap();
        assert_eq!(file.cache.prefix, "mc:");
        assert_eq!(file.tables[0].id.columns(), ["id"]);
        assert_eq!(file.tags.row, ["{type}:{id}", "{type}:list:*"]);
        let link = "[[table]]\ntable = 'a_b'\nid = ['a', 'b']\nlinks = { a = 'A', b = 'B' }";
        let table = &parse(link).unwrap().tables[0];
        assert_eq!(table.id.columns(), ["a", "b"]);
        assert_eq!(table.links.each().len(), 2);
        let line = "[[table]]\ntable = 'l'\ntype = 'L'\nid = ['a', 'b', 'c']
            links = [{ id = ['a', 'b'], type = 'O' }, { id = 'd', type = 'P' }]";
        let table = &parse(line).unwrap().tables[0];
        assert_eq!(table.id.columns(), ["a", "b", "c"]);
        let links: Vec<(String, &str)> = table
            .links
            .each()
            .into_iter()
            .map(|(columns, kind)| (columns.join("|"), kind))
            .collect();
        assert_eq!(links, [("a|b".to_owned(), "O"), ("d".to_owned(), "P")]);
    }

    #[test]
    fn addresses_come_from_the_environment() {
        let text = "[[table]]\ntable = 'product'\ntype = 'Product'";
        let file = File::parse(text, |name| Some(format!("of {name}"))).unwrap();
        assert_eq!(file.database_url().unwrap(), "of DATABASE_URL");
        assert_eq!(file.cache_url().unwrap(), "of CACHE_REDIS_URL");
        let missing = File::parse(text, |_| None).unwrap_err().to_string();
        assert!(missing.contains("DATABASE_URL"), "{missing}");
    }

    #[test]
    fn what_cannot_work_is_said_with_its_place() {
        for (rest, words) in [
            ("", "no [[table]]"),
            ("[[table]]\ntable = 'product'", "neither a type nor links"),
            (
                "[[table]]\ntable = 'product'\ntype = 'a b'",
                "cannot be a type",
            ),
            (
                "[[table]]\ntable = 'product'\nkind = 'Product'",
                "unknown field `kind`",
            ),
            (
                "[[table]]\ntable = 'p'\ntype = 'P'\nid = []",
                "id names no column",
            ),
            (
                "[[table]]\ntable = 'p'\ntype = 'P'\nid = ['a', 'b', 'a']",
                "id names the column a twice",
            ),
            (
                "[[table]]\ntable = 'p'\nlinks = [{ id = [], type = 'Q' }]",
                "a link's id names no column",
            ),
            (
                "[[table]]\ntable = 'p'\nlinks = [{ id = ['a', 'b'], type = 'Q R' }]",
                "cannot be a type",
            ),
            (
                "[[table]]\ntable = 'p'\nlinks = [{ id = ['a', 'b'], type = 'Q' }]\nignore = ['b']",
                "ignored and used",
            ),
            (
                "[[table]]\ntable = 'p'\ntype = 'P'\nid = ['a', 'a']",
                "twice",
            ),
            (
                "[[table]]\ntable = 'p'\ntype = 'P'\n[[table]]\ntable = 'p'\ntype = 'Q'",
                "named twice",
            ),
            (
                "[[table]]\ntable = 'p'\ntype = 'P'\nignore = ['id']",
                "ignored and used",
            ),
            (
                "tags.row = []\n[[table]]\ntable = 'p'\ntype = 'P'",
                "[tags] row",
            ),
            (
                "tags.row = ['{what}']\n[[table]]\ntable = 'p'\ntype = 'P'",
                "braces",
            ),
            (
                "tags.whole = ['{type}:{id}']\n[[table]]\ntable = 'p'\ntype = 'P'",
                "braces",
            ),
            (
                "tags.whole = ['all']\n[[table]]\ntable = 'p'\ntype = 'P'",
                "[tags] whole",
            ),
        ] {
            let said = parse(rest).unwrap_err().to_string();
            assert!(said.contains(words), "{rest}: {said}");
        }
        let said = parse("[[table]]\ntable = 7").unwrap_err().to_string();
        assert!(said.contains("line 4"), "{said}");
    }
}
