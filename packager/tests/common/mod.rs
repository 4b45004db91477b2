//! Real media for the tests: ffmpeg makes it, a few lines split it into access units.
#![allow(clippy::unwrap_used, dead_code)]

use std::process::Command;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use media::{AacConfig, AccessUnit, H264Config, MediaDuration, MediaTime, TrackConfig};

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
    let mut starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(i, _)| i).collect();
    starts.push(stream.len());
    let (mut sps, mut pps) = (Bytes::new(), Bytes::new());
    let mut units: Vec<(bool, BytesMut)> = Vec::new();
    for pair in starts.windows(2) {
        let mut nal = &stream[pair[0] + 3..pair[1]];
        while nal.last() == Some(&0) {
            nal = &nal[..nal.len() - 1];
        }
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
    let unit = |(n, (key, data)): (usize, (bool, BytesMut))| {
        let pts = MediaTime::from_ticks(n as i64 * 3000, 90_000) + MediaDuration::from_millis(1000);
        AccessUnit { pts, dts: pts, duration: None, key, config: config.clone(), data: data.freeze() }
    };
    units.into_iter().enumerate().map(unit).collect()
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
