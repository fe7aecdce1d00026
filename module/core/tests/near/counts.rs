//! What happened in the histories, to see that it did.

use std::collections::BTreeMap;

macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        #[derive(Default, Debug)]
        pub struct Counts {
            $(pub $name: u64,)*
            pub disasters: BTreeMap<String, u64>,
        }

        impl Counts {
            pub fn add(&mut self, other: &Counts) {
                $(self.$name += other.$name;)*
                for (disaster, count) in &other.disasters {
                    *self.disasters.entry(disaster.clone()).or_default() += count;
                }
            }

            pub fn named(&self) -> Vec<(String, u64)> {
                let mut all = vec![$((stringify!($name).to_string(), self.$name)),*];
                all.extend(self.disasters.clone());
                all
            }
        }
    };
}

counts!(
    near_hits,
    // Near hits of what an acknowledged but unsettled invalidation concerns: allowed, and rare.
    pending_hits,
    hits,
    loads,
    put_away,
    not_put_away,
    refused_fills,
    lost_fills,
    answers,
    events,
    gaps,
    truncated,
    refusals,
    parked,
    lost,
    writes,
    retries,
    settled,
    settled_by_answer,
    settled_by_time,
    ran_out,
    evictions,
    stores,
    disconnects,
    promotions,
    slot_moves,
    healthy_ends,
);

impl Counts {
    pub fn strike(&mut self, disaster: &str) {
        *self.disasters.entry(disaster.to_string()).or_default() += 1;
    }
}
