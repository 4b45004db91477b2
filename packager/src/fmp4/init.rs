//! Init segments: ftyp and moov of one track, without samples (ISO 14496-12 clause 8; CMAF 7.2).

use bytes::Bytes;
use media::{AacConfig, Av1Config, H264Config, H265Config, OpusConfig, TrackConfig, TrackKind};
use mp4_atom as mp4;
use mp4_atom::{Atom, Encode};

/// The language of every track: undetermined (ISO 639-2).
const LANGUAGE: &str = "und";

/// The init segment of a track, or None where its parameters cannot stand in one (an SPS of under four bytes, half a record).
pub(crate) fn init_segment(config: &TrackConfig) -> Option<Bytes> {
    let ftyp = mp4::Ftyp {
        major_brand: b"iso6".into(),
        minor_version: 0,
        compatible_brands: vec![b"iso6".into(), b"cmfc".into(), b"mp41".into()],
    };
    let moov = mp4::Moov {
        mvhd: mp4::Mvhd {
            timescale: config.timescale(),
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: 2,
            ..Default::default()
        },
        // Fragments bring their own values, so the defaults only have to be there (8.8.3).
        mvex: Some(mp4::Mvex {
            mehd: None,
            trex: vec![mp4::Trex { track_id: 1, default_sample_description_index: 1, ..Default::default() }],
        }),
        trak: vec![track(config)?],
        ..Default::default()
    };
    let mut buffer = Vec::with_capacity(1024);
    ftyp.encode(&mut buffer).ok()?;
    moov.encode(&mut buffer).ok()?;
    Some(Bytes::from(buffer))
}

fn track(config: &TrackConfig) -> Option<mp4::Trak> {
    let is_video = config.kind() == TrackKind::Video;
    let (handler, name) = if is_video { (b"vide", "video") } else { (b"soun", "audio") };
    // The size to show: pixels times the sample aspect ratio (B15).
    let side = |pixels: u64| u16::try_from(pixels).unwrap_or(u16::MAX);
    let (width, height) = config.display_size().map_or((0, 0), |(w, h)| (side(w), side(h)));
    let sample_entry = match config {
        TrackConfig::H264(c) => avc1(c)?,
        TrackConfig::H265(c) => hvc1(c)?,
        TrackConfig::Av1(c) => av01(c)?,
        TrackConfig::Aac(c) => mp4a(c),
        TrackConfig::Opus(c) => opus(c),
    };
    Some(mp4::Trak {
        tkhd: mp4::Tkhd {
            track_id: 1,
            enabled: true,
            in_movie: true,
            volume: if is_video { 0 } else { 1 }.into(),
            width: width.into(),
            height: height.into(),
            ..Default::default()
        },
        mdia: mp4::Mdia {
            mdhd: mp4::Mdhd { timescale: config.timescale(), language: LANGUAGE.to_owned(), ..Default::default() },
            hdlr: mp4::Hdlr { handler: handler.into(), name: name.to_owned() },
            minf: mp4::Minf {
                vmhd: is_video.then(mp4::Vmhd::default),
                smhd: (!is_video).then(mp4::Smhd::default),
                dinf: mp4::Dinf {
                    // An empty URL: the media is in the same file (8.7.2).
                    dref: mp4::Dref { entries: vec![mp4::DrefEntry::Url(mp4::Url::default())] },
                },
                stbl: mp4::Stbl {
                    stsd: mp4::Stsd { codecs: vec![sample_entry] },
                    stco: Some(mp4::Stco::default()),
                    ..Default::default()
                },
                ..Default::default()
            },
        },
        ..Default::default()
    })
}

/// `avc1`: parameter sets stand here and only here (ISO 14496-15 clause 5.4).
fn avc1(config: &H264Config) -> Option<mp4::Codec> {
    let &[_, profile, constraints, level, ..] = config.sps.as_ref() else { return None };
    let visual = visual_entry(config.width, config.height)?;
    let avcc = mp4::Avcc {
        configuration_version: 1,
        avc_profile_indication: profile,
        profile_compatibility: constraints,
        avc_level_indication: level,
        length_size: 4,
        sequence_parameter_sets: vec![config.sps.to_vec()],
        picture_parameter_sets: config.pps.iter().map(|pps| pps.to_vec()).collect(),
        ext: high_profile_trailer(&config.sps),
    };
    Some(mp4::Avc1 { visual, avcc, pasp: pixel_shape(config.sar), ..Default::default() }.into())
}

/// `hvc1`: parameter sets stand here and only here, and each array says so (ISO/IEC 14496-15, 8.4.1.1).
fn hvc1(config: &H265Config) -> Option<mp4::Codec> {
    let visual = visual_entry(config.width, config.height)?;
    let mut hvcc = mp4::Hvcc::decode_body(&mut config.record.as_ref()).ok()?;
    for array in &mut hvcc.arrays {
        array.completeness = true;
    }
    Some(mp4::Hvc1 { visual, hvcc, pasp: pixel_shape(config.sar), ..Default::default() }.into())
}

/// `av01` with the record as the encoder wrote it (AV1 in ISOBMFF, 2.2 and 2.3).
fn av01(config: &Av1Config) -> Option<mp4::Codec> {
    let visual = visual_entry(config.width, config.height)?;
    let av1c = mp4::Av1c::decode_body(&mut config.record.as_ref()).ok()?;
    Some(mp4::Av01 { visual, av1c, pasp: pixel_shape(config.sar), ..Default::default() }.into())
}

fn visual_entry(width: u32, height: u32) -> Option<mp4::Visual> {
    Some(mp4::Visual {
        data_reference_index: 1,
        width: u16::try_from(width).ok()?,
        height: u16::try_from(height).ok()?,
        ..Default::default()
    })
}

/// `pasp`, where pixels are not square.
fn pixel_shape((h, v): (u32, u32)) -> Option<mp4::Pasp> {
    (h != v && h > 0 && v > 0).then_some(mp4::Pasp { h_spacing: h, v_spacing: v })
}

/// Profiles above Main repeat chroma format and bit depths behind the parameter sets (ISO 14496-15, 5.3.3.1.2).
fn high_profile_trailer(sps: &[u8]) -> Option<mp4::AvccExt> {
    if !matches!(sps.get(1)?, 100 | 110 | 122 | 144) {
        return None;
    }
    let mut bits = Bits { bytes: sps.get(4..)?, at: 0 };
    bits.exp_golomb()?;
    let chroma_format = bits.exp_golomb()?;
    if chroma_format == 3 {
        bits.bit()?;
    }
    let (luma, chroma) = (bits.exp_golomb()?, bits.exp_golomb()?);
    Some(mp4::AvccExt {
        chroma_format: u8::try_from(chroma_format).ok()?,
        bit_depth_luma: u8::try_from(luma).ok()?.checked_add(8)?,
        bit_depth_chroma: u8::try_from(chroma).ok()?.checked_add(8)?,
        sequence_parameter_sets_ext: Vec::new(),
    })
}

/// The first few fields of an SPS; they lie before any byte that could need emulation prevention.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 16 {
                return None;
            }
        }
        let mut value = 1;
        for _ in 0..zeros {
            value = value << 1 | self.bit()?;
        }
        Some(value - 1)
    }
}

fn audio_entry(channels: u8, sample_rate: u32) -> mp4::Audio {
    mp4::Audio {
        data_reference_index: 1,
        channel_count: channels.into(),
        sample_size: 16,
        // 16.16 fixed point: rates above 65,535 Hz stand in the codec's own configuration.
        sample_rate: u16::try_from(sample_rate).unwrap_or(0).into(),
    }
}

/// `mp4a` with the AudioSpecificConfig as it came (ISO 14496-14, 14496-3).
fn mp4a(config: &AacConfig) -> mp4::Codec {
    let dec_specific = mp4::esds::DecoderSpecific {
        profile: config.object_type,
        freq_index: 0,
        chan_conf: config.channels,
        raw: config.asc.to_vec(),
    };
    let dec_config = mp4::esds::DecoderConfig {
        // ISO 14496-3 audio, an audio stream.
        object_type_indication: 0x40,
        stream_type: 5,
        up_stream: 0,
        buffer_size_db: Default::default(),
        max_bitrate: 0,
        avg_bitrate: 0,
        dec_specific: Some(dec_specific),
    };
    // Zero in a file: the track's number stands for it (ISO 14496-14, 4.1.2).
    let es_desc = mp4::esds::EsDescriptor { es_id: 0, dec_config, ..Default::default() };
    mp4::Mp4a {
        audio: audio_entry(config.channels, config.sample_rate),
        esds: mp4::Esds { es_desc },
        btrt: None,
        taic: None,
    }
    .into()
}

/// `Opus` with `dOps` (Opus in ISOBMFF, section 4.3).
fn opus(config: &OpusConfig) -> mp4::Codec {
    mp4::Opus {
        audio: audio_entry(config.channels, 48_000),
        dops: mp4::Dops {
            output_channel_count: config.channels,
            pre_skip: config.pre_skip,
            input_sample_rate: 48_000,
            output_gain: 0,
            channel_mapping: None,
        },
        btrt: None,
    }
    .into()
}
