//! H.265 as bytes: the hvcC record and what of an access unit goes into a rendition. Only what the engine needs at its
//! borders; length-prefixed NAL units are those of [`crate::avc`].

use bytes::{BufMut, Bytes, BytesMut};
use media::H265Config;

use crate::avc;

/// NAL unit types (ITU-T H.265, table 7-1).
const IDR_W_RADL: u8 = 19;
const IDR_N_LP: u8 = 20;
const PARAMETER_SETS: std::ops::RangeInclusive<u8> = 32..=34;
/// Types below are slices.
const FIRST_OF_OTHERS: u8 = 32;

/// The bytes of an HEVCDecoderConfigurationRecord before the arrays' number (ISO/IEC 14496-15, 8.3.2.1).
const FIXED: usize = 22;

/// The configuration of a rendition whose size and rate we chose ourselves, out of an encoder's record. What it keeps is the
/// record with VPS, SPS and PPS alone: encoders add SEI messages with their names and settings. `None` if the record is cut
/// short, lacks a kind of set, or its lengths are not of four bytes.
pub fn config_from_hvcc(hvcc: &[u8], width: u32, height: u32, frame_rate: Option<(u32, u32)>) -> Option<H265Config> {
    let (fixed, rest) = hvcc.split_at_checked(FIXED)?;
    // The last two bits: lengthSizeMinusOne.
    if *fixed.first()? != 1 || fixed.last()? & 0b11 != 3 {
        return None;
    }
    let (&arrays, mut rest) = rest.split_first()?;
    let mut sets: [Vec<&[u8]>; 3] = Default::default();
    for _ in 0..arrays {
        let &[kind, high, low, ref after @ ..] = rest else { return None };
        rest = after;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (set, after) = avc::take_set(rest)?;
            rest = after;
            let kind = kind & 0x3f;
            if PARAMETER_SETS.contains(&kind)
                && let Some(known) = sets.get_mut(usize::from(kind - PARAMETER_SETS.start()))
            {
                known.push(set);
            }
        }
    }
    if sets.iter().any(Vec::is_empty) {
        return None;
    }
    let mut record = BytesMut::with_capacity(hvcc.len());
    record.extend_from_slice(fixed);
    record.put_u8(3);
    for (kind, sets) in PARAMETER_SETS.zip(&sets) {
        // array_completeness: there are no others in the samples.
        record.put_u8(0x80 | kind);
        record.put_u16(u16::try_from(sets.len()).ok()?);
        for set in sets {
            record.put_u16(u16::try_from(set.len()).ok()?);
            record.extend_from_slice(set);
        }
    }
    Some(H265Config { record: record.freeze(), width, height, sar: (1, 1), frame_rate })
}

/// The slices alone, as [`avc::slices_only`].
pub fn slices_only(access_unit: &[u8]) -> Bytes {
    avc::filtered(access_unit, |unit| kind(unit).is_some_and(|kind| kind < FIRST_OF_OTHERS))
}

/// True if the picture is an IDR: nothing behind it refers to what is ahead of it. A CRA picture may be followed by pictures
/// that do, so it begins no segment.
pub fn is_idr(access_unit: &[u8]) -> bool {
    avc::nal_units(access_unit).any(|unit| matches!(kind(unit), Some(IDR_W_RADL | IDR_N_LP)))
}

/// NAL unit header: a zero, six bits of type, layer and temporal id.
fn kind(unit: &[u8]) -> Option<u8> {
    unit.first().map(|b| b >> 1 & 0x3f)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SETS: [(u8, &[u8]); 3] = [(32, &[0x40, 1, 2]), (33, &[0x42, 1, 3]), (34, &[0x44, 1])];

    fn record(sets: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = vec![1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 63, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f];
        out.push(sets.len() as u8);
        for (kind, set) in sets {
            out.extend([*kind, 0, 1, 0, set.len() as u8]);
            out.extend(*set);
        }
        out
    }

    #[test]
    fn parameter_sets_alone_stay_in_the_record_and_are_complete() {
        let sei: (u8, &[u8]) = (39, &[0x4e, 1, 5]);
        let mixed = record(&[sei, SETS[2], SETS[0], SETS[1]]);
        let config = config_from_hvcc(&mixed, 640, 360, Some((30, 1))).unwrap();
        let complete = SETS.map(|(kind, set)| (0x80 | kind, set));
        assert_eq!(config.record, record(&complete));
        assert_eq!(media::TrackConfig::H265(config).rfc6381(), "hvc1.1.6.L63.90");
        for cut in 0..mixed.len() {
            assert!(config_from_hvcc(&mixed[..cut], 640, 360, None).is_none(), "{cut}");
        }
        assert!(config_from_hvcc(&record(&SETS[..2]), 640, 360, None).is_none(), "no PPS");
    }

    #[test]
    fn only_slices_stay_and_only_an_idr_is_a_key_picture() {
        let unit = |kind: u8| vec![0, 0, 0, 3, kind << 1, 1, 7];
        // Delimiter, SPS, SEI, slice, SEI behind it.
        let whole = [unit(35), unit(33), unit(39), unit(20), unit(40)].concat();
        assert_eq!(&slices_only(&whole)[..], unit(20));
        for (kind, key) in [(0, false), (1, false), (16, false), (19, true), (20, true), (21, false)] {
            assert_eq!(is_idr(&unit(kind)), key, "{kind}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = config_from_hvcc(&bytes, 16, 16, None);
            let _ = (slices_only(&bytes), is_idr(&bytes));
        }

        #[test]
        fn damaged_records_never_panic(at in 0usize..60, bits: u8) {
            let mut bytes = record(&SETS);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
            let _ = config_from_hvcc(&bytes, 16, 16, None);
        }
    }
}
