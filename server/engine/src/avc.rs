//! H.264 as bytes: length-prefixed NAL units, the avcC record, Annex B. Only what the engine needs at its borders.

use bytes::{BufMut, Bytes, BytesMut};
use media::H264Config;

/// The parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 5.3.3.1.2) as the configuration of a
/// rendition whose size and rate we chose ourselves. `None` if the record is cut short or has no sets.
pub fn config_from_avcc(avcc: &[u8], width: u32, height: u32, frame_rate: Option<(u32, u32)>) -> Option<H264Config> {
    // version, profile, compatibility, level, 0b111111 + lengthSizeMinusOne
    if *avcc.first()? != 1 || avcc.get(4)? & 0b11 != 3 {
        return None;
    }
    let mut rest = avcc.get(5..)?;
    let sps_count = rest.first()? & 0x1f;
    rest = rest.get(1..)?;
    let mut sps = None;
    for _ in 0..sps_count {
        let (set, after) = take_set(rest)?;
        sps.get_or_insert_with(|| Bytes::copy_from_slice(set));
        rest = after;
    }
    let pps_count = *rest.first()?;
    rest = rest.get(1..)?;
    let mut pps = Vec::new();
    for _ in 0..pps_count {
        let (set, after) = take_set(rest)?;
        pps.push(Bytes::copy_from_slice(set));
        rest = after;
    }
    if pps.is_empty() {
        return None;
    }
    Some(H264Config { sps: sps?, pps, width, height, sar: (1, 1), reorder_depth: 0, frame_rate })
}

/// NAL units of an access unit with 4-byte lengths; ends at the first length that does not fit.
pub fn nal_units(access_unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = access_unit;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let (unit, after) = after.split_at_checked(length)?;
        rest = after;
        Some(unit)
    })
}

/// The slices alone: parameter sets stand in the configuration, delimiters and filler carry nothing, and the only SEI
/// that our encoders write is their name and settings.
pub fn slices_only(access_unit: &[u8]) -> Bytes {
    filtered(access_unit, |unit| matches!(unit.first().map(|b| b & 0x1f), Some(1..=5)))
}

/// The NAL units that are kept.
pub(crate) fn filtered(access_unit: &[u8], keep: impl Fn(&[u8]) -> bool) -> Bytes {
    let mut out = BytesMut::with_capacity(access_unit.len());
    for unit in nal_units(access_unit).filter(|unit| keep(unit)) {
        put_u32_length(&mut out, unit.len());
        out.extend_from_slice(unit);
    }
    out.freeze()
}

/// True if an IDR slice is among the NAL units.
pub fn has_idr(access_unit: &[u8]) -> bool {
    nal_units(access_unit).any(|u| u.first().is_some_and(|b| b & 0x1f == 5))
}

/// As Annex B for a decoder, the parameter sets ahead where `config` is given. A copy: the decoder pads and keeps its
/// own input anyway.
pub fn to_annex_b(access_unit: &[u8], config: Option<&H264Config>) -> Vec<u8> {
    const START: [u8; 4] = [0, 0, 0, 1];
    let mut out = Vec::with_capacity(access_unit.len() + 256);
    if let Some(config) = config {
        for set in std::iter::once(&config.sps).chain(&config.pps) {
            out.extend_from_slice(&START);
            out.extend_from_slice(set);
        }
    }
    for unit in nal_units(access_unit).filter(|u| !u.is_empty()) {
        out.extend_from_slice(&START);
        out.extend_from_slice(unit);
    }
    out
}

/// A parameter set behind its length of two bytes, and what follows.
pub(crate) fn take_set(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(length.try_into().ok()?)))
}

fn put_u32_length(out: &mut BytesMut, length: usize) {
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const AVCC: &[u8] = &[1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 2, 0x68, 0xee];

    #[test]
    fn parameter_sets_come_out_of_the_record() {
        let config = config_from_avcc(AVCC, 640, 360, Some((30, 1))).unwrap();
        assert_eq!(&config.sps[..], [0x67, 0x64, 0, 0x1f]);
        assert_eq!(config.pps, [Bytes::from_static(&[0x68, 0xee])]);
        for cut in 0..AVCC.len() {
            assert!(config_from_avcc(&AVCC[..cut], 640, 360, None).is_none(), "{cut}");
        }
    }

    #[test]
    fn only_slices_stay() {
        let unit = [0, 0, 0, 2, 9, 0x10, 0, 0, 0, 2, 0x67, 1, 0, 0, 0, 1, 6, 0, 0, 0, 3, 0x65, 1, 2];
        assert_eq!(&slices_only(&unit)[..], [0, 0, 0, 3, 0x65, 1, 2]);
        assert!(has_idr(&unit));
        assert_eq!(to_annex_b(&[0, 0, 0, 2, 0x41, 7], None), [0, 0, 0, 1, 0x41, 7]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = config_from_avcc(&bytes, 16, 16, None);
            let _ = (slices_only(&bytes), has_idr(&bytes), to_annex_b(&bytes, None));
        }
    }
}
