//! Golden playlists: the whole text, written down from draft-pantos-hls-rfc8216bis ("bis"), and what m3u8-rs reads out of it.
//! A1, A2 and so on are the rules of docs/conformance.md.
//!
//! The channel has 20 frames a second, a key frame each second, segments of one second of two parts each: TARGETDURATION 1,
//! PART-TARGET 3 % above half a second. Parts and segments are listed 10 µs shorter than they are (ADR 7). Its timeline and its
//! first publisher begin at 2026-11-21T00:00:00Z and one second.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use m3u8_rs::{AlternativeMedia, VariantStream};
use media::{
    AacConfig, AccessUnit, Av1Config, ClockMap, H264Config, H265Config, MediaDuration, MediaTime, OpusConfig,
    TrackConfig, WallTime,
};
use packager::{
    Bandwidth, ChannelTiming, Directives, HlsSettings, Lookup, PartRule, Reload, Rendition, Report, Segmenter,
    Snapshot, Variant, multivariant,
};

const SETTINGS: HlsSettings = HlsSettings {
    part_aim: MediaDuration(media::FLICKS_PER_SECOND / 2),
    segment_target: MediaDuration(media::FLICKS_PER_SECOND),
    window: MediaDuration(9 * media::FLICKS_PER_SECOND),
};

/// Frames a second.
const RATE: u32 = 20;

/// 2026-11-21T00:00:00Z.
const MIDNIGHT: WallTime = WallTime(1_795_219_200_000_000);

fn h264(level: u8, sar: (u32, u32)) -> Arc<TrackConfig> {
    TrackConfig::H264(H264Config {
        sps: Bytes::copy_from_slice(&[0x67, 0x42, 0xc0, level, 0xd9]),
        pps: vec![Bytes::from_static(&[0x68, 0xce])],
        width: 720,
        height: 576,
        sar,
        reorder_depth: 0,
        frame_rate: None,
    })
    .shared()
}

struct Live {
    segmenter: Segmenter,
    rendition: Rendition,
    config: Arc<TrackConfig>,
    /// The next frame's number since the timeline's begin.
    next: i64,
    last_key: Option<i64>,
}

impl Live {
    fn new() -> Self {
        let rule = PartRule::video(SETTINGS.part_aim, Some(MediaDuration::from_ticks(1, RATE)));
        let mut segmenter = Segmenter::new(SETTINGS, 100);
        segmenter.clock(ClockMap { media: MediaTime::ZERO, wall: MIDNIGHT });
        let timing = ChannelTiming::new(SETTINGS, &[rule.target]);
        let rendition = Rendition::new("v".parse().unwrap(), timing, rule, 7);
        Self { segmenter, rendition, config: h264(30, (1, 1)), next: i64::from(RATE), last_key: None }
    }

    fn frames(&mut self, count: i64) -> Arc<Snapshot> {
        for _ in 0..count {
            let pts = MediaTime::from_ticks(self.next, RATE);
            let key = self.last_key.is_none_or(|last| self.next - last >= i64::from(RATE));
            if key {
                self.last_key = Some(self.next);
            }
            while let Some(cut) = self.segmenter.on_unit(pts, key) {
                self.rendition.cut(cut);
            }
            let data = Bytes::from_static(&[0; 100]);
            self.rendition.push(AccessUnit { pts, dts: pts, duration: None, key, config: self.config.clone(), data });
            self.next += 1;
        }
        self.rendition.snapshot()
    }

    /// The publisher goes; another comes on this frame, with a key frame.
    fn new_publisher(&mut self, next: i64, config: Arc<TrackConfig>) {
        self.rendition.flush();
        self.segmenter.new_publisher();
        (self.next, self.last_key, self.config) = (next, None, config);
    }
}

/// What m3u8-rs understands of a media playlist: a line with its numbers, and one a segment.
fn reread(text: &str) -> String {
    let playlist = m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap();
    let mut out = format!(
        "v{} td{} msn{} dsn{}{}\n",
        playlist.version.unwrap(),
        playlist.target_duration,
        playlist.media_sequence,
        playlist.discontinuity_sequence,
        if playlist.end_list { " end" } else { "" }
    );
    // An unfinished segment has tags and no URI.
    for segment in playlist.segments.iter().filter(|s| !s.uri.is_empty()) {
        let date = segment.program_date_time.unwrap().timestamp_millis() - MIDNIGHT.millis();
        let map = segment.map.as_ref().map_or(String::new(), |map| format!(" {}", map.uri));
        let discontinuity = if segment.discontinuity { "discontinuity " } else { "" };
        let gap = if segment.unknown_tags.iter().any(|tag| tag.tag == "X-GAP") { " gap" } else { "" };
        out += &format!("{discontinuity}{} {} @{date}{map}{gap}\n", segment.uri, segment.duration);
    }
    out
}

/// The lines that all media playlists of this channel share (A20 to A22, A25).
const CONTROL: &str = "#EXT-X-TARGETDURATION:1\n\
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.54500,HOLD-BACK=3.00000,CAN-SKIP-UNTIL=6.00000\n\
#EXT-X-PART-INF:PART-TARGET=0.51500\n";

/// One open segment: its tags stand before its first part, the next part is hinted, the other rendition is reported.
#[test]
fn a1_a2_a15_a17_a18_a20_a29_a33_golden_first_part() {
    let snapshot = Live::new().frames(11);
    let report = Report { uri: "../a/index.m3u8".to_owned(), last_msn: 100, last_part: Some(1) };
    let text = snapshot.playlist(false, &[report]);
    let golden = "#EXT-X-MEDIA-SEQUENCE:100\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:7\n\
        #EXT-X-MAP:URI=\"init-100.mp4\"\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:01.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"100.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"100.1.m4s\"\n\
        #EXT-X-RENDITION-REPORT:URI=\"../a/index.m3u8\",LAST-MSN=100,LAST-PART=1\n";
    assert_eq!(text, format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}"));
    assert_eq!(reread(&text), "v6 td1 msn100 dsn7\n");
}

/// A complete segment and an open one; then the key frame that begins a third, which has no part yet but is hinted (A29); then
/// its first part. A reload that waits for a whole segment waits until that stands in the playlist (A35).
#[test]
fn a27_a29_a35_golden_parts_and_hint() {
    let mut live = Live::new();
    let text = live.frames(31).playlist(false, &[]);
    let golden = "#EXT-X-MEDIA-SEQUENCE:100\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:7\n\
        #EXT-X-MAP:URI=\"init-100.mp4\"\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:01.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"100.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"100.1.m4s\"\n\
        #EXTINF:0.99999,\n\
        100.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:02.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"101.0.m4s\",INDEPENDENT=YES\n";
    let hint = "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"101.1.m4s\"\n";
    assert_eq!(text, format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}{hint}"));
    assert_eq!(reread(&text), "v6 td1 msn100 dsn7\n100.m4s 0.99999 @1000 init-100.mp4\n");

    // All frames of the segment came, but how long its last one lasts only the next one tells.
    let text = live.frames(9).playlist(false, &[]);
    assert_eq!(
        text,
        format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}{hint}"),
        "the last frame lacks its duration"
    );
    // Complete, but not yet named as a whole: it would pass for loaded before its last part is (ADR 7).
    let snapshot = live.frames(1);
    let last = "#EXT-X-PART:DURATION=0.49999,URI=\"101.1.m4s\"\n";
    let hint = "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"102.0.m4s\"\n";
    assert_eq!(snapshot.playlist(false, &[]), format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}{last}{hint}"));
    assert!(matches!(snapshot.segment(101), Lookup::Here(_)));
    let whole = Directives { msn: Some(101), part: None, skip: false };
    assert_eq!(snapshot.reload(&whole), Reload::Wait);

    let snapshot = live.frames(10);
    let named = "#EXTINF:0.99999,\n\
        101.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:03.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"102.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"102.1.m4s\"\n";
    assert_eq!(snapshot.playlist(false, &[]), format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}{last}{named}"));
    assert_eq!(snapshot.reload(&whole), Reload::Now);
}

/// A full window: parts only of the last three target durations (A28), MEDIA-SEQUENCE moved on by what left (A5, A8), and
/// the same as a delta update (A34, A2).
#[test]
fn a5_a8_a28_a34_golden_full_window_and_delta_update() {
    let snapshot = Live::new().frames(11 * 20 + 11);
    let head = "#EXT-X-MEDIA-SEQUENCE:102\n#EXT-X-DISCONTINUITY-SEQUENCE:7\n";
    let plain = |range: std::ops::Range<i64>| -> String {
        let lines = range.map(|msn| {
            let second = msn - 99;
            format!("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:{second:02}.000Z\n#EXTINF:0.99999,\n{msn}.m4s\n")
        });
        lines.collect()
    };
    let tail = "#EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:10.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"109.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"109.1.m4s\"\n\
        #EXTINF:0.99999,\n\
        109.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:11.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"110.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"110.1.m4s\"\n\
        #EXTINF:0.99999,\n\
        110.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:12.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"111.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"111.1.m4s\"\n";
    let text = snapshot.playlist(false, &[]);
    let map = "#EXT-X-MAP:URI=\"init-100.mp4\"\n";
    assert_eq!(text, format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{head}{map}{}{tail}", plain(102..109)));
    let listed = (103..111).map(|msn| format!("{msn}.m4s 0.99999 @{}000\n", msn - 99)).collect::<String>();
    assert_eq!(reread(&text), format!("v6 td1 msn102 dsn7\n102.m4s 0.99999 @3000 init-100.mp4\n{listed}"));

    // Left out is what ends more than CAN-SKIP-UNTIL, six seconds, before the end at 12.5 s, and with it its EXT-X-MAP.
    let delta = snapshot.playlist(true, &[]);
    let skip = "#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n";
    assert_eq!(delta, format!("#EXTM3U\n#EXT-X-VERSION:9\n{CONTROL}{head}{skip}{}{tail}", plain(105..109)));
    let listed = (105..111).map(|msn| format!("{msn}.m4s 0.99999 @{}000\n", msn - 99)).collect::<String>();
    assert_eq!(reread(&delta), format!("v9 td1 msn102 dsn7\n{listed}"));
}

/// A34: with nothing to leave out the answer is the plain playlist; an ended one has no delta updates either.
#[test]
fn a34_golden_no_delta_of_a_short_or_ended_playlist() {
    let mut live = Live::new();
    let short = live.frames(6 * 20 + 11);
    assert_eq!(short.playlist(true, &[]), short.playlist(false, &[]));
    live.frames(5 * 20);
    live.rendition.end();
    let ended = live.rendition.snapshot();
    assert_eq!(ended.playlist(true, &[]), ended.playlist(false, &[]));
}

/// A publisher with other parameters returns after half a minute, on the same msn line (A45).
#[test]
fn a12_a13_a15_a17_a18_a45_golden_discontinuity() {
    let mut live = Live::new();
    live.frames(15);
    live.new_publisher(35 * 20, h264(31, (1, 1)));
    let snapshot = live.frames(31);
    let text = snapshot.playlist(false, &[]);
    let golden = "#EXT-X-MEDIA-SEQUENCE:100\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:7\n\
        #EXT-X-MAP:URI=\"init-100.mp4\"\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:01.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"100.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.24999,URI=\"100.1.m4s\"\n\
        #EXTINF:0.74999,\n\
        100.m4s\n\
        #EXT-X-DISCONTINUITY\n\
        #EXT-X-MAP:URI=\"init-101.mp4\"\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:35.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"101.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"101.1.m4s\"\n\
        #EXTINF:0.99999,\n\
        101.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:36.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"102.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"102.1.m4s\"\n";
    assert_eq!(text, format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}"));
    let listed = "100.m4s 0.74999 @1000 init-100.mp4\ndiscontinuity 101.m4s 0.99999 @35000 init-101.mp4\n";
    assert_eq!(reread(&text), format!("v6 td1 msn100 dsn7\n{listed}"));
    assert!(snapshot.init(100).is_some() && snapshot.init(100) != snapshot.init(101), "A17");

    // A13: the number rises when the tag leaves the list, not when the segment before it does.
    let head = |live: &mut Live, frames| {
        let text = live.frames(frames).playlist(false, &[]);
        let lines =
            text.lines().filter(|l| l.contains("-SEQUENCE:") || l.contains("DISCONTINUITY") || l.contains("MAP"));
        lines.map(|l| format!("{l}\n")).collect::<String>()
    };
    assert_eq!(
        head(&mut live, 8 * 20),
        "#EXT-X-MEDIA-SEQUENCE:101\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:7\n\
         #EXT-X-DISCONTINUITY\n\
         #EXT-X-MAP:URI=\"init-101.mp4\"\n"
    );
    assert_eq!(
        head(&mut live, 20),
        "#EXT-X-MEDIA-SEQUENCE:102\n\
         #EXT-X-DISCONTINUITY-SEQUENCE:8\n\
         #EXT-X-MAP:URI=\"init-101.mp4\"\n"
    );
}

/// The source stalls from 2.4 to 4.25 seconds within a session, then goes on with a key frame (A44). Nothing can be fetched
/// of a gap (A31).
#[test]
fn a31_a44_golden_gap() {
    let mut live = Live::new();
    live.frames(28);
    live.next += 37;
    let snapshot = live.frames(11);
    let text = snapshot.playlist(false, &[]);
    let golden = "#EXT-X-MEDIA-SEQUENCE:100\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:7\n\
        #EXT-X-MAP:URI=\"init-100.mp4\"\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:01.000Z\n\
        #EXTINF:0.99999,\n\
        100.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:02.000Z\n\
        #EXT-X-PART:DURATION=0.39999,URI=\"101.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"101.1.m4s\",GAP=YES\n\
        #EXT-X-PART:DURATION=0.09999,URI=\"101.2.m4s\",GAP=YES\n\
        #EXTINF:0.99999,\n\
        101.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:03.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"102.0.m4s\",GAP=YES\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"102.1.m4s\",GAP=YES\n\
        #EXT-X-PART:DURATION=0.24999,URI=\"102.2.m4s\",GAP=YES\n\
        #EXT-X-GAP\n\
        #EXTINF:1.24999,\n\
        102.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:04.250Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"103.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"103.1.m4s\"\n";
    assert_eq!(text, format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}"));
    let listed = "100.m4s 0.99999 @1000 init-100.mp4\n101.m4s 0.99999 @2000\n102.m4s 1.24999 @3000 gap\n";
    assert_eq!(reread(&text), format!("v6 td1 msn100 dsn7\n{listed}"));
    assert_eq!((snapshot.segment(102), snapshot.part(102, 0)), (Lookup::Missing, Lookup::Missing));
}

/// A46: ENDLIST, no hint; what was open is complete, the last frame as long as the one before it.
#[test]
fn a29_a46_golden_end() {
    let mut live = Live::new();
    live.frames(35);
    live.rendition.end();
    let report = Report { uri: "../a/index.m3u8".to_owned(), last_msn: 101, last_part: None };
    let text = live.rendition.snapshot().playlist(false, &[report]);
    let golden = "#EXT-X-MEDIA-SEQUENCE:100\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:7\n\
        #EXT-X-MAP:URI=\"init-100.mp4\"\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:01.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"100.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"100.1.m4s\"\n\
        #EXTINF:0.99999,\n\
        100.m4s\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:02.000Z\n\
        #EXT-X-PART:DURATION=0.49999,URI=\"101.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.24999,URI=\"101.1.m4s\"\n\
        #EXTINF:0.74999,\n\
        101.m4s\n\
        #EXT-X-ENDLIST\n\
        #EXT-X-RENDITION-REPORT:URI=\"../a/index.m3u8\",LAST-MSN=101\n";
    assert_eq!(text, format!("#EXTM3U\n#EXT-X-VERSION:6\n{CONTROL}{golden}"));
    assert_eq!(reread(&text), "v6 td1 msn100 dsn7 end\n100.m4s 0.99999 @1000 init-100.mp4\n101.m4s 0.74999 @2000\n");
}

// --- The multivariant playlist ---

fn variant(id: &str, config: Arc<TrackConfig>, frame_rate_milli: Option<u32>, peak: u64, average: u64) -> Variant {
    Variant { id: id.parse().unwrap(), config, frame_rate_milli, bandwidth: Bandwidth { peak, average } }
}

fn aac() -> Variant {
    let asc = Bytes::from_static(&[0x11, 0x90]);
    let config = AacConfig { asc, sample_rate: 48_000, channels: 2, object_type: 2, frame_samples: 1024 };
    variant("aac", TrackConfig::Aac(config).shared(), None, 140_000, 130_000)
}

fn opus() -> Variant {
    let config = OpusConfig { channels: 1, pre_skip: 312 };
    variant("opus", TrackConfig::Opus(config).shared(), None, 70_000, 60_000)
}

/// Anamorphic PAL at an odd rate, and a smaller rung.
fn video() -> [Variant; 2] {
    let small = variant("v360", h264(30, (1, 1)), Some(25_000), 900_000, 800_000);
    [variant("v576", h264(31, (16, 15)), Some(29_970), 2_000_000, 1_500_000), small]
}

/// What m3u8-rs understands of a multivariant playlist.
fn reread_multivariant(text: &str) -> (Vec<AlternativeMedia>, Vec<VariantStream>) {
    let playlist = m3u8_rs::parse_master_playlist_res(text.as_bytes()).unwrap();
    assert_eq!((playlist.version, playlist.independent_segments), (Some(6), false));
    (playlist.alternatives, playlist.variants)
}

/// A56 to A59: FRAME-RATE has up to three decimals; bit rates are sums with the audio group's, CODECS names both formats; a second
/// group goes with the best video only, declared a bit above its counterpart; the first group stands last by itself.
#[test]
fn a56_a57_a58_a59_golden_multivariant_with_two_audio_groups() {
    let text = multivariant(&video(), &[aac(), opus()]);
    let golden = "#EXTM3U\n\
        #EXT-X-VERSION:6\n\
        #EXT-X-MEDIA:TYPE=AUDIO,URI=\"aac/index.m3u8\",GROUP-ID=\"aac\",LANGUAGE=\"und\",NAME=\"AAC\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n\
        #EXT-X-MEDIA:TYPE=AUDIO,URI=\"opus/index.m3u8\",GROUP-ID=\"opus\",LANGUAGE=\"und\",NAME=\"Opus\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"1\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2140000,AVERAGE-BANDWIDTH=1630000,CODECS=\"avc1.42c01f,mp4a.40.2\",RESOLUTION=768x576,FRAME-RATE=29.97,AUDIO=\"aac\"\n\
        v576/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1040000,AVERAGE-BANDWIDTH=930000,CODECS=\"avc1.42c01e,mp4a.40.2\",RESOLUTION=720x576,FRAME-RATE=25,AUDIO=\"aac\"\n\
        v360/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2140001,AVERAGE-BANDWIDTH=1630001,CODECS=\"avc1.42c01f,opus\",RESOLUTION=768x576,FRAME-RATE=29.97,AUDIO=\"opus\"\n\
        v576/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=140000,AVERAGE-BANDWIDTH=130000,CODECS=\"mp4a.40.2\",AUDIO=\"aac\"\n\
        aac/index.m3u8\n";
    assert_eq!(text, golden);
    let (groups, variants) = reread_multivariant(&text);
    let groups: Vec<_> = groups.iter().map(|g| (&g.group_id[..], g.channels.as_deref().unwrap())).collect();
    assert_eq!(groups, [("aac", "2"), ("opus", "1")]);
    let variants: Vec<_> = variants.iter().map(|v| (&v.uri[..], v.audio.as_deref().unwrap(), v.bandwidth)).collect();
    assert_eq!(
        variants,
        [
            ("v576/index.m3u8", "aac", 2_140_000),
            ("v360/index.m3u8", "aac", 1_040_000),
            ("v576/index.m3u8", "opus", 2_140_001),
            ("aac/index.m3u8", "aac", 140_000),
        ]
    );
}

/// Variants of other codecs stand behind those of H.264, whatever their order in the ladder and their bit rate (A57): what a
/// player takes that looks at the first variant only is what every player decodes.
#[test]
fn a57_golden_multivariant_with_three_codecs() {
    let newer = |id: &str, config: TrackConfig, peak| variant(id, config.shared(), Some(30_000), peak, peak);
    let (width, height, sar, frame_rate) = (1280, 720, (1, 1), None);
    let record = Bytes::from_static(&[0x81, 5, 0x0c, 0]);
    let av1 = newer("v720-av1", TrackConfig::Av1(Av1Config { record, width, height, sar, frame_rate }), 1_500_000);
    let record = Bytes::from_static(&[1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93]);
    let h265 = newer("v720-h265", TrackConfig::H265(H265Config { record, width, height, sar, frame_rate }), 2_100_000);
    let [high, low] = video();
    let text = multivariant(&[av1, h265, high, low], &[aac()]);
    let golden = "#EXTM3U\n\
        #EXT-X-VERSION:6\n\
        #EXT-X-MEDIA:TYPE=AUDIO,URI=\"aac/index.m3u8\",GROUP-ID=\"aac\",LANGUAGE=\"und\",NAME=\"AAC\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2140000,AVERAGE-BANDWIDTH=1630000,CODECS=\"avc1.42c01f,mp4a.40.2\",RESOLUTION=768x576,FRAME-RATE=29.97,AUDIO=\"aac\"\n\
        v576/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1040000,AVERAGE-BANDWIDTH=930000,CODECS=\"avc1.42c01e,mp4a.40.2\",RESOLUTION=720x576,FRAME-RATE=25,AUDIO=\"aac\"\n\
        v360/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2240000,AVERAGE-BANDWIDTH=2230000,CODECS=\"hvc1.1.6.L93.90,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=30,AUDIO=\"aac\"\n\
        v720-h265/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1640000,AVERAGE-BANDWIDTH=1630000,CODECS=\"av01.0.05M.08,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=30,AUDIO=\"aac\"\n\
        v720-av1/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=140000,AVERAGE-BANDWIDTH=130000,CODECS=\"mp4a.40.2\",AUDIO=\"aac\"\n\
        aac/index.m3u8\n";
    assert_eq!(text, golden);
    assert_eq!(reread_multivariant(&text).1.len(), 5);
}

/// A56: the publisher's own picture is the best one, even where it has fewer bits than a rung below it.
#[test]
fn a56_a_better_picture_never_has_the_lower_bandwidth() {
    let [best, small] = video();
    let lean = Variant { bandwidth: Bandwidth { peak: 400_000, average: 300_000 }, ..best };
    let (_, variants) = reread_multivariant(&multivariant(&[lean.clone(), small.clone()], &[]));
    let rates: Vec<_> = variants.iter().map(|v| (v.bandwidth, v.average_bandwidth.unwrap())).collect();
    assert_eq!(rates, [(900_001, 300_000), (900_000, 800_000)]);
    let (_, variants) = reread_multivariant(&multivariant(&[lean, small], &[aac(), opus()]));
    let rates: Vec<_> = variants.iter().map(|v| v.bandwidth).collect();
    assert_eq!(rates, [1_040_001, 1_040_000, 1_040_002, 140_000]);
}

/// Video alone names no group, its CODECS no audio; without a measured rate there is no FRAME-RATE (A57).
#[test]
fn a56_a57_golden_multivariant_of_video_alone() {
    let young = variant("v", h264(31, (1, 1)), None, 0, 0);
    let text = multivariant(&[video()[0].clone(), young], &[]);
    let golden = "#EXTM3U\n\
        #EXT-X-VERSION:6\n\
        #EXT-X-STREAM-INF:BANDWIDTH=2000000,AVERAGE-BANDWIDTH=1500000,CODECS=\"avc1.42c01f\",RESOLUTION=768x576,FRAME-RATE=29.97\n\
        v576/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=1,CODECS=\"avc1.42c01f\",RESOLUTION=720x576\n\
        v/index.m3u8\n";
    assert_eq!(text, golden);
    let (groups, variants) = reread_multivariant(&text);
    assert!(groups.is_empty() && variants.iter().all(|v| v.audio.is_none()));
}

/// Audio alone: a variant each, no group, no RESOLUTION (A57, A59).
#[test]
fn a57_a59_golden_multivariant_of_audio_alone() {
    let text = multivariant(&[], &[aac(), opus()]);
    let golden = "#EXTM3U\n\
        #EXT-X-VERSION:6\n\
        #EXT-X-STREAM-INF:BANDWIDTH=140000,AVERAGE-BANDWIDTH=130000,CODECS=\"mp4a.40.2\"\n\
        aac/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=70000,AVERAGE-BANDWIDTH=60000,CODECS=\"opus\"\n\
        opus/index.m3u8\n";
    assert_eq!(text, golden);
    let (groups, variants) = reread_multivariant(&text);
    assert!(groups.is_empty() && variants.iter().all(|v| v.resolution.is_none() && v.frame_rate.is_none()));
}
