//! Every playlist that random sources bring about keeps the rules of draft-pantos-hls-rfc8216bis, read back as text.
//! The rules' names (A3, A23 …) are those of docs/conformance.md.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use media::{AccessUnit, H264Config, MediaDuration, MediaTime, TrackConfig};
use packager::{ChannelTiming, Directives, HlsSettings, Lookup, PartRule, Reload, Rendition, Segmenter, Snapshot};
use proptest::prelude::*;

fn settings() -> HlsSettings {
    HlsSettings {
        part_aim: MediaDuration::from_millis(200),
        segment_target: MediaDuration::from_millis(2000),
        window: MediaDuration::from_millis(12_000),
    }
}

fn config(level: u8) -> Arc<TrackConfig> {
    TrackConfig::H264(H264Config {
        sps: Bytes::copy_from_slice(&[0x67, 0x42, 0xc0, level, 0xd9]),
        pps: vec![Bytes::from_static(&[0x68, 0xce])],
        width: 640,
        height: 360,
        sar: (1, 1),
        reorder_depth: 0,
        frame_rate: None,
    })
    .shared()
}

#[derive(Clone, Debug, PartialEq)]
struct PartLine {
    micros: i64,
    uri: String,
    independent: bool,
    gap: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct SegmentLines {
    msn: u64,
    micros: Option<i64>,
    parts: Vec<PartLine>,
    discontinuity: bool,
    gap: bool,
    map: Option<String>,
    date: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Playlist {
    target_duration: i64,
    part_target: i64,
    media_sequence: u64,
    discontinuity_sequence: u64,
    skipped: u64,
    hint: Option<String>,
    ended: bool,
    server_control: String,
    segments: Vec<SegmentLines>,
}

/// Decimal seconds as microseconds, without floats.
fn micros(text: &str) -> i64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction = format!("{fraction:0<6}");
    whole.parse::<i64>().unwrap() * 1_000_000 + fraction[..6].parse::<i64>().unwrap()
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.find(&format!("{name}="))? + name.len() + 1;
    let rest = &line[at..];
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(',').next(),
    }
}

fn parse(text: &str) -> Playlist {
    let mut playlist = Playlist::default();
    let mut open = SegmentLines::default();
    assert!(text.starts_with("#EXTM3U\n"), "A1");
    for line in text.lines() {
        let value = line.split_once(':').map_or("", |(_, v)| v);
        match line.split(':').next().unwrap() {
            "#EXT-X-TARGETDURATION" => playlist.target_duration = value.parse::<i64>().unwrap() * 1_000_000,
            "#EXT-X-PART-INF" => playlist.part_target = micros(attribute(line, "PART-TARGET").unwrap()),
            "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = value.parse().unwrap(),
            "#EXT-X-DISCONTINUITY-SEQUENCE" => playlist.discontinuity_sequence = value.parse().unwrap(),
            "#EXT-X-SKIP" => playlist.skipped = attribute(line, "SKIPPED-SEGMENTS").unwrap().parse().unwrap(),
            "#EXT-X-SERVER-CONTROL" => playlist.server_control = value.to_owned(),
            "#EXT-X-DISCONTINUITY" => open.discontinuity = true,
            "#EXT-X-GAP" => open.gap = true,
            "#EXT-X-MAP" => open.map = attribute(line, "URI").map(str::to_owned),
            "#EXT-X-PROGRAM-DATE-TIME" => open.date = Some(value.to_owned()),
            "#EXT-X-PRELOAD-HINT" => playlist.hint = attribute(line, "URI").map(str::to_owned),
            "#EXT-X-ENDLIST" => playlist.ended = true,
            "#EXT-X-PART" => {
                // A18: what belongs to the segment stands before its first part.
                assert!(open.date.is_some(), "A18 {text}");
                open.parts.push(PartLine {
                    micros: micros(attribute(line, "DURATION").unwrap()),
                    uri: attribute(line, "URI").unwrap().to_owned(),
                    independent: attribute(line, "INDEPENDENT") == Some("YES"),
                    gap: attribute(line, "GAP") == Some("YES"),
                });
            }
            "#EXTINF" => open.micros = Some(micros(value.trim_end_matches(','))),
            tag if tag.starts_with('#') => {}
            uri => {
                open.msn = uri.trim_end_matches(".m4s").parse().unwrap();
                playlist.segments.push(std::mem::take(&mut open));
            }
        }
    }
    if !open.parts.is_empty() {
        open.msn = open.parts[0].uri.split('.').next().unwrap().parse().unwrap();
        playlist.segments.push(open);
    }
    playlist
}

/// One rendition under watch.
struct Watch {
    rendition: Rendition,
    segmenter: Segmenter,
    last: Option<Playlist>,
    /// Every part and init URI that was ever listed, with its bytes: content at a URI never changes.
    seen: HashMap<String, Bytes>,
    hint: Option<String>,
}

impl Watch {
    fn new(rule: PartRule) -> Self {
        let timing = ChannelTiming::new(settings(), &[rule.target]);
        Self {
            rendition: Rendition::new("v".parse().unwrap(), timing, rule, 0),
            segmenter: Segmenter::new(settings(), 100),
            last: None,
            seen: HashMap::new(),
            hint: None,
        }
    }

    fn push(&mut self, unit: AccessUnit) {
        while let Some(cut) = self.segmenter.on_unit(unit.pts, unit.key) {
            self.rendition.cut(cut);
        }
        self.rendition.push(unit);
        self.check();
    }

    fn check(&mut self) {
        let snapshot = self.rendition.snapshot();
        if !snapshot.is_playable() {
            return;
        }
        let text = snapshot.playlist(false, &[]);
        m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap_or_else(|e| panic!("m3u8-rs: {e}\n{text}"));
        let playlist = parse(&text);
        self.check_one(&snapshot, &playlist, &text);
        if let Some(last) = self.last.take() {
            check_update(&last, &playlist, &text);
        }
        check_reload(&snapshot);
        check_delta(&snapshot, &playlist);
        self.hint = playlist.hint.clone();
        self.last = Some(playlist);
    }

    fn check_one(&mut self, snapshot: &Snapshot, playlist: &Playlist, text: &str) {
        assert_eq!(playlist.segments[0].msn, playlist.media_sequence, "{text}");
        assert!(playlist.segments[0].map.is_some(), "A17: the first segment names its init segment\n{text}");
        let hold_back = micros(attribute(&playlist.server_control, "PART-HOLD-BACK").unwrap());
        assert!(hold_back >= 3 * playlist.part_target, "A21 {text}");
        let skip = micros(attribute(&playlist.server_control, "CAN-SKIP-UNTIL").unwrap());
        assert!(skip >= 6 * playlist.target_duration, "A22 {text}");
        for (index, segment) in playlist.segments.iter().enumerate() {
            assert_eq!(segment.msn, playlist.media_sequence + index as u64, "A5 {text}");
            assert!(segment.date.is_some(), "A15 {text}");
            if let Some(duration) = segment.micros {
                assert!((duration + 500_000) / 1_000_000 * 1_000_000 <= playlist.target_duration, "A3 {text}");
                if !segment.parts.is_empty() {
                    let sum: i64 = segment.parts.iter().map(|p| p.micros).sum();
                    assert!((sum - duration).abs() <= 10 * segment.parts.len() as i64, "A26 {text}");
                }
            }
            self.check_parts(snapshot, playlist, segment, text);
        }
        // A8: at least three target durations stay listed once there was as much.
        let listed: i64 = playlist.segments.iter().filter_map(|s| s.micros).sum();
        if playlist.media_sequence > 100 {
            assert!(listed >= 3 * playlist.target_duration, "A8 {text}");
        }
        if let Some(hint) = &playlist.hint {
            let (msn, part) = hint.trim_end_matches(".m4s").split_once('.').unwrap();
            let found = snapshot.part(msn.parse().unwrap(), part.parse().unwrap());
            assert_eq!(found, Lookup::Wait, "A30: what is hinted is held\n{text}");
        }
    }

    fn check_parts(&mut self, snapshot: &Snapshot, playlist: &Playlist, segment: &SegmentLines, text: &str) {
        for (index, part) in segment.parts.iter().enumerate() {
            assert!(part.micros <= playlist.part_target, "A23 {text}");
            let last = segment.micros.is_some() && index + 1 == segment.parts.len();
            let before_gap = segment.parts.get(index + 1).is_some_and(|next| next.gap);
            let exempt = part.gap || part.independent || last || before_gap || segment.micros.is_none();
            assert!(exempt || part.micros * 100 >= playlist.part_target * 85, "A24 {part:?}\n{text}");
            match snapshot.part(segment.msn, index as u64) {
                Lookup::Here(bytes) => {
                    assert!(!part.gap, "{text}");
                    let first = self.seen.entry(part.uri.clone()).or_insert_with(|| bytes.clone());
                    assert_eq!(*first, bytes, "content at {} changed", part.uri);
                }
                other => assert!(part.gap && other == Lookup::Missing, "A11 {part:?} {other:?}\n{text}"),
            }
        }
        if segment.micros.is_some() && !segment.gap {
            let Lookup::Here(chunks) = snapshot.segment(segment.msn) else { panic!("A11 {text}") };
            // A gap part has no bytes; a segment has far fewer parts than this.
            let part = |index| match snapshot.part(segment.msn, index) {
                Lookup::Here(bytes) => Some(bytes),
                _ => None,
            };
            let parts: Vec<Bytes> = (0..64).filter_map(part).collect();
            assert_eq!(chunks.concat(), parts.concat(), "A26 {text}");
        }
    }
}

/// A6, A25: only the allowed edits between two playlists.
fn check_update(last: &Playlist, now: &Playlist, text: &str) {
    assert_eq!(last.target_duration, now.target_duration, "A3 {text}");
    assert_eq!(last.part_target, now.part_target, "A25 {text}");
    assert_eq!(last.server_control, now.server_control, "A20 {text}");
    assert!(now.media_sequence >= last.media_sequence, "A5 {text}");
    let removed = last.segments.iter().filter(|s| s.msn < now.media_sequence && s.discontinuity).count() as u64;
    assert_eq!(now.discontinuity_sequence, last.discontinuity_sequence + removed, "A13 {text}");
    for before in &last.segments {
        let Some(after) = now.segments.iter().find(|s| s.msn == before.msn) else {
            assert!(before.msn < now.media_sequence, "A6: segment {} vanished\n{text}", before.msn);
            continue;
        };
        assert_eq!((before.discontinuity, &before.date), (after.discontinuity, &after.date), "A6 {text}");
        if before.micros.is_some() {
            assert_eq!(before.micros, after.micros, "A6 {text}");
        }
        if !after.parts.is_empty() {
            assert_eq!(before.parts[..], after.parts[..before.parts.len()], "A6 {text}");
        }
    }
}

/// A35 to A39: what a reload gets, against the text of the playlist.
fn check_reload(snapshot: &Snapshot) {
    let ask = |msn, part| snapshot.reload(&Directives { msn, part, skip: false });
    assert_eq!(ask(None, None), Reload::Now, "A41");
    assert!(matches!(ask(None, Some(0)), Reload::Refuse(_)), "A37");
    let position = snapshot.position().unwrap();
    let part = position.part.unwrap();
    assert_eq!(ask(Some(position.msn), Some(part)), Reload::Now, "A35");
    assert_eq!(ask(Some(0), None), Reload::Now, "A38: no longer listed is answered");
    if matches!(snapshot.segment(position.msn), Lookup::Wait) {
        assert_eq!(ask(Some(position.msn), None), Reload::Wait, "A35: an msn alone waits for the whole segment");
        assert_eq!(ask(Some(position.msn), Some(part + 1)), Reload::Wait, "A35");
        assert_eq!(ask(Some(position.msn + 1), Some(0)), Reload::Wait, "A35");
        assert_eq!(ask(Some(position.msn - 1), Some(9999)), ask(Some(position.msn), Some(0)), "A36");
        assert!(matches!(ask(Some(position.msn + 2), None), Reload::Refuse(_)), "A39");
        assert!(matches!(ask(Some(position.msn), Some(part + 100)), Reload::Refuse(_)), "A39");
    }
    assert_eq!(snapshot.part(position.msn + 3, 0), Lookup::Missing, "A31");
}

/// A34: a delta update is the playlist without its oldest segments.
fn check_delta(snapshot: &Snapshot, whole: &Playlist) {
    let delta = parse(&snapshot.playlist(true, &[]));
    assert_eq!(delta.media_sequence, whole.media_sequence, "A34");
    assert_eq!(delta.segments[..], whole.segments[delta.skipped as usize..], "A34");
}

#[derive(Clone, Debug)]
struct Source {
    fps: i64,
    gop: usize,
    /// Deviation of each frame's time, in 90 kHz ticks, as fractions of a tenth of a frame.
    jitter: Vec<i8>,
    frames: usize,
    /// (frame, milliseconds): the source stalls before that frame.
    stall: Option<(usize, i64)>,
    change_at: Option<usize>,
}

fn sources() -> impl Strategy<Value = Source> {
    (
        prop::sample::select(vec![15i64, 24, 25, 30, 50, 60]),
        1usize..400,
        prop::collection::vec(-10i8..=10, 64),
        100usize..900,
        prop::option::of((10usize..800, 40i64..9000)),
        prop::option::of(50usize..700),
    )
        .prop_map(|(fps, gop, jitter, frames, stall, change_at)| Source {
            fps,
            gop,
            jitter,
            frames,
            stall,
            change_at,
        })
}

fn run(source: &Source) {
    let frame = 90_000 / source.fps;
    let mut watch =
        Watch::new(PartRule::video(settings().part_aim, Some(MediaDuration::from_ticks(1, source.fps as u32))));
    let mut delay = 0;
    let mut parameters = config(30);
    for n in 0..source.frames {
        if let Some((at, millis)) = source.stall
            && at == n
        {
            delay += millis * 90;
        }
        if source.change_at == Some(n) {
            parameters = config(31);
            watch.segmenter.discontinuity();
        }
        // Up to 2 ms of noise: what a capture clock adds.
        let noise = i64::from(source.jitter[n % source.jitter.len()]) * 18;
        let pts = MediaTime::from_ticks(90_000 + n as i64 * frame + delay + noise, 90_000);
        let key = n % source.gop == 0 || source.change_at == Some(n);
        let data = Bytes::from(n.to_be_bytes().to_vec());
        watch.push(AccessUnit { pts, dts: pts, duration: None, key, config: parameters.clone(), data });
    }
    watch.rendition.end();
    watch.check();
    let last = watch.last.unwrap();
    assert!(last.ended && last.hint.is_none(), "A46");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn playlists_of_any_source_keep_the_rules(source in sources()) {
        run(&source);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A source that skips frames: while none lasts longer than a part may, and a key frame comes in time, nothing is missing.
    #[test]
    fn frames_of_any_length_up_to_a_part_leave_no_gap(
        steps in prop::collection::vec(prop_oneof![3 => 15i64..50, 1 => 50i64..=206], 50..400),
        gop in 1usize..=2,
    ) {
        let mut watch = Watch::new(PartRule::video(settings().part_aim, Some(MediaDuration::from_ticks(1, 30))));
        let mut at = 1000;
        for (n, step) in steps.iter().enumerate() {
            let pts = MediaTime::from_millis(at);
            let data = Bytes::from_static(&[1]);
            watch.push(AccessUnit { pts, dts: pts, duration: None, key: n % gop == 0, config: config(30), data });
            at += step;
        }
        watch.rendition.end();
        watch.check();
        let last = watch.last.unwrap();
        prop_assert!(last.segments.iter().all(|s| !s.gap && s.parts.iter().all(|p| !p.gap)));
        let listed: i64 = last.segments.iter().filter_map(|s| s.micros).sum();
        prop_assert!(last.media_sequence > 100 || (at - 1000 - listed / 1000).abs() <= 206, "time is kept");
    }
}

#[test]
fn a_ten_second_gop_with_a_stall_keeps_the_rules() {
    run(&Source { fps: 30, gop: 300, jitter: vec![0], frames: 900, stall: Some((400, 7000)), change_at: None });
}

/// A9, A47: a segment that left the playlist can still be fetched for as long as a player may have it listed.
#[test]
fn a9_what_left_the_playlist_stays_for_a_while_and_then_goes() {
    let mut watch = Watch::new(PartRule::video(settings().part_aim, Some(MediaDuration::from_ticks(1, 30))));
    let unit = |n: i64, watch: &mut Watch| {
        let pts = MediaTime::from_ticks(90_000 + n * 3000, 90_000);
        let data = Bytes::from_static(&[1]);
        watch.push(AccessUnit { pts, dts: pts, duration: None, key: n % 30 == 0, config: config(30), data });
    };
    (0..30 * 21).for_each(|n| unit(n, &mut watch));
    let snapshot = watch.rendition.snapshot();
    assert!(snapshot.media_sequence() > 101);
    assert!(matches!(snapshot.segment(100), Lookup::Here(_)));
    assert!(snapshot.init(100).is_some());
    (30 * 21..30 * 60).for_each(|n| unit(n, &mut watch));
    let snapshot = watch.rendition.snapshot();
    assert_eq!(snapshot.segment(100), Lookup::Missing);
    assert!(snapshot.init(100).is_some(), "A17: it is still in use");
}
