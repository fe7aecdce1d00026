//! The log: the last events in order, as many as fit into the configured bytes.

use std::collections::VecDeque;

use super::event::Event;

/// Events with consecutive numbers.
#[derive(Debug)]
pub(super) struct Log {
    events: VecDeque<Event>,
    /// The number of the last event, or of the last one before the log began.
    end: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Log {
    /// An empty log that goes on after the event of this number.
    pub fn new(end: u64, bytes_max: usize) -> Self {
        Log {
            events: VecDeque::new(),
            end,
            bytes: 0,
            bytes_max,
        }
    }

    /// The number of the last event.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that the events take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends an event and drops as many old ones as no longer fit.
    pub fn append(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        self.end += 1;
        self.trim();
    }

    /// Changes the bound.
    pub fn resize(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.trim();
    }

    fn trim(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(event) = self.events.pop_front() else {
                return;
            };
            self.bytes -= event.bytes();
        }
    }

    /// Whether every event after this number is still here.
    pub fn holds(&self, number: u64) -> bool {
        number <= self.end && self.end - number <= self.events.len() as u64
    }

    /// The events after this number, with theirs; as far as they are still here.
    pub fn after(&self, number: u64) -> impl Iterator<Item = (u64, &Event)> {
        let oldest = self.end - self.events.len() as u64;
        let from = number.clamp(oldest, self.end);
        let events = self.events.range((from - oldest) as usize..);
        (from + 1..).zip(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::event::Kind;

    #[test]
    fn a_position_is_in_the_log_as_long_as_every_event_after_it_is() {
        let event = || Event::other(0, Kind::Flush, Box::default());
        let mut log = Log::new(10, 3 * event().bytes());
        assert!(log.holds(10) && !log.holds(9) && !log.holds(11));
        for _ in 0..5 {
            log.append(event());
        }
        assert_eq!((log.end(), log.bytes()), (15, 3 * event().bytes()));
        assert!(log.holds(12) && log.holds(15) && !log.holds(11) && !log.holds(16));
        let numbers: Vec<u64> = log.after(13).map(|(number, _)| number).collect();
        assert_eq!(numbers, [14, 15]);
        assert_eq!(log.after(15).count() + log.after(99).count(), 0);
        assert_eq!(log.after(0).count(), 3);
        log.resize(event().bytes());
        assert!(log.holds(14) && !log.holds(13));
        log.resize(0);
        assert!(log.holds(15) && log.bytes() == 0);
    }
}
