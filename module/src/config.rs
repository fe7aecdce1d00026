//! The options: name, default, bounds, meaning. Each can be given at load and changed at run time.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};

use mcache_core::command::Limits;
use mcache_core::feed::Settings;
use redis_module::configuration::{
    ConfigurationContext, ConfigurationFlags, ConfigurationValue, EnumConfigurationValue,
    register_bool_configuration, register_enum_configuration, register_i64_configuration,
};
use redis_module::{Context, RedisError, RedisString};

use crate::redis::{self, guard::guard};
use crate::state;

/// An integer option. All but `name` are in the option's own unit, which the name ends with.
pub struct Number {
    /// The name behind `mcache.`.
    pub name: &'static str,
    /// What it is unless it is set.
    pub default: i64,
    /// Smallest value.
    pub min: i64,
    /// Largest value.
    pub max: i64,
    /// What it is now.
    pub value: AtomicI64,
    /// What is to be done when it changed.
    changed: Option<fn()>,
}

impl Number {
    const fn new(name: &'static str, default: i64, min: i64, max: i64) -> Self {
        Number {
            name,
            default,
            min,
            max,
            value: AtomicI64::new(default),
            changed: None,
        }
    }

    const fn changing(self, changed: fn()) -> Self {
        Number {
            changed: Some(changed),
            ..self
        }
    }

    fn get(&self) -> usize {
        self.value.load(Ordering::Relaxed) as usize
    }
}

static NUMBERS: [&Number; 10] = [
    &FEED_BYTES,
    &NEAR_LEASE_MS,
    &MAX_SUBSCRIBERS,
    &LEASE_MS,
    &MAX_WAITERS,
    &RECLAIM_BUDGET_US,
    &RECLAIM_INLINE_MAX,
    &MAX_TAGS,
    &MAX_TAG_BYTES,
    &INVALIDATION_MEMORY_TAGS,
];

/// Registers the options; those among the module's arguments (`name value ...`) take the place of the defaults. There a
/// name may begin with `mcache.` as it does everywhere else.
///
/// # Errors
/// An argument that is not an option, or a value that it cannot have.
pub fn register(ctx: &Context, args: &[RedisString]) -> Result<(), String> {
    let given = Given::read(args)?;
    for number in NUMBERS {
        register_i64_configuration(
            ctx,
            number.name,
            &number.value,
            given.number(number)?,
            number.min,
            number.max,
            ConfigurationFlags::DEFAULT,
            number
                .changed
                .map(|changed| Box::new(move |_: &_, _: &_, _: &_| guard((), changed)) as Box<_>),
        );
    }
    register_enum_configuration(
        ctx,
        ON_RESTART_NAME,
        &ON_RESTART,
        given.choice(ON_RESTART_NAME, OnRestart::Drop)?,
        ConfigurationFlags::DEFAULT,
        None,
    );
    register_enum_configuration(
        ctx,
        ON_PROMOTE_NAME,
        &ON_PROMOTE,
        given.choice(ON_PROMOTE_NAME, OnPromote::Keep)?,
        ConfigurationFlags::DEFAULT,
        None,
    );
    register_enum_configuration(
        ctx,
        FEED_NAME,
        &FEED,
        given.choice(FEED_NAME, Switch::No)?,
        ConfigurationFlags::DEFAULT,
        Some(Box::new(|_: &_, _: &_, _: &_| guard((), apply_feed))),
    );
    register_bool_configuration(
        ctx,
        ACCEPT,
        &ACCEPT_VALKEY_8_1,
        given.choice(ACCEPT, Switch::No)? == Switch::Yes,
        ConfigurationFlags::IMMUTABLE,
        None,
    );
    Ok(())
}

/// The options among the module's arguments. As in a configuration file, upper and lower case are the same, and of
/// what is given twice the last counts.
struct Given(Vec<(String, String)>);

impl Given {
    /// A misspelt option must not be ignored in silence.
    fn read(args: &[RedisString]) -> Result<Self, String> {
        let given = args.chunks(2).map(|pair| {
            let written = pair[0].to_string_lossy().to_ascii_lowercase();
            let name = written.strip_prefix("mcache.").unwrap_or(&written);
            let known = NUMBERS.iter().any(|number| number.name == name)
                || [ON_RESTART_NAME, ON_PROMOTE_NAME, FEED_NAME, ACCEPT].contains(&name);
            if !known {
                return Err(format!("unknown option '{name}'"));
            }
            match pair.get(1) {
                Some(value) => Ok((name.to_owned(), value.to_string_lossy())),
                None => Err(format!("{name} needs a value")),
            }
        });
        given.collect::<Result<_, _>>().map(Given)
    }

    fn find(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().rev();
        found
            .find(|(given, _)| given == name)
            .map(|(_, value)| &**value)
    }

    fn number(&self, of: &Number) -> Result<i64, String> {
        let Some(value) = self.find(of.name) else {
            return Ok(of.default);
        };
        let within = |number: &i64| (of.min..=of.max).contains(number);
        value.parse().ok().filter(within).ok_or_else(|| {
            format!(
                "{} must be an integer between {} and {}, got '{value}'",
                of.name, of.min, of.max
            )
        })
    }

    fn choice<T: EnumConfigurationValue>(&self, name: &str, default: T) -> Result<T, String> {
        let Some(value) = self.find(name) else {
            return Ok(default);
        };
        let (words, numbers) = default.get_options();
        let place = words
            .iter()
            .position(|word| word.eq_ignore_ascii_case(value));
        place
            .and_then(|place| T::try_from(numbers[place]).ok())
            .ok_or_else(|| format!("{name} must be {}, got '{value}'", words.join(" or ")))
    }
}

/// Longest slice of reclaim in microseconds, and so the longest that it delays a client.
pub static RECLAIM_BUDGET_US: Number = Number::new("reclaim-budget-us", 100, 20, 100_000);
/// An invalidation of up to so many entries frees them at once.
pub static RECLAIM_INLINE_MAX: Number = Number::new("reclaim-inline-max", 64, 0, 10_000);
/// Most tags in one command.
pub static MAX_TAGS: Number = Number::new("max-tags", 4096, 1, mcache_core::entry::MAX_TAGS as i64);
/// Longest tag in bytes.
pub static MAX_TAG_BYTES: Number = Number::new(
    "max-tag-bytes",
    1024,
    1,
    mcache_core::entry::MAX_TAG_BYTES as i64,
);

/// How long a lease lasts unless FETCH says otherwise.
pub static LEASE_MS: Number = Number::new("lease-ms", 5_000, 1, MAX_MS as i64);
/// Most clients parked at once.
pub static MAX_WAITERS: Number = Number::new("max-waiters", 10_000, 0, 1_000_000);

/// How many invalidated tags are remembered exactly. The default takes 0.46 MB.
pub static INVALIDATION_MEMORY_TAGS: Number = Number::new(
    "invalidation-memory-tags",
    16_384,
    64,
    mcache_core::memory::MAX_TAGS as i64,
)
.changing(apply_invalidation_memory);

/// Most bytes of the feed's log. A subscription that is further behind than that forgets everything and begins anew.
pub static FEED_BYTES: Number =
    Number::new("feed-bytes", 1 << 20, 16 << 10, 1 << 30).changing(apply_feed);
/// How long a near cache may serve without having heard from the server, and how long an invalidation waits for one
/// that is gone.
pub static NEAR_LEASE_MS: Number = Number::new(
    "near-lease-ms",
    1_000,
    mcache_core::feed::lease::SHORTEST_MS as i64,
    mcache_core::feed::lease::LONGEST_MS as i64,
)
.changing(apply_feed);
/// Most near caches; one more is refused.
pub static MAX_SUBSCRIBERS: Number =
    Number::new("max-subscribers", 256, 1, 4_096).changing(apply_feed);

/// Has the feed do what its options say.
pub fn apply_feed() {
    let now_us = redis::boot_us();
    state::with(|s| s.feed.configure(feed_settings(), now_us));
}

/// What the feed's options say.
pub fn feed_settings() -> Settings {
    Settings {
        on: Switch::try_from(FEED.value.load(Ordering::Relaxed)).is_ok_and(|on| on == Switch::Yes),
        lease_ms: NEAR_LEASE_MS.get() as u64,
        bytes: FEED_BYTES.get(),
        subscribers: MAX_SUBSCRIBERS.get(),
    }
}

/// Has the state remember as many as the option says.
pub fn apply_invalidation_memory() {
    state::with(|s| s.fills.resize(invalidation_memory_tags()));
}

/// Longest lease and longest wait, in milliseconds.
pub const MAX_MS: u64 = 600_000;

/// [`LEASE_MS`].
pub fn lease_ms() -> u64 {
    LEASE_MS.get() as u64
}

/// [`MAX_WAITERS`].
pub fn max_waiters() -> usize {
    MAX_WAITERS.get()
}

/// [`INVALIDATION_MEMORY_TAGS`].
pub fn invalidation_memory_tags() -> usize {
    INVALIDATION_MEMORY_TAGS.get()
}

/// [`RECLAIM_BUDGET_US`].
pub fn reclaim_budget_us() -> u64 {
    RECLAIM_BUDGET_US.get() as u64
}

/// [`RECLAIM_INLINE_MAX`].
pub fn reclaim_inline_max() -> usize {
    RECLAIM_INLINE_MAX.get()
}

/// [`MAX_TAGS`] and [`MAX_TAG_BYTES`].
pub fn limits() -> Limits {
    Limits {
        tags: MAX_TAGS.get(),
        tag_bytes: MAX_TAG_BYTES.get(),
    }
}

/// An option with two values.
pub struct Choice<T> {
    value: AtomicI32,
    kind: std::marker::PhantomData<T>,
}

impl<T> Choice<T> {
    const fn new(default: i32) -> Self {
        Choice {
            value: AtomicI32::new(default),
            kind: std::marker::PhantomData,
        }
    }
}

impl<T: EnumConfigurationValue + Send + Sync> ConfigurationValue<T> for Choice<T> {
    fn get(&self, _: &ConfigurationContext) -> T {
        T::try_from(self.value.load(Ordering::Relaxed))
            .unwrap_or_else(|_| unreachable!("only known values are stored"))
    }
    fn set(&self, _: &ConfigurationContext, value: T) -> Result<(), RedisError> {
        self.value.store(value.into(), Ordering::Relaxed);
        Ok(())
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $variant:ident = $number:literal $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$value_doc])* $variant = $number),* }

        impl TryFrom<i32> for $name {
            type Error = RedisError;
            fn try_from(number: i32) -> Result<Self, RedisError> {
                match number {
                    $($number => Ok($name::$variant),)*
                    _ => Err(RedisError::Str("unknown value")),
                }
            }
        }

        impl From<$name> for i32 {
            fn from(value: $name) -> i32 {
                value as i32
            }
        }

        impl EnumConfigurationValue for $name {
            fn get_options(&self) -> (Vec<String>, Vec<i32>) {
                (vec![$($text.to_owned()),*], vec![$($number),*])
            }
        }
    };
}

choice! {
    /// What happens at start-up to entries read from disk: invalidations issued while the server was down, or lost
    /// with the last unsynced write, cannot be known.
    OnRestart {
        /// They are not served.
        Drop = 0 "drop",
        /// They are served, at the operator's risk.
        Keep = 1 "keep",
    }
}

choice! {
    /// What happens to a replica's entries when it becomes the primary: an invalidation that the old primary
    /// acknowledged may not have reached it.
    OnPromote {
        /// They are served.
        Keep = 0 "keep",
        /// They are not served.
        Drop = 1 "drop",
    }
}

choice! {
    /// Whether near leases are granted. To be set alike on all servers of one data set.
    Switch {
        /// They are not, and no server waits for any.
        No = 0 "no",
        /// They are.
        Yes = 1 "yes",
    }
}

const ON_RESTART_NAME: &str = "on-restart";
const ON_PROMOTE_NAME: &str = "on-promote";
const FEED_NAME: &str = "feed";

/// [`Switch`].
pub static FEED: Choice<Switch> = Choice::new(Switch::No as i32);
/// [`OnRestart`].
pub static ON_RESTART: Choice<OnRestart> = Choice::new(OnRestart::Drop as i32);
/// [`OnPromote`].
pub static ON_PROMOTE: Choice<OnPromote> = Choice::new(OnPromote::Keep as i32);

/// [`OnRestart`] as it is now.
pub fn on_restart() -> OnRestart {
    OnRestart::try_from(ON_RESTART.value.load(Ordering::Relaxed)).unwrap_or(OnRestart::Drop)
}

/// [`OnPromote`] as it is now.
pub fn on_promote() -> OnPromote {
    OnPromote::try_from(ON_PROMOTE.value.load(Ordering::Relaxed)).unwrap_or(OnPromote::Drop)
}

const ACCEPT: &str = "accept-valkey-8-1";

/// Whether the module is to be loaded into a Valkey whose MOVE and COPY ... DB, while a module hears of keys, leave
/// clients in the wrong database (8.1.0 to 8.1.8): for those who use neither.
static ACCEPT_VALKEY_8_1: AtomicBool = AtomicBool::new(false);

/// [`ACCEPT_VALKEY_8_1`].
pub fn accept_valkey_8_1() -> bool {
    ACCEPT_VALKEY_8_1.load(Ordering::Relaxed)
}
