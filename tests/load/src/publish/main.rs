//! `fishladder-publish`: many RTP publishers in one process, as cheap and as exact as possible, to measure servers with.
//!
//! Each sends the same clip over and over with its own numbers, a whole frame at once (sendmmsg) at the frame's time, with
//! sender reports.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use serde_json::json;

mod clip;

use clip::{Aac, Unit};

/// Publishes a clip as many RTP streams to loopback ports, endlessly looped. Stream N has four ports from FIRST_PORT + 4 N on:
/// video, its RTCP, audio, its RTCP.
#[derive(Debug, Parser)]
#[command(name = "fishladder-publish", version)]
struct Arguments {
    /// The picture: raw H.264 (Annex B) without reordered frames that begins with a key frame, closed GOPs.
    #[arg(long)]
    video: PathBuf,
    /// Its frames a second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// The sound: AAC in ADTS.
    #[arg(long)]
    audio: PathBuf,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=2000))]
    streams: u16,
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..))]
    first_port: u16,
    /// How long to send.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Instead of sending: write each stream's SDP there, as 0.sdp, 1.sdp and so on.
    #[arg(long)]
    write_sdp: Option<PathBuf>,
}

/// RTP clock of every video track.
const VIDEO_RATE: u32 = 90_000;
/// Samples in an AAC frame.
const AAC_FRAME: u32 = 1024;
/// All streams' beginnings are spread over so much time, so that neither their frames nor their key frames come together.
const SPREAD: Duration = Duration::from_secs(1);
/// Between two sender reports of a track.
const REPORTS: Duration = Duration::from_secs(5);
/// Seconds from 1900 to 1970 (RFC 5905).
const NTP_EPOCH: u64 = 2_208_988_800;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fishladder-publish: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let (video, audio) = (read(&arguments.video)?, read(&arguments.audio)?);
    let pictures = clip::h264(&video);
    let sound = clip::aac(&audio).ok_or_else(|| format!("{}: not ADTS", arguments.audio.display()))?;
    if pictures.is_empty() {
        return Err(format!("{}: no pictures", arguments.video.display()));
    }
    let port = |stream: u16, which: u16| -> Result<u16, String> {
        let beyond = || "the last stream's ports lie beyond 65535".to_owned();
        stream.checked_mul(4).and_then(|n| arguments.first_port.checked_add(n + which)).ok_or_else(beyond)
    };
    if let Some(folder) = &arguments.write_sdp {
        for stream in 0..arguments.streams {
            let path = folder.join(format!("{stream}.sdp"));
            std::fs::write(&path, sdp(port(stream, 0)?, port(stream, 2)?, &sound))
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        return Ok(());
    }
    let begin = Instant::now() + Duration::from_millis(100);
    let mut tracks = Vec::new();
    for stream in 0..arguments.streams {
        let from = begin + SPREAD / u32::from(arguments.streams) * u32::from(stream);
        let ssrc = 0x1000_0000 + u32::from(stream) * 2;
        let (step, rate) = (VIDEO_RATE / arguments.fps, VIDEO_RATE);
        tracks.push(Track::new(port(stream, 0)?, 96, ssrc, from, step, rate, &pictures, &video)?);
        tracks.push(Track::new(port(stream, 2)?, 97, ssrc + 1, from, AAC_FRAME, sound.rate, &sound.frames, &audio)?);
    }
    let report = send(&mut tracks, begin + Duration::from_secs(arguments.seconds));
    println!("{report:#}");
    Ok(())
}

/// Sends each track's units when they are due.
fn send(tracks: &mut [Track], end: Instant) -> serde_json::Value {
    let mut due: BinaryHeap<Reverse<(Instant, usize)>> =
        tracks.iter().enumerate().map(|(n, track)| Reverse((track.begin, n))).collect();
    let mut headers = MultiHeaders::preallocate(MOST, None);
    let mut worst = Duration::ZERO;
    let mut late = 0_u64;
    while let Some(Reverse((at, n))) = due.pop() {
        if at >= end {
            break;
        }
        let now = Instant::now();
        match at.checked_duration_since(now) {
            Some(early) => std::thread::sleep(early),
            None => {
                worst = worst.max(now - at);
                late += u64::from(now - at > Duration::from_millis(5));
            }
        }
        if let Some(track) = tracks.get_mut(n) {
            track.send_next(&mut headers);
            due.push(Reverse((track.next_due(), n)));
        }
    }
    let total = |of: fn(&Track) -> u64| tracks.iter().map(of).sum::<u64>();
    json!({
        "packets": total(|t| t.packets), "bytes": total(|t| t.bytes), "unsent": total(|t| t.unsent),
        "units_over_5_ms_late": late, "worst_late_ms": worst.as_secs_f64() * 1e3,
    })
}

/// Packets in one system call; the kernel takes 1,024.
const MOST: usize = 512;

/// A publisher's video or audio.
struct Track<'a> {
    media: UdpSocket,
    rtcp: UdpSocket,
    payload_type: u8,
    ssrc: u32,
    begin: Instant,
    /// RTP ticks of a unit.
    step: u32,
    rate: u32,
    units: &'a [Unit],
    bytes_of: &'a [u8],
    /// Units sent.
    count: u64,
    sequence: u16,
    next_report: Duration,
    packets: u64,
    bytes: u64,
    /// The kernel would not take them: nobody listens.
    unsent: u64,
}

impl<'a> Track<'a> {
    #[expect(clippy::too_many_arguments, reason = "called twice, in one place")]
    fn new(
        port: u16,
        payload_type: u8,
        ssrc: u32,
        begin: Instant,
        step: u32,
        rate: u32,
        units: &'a [Unit],
        bytes_of: &'a [u8],
    ) -> Result<Self, String> {
        let socket = |port: u16| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect((Ipv4Addr::LOCALHOST, port))?;
            Ok(socket)
        };
        let failed = |e| format!("UDP to port {port}: {e}");
        Ok(Self {
            media: socket(port).map_err(failed)?,
            rtcp: socket(port + 1).map_err(failed)?,
            payload_type,
            ssrc,
            begin,
            step,
            rate,
            units,
            bytes_of,
            count: 0,
            sequence: ssrc as u16,
            next_report: Duration::ZERO,
            packets: 0,
            bytes: 0,
            unsent: 0,
        })
    }

    /// Media time since the beginning.
    fn elapsed(&self) -> Duration {
        let ticks = u128::from(self.count) * u128::from(self.step);
        Duration::from_nanos(u64::try_from(ticks * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX))
    }

    fn next_due(&self) -> Instant {
        self.begin + self.elapsed()
    }

    /// As RTP numbers it; where it begins does not matter as long as tracks differ.
    fn timestamp(&self) -> u32 {
        (self.count as u32).wrapping_mul(self.step).wrapping_add(self.ssrc)
    }

    fn send_next(&mut self, room: &mut MultiHeaders<SockaddrIn>) {
        let (units, bytes_of) = (self.units, self.bytes_of);
        let Some(unit) = units.get((self.count % units.len() as u64) as usize) else { return };
        self.report();
        let timestamp = self.timestamp();
        // RFC 3550 §5.1.
        let headers: Vec<[u8; 12]> = (0_u16..)
            .zip(unit)
            .map(|(n, packet)| {
                let mut header = [0x80, self.payload_type | u8::from(packet.marker) << 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                header[2..4].copy_from_slice(&self.sequence.wrapping_add(n).to_be_bytes());
                header[4..8].copy_from_slice(&timestamp.to_be_bytes());
                header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
                header
            })
            .collect();
        let slices: Vec<[IoSlice; 3]> = unit
            .iter()
            .zip(&headers)
            .map(|(packet, header)| {
                let body = bytes_of.get(packet.bytes.clone()).unwrap_or(&[]);
                [IoSlice::new(header), IoSlice::new(&packet.front), IoSlice::new(body)]
            })
            .collect();
        let mut rest = slices.as_slice();
        while !rest.is_empty() {
            let some = rest.get(..MOST).unwrap_or(rest);
            let nowhere = vec![None; some.len()];
            let sent = sendmmsg(self.media.as_raw_fd(), room, some, &nowhere, [], MsgFlags::empty());
            // An error is that of the first one left.
            let taken = sent.map_or(0, Iterator::count);
            let (done, left) = rest.split_at(taken.max(1));
            self.unsent += u64::from(taken == 0);
            self.packets += taken as u64;
            self.bytes += done.iter().take(taken).flatten().map(|slice| slice.len() as u64).sum::<u64>();
            rest = left;
        }
        self.sequence = self.sequence.wrapping_add(unit.len() as u16);
        self.count += 1;
    }

    /// A sender report when one is due (RFC 3550 §6.4.1).
    fn report(&mut self) {
        if self.elapsed() < self.next_report {
            return;
        }
        self.next_report += REPORTS;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = (now.as_secs() + NTP_EPOCH) << 32 | fraction;
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(&ntp.to_be_bytes());
        packet.extend_from_slice(&self.timestamp().to_be_bytes());
        packet.extend_from_slice(&(self.packets as u32).to_be_bytes());
        packet.extend_from_slice(&(self.bytes as u32).to_be_bytes());
        // Lost or not, another one follows.
        let _ = self.rtcp.send(&packet);
    }
}

fn sdp(video: u16, audio: u16, sound: &Aac) -> String {
    let Aac { rate, channels, config: [a, b], .. } = sound;
    format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=clip\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video {video} RTP/AVP 96\r\na=rtpmap:96 H264/{VIDEO_RATE}\r\na=fmtp:96 packetization-mode=1\r\n\
         m=audio {audio} RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/{rate}/{channels}\r\n\
         a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={a:02x}{b:02x}\r\n"
    )
}
