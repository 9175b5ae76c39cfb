//! The order in which controllers are asked.
//!
//! Those with a higher priority come first, equal ones in an order that is drawn anew
//! each time, as today's agents do: a controller that always has tasks must not keep
//! the agent from the others.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use crate::priority::Priority;

/// A small generator (splitmix64); not for secrets.
#[derive(Debug)]
pub(crate) struct Shuffle(u64);

impl Shuffle {
    pub(crate) fn seeded() -> Shuffle {
        Shuffle(RandomState::new().build_hasher().finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Indices of `priorities` in the order to ask.
    pub(crate) fn order(&mut self, priorities: &[Priority]) -> Vec<usize> {
        let mut keyed: Vec<_> = priorities
            .iter()
            .enumerate()
            .map(|(i, priority)| (std::cmp::Reverse(priority.rank()), self.next(), i))
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, _, i)| i).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priorities_come_first_and_equals_in_any_order() {
        let mut shuffle = Shuffle(1);
        let priorities = [(0, 0), (0, 2), (0, 2), (1, 0), (0, 3)].map(|(c, a)| Priority {
            c,
            a,
            ..Priority::default()
        });
        let mut firsts = [0; 5];
        for _ in 0..1000 {
            let order = shuffle.order(&priorities);
            assert_eq!(order[..2], [3, 4]);
            assert_eq!(order[4], 0);
            firsts[order[2]] += 1;
        }
        // 1 and 2 are equals: each is first about half of the time.
        assert!((400..600).contains(&firsts[1]), "{firsts:?}");
        assert_eq!(firsts[1] + firsts[2], 1000);
    }
}
