//! The cases every client has to pass, in any language: `vectors/scenarios.json`, run against a [`Provider`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    Tags,
    provider::{FetchOptions, Lookup, Mode, Provider, Store, Token},
};

const CASES: &str = include_str!("../../vectors/scenarios.json");

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize, Debug)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Store {
        key: String,
        value: String,
        tags: Vec<String>,
        ttl_ms: u64,
        #[serde(default)]
        swr_ms: u64,
        #[serde(default)]
        manual: bool,
        token: Option<String>,
        expect: bool,
    },
    Get {
        key: String,
        expect: Option<String>,
    },
    Invalidate {
        tags: Vec<String>,
        mode: String,
        expect: u64,
    },
    Token {
        key: String,
        r#as: String,
    },
    Fetch {
        key: String,
        state: String,
        value: Option<String>,
        r#as: Option<String>,
    },
    Release {
        key: String,
        token: String,
        expect: bool,
    },
    Clear {
        key: String,
        expect: bool,
    },
}

/// One case under way; its names are made unique.
struct Run<'a> {
    provider: &'a Arc<dyn Provider>,
    scope: String,
    tokens: HashMap<String, Token>,
}

/// Runs all cases.
///
/// # Panics
///
/// If one does not go as written.
pub(super) async fn run(provider: &Arc<dyn Provider>, scope: &str) {
    let cases: Cases = serde_json::from_str(CASES).expect("the cases are JSON of the known form");
    for (number, case) in cases.cases.iter().enumerate() {
        println!("  {}", case.name);
        let mut run = Run {
            provider,
            scope: format!("{scope}-{number}:"),
            tokens: HashMap::new(),
        };
        for step in &case.steps {
            run.step(&case.name, step).await;
        }
    }
}

impl Run<'_> {
    fn name(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.scope).into_bytes()
    }

    fn tags(&self, tags: &[String]) -> Tags {
        tags.iter().map(|tag| self.name(tag)).collect()
    }

    async fn step(&mut self, case: &str, step: &Step) {
        let provider = self.provider.clone();
        let why = || format!("{case}: {step:?}");
        match step {
            Step::Store {
                key,
                value,
                tags,
                ttl_ms,
                swr_ms,
                manual,
                token,
                expect,
            } => {
                let entry = Store {
                    key: &self.name(key),
                    value: Bytes::copy_from_slice(value.as_bytes()),
                    ttl: Some(Duration::from_millis(*ttl_ms)),
                    swr: Duration::from_millis(*swr_ms),
                    tags: &self.tags(tags),
                    manual: *manual,
                    token: token.as_ref().map(|name| &self.tokens[name]),
                };
                let stored = provider.store(entry).await.expect("store");
                assert_eq!(stored, *expect, "{}", why());
            }
            Step::Get { key, expect } => {
                let found = provider.get(&self.name(key)).await.expect("get");
                assert_eq!(
                    found.as_deref(),
                    expect.as_deref().map(str::as_bytes),
                    "{}",
                    why()
                );
            }
            Step::Invalidate { tags, mode, expect } => {
                let mode = match &mode[..] {
                    "hard" => Mode::Hard,
                    "auto" => Mode::Auto,
                    "soft" => Mode::Soft,
                    other => panic!("unknown mode {other}"),
                };
                let entries = provider.invalidate(&self.tags(tags), mode).await;
                let known = u64::from(provider.counts_invalidated());
                assert_eq!(entries.expect("invalidate"), *expect * known, "{}", why());
            }
            Step::Token { key, r#as } => {
                let token = provider.token(&self.name(key)).await.expect("token");
                self.tokens.insert(r#as.clone(), token);
            }
            Step::Fetch {
                key,
                state,
                value,
                r#as,
            } => {
                let options = FetchOptions::default();
                let found = provider.fetch(&self.name(key), options).await;
                let (got, bytes, token) = match found.expect("fetch") {
                    Lookup::Hit(value) => ("hit", Some(value), None),
                    Lookup::Early { value, token } => ("hit", Some(value), Some(token)),
                    Lookup::Stale { value, token } => ("stale", Some(value), token),
                    Lookup::Miss { token } => ("miss", None, Some(token)),
                    Lookup::Busy => ("busy", None, None),
                };
                assert_eq!(got, state, "{}", why());
                assert_eq!(
                    bytes.as_deref(),
                    value.as_deref().map(str::as_bytes),
                    "{}",
                    why()
                );
                assert_eq!(token.is_some(), r#as.is_some(), "{}", why());
                self.tokens.extend(r#as.clone().zip(token));
            }
            Step::Release { key, token, expect } => {
                let key = self.name(key);
                let released = provider.release(&key, &self.tokens[token]);
                assert_eq!(released.await.expect("release"), *expect, "{}", why());
            }
            Step::Clear { key, expect } => {
                let cleared = provider.clear(&self.name(key)).await.expect("clear");
                assert_eq!(cleared, *expect, "{}", why());
            }
        }
    }
}
