//! The table of commands: what Redis is told of each, so that cluster clients route it, `redis-cli` hints at its
//! arguments and ACL rules apply to it.

use std::ffi::{CStr, c_int};
use std::ptr::{null, null_mut};

use mcache_core::error::Error;
use redis_module::raw;

use super::{Handler, debug, fetch, get, help, inspect, invalidate, replicated, scan, set, token};
use crate::ffi::api::{Args, Ctx, Str, rm};
use crate::ffi::guard::guard;

/// How a command uses the keys it names.
#[derive(Clone, Copy)]
enum Keys {
    /// It names none.
    None,
    /// The first argument, read or written.
    One(u32),
    /// All arguments, read.
    All,
}

const READS: u32 = raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS;
const WRITES: u32 = raw::REDISMODULE_CMD_KEY_OW | raw::REDISMODULE_CMD_KEY_UPDATE;
/// Named for routing only: nothing of the key is looked at.
const ROUTES: u32 = raw::REDISMODULE_CMD_KEY_RO;

/// One argument, for `COMMAND DOCS`.
struct Arg {
    name: &'static CStr,
    kind: raw::RedisModuleCommandArgType,
    token: Option<&'static CStr>,
    flags: u32,
    choices: &'static [Arg],
}

const OPTIONAL: u32 = raw::REDISMODULE_CMD_ARG_OPTIONAL;
const MANY: u32 = raw::REDISMODULE_CMD_ARG_MULTIPLE;
const STRING: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING;
const INTEGER: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER;
const DOUBLE: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_DOUBLE;
const KEY: raw::RedisModuleCommandArgType = raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY;
const PATTERN: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PATTERN;
const WORD: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN;
const ONE_OF: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF;

impl Arg {
    const fn new(name: &'static CStr, kind: raw::RedisModuleCommandArgType) -> Arg {
        Arg {
            name,
            kind,
            token: None,
            flags: 0,
            choices: &[],
        }
    }
    const fn word(name: &'static CStr, token: &'static CStr) -> Arg {
        Arg {
            token: Some(token),
            ..Arg::new(name, WORD)
        }
    }
    const fn after(self, token: &'static CStr) -> Arg {
        Arg {
            token: Some(token),
            ..self
        }
    }
    const fn flagged(self, flags: u32) -> Arg {
        Arg { flags, ..self }
    }
}

/// What Redis is told of a command.
pub struct Command {
    name: &'static CStr,
    /// For people; empty for commands that are not for them.
    pub syntax: &'static str,
    /// For people.
    pub summary: &'static CStr,
    complexity: &'static CStr,
    flags: &'static CStr,
    tips: Option<&'static CStr>,
    arity: c_int,
    keys: Keys,
    args: &'static [Arg],
    function: raw::RedisModuleCmdFunc,
}

/// A C function that runs a handler inside the guard.
macro_rules! function {
    ($handler:path) => {{
        unsafe extern "C" fn run(
            ctx: *mut raw::RedisModuleCtx,
            argv: *mut Str,
            argc: c_int,
        ) -> c_int {
            // SAFETY: valid during the call.
            unsafe { run_command(ctx, argv, argc, $handler) }
        }
        Some(run)
    }};
}

/// # Safety
/// The arguments are those of a call of Redis's.
#[inline]
unsafe fn run_command(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut Str,
    argc: c_int,
    handler: Handler,
) -> c_int {
    // SAFETY: the caller's promise.
    let (ctx, args) = unsafe { (Ctx::new(ctx), Args::new(argv, argc)) };
    match guard(None, || Some(handler(ctx, args))) {
        Some(Ok(())) => {}
        Some(Err(error)) => refuse(ctx, &error),
        None => ctx.reply_error("ERR internal error; see the server's log"),
    }
    raw::REDISMODULE_OK as c_int
}

#[cold]
fn refuse(ctx: Ctx<'_>, error: &Error) {
    ctx.reply_error(&error.to_string());
}

const TAGS: Arg = Arg::new(c"tag", STRING).flagged(MANY);
const COUNT: Arg = Arg::new(c"count", INTEGER)
    .after(c"COUNT")
    .flagged(OPTIONAL);

/// Every command.
pub static COMMANDS: [Command; 16] = [
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
        function: function!(set::set),
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
        function: function!(get::get),
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
        function: function!(get::mget),
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
        function: function!(fetch::fetch),
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
        function: function!(fetch::release),
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
        function: function!(token::token),
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
        function: function!(invalidate::invalidate),
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
        function: function!(inspect::inspect),
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
        function: function!(scan::tags),
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
        function: function!(scan::entries),
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
        function: function!(inspect::taginfo),
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
        function: function!(help::help),
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
        function: function!(debug::debug),
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
        function: function!(replicated::replset),
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
        function: function!(replicated::replinvalidate),
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
        function: function!(replicated::replshorten),
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
    function: function!(debug::reclaim),
};

/// The sizes of the structures below: Redis steps through them by these, so servers with shorter ones read them, too. The
/// header defines this as a static of C, which the bindings declare but nobody exports.
static INFO_VERSION: raw::RedisModuleCommandInfoVersion = raw::RedisModuleCommandInfoVersion {
    version: 1,
    sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
    sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
    sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
};

/// Tells Redis of every command.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn register(ctx: *mut raw::RedisModuleCtx) -> Result<(), String> {
    COMMANDS.iter().chain([&RECLAIM]).try_for_each(|command| {
        // SAFETY: the caller's promise.
        unsafe { command.register(ctx) }
            .ok_or_else(|| format!("{:?} could not be registered", command.name))
    })
}

impl Command {
    unsafe fn register(&self, ctx: *mut raw::RedisModuleCtx) -> Option<()> {
        let (first, last, step) = match self.keys {
            Keys::None => (0, 0, 0),
            Keys::One(_) => (1, 1, 1),
            Keys::All => (1, -1, 1),
        };
        let mut args = Arguments::of(self.args);
        let mut specs = self.key_specs();
        let info = raw::RedisModuleCommandInfo {
            version: &raw const INFO_VERSION,
            summary: self.summary.as_ptr(),
            complexity: self.complexity.as_ptr(),
            since: c"0.1.0".as_ptr(),
            history: null_mut(),
            tips: self.tips.map_or(null(), CStr::as_ptr),
            arity: self.arity,
            key_specs: if specs.len() > 1 {
                specs.as_mut_ptr()
            } else {
                null_mut()
            },
            args: args.as_mut_ptr(),
        };
        let ok = raw::REDISMODULE_OK as c_int;
        // SAFETY: everything the structures point to lives until the end of this function, and Redis copies it.
        unsafe {
            let created = rm!(RedisModule_CreateCommand)(
                ctx,
                self.name.as_ptr(),
                self.function,
                self.flags.as_ptr(),
                first,
                last,
                step,
            );
            if created != ok {
                return None;
            }
            let command = rm!(RedisModule_GetCommand)(ctx, self.name.as_ptr());
            if command.is_null() {
                return None;
            }
            (rm!(RedisModule_SetCommandInfo)(command, &raw const info) == ok).then_some(())
        }
    }

    /// The key specs with the zeroed one that ends them.
    fn key_specs(&self) -> Vec<raw::RedisModuleCommandKeySpec> {
        let (flags, last) = match self.keys {
            Keys::None => return Vec::new(),
            Keys::One(flags) => (flags, 0),
            Keys::All => (READS, -1),
        };
        // SAFETY: a C struct of integers, pointers and unions of them: all zeroes is how Redis marks the end.
        let end: raw::RedisModuleCommandKeySpec = unsafe { std::mem::zeroed() };
        let mut spec = end;
        spec.flags = u64::from(flags);
        spec.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
        spec.bs.index.pos = 1;
        spec.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE;
        spec.fk.range.lastkey = last;
        spec.fk.range.keystep = 1;
        vec![spec, end]
    }
}

/// Redis's form of a list of arguments, with the lists that it points to.
struct Arguments {
    list: Vec<raw::RedisModuleCommandArg>,
    _inner: Vec<Arguments>,
}

impl Arguments {
    fn of(args: &[Arg]) -> Self {
        // SAFETY: a C struct of integers and pointers: all zeroes is how Redis marks the end.
        let end: raw::RedisModuleCommandArg = unsafe { std::mem::zeroed() };
        let (mut list, mut inner) = (Vec::new(), Vec::new());
        for arg in args {
            let mut choices = Arguments::of(arg.choices);
            list.push(raw::RedisModuleCommandArg {
                name: arg.name.as_ptr(),
                type_: arg.kind,
                key_spec_index: if arg.kind == KEY { 0 } else { -1 },
                token: arg.token.map_or(null(), CStr::as_ptr),
                flags: arg.flags as c_int,
                subargs: if arg.choices.is_empty() {
                    null_mut()
                } else {
                    choices.as_mut_ptr()
                },
                ..end
            });
            inner.push(choices);
        }
        if !list.is_empty() {
            list.push(end);
        }
        Arguments {
            list,
            _inner: inner,
        }
    }

    fn as_mut_ptr(&mut self) -> *mut raw::RedisModuleCommandArg {
        if self.list.is_empty() {
            null_mut()
        } else {
            self.list.as_mut_ptr()
        }
    }
}
