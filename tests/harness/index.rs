//! Questions that every test asks of the index.
//!
//! Owns their spelling in commands. It must not judge the answers.

use std::collections::BTreeMap;

use crate::Session;

impl Session {
    /// The keys that carry `tag`, sorted: all pages of `MCACHE.ENTRIES`.
    #[track_caller]
    pub fn entries(&mut self, tag: &str) -> Vec<String> {
        let mut keys = self.scan(&format!("MCACHE.ENTRIES {tag} {{}}"));
        keys.sort();
        // A page may repeat an entry that moved during the scan.
        keys.dedup();
        keys
    }

    /// Every tag of the selected database with its number of entries: all pages of `MCACHE.TAGS`.
    #[track_caller]
    pub fn tags(&mut self) -> BTreeMap<String, i64> {
        let flat = self.scan("MCACHE.TAGS {}");
        flat.chunks_exact(2)
            .map(|pair| {
                let count = pair[1].parse().expect("TAGS gives tags with their counts");
                (pair[0].clone(), count)
            })
            .collect()
    }

    /// A token for a fill of `key` that begins now.
    #[track_caller]
    pub fn token(&mut self, key: &str) -> String {
        self.text(&format!("MCACHE.TOKEN {key}"))
            .expect("TOKEN gives a token")
    }

    /// Whether `key` is served.
    #[track_caller]
    pub fn is_live(&mut self, key: &str) -> bool {
        self.text(&format!("MCACHE.GET {key}")).is_some()
    }

    /// The state that INSPECT tells, `None` if there is no such key.
    #[track_caller]
    pub fn state(&mut self, key: &str) -> Option<String> {
        let mut report = self.map(&format!("MCACHE.INSPECT {key}"))?;
        let state = report.remove("state").expect("INSPECT tells the state");
        Some(redis::from_redis_value(state).expect("the state is a word"))
    }

    /// Reclaims everything that is dead, now.
    #[track_caller]
    pub fn drain(&mut self) {
        self.int("MCACHE.DEBUG DRAIN");
    }
}
