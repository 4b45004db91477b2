//! A source that skips frames: the hole is spread over the frames behind it.
//!
//! A frame may not last longer than a part (A23), so a longer hole would be listed as GAP, and players answer a GAP by
//! changing the rendition. Cameras and encoders of a busy machine skip frames all the time: the frames behind such a hole are
//! shown early, each for as long as a part may last, until the picture has caught up with its own time.

use media::{AccessUnit, MediaDuration, MediaTime};

/// Holes up to this are spread, and the sound of a stalled picture waits as long; a longer one is a stall.
pub const HOLE: MediaDuration = MediaDuration(3 * media::FLICKS_PER_SECOND / 2);

#[derive(Debug, Default)]
pub struct Stretch {
    /// When the last frame is decoded and shown.
    last: Option<MediaTime>,
}

impl Stretch {
    /// Moves a video unit so that the frame before it lasts at most `longest`. Streams with reordered frames are left alone.
    pub fn place(&mut self, unit: &mut AccessUnit, longest: MediaDuration) {
        if unit.pts == unit.dts
            && let Some(last) = self.last
            && unit.dts - last > longest
            && unit.dts - last <= HOLE
        {
            unit.dts = last + longest;
            unit.pts = unit.dts;
        }
        self.last = Some(unit.dts);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use media::{H264Config, TrackConfig};

    use super::*;

    /// When frames with these times (ms) are shown; `reorder` is added to the presentation times.
    fn shown(times: &[i64], reorder: i64) -> Vec<i64> {
        let config = TrackConfig::H264(H264Config {
            sps: Bytes::new(),
            pps: Vec::new(),
            width: 16,
            height: 16,
            sar: (1, 1),
            reorder_depth: 0,
            frame_rate: None,
        })
        .shared();
        let mut stretch = Stretch::default();
        let longest = MediaDuration::from_millis(200);
        let place = |ms: &i64| {
            let dts = MediaTime::from_millis(*ms);
            let pts = dts + MediaDuration::from_millis(reorder);
            let mut unit =
                AccessUnit { pts, dts, duration: None, key: false, config: config.clone(), data: Bytes::new() };
            stretch.place(&mut unit, longest);
            assert_eq!((unit.pts - unit.dts).millis(), reorder);
            unit.dts.millis()
        };
        times.iter().map(place).collect()
    }

    #[test]
    fn a_hole_is_spread_over_the_frames_behind_it() {
        assert_eq!(shown(&[0, 33, 66, 566, 600, 633, 666], 0), [0, 33, 66, 266, 466, 633, 666]);
        assert_eq!(shown(&[0, 180, 360, 540], 0), [0, 180, 360, 540], "what fits stays as it is");
    }

    #[test]
    fn a_stall_and_reordered_frames_keep_their_times() {
        assert_eq!(shown(&[0, 33, 1600, 1633], 0), [0, 33, 1600, 1633]);
        assert_eq!(shown(&[0, 33, 566], 66), [0, 33, 566]);
    }
}
