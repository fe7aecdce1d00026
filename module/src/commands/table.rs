//! The table of commands, and `MCACHE.HELP`, which prints it.

use std::ffi::{CStr, c_int};

use super::{
    clear, debug, feed, fetch, get, inspect, invalidate, nearget, replicated, scan, set, settle,
    token,
};
use crate::redis::command::{
    Arg, Command, DOUBLE, INTEGER, KEY, Keys, MANY, ONE_OF, OPTIONAL, PATTERN, READS, ROUTES,
    STRING, WRITES, function, reader,
};
use crate::redis::{Args, Ctx};
use mcache_core::error::Error;

const TAGS: Arg = Arg::new(c"tag", STRING).flagged(MANY);
const COUNT: Arg = Arg::new(c"count", INTEGER)
    .after(c"COUNT")
    .flagged(OPTIONAL);

const NEAR: Arg = Arg::new(c"subscription", STRING)
    .after(c"NEAR")
    .flagged(OPTIONAL);
const PREFIX: Arg = Arg::new(c"prefix", STRING)
    .after(c"PREFIX")
    .flagged(OPTIONAL | MANY);

/// Every command.
static COMMANDS: [Command; 23] = [
    Command {
        name: c"mcache.set",
        syntax: "MCACHE.SET key ttl value [SWR seconds] [TOKEN token] [NX|XX] [MANUAL] [NEAR subscription] [TAGS tag [tag ...]]",
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
            NEAR,
            Arg::new(c"tag", STRING).after(c"TAGS").flagged(OPTIONAL | MANY),
        ],
        function: function(set::set),
        subcommands: &[],
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
        function: reader(get::get),
        subcommands: &[],
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
        function: reader(get::mget),
        subcommands: &[],
    },
    Command {
        name: c"mcache.fetch",
        syntax: "MCACHE.FETCH key [brief-ms] [LEASE ms] [WAIT ms] [EARLY ms] [NEAR subscription]",
        summary: c"Returns state, value and token; of all who miss, one is told to fill and the others wait.",
        complexity: c"O(1)",
        flags: c"readonly blocking",
        tips: None,
        arity: -2,
        keys: Keys::One(READS),
        args: &[
            Arg::new(c"key", KEY),
            Arg::new(c"brief-ms", INTEGER).flagged(OPTIONAL),
            Arg::new(c"lease", INTEGER).after(c"LEASE").flagged(OPTIONAL),
            Arg::new(c"wait", INTEGER).after(c"WAIT").flagged(OPTIONAL),
            Arg::new(c"early", INTEGER).after(c"EARLY").flagged(OPTIONAL),
            NEAR,
        ],
        function: reader(fetch::fetch),
        subcommands: &[],
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
        function: reader(fetch::release),
        subcommands: &[],
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
        function: reader(token::token),
        subcommands: &[],
    },
    Command {
        name: c"mcache.invalidate",
        syntax: "MCACHE.INVALIDATE [AUTO] [SOFT] [NEAR] [TAGS] tag [tag ...]",
        summary: c"Makes every entry dead that carries one of the tags; SOFT: stale. AUTO spares entries stored as MANUAL.",
        complexity: c"O(N) with N the number of tags named, however many entries carry them",
        flags: c"write fast",
        tips: Some(c"request_policy:all_shards response_policy:agg_sum"),
        arity: -2,
        keys: Keys::None,
        args: &[
            Arg::word(c"auto", c"AUTO").flagged(OPTIONAL),
            Arg::word(c"soft", c"SOFT").flagged(OPTIONAL),
            Arg::word(c"near", c"NEAR").flagged(OPTIONAL),
            Arg::word(c"tags", c"TAGS").flagged(OPTIONAL),
            TAGS,
        ],
        function: function(invalidate::invalidate),
        subcommands: &[],
    },
    Command {
        name: c"mcache.feed",
        syntax: "MCACHE.FEED NEW|position [WAIT ms] [COUNT n] [PREFIX prefix [prefix ...]] | position END",
        summary: c"Tells a near cache what was invalidated since, and how long it may serve; END gives up.",
        complexity: c"O(N) with N the number of events told",
        flags: c"readonly blocking",
        tips: Some(c"request_policy:special"),
        arity: -2,
        keys: Keys::None,
        args: &[
            Arg::new(c"position", STRING),
            Arg::new(c"wait", INTEGER).after(c"WAIT").flagged(OPTIONAL),
            COUNT,
            PREFIX,
            Arg::word(c"end", c"END").flagged(OPTIONAL),
        ],
        function: function(feed::feed),
        subcommands: &[],
    },
    Command {
        name: c"mcache.nearget",
        syntax: "MCACHE.NEARGET subscription key [key ...]",
        summary: c"Returns the values of live entries and what a near cache needs to keep them, nil for each that is none.",
        complexity: c"O(N) with N the number of keys and their tags",
        flags: c"readonly fast",
        tips: None,
        arity: -3,
        keys: Keys::From(2),
        args: &[
            Arg::new(c"subscription", STRING),
            Arg::new(c"key", KEY).flagged(MANY),
        ],
        function: function(nearget::nearget),
        subcommands: &[],
    },
    Command {
        name: c"mcache.settle",
        syntax: "MCACHE.SETTLE timeout-ms [PREFIX prefix [prefix ...]]",
        summary: c"Waits until no near cache serves what was invalidated so far; returns how many confirmed, ran out, still wait.",
        complexity: c"O(N) with N the number of near caches",
        flags: c"readonly blocking",
        tips: Some(c"request_policy:all_shards response_policy:special"),
        arity: -2,
        keys: Keys::None,
        args: &[Arg::new(c"timeout", INTEGER), PREFIX],
        function: function(settle::settle),
        subcommands: &[],
    },
    Command {
        name: c"mcache.clear",
        syntax: "MCACHE.CLEAR key [key ...]",
        summary: c"Removes keys; fills of them that are under way are refused, and near caches forget them.",
        complexity: c"O(N) with N the number of keys",
        flags: c"write fast",
        tips: Some(c"request_policy:multi_shard response_policy:agg_sum"),
        arity: -2,
        keys: Keys::AllRemoved,
        args: &[Arg::new(c"key", KEY).flagged(MANY)],
        function: function(clear::clear),
        subcommands: &[],
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
        function: reader(inspect::inspect),
        subcommands: &[],
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
        function: reader(scan::tags),
        subcommands: &[],
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
        function: reader(scan::entries),
        subcommands: &[],
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
        function: reader(inspect::taginfo),
        subcommands: &[],
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
        function: reader(help),
        subcommands: &[],
    },
    Command {
        name: c"mcache.debug",
        syntax: "MCACHE.DEBUG SELFCHECK|DRAIN",
        summary: c"Compares index and keyspace, or frees all that is dead. Blocks the server: for tests.",
        complexity: c"Depends on subcommand.",
        flags: c"admin",
        tips: None,
        arity: -2,
        keys: Keys::None,
        args: &[],
        function: None,
        subcommands: &[
            Command {
                name: c"selfcheck",
                syntax: "",
                summary: c"Compares index and keyspace.",
                complexity: c"O(N) with N the number of entries and their tags",
                flags: c"admin",
                tips: None,
                arity: 2,
                keys: Keys::None,
                args: &[],
                function: reader(debug::selfcheck),
                subcommands: &[],
            },
            Command {
                name: c"drain",
                syntax: "",
                summary: c"Frees all that is dead.",
                complexity: c"O(N) with N the number of dead entries and their tags",
                flags: c"write admin",
                tips: None,
                arity: 2,
                keys: Keys::None,
                args: &[],
                function: function(debug::drain),
                subcommands: &[],
            },
            // Redis names it to those who ask for another subcommand.
            Command {
                name: c"help",
                syntax: "",
                summary: c"Returns this text.",
                complexity: c"O(1)",
                flags: c"admin allow-loading allow-stale",
                tips: None,
                arity: 2,
                keys: Keys::None,
                args: &[],
                function: reader(debug_help),
                subcommands: &[],
            },
        ],
    },
    Command {
        name: c"mcache.replset",
        syntax: "",
        summary: c"For replication and the append-only file: a stored entry.",
        complexity: c"O(N) with N the number of tags",
        flags: c"write",
        tips: None,
        arity: -4,
        keys: Keys::One(WRITES),
        args: &[
            Arg::new(c"key", KEY),
            // Value and packed, or end, birth, attributes, value and tags.
            Arg::new(c"word", STRING).flagged(MANY),
        ],
        function: function(replicated::replset),
        subcommands: &[],
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
        subcommands: &[],
    },
    Command {
        name: c"mcache.replfloor",
        syntax: "",
        summary: c"For replication and the append-only file: everything born before an epoch is dead.",
        complexity: c"O(1)",
        flags: c"write",
        tips: None,
        arity: 2,
        keys: Keys::None,
        args: &[Arg::new(c"epoch", INTEGER)],
        function: function(replicated::replfloor),
        subcommands: &[],
    },
    Command {
        name: c"mcache.replflooralong",
        syntax: "",
        summary: c"For the server that slots are on their way to: everything born before an epoch is dead.",
        complexity: c"O(1)",
        flags: c"write",
        tips: None,
        arity: 3,
        keys: Keys::One(ROUTES),
        args: &[Arg::new(c"key", KEY), Arg::new(c"epoch", INTEGER)],
        function: function(replicated::replflooralong),
        subcommands: &[],
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
        subcommands: &[],
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
        args: &[Arg::new(c"key", KEY), Arg::new(c"end-ms", INTEGER)],
        function: function(replicated::replshorten),
        subcommands: &[],
    },
];

/// One slice of reclaim; called by the event loop, and of no use to users.
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
    subcommands: &[],
};

/// Changes nothing: called to learn whether a write would be executed.
static WRITABLE: Command = Command {
    name: c"mcache.writable",
    syntax: "",
    summary: c"Replies OK where a write would be executed.",
    complexity: c"O(1)",
    flags: c"write fast",
    tips: None,
    arity: 1,
    keys: Keys::None,
    args: &[],
    function: function(debug::writable),
    subcommands: &[],
};

/// Bugs on demand, for tests.
static PANICS: [Command; 3] = [
    panics(c"mcache.panic", c"write admin", 1, function(debug::panic)),
    panics(
        c"mcache.panic-reading",
        c"admin",
        1,
        reader(debug::panic_reading),
    ),
    panics(
        c"mcache.panic-later",
        c"admin",
        2,
        reader(debug::panic_later),
    ),
];

const fn panics(
    name: &'static CStr,
    flags: &'static CStr,
    arity: c_int,
    function: redis_module::raw::RedisModuleCmdFunc,
) -> Command {
    Command {
        name,
        syntax: "",
        summary: c"Panics, for tests.",
        complexity: c"O(1)",
        flags,
        tips: None,
        arity,
        keys: Keys::None,
        args: &[],
        function,
        subcommands: &[],
    }
}

/// Every command, those that are not for people included.
pub fn all() -> impl Iterator<Item = &'static Command> {
    let panics = match std::env::var_os(debug::PANICS) {
        Some(_) => &PANICS[..],
        None => &[],
    };
    COMMANDS.iter().chain([&RECLAIM, &WRITABLE]).chain(panics)
}

/// `MCACHE.HELP`
fn help(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    let shown = COMMANDS.iter().filter(|command| !command.syntax.is_empty());
    explain(
        ctx,
        shown.map(|command| (command.syntax.to_owned(), command.summary)),
    );
    Ok(())
}

/// `MCACHE.DEBUG HELP`
fn debug_help(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    let debug = COMMANDS
        .iter()
        .filter(|command| command.name == c"mcache.debug");
    let shown = debug.flat_map(|debug| debug.subcommands);
    explain(
        ctx,
        shown.map(|command| {
            (
                command.name.to_string_lossy().to_uppercase(),
                command.summary,
            )
        }),
    );
    Ok(())
}

/// Replies a line of syntax and a line of meaning for each.
fn explain<'a>(ctx: Ctx<'_>, shown: impl Iterator<Item = (String, &'a CStr)>) {
    let lines: Vec<String> = shown
        .flat_map(|(syntax, summary)| [syntax, format!("    {}", summary.to_string_lossy())])
        .collect();
    ctx.reply_array(lines.len());
    lines
        .iter()
        .for_each(|line| ctx.reply_bytes(line.as_bytes()));
}
