//! An invalidation goes to every primary of a cluster at the same time: two round trips, not two a primary.
//!
//! The primaries are played. Each answers an INVALIDATE, and a SETTLE, only when all of them have got theirs, as if the
//! network were slow: asked one after the other, the first one would never answer.

use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use harness::{resp::read_command, wait::PATIENCE};
use mcache::{Cache, server::RedisOptions};

use crate::support::runtime::run;

const PRIMARIES: usize = 100;
/// Opens when as many have come as there are primaries, and closes behind them.
#[derive(Default)]
struct Gate {
    arrived: Mutex<usize>,
    all: Condvar,
}

impl Gate {
    /// False if the others did not come.
    fn pass(&self) -> bool {
        let mut arrived = self.arrived.lock().expect("the gate");
        let full = (*arrived / PRIMARIES + 1) * PRIMARIES;
        *arrived += 1;
        self.all.notify_all();
        let waited = self
            .all
            .wait_timeout_while(arrived, PATIENCE, |arrived| *arrived < full);
        !waited.expect("the gate").1.timed_out()
    }
}

/// Primaries on ports of this machine, with the slots divided evenly.
struct Played {
    ports: Vec<u16>,
    invalidated: Gate,
    settled: Gate,
    /// What each was asked, in order.
    asked: Mutex<Vec<Vec<String>>>,
}

impl Played {
    fn start() -> Arc<Self> {
        let listeners: Vec<TcpListener> = (0..PRIMARIES)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        let played = Arc::new(Played {
            ports: listeners.iter().map(port).collect(),
            invalidated: Gate::default(),
            settled: Gate::default(),
            asked: Mutex::new(vec![Vec::new(); PRIMARIES]),
        });
        for (number, listener) in listeners.into_iter().enumerate() {
            let played = played.clone();
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let played = played.clone();
                    // It ends with the connection.
                    thread::spawn(move || drop(played.serve(number, client)));
                }
            });
        }
        played
    }

    fn serve(&self, number: usize, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let (mut commands, mut to_client) = (BufReader::new(client.try_clone()?), client);
        loop {
            let words = read_command(&mut commands)?;
            let word = |at: usize| {
                let word = words.get(at).map_or(&b""[..], Vec::as_slice);
                String::from_utf8_lossy(word).to_uppercase()
            };
            let name = match word(0).as_str() {
                "CLUSTER" => format!("CLUSTER {}", word(1)),
                name => name.to_owned(),
            };
            self.asked.lock().expect("the list")[number].push(name.clone());
            let answer = match name.as_str() {
                "CLUSTER SLOTS" => self.slots(),
                "CLUSTER INFO" => {
                    let text = format!(
                        "cluster_state:ok\r\ncluster_current_epoch:7\r\ncluster_size:{PRIMARIES}\r\n"
                    );
                    format!("${}\r\n{text}\r\n", text.len())
                }
                // One entry, and one near cache that has to be waited for.
                "MCACHE.INVALIDATE" if self.invalidated.pass() => {
                    "*3\r\n:1\r\n:1\r\n:60000\r\n".to_owned()
                }
                "MCACHE.SETTLE" if self.settled.pass() => "*3\r\n:1\r\n:0\r\n:0\r\n".to_owned(),
                "MCACHE.INVALIDATE" | "MCACHE.SETTLE" => "-ERR not all were asked\r\n".to_owned(),
                _ => "+OK\r\n".to_owned(),
            };
            to_client.write_all(answer.as_bytes())?;
        }
    }

    fn slots(&self) -> String {
        let mut text = format!("*{PRIMARIES}\r\n");
        for (number, port) in self.ports.iter().enumerate() {
            let first = |number: usize| number * 16_384 / PRIMARIES;
            let (from, to) = (first(number), first(number + 1) - 1);
            text += &format!(
                "*3\r\n:{from}\r\n:{to}\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$2\r\nid\r\n"
            );
        }
        text
    }

    /// What each was asked since the last time.
    fn take_asked(&self) -> Vec<Vec<String>> {
        let mut asked = self.asked.lock().expect("the list");
        std::mem::replace(&mut *asked, vec![Vec::new(); PRIMARIES])
    }
}

#[test]
fn an_invalidation_on_a_hundred_primaries_takes_two_round_trips() {
    let played = Played::start();
    run(async {
        let url = format!("redis+cluster://127.0.0.1:{}", played.ports[0]);
        let options = RedisOptions::default()
            .connect_timeout(PATIENCE)
            .command_deadline(PATIENCE);
        let cache = Cache::builder(url.as_str())
            .redis(options)
            .caching(true)
            .build()
            .await
            .expect("a cache");
        // The first finds the primaries and connects.
        cache.invalidate(["Product:1"]).await.expect("invalidated");
        played.take_asked();
        let done = cache.invalidate(["Product:2"]).await.expect("invalidated");
        let asked = played.take_asked();
        assert!(done.is_acknowledged() && done.is_settled());
        assert_eq!(done.entries(), PRIMARIES as u64);
        let expected = ["MCACHE.INVALIDATE", "CLUSTER INFO", "MCACHE.SETTLE"];
        // A busy machine may lose a connection at rest, or ask whether a server that is slow still lives.
        let beside = |name: &&String| !["CLIENT", "PING"].contains(&name.as_str());
        for (number, asked) in asked.iter().enumerate() {
            let asked: Vec<&String> = asked.iter().filter(beside).collect();
            assert_eq!(asked, expected, "primary {number}");
        }
    });
}
