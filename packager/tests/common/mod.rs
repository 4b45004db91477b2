//! Real media for the tests: ffmpeg makes it, a few lines split it into access units.
#![allow(clippy::unwrap_used, dead_code)]

use std::process::Command;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use media::{AacConfig, AccessUnit, Av1Config, H264Config, H265Config, MediaDuration, MediaTime, TrackConfig};

/// Runs ffmpeg or ffprobe and returns its standard output. None when it is not installed, which is a failure under
/// FISHLADDER_STRICT=1 and a skip, said aloud, otherwise.
pub fn tool(program: &str, args: &[&str]) -> Option<Vec<u8>> {
    let output = match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("FISHLADDER_STRICT").is_none(), "{program} is missing: {error}");
            eprintln!("SKIPPED: {program} is missing: {error}");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    Some(output.stdout)
}

/// Seconds of 30 fps 320x180 test picture as access units; `options` go to x264.
pub fn h264(seconds: u32, gop: u32, options: &[&str]) -> Option<Vec<AccessUnit>> {
    let source = format!("testsrc2=size=320x180:rate=30:duration={seconds}");
    let gop = gop.to_string();
    let mut args = vec!["-v", "error", "-f", "lavfi", "-i", &source, "-c:v", "libx264", "-pix_fmt", "yuv420p"];
    args.extend([
        "-preset",
        "veryfast",
        "-g",
        &gop,
        "-keyint_min",
        &gop,
        "-sc_threshold",
        "0",
        "-x264-params",
        "aud=1",
    ]);
    args.extend(options);
    args.extend(["-f", "h264", "-"]);
    let stream = tool("ffmpeg", &args)?;
    Some(split_annex_b(&stream))
}

/// Access units out of a byte stream with access unit delimiters; DTS one frame apart, PTS equal to DTS (no B-frames).
fn split_annex_b(stream: &[u8]) -> Vec<AccessUnit> {
    let (mut sps, mut pps) = (Bytes::new(), Bytes::new());
    let mut units: Vec<(bool, BytesMut)> = Vec::new();
    for nal in nal_units(stream) {
        match nal[0] & 0x1f {
            9 => units.push((false, BytesMut::new())),
            7 => sps = Bytes::copy_from_slice(nal),
            8 => pps = Bytes::copy_from_slice(nal),
            kind => {
                let (key, data) = units.last_mut().unwrap();
                *key |= kind == 5;
                data.put_u32(nal.len() as u32);
                data.put_slice(nal);
            }
        }
    }
    let config = TrackConfig::H264(H264Config {
        sps,
        pps: vec![pps],
        width: 320,
        height: 180,
        sar: (1, 1),
        reorder_depth: 0,
        frame_rate: Some((30, 1)),
    })
    .shared();
    paced(units, &config)
}

/// Seconds of 30 fps 320x180 test picture as H.265 access units.
pub fn h265(seconds: u32, gop: u32) -> Option<Vec<AccessUnit>> {
    let source = format!("testsrc2=size=320x180:rate=30:duration={seconds}");
    let parameters =
        format!("log-level=none:aud=1:info=0:bframes=0:open-gop=0:scenecut=0:keyint={gop}:min-keyint={gop}");
    let mut args = vec!["-v", "error", "-f", "lavfi", "-i", &source, "-c:v", "libx265", "-pix_fmt", "yuv420p"];
    args.extend(["-preset", "ultrafast", "-x265-params", &parameters, "-f", "hevc", "-"]);
    let stream = tool("ffmpeg", &args)?;
    let mut sets: [Bytes; 3] = Default::default();
    let mut samples: Vec<(bool, BytesMut)> = Vec::new();
    for nal in nal_units(&stream) {
        match nal[0] >> 1 & 0x3f {
            35 => samples.push((false, BytesMut::new())),
            kind @ 32..=34 => sets[usize::from(kind - 32)] = Bytes::copy_from_slice(nal),
            kind @ 0..=31 => {
                let (key, data) = samples.last_mut().unwrap();
                *key |= matches!(kind, 19 | 20);
                data.put_u32(nal.len() as u32);
                data.put_slice(nal);
            }
            _ => {}
        }
    }
    // x265's SPS begins with its profile, tier and level, in which zeros follow zeros: without emulation prevention they are
    // 1 + 4 + 6 + 1 bytes behind the first.
    let mut plain = sets[1].to_vec();
    while let Some(at) = plain.windows(3).position(|w| w == [0, 0, 3]) {
        plain.remove(at + 2);
    }
    let mut record = BytesMut::from(&[1][..]);
    record.extend_from_slice(&plain[3..15]);
    record.extend_from_slice(&[0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 3]);
    for (kind, set) in (32u8..).zip(&sets) {
        record.put_u8(kind);
        record.put_u16(1);
        record.put_u16(set.len() as u16);
        record.put_slice(set);
    }
    let record = record.freeze();
    let config = H265Config { record, width: 320, height: 180, sar: (1, 1), frame_rate: Some((30, 1)) };
    Some(paced(samples, &TrackConfig::H265(config).shared()))
}

/// Seconds of 30 fps 320x180 test picture as AV1 temporal units.
pub fn av1(seconds: u32, gop: u32) -> Option<Vec<AccessUnit>> {
    let source = format!("testsrc2=size=320x180:rate=30:duration={seconds}");
    let gop = gop.to_string();
    let mut args = vec!["-v", "error", "-f", "lavfi", "-i", &source, "-c:v", "libaom-av1", "-pix_fmt", "yuv420p"];
    args.extend(["-usage", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", "-g", &gop, "-f", "obu", "-"]);
    let stream = tool("ffmpeg", &args)?;
    let mut samples: Vec<(bool, BytesMut)> = Vec::new();
    let mut sequence = Bytes::new();
    let mut rest = &stream[..];
    while !rest.is_empty() {
        // AV1 specification, 5.3 and 4.10.5: a header of one byte here, then the size, seven bits a byte, lowest first.
        let digits = rest[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
        let size = rest[1..=digits].iter().rev().fold(0, |size, b| size << 7 | usize::from(b & 0x7f));
        let (obu, after) = rest.split_at(1 + digits + size);
        match obu[0] >> 3 & 0xf {
            2 => samples.push((false, BytesMut::new())),
            kind => {
                let (key, data) = samples.last_mut().unwrap();
                if kind == 1 {
                    *key = true;
                    sequence = Bytes::copy_from_slice(obu);
                }
                data.put_slice(obu);
            }
        }
        rest = after;
    }
    // libaom's sequence header has one operating point, whose level stands in its fourth byte.
    let mut record = BytesMut::from(&[0x81, sequence[5] >> 3, 0x0c, 0][..]);
    record.put_slice(&sequence);
    let record = record.freeze();
    let config = Av1Config { record, width: 320, height: 180, sar: (1, 1), frame_rate: Some((30, 1)) };
    Some(paced(samples, &TrackConfig::Av1(config).shared()))
}

/// NAL units of a byte stream.
fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(i, _)| i).collect();
    starts.push(stream.len());
    let nal = |pair: &[usize]| {
        let nal = &stream[pair[0] + 3..pair[1]];
        &nal[..nal.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)]
    };
    starts.windows(2).map(nal).collect()
}

/// Pictures at 30 frames a second from one second on, none reordered.
fn paced(samples: Vec<(bool, BytesMut)>, config: &Arc<TrackConfig>) -> Vec<AccessUnit> {
    let unit = |(n, (key, data)): (usize, (bool, BytesMut))| {
        let pts = MediaTime::from_ticks(n as i64 * 3000, 90_000) + MediaDuration::from_millis(1000);
        AccessUnit { pts, dts: pts, duration: None, key, config: config.clone(), data: data.freeze() }
    };
    samples.into_iter().enumerate().map(unit).collect()
}

/// Seconds of a 48 kHz stereo tone as AAC frames.
pub fn aac(seconds: u32) -> Option<Vec<AccessUnit>> {
    let source = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    let args = ["-v", "error", "-f", "lavfi", "-i", &source, "-ac", "2", "-c:a", "aac", "-f", "adts", "-"];
    let mut stream = &tool("ffmpeg", &args)?[..];
    let config = aac_config();
    let duration = MediaDuration::from_ticks(1024, 48_000);
    let mut units = Vec::new();
    while stream.len() > 7 {
        // ADTS: 13 bits of frame length behind the 30th bit (ISO 13818-7, 6.2).
        let length = usize::from(stream[3] & 3) << 11 | usize::from(stream[4]) << 3 | usize::from(stream[5]) >> 5;
        let pts = MediaTime::from_ticks(units.len() as i64 * 1024, 48_000) + MediaDuration::from_millis(1000);
        let data = Bytes::copy_from_slice(&stream[7..length]);
        units.push(AccessUnit { pts, dts: pts, duration: Some(duration), key: true, config: config.clone(), data });
        stream = &stream[length..];
    }
    Some(units)
}

pub fn aac_config() -> Arc<TrackConfig> {
    TrackConfig::Aac(AacConfig {
        asc: Bytes::from_static(&[0x11, 0x90]),
        sample_rate: 48_000,
        channels: 2,
        object_type: 2,
        frame_samples: 1024,
    })
    .shared()
}
