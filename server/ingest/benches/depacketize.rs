//! How many bytes of H.264 a second one core takes from datagrams to access units: reorder buffer, depacketizer, gate,
//! decode times and timeline.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest::IngestStats;
use ingest::rtp::{RtpSession, RtpSessionConfig, TrackFormat, TrackSpec};
use media::{IngestEvent, WallTime};

/// x264, High 4:4:4 Predictive, 320x240, 30 frames a second, two reorder frames, POC type 0 of 6 bits.
const SPS: &[u8] = &[
    0x67, 0xf4, 0x00, 0x0d, 0x91, 0x9b, 0x28, 0x28, 0x3f, 0x60, 0x22, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00, 0x03,
    0x00, 0x78, 0x1e, 0x28, 0x53, 0x2c,
];
const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xc4, 0x48, 0x44];

fn packet(sequence: u16, marker: bool, timestamp: u32, payload: &[u8]) -> Bytes {
    let mut p = vec![0x80, 96 | if marker { 0x80 } else { 0 }];
    p.extend(sequence.to_be_bytes());
    p.extend(timestamp.to_be_bytes());
    p.extend([0, 0, 0, 1]);
    p.extend(payload);
    p.into()
}

/// Two seconds of 30 pictures of 40 KB (about 10 Mbit/s) in FU-As of 1,400 bytes, all of them IDR.
fn stream() -> Vec<(u64, Bytes)> {
    let mut out = Vec::new();
    let mut sequence = 0;
    // Entropy-coded data has no long runs of zeros.
    let body: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    for n in 0..60u32 {
        let timestamp = n * 3000;
        for set in [SPS, PPS] {
            out.push((u64::from(n) * 33, packet(sequence, false, timestamp, set)));
            sequence += 1;
        }
        // first_mb 0, I slice, PPS 0
        let slice = [&[0x88, 0x84][..], &body].concat();
        let chunks: Vec<&[u8]> = slice.chunks(1398).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            let (first, last) = (i == 0, i + 1 == chunks.len());
            let flags = if first { 0x80 } else { 0 } | if last { 0x40 } else { 0 } | 5;
            let payload = [&[0x7c, flags][..], chunk].concat();
            out.push((u64::from(n) * 33, packet(sequence, last, timestamp, &payload)));
            sequence += 1;
        }
    }
    out
}

fn bench(c: &mut Criterion) {
    let packets = stream();
    let bytes: u64 = packets.iter().map(|(_, p)| p.len() as u64).sum();
    let start = Instant::now();
    let mut group = c.benchmark_group("depacketize");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("h264 FU-A, 40 KB pictures", |b| {
        b.iter(|| {
            let track = TrackSpec {
                payload_type: 96,
                rtx_payload_type: None,
                format: TrackFormat::H264 { parameter_sets: vec![] },
                clock_rate: 90_000,
                ssrc: None,
            };
            let config = RtpSessionConfig {
                tracks: vec![track],
                jitter_budget: Duration::from_millis(60),
                can_ask_key_frames: false,
                can_nack: false,
                can_report: false,
            };
            let mut session = RtpSession::new(config, Arc::new(IngestStats::default()));
            let mut units = 0;
            for (at, packet) in &packets {
                session.on_rtp(start + Duration::from_millis(*at), WallTime(0), packet.clone());
                while let Some(event) = session.poll_event() {
                    units += usize::from(matches!(black_box(event), IngestEvent::Unit(_)));
                }
            }
            assert_eq!(units, 60, "the bench measures a stream that passes");
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
