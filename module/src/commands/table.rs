//! The table of commands, and `MCACHE.HELP`, which prints it.

use super::{debug, fetch, get, inspect, invalidate, replicated, scan, set, token};
use crate::redis::command::{
    Arg, Command, DOUBLE, INTEGER, KEY, Keys, MANY, ONE_OF, OPTIONAL, PATTERN, READS, ROUTES,
    STRING, WRITES, function,
};
use crate::redis::{Args, Ctx};
use mcache_core::error::Error;

const TAGS: Arg = Arg::new(c"tag", STRING).flagged(MANY);
const COUNT: Arg = Arg::new(c"count", INTEGER)
    .after(c"COUNT")
    .flagged(OPTIONAL);

/// Every command.
static COMMANDS: [Command; 17] = [
    Command {
        name: c"mcache.set",
        syntax: "MCACHE.SET key ttl value [SWR seconds] [TOKEN token] [NX|XX] [MANUAL] [TAGS tag [tag ...]]",
        summary: c"Stores a value with its tags. ttl in seconds, 0 for none.",
        complexity: c"O(N) with N the number of tags",
        flags: c"write deny-oom",
        tips: None,
        arity: -4,
        keys: Keys::One(WRITES),
        args: &[
            Arg::new(c"key", KEY),
            Arg::new(c"ttl", DOUBLE),
            Arg::new(c"value", STRING),
            Arg::new(c"swr", DOUBLE).after(c"SWR").flagged(OPTIONAL),
            Arg::new(c"token", STRING).after(c"TOKEN").flagged(OPTIONAL),
            Arg {
                choices: &[Arg::word(c"nx", c"NX"), Arg::word(c"xx", c"XX")],
                ..Arg::new(c"condition", ONE_OF).flagged(OPTIONAL)
            },
            Arg::word(c"manual", c"MANUAL").flagged(OPTIONAL),
            Arg::new(c"tag", STRING).after(c"TAGS").flagged(OPTIONAL | MANY),
        ],
        function: function(set::set),
    },
    Command {
        name: c"mcache.get",
        syntax: "MCACHE.GET key",
        summary: c"Returns the value of a live entry, or nil.",
        complexity: c"O(1); once per entry after a large invalidation O(N) with N the number of its tags",
        flags: c"readonly fast",
        tips: None,
        arity: 2,
        keys: Keys::One(READS),
        args: &[Arg::new(c"key", KEY)],
        function: function(get::get),
    },
    Command {
        name: c"mcache.mget",
        syntax: "MCACHE.MGET key [key ...]",
        summary: c"Returns the values of live entries, nil for each that is none.",
        complexity: c"O(N) with N the number of keys",
        flags: c"readonly fast",
        tips: None,
        arity: -2,
        keys: Keys::All,
        args: &[Arg::new(c"key", KEY).flagged(MANY)],
        function: function(get::mget),
    },
    Command {
        name: c"mcache.fetch",
        syntax: "MCACHE.FETCH key [LEASE ms] [WAIT ms] [EARLY ms]",
        summary: c"Returns state, value and token; of all who miss, one is told to fill and the others wait.",
        complexity: c"O(1)",
        flags: c"readonly blocking",
        tips: None,
        arity: -2,
        keys: Keys::One(READS),
        args: &[
            Arg::new(c"key", KEY),
            Arg::new(c"lease", INTEGER).after(c"LEASE").flagged(OPTIONAL),
            Arg::new(c"wait", INTEGER).after(c"WAIT").flagged(OPTIONAL),
            Arg::new(c"early", INTEGER).after(c"EARLY").flagged(OPTIONAL),
        ],
        function: function(fetch::fetch),
    },
    Command {
        name: c"mcache.release",
        syntax: "MCACHE.RELEASE key token",
        summary: c"Gives a lease back: the fill failed, let the next one try.",
        complexity: c"O(1)",
        flags: c"readonly fast",
        tips: None,
        arity: 3,
        keys: Keys::One(ROUTES),
        args: &[Arg::new(c"key", KEY), Arg::new(c"token", STRING)],
        function: function(fetch::release),
    },
    Command {
        name: c"mcache.token",
        syntax: "MCACHE.TOKEN key",
        summary: c"Returns a token for a fill that begins now.",
        complexity: c"O(1)",
        flags: c"readonly fast",
        tips: None,
        arity: 2,
        keys: Keys::One(ROUTES),
        args: &[Arg::new(c"key", KEY)],
        function: function(token::token),
    },
    Command {
        name: c"mcache.invalidate",
        syntax: "MCACHE.INVALIDATE [AUTO] [SOFT] [TAGS] tag [tag ...]",
        summary: c"Makes every entry dead that carries one of the tags; SOFT: stale. AUTO spares entries stored as MANUAL.",
        complexity: c"O(N) with N the number of tags named, however many entries carry them",
        flags: c"write fast",
        tips: Some(c"request_policy:all_shards response_policy:agg_sum"),
        arity: -2,
        keys: Keys::None,
        args: &[
            Arg::word(c"auto", c"AUTO").flagged(OPTIONAL),
            Arg::word(c"soft", c"SOFT").flagged(OPTIONAL),
            Arg::word(c"tags", c"TAGS").flagged(OPTIONAL),
            TAGS,
        ],
        function: function(invalidate::invalidate),
    },
    Command {
        name: c"mcache.inspect",
        syntax: "MCACHE.INSPECT key",
        summary: c"Returns what is known of an entry, and why it is dead if it is.",
        complexity: c"O(N) with N the number of its tags",
        flags: c"readonly",
        tips: None,
        arity: 2,
        keys: Keys::One(READS),
        args: &[Arg::new(c"key", KEY)],
        function: function(inspect::inspect),
    },
    Command {
        name: c"mcache.tags",
        syntax: "MCACHE.TAGS cursor [MATCH pattern] [COUNT n]",
        summary: c"Iterates over the tags and their numbers of entries.",
        complexity: c"O(N) for every call with N the COUNT",
        flags: c"readonly",
        tips: Some(c"request_policy:special"),
        arity: -2,
        keys: Keys::None,
        args: &[
            Arg::new(c"cursor", INTEGER),
            Arg::new(c"pattern", PATTERN).after(c"MATCH").flagged(OPTIONAL),
            COUNT,
        ],
        function: function(scan::tags),
    },
    Command {
        name: c"mcache.entries",
        syntax: "MCACHE.ENTRIES tag cursor [COUNT n]",
        summary: c"Iterates over the keys of the entries that carry a tag.",
        complexity: c"O(N) for every call with N the COUNT",
        flags: c"readonly",
        tips: Some(c"request_policy:special"),
        arity: -3,
        keys: Keys::None,
        args: &[Arg::new(c"tag", STRING), Arg::new(c"cursor", INTEGER), COUNT],
        function: function(scan::entries),
    },
    Command {
        name: c"mcache.taginfo",
        syntax: "MCACHE.TAGINFO tag",
        summary: c"Returns the number and size of a tag's entries and when it was last invalidated.",
        complexity: c"O(1)",
        flags: c"readonly",
        tips: Some(c"request_policy:all_shards response_policy:special"),
        arity: 2,
        keys: Keys::None,
        args: &[Arg::new(c"tag", STRING)],
        function: function(inspect::taginfo),
    },
    Command {
        name: c"mcache.help",
        syntax: "MCACHE.HELP",
        summary: c"Returns this text.",
        complexity: c"O(1)",
        flags: c"readonly allow-loading allow-stale",
        tips: None,
        arity: 1,
        keys: Keys::None,
        args: &[],
        function: function(help),
    },
    Command {
        name: c"mcache.debug",
        syntax: "MCACHE.DEBUG SELFCHECK|DRAIN",
        summary: c"Compares index and keyspace, or frees all that is dead. Blocks the server: for tests.",
        complexity: c"O(N) with N the number of entries and their tags",
        flags: c"admin",
        tips: None,
        arity: 2,
        keys: Keys::None,
        args: &[Arg {
            choices: &[Arg::word(c"selfcheck", c"SELFCHECK"), Arg::word(c"drain", c"DRAIN")],
            ..Arg::new(c"subject", ONE_OF)
        }],
        function: function(debug::debug),
    },
    Command {
        name: c"mcache.replset",
        syntax: "",
        summary: c"For replication and the append-only file: a stored entry.",
        complexity: c"O(N) with N the number of tags",
        flags: c"write",
        tips: None,
        arity: -6,
        keys: Keys::One(WRITES),
        args: &[
            Arg::new(c"key", KEY),
            Arg::new(c"deadline-ms", INTEGER),
            Arg::new(c"birth", INTEGER),
            Arg::new(c"attributes", INTEGER),
            Arg::new(c"value", STRING),
            Arg::new(c"tag", STRING).flagged(OPTIONAL | MANY),
        ],
        function: function(replicated::replset),
    },
    Command {
        name: c"mcache.replinvalidate",
        syntax: "",
        summary: c"For replication and the append-only file: an invalidation.",
        complexity: c"O(N) with N the number of tags",
        flags: c"write",
        tips: None,
        arity: -4,
        keys: Keys::None,
        args: &[Arg::new(c"epoch", INTEGER), Arg::new(c"mode", INTEGER), TAGS],
        function: function(replicated::replinvalidate),
    },
    Command {
        name: c"mcache.replinvalidatealong",
        syntax: "",
        summary: c"For the server that slots are on their way to: an invalidation.",
        complexity: c"O(N) with N the number of tags",
        flags: c"write",
        tips: None,
        arity: -5,
        keys: Keys::One(ROUTES),
        args: &[
            Arg::new(c"key", KEY),
            Arg::new(c"epoch", INTEGER),
            Arg::new(c"mode", INTEGER),
            TAGS,
        ],
        function: function(replicated::replinvalidatealong),
    },
    Command {
        name: c"mcache.replshorten",
        syntax: "",
        summary: c"For replication and the append-only file: a shorter deadline.",
        complexity: c"O(N) with N the number of tags",
        flags: c"write",
        tips: None,
        arity: 3,
        keys: Keys::One(WRITES),
        args: &[Arg::new(c"key", KEY), Arg::new(c"deadline-ms", INTEGER)],
        function: function(replicated::replshorten),
    },
];

/// One slice of reclaim; called by the event loop, and of no use to anybody else.
static RECLAIM: Command = Command {
    name: c"mcache.reclaim",
    syntax: "",
    summary: c"Frees dead entries for at most mcache.reclaim-budget-us.",
    complexity: c"O(N) with N the number of entries freed",
    flags: c"write admin",
    tips: None,
    arity: 1,
    keys: Keys::None,
    args: &[],
    function: function(debug::reclaim),
};

/// Every command, those that are not for people included.
pub fn all() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().chain([&RECLAIM])
}

/// `MCACHE.HELP`: a line of syntax and a line of meaning for each command.
fn help(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    let shown: Vec<_> = COMMANDS
        .iter()
        .filter(|command| !command.syntax.is_empty())
        .collect();
    ctx.reply_array(shown.len() * 2);
    for command in shown {
        ctx.reply_bytes(command.syntax.as_bytes());
        ctx.reply_bytes(format!("    {}", command.summary.to_string_lossy()).as_bytes());
    }
    Ok(())
}
