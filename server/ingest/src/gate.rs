//! The bitstream gate: only well-formed NAL units of allowed types and sizes go on towards any C code.
//!
//! One RTP packet with NAL type 27 ends a stock GStreamer 1.22 pipeline; SVC, MVC and data partitioning have a history
//! of memory faults in parsers. None of them is needed, so none passes.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::h264::{ParameterSets, Refused, Slice, nal};

/// A NAL unit larger than this is refused while it is being put together.
pub const MAX_NAL: usize = 4 << 20;
/// An access unit larger than this is refused while it is being put together.
pub const MAX_ACCESS_UNIT: usize = 8 << 20;
/// FFmpeg counts slices of a picture in 16 bits; encoders in use make up to 64.
pub const MAX_SLICES: usize = 256;
/// Supplemental information larger than this is a bomb or a file transfer.
pub const MAX_SEI: usize = 64 << 10;

/// What becomes of a NAL unit by its header byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Slice,
    Sei,
    Sps,
    Pps,
    /// Delimiters, ends of sequence and stream, filler: allowed and of no use.
    Idle,
    Refused,
}

pub fn classify(header: u8) -> Class {
    // forbidden_zero_bit (H.264 §7.4.1)
    if header & 0x80 != 0 {
        return Class::Refused;
    }
    match header & 0x1f {
        nal::SLICE => Class::Slice,
        // nal_ref_idc shall not be 0 for an IDR picture.
        nal::IDR if header & 0x60 != 0 => Class::Slice,
        nal::SEI => Class::Sei,
        nal::SPS => Class::Sps,
        nal::PPS => Class::Pps,
        nal::DELIMITER..=nal::FILLER => Class::Idle,
        _ => Class::Refused,
    }
}

/// Takes off trailing_zero_8bits, which some senders leave on.
pub fn trimmed(nal: &[u8]) -> &[u8] {
    let end = nal.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    nal.get(..end).unwrap_or(nal)
}

/// Where the first start code (00 00 01) stands. A well-formed NAL unit has none inside (§7.4.1): emulation prevention
/// breaks them up.
pub fn start_code(data: &[u8]) -> Option<usize> {
    static FINDER: LazyLock<Finder> = LazyLock::new(|| Finder::new(&[0, 0, 1]));
    FINDER.find(data)
}

/// A slice as far as it must be right before it goes on.
pub fn slice(nal: &[u8], sets: &ParameterSets) -> Result<Slice, Refused> {
    Slice::parse(nal, sets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_listed_types_pass() {
        let pass: Vec<u8> = (0..=255).filter(|h| classify(*h) != Class::Refused).map(|h| h & 0x1f).collect();
        let mut types = pass.clone();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types, [1, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(classify(0x65), Class::Slice);
        assert_eq!(classify(0x05), Class::Refused, "an IDR picture that nobody may refer to");
        assert_eq!(classify(0xe5), Class::Refused, "forbidden bit");
        assert_eq!(classify(0x7b), Class::Refused, "type 27");
    }

    proptest! {
        #[test]
        fn start_codes_are_found_where_they_are(d in prop::collection::vec(0u8..3, 0..30)) {
            prop_assert_eq!(start_code(&d), d.windows(3).position(|w| w == [0, 0, 1]));
        }
    }

    #[test]
    fn trailing_zeros_go() {
        assert_eq!(trimmed(&[1, 0, 2, 0, 0]), [1, 0, 2]);
        assert_eq!(trimmed(&[0, 0]), [0u8; 0]);
    }
}
