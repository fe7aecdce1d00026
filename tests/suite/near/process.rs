//! One near cache for tests: core's decisions over a connection of the harness, its values in a plain map.

use std::collections::BTreeMap;
use std::time::Instant;

use harness::{Server, Session};
use mcache_core::feed::{HashKey, Told, read_events};
use mcache_core::near::{Answer, Asked, Change, Data, Sent, View};
use redis::{FromRedisValue, Value};

struct Held {
    value: String,
    cell: u64,
    data: Data,
}

/// A process with a near cache.
pub struct Process {
    pub redis: Session,
    pub view: View,
    prefixes: Vec<String>,
    held: BTreeMap<String, Held>,
    began: Instant,
}

/// What comes beside a value.
#[derive(Debug)]
pub struct Near {
    pub data: Data,
    pub life_ms: i64,
}

/// Reads what a read says for the near cache.
pub fn near(value: Value) -> Option<Near> {
    let parts: Option<(u64, i64, i64, Vec<u8>)> =
        FromRedisValue::from_redis_value(value).expect("four parts or nil");
    let (number, life_ms, manual, digests) = parts?;
    let digests = digests
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight")))
        .collect();
    let manual = manual == 1;
    Some(Near {
        data: Data {
            number,
            manual,
            digests,
        },
        life_ms,
    })
}

/// Reads an answer of FEED.
pub fn answer(value: Value) -> Answer {
    let Value::Array(parts) = value else {
        panic!("an array, not {value:?}")
    };
    let [position, lease_ms, more, events] = &parts[..4] else {
        panic!("four parts, not {parts:?}")
    };
    let read = |value: &Value| Vec::<u8>::from_redis_value(value.clone()).expect("bytes");
    let number = |value: &Value| u64::from_redis_value(value.clone()).expect("a number");
    Answer {
        position: read(position).into(),
        lease_ms: number(lease_ms),
        more: number(more) == 1,
        events: read_events(&read(events)).expect("events"),
        gap: parts.get(4).map(|gap| {
            let (key, bits): (Vec<u8>, u32) =
                FromRedisValue::from_redis_value(gap.clone()).expect("key and bits");
            (HashKey::new(key.try_into().expect("sixteen bytes")), bits)
        }),
    }
}

impl Process {
    /// A process that has not subscribed yet.
    pub fn new(server: &Server, prefixes: &[&str]) -> Self {
        Self::over(server.session(), prefixes)
    }

    pub fn over(redis: Session, prefixes: &[&str]) -> Self {
        Process {
            redis,
            view: View::default(),
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            held: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    /// A process that hears of every name.
    pub fn subscribed(server: &Server) -> Self {
        let mut process = Self::new(server, &[]);
        process.feed();
        process
    }

    pub fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// The next call as a line, and what is needed for its answer.
    pub fn call(&mut self, wait_ms: u64) -> (Sent, String) {
        let sent = self.view.call(self.now_ms());
        let position = match &sent.position {
            Some(position) => String::from_utf8_lossy(position).into_owned(),
            None => "NEW".to_owned(),
        };
        let mut line = format!("MCACHE.FEED {position} WAIT {wait_ms}");
        if !self.prefixes.is_empty() {
            line += &format!(" PREFIX {}", self.prefixes.join(" "));
        }
        (sent, line)
    }

    /// One call that does not wait. Returns the events.
    #[track_caller]
    pub fn feed(&mut self) -> Vec<Told> {
        self.try_feed()
            .unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    pub fn try_feed(&mut self) -> Result<Vec<Told>, String> {
        let (sent, line) = self.call(0);
        let answer = answer(self.redis.try_run(&line)?);
        let events = answer.events.clone();
        self.answered(&sent, answer);
        Ok(events)
    }

    pub fn answered(&mut self, sent: &Sent, answer: Answer) {
        for change in self.view.answered(sent, answer) {
            self.held.retain(|_, held| {
                let number = held.data.number;
                let concerned = match change {
                    Change::Everything => true,
                    Change::Flush { before } => number < before,
                    Change::Tag {
                        digest,
                        spares_manual,
                        before,
                    } => {
                        number < before
                            && held.data.digests.contains(&digest)
                            && !(spares_manual && held.data.manual)
                    }
                    Change::Cell { cell, before } => number < before && held.cell == cell,
                    // Nothing here computes slots.
                    Change::Slots { before, .. } => number < before,
                };
                !concerned
            });
        }
    }

    pub fn asked(&self) -> Asked {
        self.view.ask(self.now_ms()).expect("it has subscribed")
    }

    /// The subscription, as reads name it.
    pub fn subscription(&self) -> String {
        String::from_utf8_lossy(&self.asked().position).into_owned()
    }

    /// Reads a value and keeps it if it may; whether it did.
    #[track_caller]
    pub fn read(&mut self, key: &str) -> bool {
        let asked = self.asked();
        let line = format!("MCACHE.NEARGET {} {key}", self.subscription());
        let Value::Array(mut values) = self.redis.run(&line) else {
            panic!("an array")
        };
        let Some(Value::Array(parts)) = values.pop() else {
            return false;
        };
        let value = String::from_redis_value(parts[0].clone()).expect("a value");
        match near(parts[1].clone()) {
            Some(near) => self.keep(&asked, key, value, near.data),
            None => false,
        }
    }

    pub fn keep(&mut self, asked: &Asked, key: &str, value: String, data: Data) -> bool {
        if self.view.admit(asked, key.as_bytes(), &data).is_err() {
            return false;
        }
        let cell = self.view.cell(key.as_bytes()).expect("it has subscribed");
        self.held.insert(key.to_owned(), Held { value, cell, data });
        true
    }

    /// What it would serve now.
    pub fn get(&self, key: &str) -> Option<&str> {
        let held = self.held.get(key)?;
        self.view
            .serves(self.now_ms())
            .then_some(held.value.as_str())
    }

    /// What it holds, served or not.
    pub fn holds(&self, key: &str) -> bool {
        self.held.contains_key(key)
    }
}
