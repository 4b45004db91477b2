//! Fragments: one moof and one mdat a part (ISO 14496-12, 8.8; CMAF chunk).

use bytes::Bytes;
use mp4_atom as mp4;
use mp4_atom::Encode;

/// A sample with its place in time, in ticks of the track's timescale.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub duration: u32,
    /// PTS minus DTS.
    pub offset: i32,
    pub sync: bool,
    pub data: Bytes,
}

/// Depends on no other sample and is a random access point (8.8.3.1).
const SYNC: u32 = 0x0200_0000;
/// Depends on others and is no random access point.
const NON_SYNC: u32 = 0x0101_0000;

/// One fragment; None without samples, or where they exceed what a 32-bit box can hold.
///
/// The one copy of a rendition's media: samples are joined into the part's bytes, which all viewers share from here on.
pub(crate) fn fragment(sequence: u32, decode_time: u64, samples: &[Sample]) -> Option<Bytes> {
    let payload: usize = samples.iter().map(|s| s.data.len()).sum();
    let mdat_size = u32::try_from(payload.checked_add(8)?).ok()?;
    if samples.is_empty() {
        return None;
    }
    let composed = samples.iter().any(|s| s.offset != 0);
    let entries: Option<Vec<_>> = samples
        .iter()
        .map(|s| {
            Some(mp4::TrunEntry {
                duration: Some(s.duration),
                size: Some(u32::try_from(s.data.len()).ok()?),
                flags: Some(if s.sync { SYNC } else { NON_SYNC }),
                cts: composed.then_some(s.offset.into()),
            })
        })
        .collect();
    let mut moof = mp4::Moof {
        mfhd: mp4::Mfhd { sequence_number: sequence },
        traf: vec![mp4::Traf {
            tfhd: mp4::Tfhd { track_id: 1, default_base_is_moof: true, ..Default::default() },
            tfdt: Some(mp4::Tfdt { base_media_decode_time: decode_time }),
            trun: vec![mp4::Trun { data_offset: Some(0), samples: mp4::TrunSamples::Explicit(entries?) }],
            ..Default::default()
        }],
    };
    let mut buffer = Vec::with_capacity(128 + samples.len() * 16 + payload);
    moof.encode(&mut buffer).ok()?;
    // The offset counts from the moof's first byte to the mdat's payload; its own value does not change the size.
    let offset = i32::try_from(buffer.len() + 8).ok()?;
    if let Some(trun) = moof.traf.first_mut().and_then(|t| t.trun.first_mut()) {
        trun.data_offset = Some(offset);
    }
    buffer.clear();
    moof.encode(&mut buffer).ok()?;
    buffer.extend_from_slice(&mdat_size.to_be_bytes());
    buffer.extend_from_slice(b"mdat");
    for sample in samples {
        buffer.extend_from_slice(&sample.data);
    }
    Some(Bytes::from(buffer))
}
