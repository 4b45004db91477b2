//! What must be understood of an H.264 bitstream (ITU-T H.264): parameter sets and the head of a slice.

mod bits;
mod dts;
mod parameters;
mod slice;
mod sps;

pub use dts::{DecodeTimes, PictureInfo};
pub use parameters::ParameterSets;
pub use slice::{Slice, SliceType};
pub use sps::{PocType, Sps};

#[cfg(test)]
pub(crate) use {bits::write::BitWriter, sps::tests::write as write_sps};

/// nal_unit_type (table 7-1).
pub mod nal {
    pub const SLICE: u8 = 1;
    pub const IDR: u8 = 5;
    pub const SEI: u8 = 6;
    pub const SPS: u8 = 7;
    pub const PPS: u8 = 8;
    pub const DELIMITER: u8 = 9;
    pub const FILLER: u8 = 12;
}

/// Why a parameter set or a slice header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("ends too early")]
    Short,
    #[error("{0} is out of bounds")]
    Bounds(&'static str),
    #[error("parameter set {0} is not there")]
    Missing(&'static str),
}
