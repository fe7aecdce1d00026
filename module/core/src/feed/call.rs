//! `MCACHE.FEED`: subscribing, being told, confirming, giving up.

use std::sync::Arc;

use super::position::Position;
use super::prefixes::Prefixes;
use super::{Feed, Refusal, Standing, Wake, digest::HashKey, group, lease};

/// One near cache at this server.
pub(super) struct Subscription<W> {
    pub generation: u32,
    pub group: u32,
    /// Everything up to here it has applied.
    pub confirmed: u64,
    /// The furthest position that it was given.
    pub given: u64,
    /// When the last lease ends that it may hold, by our clock.
    pub lease_end_us: u64,
    /// Since when it is known.
    pub since_us: u64,
    /// When it was last answered.
    pub answered_us: u64,
    /// Its last answer did not go up to the log end.
    pub behind: bool,
    pub parked: Option<Parked<W>>,
}

/// A call that waits for something to tell.
pub(super) struct Parked<W> {
    pub handle: W,
    pub ticket: Ticket,
    pub until_us: u64,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub struct Call {
    /// `None`: NEW.
    pub position: Option<Position>,
    /// The selected database.
    pub db: u32,
    /// What it wants to hear of.
    pub prefixes: Prefixes,
    /// How long it may be parked; 0 where parking is not possible.
    pub wait_us: u64,
    /// Most events in one answer.
    pub count: usize,
    /// A random number: what a new subscription is called.
    pub random: u64,
}

/// A call that is not answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    subscription: u64,
    from: u64,
    count: usize,
    /// When it was executed: the lease counts from then.
    called_us: u64,
    until_us: u64,
    /// The caller is to forget everything.
    gap: bool,
}

impl Ticket {
    /// How long the call may be parked, from when it was executed.
    pub fn wait_us(&self) -> u64 {
        self.until_us - self.called_us
    }
}

/// What a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Where it is once it has applied the events.
    pub position: Position,
    /// The lease that it holds then; 0: none.
    pub lease_ms: u64,
    /// There are more events, and therefore no lease.
    pub more: bool,
    /// As [`super::read_events`] reads them.
    pub events: Arc<[u8]>,
    /// It is to forget everything before it goes on; then this is the key of digests.
    pub gap: Option<HashKey>,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Outcome {
    /// It is answered at once.
    Answer(Answer),
    /// It is to be parked: [`Feed::park`].
    Wait(Ticket),
}

impl<W: Copy + Ord> Feed<W> {
    /// One call of FEED. It confirms what its position covers, unless it is refused.
    ///
    /// # Errors
    /// Why nothing is granted. Nothing has changed then.
    pub fn call(
        &mut self,
        call: Call,
        standing: Standing,
        now_us: u64,
    ) -> Result<Outcome, Refusal> {
        self.tell_who_left();
        self.may_grant(standing, now_us)?;
        let Some((subscription, position)) = self.known(&call) else {
            return self.subscribe(call, now_us).map(Outcome::Answer);
        };
        let known = &self.subscriptions[&subscription];
        let in_log = self
            .log
            .as_ref()
            .is_some_and(|log| log.holds(position.number));
        // No position goes back: a caller that was set back (a snapshot restored, a late duplicate) has forgotten what
        // it confirmed.
        if !in_log || position.number < known.confirmed || position.number > known.given {
            return Ok(Outcome::Answer(self.gap(subscription, call, now_us)));
        }
        self.confirm(subscription, position.number, now_us);
        let wait_us = call
            .wait_us
            .min(lease::longest_wait_ms(self.settings.lease_ms) * 1_000);
        let ticket = Ticket {
            subscription,
            from: position.number,
            count: call.count.clamp(1, group::MAX_COUNT),
            called_us: now_us,
            until_us: now_us + wait_us,
            gap: false,
        };
        if wait_us > 0 && self.may_rest(&ticket, now_us) {
            return Ok(Outcome::Wait(ticket));
        }
        self.take_the_place_of_an_earlier_call(subscription);
        Ok(Outcome::Answer(self.answer(ticket, now_us)))
    }

    /// Parks a call that is to wait. One call of a subscription is under way: it takes the place of an earlier one.
    pub fn park(&mut self, ticket: Ticket, handle: W) {
        let subscription = ticket.subscription;
        self.take_the_place_of_an_earlier_call(subscription);
        let Some(known) = self.subscriptions.get_mut(&subscription) else {
            self.wakes.push(Wake::Refused(handle, Refusal::Replaced));
            return;
        };
        known.parked = Some(Parked {
            handle,
            ticket,
            until_us: ticket.until_us,
        });
        self.by_handle.insert(handle, subscription);
        self.patience.insert((ticket.until_us, subscription));
        if self.concerned(subscription) {
            self.round.disturb();
        }
    }

    /// What a call that was woken is answered, at the moment of its reply.
    ///
    /// # Errors
    /// Nothing is granted any more.
    pub fn woken(
        &mut self,
        ticket: Ticket,
        standing: Standing,
        now_us: u64,
    ) -> Result<Answer, Refusal> {
        self.tell_who_left();
        self.may_grant(standing, now_us)?;
        let generation = self.generation;
        let known = self
            .subscriptions
            .get(&ticket.subscription)
            .filter(|known| known.generation == generation)
            .ok_or(Refusal::Replaced)?;
        let in_log = self.log.as_ref().is_some_and(|log| log.holds(ticket.from));
        if !in_log || ticket.from < known.confirmed {
            return Err(Refusal::Replaced);
        }
        Ok(self.answer(ticket, now_us))
    }

    /// `FEED position END`: the near cache holds nothing any more. False if it is not known.
    pub fn end(&mut self, position: Position, now_us: u64) -> bool {
        let subscription = position.subscription;
        if position.incarnation != self.identity.incarnation
            || !self.subscriptions.contains_key(&subscription)
        {
            return false;
        }
        self.confirm(subscription, u64::MAX, now_us);
        self.remove(subscription);
        self.ended_us = self.ended_us.max(now_us);
        true
    }

    /// A parked client is gone, or is not to wait any more. That confirms nothing and ends no lease.
    pub fn unpark(&mut self, handle: W) -> Option<Ticket> {
        let subscription = self.by_handle.remove(&handle)?;
        let known = self.subscriptions.get_mut(&subscription)?;
        let parked = known.parked.take()?;
        self.patience.remove(&(parked.until_us, subscription));
        Some(parked.ticket)
    }

    fn may_grant(&mut self, standing: Standing, now_us: u64) -> Result<(), Refusal> {
        self.grants.run(self.settings.lease_ms, now_us);
        let may = match self.settings.on {
            true => self.grants.may(standing, now_us),
            false => Err(Refusal::Off),
        };
        self.stats.refusals += u64::from(may.is_err());
        may
    }

    /// The subscription that a call continues, if it is one of ours, in this log, and about the same names.
    fn known(&self, call: &Call) -> Option<(u64, Position)> {
        let position = call.position?;
        if position.incarnation != self.identity.incarnation
            || position.generation != self.generation
        {
            return None;
        }
        let known = self.subscriptions.get(&position.subscription)?;
        let group = self.groups.get(known.group)?;
        let same = known.generation == self.generation
            && group.db == call.db
            && group.prefixes == call.prefixes;
        same.then_some((position.subscription, position))
    }

    fn subscribe(&mut self, call: Call, now_us: u64) -> Result<Answer, Refusal> {
        if self.subscriptions.len() >= self.settings.subscribers {
            self.stats.refusals += 1;
            return Err(Refusal::Full(self.settings.subscribers));
        }
        self.stats.gaps += u64::from(call.position.is_some());
        let end = self.start_log(now_us).end();
        let mut subscription = call.random;
        while self.subscriptions.contains_key(&subscription) {
            subscription = subscription.wrapping_add(1);
        }
        let group = self.groups.join(call.db, call.prefixes, end);
        self.subscriptions.insert(
            subscription,
            Subscription {
                generation: self.generation,
                group,
                confirmed: end,
                given: end,
                lease_end_us: 0,
                since_us: now_us,
                answered_us: now_us,
                behind: false,
                parked: None,
            },
        );
        Ok(self.answer(Self::from_the_end(subscription, end, now_us), now_us))
    }

    /// The position left the log, or is none that the caller can have: it forgets everything and goes on at the log
    /// end. That it has done so is confirmed by its next call, not by this one.
    fn gap(&mut self, subscription: u64, call: Call, now_us: u64) -> Answer {
        debug_assert!(call.position.is_some());
        self.stats.gaps += 1;
        let end = self.start_log(now_us).end();
        self.answer(Self::from_the_end(subscription, end, now_us), now_us)
    }

    fn from_the_end(subscription: u64, end: u64, now_us: u64) -> Ticket {
        Ticket {
            subscription,
            from: end,
            count: 1,
            called_us: now_us,
            until_us: now_us,
            gap: true,
        }
    }

    fn confirm(&mut self, subscription: u64, number: u64, now_us: u64) {
        if let Some(known) = self.subscriptions.get_mut(&subscription) {
            known.confirmed = known.confirmed.max(number);
        }
        let done = self.settles.confirmed(subscription, number, now_us);
        let wakes = done.into_iter();
        self.wakes
            .extend(wakes.map(|(handle, state)| Wake::Settle(handle, state)));
    }

    /// Whether a call may wait: its lease outlasts that, and there is nothing to tell, or it was told something just
    /// now.
    fn may_rest(&mut self, ticket: &Ticket, now_us: u64) -> bool {
        let interval_us = self.interval_us();
        let concerned = self.concerned_since(ticket.subscription, ticket.from);
        let Some(known) = self.subscriptions.get(&ticket.subscription) else {
            return false;
        };
        known.lease_end_us > ticket.until_us
            && !known.behind
            && (!concerned || known.answered_us + interval_us > now_us)
    }

    /// Whether something happened after this number that a subscription has to be told.
    pub(super) fn concerned_since(&mut self, subscription: u64, number: u64) -> bool {
        let Some(log) = &self.log else { return false };
        let group = self
            .subscriptions
            .get(&subscription)
            .and_then(|known| self.groups.get_mut(known.group));
        group.is_some_and(|group| group.latest(log) > number)
    }

    /// The same for the call that it has parked.
    pub(super) fn concerned(&mut self, subscription: u64) -> bool {
        let parked = self
            .subscriptions
            .get(&subscription)
            .and_then(|known| known.parked.as_ref());
        let Some(from) = parked.map(|parked| parked.ticket.from) else {
            return false;
        };
        self.concerned_since(subscription, from)
    }

    fn take_the_place_of_an_earlier_call(&mut self, subscription: u64) {
        let parked = self
            .subscriptions
            .get(&subscription)
            .and_then(|known| known.parked.as_ref());
        if let Some(handle) = parked.map(|parked| parked.handle) {
            self.unpark(handle);
            self.wakes.push(Wake::Refused(handle, Refusal::Replaced));
        }
    }

    /// What is told to a subscription, up to the log end or as much as one answer holds. With everything comes a lease.
    fn answer(&mut self, ticket: Ticket, now_us: u64) -> Answer {
        let lease_ms = self.settings.lease_ms;
        let Ticket {
            subscription,
            from,
            count,
            called_us,
            ..
        } = ticket;
        let page = self.log.as_ref().zip(
            self.subscriptions
                .get(&subscription)
                .and_then(|known| self.groups.get_mut(known.group)),
        );
        let page = page.map(|(log, group)| group.page(log, from, count));
        let (to, more, events) = match page {
            Some(page) => (page.to, page.is_truncated(), page.bytes),
            None => (from, true, Arc::from([])),
        };
        if let Some(known) = self.subscriptions.get_mut(&subscription) {
            known.given = known.given.max(to);
            known.answered_us = now_us;
            known.behind = more;
            if !more {
                known.lease_end_us = known
                    .lease_end_us
                    .max(called_us + lease::server_us(lease_ms));
            }
        }
        Answer {
            position: Position {
                incarnation: self.identity.incarnation,
                generation: self.generation,
                subscription,
                number: to,
            },
            lease_ms: if more { 0 } else { lease_ms },
            more,
            events,
            gap: ticket.gap.then_some(self.identity.hash_key),
        }
    }
}
