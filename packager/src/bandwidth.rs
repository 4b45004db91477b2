//! What the multivariant playlist declares of a rendition's bit rate (bis 4.4.6.2). docs/adr/0014 has the rule's reasons.
//!
//! Players read that playlist once, often when a second of media is there, and hold a rendition to it for hours. So a peak that
//! nobody promised is declared with head-room, and as long as little was seen at least at what pictures of that size usually need.

use media::{MediaDuration, TrackConfig};

use crate::window::{Segment, Snapshot};

/// Bits a second with container overhead, over whole segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub peak: u64,
    pub average: u64,
}

/// What a rendition has been since its publisher came: the present one may send less than the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    peak: u64,
    media: MediaDuration,
}

/// Declared above the highest bit rate so far: what Apple's validator forgives once more (AAS 1.29).
const HEAD_ROOM_PERCENT: u64 = 125;

/// Media after which a source is known: browsers need half of it to find the bit rate that their network carries.
const KNOWN_AFTER: MediaDuration = MediaDuration(30 * media::FLICKS_PER_SECOND);

/// Frames a second from which on pictures need half as much again.
const FAST_MILLI: u32 = 40_000;

impl Sent {
    pub fn add(&mut self, segment: &Segment, target: MediaDuration) {
        self.media += segment.duration;
        self.peak = self.peak.max(peak_of(segment, target).unwrap_or(0));
    }
}

impl Snapshot {
    /// Peak over the segments since the publisher came and those still listed, each of at least half the target duration;
    /// average over the listed ones. Before the first segment both over the open one.
    pub fn bandwidth(&self) -> Bandwidth {
        let target = self.timing.target();
        let media = || self.listed.iter().filter(|s| !s.gap);
        let peak = media().filter_map(|s| peak_of(s, target)).max();
        let (bytes, duration) = media().fold((0, MediaDuration::ZERO), |(b, d), s| (b + s.bytes(), d + s.duration));
        let average = rate(bytes, duration);
        match peak {
            Some(peak) => Bandwidth { peak: peak.max(self.sent.peak).max(average), average },
            None => {
                let open = self.open.as_ref().map_or(0, |open| {
                    let bytes = open.parts.iter().filter_map(|p| p.bytes.as_ref()).map(|b| b.len() as u64).sum();
                    rate(bytes, open.duration)
                });
                let average = open.max(average);
                Bandwidth { peak: average.max(self.sent.peak), average }
            }
        }
    }

    /// What players are told, never less than was sent. `promised` is the peak of who has the coding in hand: our encoder, or the
    /// operator who knows the publisher.
    pub fn declared(&self, promised: Option<u64>) -> Bandwidth {
        let measured = self.bandwidth();
        let peak = match promised {
            Some(promised) => measured.peak.max(promised),
            None => {
                let young = self.sent.media < KNOWN_AFTER;
                let usual = self.config.as_ref().filter(|_| young).map_or(0, |c| usual(c, self.frame_rate_milli));
                (measured.peak * HEAD_ROOM_PERCENT / 100).max(usual)
            }
        };
        Bandwidth { peak, average: if measured.average == 0 { peak } else { measured.average } }
    }
}

/// What live sources of these parameters send at the most: the area to the power of 3/4, 8 Mbit/s at 1920 × 1080. That is above
/// what browsers send by themselves (1.7 Mbit/s at 640 × 480, 2.5 at 1280 × 720) and what services ask of broadcasters (6 at 1920 × 1080).
fn usual(config: &TrackConfig, frame_rate_milli: Option<u32>) -> u64 {
    const AREA: u128 = 1920 * 1080;
    const BITS: u128 = 8_000_000;
    match config {
        // No publisher brings the newer codecs; they need less.
        TrackConfig::H264(_) | TrackConfig::H265(_) | TrackConfig::Av1(_) => {
            let (width, height) = config.size().unwrap_or((0, 0));
            let root = |n: u128| n.isqrt().isqrt();
            let area = u128::from(width) * u128::from(height);
            let bits = u64::try_from(BITS * root(area.pow(3)) / root(AREA.pow(3))).unwrap_or(u64::MAX / 2);
            if frame_rate_milli.is_some_and(|rate| rate > FAST_MILLI) { bits + bits / 2 } else { bits }
        }
        TrackConfig::Aac(c) => 64_000 * u64::from(c.channels),
        TrackConfig::Opus(c) => 64_000 * u64::from(c.channels),
    }
}

/// None: too short to tell of its bit rate, or without media.
fn peak_of(segment: &Segment, target: MediaDuration) -> Option<u64> {
    (!segment.gap && segment.duration.0 >= target.0 / 2).then(|| rate(segment.bytes(), segment.duration))
}

/// Bits a second.
fn rate(bytes: u64, duration: MediaDuration) -> u64 {
    let micros = u64::try_from(duration.micros()).unwrap_or(0);
    bytes.saturating_mul(8_000_000).checked_div(micros).unwrap_or(0)
}
