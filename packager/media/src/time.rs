//! Media time, durations and wall-clock time: three types that cannot be mixed up.
//!
//! Media time counts flicks (1/705,600,000 s): one flick divides a tick of every clock we meet exactly,
//! 90 kHz video, 48 and 44.1 kHz audio, and all the usual frame rates, the 1001 ones too.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Flicks in one second.
pub const FLICKS_PER_SECOND: i64 = 705_600_000;

/// A point on a media timeline, in flicks. May be negative (a DTS ahead of the first PTS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(pub i64);

/// A signed length of media time, in flicks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaDuration(pub i64);

/// A point of the wall clock, in microseconds since the Unix epoch (UTC, leap seconds ignored).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

/// "What is at `media` on the session's timeline was captured at `wall`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockMap {
    pub media: MediaTime,
    pub wall: WallTime,
}

/// Rounds `value * num / den` to the nearest integer, halves away from zero; `den` must be positive.
fn mul_div_round(value: i64, num: i64, den: i64) -> i64 {
    let product = i128::from(value) * i128::from(num);
    let den = i128::from(den);
    let half = if product >= 0 { den / 2 } else { -(den / 2) };
    i64::try_from((product + half) / den).unwrap_or(if product >= 0 { i64::MAX } else { i64::MIN })
}

macro_rules! units {
    ($t:ident) => {
        impl $t {
            pub const ZERO: Self = Self(0);

            /// From ticks of a clock of `rate` Hz (rounded to the nearest flick; exact for the usual rates).
            pub fn from_ticks(ticks: i64, rate: u32) -> Self {
                Self(mul_div_round(ticks, FLICKS_PER_SECOND, i64::from(rate.max(1))))
            }

            /// In ticks of a clock of `rate` Hz, rounded to the nearest.
            pub fn ticks(self, rate: u32) -> i64 {
                mul_div_round(self.0, i64::from(rate), FLICKS_PER_SECOND)
            }

            pub fn from_nanos(nanos: i64) -> Self {
                Self(mul_div_round(nanos, FLICKS_PER_SECOND, 1_000_000_000))
            }

            pub fn nanos(self) -> i64 {
                mul_div_round(self.0, 1_000_000_000, FLICKS_PER_SECOND)
            }

            pub fn from_micros(micros: i64) -> Self {
                Self(mul_div_round(micros, FLICKS_PER_SECOND, 1_000_000))
            }

            pub fn micros(self) -> i64 {
                mul_div_round(self.0, 1_000_000, FLICKS_PER_SECOND)
            }

            pub fn from_millis(millis: i64) -> Self {
                Self(mul_div_round(millis, FLICKS_PER_SECOND, 1_000))
            }

            pub fn millis(self) -> i64 {
                mul_div_round(self.0, 1_000, FLICKS_PER_SECOND)
            }
        }
    };
}
units!(MediaTime);
units!(MediaDuration);

impl MediaDuration {
    /// From a `std` duration; saturates at about 400 years.
    pub fn from_std(d: Duration) -> Self {
        Self::from_nanos(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }

    /// As a `std` duration; negative lengths become zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos()).unwrap_or(0))
    }

    pub fn is_positive(self) -> bool {
        self.0 > 0
    }
}

impl WallTime {
    pub fn from_system(t: SystemTime) -> Self {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Self(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)),
            Err(before) => Self(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX)),
        }
    }

    pub fn plus(self, d: MediaDuration) -> Self {
        Self(self.0.saturating_add(d.micros()))
    }

    pub fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// RFC 3339 in UTC with milliseconds, for example `2026-11-21T02:03:04.567Z`.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
    }
}

/// Days since 1970-01-01 as a date of the Gregorian calendar. Years are counted from March, so that the leap day is last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

impl ClockMap {
    /// The wall time of `at` under this mapping.
    pub fn wall_of(&self, at: MediaTime) -> WallTime {
        self.wall.plus(at - self.media)
    }

    /// The same mapping for a timeline shifted by `offset` (session time + offset = channel time).
    pub fn shifted(self, offset: MediaDuration) -> Self {
        Self { media: self.media + offset, wall: self.wall }
    }
}

impl Add<MediaDuration> for MediaTime {
    type Output = MediaTime;
    fn add(self, d: MediaDuration) -> MediaTime {
        MediaTime(self.0.saturating_add(d.0))
    }
}
impl AddAssign<MediaDuration> for MediaTime {
    fn add_assign(&mut self, d: MediaDuration) {
        *self = *self + d;
    }
}
impl Sub<MediaDuration> for MediaTime {
    type Output = MediaTime;
    fn sub(self, d: MediaDuration) -> MediaTime {
        MediaTime(self.0.saturating_sub(d.0))
    }
}
impl Sub for MediaTime {
    type Output = MediaDuration;
    fn sub(self, other: MediaTime) -> MediaDuration {
        MediaDuration(self.0.saturating_sub(other.0))
    }
}
impl Add for MediaDuration {
    type Output = MediaDuration;
    fn add(self, other: MediaDuration) -> MediaDuration {
        MediaDuration(self.0.saturating_add(other.0))
    }
}
impl AddAssign for MediaDuration {
    fn add_assign(&mut self, other: MediaDuration) {
        *self = *self + other;
    }
}
impl Sub for MediaDuration {
    type Output = MediaDuration;
    fn sub(self, other: MediaDuration) -> MediaDuration {
        MediaDuration(self.0.saturating_sub(other.0))
    }
}
impl SubAssign for MediaDuration {
    fn sub_assign(&mut self, other: MediaDuration) {
        *self = *self - other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_rates_in_use_are_exact() {
        for rate in [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 90_000, 1_000] {
            assert_eq!(FLICKS_PER_SECOND % i64::from(rate), 0, "{rate}");
            assert_eq!(MediaTime::from_ticks(12_345, rate).ticks(rate), 12_345);
        }
        assert_eq!(MediaDuration::from_ticks(1001, 30_000).ticks(90_000), 3003);
    }

    #[test]
    fn nanoseconds_round_trip_a_90_khz_tick() {
        for tick in -5_000..5_000 {
            let t = MediaTime::from_ticks(tick, 90_000);
            assert_eq!(MediaTime::from_nanos(t.nanos()).ticks(90_000), tick);
        }
    }

    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_226_400, "2026-11-21T02:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
        ] {
            assert_eq!(WallTime(seconds * 1_000_000).to_string(), text);
        }
        assert_eq!(WallTime(-1000).to_string(), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn far_values_saturate_instead_of_wrapping() {
        assert_eq!(MediaTime(i64::MAX) + MediaDuration(1), MediaTime(i64::MAX));
        assert_eq!(MediaTime(i64::MIN) - MediaDuration(1), MediaTime(i64::MIN));
        assert_eq!(MediaDuration::from_ticks(i64::MAX, 1), MediaDuration(i64::MAX));
    }
}
