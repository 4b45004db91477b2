//! Decoding times for pictures that arrive in decoding order with presentation times only, as RTP carries them.
//!
//! With a reordering depth of N, at most N pictures that are shown later may be decoded earlier. So the (N+1)-th
//! largest presentation time seen so far is never after the present picture's, and it rises with every picture: that
//! is the decoding time. Nothing is held back for it, and without reordering it equals the presentation time.

use media::{MediaDuration, MediaTime};

use super::SliceType;

/// What the rebuilder needs of a picture besides its presentation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureInfo {
    pub key: bool,
    pub reference: bool,
    pub kind: SliceType,
    pub poc_lsb: Option<(u32, u32)>,
    /// Declared by the SPS, or `None`.
    pub reorder: Option<u8>,
    pub dpb_frames: u8,
    pub frame_rate: Option<(u32, u32)>,
}

/// The picture is shown before the last one was decoded: the stream reorders deeper than it said or was seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

#[derive(Debug, Default)]
pub struct DecodeTimes {
    /// The `depth + 1` (at most 17) largest presentation times, ascending.
    largest: Vec<MediaTime>,
    depth: usize,
    last: Option<MediaTime>,
    /// Reordering seen in a stream that declares nothing.
    observed: u8,
    poc: Poc,
}

#[derive(Debug, Default)]
struct Poc {
    msb: i64,
    lsb: i64,
    highest: i64,
}

impl DecodeTimes {
    /// What was seen of undeclared reordering so far.
    pub fn observed(&self) -> u8 {
        self.observed
    }

    /// The decoding time of the next picture in decoding order. After a gap or a discontinuity call `restart` first.
    pub fn next(&mut self, pts: MediaTime, picture: &PictureInfo) -> Result<MediaTime, TooDeep> {
        let jump = self.poc.follow(picture);
        if picture.reorder.is_none() && jump {
            // A forward reference left room for pictures in between. How deep they nest is not known yet; two is a
            // pyramid of three B pictures, and a depth that is too large costs nothing.
            self.observed = self.observed.max(2.min(picture.dpb_frames));
        }
        let depth = usize::from(picture.reorder.unwrap_or(self.observed.min(picture.dpb_frames)).min(16));
        let frame = match picture.frame_rate {
            Some((n, d)) => MediaDuration::from_ticks(d.into(), n),
            None => MediaDuration::from_ticks(1, 30),
        };
        if self.largest.is_empty() {
            // Before the first picture stand imagined ones, a frame apart.
            self.largest = (1..=depth as i64).rev().map(|k| pts - MediaDuration(frame.0 * k)).collect();
        } else {
            while self.largest.len() < depth {
                let first = self.largest.first().copied().unwrap_or(pts);
                self.largest.insert(0, first - frame);
            }
        }
        self.depth = depth;
        let at = self.largest.partition_point(|t| *t < pts);
        self.largest.insert(at, pts);
        let excess = self.largest.len() - (depth + 1).min(self.largest.len());
        self.largest.drain(..excess);
        let mut dts = self.largest.first().copied().unwrap_or(pts).min(pts);
        if let Some(last) = self.last
            && dts <= last
        {
            dts = last + MediaDuration::from_ticks(1, 90_000);
        }
        if dts > pts {
            if picture.reorder.is_none() {
                self.observed = (self.observed + 1).min(picture.dpb_frames);
            }
            return Err(TooDeep);
        }
        self.last = Some(dts);
        Ok(dts)
    }

    /// What follows does not stand in order with what came; decoding times still rise.
    pub fn restart(&mut self) {
        self.largest.clear();
    }
}

impl Poc {
    /// Follows pic_order_cnt of type 0 (§8.2.1.1); true where a reference picture jumps ahead of its turn.
    fn follow(&mut self, picture: &PictureInfo) -> bool {
        let Some((lsb, bits)) = picture.poc_lsb else { return false };
        let lsb = i64::from(lsb);
        let max = 1i64 << bits;
        if picture.key {
            *self = Self { msb: 0, lsb, highest: lsb };
            return false;
        }
        let msb = if lsb < self.lsb && self.lsb - lsb >= max / 2 {
            self.msb + max
        } else if lsb > self.lsb && lsb - self.lsb > max / 2 {
            self.msb - max
        } else {
            self.msb
        };
        let poc = msb + lsb;
        if picture.reference {
            (self.msb, self.lsb) = (msb, lsb);
        }
        // Frames count by two (one for each field).
        let jump = picture.reference && picture.kind != SliceType::B && poc > self.highest + 2;
        self.highest = self.highest.max(poc);
        jump
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn info(key: bool, kind: SliceType, reorder: Option<u8>, poc: u32) -> PictureInfo {
        PictureInfo {
            key,
            reference: kind != SliceType::B,
            kind,
            poc_lsb: Some((poc % 256, 8)),
            reorder,
            dpb_frames: 4,
            frame_rate: Some((30, 1)),
        }
    }

    fn frame(n: i64) -> MediaTime {
        MediaTime::from_ticks(n * 3000, 90_000)
    }

    #[test]
    fn without_reordering_dts_is_pts() {
        let mut d = DecodeTimes::default();
        for n in 0..20 {
            let kind = if n == 0 { SliceType::I } else { SliceType::P };
            assert_eq!(d.next(frame(n), &info(n == 0, kind, None, 2 * n as u32)), Ok(frame(n)));
        }
        assert_eq!(d.observed(), 0);
    }

    /// I P b B b ... in decoding order: 0 4 2 1 3 8 6 5 7
    fn pyramid(gops: i64) -> Vec<(i64, SliceType, bool)> {
        let mut out = vec![];
        for g in 0..gops {
            out.push((g * 13, SliceType::I, true));
            for m in 0..3 {
                for (k, kind) in [(4, SliceType::P), (2, SliceType::B), (1, SliceType::B), (3, SliceType::B)] {
                    out.push((g * 13 + m * 4 + k, kind, false));
                }
            }
        }
        out
    }

    #[test]
    fn a_declared_pyramid_gets_even_decoding_times() {
        let mut d = DecodeTimes::default();
        for (n, (pts, kind, key)) in pyramid(3).into_iter().enumerate() {
            let dts = d.next(frame(pts), &info(key, kind, Some(2), (pts % 13 * 2) as u32)).unwrap();
            assert_eq!(dts, frame(n as i64 - 2), "picture {n}");
        }
    }

    #[test]
    fn an_undeclared_pyramid_is_seen_at_its_first_forward_reference() {
        let mut d = DecodeTimes::default();
        let mut last = None;
        for (pts, kind, key) in pyramid(3) {
            let dts = d.next(frame(pts), &info(key, kind, None, (pts % 13 * 2) as u32)).unwrap();
            assert!(dts <= frame(pts) && Some(dts) > last);
            last = Some(dts);
        }
        assert_eq!(d.observed(), 2);
    }

    #[test]
    fn a_stream_that_reorders_deeper_than_it_says_is_told() {
        let mut d = DecodeTimes::default();
        d.next(frame(0), &info(true, SliceType::I, Some(0), 0)).unwrap();
        d.next(frame(4), &info(false, SliceType::P, Some(0), 8)).unwrap();
        assert_eq!(d.next(frame(2), &info(false, SliceType::B, Some(0), 4)), Err(TooDeep));
    }

    proptest! {
        #[test]
        fn decoding_times_rise_and_never_pass_presentation(
            pts in prop::collection::vec((0i64..200, any::<bool>(), 0u32..256), 1..80),
            reorder in prop::option::of(0u8..17)
        ) {
            let mut d = DecodeTimes::default();
            let mut last = None;
            for (p, key, poc) in pts {
                if let Ok(dts) = d.next(frame(p), &info(key, SliceType::P, reorder, poc)) {
                    prop_assert!(dts <= frame(p));
                    prop_assert!(Some(dts) > last);
                    last = Some(dts);
                }
            }
        }
    }
}
