//! What Redis's own commands do to keys that hold entries, here and in the model.

use redis::Value;

use super::{DATABASES, Dump, Held, Life, World};

impl World {
    pub(super) fn delete(&mut self) {
        let (a, b) = (self.key(), self.key());
        let verb = *self.seed.pick(&["DEL", "UNLINK"]);
        let reply = self.run_knowing(&[&a, &b], &format!("{verb} {a} {b}"));
        let mut removed = i64::from(self.here().remove(&a).is_some());
        removed += i64::from(self.here().remove(&b).is_some());
        assert_eq!(reply, Ok(Value::Int(removed)));
    }

    pub(super) fn rename(&mut self) {
        let (from, to) = (self.key(), self.key());
        let exclusive = self.seed.chance(30);
        let verb = if exclusive { "RENAMENX" } else { "RENAME" };
        let reply = self.run_knowing(&[&from, &to], &format!("{verb} {from} {to}"));
        if !self.here().contains_key(&from) {
            assert!(reply.is_err(), "no such key");
            return;
        }
        let blocked = exclusive && self.here().contains_key(&to);
        let expected = match (exclusive, blocked) {
            (true, blocked) => Value::Int(i64::from(!blocked)),
            (false, _) => Value::Okay,
        };
        assert_eq!(reply, Ok(expected), "{verb} {from} {to}");
        if !blocked && let Some(held) = self.here().remove(&from) {
            self.here().insert(to, held);
        }
    }

    pub(super) fn copy(&mut self) {
        let (from, to) = (self.key(), self.key());
        if from == to {
            return;
        }
        let replace = self.seed.chance(60);
        let word = if replace { "REPLACE" } else { "" };
        let reply = self.run_knowing(&[&from, &to], &format!("COPY {from} {to} {word}"));
        let done = self.here().contains_key(&from) && (replace || !self.here().contains_key(&to));
        assert_eq!(
            reply,
            Ok(Value::Int(i64::from(done))),
            "COPY {from} {to} {word}"
        );
        if done {
            let held = self.here()[&from].clone();
            self.here().insert(to, held);
        }
    }

    pub(super) fn move_(&mut self) {
        let (key, to) = (self.key(), self.seed.usize(..DATABASES));
        if to == self.db {
            return;
        }
        let reply = self.run_knowing(&[&key], &format!("MOVE {key} {to}"));
        let reply = reply.expect("MOVE answers 0 or 1");
        let blocked = self.databases[to].keys.contains_key(&key);
        if reply == Value::Int(0) {
            assert!(
                blocked || !self.here().contains_key(&key),
                "MOVE {key} {to}: 0"
            );
            return;
        }
        // What blocked it can only have been something dead that is reclaimed by now.
        assert!(!blocked || self.is_dead(to, &key), "MOVE {key} {to}: 1");
        let mut held = self.here().remove(&key).expect("moved, so it was there");
        if let Held::Entry(entry) = &mut held
            && entry.life == Life::Live
            && self.databases[to].outdated(&entry.tags, entry.manual, entry.born)
        {
            entry.life = Life::Open;
        }
        self.databases[to].keys.insert(key, held);
    }

    pub(super) fn overwrite(&mut self) {
        let key = self.key();
        let line = format!("SET {key} text");
        self.note(&line);
        self.redis.ok(&line);
        self.here().insert(key, Held::Foreign);
    }

    pub(super) fn dump(&mut self) {
        let key = self.key();
        let Some(Held::Entry(entry)) = self.here().get(&key).cloned() else {
            return;
        };
        self.note(&format!("DUMP {key}, number {}", self.dumps.len()));
        match self.redis.run(&format!("DUMP {key}")) {
            Value::BulkString(bytes) => {
                let dump = Dump {
                    bytes,
                    db: self.db,
                    entry,
                };
                self.dumps.push(dump);
            }
            nothing => assert!(
                nothing == Value::Nil && self.is_dead(self.db, &key),
                "DUMP {key}: {nothing:?}"
            ),
        }
        if self.dumps.len() > 20 {
            self.dumps.remove(0);
        }
    }

    pub(super) fn restore(&mut self) {
        if self.dumps.is_empty() {
            return;
        }
        let (key, at) = (self.key(), self.seed.usize(..self.dumps.len()));
        self.note(&format!("RESTORE {key} 0 <dump number {at}> REPLACE"));
        let dump = &self.dumps[at];
        let reply = self.redis.try_call(&[
            &b"RESTORE"[..],
            key.as_bytes(),
            b"0",
            &dump.bytes,
            b"REPLACE",
        ]);
        assert_eq!(reply, Ok(Value::Okay), "RESTORE {key}");
        let mut entry = dump.entry.clone();
        if entry.life == Life::Live {
            let outdated = self.databases[self.db].outdated(&entry.tags, entry.manual, entry.born);
            let certain = dump.db == self.db && entry.born >= self.upheaval;
            entry.life = match (outdated, certain) {
                (true, true) => Life::Dead,
                // The memory of invalidations errs towards refusing, so what was invalidated at all may be dead.
                _ if entry.born < self.clock => Life::Open,
                _ => Life::Live,
            };
        }
        self.here().insert(key, Held::Entry(entry));
    }

    pub(super) fn deadline(&mut self) {
        let key = self.key();
        let line = *self
            .seed
            .pick(&["EXPIRE {} -1", "EXPIRE {} 1000", "PERSIST {}"]);
        let past = line.ends_with("-1");
        let line = line.replace("{}", &key);
        self.run_knowing(&[&key], &line).expect("an integer");
        if past {
            self.here().remove(&key);
        }
    }

    pub(super) fn swap(&mut self) {
        let (a, b) = (self.seed.usize(..DATABASES), self.seed.usize(..DATABASES));
        let line = format!("SWAPDB {a} {b}");
        self.note(&line);
        self.redis.ok(&line);
        self.databases.swap(a, b);
        self.upheave();
    }

    pub(super) fn flush(&mut self) {
        let line = *self
            .seed
            .pick(&["FLUSHDB", "FLUSHDB ASYNC", "FLUSHALL", "FLUSHALL ASYNC"]);
        self.note(line);
        self.redis.ok(line);
        for (number, database) in self.databases.iter_mut().enumerate() {
            if number == self.db || line.starts_with("FLUSHALL") {
                database.keys.clear();
            }
        }
        self.upheave();
    }

    pub(super) fn reload(&mut self) {
        self.note("DEBUG RELOAD");
        self.redis.ok("DEBUG RELOAD");
        self.upheave();
    }
}
