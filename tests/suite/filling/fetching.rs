//! FETCH as tests send it: what it replies, and clients that wait in it.

use std::thread::{self, JoinHandle};

use harness::{Server, Session, wait};

/// What FETCH replied: state, value, token.
pub type Fetched = (String, Option<String>, Option<String>);

pub fn fetch(redis: &mut Session, line: &str) -> Fetched {
    redis.typed(&format!("MCACHE.FETCH {line}"))
}

pub fn hit(value: &str) -> Fetched {
    ("hit".into(), Some(value.into()), None)
}

pub fn busy() -> Fetched {
    ("busy".into(), None, None)
}

/// The token of a `miss`.
#[track_caller]
pub fn missed(fetched: Fetched) -> String {
    let (state, value, token) = fetched;
    assert_eq!((state.as_str(), value), ("miss", None));
    token.expect("a miss comes with a token")
}

/// A client that fetches on a thread of its own.
pub struct Waiting {
    /// Its CLIENT ID.
    pub id: i64,
    thread: JoinHandle<Ended>,
}

/// How the wait of a client ended.
pub struct Ended {
    /// What it got, or the error.
    pub result: Result<Fetched, String>,
    /// Its connection: a client that holds a lease and disconnects loses it.
    pub session: Session,
}

impl Waiting {
    /// Sends the command and returns when the server has parked the client.
    pub fn park(server: &Server, line: &str) -> Self {
        Self::park_as(server, server.session(), line)
    }

    /// As [`park`](Self::park), over this connection.
    pub fn park_as(server: &Server, mut session: Session, line: &str) -> Self {
        let mut observer = server.session();
        let before = observer.stat("parked_clients");
        let id = session.int("CLIENT ID");
        let line = format!("MCACHE.FETCH {line}");
        let wait = move || {
            let reply = session.try_run(&line);
            let result = reply.map(|value| redis::from_redis_value(value).expect("three parts"));
            Ended { result, session }
        };
        // Some tests have hundreds of them.
        let thread = thread::Builder::new().stack_size(256 * 1024).spawn(wait);
        wait::until("the client is parked", || {
            observer.stat("parked_clients") > before
        });
        Self {
            id,
            thread: thread.expect("a thread"),
        }
    }

    pub fn ended(self) -> Ended {
        self.thread.join().expect("the client got a reply")
    }

    pub fn result(self) -> Result<Fetched, String> {
        self.ended().result
    }

    #[track_caller]
    pub fn fetched(self) -> Fetched {
        self.result().expect("no error")
    }

    /// What it got, and its connection.
    #[track_caller]
    pub fn connected(self) -> (Fetched, Session) {
        let ended = self.ended();
        (ended.result.expect("no error"), ended.session)
    }
}
