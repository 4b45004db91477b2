//! AV1 as bytes: OBUs, the av1C record out of a sequence header, and what of a temporal unit goes into a rendition. Only what
//! the engine needs at its borders. Clauses are those of the AV1 bitstream specification; "binding" is AV1 in ISOBMFF.

use bytes::{BufMut, Bytes, BytesMut};
use media::Av1Config;

/// obu_type (6.2.2).
mod kind {
    pub(super) const SEQUENCE_HEADER: u8 = 1;
    pub(super) const FRAME_HEADER: u8 = 3;
    pub(super) const TILE_GROUP: u8 = 4;
    pub(super) const METADATA: u8 = 5;
    pub(super) const FRAME: u8 = 6;
    pub(super) const REDUNDANT_FRAME_HEADER: u8 = 7;
}

struct Obu<'a> {
    kind: u8,
    /// Its header, which says that a size follows.
    header: &'a [u8],
    payload: &'a [u8],
}

impl Obu<'_> {
    /// With its size, whether it came with one or not.
    fn write(&self, out: &mut BytesMut) {
        const HAS_SIZE: u8 = 0b10;
        for (n, byte) in self.header.iter().enumerate() {
            out.put_u8(if n == 0 { byte | HAS_SIZE } else { *byte });
        }
        let mut size = self.payload.len();
        // leb128 (4.10.5)
        while size > 0x7f {
            out.put_u8((size & 0x7f) as u8 | 0x80);
            size >>= 7;
        }
        out.put_u8((size & 0x7f) as u8);
        out.extend_from_slice(self.payload);
    }
}

/// OBUs of a temporal unit (5.3); ends at the first that does not fit.
fn obus(temporal_unit: &[u8]) -> impl Iterator<Item = Obu<'_>> {
    let mut rest = temporal_unit;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let extended = first & 0b100 != 0;
        let (header, after) = rest.split_at_checked(if extended { 2 } else { 1 })?;
        let (payload, after) = if first & 0b10 != 0 {
            let (size, after) = leb128(after)?;
            after.split_at_checked(size)?
        } else {
            (after, &[][..])
        };
        rest = after;
        Some(Obu { kind: first >> 3 & 0xf, header, payload })
    })
}

fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (n, byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(n + 1..)?));
        }
    }
    None
}

/// The AV1CodecConfigurationRecord (binding, 2.3) for what begins with this temporal unit; `None` where it has no sequence
/// header, or one that cannot be read.
pub fn record(temporal_unit: &[u8]) -> Option<Vec<u8>> {
    let header = obus(temporal_unit).find(|obu| obu.kind == kind::SEQUENCE_HEADER)?;
    let sequence = Sequence::read(header.payload)?;
    let flag = |set: bool, bit: u8| if set { 1 << bit } else { 0 };
    let colour = flag(sequence.tier, 7)
        | flag(sequence.high_bitdepth, 6)
        | flag(sequence.twelve_bit, 5)
        | flag(sequence.monochrome, 4)
        | flag(sequence.subsampling_x, 3)
        | flag(sequence.subsampling_y, 2)
        | sequence.sample_position;
    // Marker and version; no initial presentation delay.
    let mut out = BytesMut::from(&[0x81, sequence.profile << 5 | sequence.level, colour, 0][..]);
    header.write(&mut out);
    Some(out.to_vec())
}

/// The configuration of a rendition whose size and rate we chose ourselves.
pub fn config(record: &[u8], width: u32, height: u32, frame_rate: Option<(u32, u32)>) -> Av1Config {
    Av1Config { record: Bytes::copy_from_slice(record), width, height, sar: (1, 1), frame_rate }
}

/// A temporal unit as a sample: without delimiter, padding and tile lists, each OBU with its size (binding, 2.4).
pub fn sample(temporal_unit: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(temporal_unit.len() + 8);
    for obu in obus(temporal_unit) {
        if matches!(
            obu.kind,
            kind::SEQUENCE_HEADER
                | kind::FRAME_HEADER
                | kind::TILE_GROUP
                | kind::METADATA
                | kind::FRAME
                | kind::REDUNDANT_FRAME_HEADER
        ) {
            obu.write(&mut out);
        }
    }
    out.freeze()
}

/// True if the temporal unit may be a sync sample: a sequence header, and then as its first frame a key frame that is shown
/// (binding, 2.5).
pub fn is_key(temporal_unit: &[u8]) -> bool {
    let mut sequence = false;
    for obu in obus(temporal_unit) {
        match obu.kind {
            kind::SEQUENCE_HEADER => sequence = true,
            kind::FRAME_HEADER | kind::FRAME => {
                // show_existing_frame 0, frame_type KEY_FRAME (two zeros), show_frame 1 (5.9.2).
                return sequence && obu.payload.first().is_some_and(|b| b >> 4 == 1);
            }
            _ => {}
        }
    }
    false
}

/// What the record says of a sequence header.
#[derive(Debug, PartialEq)]
struct Sequence {
    profile: u8,
    level: u8,
    tier: bool,
    high_bitdepth: bool,
    twelve_bit: bool,
    monochrome: bool,
    subsampling_x: bool,
    subsampling_y: bool,
    sample_position: u8,
}

impl Sequence {
    /// sequence_header_obu (5.5).
    fn read(payload: &[u8]) -> Option<Self> {
        let mut bits = Bits { bytes: payload, at: 0 };
        let profile = bits.take(3)? as u8;
        let _still_picture = bits.flag()?;
        let reduced = bits.flag()?;
        let (mut level, mut tier) = (0, false);
        if reduced {
            level = bits.take(5)? as u8;
        } else {
            let mut delay_length = None;
            if bits.flag()? {
                // timing_info
                bits.skip(64)?;
                if bits.flag()? {
                    bits.uvlc()?;
                }
                if bits.flag()? {
                    // decoder_model_info
                    delay_length = Some(bits.take(5)? + 1);
                    bits.skip(32 + 5 + 5)?;
                }
            }
            let display_delay = bits.flag()?;
            for point in 0..=bits.take(5)? {
                bits.skip(12)?;
                let own_level = bits.take(5)? as u8;
                let own_tier = own_level > 7 && bits.flag()?;
                if point == 0 {
                    (level, tier) = (own_level, own_tier);
                }
                if let Some(length) = delay_length
                    && bits.flag()?
                {
                    bits.skip(2 * length + 1)?;
                }
                if display_delay && bits.flag()? {
                    bits.skip(4)?;
                }
            }
        }
        let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
        bits.skip(width_bits + height_bits)?;
        if !reduced && bits.flag()? {
            // Lengths of frame ids.
            bits.skip(4 + 3)?;
        }
        // 128x128 superblocks, filter intra, intra edge filter.
        bits.skip(3)?;
        if !reduced {
            // Inter-intra and masked compounds, warped motion, dual filter.
            bits.skip(4)?;
            let order_hint = bits.flag()?;
            if order_hint {
                bits.skip(2)?;
            }
            // Chosen for each frame, or by the next bit.
            let screen_content = bits.flag()? || bits.flag()?;
            if screen_content && !bits.flag()? {
                bits.skip(1)?;
            }
            if order_hint {
                bits.skip(3)?;
            }
        }
        // Super-resolution, CDEF, restoration.
        bits.skip(3)?;
        Self::colour(&mut bits, profile, level, tier)
    }

    /// color_config (5.5.2).
    fn colour(bits: &mut Bits<'_>, profile: u8, level: u8, tier: bool) -> Option<Self> {
        const BT709: u32 = 1;
        const SRGB: u32 = 13;
        const IDENTITY: u32 = 0;
        let high_bitdepth = bits.flag()?;
        let twelve_bit = profile == 2 && high_bitdepth && bits.flag()?;
        let monochrome = profile != 1 && bits.flag()?;
        let described = bits.flag()?;
        let colours = if described { Some((bits.take(8)?, bits.take(8)?, bits.take(8)?)) } else { None };
        let (subsampling_x, subsampling_y) = if monochrome {
            bits.skip(1)?;
            (true, true)
        } else if colours == Some((BT709, SRGB, IDENTITY)) {
            (false, false)
        } else {
            bits.skip(1)?;
            match profile {
                0 => (true, true),
                1 => (false, false),
                _ if twelve_bit => {
                    let x = bits.flag()?;
                    (x, x && bits.flag()?)
                }
                _ => (true, false),
            }
        };
        let positioned = subsampling_x && subsampling_y && !monochrome;
        let sample_position = if positioned { bits.take(2)? as u8 } else { 0 };
        Some(Self {
            profile,
            level,
            tier,
            high_bitdepth,
            twelve_bit,
            monochrome,
            subsampling_x,
            subsampling_y,
            sample_position,
        })
    }
}

/// Bits from the most significant on (4.10.2).
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    fn take(&mut self, bits: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..bits {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(bits).ok()?)?;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// A number of variable length (4.10.3), of which only the end matters here.
    fn uvlc(&mut self) -> Option<()> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros < 32 { self.skip(zeros) } else { Some(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// A sequence header of libaom: 640x360, Main, level 2.1, eight bits, 4:2:0.
    const SEQUENCE: &[u8] = &[0x0a, 0x0c, 0, 0, 0, 0x0c, 0xc4, 0xff, 0x67, 0xe0, 0x6d, 0x7c, 0x80, 0x20];
    const DELIMITER: &[u8] = &[0x12, 0];
    const KEY: &[u8] = &[0x32, 2, 0x10, 7];
    const INTER: &[u8] = &[0x32, 2, 0x30, 7];

    #[test]
    fn the_record_comes_from_the_sequence_header() {
        let unit = [DELIMITER, SEQUENCE, KEY].concat();
        let made = record(&unit).unwrap();
        assert_eq!(made, [&[0x81, 0x01, 0x0c, 0][..], SEQUENCE].concat());
        let track = media::TrackConfig::Av1(config(&made, 640, 360, None));
        assert_eq!(track.rfc6381(), "av01.0.01M.08");
        assert_eq!(record(&[DELIMITER, INTER].concat()), None);
        for cut in 0..SEQUENCE.len() {
            assert_eq!(record(&SEQUENCE[..cut]), None, "{cut}");
        }
    }

    /// Written bit by bit after 5.5: timing, a decoder model, two operating points of a high tier, ten bits, colours.
    #[test]
    fn a_sequence_header_with_all_that_it_may_have_is_read() {
        let mut text = String::new();
        let mut put = |value: u64, bits: usize| text.push_str(&format!("{value:0bits$b}"));
        for (value, bits) in [
            // Main, no still picture; timing with equal intervals of 3 ticks (uvlc 010); a decoder model with delays of 10 bits.
            (0, 3),
            (0, 1),
            (0, 1),
            (1, 1),
            (1, 32),
            (60, 32),
            (1, 1),
            (0b010, 3),
            (1, 1),
            (9, 5),
            (1, 32),
            (9, 5),
            (9, 5),
            // Initial display delays; two operating points: level 13, high tier, with a model and a delay each.
            (1, 1),
            (1, 5),
            (0, 12),
            (13, 5),
            (1, 1),
            (1, 1),
            (5, 10),
            (5, 10),
            (0, 1),
            (1, 1),
            (9, 4),
            (0, 12),
            (8, 5),
            (0, 1),
            (0, 1),
            (0, 1),
            // 1920x1080 in eleven bits; frame ids; tools; order hints; screen content and integer motion chosen by bits.
            (10, 4),
            (10, 4),
            (1919, 11),
            (1079, 11),
            (1, 1),
            (0, 7),
            (0, 3),
            (0, 4),
            (1, 1),
            (0, 2),
            (0, 1),
            (1, 1),
            (0, 1),
            (1, 1),
            (6, 3),
            (0, 3),
            // Ten bits, colour, BT.2020 PQ, limited range, colocated samples.
            (1, 1),
            (0, 1),
            (1, 1),
            (9, 8),
            (16, 8),
            (9, 8),
            (0, 1),
            (2, 2),
            (0, 2),
        ] {
            put(value, bits);
        }
        let bits: Vec<char> = text.chars().collect();
        let bytes: Vec<u8> = bits
            .chunks(8)
            .map(|c| c.iter().chain(std::iter::repeat(&'0')).take(8).fold(0, |b, bit| b << 1 | u8::from(*bit == '1')))
            .collect();
        let wanted = Sequence {
            profile: 0,
            level: 13,
            tier: true,
            high_bitdepth: true,
            twelve_bit: false,
            monochrome: false,
            subsampling_x: true,
            subsampling_y: true,
            sample_position: 2,
        };
        assert_eq!(Sequence::read(&bytes), Some(wanted));
    }

    #[test]
    fn a_sample_has_no_delimiter_and_no_padding_and_sizes_everywhere() {
        let padding = [0x7a, 1, 0x80];
        let unsized_frame = [0x30, 0x30, 9, 9];
        let unit = [DELIMITER, SEQUENCE, &padding, &unsized_frame].concat();
        assert_eq!(&sample(&unit)[..], [SEQUENCE, &[0x32, 3, 0x30, 9, 9]].concat());
        // A size of two digits.
        let large = Obu { kind: kind::FRAME, header: &[0x30], payload: &[1; 300] };
        let mut out = BytesMut::new();
        large.write(&mut out);
        assert_eq!(out[..3], [0x32, 0xac, 2]);
        assert_eq!(sample(&out), out);
    }

    #[test]
    fn only_a_shown_key_frame_behind_a_sequence_header_is_a_key_frame() {
        for (unit, key) in [
            ([DELIMITER, SEQUENCE, KEY].concat(), true),
            ([SEQUENCE, KEY, INTER].concat(), true),
            ([DELIMITER, KEY].concat(), false),
            ([SEQUENCE, INTER].concat(), false),
            // A key frame that a later frame shows.
            ([SEQUENCE, &[0x32, 2, 0x00, 7]].concat(), false),
            ([SEQUENCE, &[0x1a, 1, 0x90]].concat(), false),
        ] {
            assert_eq!(is_key(&unit), key, "{unit:02x?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_a_sample_of_a_sample_is_itself(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (record(&bytes), is_key(&bytes));
            let once = sample(&bytes);
            prop_assert_eq!(sample(&once), once);
        }

        #[test]
        fn damaged_sequence_headers_never_panic(at in 2usize..14, bits: u8) {
            let mut bytes = SEQUENCE.to_vec();
            bytes[at] ^= bits;
            let _ = record(&bytes);
        }
    }
}
