//! What parent and worker say to each other, as bytes. Sans-IO: encode into a buffer, decode out of one.
//!
//! A message is a 4-byte big-endian length of what follows, a type byte and a body. Both sides treat the other as able
//! to send anything: every length has a bound and no input panics.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use media::{AacConfig, Av1Config, H264Config, H265Config, MediaDuration, MediaTime, OpusConfig, TrackConfig};
use serde::{Deserialize, Serialize};

use crate::spec::{LadderSpec, OnDevice};

/// One access unit: 8 MiB holds an intra picture of 4K at any sane quality, and bounds what a rogue worker makes us keep.
pub const MAX_UNIT: usize = 8 << 20;
/// A whole message: a unit and its fixed fields.
const MAX_MESSAGE: usize = MAX_UNIT + 64;
/// The ladder as JSON.
const MAX_START: usize = 64 << 10;
/// One parameter set or configuration record; ISO 14496-15 gives them 16-bit lengths, real ones are below 200 bytes.
const MAX_SET: usize = 4 << 10;
/// Picture parameter sets: H.264 allows 256 ids.
const MAX_PPS: usize = 256;
/// Track numbers are bytes.
const MAX_TRACKS: usize = 256;
/// Bytes of a suspended track: its number and its end.
const SUSPENDED: usize = 9;
/// A fault's text.
const MAX_TEXT: usize = 1 << 10;

/// Track numbers of units on their way in.
pub const TRACK_VIDEO: u8 = 0;
pub const TRACK_AUDIO: u8 = 1;

/// Units on their way out are numbered as [`LadderSpec::rendition`] counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Parent to worker, first and once.
    Start(Start),
    /// The configuration of the track's units from here on.
    Config { track: u8, config: Arc<TrackConfig> },
    /// One access unit, either way.
    Unit(Unit),
    /// Parent to worker: of the video rungs exactly these tracks are suspended, each from a presentation time on, which units to
    /// come may lie before. A rung that is no longer named comes back at the next unit that is forced to be a key.
    Suspend(Vec<(u8, MediaTime)>),
    /// Parent to worker: deliver what is in the pipeline, then exit.
    Stop,
    /// Worker to parent: the pipeline runs.
    Ready,
    /// Worker to parent: why it is about to exit.
    Fault(String),
    /// Worker to parent, instead of `Ready`: why no worker on this host can make the ladder.
    Refused(String),
    /// Worker to parent, when something changed: the proof of life while nothing comes out (undecodable input).
    Stats(Stats),
}

/// What a worker must know before the first unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub spec: LadderSpec,
    /// The first audio unit's presentation time of the whole session, in flicks: AAC frames stand on one grid of 1024
    /// samples from here, so that a new worker's frames continue the old one's exactly.
    pub audio_origin: Option<i64>,
    /// After a restart: per video rung the presentation time in flicks of the last delivered unit. Decoded pictures that
    /// every rung has delivered are not encoded again; each rung gets an IDR at its first picture after.
    pub resume: Vec<Option<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<OnDevice>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub track: u8,
    pub key: bool,
    pub force_key: bool,
    pub pts: MediaTime,
    pub dts: MediaTime,
    pub duration: Option<MediaDuration>,
    pub data: Bytes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Units that the decoders took.
    pub consumed: u64,
    /// Pictures that came out of the video decoder.
    pub decoded: u64,
    /// Warnings and errors that elements reported.
    pub errors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("a message of {0} bytes is over the bound")]
    TooLong(usize),
    #[error("message type {0} is unknown")]
    UnknownType(u8),
    #[error("a message of type {0} is malformed")]
    Malformed(u8),
}

mod kind {
    pub(super) const START: u8 = 1;
    pub(super) const CONFIG: u8 = 2;
    pub(super) const UNIT: u8 = 3;
    pub(super) const STOP: u8 = 4;
    pub(super) const READY: u8 = 5;
    pub(super) const FAULT: u8 = 6;
    pub(super) const STATS: u8 = 7;
    pub(super) const SUSPEND: u8 = 8;
    pub(super) const REFUSED: u8 = 9;
}

const FLAG_KEY: u8 = 1;
const FLAG_FORCE_KEY: u8 = 2;
const FLAG_DURATION: u8 = 4;

/// Appends one message. Errs, and appends nothing, where a bound is passed.
pub fn encode(message: &Message, out: &mut BytesMut) -> Result<(), ProtocolError> {
    let start = out.len();
    out.put_u32(0);
    let written = encode_body(message, out);
    let length = out.len() - start - 4;
    match (written, u32::try_from(length)) {
        (Ok(()), Ok(length32)) if length <= MAX_MESSAGE => {
            if let Some(place) = out.get_mut(start..start + 4) {
                place.copy_from_slice(&length32.to_be_bytes());
            }
            Ok(())
        }
        (written, _) => {
            out.truncate(start);
            Err(written.err().unwrap_or(ProtocolError::TooLong(length)))
        }
    }
}

/// Takes the next whole message out of `input`; `None` when more bytes are needed. After an error the stream is lost.
pub fn decode(input: &mut BytesMut) -> Result<Option<Message>, ProtocolError> {
    let Some(length) = input.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) else {
        return Ok(None);
    };
    let length = length as usize;
    if length > MAX_MESSAGE || length == 0 {
        return Err(ProtocolError::TooLong(length));
    }
    if input.len() < 4 + length {
        input.reserve(4 + length - input.len());
        return Ok(None);
    }
    input.advance(4);
    let mut body = input.split_to(length).freeze();
    let kind = body.get_u8();
    decode_body(kind, &mut body)?.map_or(Err(ProtocolError::Malformed(kind)), |m| Ok(Some(m)))
}

fn encode_body(message: &Message, out: &mut BytesMut) -> Result<(), ProtocolError> {
    match message {
        Message::Start(start) => {
            out.put_u8(kind::START);
            let json = serde_json::to_vec(start).map_err(|_| ProtocolError::Malformed(kind::START))?;
            if json.len() > MAX_START {
                return Err(ProtocolError::TooLong(json.len()));
            }
            out.extend_from_slice(&json);
        }
        Message::Config { track, config } => {
            out.put_u8(kind::CONFIG);
            out.put_u8(*track);
            encode_config(config, out)?;
        }
        Message::Unit(unit) => {
            if unit.data.len() > MAX_UNIT {
                return Err(ProtocolError::TooLong(unit.data.len()));
            }
            out.reserve(32 + unit.data.len());
            out.put_u8(kind::UNIT);
            out.put_u8(unit.track);
            let flag = |set: bool, bit: u8| if set { bit } else { 0 };
            out.put_u8(
                flag(unit.key, FLAG_KEY)
                    | flag(unit.force_key, FLAG_FORCE_KEY)
                    | flag(unit.duration.is_some(), FLAG_DURATION),
            );
            out.put_i64(unit.pts.0);
            out.put_i64(unit.dts.0);
            out.put_i64(unit.duration.map_or(0, |d| d.0));
            out.extend_from_slice(&unit.data);
        }
        Message::Suspend(tracks) => {
            if tracks.len() > MAX_TRACKS {
                return Err(ProtocolError::TooLong(tracks.len()));
            }
            out.put_u8(kind::SUSPEND);
            for (track, from) in tracks {
                out.put_u8(*track);
                out.put_i64(from.0);
            }
        }
        Message::Stop => out.put_u8(kind::STOP),
        Message::Ready => out.put_u8(kind::READY),
        Message::Fault(text) | Message::Refused(text) => {
            out.put_u8(if matches!(message, Message::Fault(_)) { kind::FAULT } else { kind::REFUSED });
            let mut end = text.len().min(MAX_TEXT);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            out.extend_from_slice(text.get(..end).unwrap_or_default().as_bytes());
        }
        Message::Stats(stats) => {
            out.put_u8(kind::STATS);
            out.put_u64(stats.consumed);
            out.put_u64(stats.decoded);
            out.put_u64(stats.errors);
        }
    }
    Ok(())
}

fn decode_body(kind: u8, body: &mut Bytes) -> Result<Option<Message>, ProtocolError> {
    Ok(match kind {
        kind::START if body.len() <= MAX_START => serde_json::from_slice(body).ok().map(Message::Start),
        kind::START => return Err(ProtocolError::TooLong(body.len())),
        kind::CONFIG => body.try_get_u8().ok().and_then(|track| {
            let config = decode_config(body)?;
            body.is_empty().then(|| Message::Config { track, config: Arc::new(config) })
        }),
        kind::UNIT => decode_unit(body).map(Message::Unit),
        kind::SUSPEND if body.len() <= MAX_TRACKS * SUSPENDED => {
            let mut tracks = Vec::with_capacity(body.len() / SUSPENDED);
            while !body.is_empty() {
                let (Ok(track), Ok(from)) = (body.try_get_u8(), body.try_get_i64()) else { return Ok(None) };
                tracks.push((track, MediaTime(from)));
            }
            Some(Message::Suspend(tracks))
        }
        kind::SUSPEND => return Err(ProtocolError::TooLong(body.len())),
        kind::STOP => body.is_empty().then_some(Message::Stop),
        kind::READY => body.is_empty().then_some(Message::Ready),
        kind::FAULT if body.len() <= MAX_TEXT => Some(Message::Fault(String::from_utf8_lossy(body).into_owned())),
        kind::REFUSED if body.len() <= MAX_TEXT => Some(Message::Refused(String::from_utf8_lossy(body).into_owned())),
        kind::FAULT | kind::REFUSED => return Err(ProtocolError::TooLong(body.len())),
        kind::STATS => (|| {
            let stats = Stats {
                consumed: body.try_get_u64().ok()?,
                decoded: body.try_get_u64().ok()?,
                errors: body.try_get_u64().ok()?,
            };
            body.is_empty().then_some(Message::Stats(stats))
        })(),
        other => return Err(ProtocolError::UnknownType(other)),
    })
}

fn decode_unit(body: &mut Bytes) -> Option<Unit> {
    let track = body.try_get_u8().ok()?;
    let flags = body.try_get_u8().ok()?;
    let pts = MediaTime(body.try_get_i64().ok()?);
    let dts = MediaTime(body.try_get_i64().ok()?);
    let duration = MediaDuration(body.try_get_i64().ok()?);
    if body.len() > MAX_UNIT {
        return None;
    }
    Some(Unit {
        track,
        key: flags & FLAG_KEY != 0,
        force_key: flags & FLAG_FORCE_KEY != 0,
        pts,
        dts,
        duration: (flags & FLAG_DURATION != 0).then_some(duration),
        data: std::mem::take(body),
    })
}

fn encode_config(config: &TrackConfig, out: &mut BytesMut) -> Result<(), ProtocolError> {
    match config {
        TrackConfig::H264(c) => {
            out.put_u8(0);
            put_set(&c.sps, out)?;
            if c.pps.len() > MAX_PPS {
                return Err(ProtocolError::TooLong(c.pps.len()));
            }
            out.put_u16(u16::try_from(c.pps.len()).unwrap_or(u16::MAX));
            for set in &c.pps {
                put_set(set, out)?;
            }
            put_picture((c.width, c.height), c.sar, c.frame_rate, out);
            out.put_u8(c.reorder_depth);
        }
        TrackConfig::H265(c) => {
            out.put_u8(3);
            put_set(&c.record, out)?;
            put_picture((c.width, c.height), c.sar, c.frame_rate, out);
        }
        TrackConfig::Av1(c) => {
            out.put_u8(4);
            put_set(&c.record, out)?;
            put_picture((c.width, c.height), c.sar, c.frame_rate, out);
        }
        TrackConfig::Aac(c) => {
            out.put_u8(1);
            put_set(&c.asc, out)?;
            out.put_u32(c.sample_rate);
            out.put_u8(c.channels);
            out.put_u8(c.object_type);
            out.put_u16(c.frame_samples);
        }
        TrackConfig::Opus(c) => {
            out.put_u8(2);
            out.put_u8(c.channels);
            out.put_u16(c.pre_skip);
        }
    }
    Ok(())
}

fn decode_config(body: &mut Bytes) -> Option<TrackConfig> {
    Some(match body.try_get_u8().ok()? {
        0 => {
            let sps = get_set(body)?;
            let count = usize::from(body.try_get_u16().ok()?);
            if count > MAX_PPS {
                return None;
            }
            let pps = (0..count).map(|_| get_set(body)).collect::<Option<Vec<_>>>()?;
            let ((width, height), sar, frame_rate) = get_picture(body)?;
            let reorder_depth = body.try_get_u8().ok()?;
            TrackConfig::H264(H264Config { sps, pps, width, height, sar, reorder_depth, frame_rate })
        }
        1 => TrackConfig::Aac(AacConfig {
            asc: get_set(body)?,
            sample_rate: body.try_get_u32().ok()?,
            channels: body.try_get_u8().ok()?,
            object_type: body.try_get_u8().ok()?,
            frame_samples: body.try_get_u16().ok()?,
        }),
        2 => TrackConfig::Opus(OpusConfig { channels: body.try_get_u8().ok()?, pre_skip: body.try_get_u16().ok()? }),
        3 => {
            let record = get_set(body)?;
            let ((width, height), sar, frame_rate) = get_picture(body)?;
            TrackConfig::H265(H265Config { record, width, height, sar, frame_rate })
        }
        4 => {
            let record = get_set(body)?;
            let ((width, height), sar, frame_rate) = get_picture(body)?;
            TrackConfig::Av1(Av1Config { record, width, height, sar, frame_rate })
        }
        _ => return None,
    })
}

/// Size, sample aspect ratio and frame rate.
type PictureShape = ((u32, u32), (u32, u32), Option<(u32, u32)>);

fn put_picture(size: (u32, u32), sar: (u32, u32), frame_rate: Option<(u32, u32)>, out: &mut BytesMut) {
    // No rate has zero seconds: (0, 0) says that there is none.
    for (a, b) in [size, sar, frame_rate.unwrap_or((0, 0))] {
        out.put_u32(a);
        out.put_u32(b);
    }
}

fn get_picture(body: &mut Bytes) -> Option<PictureShape> {
    let mut pair = || Some((body.try_get_u32().ok()?, body.try_get_u32().ok()?));
    Some((
        pair()?,
        pair()?,
        match pair()? {
            (_, 0) => None,
            rate => Some(rate),
        },
    ))
}

fn put_set(set: &[u8], out: &mut BytesMut) -> Result<(), ProtocolError> {
    match u16::try_from(set.len()) {
        Ok(length) if set.len() <= MAX_SET => {
            out.put_u16(length);
            out.extend_from_slice(set);
            Ok(())
        }
        _ => Err(ProtocolError::TooLong(set.len())),
    }
}

fn get_set(body: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(body.try_get_u16().ok()?);
    (length <= MAX_SET && length <= body.len()).then(|| body.split_to(length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn config() -> impl Strategy<Value = TrackConfig> {
        prop_oneof![
            (
                bytes(80),
                proptest::collection::vec(bytes(20), 0..4),
                any::<[u32; 4]>(),
                any::<u8>(),
                any::<Option<u32>>()
            )
                .prop_map(|(sps, pps, n, reorder_depth, rate)| TrackConfig::H264(H264Config {
                    sps,
                    pps,
                    width: n[0],
                    height: n[1],
                    sar: (n[2], n[3]),
                    reorder_depth,
                    frame_rate: rate.map(|r| (r, 1001)),
                })),
            (bytes(200), any::<[u32; 4]>(), any::<Option<u32>>(), any::<bool>()).prop_map(|(record, n, rate, av1)| {
                let ((width, height), sar, frame_rate) = ((n[0], n[1]), (n[2], n[3]), rate.map(|r| (r, 1001)));
                if av1 {
                    TrackConfig::Av1(Av1Config { record, width, height, sar, frame_rate })
                } else {
                    TrackConfig::H265(H265Config { record, width, height, sar, frame_rate })
                }
            }),
            (bytes(10), any::<u32>(), any::<(u8, u8, u16)>()).prop_map(|(asc, sample_rate, (channels, o, f))| {
                TrackConfig::Aac(AacConfig { asc, sample_rate, channels, object_type: o, frame_samples: f })
            }),
            any::<(u8, u16)>().prop_map(|(channels, pre_skip)| TrackConfig::Opus(OpusConfig { channels, pre_skip })),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (any::<Option<i64>>(), any::<Vec<Option<i64>>>()).prop_map(|(audio_origin, resume)| Message::Start(
                Start { spec: LadderSpec { video: vec![], audio: None }, audio_origin, resume, device: None }
            )),
            (any::<u8>(), config()).prop_map(|(track, c)| Message::Config { track, config: Arc::new(c) }),
            (any::<(u8, bool, bool, i64, i64, Option<i64>)>(), bytes(500)).prop_map(
                |((track, key, force_key, pts, dts, duration), data)| Message::Unit(Unit {
                    track,
                    key,
                    force_key,
                    pts: MediaTime(pts),
                    dts: MediaTime(dts),
                    duration: duration.map(MediaDuration),
                    data,
                })
            ),
            Just(Message::Stop),
            proptest::collection::vec(any::<(u8, i64)>(), 0..9).prop_map(|tracks| Message::Suspend(
                tracks.into_iter().map(|(t, from)| (t, MediaTime(from))).collect()
            )),
            Just(Message::Ready),
            "[ -~]{0,200}".prop_map(Message::Fault),
            "[ -~]{0,200}".prop_map(Message::Refused),
            any::<(u64, u64, u64)>().prop_map(|(consumed, decoded, errors)| Message::Stats(Stats {
                consumed,
                decoded,
                errors
            })),
        ]
    }

    #[test]
    fn a_start_that_names_no_device_codec_or_tune_is_understood() {
        let json = r#"{"spec":{"video":[{"id":"v360","width":640,"height":360,"frame_rate":null,"bitrate":1,
            "preset":"veryfast"}],"audio":null},"audio_origin":null,"resume":[null]}"#;
        let mut wire = BytesMut::new();
        wire.put_u32(u32::try_from(json.len() + 1).unwrap());
        wire.put_u8(kind::START);
        wire.put_slice(json.as_bytes());
        let Some(Message::Start(start)) = decode(&mut wire).unwrap() else { panic!("no start") };
        let rung = &start.spec.video[0];
        let usual = (crate::backend::Codec::H264, crate::backend::Tune::UltraLowLatency);
        assert_eq!((start.device, (rung.codec, rung.tune)), (None, usual));
    }

    proptest! {
        #[test]
        fn any_messages_come_back_however_the_bytes_are_cut(
            messages in proptest::collection::vec(message(), 1..6), cut in 1usize..40,
        ) {
            let mut wire = BytesMut::new();
            for m in &messages {
                encode(m, &mut wire).unwrap();
            }
            let mut input = BytesMut::new();
            let mut got = Vec::new();
            for chunk in wire.chunks(cut) {
                input.extend_from_slice(chunk);
                while let Some(m) = decode(&mut input).unwrap() {
                    got.push(m);
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn garbage_never_panics_and_never_asks_for_much(garbage in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut input = BytesMut::from(&garbage[..]);
            while let Ok(Some(_)) = decode(&mut input) {}
            prop_assert!(input.capacity() <= MAX_MESSAGE + 1024);
        }

        #[test]
        fn a_damaged_message_is_an_error_or_another_message(m in message(), at: prop::sample::Index, bit in 0u8..8) {
            let mut wire = BytesMut::new();
            encode(&m, &mut wire).unwrap();
            let at = at.index(wire.len());
            wire[at] ^= 1 << bit;
            let _ = decode(&mut wire);
        }
    }

    #[test]
    fn bounds_hold_both_ways() {
        let mut out = BytesMut::new();
        let unit = Unit {
            track: 0,
            key: false,
            force_key: false,
            pts: MediaTime::ZERO,
            dts: MediaTime::ZERO,
            duration: None,
            data: Bytes::from(vec![0; MAX_UNIT + 1]),
        };
        assert_eq!(encode(&Message::Unit(unit), &mut out), Err(ProtocolError::TooLong(MAX_UNIT + 1)));
        assert!(out.is_empty());
        let mut input = BytesMut::from(&[0x7f, 0xff, 0xff, 0xff, 3][..]);
        assert_eq!(decode(&mut input), Err(ProtocolError::TooLong(0x7fff_ffff)));
        assert_eq!(
            encode(&Message::Suspend(vec![(0, MediaTime::ZERO); 257]), &mut out),
            Err(ProtocolError::TooLong(257))
        );
        assert!(out.is_empty());
        let mut cut_off = BytesMut::from(&[0, 0, 0, 2, kind::SUSPEND, 1][..]);
        assert_eq!(decode(&mut cut_off), Err(ProtocolError::Malformed(kind::SUSPEND)));
        encode(&Message::Fault("ä".repeat(2000)), &mut out).unwrap();
        assert!(matches!(decode(&mut out), Ok(Some(Message::Fault(t))) if t.len() <= MAX_TEXT));
    }
}
