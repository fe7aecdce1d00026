//! What a session is set to, and whether it is.
//!
//! Owns the settings of a connection: those that the text of a value depends on, and those of its `options`. It must
//! not know what is read. A pooler may drop startup parameters without a word and may forget what a statement sets, so
//! everything is set by a statement, read back by another, and refused by name if it is not what was asked for.

use futures_util::future::join5;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::PostgresError;
use super::sql::{TEXT_SETTINGS, quoted_text};
use super::timing::in_time;

const SETTING_UP: &str = "setting up a session and reading it back";

/// Settings by name. A later one of the same name wins.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(Vec<(String, String)>);

impl Settings {
    /// What a connection's `options` ask for, and over that what texts depend on.
    pub(super) fn of_connection(options: Option<&str>) -> Self {
        let mut settings = Self::default();
        for (name, value) in of_options(options.unwrap_or_default()) {
            settings.set(&name, &value);
        }
        for (name, value) in TEXT_SETTINGS {
            settings.set(name, value);
        }
        settings
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// The statement that sets them all, for the session or for the transaction. Not `SET`, to which `app.user` is no
    /// name.
    pub(super) fn statement(&self, local: bool) -> String {
        self.each(|name, value| format!("set_config({name}, {value}, {local})"))
    }

    fn read_statement(&self) -> String {
        self.each(|name, _| format!("current_setting({name}, true)"))
    }

    fn each(&self, column: impl Fn(&str, &str) -> String) -> String {
        let columns = self
            .0
            .iter()
            .map(|(name, value)| column(&quoted_text(name), &quoted_text(value)));
        format!("SELECT {}", columns.collect::<Vec<_>>().join(", "))
    }

    /// Sets the session, and reads it back.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Setting`] with the first that is not as it was set, or what PostgreSQL says of a setting.
    pub(super) async fn hold(&self, client: &Client) -> Result<(), PostgresError> {
        let set = values(client, &self.statement(false)).await?;
        let found = values(client, &self.read_statement()).await?;
        self.compare(&set, &found)
    }

    /// The same in a transaction that ends at once. Returns the search path that such a transaction has.
    pub(super) async fn hold_in_transaction(
        &self,
        client: &Client,
    ) -> Result<String, PostgresError> {
        let (set, read) = (self.statement(true), self.read_statement());
        // Sent in this order, before the first answer is awaited: however this ends, the transaction does.
        let (begun, set, found, path, ended) = join5(
            in_time(SETTING_UP, client.batch_execute("BEGIN READ ONLY")),
            values(client, &set),
            values(client, &read),
            search_path(client),
            in_time(SETTING_UP, client.batch_execute("ROLLBACK")),
        )
        .await;
        begun?;
        self.compare(&set?, &found?)?;
        ended?;
        path
    }

    /// `set` is what PostgreSQL made of each value: it has spellings of its own (`5000` is `5s`).
    fn compare(&self, set: &[String], found: &[String]) -> Result<(), PostgresError> {
        for (place, (name, value)) in self.0.iter().enumerate() {
            let asked = set.get(place).unwrap_or(value);
            let is = found.get(place).map_or("", String::as_str);
            if asked != is {
                return Err(PostgresError::Setting {
                    name: name.clone(),
                    asked: asked.clone(),
                    found: is.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// The only row that a statement returns, which must not be a prepared one.
async fn values(client: &Client, sql: &str) -> Result<Vec<String>, PostgresError> {
    let answer = in_time(SETTING_UP, client.simple_query(sql)).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.map_or_else(Vec::new, |row| {
        let text = |column| row.get(column).unwrap_or_default().to_owned();
        (0..row.len()).map(text).collect()
    }))
}

/// The search path of a session.
pub(super) async fn search_path(client: &Client) -> Result<String, PostgresError> {
    let mut found = values(client, "SELECT current_setting('search_path')").await?;
    Ok(found.pop().unwrap_or_default())
}

/// The settings in libpq's `options`: `-c name=value`, `-cname=value`, `--name=value`; a backslash takes the next
/// character as it is.
pub(super) fn of_options(options: &str) -> Vec<(String, String)> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            space if space.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    let mut words = words.into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next()
        } else {
            let bare = word.strip_prefix("--").or_else(|| word.strip_prefix("-c"));
            bare.map(str::to_owned)
        };
        if let Some((name, value)) = assignment.as_deref().and_then(|text| text.split_once('=')) {
            settings.push((name.trim().replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let found = of_options(
            r"-c search_path=tenant\ a,public  --statement-timeout=5000 -cwork_mem=8MB -d 3 -c",
        );
        let expected = [
            ("search_path", "tenant a,public"),
            ("statement_timeout", "5000"),
            ("work_mem", "8MB"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, expected);
        assert!(of_options("").is_empty());
    }

    #[test]
    fn what_texts_depend_on_is_not_for_options_to_change() {
        let settings = Settings::of_connection(Some("-c TimeZone=Asia/Kathmandu -c app.x=it's"));
        let sql = settings.statement(false);
        assert!(!sql.contains("Kathmandu"), "{sql}");
        assert!(
            sql.contains("set_config(E'timezone', E'UTC', false)"),
            "{sql}"
        );
        assert!(
            sql.contains("set_config(E'app.x', E'it''s', false)"),
            "{sql}"
        );
    }

    #[test]
    fn a_setting_that_does_not_hold_is_named() {
        let texts = |values: &[&str]| {
            values
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let settings = Settings::default()
            .with("statement_timeout", "5000")
            .with("bytea_output", "hex");
        let set = texts(&["5s", "hex"]);
        settings.compare(&set, &texts(&["5s", "hex"])).unwrap();
        let refused = settings
            .compare(&set, &texts(&["5s", "escape"]))
            .unwrap_err();
        let words = refused.to_string();
        assert!(
            words.contains("bytea_output") && words.contains("hex") && words.contains("escape"),
            "{words}"
        );
        assert!(
            settings.compare(&set, &[]).is_err(),
            "nothing was read back"
        );
    }
}
