//! Server CPU per operation.
//!
//! Owns the measurement: INFO's `used_cpu_user + used_cpu_sys` around a load. Two loads are compared in alternation, so
//! that other work of the machine hits both; the ratio is that of the medians. It must not know what is compared.

use std::time::Duration;

use harness::{Server, Session};

use crate::load::Load;

/// Pairs of runs that a comparison takes, if nothing else is said.
const PAIRS: usize = 7;

/// Server CPU of one run: long enough that INFO's microseconds and the server's own housekeeping vanish in it.
const RUN: Duration = Duration::from_millis(400);

/// A server whose CPU is read.
pub struct Meter<'a> {
    server: &'a Server,
    session: Session,
    /// Fields of INFO cpu whose sum is counted.
    counted: [&'static str; 2],
    pairs: usize,
    run: Duration,
}

/// One side of a comparison.
pub struct Side<'a> {
    load: &'a Load,
    /// Puts things into the state in which the load finds something to do; not measured.
    prepare: Option<Box<dyn Fn() + 'a>>,
}

/// Server CPU per operation, in nanoseconds.
pub struct Comparison {
    pub ours_ns: f64,
    pub theirs_ns: f64,
}

impl Comparison {
    pub fn ratio(&self) -> f64 {
        self.ours_ns / self.theirs_ns
    }
}

impl<'a> Side<'a> {
    /// A load that can go on for ever.
    pub fn steady(load: &'a Load) -> Self {
        Self {
            load,
            prepare: None,
        }
    }

    /// A load that uses up what `prepare` makes: each operation is sent once.
    pub fn once(load: &'a Load, prepare: impl Fn() + 'a) -> Self {
        Self {
            load,
            prepare: Some(Box::new(prepare)),
        }
    }
}

impl<'a> Meter<'a> {
    pub fn new(server: &'a Server) -> Self {
        Self {
            server,
            session: server.session(),
            counted: Session::CPU,
            pairs: PAIRS,
            run: RUN,
        }
    }

    /// With so many pairs of runs, each of about so much server CPU.
    pub fn with_runs(self, pairs: usize, run: Duration) -> Self {
        Self { pairs, run, ..self }
    }

    /// Counts only the thread that executes commands, which is what limits a server with io-threads.
    pub fn of_main_thread(server: &'a Server) -> Self {
        Self {
            counted: ["used_cpu_user_main_thread", "used_cpu_sys_main_thread"],
            ..Self::new(server)
        }
    }

    /// Compares two loads.
    pub fn compare(&mut self, ours: &Side<'_>, theirs: &Side<'_>) -> Comparison {
        let operations = [self.rehearse(ours), self.rehearse(theirs)];
        let mut costs = [Vec::new(), Vec::new()];
        for pair in 0..self.pairs {
            // Neither side is always the one that comes after the other.
            for side in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
                costs[side].push(self.cost_ns([ours, theirs][side], operations[side]));
            }
        }
        let [ours_ns, theirs_ns] = costs.map(|mut costs| median(&mut costs));
        Comparison { ours_ns, theirs_ns }
    }

    /// Warms up and tells how many operations a run takes.
    fn rehearse(&mut self, side: &Side<'_>) -> usize {
        let all = side.load.len();
        let cost_ns = self.cost_ns(side, all);
        if side.prepare.is_some() {
            return all;
        }
        all.max((self.run.as_nanos() as f64 / cost_ns) as usize)
    }

    /// Server CPU per operation of one run.
    fn cost_ns(&mut self, side: &Side<'_>, operations: usize) -> f64 {
        if let Some(prepare) = &side.prepare {
            prepare();
        }
        let before = self.cpu_s();
        let sent = side
            .load
            .run(&self.server.socket(), operations)
            .unwrap_or_else(|e| panic!("the load was refused: {e}"));
        (self.cpu_s() - before) * 1e9 / sent as f64
    }

    fn cpu_s(&mut self) -> f64 {
        self.session.cpu_s(self.counted)
    }
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
