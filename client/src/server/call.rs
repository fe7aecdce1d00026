//! How a call to a node can go wrong, and whose fault that is.

use std::time::Duration;

use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind};

use crate::{Error, ErrorKind};

/// Why a call has no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("it did not answer lately and is given a pause")]
    Resting,
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Timeout(_) => ErrorKind::Timeout,
            CallError::Resting => ErrorKind::Unavailable,
            CallError::Redis(redis) => classify(redis),
        };
        let message = match kind {
            ErrorKind::ModuleMissing => format!("{error} (PlainRedisProvider needs none)"),
            _ => error.to_string(),
        };
        let code = match &error {
            CallError::Redis(redis) => code_of(redis),
            CallError::Timeout(_) | CallError::Resting => None,
        };
        Self::with_code(kind, code, message)
    }
}

/// What the server calls it.
pub(super) fn code_of(error: &RedisError) -> Option<&str> {
    match error.kind() {
        // Of a connection that could not be made: what the server said is not kept.
        RedisKind::AuthenticationFailed => Some("WRONGPASS"),
        _ => error.code(),
    }
}

/// Whose fault an error is decides whether trying again helps.
fn classify(error: &RedisError) -> ErrorKind {
    let says = |words| error.detail().is_some_and(|text| text.starts_with(words));
    match error.kind() {
        RedisKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask,
        ) => ErrorKind::Unavailable,
        // A server without the module is one that holds no entries yet; it may be restarted with it.
        RedisKind::Server(ServerErrorKind::ResponseError) if says("unknown command") => {
            ErrorKind::ModuleMissing
        }
        RedisKind::Server(_) => ErrorKind::Refused,
        RedisKind::Extension => match error.code() {
            // Without a password: one that was set a moment ago may be taken back, as a wrong one may become right.
            Some("OOM" | "BUSY" | "MISCONF" | "NOREPLICAS" | "NOAUTH") => ErrorKind::Unavailable,
            _ => ErrorKind::Refused,
        },
        RedisKind::Parse => ErrorKind::Protocol,
        RedisKind::InvalidClientConfig => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    #[test]
    fn errors_that_pass_are_told_from_those_that_do_not() {
        let unavailable = |error: RedisError| Error::from(CallError::from(error)).is_unavailable();
        assert!(unavailable(
            std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()
        ));
        assert!(unavailable(
            (RedisKind::Server(ServerErrorKind::BusyLoading), "loading").into()
        ));
        assert!(unavailable(make_extension_error("OOM".into(), None)));
        assert!(unavailable(make_extension_error("NOAUTH".into(), None)));
        assert!(unavailable(
            (
                RedisKind::Server(ServerErrorKind::ResponseError),
                "ERR",
                "unknown command 'MCACHE.GET'".into()
            )
                .into()
        ));
        assert!(Error::from(CallError::Resting).is_unavailable());
        assert!(Error::from(CallError::Timeout(Duration::from_millis(5))).is_timeout());

        let refused = |error: RedisError| Error::from(CallError::from(error)).is_refused();
        assert!(refused(
            (RedisKind::Server(ServerErrorKind::NoPerm), "no permission").into()
        ));
        assert!(refused(make_extension_error("WRONGTYPE".into(), None)));
        // A tag may be called as it pleases.
        let quoted = "the tag 'unknown command OOM NOAUTH MISCONF' is too long".to_owned();
        let response = RedisKind::Server(ServerErrorKind::ResponseError);
        assert!(refused((response, "ERR", quoted.clone()).into()));
        assert!(refused(make_extension_error("ODD".into(), Some(quoted))));
    }

    #[test]
    fn an_error_carries_the_word_by_which_the_server_calls_it() {
        let code = |error: CallError| Error::from(error).code().map(str::to_owned);
        let oom = make_extension_error("OOM".into(), Some("used memory > 'maxmemory'".into()));
        assert_eq!(code(oom.into()).as_deref(), Some("OOM"));
        let named: RedisError = (RedisKind::Server(ServerErrorKind::NoPerm), "refused").into();
        assert_eq!(code(named.into()).as_deref(), Some("NOPERM"));
        // A user may be called as it pleases.
        let text = make_extension_error("WRONGTYPE".into(), Some("of user NOAUTH".into()));
        assert_eq!(code(text.into()).as_deref(), Some("WRONGTYPE"));
        let login: RedisError = (RedisKind::AuthenticationFailed, "no").into();
        assert_eq!(code(login.into()).as_deref(), Some("WRONGPASS"));
        assert_eq!(code(CallError::Resting), None);
    }
}
