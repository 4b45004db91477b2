//! Bit rate and frame rate of a track over the last seconds, by media time.

use std::collections::VecDeque;

use media::{AccessUnit, MediaDuration, MediaTime};

/// How far back a meter looks.
const SPAN: MediaDuration = MediaDuration(4 * media::FLICKS_PER_SECOND);

/// Units a meter keeps: four seconds at 120 a second; above it the oldest goes.
const LIMIT: usize = 512;

#[derive(Debug, Default)]
pub struct Meter {
    units: VecDeque<(MediaTime, usize)>,
    bytes: usize,
}

impl Meter {
    pub fn add(&mut self, unit: &AccessUnit) {
        self.units.push_back((unit.dts, unit.data.len()));
        self.bytes += unit.data.len();
        while self.units.len() > LIMIT || self.units.front().is_some_and(|(at, _)| unit.dts - *at > SPAN) {
            if let Some((_, bytes)) = self.units.pop_front() {
                self.bytes -= bytes;
            }
        }
    }

    /// Bits a second; 0 before two units.
    pub fn bitrate(&self) -> u64 {
        match self.span() {
            Some(span) => {
                let last = self.units.back().map_or(0, |(_, bytes)| *bytes);
                (self.bytes - last) as u64 * 8 * 1_000_000 / span.micros().unsigned_abs().max(1)
            }
            None => 0,
        }
    }

    /// Units a second; None before two units.
    pub fn rate(&self) -> Option<f64> {
        let span = self.span()?;
        Some((self.units.len() - 1) as f64 * 1e6 / span.micros() as f64)
    }

    fn span(&self) -> Option<MediaDuration> {
        let span = self.units.back()?.0 - self.units.front()?.0;
        span.is_positive().then_some(span)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use media::{OpusConfig, TrackConfig};

    use super::*;

    #[test]
    fn measures_over_the_span_only() {
        let config = TrackConfig::Opus(OpusConfig { channels: 2, pre_skip: 0 }).shared();
        let mut meter = Meter::default();
        for n in 0..1000 {
            let pts = MediaTime::from_millis(n * 20);
            // The first ten seconds at four times the rate must be forgotten.
            let data = Bytes::from(vec![0; if n < 500 { 400 } else { 100 }]);
            meter.add(&AccessUnit { pts, dts: pts, duration: None, key: true, config: config.clone(), data });
        }
        assert_eq!(meter.bitrate(), 40_000);
        assert!((meter.rate().unwrap_or(0.0) - 50.0).abs() < 0.01);
    }
}
