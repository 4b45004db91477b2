//! ffprobe and ffmpeg as oracles: what the packager writes is what a demuxer and a decoder expect.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use media::{AccessUnit, MediaDuration};
use packager::{ChannelTiming, HlsSettings, Lookup, PartRule, Rendition, Segmenter};

fn settings() -> HlsSettings {
    HlsSettings {
        part_aim: MediaDuration::from_millis(200),
        segment_target: MediaDuration::from_millis(2000),
        window: MediaDuration::from_millis(24_000),
    }
}

/// Packages the units as one rendition, cut where `leader` says, and ends it.
fn package(units: &[AccessUnit], leader: &[AccessUnit]) -> Rendition {
    let rule = match units[0].duration {
        Some(frame) => PartRule::audio(settings().part_aim, frame),
        None => PartRule::video(settings().part_aim, Some(MediaDuration::from_ticks(1, 30))),
    };
    let timing = ChannelTiming::new(settings(), &[rule.target]);
    let mut rendition = Rendition::new("r".parse().unwrap(), timing, rule, 0);
    let mut segmenter = Segmenter::new(settings(), 1);
    let mut leader = leader.iter().peekable();
    for unit in units {
        while let Some(lead) = leader.next_if(|lead| lead.pts <= unit.pts) {
            while let Some(cut) = segmenter.on_unit(lead.pts, lead.key) {
                rendition.cut(cut);
            }
        }
        rendition.push(unit.clone());
    }
    rendition.end();
    rendition
}

/// Writes what the playlist lists and returns the playlist's path.
fn write(rendition: &mut Rendition, folder: &Path) -> String {
    let snapshot = rendition.snapshot();
    let playlist = snapshot.playlist(false, &[]);
    for line in playlist.lines() {
        if let Some(name) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            let name = name.trim_end_matches('"');
            let msn = name.trim_start_matches("init-").trim_end_matches(".mp4").parse().unwrap();
            std::fs::write(folder.join(name), snapshot.init(msn).unwrap()).unwrap();
        } else if !line.starts_with('#') {
            let msn = line.trim_end_matches(".m4s").parse().unwrap();
            let Lookup::Here(chunks) = snapshot.segment(msn) else { panic!("segment {msn} is listed") };
            std::fs::write(folder.join(line), chunks.concat()).unwrap();
        }
    }
    let path = folder.join("index.m3u8");
    std::fs::write(&path, playlist).unwrap();
    path.to_str().unwrap().to_owned()
}

/// (dts, pts, duration) of every packet, in ticks of `timescale`.
fn packets(playlist: &str) -> Option<Vec<(i64, i64, i64)>> {
    let entries = ["-show_entries", "packet=dts,pts,duration", "-of", "csv=p=0"];
    let mut args = vec!["-v", "error", "-allowed_extensions", "ALL"];
    args.extend(entries);
    args.push(playlist);
    let text = String::from_utf8(common::tool("ffprobe", &args)?).unwrap();
    let parse = |line: &str| {
        let mut numbers = line.split(',').map(|n| n.parse().unwrap_or(-1));
        let (pts, dts, duration) = (numbers.next().unwrap(), numbers.next().unwrap(), numbers.next().unwrap());
        (dts, pts, duration)
    };
    Some(text.lines().filter(|l| !l.is_empty()).map(parse).collect())
}

fn decodes_without_error(playlist: &str) {
    let args = ["-v", "error", "-xerror", "-allowed_extensions", "ALL", "-i", playlist, "-f", "null", "-"];
    common::tool("ffmpeg", &args);
}

/// B4, B22: every frame is there, and decode times add up without a seam over parts and segments.
#[test]
fn b4_b22_video_is_seamless_for_ffprobe_and_decodes() {
    let Some(units) = common::h264(9, 30, &["-bf", "0"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let playlist = write(&mut package(&units, &units), folder.path());
    let Some(packets) = packets(&playlist) else { return };
    assert_eq!(packets.len(), units.len());
    assert!(packets.windows(2).all(|w| w[1].0 - w[0].0 == 3000), "{packets:?}");
    decodes_without_error(&playlist);
}

#[test]
fn b4_b22_h265_and_av1_are_seamless_for_ffprobe_and_decode() {
    for (units, codec) in [(common::h265(5, 30), "hevc"), (common::av1(5, 30), "av1")] {
        let Some(units) = units else { return };
        assert_eq!(units.iter().filter(|u| u.key).count(), 5, "{codec}");
        let folder = tempfile::tempdir().unwrap();
        let playlist = write(&mut package(&units, &units), folder.path());
        let Some(packets) = packets(&playlist) else { return };
        assert_eq!(packets.len(), units.len(), "{codec}");
        assert!(packets.windows(2).all(|w| w[1].0 - w[0].0 == 3000), "{codec} {packets:?}");
        let args =
            ["-v", "error", "-allowed_extensions", "ALL", "-show_entries", "stream=codec_name", "-of", "csv=p=0"];
        let named = common::tool("ffprobe", &[&args[..], &[&playlist]].concat()).unwrap();
        assert!(String::from_utf8(named).unwrap().starts_with(codec), "{codec}");
        decodes_without_error(&playlist);
    }
}

#[test]
fn b4_b22_audio_is_seamless_for_ffprobe_and_decodes() {
    let Some(units) = common::aac(9) else { return };
    let folder = tempfile::tempdir().unwrap();
    let playlist = write(&mut package(&units, &units), folder.path());
    let Some(packets) = packets(&playlist) else { return };
    assert_eq!(packets.len(), units.len());
    assert!(packets.windows(2).all(|w| w[1].0 - w[0].0 == 1024), "{packets:?}");
    decodes_without_error(&playlist);
}

/// The High profile's avcC has the trailer that decoders look for (B10).
#[test]
fn b10_baseline_main_and_high_profiles_decode() {
    for profile in ["baseline", "main", "high"] {
        let Some(units) = common::h264(2, 30, &["-bf", "0", "-profile:v", profile]) else { return };
        let folder = tempfile::tempdir().unwrap();
        decodes_without_error(&write(&mut package(&units, &units), folder.path()));
    }
}
