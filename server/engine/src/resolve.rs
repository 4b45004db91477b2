//! From the operator's ladder to the ladder for one source: never upscaled, aspect ratio kept. Pure.

use media::{H264Config, RenditionId, TrackConfig};

use crate::backend::{Codec, Tune};
use crate::spec::{AudioRung, LadderSpec, VideoRung};

/// One rung as the operator asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RungRequest {
    /// Height in pixels; the width follows the source's aspect ratio.
    pub height: u32,
    /// Bits a second.
    pub bitrate: u32,
    /// Upper bound in frames a second.
    pub max_frame_rate: Option<u32>,
    pub codec: Codec,
    pub preset: String,
    pub tune: Tune,
}

/// Encoders and players want at least a macroblock each way.
const MIN_SIDE: u32 = 16;
/// Rates of AAC-LC that every player takes; what comes in (Opus) is always 48 kHz.
const AUDIO_SAMPLE_RATE: u32 = 48_000;

/// The ladder for a source. With `passthrough` the publisher's own video is the top rendition, so H.264 rungs as high as the
/// source fall away too; without it at least one rung of each codec is left, at the source's size if all asked for more.
/// Audio that is AAC already needs no rung.
pub fn resolve(
    video: Option<&H264Config>,
    audio: Option<&TrackConfig>,
    rungs: &[RungRequest],
    passthrough: bool,
    audio_bitrate: u32,
) -> LadderSpec {
    let video = video.map_or_else(Vec::new, |source| resolve_video(source, rungs, passthrough));
    let audio = match audio {
        Some(TrackConfig::Opus(opus)) => RenditionId::try_from("aac".to_owned()).ok().map(|id| AudioRung {
            id,
            bitrate: audio_bitrate,
            sample_rate: AUDIO_SAMPLE_RATE,
            channels: opus.channels.clamp(1, 2),
        }),
        Some(TrackConfig::Aac(_) | TrackConfig::H264(_) | TrackConfig::H265(_) | TrackConfig::Av1(_)) | None => None,
    };
    LadderSpec { video, audio }
}

fn resolve_video(source: &H264Config, rungs: &[RungRequest], passthrough: bool) -> Vec<VideoRung> {
    let (full_width, full_height) = square_pixel_size(source);
    let mut wanted: Vec<&RungRequest> = rungs.iter().collect();
    // Highest first; of two rungs of one height and codec, which are the rendition's name, the one with more bits stays.
    let rank = |r: &&RungRequest| (std::cmp::Reverse(even(r.height)), r.codec, std::cmp::Reverse(r.bitrate));
    wanted.sort_by_key(rank);
    wanted.dedup_by_key(|r| (even(r.height), r.codec));
    // What is passed through is H.264, so a rung of another codec is worth it at that height too.
    let passed = |r: &RungRequest| passthrough && r.codec == Codec::H264;
    let fits = |r: &RungRequest| if passed(r) { r.height < full_height } else { r.height <= full_height };
    let mut kept: Vec<(u32, &RungRequest)> = wanted.iter().filter(|r| fits(r)).map(|r| (r.height, *r)).collect();
    for codec in [Codec::H264, Codec::H265, Codec::Av1] {
        if !passthrough
            && kept.iter().all(|(_, r)| r.codec != codec)
            && let Some(smallest) = wanted.iter().rfind(|r| r.codec == codec)
        {
            kept.push((full_height, smallest));
        }
    }
    kept.sort_by_key(|(height, r)| (std::cmp::Reverse(*height), r.codec));
    kept.into_iter().filter_map(|(height, r)| rung(source, r, full_width, full_height, height)).collect()
}

/// `v480`, `v480-h265`, `v480-av1`: renditions of the usual codec are named by their height alone.
pub fn rendition_id(height: u32, codec: Codec) -> Option<RenditionId> {
    let name = match codec {
        Codec::H264 => format!("v{height}"),
        Codec::H265 => format!("v{height}-h265"),
        Codec::Av1 => format!("v{height}-av1"),
    };
    name.parse().ok()
}

/// The largest square-pixel picture that needs no upscaling: the side that the sample aspect ratio would stretch keeps
/// its length and the other one shrinks.
fn square_pixel_size(source: &H264Config) -> (u32, u32) {
    let (n, d) = match source.sar {
        (0, _) | (_, 0) => (1, 1),
        sar => sar,
    };
    if n > d { (source.width, scaled(source.height, d, n)) } else { (scaled(source.width, n, d), source.height) }
}

fn rung(source: &H264Config, request: &RungRequest, full_w: u32, full_h: u32, height: u32) -> Option<VideoRung> {
    let height = even(height).max(MIN_SIDE);
    let width = if height >= even(full_h) { even(full_w) } else { even_nearest(full_w, height, full_h) };
    let width = width.min(even(full_w)).max(MIN_SIDE);
    Some(VideoRung {
        id: rendition_id(height, request.codec)?,
        width,
        height,
        frame_rate: request.max_frame_rate.filter(|max| *max > 0).and_then(|max| match source.frame_rate {
            Some((n, d)) if d > 0 && u64::from(n) <= u64::from(max) * u64::from(d) => None,
            _ => Some((max, 1)),
        }),
        codec: request.codec,
        bitrate: request.bitrate,
        preset: request.preset.clone(),
        tune: request.tune,
    })
}

fn even(v: u32) -> u32 {
    v & !1
}

/// `value * n / d`, saturating; `d` > 0.
fn scaled(value: u32, n: u32, d: u32) -> u32 {
    u32::try_from(u64::from(value) * u64::from(n) / u64::from(d.max(1))).unwrap_or(u32::MAX)
}

/// The even number nearest to `full_w * h / full_h`.
fn even_nearest(full_w: u32, h: u32, full_h: u32) -> u32 {
    let full_h = u64::from(full_h.max(1));
    let twice = u64::from(full_w) * u64::from(h) + full_h;
    u32::try_from(twice / (2 * full_h) * 2).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use media::{AacConfig, OpusConfig};
    use proptest::prelude::*;

    use super::*;

    fn source(width: u32, height: u32, sar: (u32, u32), frame_rate: Option<(u32, u32)>) -> H264Config {
        H264Config { sps: Bytes::new(), pps: vec![], width, height, sar, reorder_depth: 0, frame_rate }
    }

    fn request(height: u32) -> RungRequest {
        coded(height, Codec::H264)
    }

    fn coded(height: u32, codec: Codec) -> RungRequest {
        let (preset, tune) = ("veryfast".into(), Tune::default());
        RungRequest { height, bitrate: height * 3000, max_frame_rate: None, codec, preset, tune }
    }

    fn sizes(spec: &LadderSpec) -> Vec<(String, u32, u32)> {
        spec.video.iter().map(|r| (r.id.to_string(), r.width, r.height)).collect()
    }

    #[test]
    fn rungs_at_or_above_the_source_fall_away_under_passthrough() {
        let ladder = [request(1080), request(720), request(360)];
        let hd = source(1280, 720, (1, 1), None);
        assert_eq!(sizes(&resolve(Some(&hd), None, &ladder, true, 0)), [("v360".into(), 640, 360)]);
        assert_eq!(
            sizes(&resolve(Some(&hd), None, &ladder, false, 0)),
            [("v720".into(), 1280, 720), ("v360".into(), 640, 360)]
        );
    }

    #[test]
    fn a_small_source_keeps_one_rung_of_its_own_size_only_without_passthrough() {
        let small = source(320, 181, (1, 1), None);
        assert_eq!(sizes(&resolve(Some(&small), None, &[request(720)], false, 0)), [("v180".into(), 320, 180)]);
        assert!(resolve(Some(&small), None, &[request(720)], true, 0).video.is_empty());
    }

    #[test]
    fn rungs_of_one_height_and_different_codecs_are_different_renditions() {
        let ladder =
            [coded(480, Codec::Av1), coded(480, Codec::H264), coded(480, Codec::H265), coded(720, Codec::H265)];
        let sd = source(854, 480, (1, 1), None);
        let ids = |passthrough| -> Vec<String> {
            resolve(Some(&sd), None, &ladder, passthrough, 0).video.iter().map(|r| r.id.to_string()).collect()
        };
        assert_eq!(ids(false), ["v480", "v480-h265", "v480-av1"]);
        // The publisher's own video is H.264 of that height already.
        assert_eq!(ids(true), ["v480-h265", "v480-av1"]);
    }

    /// Who decodes only one of the codecs must find one.
    #[test]
    fn a_small_source_keeps_one_rung_of_each_codec_without_passthrough() {
        let ladder =
            [coded(1080, Codec::H264), coded(720, Codec::H264), coded(360, Codec::H265), coded(1080, Codec::Av1)];
        let small = source(640, 360, (1, 1), None);
        let spec = resolve(Some(&small), None, &ladder, false, 0);
        let got: Vec<_> = spec.video.iter().map(|r| (r.id.as_str(), r.height, r.bitrate)).collect();
        let wanted = [("v360", 360, 720 * 3000), ("v360-h265", 360, 360 * 3000), ("v360-av1", 360, 1080 * 3000)];
        assert_eq!(got, wanted);
        let spec = resolve(Some(&small), None, &ladder, true, 0);
        assert_eq!(spec.video.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["v360-h265"]);
    }

    #[test]
    fn sample_aspect_ratio_is_applied_by_shrinking() {
        // PAL 16:9: 1024x576 on a square-pixel screen, but the source has only 720 columns.
        let pal = source(720, 576, (64, 45), None);
        assert_eq!(sizes(&resolve(Some(&pal), None, &[request(576)], false, 0)), [("v404".into(), 720, 404)]);
        assert_eq!(sizes(&resolve(Some(&pal), None, &[request(360)], false, 0)), [("v360".into(), 640, 360)]);
    }

    #[test]
    fn frame_rate_is_bounded_only_where_the_source_is_faster_or_unknown() {
        let mut r = request(360);
        r.max_frame_rate = Some(30);
        let of = |rate| {
            let s = source(1280, 720, (1, 1), rate);
            resolve(Some(&s), None, std::slice::from_ref(&r), true, 0).video[0].frame_rate
        };
        assert_eq!(of(Some((60, 1))), Some((30, 1)));
        assert_eq!(of(None), Some((30, 1)));
        assert_eq!(of(Some((30, 1))), None);
        assert_eq!(of(Some((30_000, 1001))), None);
    }

    #[test]
    fn only_opus_needs_an_audio_rung() {
        let opus = TrackConfig::Opus(OpusConfig { channels: 1, pre_skip: 0 });
        let rung = resolve(None, Some(&opus), &[], true, 96_000).audio.unwrap();
        assert_eq!((rung.id.as_str(), rung.bitrate, rung.sample_rate, rung.channels), ("aac", 96_000, 48_000, 1));
        let aac = TrackConfig::Aac(AacConfig {
            asc: Bytes::from_static(&[0x11, 0x90]),
            sample_rate: 48_000,
            channels: 2,
            object_type: 2,
            frame_samples: 1024,
        });
        assert!(resolve(None, Some(&aac), &[], true, 96_000).is_empty());
    }

    proptest! {
        #[test]
        fn never_upscales_and_keeps_the_aspect_ratio(
            w in 64u32..4096, h in 64u32..4096, sar in prop_oneof![Just((1u32, 1u32)), (1u32..4, 1u32..4), Just((0, 0))],
            heights in proptest::collection::vec((16u32..2400, prop_oneof![Just(Codec::H264), Just(Codec::H265), Just(Codec::Av1)]), 0..6),
            passthrough: bool,
        ) {
            let src = source(w, h, sar, Some((30, 1)));
            let ladder: Vec<_> = heights.iter().map(|(h, codec)| coded(*h, *codec)).collect();
            let spec = resolve(Some(&src), None, &ladder, passthrough, 0);
            prop_assert!(spec.video.len() <= ladder.len());
            if !passthrough && !ladder.is_empty() {
                prop_assert!(!spec.video.is_empty());
            }
            let (fw, fh) = square_pixel_size(&src);
            for rung in &spec.video {
                prop_assert_eq!((rung.width % 2, rung.height % 2), (0, 0));
                prop_assert!(rung.width <= w.max(MIN_SIDE) && rung.height <= h.max(MIN_SIDE));
                // Within the two pixels that evenness costs each way.
                let (rw, rh) = (i64::from(rung.width), i64::from(rung.height));
                let error = (rw * i64::from(fh) - rh * i64::from(fw)).abs();
                prop_assert!(error <= 2 * i64::from(fh) + 2 * i64::from(fw) || rung.width == MIN_SIDE || rung.height == MIN_SIDE);
            }
            let ids: std::collections::BTreeSet<_> = spec.video.iter().map(|r| r.id.clone()).collect();
            prop_assert_eq!(ids.len(), spec.video.len());
        }
    }
}
