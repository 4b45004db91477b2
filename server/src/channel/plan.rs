//! What a session's tracks become: which renditions a channel has, how they cut parts, what the engine must make.
//!
//! Pure: tracks and ladder in, plan out.

use std::sync::Arc;

use engine::backend::Policy;
use engine::{LadderSpec, VideoRung};
use media::{AccessUnit, H264Config, MediaDuration, RenditionId, TrackConfig, TrackKind};
use packager::PartRule;

use super::Message;
use crate::config::{Ladder, Rung};
use crate::fleet::Admitted;

/// Samples in a frame of the AAC-LC that the engine makes.
const AAC_FRAME: i64 = 1024;

/// The tracks that a session brought, as seen in its first units.
#[derive(Clone, Debug, Default)]
pub struct Tracks {
    pub video: Option<Arc<TrackConfig>>,
    /// Duration of a video frame, where the source is steady enough to tell.
    pub frame: Option<MediaDuration>,
    pub audio: Option<Arc<TrackConfig>>,
    /// Duration of an audio frame.
    pub audio_frame: MediaDuration,
}

/// Where a rendition's units come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The publisher's own units.
    Passthrough,
    /// The engine's.
    Engine,
}

#[derive(Clone, Debug)]
pub struct PlannedRendition {
    pub id: RenditionId,
    pub kind: TrackKind,
    pub origin: Origin,
    pub rule: PartRule,
    /// Bits a second to declare, where they are known beforehand.
    pub ceiling: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub renditions: Vec<PlannedRendition>,
    /// What the engine has to make; None where everything is passed through.
    pub engine: Option<LadderSpec>,
    /// What the operator should know of where it is made.
    pub message: Option<Message>,
}

/// Head-room of a declared bit rate over an encoder's target: rate control and fMP4 overhead stay below it.
const CEILING_PERCENT: u64 = 120;

/// Asks whoever owns the devices what may run of a ladder's rungs.
pub type Admit = Box<dyn FnMut(&H264Config, Vec<VideoRung>, Policy) -> Admitted + Send>;

impl Plan {
    /// Audio is transcoded, whatever the ladder, where players need it. `admit` is asked only about video to encode.
    pub fn new(tracks: &Tracks, ladder: &Ladder, part_aim: MediaDuration, admit: &mut Admit) -> Self {
        let video = match tracks.video.as_deref() {
            // What was measured is truer than what the publisher's SPS says.
            Some(TrackConfig::H264(source)) => {
                Some(H264Config { frame_rate: tracks.frame.and_then(frame_rate_of), ..source.clone() })
            }
            _ => None,
        };
        let requests: Vec<_> = ladder.rungs.iter().map(Rung::request).collect();
        let mut spec = engine::resolve(
            video.as_ref(),
            tracks.audio.as_deref(),
            &requests,
            ladder.passthrough,
            ladder.audio_bitrate,
        );
        let mut message = None;
        if let Some(source) = video.as_ref().filter(|_| !spec.video.is_empty()) {
            let admitted = admit(source, std::mem::take(&mut spec.video), ladder.policy);
            spec.video = admitted.video;
            message = admitted.message;
        }
        let mut renditions = Vec::new();
        if video.is_some() && ladder.passthrough {
            let rule = PartRule::video(part_aim, tracks.frame);
            let ceiling = ladder.source_bitrate.map(ceiling_of);
            renditions.push(planned("src", TrackKind::Video, Origin::Passthrough, rule, ceiling));
        }
        for rung in &spec.video {
            // A rung's own rate divides a steady source's frames; an unsteady source makes unsteady rungs.
            let reduced = rung.frame_rate.map(|(n, d)| MediaDuration::from_ticks(d.into(), n));
            let frame = tracks.frame.map(|frame| reduced.unwrap_or(frame));
            let rule = PartRule::video(part_aim, frame);
            renditions.push(encoded(&rung.id, TrackKind::Video, rule, rung.bitrate));
        }
        if let Some(rung) = &spec.audio {
            let rule = PartRule::audio(part_aim, MediaDuration::from_ticks(AAC_FRAME, rung.sample_rate));
            renditions.push(encoded(&rung.id, TrackKind::Audio, rule, rung.bitrate));
        }
        let own_audio = match tracks.audio.as_deref() {
            Some(TrackConfig::Aac(_)) => Some("aac"),
            Some(TrackConfig::Opus(_)) => Some("opus"),
            _ => None,
        };
        if let Some(id) = own_audio {
            let rule = PartRule::audio(part_aim, tracks.audio_frame);
            renditions.push(planned(id, TrackKind::Audio, Origin::Passthrough, rule, None));
        }
        let engine = (!spec.is_empty()).then_some(spec);
        Self { renditions, engine, message }
    }
}

fn encoded(id: &RenditionId, kind: TrackKind, rule: PartRule, bitrate: u32) -> PlannedRendition {
    let ceiling = Some(ceiling_of(bitrate));
    PlannedRendition { id: id.clone(), kind, origin: Origin::Engine, rule, ceiling }
}

fn planned(id: &str, kind: TrackKind, origin: Origin, rule: PartRule, ceiling: Option<u64>) -> PlannedRendition {
    PlannedRendition { id: rendition_id(id), kind, origin, rule, ceiling }
}

fn ceiling_of(bitrate: u32) -> u64 {
    u64::from(bitrate) * CEILING_PERCENT / 100
}

fn rendition_id(id: &str) -> RenditionId {
    id.parse().expect("our own rendition names follow the grammar")
}

/// Frame rates that sources mean when they are close to them: (frames, seconds).
const USUAL_RATES: [(u32, u32); 14] = [
    (10, 1),
    (12, 1),
    (15, 1),
    (20, 1),
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (120, 1),
];

/// The usual rate whose frame lasts exactly `frame`.
fn frame_rate_of(frame: MediaDuration) -> Option<(u32, u32)> {
    USUAL_RATES.into_iter().find(|&(n, d)| MediaDuration::from_ticks(d.into(), n) == frame)
}

/// A video frame's duration out of the first units: the usual rate within 2 % of the median distance, where no distance
/// strays from it by more than 3 ms. A publisher with an unsteady clock (a browser) has none.
pub fn steady_frame(units: &[AccessUnit]) -> Option<MediaDuration> {
    let mut times: Vec<_> = units.iter().filter(|u| u.kind() == TrackKind::Video).map(|u| u.pts).collect();
    times.sort_unstable();
    let mut distances: Vec<i64> = times.windows(2).map(|w| (w[1] - w[0]).0).collect();
    if distances.len() < 3 {
        return None;
    }
    distances.sort_unstable();
    let median = distances[distances.len() / 2];
    let tolerance = MediaDuration::from_millis(3).0;
    if distances.iter().any(|d| (d - median).abs() > tolerance) {
        return None;
    }
    USUAL_RATES
        .into_iter()
        .map(|(n, d)| MediaDuration::from_ticks(d.into(), n))
        .min_by_key(|frame| (frame.0 - median).abs())
        .filter(|frame| (frame.0 - median).abs() * 50 <= median)
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use media::{MediaTime, OpusConfig};

    use super::*;

    fn video(ms: &[i64]) -> Vec<AccessUnit> {
        let config = h264();
        ms.iter()
            .map(|ms| {
                let pts = MediaTime::from_millis(*ms);
                AccessUnit { pts, dts: pts, duration: None, key: true, config: config.clone(), data: Bytes::new() }
            })
            .collect()
    }

    fn h264() -> Arc<TrackConfig> {
        TrackConfig::H264(H264Config {
            sps: Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f]),
            pps: vec![],
            width: 1280,
            height: 720,
            sar: (1, 1),
            reorder_depth: 0,
            frame_rate: None,
        })
        .shared()
    }

    #[test]
    fn a_steady_source_has_a_usual_frame_duration() {
        assert_eq!(steady_frame(&video(&[0, 33, 67, 100, 133])), Some(MediaDuration::from_ticks(1, 30)));
        assert_eq!(steady_frame(&video(&[0, 40, 80, 120])), Some(MediaDuration::from_ticks(1, 25)));
        assert_eq!(steady_frame(&video(&[0, 33, 50, 100])), None);
        assert_eq!(steady_frame(&video(&[0, 33])), None);
    }

    pub fn everything() -> Admit {
        Box::new(|_, video, _| Admitted { video, message: None })
    }

    #[test]
    fn opus_gets_an_aac_rendition_from_the_engine_even_without_a_ladder() {
        let audio = TrackConfig::Opus(OpusConfig { channels: 2, pre_skip: 0 }).shared();
        let tracks = Tracks {
            video: Some(h264()),
            frame: None,
            audio: Some(audio),
            audio_frame: MediaDuration::from_millis(20),
        };
        let plan = Plan::new(&tracks, &Ladder::passthrough(), MediaDuration::from_millis(200), &mut everything());
        let ids: Vec<_> = plan.renditions.iter().map(|r| (r.id.as_str(), r.origin)).collect();
        assert_eq!(ids, [("src", Origin::Passthrough), ("aac", Origin::Engine), ("opus", Origin::Passthrough)]);
        assert!(plan.engine.is_some_and(|e| e.video.is_empty() && e.audio.is_some()));
    }

    /// A56: what is known beforehand is promised with room for rate control; of a publisher's own coding nothing is, unless told.
    #[test]
    fn a56_bit_rates_that_are_known_are_promised() {
        let tracks = Tracks { video: Some(h264()), ..Tracks::default() };
        let rung = Rung::usual(360, 700_000);
        for (source_bitrate, promised) in [(None, None), (Some(6_000_000), Some(7_200_000))] {
            let ladder = Ladder { source_bitrate, rungs: vec![rung.clone()], ..Ladder::passthrough() };
            let plan = Plan::new(&tracks, &ladder, MediaDuration::from_millis(200), &mut everything());
            let ceilings: Vec<_> = plan.renditions.iter().map(|r| (r.id.as_str(), r.ceiling)).collect();
            assert_eq!(ceilings, [("src", promised), ("v360", Some(840_000))]);
        }
    }
}
