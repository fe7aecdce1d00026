//! What all clones of a cache share, and what every operation on it needs: which providers to use, how values become bytes.
//!
//! Knows nothing of the builders of operations (`entry`, `batch`) nor of the public handle (`cache`).

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Codec, Error, ErrorKind, Provider, Result, Target,
    background::Background,
    envelope::{Envelope, Payload},
    flight::Flights,
    pending::Pending,
    tags::Namespace,
    telemetry,
};

/// What all clones share.
pub(crate) struct Core {
    pub(crate) enabled: bool,
    pub(crate) namespace: Namespace,
    pub(crate) envelope: Envelope,
    pub(crate) ttl: Duration,
    pub(crate) loader_timeout: Duration,
    pub(crate) providers: Vec<Chosen>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) background: Background,
}

/// A provider as one operation uses it.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) provider: Arc<dyn Provider>,
    /// What it has still to be told.
    pub(crate) pending: Pending,
    /// The time to live asked for this provider in particular.
    pub(crate) ttl: Option<Duration>,
}

/// The core together with the codec of one handle.
#[derive(Clone)]
pub(crate) struct Handle<C> {
    pub(crate) core: Arc<Core>,
    pub(crate) codec: C,
}

impl Core {
    /// All providers; none if caching is off.
    pub(crate) fn active(&self) -> &[Chosen] {
        match self.enabled {
            true => &self.providers,
            false => &[],
        }
    }

    /// The providers to use: those named, or all; none if caching is off.
    pub(crate) fn choose(&self, targets: &[Target]) -> Result<Cow<'_, [Chosen]>> {
        if targets.is_empty() {
            return Ok(Cow::Borrowed(self.active()));
        }
        let chosen = targets.iter().map(|target| {
            let known = |chosen: &&Chosen| chosen.provider.id() == target.id;
            match self.providers.iter().find(known) {
                Some(chosen) => Ok(Chosen {
                    ttl: target.ttl,
                    ..chosen.clone()
                }),
                None => Err(Error::new(ErrorKind::UnknownProvider(target.id.clone()))),
            }
        });
        let chosen = chosen.collect::<Result<Vec<_>>>()?;
        Ok(if self.enabled {
            chosen.into()
        } else {
            Cow::default()
        })
    }
}

impl<C: Codec> Handle<C> {
    /// The value's bytes; `None`, counted, if it cannot be kept.
    pub(crate) fn seal<T: Serialize + ?Sized>(&self, value: &T) -> Option<Bytes> {
        self.try_seal(value).unwrap_or_else(|error| {
            tracing::debug!(%error, "a value could not be encoded and is not kept");
            telemetry::unkept("codec");
            None
        })
    }

    /// As [`seal`](Self::seal), for callers who are told; `None` is a value that is too large.
    pub(crate) fn try_seal<T: Serialize + ?Sized>(&self, value: &T) -> Result<Option<Bytes>> {
        let mut buffer = self.core.envelope.begin();
        self.codec.encode(value, &mut buffer)?;
        let sealed = self.core.envelope.seal(buffer);
        if sealed.is_none() {
            telemetry::unkept("too_large");
        }
        Ok(sealed)
    }

    /// What the bytes held; `None`, counted, if they cannot be read.
    pub(crate) fn open<T: DeserializeOwned>(&self, sealed: &Bytes) -> Option<Opened<T>> {
        match self.core.envelope.open(sealed) {
            Ok(Payload::Absent) => Some(Opened::Absent),
            Ok(Payload::Value(bytes)) => match self.codec.decode(&bytes) {
                Ok(value) => Some(Opened::Value(value)),
                Err(error) => {
                    tracing::debug!(%error, "an entry is not what its reader expects");
                    telemetry::unreadable("type");
                    None
                }
            },
            Err(reason) => {
                telemetry::unreadable(reason.label());
                None
            }
        }
    }
}

/// What was stored: a value, or that there is none.
pub(crate) enum Opened<T> {
    Value(T),
    Absent,
}

impl<T> Opened<T> {
    /// For readers who did not ask whether there is something: absence is a miss to them.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent => None,
        }
    }
}
