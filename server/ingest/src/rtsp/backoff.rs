//! How long to wait before the next attempt: 0.5 s, doubling up to 15 s, spread by a quarter either way.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(15);

/// Failed attempts since the last good connection.
#[derive(Default)]
pub struct Backoff(u32);

impl Backoff {
    /// `random`: any 32 random bits, so that cameras behind one switch are not all asked at once.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let base = FIRST.saturating_mul(1 << self.0.min(5)).min(LAST);
        self.0 = self.0.saturating_add(1);
        let spread = base / 2;
        base - spread / 2 + spread.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_last_and_stay_within_a_quarter_of_it() {
        let mut backoff = Backoff::default();
        for expected in [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000] {
            let mut other = Backoff(backoff.0);
            assert_eq!(other.next_delay(0), Duration::from_millis(expected * 3 / 4));
            assert_eq!(backoff.next_delay(u32::MAX), Duration::from_millis(expected * 5 / 4));
        }
        assert_eq!(Backoff(u32::MAX).next_delay(0), LAST * 3 / 4);
    }
}
