//! A moving source to measure encoders with: H.264 in memory, cut to whole GOPs, so that it can be played in a loop.
//!
//! The picture is a textured landscape that pans while textured things cross it. A still, or the flat pictures of test
//! patterns, would let an encoder skip most of its work.

use std::f32::consts::TAU;
use std::path::PathBuf;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use media::{AccessUnit, MediaTime, TrackConfig};

use crate::avc;

/// Seconds from one key frame to the next.
pub const GOP_SECONDS: u32 = 2;
/// GOPs of the generated source, and at most of a file.
const GOPS: u32 = 4;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MotionOptions {
    /// Pixels, even, 64 to 8192.
    pub width: u32,
    pub height: u32,
    /// Frames a second, 1 to 240.
    pub frame_rate: u32,
    /// Any file that GStreamer decodes; its first 8 s are scaled and encoded anew. None: a generated picture.
    pub file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum MotionFault {
    #[error(transparent)]
    Build(#[from] gst::glib::Error),
    #[error(transparent)]
    Make(#[from] gst::glib::BoolError),
    #[error("the pipeline does not start: {0}")]
    Start(#[from] gst::StateChangeError),
    #[error("{0} is missing; `fishladder doctor` tells what to install")]
    Missing(&'static str),
    #[error("a picture of {0}x{1} at {2} frames a second cannot be made")]
    Picture(u32, u32, u32),
    #[error("it holds {0} frames, and {1} are needed for one GOP")]
    Short(usize, usize),
    #[error("{0}")]
    Failed(String),
}

/// Whole GOPs of [`GOP_SECONDS`], no B-frames, one slice a picture; presentation times from 0, one frame apart.
/// Takes a second or so for each megapixel of the picture.
pub fn encode(options: &MotionOptions) -> Result<Vec<AccessUnit>, MotionFault> {
    let MotionOptions { width, height, frame_rate, file } = options;
    let even = |side: u32| (64..=8192).contains(&side) && side.is_multiple_of(2);
    if !even(*width) || !even(*height) || !(1..=240).contains(frame_rate) {
        return Err(MotionFault::Picture(*width, *height, *frame_rate));
    }
    gst::init()?;
    let pipeline = gst::parse::launch(&description(options))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| MotionFault::Missing("a pipeline"))?;
    let sink = pipeline
        .by_name("out")
        .and_then(|e| e.downcast::<gst_app::AppSink>().ok())
        .ok_or(MotionFault::Missing("appsink"))?;
    let bus = pipeline.bus().ok_or(MotionFault::Missing("a bus"))?;
    let result = match file {
        Some(path) => {
            pipeline.by_name("file").ok_or(MotionFault::Missing("filesrc"))?.set_property("location", path);
            pipeline
                .set_state(gst::State::Playing)
                .map_err(MotionFault::from)
                .and_then(|_| collect(options, &sink, &bus))
        }
        None => {
            let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, *width, *height)
                .fps(gst::Fraction::new(i32::try_from(*frame_rate).unwrap_or(25), 1))
                .build()?;
            let source = pipeline
                .by_name("in")
                .and_then(|e| e.downcast::<gst_app::AppSrc>().ok())
                .ok_or(MotionFault::Missing("appsrc"))?;
            source.set_caps(Some(&info.to_caps()?));
            source.set_max_bytes(4 * info.size() as u64);
            std::thread::scope(|scope| {
                scope.spawn(|| paint(&source, &info, *frame_rate));
                let result = pipeline
                    .set_state(gst::State::Playing)
                    .map_err(MotionFault::from)
                    .and_then(|_| collect(options, &sink, &bus));
                // Also wakes the painter where nobody takes its pictures any more.
                let _ = pipeline.set_state(gst::State::Null);
                result
            })
        }
    };
    // Before the state changes: that empties the bus.
    let trouble = failure(&bus);
    let _ = pipeline.set_state(gst::State::Null);
    match (result, trouble) {
        (Err(MotionFault::Start(_)), Some(why)) => Err(why),
        (result, _) => result,
    }
}

/// What a pipeline says went wrong.
fn failure(bus: &gst::Bus) -> Option<MotionFault> {
    let message = bus.pop_filtered(&[gst::MessageType::Error])?;
    match message.view() {
        gst::MessageView::Error(e) => Some(MotionFault::Failed(e.error().to_string())),
        _ => None,
    }
}

fn description(options: &MotionOptions) -> String {
    let MotionOptions { width, height, frame_rate, file } = options;
    let source = match file {
        None => "appsrc name=in format=time block=true".to_owned(),
        Some(_) => format!(
            "filesrc name=file ! decodebin ! videoconvertscale ! videorate \
             ! video/x-raw,format=I420,width={width},height={height},framerate={frame_rate}/1,pixel-aspect-ratio=1/1"
        ),
    };
    let gop = GOP_SECONDS * frame_rate;
    // A tenth of a bit for each pixel: what publishers send.
    let bits = (u64::from(*width) * u64::from(*height) * u64::from(*frame_rate) / 10).max(200_000);
    let encoder = if gst::ElementFactory::find("x264enc").is_some() {
        format!(
            "x264enc tune=zerolatency speed-preset=superfast bitrate={} key-int-max={gop} threads=1 option-string=scenecut=0",
            bits / 1000
        )
    } else {
        format!("openh264enc bitrate={bits} gop-size={gop} usage-type=camera scene-change-detection=false ! h264parse")
    };
    format!(
        "{source} ! {encoder} ! video/x-h264,stream-format=avc,alignment=au ! appsink name=out sync=false max-buffers=30"
    )
}

/// Takes the encoder's units until there are enough, and cuts them to whole GOPs.
fn collect(options: &MotionOptions, sink: &gst_app::AppSink, bus: &gst::Bus) -> Result<Vec<AccessUnit>, MotionFault> {
    let gop = (GOP_SECONDS * options.frame_rate) as usize;
    let most = gop * GOPS as usize;
    let mut units: Vec<AccessUnit> = Vec::with_capacity(most);
    let mut config = None;
    while units.len() < most {
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) else {
            // A pipeline that fails need not end.
            if let Some(why) = failure(bus) {
                return Err(why);
            }
            if sink.is_eos() {
                break;
            }
            continue;
        };
        let config = match &config {
            Some(config) => config,
            None => config.insert(config_of(options, &sample).ok_or(MotionFault::Missing("the encoder's avcC"))?),
        };
        let Some(map) = sample.buffer().and_then(|b| b.map_readable().ok()) else { continue };
        let at = MediaTime::from_ticks(i64::try_from(units.len()).unwrap_or(i64::MAX), options.frame_rate);
        let (data, key) = (avc::slices_only(&map), avc::has_idr(&map));
        units.push(AccessUnit { pts: at, dts: at, duration: None, key, config: config.clone(), data });
    }
    let whole = units.len() / gop * gop;
    if whole == 0 {
        return Err(MotionFault::Short(units.len(), gop));
    }
    units.truncate(whole);
    Ok(units)
}

fn config_of(options: &MotionOptions, sample: &gst::Sample) -> Option<std::sync::Arc<TrackConfig>> {
    let record = sample.caps()?.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
    let record = record.map_readable().ok()?;
    let config = avc::config_from_avcc(&record, options.width, options.height, Some((options.frame_rate, 1)))?;
    Some(TrackConfig::H264(config).shared())
}

/// All pictures, until there are enough or nobody takes them.
fn paint(source: &gst_app::AppSrc, info: &gst_video::VideoInfo, frame_rate: u32) {
    let scene = Scene::new(info.width() as usize, info.height() as usize);
    let layout = [0, 1, 2].map(|n| {
        let stride = info.stride().get(n).and_then(|s| usize::try_from(*s).ok()).unwrap_or_default();
        (info.offset().get(n).copied().unwrap_or_default(), stride)
    });
    let frames = GOPS * GOP_SECONDS * frame_rate;
    for n in 0..frames {
        let mut picture = vec![0; info.size()];
        scene.paint(&mut picture, layout, n as f32 / frames as f32);
        let mut buffer = gst::Buffer::from_mut_slice(picture);
        if let Some(buffer) = buffer.get_mut() {
            let second = gst::ClockTime::SECOND.nseconds();
            buffer.set_pts(gst::ClockTime::from_nseconds(u64::from(n) * second / u64::from(frame_rate)));
            buffer.set_duration(gst::ClockTime::from_nseconds(second / u64::from(frame_rate)));
        }
        if source.push_buffer(buffer).is_err() {
            return;
        }
    }
    // Nobody is left to hear of a failure here.
    let _ = source.end_of_stream();
}

/// The planes of a picture that is larger than what is shown of it: brightness, then two of colour at half the size.
struct Scene {
    width: usize,
    height: usize,
    landscape: [Plane; 3],
    things: [Plane; 3],
}

struct Plane {
    width: usize,
    height: usize,
    samples: Vec<u8>,
}

/// Cell size in samples and strength of each layer of detail.
const LANDSCAPE: &[(usize, i32)] = &[(96, 44), (40, 24), (17, 18), (7, 14), (3, 8)];
const THINGS: &[(usize, i32)] = &[(23, 52), (9, 34), (4, 18)];
const COLOURS: &[(usize, i32)] = &[(61, 30), (25, 14)];
/// Things that cross the landscape: how often across and down in a loop, and where they begin (parts of a turn).
const PATHS: [(f32, f32, f32); 7] = [
    (1.0, 2.0, 0.0),
    (2.0, 1.0, 0.3),
    (3.0, 2.0, 0.55),
    (1.0, 3.0, 0.7),
    (2.0, 3.0, 0.15),
    (3.0, 1.0, 0.85),
    (4.0, 3.0, 0.4),
];

impl Scene {
    fn new(width: usize, height: usize) -> Self {
        let planes = |width: usize, height: usize, detail, seed| {
            let half = (width / 2, height / 2);
            [
                Plane::new(width, height, detail, seed),
                Plane::new(half.0, half.1, COLOURS, seed + 1),
                Plane::new(half.0, half.1, COLOURS, seed + 2),
            ]
        };
        let even = |v: usize| v & !1;
        Self {
            width,
            height,
            landscape: planes(even(width * 5 / 4), even(height * 5 / 4), LANDSCAPE, 1),
            things: planes(even(width / 6).max(2), even(height / 5).max(2), THINGS, 11),
        }
    }

    /// The picture at `turn`, 0 to 1, of the loop; `layout` is the offset and the stride of each plane.
    fn paint(&self, picture: &mut [u8], layout: [(usize, usize); 3], turn: f32) {
        let swing = |times: f32, from: f32, span: usize| {
            let place = (TAU * (times * turn + from)).sin() * 0.5 + 0.5;
            (place * span as f32) as usize & !1
        };
        for (plane, (offset, stride)) in layout.into_iter().enumerate() {
            let shrink = usize::from(plane > 0) + 1;
            let (width, height) = (self.width / shrink, self.height / shrink);
            let Some(target) = picture.get_mut(offset..) else { return };
            let (Some(back), Some(thing)) = (self.landscape.get(plane), self.things.get(plane)) else { return };
            let pan = (swing(1.0, 0.0, self.width / 4) / shrink, swing(2.0, 0.25, self.height / 4) / shrink);
            for (n, row) in target.chunks_mut(stride.max(1)).take(height).enumerate() {
                copy(row.get_mut(..width), back.row(pan.1 + n, pan.0, width));
            }
            for (across, down, from) in PATHS {
                let left = swing(across, from, self.width - thing.width * shrink) / shrink;
                let top = swing(down, from * 2.0, self.height - thing.height * shrink) / shrink;
                for (n, row) in target.chunks_mut(stride.max(1)).skip(top).take(thing.height).enumerate() {
                    copy(row.get_mut(left..left + thing.width), thing.row(n, 0, thing.width));
                }
            }
        }
    }
}

impl Plane {
    /// Smooth noise in layers; the same for the same seed.
    fn new(width: usize, height: usize, layers: &[(usize, i32)], seed: u32) -> Self {
        let mut sums = vec![128i32; width * height];
        for (layer, (cell, strength)) in layers.iter().enumerate() {
            let random = |x: usize, y: usize| {
                let mut v = (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77);
                v ^= seed.wrapping_mul(0xc2b2_ae3d).wrapping_add((layer as u32) << 20);
                v = (v ^ v >> 15).wrapping_mul(0x2c1b_3c6d);
                v = (v ^ v >> 12).wrapping_mul(0x297a_2d39);
                ((v ^ v >> 15) & 255) as i32 - 128
            };
            let size = *cell as i32;
            for (y, row) in sums.chunks_mut(width.max(1)).enumerate() {
                let (cell_y, part_y) = (y / cell, (y % cell) as i32);
                for (n, cells) in row.chunks_mut(*cell).enumerate() {
                    // Between the corners of the cell, first down, then across.
                    let down = |x| random(x, cell_y) * (size - part_y) + random(x, cell_y + 1) * part_y;
                    let (left, right) = (down(n), down(n + 1));
                    for (part_x, sum) in cells.iter_mut().enumerate() {
                        let part_x = part_x as i32;
                        *sum += (left * (size - part_x) + right * part_x) / (size * size) * strength / 128;
                    }
                }
            }
        }
        // Limited range.
        let samples = sums.into_iter().map(|v| u8::try_from(v.clamp(16, 235)).unwrap_or(128)).collect();
        Self { width, height, samples }
    }

    fn row(&self, row: usize, left: usize, width: usize) -> Option<&[u8]> {
        let start = row.min(self.height.saturating_sub(1)) * self.width + left;
        self.samples.get(start..start + width)
    }
}

fn copy(to: Option<&mut [u8]>, from: Option<&[u8]>) {
    if let (Some(to), Some(from)) = (to, from)
        && to.len() == from.len()
    {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TINY: MotionOptions = MotionOptions { width: 162, height: 90, frame_rate: 10, file: None };

    #[test]
    fn most_of_the_picture_moves_from_each_frame_to_the_next_and_the_loop_closes() {
        let (width, height) = (320, 180);
        let scene = Scene::new(width, height);
        let layout = [(0, width), (width * height, width / 2), (width * height * 5 / 4, width / 2)];
        let at = |turn| {
            let mut picture = vec![0; width * height * 3 / 2];
            scene.paint(&mut picture, layout, turn);
            picture
        };
        // Frames that are a 200th of the loop apart, as at 25 frames a second; now and then the pan turns and rests.
        let changed: Vec<usize> = (0..200)
            .map(|n| {
                let (a, b) = (at(n as f32 / 200.0), at((n + 1) as f32 / 200.0));
                a.iter().zip(&b).filter(|(a, b)| a != b).count() * 100 / a.len()
            })
            .collect();
        assert!(changed.iter().sum::<usize>() / changed.len() > 50, "{changed:?}");
        assert_eq!(at(0.0), at(1.0));
        assert!(at(0.3).iter().all(|v| (16..=235).contains(v)));
    }

    #[test]
    fn whole_gops_come_out_with_rising_times_and_sizes_that_tell_of_motion() {
        let units = encode(&TINY).unwrap();
        assert_eq!(units.len(), 80);
        for (n, unit) in units.iter().enumerate() {
            assert_eq!(unit.key, n % 20 == 0, "{n}");
            assert_eq!(unit.pts, MediaTime::from_ticks(n as i64, 10));
            // A skipped picture takes a dozen bytes.
            assert!(unit.data.len() > 200, "{n}: {}", unit.data.len());
        }
    }

    #[test]
    fn files_that_are_no_video_and_pictures_that_cannot_be_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no video at all, and no frame of one").unwrap();
        for path in [file.path(), "/no/such/file.mp4".as_ref()] {
            let fault = encode(&MotionOptions { file: Some(path.to_owned()), ..TINY }).unwrap_err();
            assert!(matches!(fault, MotionFault::Failed(_)), "{fault:?}");
        }
        for (width, height, frame_rate) in [(161, 90, 10), (162, 90, 0), (0, 0, 25), (9000, 90, 25)] {
            let fault = encode(&MotionOptions { width, height, frame_rate, file: None }).unwrap_err();
            assert!(matches!(fault, MotionFault::Picture(..)), "{fault:?}");
        }
    }
}
