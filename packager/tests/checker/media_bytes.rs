//! Reads parts as bytes and follows decode times over everything that a playlist lists.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use packager::{Lookup, Snapshot};

use super::{Playlist, SegmentLines};

/// A sample with its times in ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub dts: i64,
    pub pts: i64,
    pub key: bool,
    pub data: Vec<u8>,
}

/// All media of a rendition, in the order in which it was listed.
pub struct Timeline {
    timescale: i64,
    pub frames: Vec<Frame>,
    /// First presentation time, in ticks, and date of each segment whose first part is no gap.
    pub starts: BTreeMap<u64, (i64, String)>,
    /// The next part to look at.
    at: (u64, usize),
    /// Where it begins, and how far that may be off because a gap's length is known by its text only.
    expected: Option<(i64, i64)>,
    sequence: u32,
    /// Lengths of the segments and parts that are gaps, in microseconds.
    pub gaps: Vec<i64>,
}

impl Timeline {
    pub fn new(timescale: u32) -> Self {
        Self {
            timescale: timescale.into(),
            frames: Vec::new(),
            starts: BTreeMap::new(),
            at: (0, 0),
            expected: None,
            sequence: 0,
            gaps: Vec::new(),
        }
    }

    /// Reads the parts that are new in the playlist.
    pub fn follow(&mut self, snapshot: &Snapshot, playlist: &Playlist, text: &str) {
        for segment in &playlist.segments {
            if segment.msn < self.at.0 {
                continue;
            }
            if segment.msn > self.at.0 {
                // Came and went between two looks (a long stall), or the first look.
                self.expected = None;
                self.at = (segment.msn, 0);
            }
            if segment.discontinuity && self.at.1 == 0 {
                self.expected = None;
            }
            if segment.parts.is_empty() {
                self.without_parts(snapshot, segment, text);
            }
            for (index, part) in segment.parts.iter().enumerate().skip(self.at.1) {
                if part.gap {
                    self.gap(part.micros);
                } else {
                    let independent = self.read(snapshot, segment, index, Some(part.micros), text);
                    assert_eq!(independent, part.independent, "A27 {part:?}\n{text}");
                }
            }
            self.at = match segment.micros {
                Some(_) => (segment.msn + 1, 0),
                None => (segment.msn, segment.parts.len()),
            };
        }
    }

    /// A segment whose parts are not listed any more: after a stall several complete at once.
    fn without_parts(&mut self, snapshot: &Snapshot, segment: &SegmentLines, text: &str) {
        if segment.gap && self.at.1 == 0 {
            self.gap(segment.micros.unwrap());
            return;
        }
        let before = self.frames.len();
        for index in self.at.1..64 {
            if matches!(snapshot.part(segment.msn, index as u64), Lookup::Here(_)) {
                self.read(snapshot, segment, index, None, text);
            } else {
                // A gap of unknown length, or the segment's end.
                self.expected = None;
            }
        }
        assert!(segment.gap || self.at.1 > 0 || self.frames.len() > before, "A11 {text}");
    }

    fn gap(&mut self, micros: i64) {
        self.gaps.push(micros);
        // It lasts 10 to 20 µs longer than listed: to the tick.
        self.expected = self.expected.map(|(at, off)| (at + (micros + 15) * self.timescale / 1_000_000, off + 1));
    }

    /// B3, B4: the part continues where the one before it ended. True if it begins with a sync sample.
    fn read(
        &mut self,
        snapshot: &Snapshot,
        segment: &SegmentLines,
        index: usize,
        micros: Option<i64>,
        text: &str,
    ) -> bool {
        let name = format!("{}.{index}", segment.msn);
        let Lookup::Here(bytes) = snapshot.part(segment.msn, index as u64) else { panic!("A11 {name}\n{text}") };
        let (sequence, frames, end) = fragment(&bytes);
        assert!(sequence > self.sequence, "B3 {name}: {sequence} after {}", self.sequence);
        self.sequence = sequence;
        let start = frames[0].dts;
        if let Some((at, off)) = self.expected {
            assert!((start - at).abs() <= off, "B4 {name}: begins at {start}, not at {at} ± {off}\n{text}");
        }
        self.expected = Some((end, 0));
        if let Some(micros) = micros {
            let lasts = (end - start) * 1_000_000 / self.timescale;
            let understated = (9..=20).contains(&(lasts - micros)) || micros == 10;
            assert!(understated, "A4 {name}: lasts {lasts} µs, listed as {micros}\n{text}");
        }
        if index == 0 {
            self.starts.insert(segment.msn, (frames[0].pts, segment.date.clone().unwrap()));
        }
        let key = frames[0].key;
        self.frames.extend(frames);
        key
    }
}

/// The boxes that lie side by side in `bytes` (ISO/IEC 14496-12, 4.2).
fn boxes(mut bytes: &[u8]) -> Vec<(&str, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let size = u32_at(bytes, 0) as usize;
        found.push((std::str::from_utf8(&bytes[4..8]).unwrap(), &bytes[8..size]));
        bytes = &bytes[size..];
    }
    found
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Sequence number, samples and end of a part: B2, B3, B7, B21.
fn fragment(bytes: &[u8]) -> (u32, Vec<Frame>, i64) {
    let [("moof", moof), ("mdat", mdat)] = boxes(bytes)[..] else { panic!("B2") };
    let [("mfhd", mfhd), ("traf", traf)] = boxes(moof)[..] else { panic!("B3") };
    let [("tfhd", tfhd), ("tfdt", tfdt), ("trun", trun)] = boxes(traf)[..] else { panic!("B3") };
    assert_eq!((u32_at(tfhd, 0), u32_at(tfhd, 4)), (0x2_0000, 1), "B3: the base is the moof, the track number 1");
    assert_eq!(u32_at(tfdt, 0) >> 24, 1, "B3: 64 bits of decode time");
    let mut dts = i64::try_from(u64::from(u32_at(tfdt, 4)) << 32 | u64::from(u32_at(tfdt, 8))).unwrap();
    let (flags, count) = (u32_at(trun, 0) & 0xff_ffff, u32_at(trun, 4));
    assert_eq!(flags & !0x0f05, 0, "a trun with other fields");
    assert_eq!(u32_at(trun, 8) as usize, 8 + moof.len() + 8, "B3: data offset");
    let (mut at, mut data) = (12, mdat);
    let mut take = |wanted: u32| {
        let value = (flags & wanted != 0).then(|| u32_at(trun, at));
        at += if value.is_some() { 4 } else { 0 };
        value
    };
    let first_flags = take(0x4);
    let mut frames = Vec::new();
    for n in 0..count {
        let (duration, size) = (take(0x100).unwrap(), take(0x200).unwrap() as usize);
        let sample_flags = take(0x400).or(first_flags.filter(|_| n == 0)).unwrap();
        // Version 1: signed.
        let offset = take(0x800).unwrap_or(0).cast_signed();
        assert!(matches!(sample_flags, 0x0200_0000 | 0x0101_0000), "B7");
        assert!(duration > 0, "B21");
        let pts = dts + i64::from(offset);
        frames.push(Frame { dts, pts, key: sample_flags == 0x0200_0000, data: data[..size].to_vec() });
        data = &data[size..];
        dts += i64::from(duration);
    }
    assert!(!frames.is_empty() && data.is_empty() && at == trun.len(), "B3");
    (u32_at(mfhd, 4), frames, dts)
}
