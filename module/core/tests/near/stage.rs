//! A stage for directed histories: servers and processes whose every step is taken by hand.

use mcache_core::feed::{Prefixes, Settings, Settled, SlotSet, Waits};
use mcache_core::near::{Answer, Asked, Kept, Own, OwnId, Sent};

use crate::cache::NearCache;
use crate::clock::Clock;
use crate::node::{Handle, Near, Node, Reply, Request};
use crate::world::{Key, Kind, Tag, Value, key_name, tag_name};

/// Histories begin here, when no predecessor is waited for any more, in microseconds.
pub const BEGINNING: u64 = 10_000_000;
pub const SECOND: u64 = 1_000_000;
/// How long a lease of one second is waited for.
pub const LEASE: u64 = 1_020_001;

pub const SETTINGS: Settings = Settings {
    on: true,
    lease_ms: 1_000,
    bytes: 100_000,
    subscribers: 4,
};

pub fn server(seed: u64) -> Node {
    server_since(seed, 0)
}

/// A server that has just started.
pub fn server_since(seed: u64, now_us: u64) -> Node {
    let mut slots = SlotSet::default();
    slots.add(0, 16_383);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut node = Node::new(&mut rng, Clock::exact(), SETTINGS, slots, now_us);
    if now_us == 0 {
        // It has run since, and no process subscribed.
        for ran_us in (0..BEGINNING).step_by(100_000) {
            node.feed.alive(ran_us);
        }
    }
    node
}

/// What a server replies at once.
pub fn ask(node: &mut Node, request: Request, now_us: u64) -> Reply {
    node.execute(0, request, now_us).expect("not parked")
}

/// Time passes, and nothing happens but that the server runs.
pub fn pass(node: &mut Node, from_us: u64, to_us: u64) {
    for now_us in (from_us..to_us).step_by(100_000) {
        assert!(node.run(now_us).is_empty());
    }
    node.run(to_us);
}

pub fn invalidate(node: &mut Node, tags: &[Tag], now_us: u64) -> Waits {
    let request = Request::Invalidate {
        tags: tags.to_vec(),
        kind: Kind::Hard,
    };
    match ask(node, request, now_us) {
        Reply::Acknowledged(waits) => waits,
        other => panic!("{other:?}"),
    }
}

/// Sends SETTLE, with all the patience in the world; `None` if it is parked.
pub fn settle(node: &mut Node, handle: Handle, now_us: u64) -> Option<Settled> {
    settle_some(node, handle, Prefixes::all(), now_us)
}

pub fn settle_some(
    node: &mut Node,
    handle: Handle,
    prefixes: Prefixes,
    now_us: u64,
) -> Option<Settled> {
    let request = Request::Settle {
        timeout_us: 60 * SECOND,
        prefixes,
    };
    node.execute(handle, request, now_us)
        .map(|reply| match reply {
            Reply::Settled(state) => state,
            other => panic!("{other:?}"),
        })
}

/// What the parked SETTLE of this handle is told by now.
pub fn settled(node: &mut Node, handle: Handle, now_us: u64) -> Option<Settled> {
    let replies = node.run(now_us).into_iter();
    replies
        .filter(|(to, _)| *to == handle)
        .map(|(_, reply)| match reply {
            Reply::Settled(state) => state,
            other => panic!("{other:?}"),
        })
        .next()
}

pub const fn state(confirmed: u64, ran_out: u64, waiting: u64) -> Settled {
    Settled {
        confirmed,
        ran_out,
        waiting,
    }
}

/// A process with a near cache, whose clock keeps time.
pub struct Client {
    pub cache: NearCache,
    pub prefixes: Prefixes,
    random: u64,
}

impl Client {
    pub fn new(random: u64) -> Self {
        Client {
            cache: NearCache::default(),
            prefixes: Prefixes::all(),
            random,
        }
    }

    /// A process that has subscribed at this moment.
    pub fn subscribed(node: &mut Node, random: u64, now_us: u64) -> Self {
        let mut client = Client::new(random);
        client.feed(node, now_us);
        client
    }

    pub fn sent(&mut self, now_us: u64) -> Sent {
        self.cache.view(0).call(now_us / 1_000)
    }

    fn request(&mut self, sent: &Sent, wait_us: u64, count: usize) -> Request {
        self.random += 1 << 32;
        Request::Feed {
            position: sent.position.as_ref().map(|position| position.to_vec()),
            prefixes: self.prefixes.clone(),
            wait_us,
            count,
            random: self.random,
        }
    }

    /// The server executes a call; its answer is on its way. `None` if it refuses.
    pub fn executed(&mut self, sent: &Sent, node: &mut Node, now_us: u64) -> Option<Answer> {
        self.executed_up_to(sent, node, 1_000, now_us)
    }

    pub fn executed_up_to(
        &mut self,
        sent: &Sent,
        node: &mut Node,
        count: usize,
        now_us: u64,
    ) -> Option<Answer> {
        let request = self.request(sent, 0, count);
        match ask(node, request, now_us) {
            Reply::Fed(answer) => Some(answer),
            Reply::Refused => None,
            other => panic!("{other:?}"),
        }
    }

    /// A call that is parked under this handle.
    pub fn parked(&mut self, node: &mut Node, handle: Handle, wait_us: u64, now_us: u64) -> Sent {
        let sent = self.sent(now_us);
        let request = self.request(&sent, wait_us, 1_000);
        let reply = node.execute(handle, request, now_us);
        assert!(reply.is_none(), "{reply:?}");
        sent
    }

    pub fn answered(&mut self, sent: &Sent, answer: Answer) {
        let changes = self.cache.view(0).answered(sent, answer);
        self.cache.apply(0, changes);
    }

    /// A whole call in no time.
    pub fn feed(&mut self, node: &mut Node, now_us: u64) {
        let sent = self.sent(now_us);
        let answer = self.executed(&sent, node, now_us).expect("granted");
        self.answered(&sent, answer);
    }

    pub fn asked(&mut self, now_us: u64) -> Asked {
        self.cache
            .view(0)
            .ask(now_us / 1_000)
            .expect("it has subscribed")
    }

    /// Stores a value and puts it away.
    pub fn fill(&mut self, node: &mut Node, key: Key, value: Value, now_us: u64) {
        let asked = self.asked(now_us);
        let request = Request::Set {
            key,
            value,
            token: None,
            near: Some(asked.position.to_vec()),
        };
        match ask(node, request, now_us) {
            Reply::Stored(Some(near)) => {
                self.put(&asked, key, value, near).expect("put away");
            }
            other => panic!("{other:?}"),
        }
    }

    /// The server executes a read for the near cache; its reply is on its way.
    pub fn fetched(
        &mut self,
        asked: &Asked,
        node: &mut Node,
        key: Key,
        now_us: u64,
    ) -> (Value, Option<Near>) {
        let near = Some(asked.position.to_vec());
        match ask(node, Request::Fetch { key, near }, now_us) {
            Reply::Hit(value, near) => (value, near),
            other => panic!("{other:?}"),
        }
    }

    pub fn put(&mut self, asked: &Asked, key: Key, value: Value, near: Near) -> Result<(), Kept> {
        self.cache.put(0, asked, key, value, near)
    }

    pub fn get(&self, key: Key, now_us: u64) -> Option<Value> {
        self.cache.get(key, now_us / 1_000)
    }

    /// It is about to invalidate a tag.
    pub fn invalidating(&mut self, tag: Tag) -> OwnId {
        let own = Own::Tags(vec![tag_name(tag).into()]);
        let (id, changes) = self.cache.view(0).invalidating(own);
        self.cache.apply(0, changes);
        id
    }

    /// It is about to change a key.
    pub fn changing(&mut self, key: Key) -> OwnId {
        let own = Own::Keys(vec![key_name(key).into()]);
        let (id, changes) = self.cache.view(0).invalidating(own);
        self.cache.apply(0, changes);
        id
    }

    pub fn acknowledged(&mut self, id: OwnId) {
        let changes = self.cache.view(0).acknowledged(id);
        self.cache.apply(0, changes);
    }
}
