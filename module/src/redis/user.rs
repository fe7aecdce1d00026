//! Users of the ACL: Redis checks the keys of a command by itself, its tags are ours to check.

use std::ffi::c_int;
use std::ptr::NonNull;

use redis_module::raw;

use super::{Ctx, Str, rm};

/// ENOTSUP of Linux: the one number of errno that is asked for.
const ENOTSUP: i32 = 95;

impl Ctx<'_> {
    /// Whose permissions count for this command; `None` if nobody's do (another module's internal call).
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
            let user = rm!(RedisModule_GetModuleUserFromUserName)(name);
            rm!(RedisModule_FreeString)(self.raw(), name);
            NonNull::new(user).map(User)
        }
    }
}

/// A user of the ACL.
pub struct User(NonNull<raw::RedisModuleUser>);

/// What is done with a tag.
#[derive(Clone, Copy)]
pub enum Access {
    /// Looked at.
    Read,
    /// Stored under or invalidated.
    Write,
}

impl User {
    /// Whether the user's key patterns cover a name.
    pub fn may(&self, access: Access, name: Str) -> bool {
        let flags = match access {
            Access::Read => raw::REDISMODULE_CMD_KEY_ACCESS,
            Access::Write => raw::REDISMODULE_CMD_KEY_UPDATE,
        };
        // SAFETY: a valid user and a valid string.
        let status = unsafe {
            rm!(RedisModule_ACLCheckKeyPermissions)(self.0.as_ptr(), name, flags as c_int)
        };
        status == raw::REDISMODULE_OK as c_int
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // SAFETY: made by `Ctx::user`, freed once.
        unsafe { rm!(RedisModule_FreeModuleUser)(self.0.as_ptr()) };
    }
}
