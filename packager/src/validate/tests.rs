//! Each rule is broken once; arbitrary input breaks nothing.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use media::{AacConfig, AccessUnit, Av1Config, H264Config, H265Config, MediaDuration, MediaTime, TrackConfig};
use proptest::prelude::*;

use super::*;
use crate::{ChannelTiming, HlsSettings, Lookup, PartRule, Rendition, Segmenter};

const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.60000,HOLD-BACK=6.0,CAN-SKIP-UNTIL=12.0\n\
    #EXT-X-PART-INF:PART-TARGET=0.20000\n";

/// A playlist of segments of 1.6 s: `first` is listed first, `parts` parts of the segment `open` exist.
fn live(first: u64, open: u64, parts: usize) -> String {
    let mut text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:3\n");
    text += "#EXT-X-MAP:URI=\"init.mp4\"\n";
    for msn in first..=open {
        let count = if msn == open { parts } else { 8 };
        if count > 0 {
            let millis = msn * 1600;
            text += &format!("#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:{:02}.{:03}Z\n", millis / 1000, millis % 1000);
        }
        for part in (0..count).take(if msn + 3 < open { 0 } else { 8 }) {
            let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
            text += &format!("#EXT-X-PART:DURATION=0.2,URI=\"{msn}.{part}.m4s\"{independent}\n");
        }
        if msn < open {
            text += &format!("#EXTINF:1.6,\n{msn}.m4s\n");
        }
    }
    text + &format!(
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{open}.{parts}.m4s\"\n#EXT-X-RENDITION-REPORT:URI=\"b\",LAST-MSN=1,LAST-PART=2\n"
    )
}

/// A playlist by itself, and against an earlier one.
fn check_text(previous: Option<&str>, text: &str) -> Findings {
    let mut findings = Findings::default();
    let Some(now) = Playlist::read(text, &mut findings) else { return findings };
    let before = previous.and_then(|text| Playlist::read(text, &mut Findings::default()));
    check_one(&now, before.as_ref().map(Playlist::edge), &mut findings);
    if let Some(before) = &before {
        check_update(before, &now, &mut findings);
    }
    findings
}

fn faults(findings: &Findings) -> Vec<Rule> {
    findings.faults().map(|(rule, _)| rule).collect()
}

#[test]
fn a_good_playlist_and_its_reloads_break_nothing() {
    let states = [live(3, 10, 1), live(3, 10, 8), live(3, 11, 0), live(4, 11, 1), live(5, 13, 3)];
    let mut previous: Option<&str> = None;
    for text in &states {
        let findings = check_text(previous, text);
        assert_eq!(findings.faults().chain(findings.warnings()).collect::<Vec<_>>(), [], "{text}");
        assert!(findings.iter().count() > 15);
        previous = Some(text);
    }
}

#[test]
fn each_rule_of_one_playlist_is_seen() {
    let good = live(3, 10, 3);
    for (find, put, expected) in [
        ("#EXTM3U\n", "#EXTM3V\n", Rule::A1),
        ("EXTINF:1.6", "EXTINF:1.6\u{7}", Rule::A1),
        ("#EXTINF:1.6,\n9.m4s", "9.m4s", Rule::A1),
        ("DURATION=0.2,URI=\"10.1.m4s\"", "DURATION=x,URI=\"10.1.m4s\"", Rule::A1),
        ("MEDIA-SEQUENCE:3", "MEDIA-SEQUENCE:18446744073709551615", Rule::A1),
        ("VERSION:6", "VERSION:5", Rule::A2),
        ("EXT-X-VERSION:6", "EXT-X-VERSION:6\n#EXT-X-VERSION:6", Rule::A2),
        ("TARGETDURATION:2", "TARGETDURATION:1", Rule::A3),
        ("#EXT-X-TARGETDURATION:2\n", "", Rule::A3),
        ("#EXT-X-DISCONTINUITY-SEQUENCE:3\n", "#EXT-X-DISCONTINUITY\n", Rule::A13),
        ("10:00:08.000Z", "10:00:10.000Z", Rule::A16),
        ("#EXT-X-MAP:URI=\"init.mp4\"\n", "", Rule::A17),
        ("\"10.0.m4s\",INDEPENDENT=YES\n", "\"10.0.m4s\"\n#EXT-X-DISCONTINUITY\n", Rule::A18),
        ("\"10.0.m4s\",INDEPENDENT=YES\n", "\"10.0.m4s\"\n#EXT-X-INDEPENDENT-SEGMENTS\n", Rule::A19),
        ("#EXT-X-PART-INF", "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1\n#EXT-X-PART-INF", Rule::A20),
        ("PART-HOLD-BACK=0.60000,", "", Rule::A21),
        ("PART-HOLD-BACK=0.60000,", "PART-HOLD-BACK=0.3,", Rule::A21),
        ("HOLD-BACK=6.0", "HOLD-BACK=5.9", Rule::A21),
        ("UNTIL=12.0", "UNTIL=11.9", Rule::A22),
        ("DURATION=0.2,URI=\"10.1.m4s\"", "DURATION=0.201,URI=\"10.1.m4s\"", Rule::A23),
        ("DURATION=0.2,URI=\"10.1.m4s\"", "DURATION=0.16,URI=\"10.1.m4s\"", Rule::A24),
        ("EXTINF:1.6,\n9.m4s", "EXTINF:1.5,\n9.m4s", Rule::A26),
        ("#EXT-X-PRELOAD-HINT", "#EXT-X-ENDLIST\n#EXT-X-PRELOAD-HINT", Rule::A29),
        (",LAST-MSN=1", "", Rule::A33),
    ] {
        let text = good.replacen(find, put, 1);
        assert_ne!(text, good, "{find}");
        let found = faults(&check_text(None, &text));
        assert!(found.contains(&expected), "{put}: {found:?}\n{text}");
        assert!(found.len() <= 3, "{put}: {found:?}");
    }
    for (find, put, expected) in [
        ("CAN-BLOCK-RELOAD=YES,", "", Rule::A20),
        (",LAST-PART=2", "", Rule::A33),
        ("PART-HOLD-BACK=0.60000,", "PART-HOLD-BACK=0.5,", Rule::A21),
        ("#EXTINF:1.6,\n4.m4s", "#EXT-X-PART:DURATION=0.2,URI=\"x\"\n#EXTINF:0.2,\n4.m4s", Rule::A28),
        ("#EXT-X-PRELOAD-HINT", "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"x\"\n#EXT-X-PRELOAD-HINT", Rule::A29),
    ] {
        let text = good.replacen(find, put, 1);
        let findings = check_text(None, &text);
        assert!(findings.warnings().any(|(rule, _)| rule == expected), "{put}\n{text}");
    }
}

#[test]
fn a_changed_history_is_seen() {
    let before = live(3, 10, 3);
    let after = live(4, 10, 4);
    for (find, put, expected) in [
        ("TARGETDURATION:2", "TARGETDURATION:3", Rule::A3),
        ("MEDIA-SEQUENCE:4", "MEDIA-SEQUENCE:2", Rule::A5),
        ("\n9.m4s", "\n9x.m4s", Rule::A6),
        ("EXTINF:1.6,\n8.m4s", "EXTINF:1.601,\n8.m4s", Rule::A6),
        ("\"10.0.m4s\"", "\"10.x.m4s\"", Rule::A6),
        ("10:00:08.000Z", "10:00:08.001Z", Rule::A6),
        ("init.mp4", "init-2.mp4", Rule::A6),
        ("#EXT-X-MAP", "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP", Rule::A7),
        ("SEQUENCE:3", "SEQUENCE:4", Rule::A13),
        ("SEQUENCE:3", "SEQUENCE:2", Rule::A13),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=13.0", Rule::A20),
        ("PART-TARGET=0.20000", "PART-TARGET=0.20001", Rule::A25),
    ] {
        let text = after.replacen(find, put, 1);
        assert_ne!(text, after, "{find}");
        let found = faults(&check_text(Some(&before), &text));
        assert!(found.contains(&expected), "{put}: {found:?}\n{text}");
    }
    assert_eq!(faults(&check_text(Some(&before), &live(3, 10, 2))), [Rule::A6], "the end went back");
    assert_eq!(faults(&check_text(Some(&live(3, 10, 3)), &live(9, 10, 4))), [Rule::A8], "the window shrank");
}

#[test]
fn a_delta_update_is_held_against_what_is_known() {
    let check = |before: &str, text: &str| {
        let mut findings = Findings::default();
        let before = Playlist::read(before, &mut findings).unwrap();
        check_delta(&before, &Playlist::read(text, &mut findings).unwrap(), &mut findings);
        faults(&findings)
    };
    let delta = |first: u64, skipped: u64, open| {
        live(first + skipped, open, 1).replace(
            &format!("MEDIA-SEQUENCE:{}", first + skipped),
            &format!("MEDIA-SEQUENCE:{first}\n#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}"),
        )
    };
    assert_eq!(check(&live(3, 15, 1), &delta(3, 4, 16)), []);
    assert_eq!(check(&live(3, 15, 1), &delta(3, 8, 16)), [Rule::A34], "too little is left");
    assert_eq!(check(&live(3, 6, 1), &delta(3, 5, 17)), [Rule::A34], "what was never listed");
    assert_eq!(check(&live(3, 15, 1), &delta(3, 0, 16)), [Rule::A34], "nothing");
}

#[test]
fn renditions_are_held_against_each_other() {
    let check = |a: &str, b: &str| {
        let mut findings = Findings::default();
        let (a, b) = (Playlist::read(a, &mut findings).unwrap(), Playlist::read(b, &mut findings).unwrap());
        check_across(("a", &a), ("b", &b), &mut findings);
        faults(&findings)
    };
    let good = live(3, 10, 1);
    assert_eq!(check(&good, &live(4, 10, 4)), []);
    assert_eq!(check(&good, &good.replace("SEQUENCE:3\n#EXT-X-MAP", "SEQUENCE:4\n#EXT-X-MAP")), [Rule::A14]);
    let broken = good.replace(
        "#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:08",
        "#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-11-20T10:00:08",
    );
    assert_eq!(check(&good, &broken), [Rule::A14]);
    assert_eq!(check(&good, &good.replace("TARGETDURATION:2", "TARGETDURATION:3")), [Rule::A58]);
    assert_eq!(check(&good, &good.replace("UNTIL=12", "UNTIL=13")), [Rule::A20]);
}

#[test]
fn multivariant_rules_are_seen() {
    let good = "#EXTM3U\n#EXT-X-VERSION:6\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"AAC\",LANGUAGE=\"und\",DEFAULT=YES,CHANNELS=\"2\",URI=\"aac/index.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=900,AVERAGE-BANDWIDTH=800,CODECS=\"avc1.42C01F,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=30.000,AUDIO=\"aac\"\n\
        v/index.m3u8\n";
    let check = |text: &str| {
        let mut findings = Findings::default();
        let read = Multivariant::read(text, &mut findings);
        assert!(read.variants.len() <= 2);
        faults(&findings)
    };
    assert!(Multivariant::is_one(good) && !Multivariant::is_one(&live(3, 10, 1)));
    assert_eq!(check(good), []);
    for (find, put, expected) in [
        ("BANDWIDTH=900,", "", Rule::A56),
        ("BANDWIDTH=900,", "BANDWIDTH=700,", Rule::A56),
        ("CODECS=\"avc1.42C01F,mp4a.40.2\",", "", Rule::A57),
        ("RESOLUTION=640x360,", "", Rule::A57),
        ("FRAME-RATE=30.000,", "", Rule::A57),
        (",AUDIO=\"aac\"", ",AUDIO=\"opus\"", Rule::A59),
        ("NAME=\"AAC\",", "", Rule::A59),
        ("#EXT-X-STREAM", "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"AAC\",URI=\"b\"\n#EXT-X-STREAM", Rule::A59),
        ("v/index.m3u8\n", "", Rule::A1),
    ] {
        let text = good.replacen(find, put, 1);
        assert_ne!(text, good, "{find}");
        assert!(check(&text).contains(&expected), "{put}");
    }
}

/// The init segment and the first parts of a second of frames that last `ticks` each.
fn made(config: TrackConfig, ticks: i64, timescale: u32) -> (Bytes, Vec<Bytes>) {
    let millis = MediaDuration::from_millis;
    let settings = HlsSettings { part_aim: millis(200), segment_target: millis(2000), window: millis(12_000) };
    let rule = PartRule::video(settings.part_aim, Some(MediaDuration::from_ticks(ticks, timescale)));
    let timing = ChannelTiming::new(settings, &[rule.target]);
    let mut rendition = Rendition::new("v".parse().unwrap(), timing, rule, 0);
    let mut segmenter = Segmenter::new(settings, 1);
    let config = config.shared();
    for n in 0..i64::from(timescale) / ticks {
        let pts = MediaTime::from_ticks(n * ticks + i64::from(timescale), timescale);
        let duration = Some(MediaDuration::from_ticks(ticks, timescale));
        let unit =
            AccessUnit { pts, dts: pts, duration, key: n == 0, config: config.clone(), data: vec![7; 99].into() };
        while let Some(cut) = segmenter.on_unit(unit.pts, unit.key) {
            rendition.cut(cut);
        }
        rendition.push(unit);
    }
    let snapshot = rendition.snapshot();
    let part = |n| match snapshot.part(1, n) {
        Lookup::Here(bytes) => Some(bytes),
        _ => None,
    };
    (snapshot.init(1).unwrap(), (0..).map_while(part).collect())
}

fn video() -> (Bytes, Vec<Bytes>) {
    let config = TrackConfig::H264(H264Config {
        sps: Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 0xd9]),
        pps: vec![Bytes::from_static(&[0x68, 0xce])],
        width: 1920,
        height: 1080,
        sar: (1, 1),
        reorder_depth: 0,
        frame_rate: Some((30, 1)),
    });
    made(config, 3000, 90_000)
}

/// What the runs of these bytes are, and which rules they break.
fn read_fragment(bytes: &[u8], init: &Init) -> (Vec<Run>, Vec<Rule>) {
    let mut findings = Findings::default();
    let runs = Fragment::read(bytes, init, &mut findings).map(|f| f.runs).unwrap_or_default();
    (runs, faults(&findings))
}

#[test]
fn init_segments_and_parts_are_read() {
    let (init, parts) = video();
    let mut findings = Findings::default();
    let init = Init::read(&init, &mut findings).unwrap();
    assert_eq!(findings.faults().chain(findings.warnings()).count(), 0);
    let [track] = &init.tracks[..] else { panic!("{init:?}") };
    assert_eq!(
        (track.id, track.kind, track.timescale, track.codec.as_str()),
        (1, TrackKind::Video, 90_000, "avc1.42C01F")
    );
    assert!(parts.len() >= 3, "{}", parts.len());
    let mut end = None;
    for (n, part) in parts.iter().enumerate() {
        let (runs, broken) = read_fragment(part, &init);
        let [run] = runs[..] else { panic!("{runs:?}") };
        assert_eq!((broken, run.samples, run.sync, run.longest), (vec![], 6, n == 0, 3000));
        assert!(end.is_none_or(|end| end == run.start) && run.end == run.start + 18_000);
        end = Some(run.end);
    }
    // A segment is its parts.
    assert_eq!(read_fragment(&parts.concat(), &init).0.len(), parts.len());

    let aac = TrackConfig::Aac(AacConfig {
        asc: Bytes::from_static(&[0x11, 0x90]),
        sample_rate: 48_000,
        channels: 2,
        object_type: 2,
        frame_samples: 1024,
    });
    let init = Init::read(&made(aac, 1024, 48_000).0, &mut findings).unwrap();
    assert_eq!((init.tracks[0].kind, init.tracks[0].codec.as_str()), (TrackKind::Audio, "mp4a.40.2"));
    let codec_of =
        |config| Init::read(&made(config, 3000, 90_000).0, &mut Findings::default()).unwrap().tracks[0].codec.clone();
    let (width, height, sar, frame_rate) = (640, 360, (1, 1), None);
    let record = Bytes::from_static(&[
        1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 63, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 15, 0,
    ]);
    let h265 = TrackConfig::H265(H265Config { record, width, height, sar, frame_rate });
    let record = Bytes::from_static(&[0x81, 0x24, 0x4c, 0]);
    let av1 = TrackConfig::Av1(Av1Config { record, width, height, sar, frame_rate });
    for (config, codec) in [(h265, "hvc1.1.6.L63.90"), (av1, "av01.1.04M.10")] {
        assert_eq!(config.rfc6381(), codec);
        assert_eq!(codec_of(config), codec);
    }
    assert_eq!(Init::read(b"G@\0\x10 this is no MP4", &mut findings), None);
}

#[test]
fn each_rule_of_a_fragment_is_seen() {
    let (init, parts) = video();
    let init = Init::read(&init, &mut Findings::default()).unwrap();
    let part = &parts[0];
    let find = |name: &[u8]| part.windows(4).position(|w| w == name).unwrap();
    let change = |at: usize, to: &[u8]| {
        let mut bytes = part.to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        read_fragment(&bytes, &init).1
    };
    assert_eq!(change(find(b"mdat"), b"free"), [Rule::B2], "a moof without its mdat");
    assert_eq!(read_fragment(&part[..part.len() - 1], &init).1, [Rule::B2], "cut");
    assert_eq!(change(find(b"tfdt"), b"free"), [Rule::B3]);
    // Version and flags, track, tfhd without default-base-is-moof.
    assert_eq!(change(find(b"tfhd") + 5, &[0, 0, 0]), [Rule::B3]);
    // Version and flags, number of samples, data offset, then the first sample's duration and size.
    let trun = find(b"trun");
    assert_eq!(change(trun + 12, &[0, 0, 0, 9]), [Rule::B3], "the offset");
    assert!(change(trun + 8, &[0, 0, 0, 5]).contains(&Rule::B3), "a sample less than there is media");
    let mut findings = Findings::default();
    let moov_only = &video().0[24..];
    let moov = moov_only.windows(4).position(|w| w == b"moov").unwrap() - 4;
    Init::read(&moov_only[moov..], &mut findings).unwrap();
    assert_eq!(faults(&findings), [Rule::B1], "no ftyp");
}

proptest! {
    #[test]
    fn no_bytes_panic(flips in proptest::collection::vec((0usize..1200, 0u8..), 0..6), cut in 0usize..1200) {
        let (init, parts) = video();
        let damage = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for (at, to) in &flips {
                if let Some(byte) = bytes.get_mut(*at) {
                    *byte = *to;
                }
            }
            bytes.truncate(cut.max(8));
            bytes
        };
        let mut findings = Findings::default();
        let whole = Init::read(&init, &mut findings).unwrap();
        let damaged = Init::read(&damage(&init), &mut findings).unwrap_or_default();
        let _ = Fragment::read(&damage(&parts[0]), &whole, &mut findings);
        let _ = Fragment::read(&parts[0], &damaged, &mut findings);
        prop_assert!(findings.iter().count() > 0);
    }

    #[test]
    fn no_text_panics(
        lines in proptest::collection::vec("(#EXT(-X-(PART|MAP|SKIP|PART-INF|BYTERANGE|PRELOAD-HINT|SERVER-CONTROL|TARGETDURATION|MEDIA-SEQUENCE|DISCONTINUITY-SEQUENCE|RENDITION-REPORT|PROGRAM-DATE-TIME|STREAM-INF|MEDIA)|INF):)?((URI|DURATION|BYTERANGE|LAST-MSN|SKIPPED-SEGMENTS|PART-TARGET|CAN-SKIP-UNTIL)=\"?[0-9.@]{0,22}\"?,?){0,3}[0-9T:.Z-]{0,24}\\PC{0,5}", 0..30),
        split in 0usize..30,
    ) {
        let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:{split}\n{}", lines.join("\n"));
        let other = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{}", lines.iter().skip(split).cloned().collect::<Vec<_>>().join("\n"));
        let mut findings = check_text(Some(&other), &text);
        findings.absorb(check_text(None, &lines.join("\n")), "raw");
        let _ = Multivariant::read(&text, &mut findings);
        let (a, b) = (Playlist::read(&text, &mut findings), Playlist::read(&other, &mut findings));
        if let (Some(a), Some(b)) = (a, b) {
            check_across(("a", &a), ("b", &b), &mut findings);
            check_delta(&a, &b, &mut findings);
        }
    }

    #[test]
    fn edited_playlists_do_not_panic(at in 0usize..2000, with in "\\PC{0,12}", cut in 0usize..40) {
        let good = live(3, 10, 3);
        let characters: Vec<char> = good.chars().collect();
        let at = at.min(characters.len());
        let text: String = characters[..at].iter().copied().chain(with.chars()).chain(characters[at..].iter().copied().skip(cut)).collect();
        let _ = check_text(Some(&good), &text);
        let _ = check_text(Some(&text), &good);
    }
}
