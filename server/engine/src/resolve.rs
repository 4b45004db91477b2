//! The operator's ladder, resolved against one source: never upscaled, aspect ratio kept, no more frames than come in.
//!
//! Pure: numbers in, rungs out.

use media::H264Config;

use crate::VideoRung;

/// A rung as the operator asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RungRequest {
    /// Pixels; the width follows the source's aspect ratio.
    pub height: u32,
    /// Bits a second.
    pub bitrate: u32,
    /// Upper bound in frames a second.
    pub max_frame_rate: Option<u32>,
    /// x264 speed preset.
    pub preset: String,
}

/// The smallest picture worth encoding; narrower ones come from extreme aspect ratios.
const MIN_SIDE: u32 = 16;

/// The rungs to encode for this source, highest first.
///
/// Rungs above the source are left out, and those of its own height too where the source is passed through. If nothing is left
/// and nothing is passed through, the lowest rung is made at the source's size, so that there is something to watch.
/// `source_rate` is (frames, seconds) where the source is steady; a rung above its bound gets an even share of the frames.
pub fn resolve_video(
    source: &H264Config,
    source_rate: Option<(u32, u32)>,
    requests: &[RungRequest],
    passthrough: bool,
) -> Vec<VideoRung> {
    let fits =
        |request: &&RungRequest| request.height < source.height || (request.height == source.height && !passthrough);
    let mut rungs: Vec<VideoRung> =
        requests.iter().filter(fits).filter_map(|r| rung(source, source_rate, r, r.height)).collect();
    if rungs.is_empty()
        && !passthrough
        && let Some(lowest) = requests.iter().min_by_key(|r| r.height)
    {
        rungs.extend(rung(source, source_rate, lowest, source.height & !1));
    }
    rungs.sort_by_key(|r| std::cmp::Reverse((r.height, r.bitrate)));
    rungs.dedup_by(|a, b| a.id == b.id);
    rungs
}

fn rung(source: &H264Config, rate: Option<(u32, u32)>, request: &RungRequest, height: u32) -> Option<VideoRung> {
    let (num, den) = (u64::from(source.sar.0.max(1)), u64::from(source.sar.1.max(1)));
    let display_width = u64::from(source.width) * num / den;
    // To the nearest even number: 4:2:0 has one chroma sample for two pixels.
    let width =
        (display_width * u64::from(height) + u64::from(source.height)) / (2 * u64::from(source.height.max(1))) * 2;
    let width = u32::try_from(width).ok()?;
    if width < MIN_SIDE || height < MIN_SIDE || width > 8192 {
        return None;
    }
    Some(VideoRung {
        id: format!("v{height}").parse().ok()?,
        width,
        height,
        frame_rate: rate.and_then(|rate| divided(rate, request.max_frame_rate?)),
        bitrate: request.bitrate,
        preset: request.preset.clone(),
    })
}

/// The largest whole share of the source's frames within the bound; None where all of them fit.
fn divided((frames, seconds): (u32, u32), bound: u32) -> Option<(u32, u32)> {
    let limit = u64::from(bound.max(1)) * u64::from(seconds);
    let divisor = u64::from(frames).div_ceil(limit);
    let seconds = u64::from(seconds) * divisor;
    (divisor > 1).then_some((frames, u32::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn source(width: u32, height: u32, sar: (u32, u32)) -> H264Config {
        H264Config { sps: Bytes::new(), pps: vec![], width, height, sar, reorder_depth: 0, frame_rate: None }
    }

    fn ask(heights: &[u32], max_frame_rate: Option<u32>) -> Vec<RungRequest> {
        heights
            .iter()
            .map(|&height| RungRequest { height, bitrate: height * 2000, max_frame_rate, preset: "veryfast".into() })
            .collect()
    }

    fn sizes(rungs: &[VideoRung]) -> Vec<(u32, u32)> {
        rungs.iter().map(|r| (r.width, r.height)).collect()
    }

    #[test]
    fn rungs_keep_the_aspect_ratio_and_are_never_above_the_source() {
        let hd = source(1280, 720, (1, 1));
        let all = ask(&[1080, 720, 480, 360], None);
        assert_eq!(sizes(&resolve_video(&hd, None, &all, true)), [(854, 480), (640, 360)]);
        assert_eq!(sizes(&resolve_video(&hd, None, &all, false)), [(1280, 720), (854, 480), (640, 360)]);
        let portrait = source(720, 1280, (1, 1));
        assert_eq!(sizes(&resolve_video(&portrait, None, &ask(&[480], None), true)), [(270, 480)]);
        let anamorphic = source(720, 576, (64, 45));
        assert_eq!(sizes(&resolve_video(&anamorphic, None, &ask(&[360], None), true)), [(640, 360)]);
    }

    #[test]
    fn a_small_source_without_passthrough_still_has_one_rung() {
        let small = source(320, 241, (1, 1));
        assert_eq!(sizes(&resolve_video(&small, None, &ask(&[720, 480], None), false)), [(318, 240)]);
        assert!(resolve_video(&small, None, &ask(&[720, 480], None), true).is_empty());
    }

    #[test]
    fn frame_rates_are_divided_not_resampled() {
        let hd = source(1280, 720, (1, 1));
        for (rate, bound, expected) in [
            ((60, 1), 30, Some((60, 2))),
            ((50, 1), 30, Some((50, 2))),
            ((30, 1), 30, None),
            ((60_000, 1001), 30, Some((60_000, 2002))),
            ((120, 1), 30, Some((120, 4))),
        ] {
            let rungs = resolve_video(&hd, Some(rate), &ask(&[360], Some(bound)), true);
            assert_eq!(rungs.first().and_then(|r| r.frame_rate), expected, "{rate:?}");
        }
    }
}
