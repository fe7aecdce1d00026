//! What is said once: a refusal that will be repeated for every value of its kind is worth one line of the log, not a
//! million, and not none.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::{Error, ErrorKind, telemetry};

/// How many different complaints are remembered. Beyond it nothing new is said: a reader with so many kinds of trouble
/// has heard enough.
const COMPLAINTS_MAX: usize = 256;

/// What a server answers instead of serving, for as long as its settings or its state are as they are.
const SERVES_NOTHING: [&str; 11] = [
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    // Of a node of a cluster that is not followed: its address says that it is one server.
    "MOVED",
    "NOAUTH",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "WRONGPASS",
];

/// The longest name of a family taken from a key.
const FAMILY_BYTES_MAX: usize = 40;

/// The operation that gives a lease back.
pub(crate) const RELEASE: &str = "release";

/// What one cache has complained of already.
#[derive(Default)]
pub(crate) struct Complaints {
    said: Mutex<HashSet<String>>,
}

impl Complaints {
    /// A value of this family is not kept, now and whenever it is made again.
    pub(crate) fn unkept(&self, family: &str, reason: &'static str, why: &str) {
        telemetry::unkept(reason);
        if self.is_first(&["unkept", reason, family]) {
            tracing::warn!(
                family,
                reason,
                "values of this family are not kept: {why} (said once)"
            );
        }
    }

    /// A call failed and was answered as if nothing were cached.
    pub(crate) fn failed_open(
        &self,
        provider: &str,
        operation: &'static str,
        family: &str,
        error: &Error,
    ) {
        telemetry::failed_open(provider, operation, error);
        match error.kind() {
            ErrorKind::ModuleMissing if self.is_first(&["module", provider]) => {
                tracing::warn!(provider, %error, "nothing is cached at this provider (said once)");
            }
            ErrorKind::Refused if operation == RELEASE => self.unreleased(provider, error),
            ErrorKind::Refused => {
                // Texts of one kind differ in numbers and names; the code and the first words do not.
                let text = error.to_string();
                let kind: String = text
                    .chars()
                    .filter(|letter| !letter.is_ascii_digit())
                    .take(48)
                    .collect();
                if self.is_first(&["refused", operation, family, &kind]) {
                    tracing::warn!(provider, operation, family, code = error.code(), %error, "the cache refuses this for good (said once)");
                }
            }
            ErrorKind::Unavailable => {
                if let Some(code) = error.code()
                    && SERVES_NOTHING.contains(&code)
                    && self.is_first(&["serves nothing", provider, code])
                {
                    tracing::warn!(
                        provider,
                        operation,
                        code,
                        %error,
                        "the cache is of no use while the server answers so; calls go on without it (said once)"
                    );
                }
            }
            _ => {}
        }
    }

    /// Not a matter of the family: no failed load of any gives its lease back.
    fn unreleased(&self, provider: &str, error: &Error) {
        if self.is_first(&["refused", provider, RELEASE]) {
            tracing::warn!(
                provider,
                code = error.code(),
                %error,
                "after a load that fails other callers wait until its lease ends by itself: the cache's user needs \
                 MCACHE.RELEASE (said once)"
            );
        }
    }

    fn is_first(&self, parts: &[&str]) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.len() < COMPLAINTS_MAX && said.insert(parts.join("\u{1f}"))
    }
}

/// The family of a key that was given none: what is before the first colon of its name.
pub(crate) fn family_of(name: &[u8]) -> String {
    let end = name.iter().position(|byte| *byte == b':');
    let family = &name[..end.unwrap_or(name.len()).min(FAMILY_BYTES_MAX)];
    family.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_family_is_complained_of_once_and_their_number_is_bounded() {
        let complaints = Complaints::default();
        assert!(complaints.is_first(&["a", "b"]));
        assert!(!complaints.is_first(&["a", "b"]));
        assert!(complaints.is_first(&["a", "c"]));
        let new = (0..10_000).filter(|n| complaints.is_first(&[&n.to_string()]));
        assert_eq!(new.count(), COMPLAINTS_MAX - 2);
    }

    #[test]
    fn a_family_is_what_is_before_the_first_colon() {
        assert_eq!(family_of(b"product:42:eu"), "product");
        assert_eq!(family_of(b"config"), "config");
        assert_eq!(family_of(b"\xff:1"), "\\xff");
    }
}
