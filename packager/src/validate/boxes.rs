//! Init segments and fragments as bytes (ISO/IEC 14496-12, 23000-19).

use super::{Findings, Rule};

/// Boxes side by side and nested that are looked at; what is behind them is not.
const MOST_BOXES: usize = 10_000;
const MOST_SAMPLES: u32 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackKind {
    Video,
    Audio,
    Other,
}

/// A track of an init segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    pub id: u32,
    pub kind: TrackKind,
    /// Ticks a second.
    pub timescale: u32,
    /// As the sample entry says, per RFC 6381; of codecs whose parameters are not read the four letters alone.
    pub codec: String,
    default_duration: u32,
    default_size: u32,
    default_flags: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Init {
    pub tracks: Vec<Track>,
}

/// One track's samples in a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub track: u32,
    /// Ticks a second.
    pub timescale: u32,
    /// Decode times in ticks.
    pub start: u64,
    pub end: u64,
    pub samples: u32,
    /// Its first sample is a sync sample.
    pub sync: bool,
    /// The longest sample in ticks.
    pub longest: u32,
}

/// Part or segment: the fragments in it, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    pub runs: Vec<Run>,
}

impl Init {
    /// None: these are no boxes (MPEG-TS, packed audio).
    pub fn read(bytes: &[u8], findings: &mut Findings) -> Option<Self> {
        let all: Vec<_> = boxes(bytes).collect();
        let moov = all.iter().find(|(name, _)| *name == b"moov")?.1;
        let begins = all.first().is_some_and(|(name, _)| *name == b"ftyp");
        findings.must(Rule::B1, begins, || "an init segment does not begin with ftyp".to_owned());
        let media = all.iter().any(|(name, _)| *name == b"moof" || *name == b"mdat");
        findings.must(Rule::B1, !media, || "there is media in an init segment".to_owned());
        let mvex = child(moov, b"mvex");
        findings.must(Rule::B1, mvex.is_some(), || "an init segment has no mvex".to_owned());
        let mut tracks = Vec::new();
        for (_, trak) in boxes(moov).filter(|(name, _)| *name == b"trak") {
            tracks.extend(track(trak, mvex.unwrap_or_default(), findings));
        }
        findings.should(Rule::B1, tracks.len() == 1, || format!("an init segment has {} tracks", tracks.len()));
        Some(Self { tracks })
    }
}

impl Fragment {
    /// None: these are no boxes. `init`: for the defaults of its tracks.
    pub fn read(bytes: &[u8], init: &Init, findings: &mut Findings) -> Option<Self> {
        let mut fragment = Self::default();
        let mut moof: Option<(usize, &[u8])> = None;
        let mut at = 0;
        let mut any = false;
        for (name, body) in boxes(bytes) {
            let start = at;
            at += 8 + body.len();
            match name {
                b"moof" => {
                    any = true;
                    findings.must(Rule::B2, moof.is_none(), || "a moof without its mdat".to_owned());
                    moof = Some((start, body));
                }
                b"mdat" => {
                    findings.must(Rule::B2, moof.is_some(), || "an mdat without its moof".to_owned());
                    if let Some((start, moof)) = moof.take() {
                        let layout = Layout { moof_at: start, data_at: at - body.len(), data_end: at };
                        fragment.moof(moof, &layout, init, findings);
                    }
                }
                b"styp" | b"prft" | b"emsg" | b"sidx" | b"free" | b"skip" | b"uuid" => {}
                other => {
                    let name = String::from_utf8_lossy(other).into_owned();
                    findings.should(Rule::B2, moof.is_none(), || format!("a box {name:?} between moof and mdat"));
                }
            }
        }
        if !any {
            return None;
        }
        findings.must(Rule::B2, at == bytes.len(), || "bytes behind the last box, or a box that is cut".to_owned());
        findings.must(Rule::B2, moof.is_none(), || "a moof without its mdat".to_owned());
        Some(fragment)
    }

    fn moof(&mut self, moof: &[u8], layout: &Layout, init: &Init, findings: &mut Findings) {
        let mut spans = 0u64;
        let mut count = 0;
        for (_, traf) in boxes(moof).filter(|(name, _)| *name == b"traf") {
            count += 1;
            match self.traf(traf, count == 1, layout, init, findings) {
                Some(bytes) => spans = spans.saturating_add(bytes),
                None => findings.must(Rule::B3, false, || "a traf cannot be read".to_owned()),
            }
        }
        let payload = (layout.data_end - layout.data_at) as u64;
        findings.must(Rule::B3, spans == payload, || format!("samples of {spans} bytes in an mdat of {payload}"));
        findings.should(Rule::B3, count == 1, || format!("{count} trafs in a moof"));
    }

    /// Gives how many bytes its samples have. `leads`: it is the first one of its moof.
    fn traf(&mut self, traf: &[u8], leads: bool, layout: &Layout, init: &Init, findings: &mut Findings) -> Option<u64> {
        let tfhd = child(traf, b"tfhd")?;
        let flags = u32_at(tfhd, 0)? & 0xff_ffff;
        let id = u32_at(tfhd, 4)?;
        findings
            .must(Rule::B3, flags & 0x2_0000 != 0 && flags & 1 == 0, || "tfhd without default-base-is-moof".to_owned());
        let track = init.tracks.iter().find(|t| t.id == id)?;
        let mut at = 8;
        let mut optional = |flag: u32, size: usize| {
            let value = if flags & flag == 0 { None } else { u32_at(tfhd, at) };
            at += if flags & flag == 0 { 0 } else { size };
            value
        };
        let _ = (optional(0x1, 8), optional(0x2, 4));
        let duration = optional(0x8, 4).unwrap_or(track.default_duration);
        let size = optional(0x10, 4).unwrap_or(track.default_size);
        let sample_flags = optional(0x20, 4).unwrap_or(track.default_flags);
        let tfdt = child(traf, b"tfdt");
        findings.must(Rule::B3, tfdt.is_some(), || "a traf without tfdt".to_owned());
        let tfdt = tfdt?;
        let wide = u32_at(tfdt, 0)? >> 24 == 1;
        findings.should(Rule::B3, wide, || "tfdt with 32 bits".to_owned());
        let start = match (wide, u32_at(tfdt, 4)?) {
            (true, high) => u64::from(high) << 32 | u64::from(u32_at(tfdt, 8)?),
            (false, low) => u64::from(low),
        };
        let mut run =
            Run { track: id, timescale: track.timescale, start, end: start, samples: 0, sync: false, longest: 0 };
        let mut bytes = 0u64;
        let mut first = true;
        for (_, trun) in boxes(traf).filter(|(name, _)| *name == b"trun") {
            let (flags, count) = (u32_at(trun, 0)? & 0xff_ffff, u32_at(trun, 4)?);
            findings.must(Rule::B3, count > 0, || "a trun without samples".to_owned());
            let mut at = 8;
            let mut take = |flag: u32| {
                if flags & flag == 0 {
                    return Some(None);
                }
                at += 4;
                u32_at(trun, at - 4).map(Some)
            };
            if let Some(offset) = take(0x1)? {
                let data = layout.moof_at as i64 + i64::from(offset.cast_signed());
                let (least, most) = (layout.data_at as i64, layout.data_end as i64);
                // With one track the samples fill the mdat, so they begin where it does.
                let right = if leads && first { data == least } else { (least..=most).contains(&data) };
                findings.must(Rule::B3, right, || "a trun's data offset does not point into its mdat".to_owned());
            }
            let first_flags = take(0x4)?;
            // Samples without fields of their own take no bytes here, so their number must have a bound of its own.
            if count > MOST_SAMPLES {
                return None;
            }
            for n in 0..count {
                let duration = take(0x100)?.unwrap_or(duration);
                bytes = bytes.saturating_add(u64::from(take(0x200)?.unwrap_or(size)));
                let own = take(0x400)?;
                let _offset = take(0x800)?;
                if first {
                    let flags = first_flags.filter(|_| n == 0).or(own).unwrap_or(sample_flags);
                    // sample_is_non_sync_sample
                    run.sync = flags & 0x1_0000 == 0;
                    first = false;
                }
                findings.must(Rule::B21, duration > 0, || "a sample lasts no tick".to_owned());
                run.longest = run.longest.max(duration);
                run.end = run.end.saturating_add(u64::from(duration));
            }
            run.samples = run.samples.saturating_add(count);
        }
        findings.must(Rule::B3, run.samples > 0, || "a traf without samples".to_owned());
        self.runs.push(run);
        Some(bytes)
    }
}

/// Where the boxes of one fragment lie, in bytes from the beginning of what was fetched.
struct Layout {
    moof_at: usize,
    data_at: usize,
    data_end: usize,
}

fn track(trak: &[u8], mvex: &[u8], findings: &mut Findings) -> Option<Track> {
    let tkhd = child(trak, b"tkhd")?;
    let id = u32_at(tkhd, if u32_at(tkhd, 0)? >> 24 == 1 { 20 } else { 12 })?;
    let mdia = child(trak, b"mdia")?;
    let mdhd = child(mdia, b"mdhd")?;
    let timescale = u32_at(mdhd, if u32_at(mdhd, 0)? >> 24 == 1 { 20 } else { 12 })?;
    let kind = match child(mdia, b"hdlr").and_then(|hdlr| hdlr.get(8..12)) {
        Some(b"vide") => TrackKind::Video,
        Some(b"soun") => TrackKind::Audio,
        _ => TrackKind::Other,
    };
    let stbl = child(child(mdia, b"minf")?, b"stbl")?;
    let samples = child(stbl, b"stsz").and_then(|stsz| u32_at(stsz, 8)).unwrap_or(0);
    findings
        .must(Rule::B1, samples == 0 && timescale > 0, || "an init segment has samples, or no timescale".to_owned());
    let codec = codec(child(stbl, b"stsd")?.get(8..)?)?;
    let trexes = || boxes(mvex).filter(|(name, _)| *name == b"trex").map(|(_, body)| body);
    let trex = trexes().find(|trex| u32_at(trex, 4) == Some(id));
    findings.must(Rule::B1, trex.is_some(), || format!("track {id} has no trex"));
    let default = |at| trex.and_then(|trex| u32_at(trex, at)).unwrap_or(0);
    Some(Track {
        id,
        kind,
        timescale,
        codec,
        default_duration: default(12),
        default_size: default(16),
        default_flags: default(20),
    })
}

/// The codecs parameter of the first sample entry (RFC 6381).
fn codec(entries: &[u8]) -> Option<String> {
    let (name, entry) = boxes(entries).next()?;
    let letters = String::from_utf8_lossy(name).into_owned();
    Some(match name {
        b"avc1" | b"avc3" => {
            // A visual sample entry has 78 bytes before its boxes.
            match child(entry.get(78..)?, b"avcC").and_then(|avcc| avcc.get(1..4)) {
                Some(&[profile, flags, level]) => format!("{letters}.{profile:02X}{flags:02X}{level:02X}"),
                _ => letters,
            }
        }
        b"hvc1" | b"hev1" => child(entry.get(78..)?, b"hvcC").and_then(|hvcc| hevc(&letters, hvcc)).unwrap_or(letters),
        b"av01" => child(entry.get(78..)?, b"av1C").and_then(av1).unwrap_or(letters),
        // An audio sample entry has 28.
        b"mp4a" => match child(entry.get(28..)?, b"esds").and_then(audio_object_type) {
            Some(kind) => format!("mp4a.40.{kind}"),
            None => letters,
        },
        _ => letters,
    })
}

/// Of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 E.3).
fn hevc(letters: &str, record: &[u8]) -> Option<String> {
    let profile = *record.get(1)?;
    let space = ["", "A", "B", "C"].get(usize::from(profile >> 6))?;
    let compatibility = u32_at(record, 2)?.reverse_bits();
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut constraints = record.get(6..12)?;
    while let [rest @ .., 0] = constraints {
        constraints = rest;
    }
    let constraints: String = constraints.iter().map(|byte| format!(".{byte:X}")).collect();
    Some(format!("{letters}.{space}{}.{compatibility:X}.{tier}{}{constraints}", profile & 0x1f, record.get(12)?))
}

/// Of an AV1CodecConfigurationRecord (AV1 in ISOBMFF, section 5).
fn av1(record: &[u8]) -> Option<String> {
    let (first, second) = (*record.get(1)?, *record.get(2)?);
    let tier = if second & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (second & 0x40 != 0, second & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Some(format!("av01.{}.{:02}{tier}.{depth:02}", first >> 5, first & 0x1f))
}

/// Of an esds with an AudioSpecificConfig (ISO/IEC 14496-1 7.2.6, 14496-3 1.6.2.1).
fn audio_object_type(esds: &[u8]) -> Option<u8> {
    let mut rest = esds.get(4..)?;
    for _ in 0..8 {
        let (&tag, after) = rest.split_first()?;
        // A length of up to four bytes, the highest bit of each says whether another follows.
        let mut body = after;
        for _ in 0..4 {
            let (&byte, next) = body.split_first()?;
            body = next;
            if byte & 0x80 == 0 {
                break;
            }
        }
        rest = match tag {
            // ES_Descriptor: id and flags, none of whose fields are in use in MP4. DecoderConfigDescriptor: 13 bytes.
            3 => body.get(3..)?,
            4 => body.get(13..)?,
            5 => return Some(body.first()? >> 3),
            _ => return None,
        };
    }
    None
}

/// The boxes that lie side by side, each with its body; ends where no whole box follows.
fn boxes(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let size = usize::try_from(u32_at(rest, 0)?).ok()?;
        let name = rest.get(4..8)?.first_chunk::<4>()?;
        let body = rest.get(8..size)?;
        rest = rest.get(size..)?;
        Some((name, body))
    })
    .take(MOST_BOXES)
}

fn child<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|(name, _)| *name == wanted).map(|(_, body)| body)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b))
}
