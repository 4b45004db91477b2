//! Throughput of the packager in bytes: fragmenting, and rendering playlists.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use media::{AccessUnit, H264Config, MediaDuration, MediaTime, TrackConfig};
use packager::validate::{Findings, Playlist, check_one, check_update};
use packager::{ChannelTiming, HlsSettings, PartRule, Rendition, Report, Segmenter};

/// 5 Mbit/s at 30 frames a second.
const FRAME_BYTES: usize = 5_000_000 / 8 / 30;

fn settings() -> HlsSettings {
    HlsSettings {
        part_aim: MediaDuration::from_millis(200),
        segment_target: MediaDuration::from_millis(2000),
        window: MediaDuration::from_millis(24_000),
    }
}

fn units(seconds: i64) -> Vec<AccessUnit> {
    let config = TrackConfig::H264(H264Config {
        sps: Bytes::from_static(&[0x67, 0x42, 0xc0, 0x1f, 0xd9]),
        pps: vec![Bytes::from_static(&[0x68, 0xce])],
        width: 1920,
        height: 1080,
        sar: (1, 1),
        reorder_depth: 0,
        frame_rate: Some((30, 1)),
    })
    .shared();
    let data = Bytes::from(vec![0x5a; FRAME_BYTES]);
    let unit = |n: i64| {
        let pts = MediaTime::from_ticks(n * 3000 + 90_000, 90_000);
        AccessUnit { pts, dts: pts, duration: None, key: n % 30 == 0, config: config.clone(), data: data.clone() }
    };
    (0..seconds * 30).map(unit).collect()
}

fn package(units: &[AccessUnit]) -> Rendition {
    let rule = PartRule::video(settings().part_aim, Some(MediaDuration::from_ticks(1, 30)));
    let timing = ChannelTiming::new(settings(), &[rule.target]);
    let mut rendition = Rendition::new("v".parse().unwrap(), timing, rule, 0);
    let mut segmenter = Segmenter::new(settings(), 1);
    for unit in units {
        while let Some(cut) = segmenter.on_unit(unit.pts, unit.key) {
            rendition.cut(cut);
        }
        rendition.push(unit.clone());
        std::hint::black_box(rendition.snapshot());
    }
    rendition
}

fn fragmenting(c: &mut Criterion) {
    let units = units(60);
    let mut group = c.benchmark_group("fragmenting");
    group.throughput(Throughput::Bytes((units.len() * FRAME_BYTES) as u64));
    group.sample_size(20);
    group.bench_function("60 s of 5 Mbit/s video, a snapshot a frame", |b| b.iter(|| package(&units)));
    group.finish();
}

fn playlists(c: &mut Criterion) {
    let snapshot = package(&units(60)).snapshot();
    let report = |n: u64| Report { uri: format!("../v{n}/index.m3u8"), last_msn: 30, last_part: Some(4) };
    let reports: Vec<_> = (0..4).map(report).collect();
    let mut group = c.benchmark_group("playlist");
    for (name, skip) in [("whole", false), ("delta", true)] {
        group.throughput(Throughput::Bytes(snapshot.playlist(skip, &reports).len() as u64));
        group.bench_function(name, |b| b.iter(|| snapshot.playlist(skip, &reports)));
    }
    // The server reads a playlist and the one before it once a segment.
    let text = snapshot.playlist(false, &reports);
    let read_back = || {
        let mut findings = Findings::default();
        let before = Playlist::read(&text, &mut findings).unwrap();
        let now = Playlist::read(&text, &mut findings).unwrap();
        check_one(&now, Some(before.edge()), &mut findings);
        check_update(&before, &now, &mut findings);
        findings
    };
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("whole, read back against the one before", |b| b.iter(read_back));
    group.finish();
}

criterion_group!(benches, fragmenting, playlists);
criterion_main!(benches);
