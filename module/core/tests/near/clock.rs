//! Clocks of machines: monotonic ones that drift, wall clocks that jump.

/// The clocks of one machine, in microseconds; the simulation's own time is called real.
#[derive(Clone, Debug)]
pub struct Clock {
    offset_us: u64,
    /// Parts in a million by which it runs fast or slow. Two clocks differ by less than 2 % in rate.
    drift_ppm: i64,
    /// What the wall clock was set to, relative to the monotonic one.
    wall_us: i64,
}

/// Two clocks that drift apart by this much each differ by 1.99 %.
const DRIFT_PPM: i64 = 9_900;

impl Clock {
    /// A clock that keeps time.
    pub fn exact() -> Self {
        Clock {
            offset_us: 0,
            drift_ppm: 0,
            wall_us: 0,
        }
    }

    /// Any clock.
    pub fn any(rng: &mut fastrand::Rng) -> Self {
        Clock {
            offset_us: rng.u64(0..1 << 40),
            drift_ppm: rng.i64(-DRIFT_PPM..=DRIFT_PPM),
            wall_us: 0,
        }
    }

    /// The monotonic clock.
    pub fn us(&self, real_us: u64) -> u64 {
        let drift = real_us as i64 * self.drift_ppm / 1_000_000;
        self.offset_us + (real_us as i64 + drift) as u64
    }

    /// The same in whole milliseconds.
    pub fn ms(&self, real_us: u64) -> u64 {
        self.us(real_us) / 1_000
    }

    /// When the monotonic clock shows this, or just after.
    pub fn real_us(&self, us: u64) -> u64 {
        let shown = us.saturating_sub(self.offset_us) as i64;
        let real = shown * 1_000_000 / (1_000_000 + self.drift_ppm);
        real as u64 + 1
    }

    /// The wall clock in milliseconds since 1970. Only epochs come from it.
    pub fn wall_ms(&self, real_us: u64) -> u64 {
        1_800_000_000_000 + self.wall_ahead(real_us) / 1_000
    }

    fn wall_ahead(&self, real_us: u64) -> u64 {
        // Some days, so that it can be set back.
        (1_000_000_000_000 + self.us(real_us) as i64 + self.wall_us) as u64
    }

    /// The wall clock is set.
    pub fn set_wall(&mut self, by_us: i64) {
        self.wall_us += by_us;
    }
}
