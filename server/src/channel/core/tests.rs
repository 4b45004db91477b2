//! A channel's life with synthetic units: no clock, no task, no worker.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use media::{AacConfig, H264Config, OpusConfig, WallTime};
use packager::validate::{Findings, Playlist, check_across, check_one, check_update};
use packager::{Directives, Reload};

use super::*;
use crate::config::Rung;

const SETTINGS: HlsSettings = HlsSettings {
    part_aim: MediaDuration(media::FLICKS_PER_SECOND / 5),
    segment_target: MediaDuration(2 * media::FLICKS_PER_SECOND),
    window: MediaDuration(24 * media::FLICKS_PER_SECOND),
};

fn h264(level: u8) -> Arc<TrackConfig> {
    TrackConfig::H264(H264Config {
        sps: Bytes::copy_from_slice(&[0x67, 0x42, 0xc0, level, 0xd9, 0x00]),
        pps: vec![Bytes::from_static(&[0x68, 0xce, 0x3c, 0x80])],
        width: 1280,
        height: 720,
        sar: (1, 1),
        reorder_depth: 0,
        frame_rate: None,
    })
    .shared()
}

fn aac() -> Arc<TrackConfig> {
    TrackConfig::Aac(AacConfig {
        asc: Bytes::from_static(&[0x11, 0x90]),
        sample_rate: 48_000,
        channels: 2,
        object_type: 2,
        frame_samples: 1024,
    })
    .shared()
}

fn opus() -> Arc<TrackConfig> {
    TrackConfig::Opus(OpusConfig { channels: 2, pre_skip: 0 }).shared()
}

/// A publisher's media from `from` to `to` (milliseconds of its own time): 30 fps with a key frame every `gop` frames,
/// and audio that runs ahead of the video by `audio_ahead` ms in arrival order.
struct Publisher {
    video: Option<Arc<TrackConfig>>,
    audio: Option<Arc<TrackConfig>>,
    gop: i64,
    audio_ahead: i64,
}

impl Publisher {
    fn units(&self, from: i64, to: i64) -> Vec<AccessUnit> {
        let mut units = Vec::new();
        if let Some(config) = &self.video {
            for n in 0.. {
                let pts = MediaTime::from_ticks(n * 3000, 90_000);
                if pts.millis() >= to {
                    break;
                }
                let data = Bytes::from_static(&[0, 0, 0, 2, 0x65, 0x88]);
                let key = n % self.gop == 0;
                units.push(AccessUnit { pts, dts: pts, duration: None, key, config: config.clone(), data });
            }
        }
        if let Some(config) = &self.audio {
            let samples = if matches!(**config, TrackConfig::Aac(_)) { 1024 } else { 960 };
            for n in 0.. {
                let pts = MediaTime::from_ticks(n * samples, 48_000);
                if pts.millis() >= to {
                    break;
                }
                let duration = Some(MediaDuration::from_ticks(samples, 48_000));
                let data = Bytes::from_static(&[1; 32]);
                units.push(AccessUnit { pts, dts: pts, duration, key: true, config: config.clone(), data });
            }
        }
        units.retain(|u| u.pts.millis() >= from);
        units.sort_by_key(|u| match u.kind() {
            TrackKind::Video => u.pts.millis(),
            TrackKind::Audio => u.pts.millis() - self.audio_ahead,
        });
        units
    }
}

struct Rig {
    core: Core,
    set: watch::Receiver<Arc<RenditionSet>>,
    engine: Vec<EngineInput>,
    specs: Vec<LadderSpec>,
    key_frame_requests: usize,
    /// Rungs of the engine, and from where on.
    suspended: Vec<(RenditionId, MediaTime)>,
}

impl Rig {
    fn new(ladder: Ladder) -> Self {
        let (core, set) = Core::new(SETTINGS, ladder, 1000, crate::channel::plan::tests::everything());
        Self { core, set, engine: vec![], specs: vec![], key_frame_requests: 0, suspended: vec![] }
    }

    fn feed(&mut self, units: Vec<AccessUnit>) {
        for unit in units {
            self.core.on_ingest(IngestEvent::Unit(unit));
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::StartEngine(spec) => self.specs.push(spec),
                Effect::StopEngine => {}
                Effect::Suspend { rungs, from } => self.suspended = rungs.into_iter().map(|id| (id, from)).collect(),
                Effect::ToEngine(input) => self.engine.push(input),
                Effect::RequestKeyFrame => self.key_frame_requests += 1,
            }
        }
    }

    fn snapshot(&self, id: &str) -> Arc<Snapshot> {
        self.set.borrow().find(id).unwrap().snapshots.borrow().clone()
    }

    fn playlist(&self, id: &str) -> String {
        self.snapshot(id).playlist(false, &[])
    }
}

fn passthrough() -> Ladder {
    Ladder::passthrough()
}

fn rungs_only() -> Ladder {
    let rung = Rung::usual(360, 700_000);
    Ladder { passthrough: false, rungs: vec![rung], ..Ladder::passthrough() }
}

fn camera() -> Publisher {
    Publisher { video: Some(h264(31)), audio: Some(aac()), gop: 30, audio_ahead: 60 }
}

fn discontinuities(playlist: &str) -> usize {
    playlist.lines().filter(|l| *l == "#EXT-X-DISCONTINUITY").count()
}

/// PROGRAM-DATE-TIME is left out of comparisons: it is a line of its own.
fn segments(playlist: &str) -> usize {
    playlist.lines().filter(|l| l.starts_with("#EXTINF")).count()
}

#[test]
fn video_and_audio_are_cut_alike() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(camera().units(0, 13_000));
    let (video, audio) = (rig.snapshot("src"), rig.snapshot("aac"));
    assert_eq!(video.media_sequence(), 1000);
    assert_eq!(audio.media_sequence(), 1000);
    assert_eq!(video.position().unwrap().msn, audio.position().unwrap().msn);
    assert_eq!(segments(&rig.playlist("src")), 6);
    assert_eq!(segments(&rig.playlist("aac")), 6);
    assert_eq!(discontinuities(&rig.playlist("src")), 0);
    for line in rig.playlist("aac").lines().filter_map(|l| l.strip_prefix("#EXTINF:")) {
        let seconds: f64 = line.trim_end_matches(',').parse().unwrap();
        assert!((seconds - 2.0).abs() < 0.022, "audio segment of {seconds} s");
    }
}

#[test]
fn a_returning_publisher_continues_the_playlists_behind_one_discontinuity() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(camera().units(0, 5_000));
    let before = rig.snapshot("src").position().unwrap();
    rig.core.end_session();
    rig.core.begin_session();
    rig.feed(camera().units(0, 5_000));
    for id in ["src", "aac"] {
        let (snapshot, playlist) = (rig.snapshot(id), rig.playlist(id));
        assert_eq!(discontinuities(&playlist), 1, "{playlist}");
        assert_eq!(snapshot.media_sequence(), 1000);
        assert_eq!(snapshot.discontinuity_sequence(), 0);
        assert!(snapshot.position().unwrap().msn >= before.msn + 3, "{playlist}");
    }
    assert_eq!(rig.snapshot("src").position().unwrap().msn, rig.snapshot("aac").position().unwrap().msn);
}

#[test]
fn nothing_new_is_listed_while_the_publisher_is_away_and_a_held_reload_keeps_waiting() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(camera().units(0, 5_000));
    rig.core.end_session();
    let snapshot = rig.snapshot("src");
    let next = snapshot.position().unwrap().msn + 1;
    let wanted = Directives { msn: Some(next), part: Some(0), skip: false };
    assert_eq!(snapshot.reload(&wanted), Reload::Wait);
    assert!(!snapshot.is_ended());
    rig.core.end_channel();
    assert!(rig.snapshot("src").is_ended());
    assert!(rig.playlist("src").contains("#EXT-X-ENDLIST"));
}

#[test]
fn opus_goes_to_the_engine_and_passes_through_as_a_second_group() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(Publisher { audio: Some(opus()), ..camera() }.units(0, 5_000));
    assert_eq!(rig.specs.len(), 1);
    assert!(rig.specs[0].audio.is_some());
    assert!(rig.engine.iter().any(|i| i.unit.kind() == TrackKind::Audio));
    assert!(rig.snapshot("opus").is_playable());
    assert!(!rig.snapshot("aac").is_playable(), "nothing came back from the engine yet");
}

#[test]
fn rungs_alone_are_cut_on_the_channels_own_grid_whatever_the_sources_gop() {
    let mut rig = Rig::new(rungs_only());
    rig.core.begin_session();
    rig.feed(Publisher { gop: 300, audio: None, ..camera() }.units(0, 9_000));
    let forced: Vec<_> = rig.engine.iter().filter(|i| i.force_key).map(|i| i.unit.pts.millis()).collect();
    let start = timeline_start(1000).millis();
    assert_eq!(forced, [0, 2000, 4000, 6000, 8000].map(|after| start + after));
    assert_eq!(rig.key_frame_requests, 0, "nobody needs the source's key frames");
}

#[test]
fn a_source_with_rare_key_frames_is_cut_without_them_and_the_operator_is_told() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(Publisher { gop: 300, ..camera() }.units(0, 25_000));
    assert!(rig.core.messages().iter().any(|m| m.text.contains("key frame")));
    for line in rig.playlist("src").lines().filter_map(|l| l.strip_prefix("#EXTINF:")) {
        let seconds: f64 = line.trim_end_matches(',').parse().unwrap();
        assert!(seconds < 2.5, "segment of {seconds} s breaks TARGETDURATION 2");
    }
    assert!(rig.key_frame_requests > 0);
}

#[test]
fn audio_goes_on_when_the_video_stalls() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(camera().units(0, 4_000));
    rig.feed(Publisher { video: None, ..camera() }.units(4_000, 12_000));
    let audio = rig.snapshot("aac");
    assert!(audio.position().unwrap().msn >= 1004, "{}", rig.playlist("aac"));
    // The video returns: still the same msn line, and no segment number is skipped.
    rig.feed(camera().units(12_000, 16_000));
    assert_eq!(rig.snapshot("src").position().unwrap().msn, rig.snapshot("aac").position().unwrap().msn);
}

#[test]
fn changed_parameters_of_the_source_are_announced_once() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(camera().units(0, 4_000));
    rig.feed(Publisher { video: Some(h264(40)), ..camera() }.units(4_000, 8_000));
    for id in ["src", "aac"] {
        assert_eq!(discontinuities(&rig.playlist(id)), 1, "{}", rig.playlist(id));
    }
    assert_eq!(rig.playlist("src").matches("#EXT-X-MAP").count(), 2);
}

#[test]
fn a_jump_of_the_sources_clock_does_not_reach_the_playlists() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(camera().units(0, 4_000));
    rig.core.on_ingest(IngestEvent::Discontinuity);
    rig.drain();
    let mut later = camera().units(0, 4_000);
    for unit in &mut later {
        unit.pts += MediaDuration::from_millis(86_400_000);
        unit.dts += MediaDuration::from_millis(86_400_000);
    }
    rig.feed(later);
    assert_eq!(discontinuities(&rig.playlist("src")), 1);
    assert_eq!(rig.snapshot("src").position().unwrap().msn, rig.snapshot("aac").position().unwrap().msn);
}

#[test]
fn program_date_time_follows_the_capture_clock() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    let wall = WallTime(1_795_226_400_000_000);
    rig.core.on_ingest(IngestEvent::Clock(ClockMap { media: MediaTime::ZERO, wall }));
    rig.feed(camera().units(0, 4_500));
    let playlist = rig.playlist("src");
    assert!(playlist.contains("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T02:00:00.000Z"), "{playlist}");
    assert!(playlist.contains("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T02:00:02.000Z"), "{playlist}");
}

/// A21, A25: what the playlists promised before the picture came still holds afterwards.
#[test]
fn a_picture_that_comes_late_keeps_the_part_hold_back() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(Publisher { video: None, audio: Some(opus()), ..camera() }.units(0, 3_000));
    rig.feed(Publisher { audio: Some(opus()), ..camera() }.units(3_000, 9_000));
    let (video, audio) = (rig.playlist("src"), rig.playlist("opus"));
    let value = |playlist: &str, name: &str| -> f64 {
        let (_, rest) = playlist.split_once(&format!("{name}=")).unwrap();
        rest.split([',', '\n']).next().unwrap().parse().unwrap()
    };
    assert_eq!(value(&video, "PART-HOLD-BACK"), value(&audio, "PART-HOLD-BACK"));
    assert!(value(&video, "PART-HOLD-BACK") >= 3.0 * value(&video, "PART-TARGET"), "{video}");
    assert_eq!(discontinuities(&video), 1, "{video}");
}

/// A publisher that skips frames for longer than a part: players answer a GAP by changing the rendition.
#[test]
fn a_hole_in_the_picture_leaves_no_gap() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    let mut units = camera().units(0, 9_000);
    let skipped = |ms: i64| (2_100..2_900).contains(&ms) || (5_050..5_400).contains(&ms);
    units.retain(|u| u.kind() == TrackKind::Audio || !skipped(u.pts.millis()));
    rig.feed(units);
    for id in ["src", "aac"] {
        assert!(!rig.playlist(id).contains("GAP"), "{}", rig.playlist(id));
    }
    assert_eq!(rig.snapshot("src").position().unwrap().msn, rig.snapshot("aac").position().unwrap().msn);
}

/// A3: sound that is far ahead of the picture when the publisher goes does not lengthen the last segment beyond TARGETDURATION.
#[test]
fn a3_sound_ahead_of_the_picture_at_the_end_is_kept_as_far_as_there_is_room() {
    let mut rig = Rig::new(passthrough());
    rig.core.begin_session();
    rig.feed(camera().units(0, 3900));
    rig.feed(Publisher { video: None, ..camera() }.units(3900, 5300));
    rig.core.end_session();
    let playlist = rig.playlist("aac");
    let lengths: Vec<f64> =
        playlist.lines().filter_map(|l| l.strip_prefix("#EXTINF:")?.strip_suffix(',')?.parse().ok()).collect();
    assert!(lengths.len() == 2 && lengths[1] > 2.4 && lengths[1] < 2.5, "{lengths:?}");
}

/// A ladder whose rungs are encoded here, three pictures late.
struct Encoding {
    rig: Rig,
    inside: VecDeque<EngineInput>,
    /// Pictures that the encoders are late by.
    late: usize,
    /// Rungs that wait for a forced picture.
    closed: Vec<RenditionId>,
    /// The playlists as they were last.
    shown: Vec<(&'static str, String)>,
}

const RUNGS: [&str; 2] = ["v360", "v180"];

impl Encoding {
    fn new(ladder: Ladder) -> Self {
        let mut rig = Rig::new(ladder);
        rig.core.begin_session();
        let shown = ["src", "v360", "v180"].map(|id| (id, String::new())).into();
        Self { rig, inside: VecDeque::new(), late: 3, closed: vec![], shown }
    }

    fn suspend(&mut self, rungs: &[&str]) {
        self.rig.core.order_suspension(rungs.iter().map(|id| id.parse().unwrap()).collect());
    }

    fn feed(&mut self, from: i64, to: i64) {
        for unit in (Publisher { audio: None, ..camera() }).units(from, to) {
            self.rig.feed(vec![unit]);
            self.inside.extend(self.rig.engine.drain(..));
            while self.inside.len() > self.late {
                let EngineInput { unit, force_key } = self.inside.pop_front().unwrap();
                for id in RUNGS {
                    let rendition: RenditionId = id.parse().unwrap();
                    match self.rig.suspended.iter().find(|(id, _)| *id == rendition) {
                        Some((_, from)) if unit.pts >= *from => self.closed.push(rendition.clone()),
                        None if force_key => self.closed.retain(|closed| *closed != rendition),
                        _ => {}
                    }
                    if !self.closed.contains(&rendition) {
                        let unit = AccessUnit { key: force_key, dts: unit.pts, config: h264(20), ..unit.clone() };
                        self.rig.core.on_engine(EngineEvent::Unit { rendition, unit });
                    }
                }
            }
            self.look();
        }
    }

    /// As viewers who reload at every change see it: each playlist keeps the rules, by itself, over time and with the others.
    fn look(&mut self) {
        let mut findings = Findings::default();
        for (id, shown) in &mut self.shown {
            let snapshot = self.rig.set.borrow().find(id).map(|view| view.snapshots.borrow().clone());
            let Some(snapshot) = snapshot.filter(|s| s.is_playable()) else { continue };
            let text = snapshot.playlist(false, &[]);
            let now = Playlist::read(&text, &mut findings).unwrap();
            let before = Playlist::read(shown, &mut Findings::default());
            check_one(&now, before.as_ref().map(Playlist::edge), &mut findings);
            if let Some(before) = &before {
                check_update(before, &now, &mut findings);
            }
            *shown = text;
        }
        let read: Vec<_> = self
            .shown
            .iter()
            .filter_map(|(id, text)| Some((*id, Playlist::read(text, &mut Findings::default())?)))
            .collect();
        for (id, other) in read.iter().skip(1) {
            check_across((read[0].0, &read[0].1), (id, other), &mut findings);
        }
        assert_eq!(findings.faults().collect::<Vec<_>>(), []);
    }

    fn offered(&self) -> Vec<String> {
        self.rig.set.borrow().offered().map(|view| view.id.to_string()).collect()
    }

    fn warned(&self) -> bool {
        self.rig.core.messages().iter().any(|m| m.level == "warning" && m.text.contains("v180 is suspended"))
    }
}

fn two_rungs(passthrough: bool) -> Ladder {
    let rung = |height| Rung::usual(height, 700_000);
    Ladder { passthrough, rungs: vec![rung(360), rung(180)], ..Ladder::passthrough() }
}

/// Which of the listed segments are gaps.
fn gaps(playlist: &str) -> Vec<bool> {
    let mut gap = false;
    let mut found = Vec::new();
    for line in playlist.lines() {
        gap |= line == "#EXT-X-GAP";
        if line.starts_with("#EXTINF") {
            found.push(std::mem::take(&mut gap));
        }
    }
    found
}

/// A44, A58: nothing of the channel waits for it, and it comes back where a segment begins.
#[test]
fn a44_a58_a_suspended_rung_goes_on_with_gaps_and_comes_back_with_a_whole_segment() {
    let mut live = Encoding::new(two_rungs(true));
    live.feed(0, 5_000);
    assert_eq!(live.offered(), ["src", "v360", "v180"]);
    live.suspend(&["v180"]);
    live.feed(5_000, 5_900);
    assert_eq!(live.offered(), ["src", "v360", "v180"], "the segment at 4 s goes on to its end");
    live.feed(5_900, 6_500);
    assert_eq!(live.offered(), ["src", "v360"], "who comes now does not choose it");
    assert!(live.warned(), "{:?}", live.rig.core.messages());
    // Players leave where the others begin a segment too: so far nothing is missing.
    let playlist = live.rig.playlist("v180");
    let missing: Vec<&str> = playlist.lines().filter(|line| line.contains("GAP")).collect();
    assert_eq!((gaps(&playlist), missing.len()), (vec![false; 3], 1), "{playlist}");
    // Ahead of its time, so that it is seen together with the part before it.
    assert!(missing[0].contains("1003.1."), "{playlist}");
    for half in 13..30 {
        live.feed(half * 500, half * 500 + 500);
        let (src, gone) = (live.rig.snapshot("src").position().unwrap(), live.rig.snapshot("v180").position().unwrap());
        assert_eq!(gone.msn, src.msn, "{}", live.rig.playlist("v180"));
        let reload = Directives { msn: Some(gone.msn), part: gone.part, skip: false };
        assert_eq!(live.rig.snapshot("v180").reload(&reload), Reload::Now, "no viewer's reload is held for long");
        // A part, and what the last picture's own end is waited for.
        assert!(src.part.unwrap().abs_diff(gone.part.unwrap()) <= 2, "{src:?} {gone:?}");
    }
    let status = live.rig.core.rendition_status();
    let of = |id: &str| status.iter().find(|r| r.id.as_str() == id).unwrap().clone();
    assert!(of("v180").suspended && !of("v360").suspended && of("v180").track.bitrate == 0);
    // The next segment begins at 16 s.
    live.suspend(&[]);
    live.feed(15_000, 16_500);
    assert!(!live.warned());
    live.feed(16_500, 20_000);
    let playlist = live.rig.playlist("v180");
    assert_eq!(gaps(&playlist), [false, false, false, false, true, true, true, true, false], "{playlist}");
    assert_eq!(live.offered(), ["src", "v360"], "who joined now would meet gaps");
    live.feed(20_000, 23_000);
    assert_eq!(live.offered(), ["src", "v360", "v180"]);
    for id in ["src", "v360", "v180"] {
        let playlist = live.rig.playlist(id);
        assert_eq!((discontinuities(&playlist), playlist.matches("#EXT-X-MAP").count()), (0, 1), "{playlist}");
        assert_eq!(live.rig.snapshot(id).position().unwrap().msn, 1011);
    }
    assert!(!live.rig.playlist("v360").contains("GAP"));
    // Hours of it keep no more than the window.
    live.suspend(&["v180"]);
    live.feed(23_000, 120_000);
    assert_eq!((live.rig.snapshot("v180").retained_bytes(), gaps(&live.rig.playlist("v180")).len()), (0, 12));
}

/// A rung whose last pictures do not come is not waited for, and one that is far behind loses none.
#[test]
fn a_suspended_rung_ends_with_its_segment_however_late_it_is() {
    for late in [0, 1, 40] {
        let mut live = Encoding::new(two_rungs(true));
        live.late = late;
        live.feed(0, 5_000);
        live.suspend(&["v180"]);
        live.feed(5_000, 11_000);
        let playlist = live.rig.playlist("v180");
        let missing = playlist.lines().find(|line| line.contains("GAP")).unwrap();
        assert!(missing.contains("1003.1."), "{late} pictures late: {playlist}");
    }
    let mut live = Encoding::new(two_rungs(true));
    live.feed(0, 5_000);
    live.suspend(&["v180"]);
    live.feed(5_000, 5_500);
    live.closed.push("v180".parse().unwrap());
    live.feed(5_500, 7_000);
    let playlist = live.rig.playlist("v180");
    let (src, gone) = (live.rig.snapshot("src").position().unwrap(), live.rig.snapshot("v180").position().unwrap());
    assert_eq!((gone.msn, gone.part.unwrap().abs_diff(src.part.unwrap()) <= 2), (src.msn, true), "{playlist}");
}

#[test]
fn a_rung_that_is_suspended_before_it_began_is_not_waited_for_and_begins_later() {
    let mut live = Encoding::new(two_rungs(false));
    live.suspend(&["v180"]);
    live.feed(0, 9_000);
    assert!(!live.rig.snapshot("v180").is_playable());
    assert_eq!(live.offered(), ["v360"]);
    live.suspend(&[]);
    live.feed(9_000, 18_000);
    assert_eq!(live.offered(), ["v360", "v180"]);
    let playlist = live.rig.playlist("v180");
    assert!(!gaps(&playlist)[gaps(&playlist).len() - 3..].contains(&true), "{playlist}");
}

#[test]
fn the_last_rung_on_offer_stays_on_offer() {
    let mut live = Encoding::new(two_rungs(false));
    live.feed(0, 5_000);
    live.suspend(&["v180"]);
    live.feed(5_000, 9_000);
    live.suspend(&["v360"]);
    live.feed(9_000, 10_500);
    assert_eq!(live.offered(), ["v360", "v180"], "the one is gone, the other has come back too lately");
    live.feed(10_500, 18_000);
    assert_eq!(live.offered(), ["v180"]);
}

#[test]
fn what_was_suspended_is_not_when_the_publisher_returns() {
    let mut live = Encoding::new(two_rungs(true));
    live.feed(0, 5_000);
    live.suspend(&["v180"]);
    live.feed(5_000, 7_500);
    assert!(live.warned());
    live.rig.core.end_session();
    assert!(!live.warned());
    live.look();
    live.rig.core.begin_session();
    live.inside.clear();
    live.closed.clear();
    live.rig.suspended.clear();
    live.feed(0, 9_000);
    assert_eq!(live.offered(), ["src", "v360", "v180"]);
    let playlist = live.rig.playlist("v180");
    assert_eq!(discontinuities(&playlist), 1, "{playlist}");
    assert!(gaps(&playlist).ends_with(&[false, false, false, false]), "{playlist}");
}
