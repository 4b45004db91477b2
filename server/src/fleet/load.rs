//! What was measured of a device, as the API tells it and as the placer takes it.

use std::time::SystemTime;

use engine::gauge::Sample;
use media::WallTime;
use placement::device::{Share, WHOLE};
use placement::{At, Load};
use serde::Serialize;

/// Below this a device is as good as gone, and its measurement more likely wrong than right.
const LEAST_SPEED: u16 = 10;
/// The weight of the latest second in the average that placement takes: one busy moment is no load.
const LATEST: f64 = 0.25;

/// All programs together; None is what is not told.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Busy time of all encoder and decoder engines, 0 to 1.
    pub encode: Option<f64>,
    pub decode: Option<f64>,
    pub vram_mib: Option<u64>,
    pub vram_total_mib: Option<u64>,
    pub temperature_c: Option<u32>,
    /// Why its clock is lowered; empty: it is not.
    pub throttle: Vec<String>,
    /// Of its nominal clock while it throttles, else 1.
    pub speed: f64,
    pub encoding_sessions: Option<u32>,
    /// Cores that a simulated device's worker takes.
    pub cpu: Option<f64>,
    pub simulated: bool,
    /// RFC 3339, UTC.
    pub at: String,
}

impl Measured {
    pub fn of_gpu(sample: &Sample, at: SystemTime) -> Self {
        let share = |percent: Option<u32>| percent.map(|p| f64::from(p.min(100)) / 100.0);
        // An idle GPU lowers its clock too, and raises it when there is work: that is no loss of speed.
        let speed = match sample.video_clock.filter(|(_, most)| *most > 0 && !sample.throttle.is_empty()) {
            Some((now, most)) => f64::from(now.min(most)) / f64::from(most),
            None => 1.0,
        };
        Self {
            encode: share(sample.encoder),
            decode: share(sample.decoder),
            vram_mib: sample.vram_used_mib,
            vram_total_mib: sample.vram_total_mib,
            temperature_c: sample.temperature_c,
            throttle: sample.throttle.clone(),
            speed,
            encoding_sessions: sample.encoding_sessions,
            cpu: None,
            simulated: false,
            at: WallTime::from_system(at).to_string(),
        }
    }

    /// A simulated device has no engines whose time could be measured, only its worker's; `throttled`: to so many per cent.
    pub fn of_simulated(cpu: Option<f64>, throttled: Option<u16>, at: SystemTime) -> Self {
        Self {
            throttle: throttled.map(|_| "simulated".to_owned()).into_iter().collect(),
            speed: f64::from(throttled.unwrap_or(100)) / 100.0,
            cpu,
            simulated: true,
            at: WallTime::from_system(at).to_string(),
            ..Self::default()
        }
    }

    /// Per cent.
    pub fn speed_percent(&self) -> u16 {
        // From 0 to 100, so nothing is cut off but a fraction.
        ((self.speed * 100.0).round() as u16).clamp(LEAST_SPEED, 100)
    }
}

/// A device's load as the placer takes it: engines averaged over some seconds, the rest as it was last.
#[derive(Clone, Debug, Default)]
pub struct Smoothed {
    encode: f64,
    decode: f64,
}

impl Smoothed {
    /// `speed`: per cent. Where nothing is measured, reservations are all that is known.
    pub fn load(&mut self, measured: Option<&Measured>, speed: u16, as_of: At) -> Load {
        let blend = |average: &mut f64, latest: Option<f64>| {
            *average += LATEST * (latest.unwrap_or_default() - *average);
            (*average * f64::from(WHOLE)) as Share
        };
        let small = |value: Option<u64>| value.map_or(0, |v| u32::try_from(v).unwrap_or(u32::MAX));
        Load {
            encode: blend(&mut self.encode, measured.and_then(|m| m.encode)),
            decode: blend(&mut self.decode, measured.and_then(|m| m.decode)),
            vram: small(measured.and_then(|m| m.vram_mib)),
            sessions: measured.and_then(|m| m.encoding_sessions).unwrap_or_default(),
            speed,
            as_of,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_clock_is_a_loss_of_speed_only_while_the_gpu_throttles() {
        let idle = Sample { uuid: "GPU-1".to_owned(), video_clock: Some((405, 1770)), ..Sample::default() };
        assert_eq!(Measured::of_gpu(&idle, SystemTime::UNIX_EPOCH).speed_percent(), 100);
        let hot = Sample { video_clock: Some((885, 1770)), throttle: vec!["thermal".to_owned()], ..idle.clone() };
        assert_eq!(Measured::of_gpu(&hot, SystemTime::UNIX_EPOCH).speed_percent(), 50);
        // Without clocks nobody knows by how much.
        let dumb = Sample { video_clock: None, ..hot };
        assert_eq!(Measured::of_gpu(&dumb, SystemTime::UNIX_EPOCH).speed_percent(), 100);
        let stopped = Sample { video_clock: Some((0, 1770)), throttle: vec!["thermal".to_owned()], ..idle };
        assert_eq!(Measured::of_gpu(&stopped, SystemTime::UNIX_EPOCH).speed_percent(), LEAST_SPEED);
    }

    #[test]
    fn one_busy_second_is_no_load_and_many_are() {
        let mut smoothed = Smoothed::default();
        let busy = Measured { encode: Some(1.0), ..Measured::of_simulated(None, None, SystemTime::UNIX_EPOCH) };
        assert_eq!(smoothed.load(Some(&busy), 100, At(0)).encode, 250_000);
        let after: Vec<u32> = (1..20).map(|n| smoothed.load(Some(&busy), 100, At(n)).encode).collect();
        assert!(after.is_sorted() && after.last().is_some_and(|l| *l > 990_000), "{after:?}");
        assert!((0..20).map(|n| smoothed.load(None, 100, At(n)).encode).last().is_some_and(|l| l < 10_000));
    }
}
