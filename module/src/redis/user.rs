//! Users of the ACL: Redis checks the keys of a command by itself, its tags are ours to check.
//!
//! A user may have *selectors*, each a set of rules by itself, and Redis lets a command through that one of them allows
//! with all its keys. A tag must be covered by such a one, too: a selector that only reads another environment's keys
//! must not help to store under its tags. The API tells what a user may do by any of its selectors, so each of them is
//! made a user of its own, from the text of the rules; the text tells as well whether there are any, which most users
//! have none of.

use std::ffi::{CString, c_int};
use std::ptr::{NonNull, null_mut};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use super::{Args, Ctx, OwnedStr, Str, bytes, host, rm};

/// ENOTSUP of Linux: the one number of errno that is asked for.
const ENOTSUP: i32 = 95;

impl Ctx<'_> {
    /// Whose permissions count for this command; `None` if no user's do (another module's internal call).
    pub fn user(self) -> Option<User> {
        // SAFETY: valid context; the strings and the user made here are freed here or by `User`.
        unsafe {
            let mut name = rm!(RedisModule_GetClientUserNameById)(
                self.raw(),
                rm!(RedisModule_GetClientId)(self.raw()),
            );
            if name.is_null() && self.flags().is_script() {
                // A script's client is not in the table of clients, but it has the caller's user, unless a module
                // called by the script calls us: then it has none, and asking for its name would crash. A call "as
                // the user" of a command that does not exist runs nothing and says which it is.
                let reply = rm!(RedisModule_Call)(self.raw(), c"mcache.".as_ptr(), c"C".as_ptr());
                if !reply.is_null() {
                    rm!(RedisModule_FreeCallReply)(reply);
                } else if std::io::Error::last_os_error().raw_os_error() == Some(ENOTSUP) {
                    return None;
                }
                name = rm!(RedisModule_GetCurrentUserName)(self.raw());
            }
            if name.is_null() {
                return None;
            }
            let user = User::named(name);
            rm!(RedisModule_FreeString)(self.raw(), name);
            user
        }
    }
}

/// A user of the ACL.
pub struct User {
    raw: NonNull<raw::RedisModuleUser>,
    /// Where the server tells a user's rules by name only.
    name: Option<OwnedStr>,
    /// The handle is [`DEFAULT`], which is never freed.
    is_kept: bool,
}

/// The handle of the user `default`, once it was asked for, where the server has the same such user for as long as it
/// runs ([`host::keeps_default_user`]). Other users come and go, and a handle of one that is gone points nowhere.
static DEFAULT: AtomicPtr<raw::RedisModuleUser> = AtomicPtr::new(null_mut());

/// The description of rules that was last found to allow every key. One reference to it is kept here, so no other
/// string can come to be at its address; and Redis makes a new string when rules change, it never changes one.
static ALL_KEYS: AtomicPtr<raw::RedisModuleString> = AtomicPtr::new(null_mut());

/// What is done with a tag.
#[derive(Clone, Copy)]
pub enum Access {
    /// Looked at.
    Read,
    /// Stored under or invalidated.
    Write,
}

impl User {
    fn named(name: Str) -> Option<User> {
        // SAFETY: a valid string.
        let is_default = host::keeps_default_user() && unsafe { bytes(name) } == b"default";
        let kept = match is_default {
            true => NonNull::new(DEFAULT.load(Ordering::Relaxed)),
            false => None,
        };
        let raw = match kept {
            Some(raw) => raw,
            // SAFETY: a valid string; the handle is freed by `User`, or kept.
            None => NonNull::new(unsafe { rm!(RedisModule_GetModuleUserFromUserName)(name) })?,
        };
        if is_default {
            DEFAULT.store(raw.as_ptr(), Ordering::Relaxed);
        }
        let name = match *DESCRIBE {
            Some(_) => None,
            // SAFETY: a valid string.
            None => Some(OwnedStr::new(unsafe { bytes(name) })),
        };
        Some(User {
            raw,
            name,
            is_kept: is_default,
        })
    }

    /// By whose rules a command may go on that Redis lets this user run, in this database if it is known.
    fn permitted(self, ctx: Ctx<'_>, command: &[Str], db: Option<usize>) -> Permitted {
        match self.rules(ctx) {
            Rules::Several(rules) => {
                let mut selectors = selectors(&rules, db);
                selectors.retain(|selector| selector.may_do(command));
                Permitted::Selectors(selectors)
            }
            Rules::AllKeys => Permitted::AllKeys,
            Rules::One => Permitted::User(self),
        }
    }

    /// Whether the user's key patterns cover a name.
    pub fn may(&self, access: Access, name: Str) -> bool {
        let flags = match access {
            Access::Read => raw::REDISMODULE_CMD_KEY_ACCESS,
            Access::Write => raw::REDISMODULE_CMD_KEY_UPDATE,
        };
        // SAFETY: a valid user and a valid string.
        let status = unsafe {
            rm!(RedisModule_ACLCheckKeyPermissions)(self.raw.as_ptr(), name, flags as c_int)
        };
        status == raw::REDISMODULE_OK as c_int
    }
}

/// By whose rules a command that Redis has let through may go on: the user's, or those of the selectors that allow it.
pub enum Permitted {
    /// The user has no selectors and may do everything with every key.
    AllKeys,
    /// The user has no selectors.
    User(User),
    /// Each by itself.
    Selectors(Vec<User>),
}

impl Permitted {
    /// Whether one set of rules covers all the names.
    pub fn all(&self, access: Access, names: &[Str]) -> bool {
        let covers = |user: &User| names.iter().all(|name| user.may(access, *name));
        matches!(self, Permitted::AllKeys) || self.each().iter().any(covers)
    }

    /// The first of the names that no set of rules covers; the first of all if it is their combination.
    pub fn refused(&self, access: Access, names: &[Str]) -> usize {
        let covered = |name: &Str| self.each().iter().any(|user| user.may(access, *name));
        names.iter().position(|name| !covered(name)).unwrap_or(0)
    }

    fn each(&self) -> &[User] {
        match self {
            Permitted::AllKeys => &[],
            Permitted::User(user) => std::slice::from_ref(user),
            Permitted::Selectors(selectors) => selectors,
        }
    }
}

impl Ctx<'_> {
    /// By whose rules this command may go on; `None` if no user's rules count (see [`Ctx::user`]).
    pub fn permitted(self, args: Args<'_>) -> Option<Permitted> {
        Some(self.user()?.permitted(self, args.tail(0), Some(self.db())))
    }

    /// Whether the user may run this command with its keys: for one that was let through a while ago.
    pub fn may_run(self, args: Args<'_>) -> bool {
        (self.user()).is_none_or(|user| user.may_send(self, args.tail(0)))
    }

    /// Whether some user may run this command, and may not do this with all the names: for what does not tell who sent
    /// it.
    pub fn some_sender_lacks(self, command: &[Str], access: Access, names: &[Str]) -> bool {
        let users = super::users(self);
        let mut senders = users
            .iter()
            .filter_map(|name| User::named(name.as_raw()))
            .filter(|user| user.may_send(self, command));
        senders.any(|user| !user.permitted(self, command, None).all(access, names))
    }
}

/// What the rules of a user are like.
enum Rules {
    /// No selectors, and every key.
    AllKeys,
    /// No selectors.
    One,
    /// With selectors: the text.
    Several(Vec<u8>),
}

impl Rules {
    fn of(text: &[u8]) -> Rules {
        match text.ends_with(b")") {
            true => Rules::Several(text.to_vec()),
            false if allows_all_keys(text) => Rules::AllKeys,
            false => Rules::One,
        }
    }
}

type Describe = unsafe extern "C" fn(*mut raw::RedisModuleUser) -> *mut raw::RedisModuleString;

/// What tells the text of a user's rules; Redis 7.0.5 lacks it. With this variable in its environment a server is taken
/// for such a one, so that tests can see what follows.
static DESCRIBE: LazyLock<Option<Describe>> = LazyLock::new(|| {
    // SAFETY: the table is only read.
    let there = unsafe { (&raw const raw::RedisModule_GetModuleUserACLString).read() };
    there.filter(|_| std::env::var_os("MCACHE_TEST_NO_ACL_STRING").is_none())
});

/// Whether a description without selectors says `~*`. Patterns come in the order flags, passwords (in hexadecimal),
/// keys, and where all keys are allowed, that is the one pattern of keys: so the first `~` tells.
fn allows_all_keys(rules: &[u8]) -> bool {
    // SAFETY: within the slice, which is not changed.
    let found = unsafe { libc::memchr(rules.as_ptr().cast(), c_int::from(b'~'), rules.len()) };
    if found.is_null() {
        return false;
    }
    let at = found.addr() - rules.as_ptr().addr();
    let begins_a_word = at.checked_sub(1).is_none_or(|before| rules[before] == b' ');
    begins_a_word && matches!(rules[at + 1..], [b'*'] | [b'*', b' ', ..])
}

impl User {
    /// The rules as ACL LIST shows them, but for the user's name. Redis keeps the text until the rules change; where it
    /// does not tell it, ACL LIST is asked each time, for of a change modules do not hear.
    fn rules(&self, ctx: Ctx<'_>) -> Rules {
        let Some(describe) = *DESCRIBE else {
            let name = self.name.as_ref().map_or(&b""[..], OwnedStr::as_bytes);
            // What cannot be known allows nothing.
            return super::rules_of(ctx, name)
                .map_or(Rules::Several(Vec::new()), |text| Rules::of(&text));
        };
        // SAFETY: a valid user; the reference to the string is ours to give back, or to keep in `ALL_KEYS` in place of
        // the one there.
        unsafe {
            let string = describe(self.raw.as_ptr());
            let mut spare = string;
            let rules = match string == ALL_KEYS.load(Ordering::Relaxed) {
                true => Rules::AllKeys,
                false => Rules::of(bytes(string)),
            };
            if matches!(rules, Rules::AllKeys) {
                spare = ALL_KEYS.swap(string, Ordering::Relaxed);
            }
            if !spare.is_null() {
                rm!(RedisModule_FreeString)(null_mut(), spare);
            }
            rules
        }
    }

    /// Whether the rules allow this command with its keys.
    fn may_do(&self, strings: &[Str]) -> bool {
        // SAFETY: a valid user and valid strings, which Redis does not change.
        let status = unsafe {
            rm!(RedisModule_ACLCheckCommandPermissions)(
                self.raw.as_ptr(),
                strings.as_ptr().cast_mut(),
                strings.len() as c_int,
            )
        };
        status == raw::REDISMODULE_OK as c_int
    }

    /// Whether the rules allow this command with its keys, in whichever database. Of a user who is confined to some
    /// databases (Valkey 9.1) the API says that no command is allowed, since it is not told the database.
    fn may_send(&self, ctx: Ctx<'_>, command: &[Str]) -> bool {
        self.may_do(command)
            || self.text(ctx).is_some_and(|rules| {
                let selectors = selectors(&rules, None);
                names_databases(&rules) && selectors.iter().any(|user| user.may_do(command))
            })
    }

    /// The text of the rules.
    fn text(&self, ctx: Ctx<'_>) -> Option<Vec<u8>> {
        let Some(describe) = *DESCRIBE else {
            return super::rules_of(ctx, self.name.as_ref()?.as_bytes());
        };
        // SAFETY: a valid user; the reference to the string is ours to give back.
        unsafe {
            let string = describe(self.raw.as_ptr());
            let text = bytes(string).to_vec();
            rm!(RedisModule_FreeString)(null_mut(), string);
            Some(text)
        }
    }

    /// A user that is in no table, with these rules.
    fn of(rules: &[&[u8]]) -> Option<User> {
        // SAFETY: a C string; Redis copies it.
        let user = unsafe { rm!(RedisModule_CreateModuleUser)(c"mcache selector".as_ptr()) };
        let user = User {
            raw: NonNull::new(user)?,
            name: None,
            is_kept: false,
        };
        for rule in rules {
            let rule = CString::new(*rule).ok()?;
            // SAFETY: a valid user and a C string. A rule that is not understood allows nothing.
            unsafe { rm!(RedisModule_SetModuleUserACL)(user.raw.as_ptr(), rule.as_ptr()) };
        }
        Some(user)
    }
}

/// Whether a description confines the user to some databases.
fn names_databases(rules: &[u8]) -> bool {
    let mut words = rules.split(|byte| matches!(byte, b' ' | b'(' | b')'));
    words.any(|word| word == b"resetdbs" || word.starts_with(b"db="))
}

/// One set of rules of a user's description.
#[derive(Default)]
struct Set<'a> {
    rules: Vec<&'a [u8]>,
    /// The databases it is about, in decimals; `None`: all.
    databases: Option<Vec<&'a [u8]>>,
}

impl<'a> Set<'a> {
    fn add(&mut self, word: &'a [u8]) {
        // Passwords and flags are not about what a user may do.
        let is_rule = matches!(word.first(), Some(b'~' | b'%' | b'&' | b'+' | b'-'))
            || matches!(
                word,
                b"allkeys" | b"allcommands" | b"nocommands" | b"resetkeys"
            );
        if is_rule {
            self.rules.push(word);
        } else if let Some(databases) = word.strip_prefix(b"db=") {
            let named = self.databases.get_or_insert_default();
            named.extend(databases.split(|byte| *byte == b','));
        } else if word == b"resetdbs" {
            self.databases = Some(Vec::new());
        }
    }

    fn is_about(&self, db: usize) -> bool {
        let db = db.to_string();
        (self.databases.as_ref()).is_none_or(|named| named.contains(&db.as_bytes()))
    }
}

/// The sets of rules in a user's description, each as a user: what stands before the first parenthesis, and in each
/// pair of them. Rules contain no spaces, but a pattern may end with a parenthesis: the one that ends a set is before
/// the next set, or at the end. Those of other databases than the one given are left out.
fn selectors(rules: &[u8], db: Option<usize>) -> Vec<User> {
    let mut sets = vec![Set::default()];
    let mut words = rules.split(|byte| *byte == b' ').peekable();
    while let Some(word) = words.next() {
        let (word, begins) = match word.strip_prefix(b"(") {
            Some(rest) => (rest, true),
            None => (word, false),
        };
        if begins {
            sets.push(Set::default());
        }
        let is_last = words.peek().is_none_or(|next| next.starts_with(b"("));
        let word = match is_last && sets.len() > 1 {
            true => word.strip_suffix(b")").unwrap_or(word),
            false => word,
        };
        if let Some(set) = sets.last_mut() {
            set.add(word);
        }
    }
    sets.retain(|set| db.is_none_or(|db| set.is_about(db)));
    let users = sets.iter().map(|set| User::of(&set.rules));
    users.flatten().collect()
}

impl Drop for User {
    fn drop(&mut self) {
        if !self.is_kept {
            // SAFETY: the handle was made for this user, and is freed once.
            unsafe { rm!(RedisModule_FreeModuleUser)(self.raw.as_ptr()) };
        }
    }
}
