//! Commands: what Redis is told of each, so that cluster clients route it, `redis-cli` hints at its arguments and ACL
//! rules apply to it; and how Redis calls it.

use std::ffi::{CStr, CString, c_int};
use std::ptr::{NonNull, null, null_mut};

use mcache_core::error::Error;
use redis_module::raw;

use super::guard::{guard, guard_reading};
use super::{Args, Ctx, Str, host, rm};

/// How a command uses the keys it names.
#[derive(Clone, Copy)]
pub enum Keys {
    /// It names none.
    None,
    /// The first argument, read or written.
    One(u32),
    /// All arguments, read.
    All,
    /// All arguments, removed.
    AllRemoved,
    /// All arguments from this one on, read.
    From(c_int),
}

/// Reads the key.
pub const READS: u32 = raw::REDISMODULE_CMD_KEY_RO | raw::REDISMODULE_CMD_KEY_ACCESS;
/// Overwrites the key.
pub const WRITES: u32 = raw::REDISMODULE_CMD_KEY_OW | raw::REDISMODULE_CMD_KEY_UPDATE;
/// Named for routing only: nothing of the key is looked at.
pub const ROUTES: u32 = raw::REDISMODULE_CMD_KEY_RO;

/// One argument, for `COMMAND DOCS`.
#[allow(missing_docs)]
pub struct Arg {
    pub name: &'static CStr,
    pub kind: raw::RedisModuleCommandArgType,
    pub token: Option<&'static CStr>,
    pub flags: u32,
    pub choices: &'static [Arg],
}

/// May be left out.
pub const OPTIONAL: u32 = raw::REDISMODULE_CMD_ARG_OPTIONAL;
/// May be given several times.
pub const MANY: u32 = raw::REDISMODULE_CMD_ARG_MULTIPLE;
/// Any bytes.
pub const STRING: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING;
/// A whole number.
pub const INTEGER: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER;
/// A number with decimals.
pub const DOUBLE: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_DOUBLE;
/// The name of a key.
pub const KEY: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY;
/// A glob-style pattern.
pub const PATTERN: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PATTERN;
/// A keyword by itself.
pub const WORD: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN;
/// One of several keywords.
pub const ONE_OF: raw::RedisModuleCommandArgType =
    raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF;

impl Arg {
    /// Begins one, or adds to it.
    pub const fn new(name: &'static CStr, kind: raw::RedisModuleCommandArgType) -> Arg {
        Arg {
            name,
            kind,
            token: None,
            flags: 0,
            choices: &[],
        }
    }
    /// Begins one, or adds to it.
    pub const fn word(name: &'static CStr, token: &'static CStr) -> Arg {
        Arg {
            token: Some(token),
            ..Arg::new(name, WORD)
        }
    }
    /// Begins one, or adds to it.
    pub const fn after(self, token: &'static CStr) -> Arg {
        Arg {
            token: Some(token),
            ..self
        }
    }
    /// Begins one, or adds to it.
    pub const fn flagged(self, flags: u32) -> Arg {
        Arg { flags, ..self }
    }
}

/// What Redis is told of a command.
#[allow(missing_docs)]
pub struct Command {
    pub name: &'static CStr,
    /// For people; empty for commands that are not for them.
    pub syntax: &'static str,
    /// For people.
    pub summary: &'static CStr,
    pub complexity: &'static CStr,
    pub flags: &'static CStr,
    pub tips: Option<&'static CStr>,
    pub arity: c_int,
    pub keys: Keys,
    pub args: &'static [Arg],
    /// Nothing where there are subcommands.
    pub function: raw::RedisModuleCmdFunc,
    pub subcommands: &'static [Command],
}

/// What a command does. An error is the whole reply, and nothing was changed. Function items implement it.
pub trait Handler: for<'a> Fn(Ctx<'a>, Args<'a>) -> Result<(), Error> + Copy + 'static {}

impl<F: for<'a> Fn(Ctx<'a>, Args<'a>) -> Result<(), Error> + Copy + 'static> Handler for F {}

/// The C function that runs a handler inside the guard.
pub const fn function<H: Handler>(_: H) -> raw::RedisModuleCmdFunc {
    const { assert!(size_of::<H>() == 0, "a function item, not a pointer") };
    Some(run::<H, true>)
}

/// The same for a handler that changes no entry and nothing in the index.
pub const fn reader<H: Handler>(_: H) -> raw::RedisModuleCmdFunc {
    const { assert!(size_of::<H>() == 0, "a function item, not a pointer") };
    Some(run::<H, false>)
}

/// # Safety
/// The arguments are those of a call of Redis's.
unsafe extern "C" fn run<H: Handler, const CHANGES: bool>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut Str,
    argc: c_int,
) -> c_int {
    // SAFETY: the caller's promise; and a function item takes no bytes, so there is nothing to read (`function` made
    // sure).
    let (ctx, args, handler) = unsafe {
        let handler = NonNull::<H>::dangling().read();
        (Ctx::new(ctx), Args::new(argv, argc), handler)
    };
    let guard = if CHANGES { guard } else { guard_reading };
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

/// The sizes of the structures below: Redis steps through them by these, so servers with shorter ones read them, too.
/// The header defines this as a static of C, which the bindings declare but no library exports.
static INFO_VERSION: raw::RedisModuleCommandInfoVersion = raw::RedisModuleCommandInfoVersion {
    version: 1,
    sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
    sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
    sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
};

impl Command {
    /// The categories of the ACL it is in: those that follow from its flags, and `own`, the module's, if it is for
    /// applications.
    fn categories(&self, own: Option<&CStr>) -> CString {
        let flags: Vec<&[u8]> = self.flags.to_bytes().split(|b| *b == b' ').collect();
        let has = |flag: &str| flags.contains(&flag.as_bytes());
        let for_people = !self.syntax.is_empty();
        let categories = [
            (has("readonly"), "read"),
            (has("write"), "write"),
            (has("fast"), "fast"),
            (!has("fast"), "slow"),
            (has("blocking"), "blocking"),
            (has("admin"), "admin"),
            (has("admin") || !for_people, "dangerous"),
        ];
        let mut names: Vec<&[u8]> = Vec::new();
        names.extend(
            categories
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, name)| name.as_bytes()),
        );
        names.extend(
            own.filter(|_| for_people && !has("admin"))
                .map(CStr::to_bytes),
        );
        CString::new(names.join(&b' ')).unwrap_or_default()
    }

    /// Tells Redis of it, and of its categories where the server has such for modules (Redis and Valkey 7.2); `None` if
    /// it refuses.
    ///
    /// # Safety
    /// `ctx` is the context of the module's load function.
    pub unsafe fn register(
        &self,
        ctx: *mut raw::RedisModuleCtx,
        own_category: Option<&CStr>,
    ) -> Option<()> {
        let ok = raw::REDISMODULE_OK as c_int;
        let (first, last, step) = self.positions();
        // SAFETY: the caller's promise; C strings, and a function that lives as long as the module.
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
            self.describe(ctx, self.name, own_category)?;
            let parent = rm!(RedisModule_GetCommand)(ctx, self.name.as_ptr());
            self.subcommands.iter().try_for_each(|command| {
                let (first, last, step) = command.positions();
                let created = rm!(RedisModule_CreateSubcommand)(
                    parent,
                    command.name.as_ptr(),
                    command.function,
                    command.flags.as_ptr(),
                    first,
                    last,
                    step,
                );
                if created != ok {
                    return None;
                }
                let name = [self.name.to_bytes(), b"|", command.name.to_bytes()].concat();
                command.describe(ctx, &CString::new(name).ok()?, own_category)
            })
        }
    }

    /// Where its keys are, as Redis asked for them before there were key specs.
    fn positions(&self) -> (c_int, c_int, c_int) {
        match self.keys {
            Keys::None => (0, 0, 0),
            Keys::One(_) => (1, 1, 1),
            Keys::All | Keys::AllRemoved => (1, -1, 1),
            Keys::From(first) => (first, -1, 1),
        }
    }

    /// Tells Redis the rest of it, under the name that it was registered with.
    ///
    /// # Safety
    /// As for [`Command::register`].
    unsafe fn describe(
        &self,
        ctx: *mut raw::RedisModuleCtx,
        name: &CStr,
        own_category: Option<&CStr>,
    ) -> Option<()> {
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
        // SAFETY: everything the structures point to lives until the end of this function, and Redis copies it.
        unsafe {
            let command = rm!(RedisModule_GetCommand)(ctx, name.as_ptr());
            if command.is_null() {
                return None;
            }
            let ok = raw::REDISMODULE_OK as c_int;
            let categories = self.categories(own_category);
            if host::has(&raw const raw::RedisModule_SetCommandACLCategories)
                && rm!(RedisModule_SetCommandACLCategories)(command, categories.as_ptr()) != ok
            {
                return None;
            }
            (rm!(RedisModule_SetCommandInfo)(command, &raw const info) == ok).then_some(())
        }
    }

    /// The key specs with the zeroed one that ends them.
    fn key_specs(&self) -> Vec<raw::RedisModuleCommandKeySpec> {
        let (flags, first, last) = match self.keys {
            Keys::None => return Vec::new(),
            Keys::One(flags) => (flags, 1, 0),
            Keys::All => (READS, 1, -1),
            Keys::AllRemoved => (
                raw::REDISMODULE_CMD_KEY_RM | raw::REDISMODULE_CMD_KEY_DELETE,
                1,
                -1,
            ),
            Keys::From(first) => (READS, first, -1),
        };
        // SAFETY: a C struct of integers, pointers and unions of them: all zeroes is how Redis marks the end.
        let end: raw::RedisModuleCommandKeySpec = unsafe { std::mem::zeroed() };
        let mut spec = end;
        spec.flags = u64::from(flags);
        spec.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
        spec.bs.index.pos = first;
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
