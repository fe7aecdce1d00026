//! From what was loaded for many root rows to what would have been loaded for some of them alone.

use std::collections::HashMap;

use super::{LoadedLevel, LoadedRows, NO_KEY, group};
use crate::plan::Plan;
use crate::resolver::Row;

/// Which rows of a level belong to a part, and how they hang together.
struct Share {
    /// Their positions in the whole, ascending.
    rows: Vec<u32>,
    /// Without rows.
    level: LoadedLevel,
}

impl LoadedRows {
    /// One `LoadedRows` for each group of root rows, given by their positions, ascending. What several groups share is
    /// in each of theirs.
    pub(crate) fn split(self, plan: &Plan, groups: Vec<Vec<u32>>) -> Vec<Self> {
        let (count, until) = (self.count, self.until);
        let shares: Vec<Vec<Share>> = groups
            .into_iter()
            .map(|roots| self.shares_of(plan, roots))
            .collect();
        // Most rows belong to one part, which can then have them without a copy.
        let mut pools: Vec<Pool> = self.levels.into_iter().map(Pool::new).collect();
        for part in &shares {
            for (share, pool) in part.iter().zip(&mut pools) {
                pool.announce(&share.rows);
            }
        }
        let part = |shares: Vec<Share>| {
            let levels = shares.into_iter().zip(&mut pools);
            let levels = levels.map(|(share, pool)| LoadedLevel {
                rows: share.rows.iter().map(|&row| pool.take(row)).collect(),
                ..share.level
            });
            Self {
                levels: levels.collect(),
                count,
                until,
            }
        };
        shares.into_iter().map(part).collect()
    }

    /// The rows of each level that are reached from these rows of the root.
    fn shares_of(&self, plan: &Plan, roots: Vec<u32>) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::with_capacity(plan.levels.len());
        for (level, whole) in plan.levels.iter().zip(&self.levels) {
            let share = match &level.parent {
                None => Share {
                    rows: roots.clone(),
                    level: LoadedLevel::default(),
                },
                // Parents come before children.
                Some(parent) => whole.share_below(&shares[parent.level].rows),
            };
            shares.push(share);
        }
        shares
    }
}

impl LoadedLevel {
    /// What belongs to these rows of the level above.
    fn share_below(&self, above: &[u32]) -> Share {
        let mut level = Self::default();
        let mut new_keys: HashMap<u32, u32> = HashMap::new();
        let mut members: Vec<(u32, u32)> = Vec::new();
        for &row in above {
            let row = row as usize;
            let key = match self.parent_keys.get(row) {
                None | Some(&NO_KEY) => NO_KEY,
                Some(&key) => *new_keys.entry(key).or_insert_with(|| {
                    let new = level.keys.len() as u32;
                    level.keys.push(self.keys[key as usize].clone());
                    // A row has one key, so no two keys have a row in common.
                    members.extend(self.rows_of(row).iter().map(|&member| (member, new)));
                    new
                }),
            };
            level.parent_keys.push(key);
        }
        members.sort_unstable();
        let (rows, keys_of_rows): (Vec<u32>, Vec<u32>) = members.into_iter().unzip();
        (level.starts, level.members) = group(&keys_of_rows, level.keys.len());
        Share { rows, level }
    }
}

/// The rows of a level, handed out as often as was announced.
struct Pool {
    rows: Vec<Row>,
    wanted: Vec<u32>,
}

impl Pool {
    fn new(level: LoadedLevel) -> Self {
        Self {
            wanted: vec![0; level.rows.len()],
            rows: level.rows,
        }
    }

    fn announce(&mut self, rows: &[u32]) {
        for &row in rows {
            self.wanted[row as usize] += 1;
        }
    }

    /// A copy, or the row itself for the last caller that wants it.
    fn take(&mut self, row: u32) -> Row {
        let row = row as usize;
        self.wanted[row] -= 1;
        match self.wanted[row] {
            0 => std::mem::take(&mut self.rows[row]),
            _ => self.rows[row].clone(),
        }
    }
}
