//! The authoritative store: which version of each record is committed, and which one's invalidation is acknowledged.
//!
//! It lives in the test's process and answers one line with one line over a unix socket, so that the truth
//! survives when a worker is killed. A reader asks for the floors *before* it reads, so what they say was acknowledged
//! by then; that is all that the check needs, and no clock is compared.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use harness::ScratchDir;

/// Records, each with a tag of its own.
pub const RECORDS: usize = 8;
/// Keys that are read and written all the time; each is made from two records.
pub const KEYS: usize = 12;
/// The key of the herd, and the record it is made from.
pub const HERD_KEY: usize = KEYS;

/// The versions of the records a value was made from.
pub type Versions = [u32; 2];

/// Which records a key is made from.
pub fn records_of(key: usize) -> [usize; 2] {
    if key == HERD_KEY {
        return [RECORDS, RECORDS];
    }
    [key % RECORDS, (key * 3 + 1) % RECORDS]
}

/// Versions that must not be undercut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floors {
    /// By what is served as live.
    pub live: Versions,
    /// By what is served at all: soft invalidations do not count.
    pub stale: Versions,
}

#[derive(Default)]
struct Records {
    committed: [u32; RECORDS + 1],
    acknowledged: [u32; RECORDS + 1],
    acknowledged_hard: [u32; RECORDS + 1],
    /// Loads under way, by key, with the process that runs them.
    loading: BTreeMap<usize, Vec<u32>>,
    loads: BTreeMap<usize, usize>,
    counts: BTreeMap<String, u64>,
    stale_reads: Vec<String>,
}

#[derive(Default)]
struct Shared {
    records: Mutex<Records>,
    stopped: AtomicBool,
}

/// The store and its socket.
pub struct Store {
    shared: Arc<Shared>,
    dir: ScratchDir,
}

impl Store {
    pub fn open() -> Self {
        let store = Self {
            shared: Arc::default(),
            dir: ScratchDir::new("checker"),
        };
        let listener = UnixListener::bind(store.socket()).expect("a socket");
        let shared = store.shared.clone();
        // Ends with the test's process: it holds nothing that outlives the store.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || shared.serve(connection));
            }
        });
        store
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("store.sock")
    }

    /// From now on readers and writers are told to stop.
    pub fn stop(&self) {
        self.shared.stopped.store(true, SeqCst);
    }

    pub fn floors(&self, key: usize) -> Floors {
        self.shared.records().floors(key)
    }

    pub fn commit(&self, record: usize) -> u32 {
        self.shared.records().commit(record)
    }

    pub fn acknowledge(&self, record: usize, version: u32) {
        self.shared.records().acknowledge(record, version, true);
    }

    /// Loads of a key so far.
    pub fn loads(&self, key: usize) -> usize {
        self.shared.records().loads.get(&key).copied().unwrap_or(0)
    }

    /// The processes that load a key at this moment.
    pub fn loading(&self, key: usize) -> Vec<u32> {
        let records = self.shared.records();
        records.loading.get(&key).cloned().unwrap_or_default()
    }

    pub fn stale_reads(&self) -> Vec<String> {
        self.shared.records().stale_reads.clone()
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.shared.records().counts.clone()
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: UnixStream) {
        let Ok(mut writer) = connection.try_clone() else {
            return;
        };
        // What a worker that dies was loading, it loads no more.
        let mut loading = Vec::new();
        for line in BufReader::new(connection).lines() {
            let Ok(line) = line else { break };
            let answer = self.answer(&line, &mut loading);
            if writer.write_all(format!("{answer}\n").as_bytes()).is_err() {
                break;
            }
        }
        for (key, process) in loading {
            self.records().loaded(key, process);
        }
    }

    fn answer(&self, line: &str, loading: &mut Vec<(usize, u32)>) -> String {
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
        let mut records = self.records();
        match command {
            "floors" if self.stopped.load(SeqCst) => "stop".into(),
            "floors" => {
                let floors = records.floors(number().expect("a key") as usize);
                let [a, b] = floors.live;
                let [c, d] = floors.stale;
                format!("{a} {b} {c} {d}")
            }
            // When nothing is under way any more.
            "rest" => {
                let floors = records.floors(number().expect("a key") as usize);
                let [a, b] = floors.live;
                let [c, d] = floors.stale;
                format!("{a} {b} {c} {d}")
            }
            "resting" => {
                let resting = records.counts.entry("resting".into()).or_default();
                *resting += u64::from(number().expect("a number"));
                resting.to_string()
            }
            "load" => {
                let (key, process) = (number().expect("a key") as usize, number().expect("a pid"));
                loading.push((key, process));
                records.loading.entry(key).or_default().push(process);
                *records.loads.entry(key).or_default() += 1;
                let [a, b] = records_of(key).map(|record| records.committed[record]);
                format!("{a} {b}")
            }
            "loaded" => {
                let (key, process) = (number().expect("a key") as usize, number().expect("a pid"));
                loading.retain(|under_way| *under_way != (key, process));
                records.loaded(key, process);
                "ok".into()
            }
            "commit" if self.stopped.load(SeqCst) => "stop".into(),
            "commit" => {
                let record = number().expect("a record") as usize;
                records.commit(record).to_string()
            }
            "acknowledged" => {
                let (record, version) = (number().expect("a record"), number().expect("a version"));
                let hard = number() == Some(1);
                records.acknowledge(record as usize, version, hard);
                "ok".into()
            }
            "count" => {
                let by = number().expect("a number");
                let what = words.next().unwrap_or_default().to_owned();
                *records.counts.entry(what).or_default() += u64::from(by);
                "ok".into()
            }
            "slowest" => {
                let ms = u64::from(number().expect("milliseconds"));
                let slowest = records.counts.entry("slowest_ms".into()).or_default();
                *slowest = ms.max(*slowest);
                "ok".into()
            }
            "stale" => {
                records.stale_reads.push(line.to_owned());
                "ok".into()
            }
            other => panic!("a worker asks for {other}"),
        }
    }
}

impl Records {
    fn floors(&self, key: usize) -> Floors {
        let of = |versions: &[u32]| records_of(key).map(|record| versions[record]);
        Floors {
            live: of(&self.acknowledged),
            stale: of(&self.acknowledged_hard),
        }
    }

    fn commit(&mut self, record: usize) -> u32 {
        self.committed[record] += 1;
        self.committed[record]
    }

    fn acknowledge(&mut self, record: usize, version: u32, hard: bool) {
        let raise = |to: &mut u32| *to = version.max(*to);
        raise(&mut self.acknowledged[record]);
        if hard {
            raise(&mut self.acknowledged_hard[record]);
        }
    }

    fn loaded(&mut self, key: usize, process: u32) {
        if let Some(under_way) = self.loading.get_mut(&key)
            && let Some(at) = under_way.iter().position(|pid| *pid == process)
        {
            under_way.swap_remove(at);
        }
    }
}
