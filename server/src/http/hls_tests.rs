//! Tests of playlists and media over a real packager: holds and their ends, ranges, caching, compression.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use media::{AacConfig, AccessUnit, MediaDuration, MediaTime, TrackConfig, WallTime};
use packager::{ChannelTiming, Cut, HlsSettings, PartRule, Rendition, Snapshot};
use tokio::sync::watch;
use tokio::time::Instant;

use super::tests::{Rig, channel, header, json, rig};
use super::*;
use crate::channel::{RenditionSet, RenditionView};

/// An audio rendition that is fed by the test: 1024 samples at 48 kHz a frame, nine frames (192 ms) a part, two seconds a
/// segment. The first msn is 5.
struct Feed {
    rendition: Rendition,
    sender: watch::Sender<Arc<Snapshot>>,
    view: RenditionView,
    config: Arc<TrackConfig>,
    frames: i64,
    next_msn: u64,
}

const RATE: u32 = 48_000;

impl Feed {
    fn new(id: &str) -> Self {
        let settings = HlsSettings {
            part_aim: MediaDuration::from_millis(200),
            segment_target: MediaDuration::from_millis(2000),
            window: MediaDuration::from_millis(24_000),
        };
        let rule = PartRule::audio(settings.part_aim, MediaDuration::from_ticks(1024, RATE));
        let id: media::RenditionId = id.parse().unwrap();
        let mut rendition = Rendition::new(id.clone(), ChannelTiming::new(settings, &[rule.target]), rule, 0);
        let (sender, snapshots) = watch::channel(rendition.snapshot());
        let asc = Bytes::from_static(&[0x11, 0x90]);
        let config = AacConfig { asc, sample_rate: RATE, channels: 2, object_type: 2, frame_samples: 1024 };
        Self {
            rendition,
            sender,
            view: RenditionView { id, snapshots, ceiling: None, withheld: false },
            config: TrackConfig::Aac(config).shared(),
            frames: 0,
            next_msn: 5,
        }
    }

    /// Feeds frames without publishing what came of them.
    fn frames(&mut self, n: i64) -> &mut Self {
        for _ in 0..n {
            let ticks = self.frames * 1024;
            let pts = MediaTime::from_ticks(ticks, RATE);
            let cut = i64::try_from(self.next_msn - 5).unwrap() * 2 * i64::from(RATE);
            if ticks >= cut {
                let wall = WallTime(1_700_000_000_000_000 + pts.micros());
                self.rendition.cut(Cut { msn: self.next_msn, at: pts, discontinuity: false, wall });
                self.next_msn += 1;
            }
            self.rendition.push(AccessUnit {
                pts,
                dts: pts,
                duration: Some(MediaDuration::from_ticks(1024, RATE)),
                key: true,
                config: self.config.clone(),
                data: Bytes::from(vec![u8::try_from(self.frames % 251).unwrap(); 300]),
            });
            self.frames += 1;
        }
        self
    }

    fn seconds(&mut self, seconds: i64) -> &mut Self {
        self.frames(seconds * i64::from(RATE) / 1024 + 1)
    }

    fn publish(&mut self) {
        self.sender.send_replace(self.rendition.snapshot());
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.sender.borrow().clone()
    }

    /// The next part's URI, as PRELOAD-HINT names it.
    fn hint(&self) -> (u64, u64) {
        let position = self.snapshot().position().unwrap();
        (position.msn, position.part.unwrap() + 1)
    }
}

fn stage(feeds: &[&Feed]) -> (Rig, watch::Sender<Arc<RenditionSet>>) {
    let set = RenditionSet { video: vec![], audio: feeds.iter().map(|f| f.view.clone()).collect() };
    let (demo, sender) = channel("demo", set);
    (rig(vec![demo], |_| {}), sender)
}

fn text(response: &Response<Body>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

/// Starts the request and lets it run until it waits.
async fn hold(rig: &Rig, path: &str) -> tokio::task::JoinHandle<Response<Body>> {
    let before = held(rig);
    let (app, path) = (rig.app.clone(), path.to_owned());
    let task = tokio::spawn(async move {
        let request = Request::get(path).header("host", "a").body(http_body_util::Empty::<Bytes>::new()).unwrap();
        app.handle(request, SocketAddr::from(([127, 0, 0, 1], 1))).await
    });
    while held(rig) == before {
        assert!(!task.is_finished(), "answered at once: {:?}", task.await.unwrap().status());
        tokio::task::yield_now().await;
    }
    task
}

fn held(rig: &Rig) -> String {
    let text = rig.metrics.render(&[], None);
    text.lines().find(|l| l.starts_with("fishladder_http_held_requests ")).unwrap().to_owned()
}

#[tokio::test]
async fn a48_the_multivariant_playlist_waits_for_every_rendition_but_not_for_ever() {
    let (mut aac, opus) = (Feed::new("aac"), Feed::new("opus"));
    let (rig, _keep) = stage(&[&aac, &opus]);
    let r = rig.get("/live/demo/index.m3u8").await;
    assert_eq!((r.status().as_u16(), header(&r, "retry-after")), (503, "1"));
    aac.seconds(2).publish();
    assert_eq!(rig.get("/live/demo/index.m3u8").await.status(), 503);
    aac.seconds(6).publish();
    let r = rig.get("/live/demo/index.m3u8").await;
    assert_eq!(r.status(), 200);
    assert_eq!(header(&r, "content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(header(&r, "cache-control"), "public, max-age=1");
    assert!(text(&r).contains("aac/index.m3u8") && !text(&r).contains("opus/"), "{}", text(&r));
    assert_eq!(rig.app.rooms.channel("demo").unwrap().viewers.count(), 1);
}

#[tokio::test]
async fn a33_a49_a50_a51_a_playlist_is_tagged_compressed_and_reports_the_others() {
    let (mut aac, mut opus) = (Feed::new("aac"), Feed::new("opus"));
    aac.seconds(8).publish();
    opus.seconds(7).publish();
    let (rig, _keep) = stage(&[&aac, &opus]);
    let path = "/live/demo/aac/index.m3u8";
    let plain = rig.get(path).await;
    let body = text(&plain);
    assert!(body.starts_with("#EXTM3U\n"));
    let position = opus.snapshot().position().unwrap();
    let report = format!(
        "#EXT-X-RENDITION-REPORT:URI=\"../opus/index.m3u8\",LAST-MSN={},LAST-PART={}",
        position.msn,
        position.part.unwrap()
    );
    assert!(body.lines().any(|l| l == report), "{report} is not in\n{body}");
    assert!(!body.contains("../aac/"));
    assert_eq!(header(&plain, "vary"), "Accept-Encoding");
    // A51: a wrong one makes Apple's players throw a playlist away.
    assert!(plain.headers().get("last-modified").is_none());
    assert_eq!(header(&plain, "cache-control"), "public, max-age=1");

    let packed = rig.ask("GET", path, &[("accept-encoding", "gzip, br")], "").await;
    assert_eq!(header(&packed, "content-encoding"), "gzip");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed.body().to_vec()[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, body);
    assert_ne!(header(&plain, "etag"), header(&packed, "etag"));

    let fresh = rig.ask("GET", path, &[("if-none-match", header(&plain, "etag"))], "").await;
    assert_eq!((fresh.status().as_u16(), fresh.body().len()), (304, 0));
    assert_eq!(header(&fresh, "etag"), header(&plain, "etag"));
    assert_eq!(header(&fresh, "access-control-allow-origin"), "*");
    let head = rig.ask("HEAD", path, &[], "").await;
    assert_eq!(header(&head, "content-length"), body.len().to_string());

    // The report follows the other rendition at once, without a new snapshot of this one.
    opus.frames(9).publish();
    assert_ne!(text(&rig.get(path).await), body);
}

#[tokio::test]
async fn a43_waiters_of_one_moment_share_one_rendering() {
    let mut aac = Feed::new("aac");
    aac.seconds(4).publish();
    let playlists = playlists::Playlists::default();
    let name = "demo".parse().unwrap();
    let render = |skip| playlists.render(&name, &aac.snapshot(), skip, &[], Vec::new);
    assert!(Arc::ptr_eq(&render(false), &render(false)));
    assert!(!Arc::ptr_eq(&render(false), &render(true)));
    let mut opus = Feed::new("opus");
    opus.seconds(4).publish();
    let beside = |other: &Feed| playlists.render(&name, &aac.snapshot(), false, &[other.snapshot()], Vec::new);
    let first = beside(&opus);
    assert!(!Arc::ptr_eq(&render(false), &first));
    let first = beside(&opus);
    assert!(Arc::ptr_eq(&first, &beside(&opus)));
    opus.frames(9).publish();
    assert!(!Arc::ptr_eq(&first, &beside(&opus)));
    // Of a thousand channels that came and went nothing piles up.
    for i in 0..1000 {
        let mut gone = Feed::new("aac");
        gone.frames(20).publish();
        playlists.render(&format!("c{i}").parse().unwrap(), &gone.snapshot(), false, &[], Vec::new);
    }
    assert!(playlists.remembered() <= 512, "{}", playlists.remembered());
    // It does not keep the media alive.
    let old = Arc::downgrade(&aac.snapshot());
    aac.frames(9).publish();
    assert_eq!(old.strong_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a35_a38_a_blocking_reload_is_held_until_its_part_is_there() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let (msn, part) = aac.hint();
    let path = format!("/live/demo/aac/index.m3u8?_HLS_msn={msn}&_HLS_part={part}");
    let waiting = hold(&rig, &path).await;
    // Something changed, but not that part.
    aac.sender.send_modify(|_| {});
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    aac.frames(10).publish();
    let r = waiting.await.unwrap();
    assert_eq!(r.status(), 200);
    assert!(text(&r).contains(&format!("URI=\"{msn}.{part}.m4s\"")), "{}", text(&r));
    assert_eq!(header(&r, "cache-control"), "public, max-age=12");
    assert!(held(&rig).ends_with(" 0"));
    // Now it is there: answered at once; so is anything older.
    for query in
        [path.as_str(), "/live/demo/aac/index.m3u8?_HLS_msn=0", "/live/demo/aac/index.m3u8?_HLS_msn=0&_HLS_part=7"]
    {
        assert_eq!(rig.get(query).await.status(), 200, "{query}");
    }
    // msn alone: the whole segment.
    let waiting = hold(&rig, &format!("/live/demo/aac/index.m3u8?_HLS_msn={msn}")).await;
    aac.seconds(2).publish();
    let r = waiting.await.unwrap();
    assert!(text(&r).lines().any(|l| l == format!("{msn}.m4s")), "{}", text(&r));
}

#[tokio::test(start_paused = true)]
async fn who_begins_to_play_begins_at_a_part_that_has_just_come() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let (msn, part) = aac.hint();
    let path = "/live/demo/aac/index.m3u8";
    let waiting = hold(&rig, path).await;
    aac.frames(9).publish();
    let begun = Instant::now();
    let r = waiting.await.unwrap();
    assert!(text(&r).contains(&format!("URI=\"{msn}.{part}.m4s\"")), "{}", text(&r));
    // No longer than a part may be late: then what there is.
    let r = rig.get(path).await;
    assert_eq!((r.status().as_u16(), begun.elapsed().as_millis()), (200, 240));
    // Nothing follows the end.
    aac.rendition.end();
    aac.publish();
    let r = rig.get(path).await;
    assert_eq!((r.status().as_u16(), begun.elapsed().as_millis()), (200, 240));
}

#[tokio::test(start_paused = true)]
async fn a40_a_hold_ends_after_three_target_durations() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let (msn, part) = aac.hint();
    for path in [
        format!("/live/demo/aac/index.m3u8?_HLS_msn={msn}&_HLS_part={part}"),
        format!("/live/demo/aac/index.m3u8?_HLS_msn={msn}"),
        format!("/live/demo/aac/{msn}.{part}.m4s"),
        format!("/live/demo/aac/{msn}.m4s"),
    ] {
        let start = Instant::now();
        let r = rig.get(&path).await;
        assert_eq!((r.status().as_u16(), start.elapsed().as_secs()), (503, 6), "{path}");
        assert_eq!(header(&r, "cache-control"), "public, max-age=1");
        assert_eq!(header(&r, "retry-after"), "2");
        assert_eq!(json(&r)["type"], "/problems/not-ready");
    }
    assert!(rig.metrics.render(&[], None).contains("fishladder_http_timeouts_total{reason=\"held\"} 4"));
}

#[tokio::test]
async fn a37_a39_directives_that_cannot_be_met_are_400_at_once() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let (msn, part) = aac.hint();
    for query in [
        format!("_HLS_msn={}", msn + 3),
        format!("_HLS_msn={msn}&_HLS_part={}", part + 100),
        format!("_HLS_part={part}"),
        "_HLS_msn=-1".to_owned(),
        "_HLS_msn=1&_HLS_msn=2".to_owned(),
        format!("_HLS_msn={}", u64::MAX),
    ] {
        let r = rig.get(&format!("/live/demo/aac/index.m3u8?{query}")).await;
        assert_eq!((r.status().as_u16(), header(&r, "cache-control")), (400, "no-store"), "{query}");
        assert_eq!(json(&r)["type"], "/problems/bad-directive");
        assert_eq!(header(&r, "access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn a_delta_update_skips_when_asked() {
    let mut aac = Feed::new("aac");
    aac.seconds(24).publish();
    let (rig, _keep) = stage(&[&aac]);
    let full = text(&rig.get("/live/demo/aac/index.m3u8").await);
    let delta = text(&rig.get("/live/demo/aac/index.m3u8?_HLS_skip=YES").await);
    assert!(delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=") && !full.contains("#EXT-X-SKIP"), "{delta}");
    assert!(delta.len() < full.len());
}

#[tokio::test]
async fn a30_a50_a55_a_hinted_part_is_held_and_sent_whole() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let (msn, part) = aac.hint();
    let waiting = hold(&rig, &format!("/live/demo/aac/{msn}.{part}.m4s")).await;
    aac.frames(10).publish();
    let r = waiting.await.unwrap();
    let packager::Lookup::Here(bytes) = aac.snapshot().part(msn, part) else { panic!("no part") };
    assert_eq!((r.status().as_u16(), &r.body().to_vec()[..]), (200, &bytes[..]));
    assert_eq!(header(&r, "content-type"), "audio/mp4");
    assert_eq!(header(&r, "cache-control"), "public, max-age=3600, immutable");
    assert_eq!(header(&r, "accept-ranges"), "bytes");
    assert_eq!(header(&r, "vary"), "");
    // Not hinted: 404 at once.
    for path in
        [format!("{msn}.{}.m4s", part + 3), format!("{}.0.m4s", msn + 2), "0.0.m4s".to_owned(), "0.m4s".to_owned()]
    {
        let r = rig.get(&format!("/live/demo/aac/{path}")).await;
        assert_eq!((r.status().as_u16(), header(&r, "cache-control")), (404, "public, max-age=1"), "{path}");
    }
}

#[tokio::test]
async fn a26_b16_segments_are_their_parts_and_take_ranges() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let packager::Lookup::Here(parts) = aac.snapshot().segment(5) else { panic!("no segment") };
    assert!(parts.len() > 5);
    let whole: Vec<u8> = parts.iter().flat_map(|p| p.to_vec()).collect();
    let path = "/live/demo/aac/5.m4s";
    let r = rig.get(path).await;
    assert_eq!(r.body().to_vec(), whole);
    let etag = header(&r, "etag").to_owned();

    let n = whole.len();
    for (range, from, to) in [
        ("bytes=0-9", 0, 10),
        ("bytes=2500-8000", 2500, 8001),
        ("bytes=100-", 100, n),
        ("bytes=-7", n - 7, n),
        ("bytes=10-9007199254740991", 10, n),
    ] {
        let r = rig.ask("GET", path, &[("range", range)], "").await;
        assert_eq!(r.status(), 206, "{range}");
        assert_eq!(r.body().to_vec(), whole[from..to], "{range}");
        assert_eq!(header(&r, "content-range"), format!("bytes {from}-{}/{n}", to - 1));
    }
    let many: String = (0..2000).map(|i| format!("{i}-,")).collect();
    for (headers, status, length) in [
        (vec![("range", "bytes=0-1,5-6".to_owned())], 200, n),
        (vec![("range", format!("bytes={many}"))], 200, n),
        (vec![("range", "bytes=0-1".to_owned()), ("if-range", "\"other\"".to_owned())], 200, n),
        (vec![("range", "bytes=0-1".to_owned()), ("if-range", etag.clone())], 206, 2),
        (vec![("range", "bytes=0-1".to_owned()), ("if-none-match", etag.clone())], 304, 0),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let r = rig.ask("GET", path, &headers, "").await;
        assert_eq!((r.status().as_u16(), r.body().len()), (status, length as u64), "{headers:?}");
    }
    let r = rig.ask("GET", path, &[("range", "bytes=999999999-")], "").await;
    assert_eq!((r.status().as_u16(), header(&r, "content-range")), (416, format!("bytes */{n}").as_str()));
    let r = rig.ask("HEAD", path, &[("range", "bytes=0-1")], "").await;
    assert_eq!((r.status().as_u16(), header(&r, "content-length")), (200, n.to_string().as_str()));

    let r = rig.get("/live/demo/aac/init-5.mp4").await;
    assert_eq!((r.status().as_u16(), &r.body().to_vec()[4..8]), (200, &b"ftyp"[..]));
    assert_eq!(rig.get("/live/demo/aac/init-6.mp4").await.status(), 404);
}

#[tokio::test]
async fn a46_the_end_wakes_everybody() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let (msn, part) = aac.hint();
    let playlist = hold(&rig, &format!("/live/demo/aac/index.m3u8?_HLS_msn={}", msn + 1)).await;
    let media = hold(&rig, &format!("/live/demo/aac/{}.0.m4s", msn + 1)).await;
    let _ = part;
    aac.rendition.end();
    aac.publish();
    let r = playlist.await.unwrap();
    assert!(r.status() == 200 && text(&r).contains("#EXT-X-ENDLIST"));
    assert_eq!(media.await.unwrap().status(), 404);
    assert_eq!(rig.get(&format!("/live/demo/aac/index.m3u8?_HLS_msn={}", msn + 50)).await.status(), 200);
    // A rendition that is gone altogether: whoever still holds it is told.
    let mut other = Feed::new("aac");
    other.seconds(5).publish();
    let (rig, _keep) = stage(&[&other]);
    let (msn, part) = other.hint();
    let waiting = hold(&rig, &format!("/live/demo/aac/index.m3u8?_HLS_msn={msn}&_HLS_part={part}")).await;
    drop(other);
    assert_eq!(waiting.await.unwrap().status(), 404);
}

#[tokio::test]
async fn a43_a_client_that_goes_frees_its_hold() {
    let mut aac = Feed::new("aac");
    aac.seconds(5).publish();
    let (rig, _keep) = stage(&[&aac]);
    let (msn, part) = aac.hint();
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(hold(&rig, &format!("/live/demo/aac/{msn}.{part}.m4s")).await);
    }
    assert!(held(&rig).ends_with(" 100"));
    // A waiter keeps no snapshot, so the window can slide.
    let old = Arc::downgrade(&aac.snapshot());
    aac.sender.send_replace(Feed::new("aac").snapshot());
    // The one left is the packager's own.
    assert_eq!(old.strong_count(), 1);
    for task in &waiting {
        task.abort();
    }
    for task in waiting {
        let _ = tokio::time::timeout(Duration::from_secs(5), task).await.unwrap();
    }
    assert!(held(&rig).ends_with(" 0"));
}
