//! Where changes come from.
//!
//! Owns the contract between a source and the [`Invalidator`](super::Invalidator) that drives it. It must not know what
//! a change is made into: neither tags nor caches appear here.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{BoxError, BoxFuture, ChangeEvent};
use crate::Tags;

/// A stream of batches of changes, delivered at least once.
///
/// The promise: a change is handed out by [`next`](Self::next) again and again, by this source or by the one a later
/// process makes, until a batch that contains it was given to [`acknowledge`](Self::acknowledge). It may be handed out
/// more often than needed, and in any order, because invalidations are idempotent and commute.
///
/// The counterpart: within the life of one source value, a batch that was handed out and is not yet acknowledged is the
/// caller's, and `next` goes on with what comes after it.
///
/// ```
/// use mcache::change::{BoxError, ChangeEvent, ChangeSource, Changes, Operation};
///
/// /// Says once that anything may have changed.
/// struct Once(bool);
///
/// impl ChangeSource for Once {
///     type Receipt = ();
///
///     async fn next(&mut self) -> Result<Changes<()>, BoxError> {
///         if std::mem::replace(&mut self.0, true) {
///             return std::future::pending().await;
///         }
///         let any = ChangeEvent::new("Product", Operation::Updated, [] as [&str; 0]);
///         Ok(Changes::new([any], ()))
///     }
///
///     async fn acknowledge(&mut self, receipts: &mut Vec<()>) -> Result<(), BoxError> {
///         receipts.clear();
///         Ok(())
///     }
/// }
/// ```
pub trait ChangeSource: Send + 'static {
    /// What the source needs to recognise a batch when it is acknowledged.
    type Receipt: Debug + Send + 'static;

    /// Waits for changes and returns all that are there, up to the source's own limit.
    ///
    /// Never returns an empty batch. An error does not end the source: call again after a pause.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: changes whose batch was not returned are handed out by the next call.
    fn next(&mut self) -> impl Future<Output = Result<Changes<Self::Receipt>, BoxError>> + Send;

    /// Forgets batches whose invalidation was acknowledged everywhere.
    ///
    /// Takes out of `receipts` what it has forgotten; what is left in it after an error is to be given again.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, `receipts` still holds each receipt that is not known to be forgotten.
    fn acknowledge(
        &mut self,
        receipts: &mut Vec<Self::Receipt>,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// What tells whether the source can see changes at all. The [`Invalidator`](super::Invalidator) counts the time
    /// since the last contact as lag. `None`, the default, for a source that cannot be cut off.
    fn contact(&self) -> Option<Contact> {
        None
    }

    /// When the changes of a batch have reached every place that fills read from, if that can be later than `next`
    /// returned them.
    ///
    /// A source in front of read replicas returns a future that ends once they have caught up; the invalidator then
    /// invalidates a second time, which removes what was filled from a lagging replica in between. `None`, the default,
    /// means that one invalidation is enough.
    fn settled(&mut self, _receipt: &Self::Receipt) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

/// When a source was last in contact with where changes come from: it looked there, and knows what there is.
///
/// Shared between the source, which says so after each look, and the readers of the lag meanwhile.
///
/// ```
/// use mcache::change::Contact;
///
/// let contact = Contact::new();
/// // After each look at where changes come from:
/// contact.made();
/// assert!(contact.silence().is_zero());
/// ```
#[derive(Clone, Debug)]
pub struct Contact(Arc<Mutex<Instant>>);

/// Between two looks of a source that is well.
const QUIET: Duration = Duration::from_secs(2);

impl Contact {
    /// A contact that begins now.
    #[expect(clippy::new_without_default, reason = "it depends on the time")]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// The source has just looked.
    pub fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// For how long the source cannot have seen a change; zero while its looks follow each other as they should.
    pub fn silence(&self) -> Duration {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(last.elapsed())
            .filter(|&silence| silence > QUIET)
            .unwrap_or_default()
    }
}

/// Changes that were handed out together.
///
/// ```
/// use mcache::change::{ChangeEvent, Changes, Operation};
///
/// let mut changes = Changes::new([ChangeEvent::new("Product", Operation::Updated, ["p1"])], 7);
/// changes.tags.push("prices");
/// assert_eq!((changes.events.len(), changes.receipt), (1, 7));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Changes<R> {
    /// The changes. None only if there are tags, or everything is to be cleared.
    pub events: Vec<ChangeEvent>,
    /// Tags to be cleared as they are, beside what the changes clear.
    pub tags: Tags,
    /// Everything in the cache's namespace is to be cleared, under all tags: the source cannot say any more
    /// which changes and tags it was not able to hand out.
    pub everything: bool,
    /// How long ago the oldest of them was captured, by the clock that captured it.
    pub age: Duration,
    /// What acknowledges them.
    pub receipt: R,
}

impl<R> Changes<R> {
    /// These changes, captured just now, and no further tags.
    pub fn new(events: impl IntoIterator<Item = ChangeEvent>, receipt: R) -> Self {
        Self {
            events: events.into_iter().collect(),
            tags: Tags::new(),
            everything: false,
            age: Duration::ZERO,
            receipt,
        }
    }
}
