//! The mixed fleet and the days of sessions that the benchmark and the tests run; invented, but not to please a placer.
use std::sync::Arc;

use super::workload::{Class, Workload};
use crate::catalogue::{self, GEFORCE_SESSIONS};
use crate::cost::{Ladder, Picture, Rung};
use crate::device::{Codec, Fleet, Preset, SourceCodec};
use crate::placer::Stay;

/// Kind, parts of a thousand, devices in a host.
const MIX: [(&str, u32, u32); 9] = [
    ("rtx-pro-6000", 20, 4),
    ("l40s", 80, 8),
    ("l4", 330, 8),
    ("a10g", 180, 4),
    ("t4", 300, 4),
    ("rtx-5090", 10, 2),
    ("rtx-4090", 30, 2),
    ("thor-t5000", 20, 1),
    ("h100", 30, 8),
];

/// About `devices` devices of nine kinds.
pub fn fleet(devices: u32) -> Fleet {
    let mut fleet = Fleet::default();
    for (name, thousandths, per_host) in MIX {
        if let Some(kind) = catalogue::find(name) {
            fleet.add(kind, devices * thousandths / 1000, per_host, Some(GEFORCE_SESSIONS));
        }
    }
    fleet
}

/// Height and frame rate of a rung, width for 16:9.
type Size = (u32, u32, u32);
const UHD: Size = (3840, 2160, 60);
const FHD60: Size = (1920, 1080, 60);
const FHD: Size = (1920, 1080, 30);
const HD60: Size = (1280, 720, 60);
const HD: Size = (1280, 720, 30);
const SD: Size = (854, 480, 30);
const LOW: Size = (640, 360, 30);

/// About `arrivals` sessions in `hours` hours: cameras and channels round the clock; shows, games and talks that swing
/// with the day; a few 4K events.
pub fn workload(arrivals: f64, hours: f64) -> Workload {
    let class = |name: &str, weight, (stay, stays), source: (SourceCodec, Size), codec, preset, rungs: &[Size]| {
        let picture = |(width, height, fps): Size| Picture { width, height, frame_rate: (fps, 1) };
        let rung = |size: &Size| Some(Rung { codec, preset: Preset::new(preset)?, picture: picture(*size) });
        let ladder = Ladder { source: (source.0, picture(source.1)), rungs: rungs.iter().filter_map(rung).collect() };
        let demand = Arc::new(ladder.demand().ok()?);
        let wave = if stay == Stay::Long { 0.0 } else { 0.5 };
        Some(Class { name: name.to_owned(), demand, software: false, weight, hours: stays, wave, stay })
    };
    let (h264, h265) = (SourceCodec::H264, SourceCodec::H265);
    let (short, long) = (|hours| (Stay::Short, hours), |hours| (Stay::Long, hours));
    let classes = [
        class("camera 1080p30", 15.0, long(12.0), (h265, FHD), Codec::H264, 1, &[HD, LOW]),
        class("channel 1080p30", 25.0, long(24.0), (h264, FHD), Codec::H264, 4, &[FHD, HD, SD, LOW]),
        class("show 1080p30", 30.0, short(0.75), (h264, FHD), Codec::H264, 4, &[FHD, HD, SD, LOW]),
        class("game 1080p60", 20.0, short(1.0), (h264, FHD60), Codec::H264, 4, &[FHD60, HD60, SD, LOW]),
        class("talk 720p30", 20.0, short(0.4), (h264, HD), Codec::H264, 4, &[HD, SD, LOW]),
        class("film 1080p30 hevc", 5.0, short(1.5), (h264, FHD), Codec::H265, 3, &[FHD, HD, SD]),
        class("event 2160p60", 1.0, short(2.0), (h265, UHD), Codec::H264, 3, &[UHD, FHD60, HD60, SD, LOW]),
    ];
    let classes = classes.into_iter().flatten().collect();
    Workload { classes, per_hour: arrivals / hours, peak_hour: 20.0, hours }
}
