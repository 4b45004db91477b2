//! Which engine of a device takes which rung: none above its limit, found whenever it exists.
use crate::cost::MAX_RUNGS;
use crate::device::{MAX_ENGINES, Share};

/// Steps of the exact search. Four rungs on four engines need 256 at most; beyond the bound a device counts as full, which
/// wastes room and breaks nothing.
const STEPS: u32 = 4096;

/// The engine of each share, in the same order.
pub type Engines = [u8; MAX_RUNGS];

/// Puts `shares` (largest first) on engines that already bear `loads`. Each goes to the fullest engine that still takes it,
/// so that room stays in one piece; where that fails all ways are tried, within bounds.
pub fn assign(loads: &[Share], limit: Share, shares: &[Share]) -> Option<Engines> {
    let mut free = [0; MAX_ENGINES];
    for (free, load) in free.iter_mut().zip(loads) {
        *free = limit.saturating_sub(*load);
    }
    let mut engines = [0; MAX_RUNGS];
    let free = free.get_mut(..loads.len())?;
    let wanted: u64 = shares.iter().copied().map(u64::from).sum();
    if free.iter().copied().map(u64::from).sum::<u64>() < wanted {
        return None;
    }
    let mut steps = STEPS;
    search(free, shares, &mut engines, &mut steps).then_some(engines)
}

/// The first way is the greedy one: engines in the order of their room.
fn search(free: &mut [Share], shares: &[Share], engines: &mut [u8], steps: &mut u32) -> bool {
    let (Some((share, rest)), Some((engine, others))) = (shares.split_first(), engines.split_first_mut()) else {
        return shares.is_empty();
    };
    let mut tried = None;
    loop {
        // The tightest engine that takes the share and differs from those tried: equal ones would end alike.
        let next = (0u8..)
            .zip(free.iter())
            .filter(|(_, room)| *room >= share && tried.is_none_or(|t| **room > t))
            .min_by_key(|(_, room)| **room)
            .map(|(n, room)| (n, *room));
        let Some((n, room)) = next else { return false };
        if *steps == 0 {
            return false;
        }
        *steps -= 1;
        tried = Some(room);
        *engine = n;
        if let Some(slot) = free.get_mut(usize::from(n)) {
            *slot = room - share;
        }
        if search(free, rest, others, steps) {
            return true;
        }
        if let Some(slot) = free.get_mut(usize::from(n)) {
            *slot = room;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// All ways, without bounds or shortcuts.
    fn possible(free: &mut [Share], shares: &[Share]) -> bool {
        let Some((share, rest)) = shares.split_first() else { return true };
        (0..free.len()).any(|n| {
            if free[n] < *share {
                return false;
            }
            free[n] -= share;
            let found = possible(free, rest);
            free[n] += share;
            found
        })
    }

    #[test]
    fn tries_other_ways_where_the_tightest_engine_is_wrong() {
        // 6 and 7 are free. Greedy puts the 4 into the 6 and two 3s into the 7, and has no place for the last 3.
        let engines = assign(&[4, 3], 10, &[4, 3, 3, 3]).unwrap();
        assert_eq!(engines[..4], [1, 1, 0, 0]);
        assert!(assign(&[5, 3], 10, &[4, 4, 4]).is_none(), "12 are free, but not in pieces of 4");
    }

    proptest! {
        #[test]
        fn finds_an_assignment_exactly_when_one_exists(
            loads in prop::collection::vec(0u32..20, 1..4),
            mut shares in prop::collection::vec(1u32..12, 1..6),
        ) {
            shares.sort_unstable_by(|a, b| b.cmp(a));
            let mut free: Vec<_> = loads.iter().map(|l| 20 - l).collect();
            let found = assign(&loads, 20, &shares);
            prop_assert_eq!(found.is_some(), possible(&mut free, &shares));
            if let Some(engines) = found {
                let mut after = loads.clone();
                for (share, engine) in shares.iter().zip(engines) {
                    after[usize::from(engine)] += share;
                }
                prop_assert!(after.iter().all(|l| *l <= 20));
            }
        }
    }
}
