//! Golden bytes: init segments and parts, box by box as the standards lay them out, none of it from our own code.
//!
//! "12" is ISO/IEC 14496-12:2022, "14" 14496-14:2018, "15" 14496-15:2022, "1" 14496-1:2010, "Opus" the Encapsulation of Opus
//! in ISO Base Media File Format 0.6.8, "AV1" the AV1 Codec ISO Media File Format Binding 1.2.0. Where a standard leaves a choice (64-bit times, the order of boxes), the line says so.
//! B1, B3 and so on are the rules of docs/conformance.md. What is expected is also given to ffprobe.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use media::{
    AccessUnit, Av1Config, H264Config, H265Config, MediaDuration, MediaTime, OpusConfig, TrackConfig, WallTime,
};
use packager::{ChannelTiming, Cut, HlsSettings, Lookup, PartRule, Rendition};

/// x264's parameter sets of 64x48 Baseline, square pixels, 25 frames a second.
const BASELINE_SPS: &[u8] = &[
    0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x7b, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0x20,
    0xf1, 0x22, 0x64, 0x80,
];
const BASELINE_PPS: &[u8] = &[0x68, 0xcb, 0x83, 0xcb, 0x20];

/// Three black pictures of it: I P P, as NAL units.
const BASELINE_PICTURES: [&[u8]; 3] = [
    &[0x65, 0x88, 0x84, 0x0b, 0xf2, 0x62, 0x80, 0x00, 0xab, 0xcc, 0x9c, 0x9c, 0x9d, 0x75, 0xd7, 0x5d, 0x75, 0xd7, 0x5e],
    &[0x41, 0x9a, 0x38, 0x17, 0xe3, 0x60],
    &[0x41, 0x9a, 0x54, 0x05, 0x78, 0xd8],
];

/// x264's parameter sets of 48x48 High, pixels 4:3, 25 frames a second, one picture reordered.
const HIGH_SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x0a, 0xac, 0xd1, 0x0d, 0xec, 0x38, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0c, 0x83,
    0xc4, 0x89, 0x44, 0x80,
];
const HIGH_PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

/// Five black pictures of it in decode order, I P B B P, each with its place on the screen.
const HIGH_PICTURES: [(i64, &[u8]); 5] = [
    (
        0,
        &[
            0x65, 0x88, 0x84, 0x00, 0x67, 0xff, 0xfe, 0xf6, 0xec, 0xbe, 0x05, 0x36, 0x14, 0xc8, 0x50, 0x97, 0x11, 0x2a,
            0x0c, 0x0e, 0xec, 0x40, 0xd7, 0x0f, 0x51, 0x71,
        ],
    ),
    (3, &[0x41, 0x9a, 0x26, 0xd8, 0x85, 0xff, 0xfe, 0x94, 0x2c]),
    (1, &[0x01, 0x9e, 0x42, 0xf2, 0x15, 0xff, 0x21, 0xe1]),
    (2, &[0x01, 0x9e, 0x44, 0xf2, 0x15, 0xff, 0x21, 0xe0]),
    (4, &[0x41, 0x9a, 0x48, 0x78, 0x43, 0x26, 0x53, 0x08, 0x57, 0xff, 0xfe, 0x45, 0x19]),
];

/// x265's parameter sets of 64x48 Main, 25 frames a second, and three black pictures of it: IDR_N_LP, P, P.
const VPS: &[u8] = &[
    0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03,
    0x00, 0x1e, 0xba, 0x02, 0x40,
];
const MAIN_SPS: &[u8] = &[
    0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x1e, 0xa0,
    0x20, 0x83, 0x16, 0x5b, 0xab, 0x93, 0x2b, 0xc0, 0x5a, 0x02, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00,
    0x32, 0x10,
];
const MAIN_PPS: &[u8] = &[0x44, 0x01, 0xc1, 0x73, 0xd0, 0x89];
const MAIN_PICTURES: [&[u8]; 3] = [
    &[0x28, 0x01, 0xaf, 0x78, 0xf8, 0x5d, 0xf7, 0xff, 0xf8, 0xb7, 0x0b, 0xec, 0xd5, 0x99, 0xda, 0xf0],
    &[0x02, 0x01, 0xd0, 0x09, 0x7e, 0x10, 0xc2, 0x05, 0xf0, 0xe6, 0xc3, 0x19, 0xb0],
    &[0x02, 0x01, 0xd0, 0x11, 0xff, 0xd4, 0x43, 0x02, 0x05, 0xd0, 0xe6, 0xc3, 0x19, 0xb0],
];

/// libaom's sequence header of 64x48 Main, level 2.0, and three black frames of it, all as OBUs.
const SEQUENCE: &[u8] = &[0x0a, 0x0a, 0x00, 0x00, 0x00, 0x02, 0xaf, 0xf7, 0x9b, 0x5f, 0x20, 0x08];
const FRAMES: [&[u8]; 3] = [
    &[
        0x32, 0x16, 0x10, 0x00, 0x90, 0x00, 0x08, 0x20, 0x82, 0x20, 0x00, 0x00, 0xc1, 0xb4, 0xe5, 0xc0, 0xc3, 0x01,
        0x78, 0x97, 0x69, 0x1b, 0x8c, 0x80,
    ],
    &[
        0x32, 0x12, 0x30, 0x03, 0x80, 0x80, 0xfd, 0xf8, 0x06, 0xc0, 0x00, 0x59, 0x65, 0x96, 0x28, 0x10, 0x42, 0x00,
        0x95, 0xb0,
    ],
    &[
        0x32, 0x12, 0x30, 0x04, 0x01, 0x05, 0x7d, 0xf8, 0x06, 0xc0, 0x00, 0x59, 0x65, 0x96, 0x28, 0x10, 0x42, 0x00,
        0x91, 0xc0,
    ],
];

/// Silence, stereo: an AAC frame, and Opus packets of 20 ms and of 10 ms (RFC 6716, 3.1: TOC, then a lost frame).
const AAC_FRAME: &[u8] = &[0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c];
const OPUS_20_MS: &[u8] = &[0xfc, 0xff, 0xfe];
const OPUS_10_MS: &[u8] = &[0xf4, 0xff, 0xfe];

/// A frame at 25 frames a second, in ticks of 90 kHz.
const FRAME: i64 = 3600;

fn baseline() -> Arc<TrackConfig> {
    h264(BASELINE_SPS, BASELINE_PPS, (64, 48), (1, 1), 0)
}

fn high() -> Arc<TrackConfig> {
    h264(HIGH_SPS, HIGH_PPS, (48, 48), (4, 3), 1)
}

fn h264(
    sps: &'static [u8],
    pps: &'static [u8],
    (width, height): (u32, u32),
    sar: (u32, u32),
    reorder_depth: u8,
) -> Arc<TrackConfig> {
    TrackConfig::H264(H264Config {
        sps: Bytes::from_static(sps),
        pps: vec![Bytes::from_static(pps)],
        width,
        height,
        sar,
        reorder_depth,
        frame_rate: Some((25, 1)),
    })
    .shared()
}

fn h265() -> Arc<TrackConfig> {
    // As the engine gives it, but for the completeness of the arrays, which is the packager's to say.
    let record = hevc_record(0).into();
    TrackConfig::H265(H265Config { record, width: 64, height: 48, sar: (1, 1), frame_rate: Some((25, 1)) }).shared()
}

fn av1() -> Arc<TrackConfig> {
    let record = av1_record().into();
    TrackConfig::Av1(Av1Config { record, width: 64, height: 48, sar: (1, 1), frame_rate: Some((25, 1)) }).shared()
}

fn opus() -> Arc<TrackConfig> {
    TrackConfig::Opus(OpusConfig { channels: 2, pre_skip: 312 }).shared()
}

/// Video units, decode times one frame apart, the first picture to show at one second.
fn video(config: &Arc<TrackConfig>, pictures: &[(i64, &[u8])]) -> Vec<AccessUnit> {
    let delay = pictures.iter().enumerate().map(|(n, (at, _))| n as i64 - at).max().unwrap();
    let unit = |(n, (at, nal)): (usize, &(i64, &[u8]))| AccessUnit {
        pts: MediaTime::from_ticks(90_000 + at * FRAME, 90_000),
        dts: MediaTime::from_ticks(90_000 + (n as i64 - delay) * FRAME, 90_000),
        duration: None,
        key: n == 0,
        config: config.clone(),
        data: with_length(nal).into(),
    };
    pictures.iter().enumerate().map(unit).collect()
}

/// Pictures one frame apart from one second on, none reordered, each sample as it is.
fn pictures(config: &Arc<TrackConfig>, samples: &[Vec<u8>]) -> Vec<AccessUnit> {
    let unit = |(n, data): (usize, &Vec<u8>)| {
        let pts = MediaTime::from_ticks(90_000 + n as i64 * FRAME, 90_000);
        AccessUnit { pts, dts: pts, duration: None, key: n == 0, config: config.clone(), data: data.clone().into() }
    };
    samples.iter().enumerate().map(unit).collect()
}

/// Audio frames one behind the other from one second on, each with its duration in ticks.
fn audio(config: &Arc<TrackConfig>, frames: &[(i64, &'static [u8])]) -> Vec<AccessUnit> {
    let mut at = 48_000;
    let mut unit = |(ticks, data): &(i64, &'static [u8])| {
        let pts = MediaTime::from_ticks(at, 48_000);
        at += ticks;
        let duration = Some(MediaDuration::from_ticks(*ticks, 48_000));
        AccessUnit { pts, dts: pts, duration, key: true, config: config.clone(), data: Bytes::from_static(data) }
    };
    frames.iter().map(&mut unit).collect()
}

/// The NAL unit behind its four-byte length (15, AVCSample).
fn with_length(nal: &[u8]) -> Vec<u8> {
    [&(nal.len() as u32).to_be_bytes(), nal].concat()
}

fn rendition() -> Rendition {
    let second = MediaDuration::from_millis(1000);
    let settings = HlsSettings { part_aim: second, segment_target: second, window: MediaDuration(10 * second.0) };
    let rule = PartRule::video(second, None);
    Rendition::new("r".parse().unwrap(), ChannelTiming::new(settings, &[rule.target]), rule, 0)
}

/// The init segment of a rendition whose one unit has these parameters.
fn init_of(config: Arc<TrackConfig>) -> Option<Bytes> {
    let mut rendition = rendition();
    rendition.cut(Cut { msn: 1, at: MediaTime::from_millis(1000), discontinuity: false, wall: WallTime(0) });
    pictures(&config, &[vec![0]]).into_iter().for_each(|unit| rendition.push(unit));
    rendition.end();
    rendition.snapshot().init(1)
}

/// The init segment and the only part of each segment, where a segment begins at each of `cuts`.
fn package(units: Vec<AccessUnit>, cuts: &[MediaTime]) -> (Bytes, Vec<Bytes>) {
    let mut rendition = rendition();
    for (msn, at) in (1..).zip(cuts) {
        rendition.cut(Cut { msn, at: *at, discontinuity: false, wall: WallTime(0) });
    }
    let count = units.len() as u64;
    units.into_iter().for_each(|unit| rendition.push(unit));
    rendition.end();
    assert_eq!(rendition.dropped(), 0, "of {count}");
    let snapshot = rendition.snapshot();
    let part = |msn| match snapshot.part(msn, 0) {
        Lookup::Here(bytes) => bytes,
        other => panic!("{msn}: {other:?}"),
    };
    (snapshot.init(1).unwrap(), (1..=cuts.len() as u64).map(part).collect())
}

// --- The standards' boxes ---

/// Size, type, payload (12, 4.2.2).
fn boxed(kind: &str, payload: &[&[u8]]) -> Vec<u8> {
    let payload = payload.concat();
    [&(payload.len() as u32 + 8).to_be_bytes(), kind.as_bytes(), &payload].concat()
}

/// A box with version and flags (12, 4.2.2).
fn full(kind: &str, version: u8, flags: u32, payload: &[&[u8]]) -> Vec<u8> {
    let head = u32::from(version) << 24 | flags;
    boxed(kind, &[&head.to_be_bytes(), &payload.concat()])
}

fn u16s<const N: usize>(values: [u16; N]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

fn u32s<const N: usize>(values: [u32; N]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

/// No rotation, no scaling (12, 8.2.2.2).
fn unity_matrix() -> Vec<u8> {
    u32s([0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000])
}

/// What of an init segment depends on the track.
struct Track {
    timescale: u32,
    handler: &'static str,
    name: &'static str,
    /// 8.8 fixed point: full for sound, none for pictures (12, 8.3.2.3).
    volume: u16,
    /// To show, in whole pixels.
    width: u32,
    height: u32,
    media_header: Vec<u8>,
    sample_entry: Vec<u8>,
}

fn video_track(width: u32, height: u32, sample_entry: Vec<u8>) -> Track {
    Track {
        timescale: 90_000,
        handler: "vide",
        name: "video",
        volume: 0,
        width,
        height,
        // 12, 12.1.2: flags are 1; graphicsmode copy, opcolor.
        media_header: full("vmhd", 0, 1, &[&zeros(8)]),
        sample_entry,
    }
}

fn audio_track(sample_entry: Vec<u8>) -> Track {
    Track {
        timescale: 48_000,
        handler: "soun",
        name: "audio",
        volume: 0x100,
        width: 0,
        height: 0,
        // 12, 12.2.2: balance in the centre, reserved.
        media_header: full("smhd", 0, 0, &[&zeros(4)]),
        sample_entry,
    }
}

/// B1: ftyp and moov with one trak and mvex, no samples, no durations.
fn init(track: &Track) -> Vec<u8> {
    // 12, 4.3: major brand, minor version, compatible brands. 23000-19, 7.2: cmfc says CMAF.
    let ftyp = boxed("ftyp", &[b"iso6", &zeros(4), b"iso6", b"cmfc", b"mp41"]);
    // 12, 8.2.2, version 1 (64-bit times, a choice): creation, modification, timescale, duration unknown as 0; rate 1,
    // volume full, reserved; matrix; pre_defined; next_track_ID.
    let (rate_and_volume, tail) = ([u32s([0x1_0000]), u16s([0x100])].concat(), [zeros(24), u32s([2])].concat());
    let mvhd = full(
        "mvhd",
        1,
        0,
        &[&zeros(16), &u32s([track.timescale]), &zeros(8), &rate_and_volume, &zeros(10), &unity_matrix(), &tail],
    );
    // 12, 8.3.2, flags: enabled, in movie, in preview (mirrors in movie). Times, track_ID 1, reserved, duration; reserved,
    // layer, alternate_group, volume, reserved; matrix; width and height in 16.16.
    let tkhd = full(
        "tkhd",
        1,
        7,
        &[
            &zeros(16),
            &u32s([1, 0]),
            &zeros(8),
            &zeros(8),
            &u16s([0, 0, track.volume, 0]),
            &unity_matrix(),
            &u32s([track.width << 16, track.height << 16]),
        ],
    );
    // 12, 8.4.2: times, timescale, duration; language as three letters of five bits, each less 0x60; pre_defined.
    let und = (u16::from(b'u') - 0x60) << 10 | (u16::from(b'n') - 0x60) << 5 | (u16::from(b'd') - 0x60);
    let mdhd = full("mdhd", 1, 0, &[&zeros(16), &u32s([track.timescale]), &zeros(8), &u16s([und, 0])]);
    // 12, 8.4.3: pre_defined, handler_type, reserved, a name that ends with a zero.
    let hdlr = full("hdlr", 0, 0, &[&zeros(4), track.handler.as_bytes(), &zeros(12), track.name.as_bytes(), &zeros(1)]);
    // 12, 8.7.2: one entry; its flag 1 says that the media is in this file.
    let dinf = boxed("dinf", &[&full("dref", 0, 0, &[&u32s([1]), &full("url ", 0, 1, &[])])]);
    // 12, 8.5.2, 8.6.1.2, 8.7.4, 8.7.3, 8.7.5: a sample entry and no samples.
    let stbl = boxed(
        "stbl",
        &[
            &full("stsd", 0, 0, &[&u32s([1]), &track.sample_entry]),
            &full("stts", 0, 0, &[&u32s([0])]),
            &full("stsc", 0, 0, &[&u32s([0])]),
            &full("stsz", 0, 0, &[&u32s([0, 0])]),
            &full("stco", 0, 0, &[&u32s([0])]),
        ],
    );
    // 12, 8.4.4: the media header last, a choice.
    let minf = boxed("minf", &[&dinf, &stbl, &track.media_header]);
    let trak = boxed("trak", &[&tkhd, &boxed("mdia", &[&mdhd, &hdlr, &minf])]);
    // 12, 8.8.3: track_ID, default sample entry 1, no other defaults.
    let mvex = boxed("mvex", &[&full("trex", 0, 0, &[&u32s([1, 1, 0, 0, 0])])]);
    // 12, 8.2.1: mvex before trak, a choice.
    [ftyp, boxed("moov", &[&mvhd, &mvex, &trak])].concat()
}

/// 15, 5.4.2.
fn avc1(width: u16, height: u16, boxes: &[&[u8]]) -> Vec<u8> {
    visual_entry("avc1", width, height, boxes)
}

/// 12, 12.1.3: a visual sample entry with its boxes.
fn visual_entry(kind: &str, width: u16, height: u16, boxes: &[&[u8]]) -> Vec<u8> {
    boxed(
        kind,
        &[
            // Reserved, data_reference_index; pre_defined and reserved.
            &zeros(6),
            &u16s([1]),
            &zeros(16),
            &u16s([width, height]),
            // 72 dpi twice, reserved, one frame a sample, no compressor's name, depth 24, pre_defined -1.
            &u32s([0x48_0000, 0x48_0000, 0]),
            &u16s([1]),
            &zeros(32),
            &u16s([0x18, 0xffff]),
            &boxes.concat(),
        ],
    )
}

/// 15, 5.3.3.1.2: version 1, the SPS's profile, constraints and level, four-byte lengths, one SPS, one PPS (B10).
fn avcc(sps: &[u8], pps: &[u8], trailer: &[u8]) -> Vec<u8> {
    let sets = [&[0xe1][..], &u16s([sps.len() as u16]), sps, &[1], &u16s([pps.len() as u16]), pps].concat();
    boxed("avcC", &[&[1], &sps[1..4], &[0xff], &sets, trailer])
}

/// 15, 8.3.2.1: version 1; profile space, tier and profile, compatibility, constraints and level as in the SPS; no known
/// segmentation or parallelism; 4:2:0, eight bits each; no average rate; one temporal layer, nested, four-byte lengths; an
/// array each of VPS, SPS and PPS. `complete`: no such set stands in the samples.
fn hevc_record(complete: u8) -> Vec<u8> {
    let profile = [1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x1e];
    let rest = [0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 1 << 3 | 1 << 2 | 3, 3];
    let array = |kind: u8, set: &[u8]| [&[complete << 7 | kind][..], &u16s([1, set.len() as u16]), set].concat();
    [&profile[..], &rest, &array(32, VPS), &array(33, MAIN_SPS), &array(34, MAIN_PPS)].concat()
}

/// AV1, 2.3.3: marker and version; profile 0 and level 0; tier 0, eight bits, colour, 4:2:0 at an unknown position; no initial
/// delay; the sequence header.
fn av1_record() -> Vec<u8> {
    [&[0x81, 0, 0x0c, 0][..], SEQUENCE].concat()
}

/// 12, 12.2.3: an audio sample entry of two channels at 48 kHz, 16 bits.
fn audio_entry(kind: &str, specific: &[u8]) -> Vec<u8> {
    boxed(kind, &[&zeros(6), &u16s([1]), &zeros(8), &u16s([2, 16, 0, 0]), &u32s([48_000 << 16]), specific])
}

/// 14, 6.7.2 and 1, 7.2.6.5: ES_Descriptor with DecoderConfigDescriptor (object type 0x40, audio stream, upStream 0 and the
/// reserved bit), DecoderSpecificInfo and SLConfigDescriptor (predefined 2). Lengths of one byte each, a choice.
fn esds(asc: &[u8]) -> Vec<u8> {
    let specific = [&[0x05, asc.len() as u8][..], asc].concat();
    let buffer_and_rates = zeros(3 + 4 + 4);
    let decoder = [&[0x40, 5 << 2 | 1][..], &buffer_and_rates, &specific].concat();
    let decoder = [&[0x04, decoder.len() as u8][..], &decoder].concat();
    let es = [&u16s([ES_ID])[..], &[0], &decoder, &[0x06, 1, 2]].concat();
    full("esds", 0, 0, &[&[0x03, es.len() as u8], &es])
}

/// 14, 4.1.2: zero in a file.
const ES_ID: u16 = 0;

/// Opus, 4.3.2: version 0, channels, PreSkip, InputSampleRate, OutputGain, mapping family 0; all big-endian (B12).
fn dops(channels: u8, pre_skip: u16) -> Vec<u8> {
    boxed("dOps", &[&[0, channels], &u16s([pre_skip]), &u32s([48_000]), &u16s([0]), &[0]])
}

/// A sample as a trun describes it: duration, whether it is a sync sample, composition offset, data.
type Sample<'a> = (u32, bool, i32, &'a [u8]);

/// B3, B7: one moof with one traf, and one mdat. `composed`: with composition offsets.
fn part(sequence: u32, decode_time: u64, composed: bool, samples: &[Sample<'_>]) -> Vec<u8> {
    // 12, 8.8.8, flags: data offset, and of each sample duration, size, flags and, where composed, the offset. The flags of a
    // single sample stand as those of the first one, a choice.
    let single = samples.len() == 1;
    let flags = if single { 0x0305 } else { 0x0701 } | if composed { 0x0800 } else { 0 };
    let (mut first, mut rows) = (Vec::new(), Vec::new());
    for (duration, sync, offset, data) in samples {
        rows.extend(u32s([*duration, data.len() as u32]));
        // 12, 8.8.3.1: depends on no other (2), or on others (1) and is no sync sample.
        let dependence = if *sync { 0x0200_0000_u32 } else { 0x0101_0000 };
        if single { &mut first } else { &mut rows }.extend(dependence.to_be_bytes());
        if composed {
            rows.extend(offset.to_be_bytes());
        }
    }
    let moof = |data_offset: u32| {
        // 12, 8.8.5, 8.8.7 (flag: base is the moof; track_ID), 8.8.12 (version 1: 64 bits), 8.8.8 (version 1: signed offsets).
        let tfhd = full("tfhd", 0, 0x2_0000, &[&u32s([1])]);
        let tfdt = full("tfdt", 1, 0, &[&decode_time.to_be_bytes()]);
        let trun = full("trun", 1, flags, &[&u32s([samples.len() as u32, data_offset]), &first, &rows]);
        boxed("moof", &[&full("mfhd", 0, 0, &[&u32s([sequence])]), &boxed("traf", &[&tfhd, &tfdt, &trun])])
    };
    // From the moof's first byte to the mdat's payload.
    let offset = moof(0).len() as u32 + 8;
    let payload: Vec<u8> = samples.iter().flat_map(|(.., data)| data.iter().copied()).collect();
    [moof(offset), boxed("mdat", &[&payload])].concat()
}

/// Fails with the offset and the lines around it, not with two walls of numbers.
fn assert_same(made: &[u8], expected: &[u8]) {
    let differs = made.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(made.len().min(expected.len()));
    let lines = |bytes: &[u8]| {
        let from = (differs / 16).saturating_sub(2) * 16;
        let line = |(n, row): (usize, &[u8])| format!("{:04x} {row:02x?} {}\n", from + n * 16, row.escape_ascii());
        bytes.get(from..).unwrap_or(&[]).chunks(16).take(6).enumerate().map(line).collect::<String>()
    };
    let (a, b) = (made.len(), expected.len());
    assert!(made == expected, "at {differs:#x}: {a} bytes\n{}instead of {b}\n{}", lines(made), lines(expected));
}

/// What ffprobe reads out of the joined bytes, as `key=value` words; None where it is missing.
fn probe(bytes: &[&[u8]], entries: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("joined.mp4");
    std::fs::write(&path, bytes.concat()).unwrap();
    let args = ["-v", "error", "-show_entries", entries, "-of", "compact=p=0:nk=0", path.to_str().unwrap()];
    let text = String::from_utf8(common::tool("ffprobe", &args)?).unwrap();
    Some(text.lines().filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n"))
}

#[test]
fn b1_b6_b9_b10_golden_h264_baseline_init_and_parts() {
    let pictures: Vec<(i64, &[u8])> = (0..).zip(BASELINE_PICTURES).collect();
    let cuts = [MediaTime::from_millis(1000), MediaTime::from_ticks(90_000 + FRAME, 90_000)];
    let (made, parts) = package(video(&baseline(), &pictures), &cuts);

    let entry = avc1(64, 48, &[&avcc(BASELINE_SPS, BASELINE_PPS, &[])]);
    let init = init(&video_track(64, 48, entry));
    assert_same(&made, &init);

    let data: Vec<Vec<u8>> = BASELINE_PICTURES.iter().map(|nal| with_length(nal)).collect();
    // B4: the second begins where the first ends. The last frame lasts as long as the one before it did.
    let first = part(1, 90_000, false, &[(3600, true, 0, &data[0])]);
    assert_same(&parts[0], &first);
    let second = part(2, 93_600, false, &[(3600, false, 0, &data[1]), (3600, false, 0, &data[2])]);
    assert_same(&parts[1], &second);

    let entries = "stream=codec_name,profile,codec_tag_string,width,height,level:packet=pts,dts,duration,flags,size";
    let Some(text) = probe(&[&init, &first, &second], entries) else { return };
    assert_eq!(
        text,
        "pts=90000|dts=90000|duration=3600|size=23|flags=K_\n\
         pts=93600|dts=93600|duration=3600|size=10|flags=__\n\
         pts=97200|dts=97200|duration=3600|size=10|flags=__\n\
         codec_name=h264|profile=Constrained Baseline|codec_tag_string=avc1|width=64|height=48|level=10"
    );
}

/// The High profile's trailer and the pixel aspect ratio (12, 12.1.4; B15); composition offsets (B8).
#[test]
fn b8_b10_b15_golden_h264_high_init_and_part_with_reordered_pictures() {
    let (made, parts) = package(video(&high(), &HIGH_PICTURES), &[MediaTime::from_millis(1000)]);

    // 15, 5.3.3.1.2: reserved ones with 4:2:0, eight bits each of luma and chroma, no SPS extensions.
    let trailer = [0xfc | 1, 0xf8, 0xf8, 0];
    let pasp = boxed("pasp", &[&u32s([4, 3])]);
    let init = init(&video_track(64, 48, avc1(48, 48, &[&avcc(HIGH_SPS, HIGH_PPS, &trailer), &pasp])));
    assert_same(&made, &init);

    let data: Vec<Vec<u8>> = HIGH_PICTURES.iter().map(|(_, nal)| with_length(nal)).collect();
    // Two pictures come later than they are shown late: decoding begins one frame before the first picture is shown.
    let samples: Vec<Sample<'_>> = [(true, 3600), (false, 3 * 3600), (false, 0), (false, 0), (false, 3600)]
        .into_iter()
        .zip(&data)
        .map(|((sync, offset), data)| (3600, sync, offset, &data[..]))
        .collect();
    let expected = part(1, 90_000 - 3600, true, &samples);
    assert_same(&parts[0], &expected);

    let entries =
        "stream=profile,width,height,sample_aspect_ratio,display_aspect_ratio,has_b_frames:packet=pts,dts,flags";
    let Some(text) = probe(&[&init, &expected], entries) else { return };
    assert_eq!(
        text,
        "pts=90000|dts=86400|flags=K_\n\
         pts=100800|dts=90000|flags=__\n\
         pts=93600|dts=93600|flags=__\n\
         pts=97200|dts=97200|flags=__\n\
         pts=104400|dts=100800|flags=__\n\
         profile=High|width=48|height=48|has_b_frames=1|sample_aspect_ratio=4:3|display_aspect_ratio=4:3"
    );
}

/// Parameter sets stand in the sample entry, all of them, and pictures alone in the samples (15, 8.4.1.1: `hvc1`).
#[test]
fn b1_b9_golden_h265_init_and_part() {
    let samples = MAIN_PICTURES.map(with_length);
    let (made, parts) = package(pictures(&h265(), &samples), &[MediaTime::from_millis(1000)]);

    let entry = visual_entry("hvc1", 64, 48, &[&boxed("hvcC", &[&hevc_record(1)])]);
    let init = init(&video_track(64, 48, entry));
    assert_same(&made, &init);
    let rows = [(true, &samples[0]), (false, &samples[1]), (false, &samples[2])];
    let expected = part(1, 90_000, false, &rows.map(|(sync, data)| (3600, sync, 0, &data[..])));
    assert_same(&parts[0], &expected);

    assert_eq!(h265().rfc6381(), "hvc1.1.6.L30.90");
    let entries = "stream=codec_name,profile,codec_tag_string,width,height,level:packet=pts,dts,flags,size";
    let Some(text) = probe(&[&init, &expected], entries) else { return };
    assert_eq!(
        text,
        "pts=90000|dts=90000|size=20|flags=K_\n\
         pts=93600|dts=93600|size=17|flags=__\n\
         pts=97200|dts=97200|size=18|flags=__\n\
         codec_name=hevc|profile=Main|codec_tag_string=hvc1|width=64|height=48|level=30"
    );
}

/// The sequence header stands in the sample entry and in each sync sample, temporal delimiters nowhere (AV1, 2.3.4, 2.4, 2.5).
#[test]
fn b1_b9_golden_av1_init_and_part() {
    let samples = [[SEQUENCE, FRAMES[0]].concat(), FRAMES[1].to_vec(), FRAMES[2].to_vec()];
    let (made, parts) = package(pictures(&av1(), &samples), &[MediaTime::from_millis(1000)]);

    let entry = visual_entry("av01", 64, 48, &[&boxed("av1C", &[&av1_record()])]);
    let init = init(&video_track(64, 48, entry));
    assert_same(&made, &init);
    let rows = [(true, &samples[0]), (false, &samples[1]), (false, &samples[2])];
    let expected = part(1, 90_000, false, &rows.map(|(sync, data)| (3600, sync, 0, &data[..])));
    assert_same(&parts[0], &expected);

    assert_eq!(av1().rfc6381(), "av01.0.00M.08");
    let entries = "stream=codec_name,profile,codec_tag_string,width,height:packet=pts,dts,flags,size";
    let Some(text) = probe(&[&init, &expected], entries) else { return };
    assert_eq!(
        text,
        "pts=90000|dts=90000|size=36|flags=K_\n\
         pts=93600|dts=93600|size=20|flags=__\n\
         pts=97200|dts=97200|size=20|flags=__\n\
         codec_name=av1|profile=Main|codec_tag_string=av01|width=64|height=48"
    );
}

/// Half a record is no init segment, and no panic.
#[test]
fn records_that_are_cut_short_make_no_init_segment() {
    for cut in 0..hevc_record(1).len() - 1 {
        let TrackConfig::H265(config) = &*h265() else { unreachable!() };
        let config = H265Config { record: config.record.slice(..cut), ..config.clone() };
        assert_eq!(init_of(TrackConfig::H265(config).shared()), None, "{cut}");
    }
    for cut in 0..4 {
        let TrackConfig::Av1(config) = &*av1() else { unreachable!() };
        let config = Av1Config { record: config.record.slice(..cut), ..config.clone() };
        assert_eq!(init_of(TrackConfig::Av1(config).shared()), None, "{cut}");
    }
}

#[test]
fn b1_b6_b13_golden_aac_init_and_parts() {
    let cuts = [MediaTime::from_millis(1000), MediaTime::from_ticks(48_000 + 2 * 1024, 48_000)];
    let (made, parts) = package(audio(&common::aac_config(), &[(1024, AAC_FRAME); 3]), &cuts);

    let init = init(&audio_track(audio_entry("mp4a", &esds(&[0x11, 0x90]))));
    assert_same(&made, &init);
    let first = part(1, 48_000, false, &[(1024, true, 0, AAC_FRAME); 2]);
    assert_same(&parts[0], &first);
    let second = part(2, 48_000 + 2048, false, &[(1024, true, 0, AAC_FRAME)]);
    assert_same(&parts[1], &second);

    let entries = "stream=codec_name,profile,codec_tag_string,sample_rate,channels:packet=pts,size,flags";
    let Some(text) = probe(&[&init, &first, &second], entries) else { return };
    assert_eq!(
        text,
        "pts=48000|size=6|flags=K_\n\
         pts=49024|size=6|flags=K_\n\
         pts=50048|size=6|flags=K_\n\
         codec_name=aac|profile=LC|codec_tag_string=mp4a|sample_rate=48000|channels=2"
    );
}

/// Packets of different lengths in one part: a duration comes from its packet, not from a constant (B12).
#[test]
fn b1_b6_b12_golden_opus_init_and_part() {
    let frames = [(960, OPUS_20_MS), (480, OPUS_10_MS), (960, OPUS_20_MS)];
    let (made, parts) = package(audio(&opus(), &frames), &[MediaTime::from_millis(1000)]);

    let init = init(&audio_track(audio_entry("Opus", &dops(2, 312))));
    assert_same(&made, &init);
    let samples = [(960, true, 0, OPUS_20_MS), (480, true, 0, OPUS_10_MS), (960, true, 0, OPUS_20_MS)];
    let expected = part(1, 48_000, false, &samples);
    assert_same(&parts[0], &expected);

    let entries = "stream=codec_name,codec_tag_string,sample_rate,channels:packet=pts,size,flags";
    let Some(text) = probe(&[&init, &expected], entries) else { return };
    assert_eq!(
        text,
        "pts=48000|size=3|flags=K_\n\
         pts=48960|size=3|flags=K_\n\
         pts=49440|size=3|flags=K_\n\
         codec_name=opus|codec_tag_string=Opus|sample_rate=48000|channels=2"
    );
}
