//! The first fields of a slice header (H.264 §7.3.3): which parameter sets, which type, which place in output order.

use super::bits::Bits;
use super::{ParameterSets, PocType, Refused, nal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceType {
    P,
    B,
    I,
    Sp,
    Si,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub first_mb: u32,
    pub kind: SliceType,
    pub pps_id: u8,
    pub sps_id: u8,
    /// pic_order_cnt_lsb and the number of its bits, for POC type 0.
    pub poc_lsb: Option<(u32, u32)>,
}

impl Slice {
    /// `nal`: with its header byte, of type 1 or 5.
    pub fn parse(data: &[u8], sets: &ParameterSets) -> Result<Self, Refused> {
        let header = *data.first().ok_or(Refused::Short)?;
        let mut b = Bits::new(data.get(1..).ok_or(Refused::Short)?);
        let first_mb = b.ue()?;
        let kind = match b.ue_max(9, "slice_type")? % 5 {
            0 => SliceType::P,
            1 => SliceType::B,
            2 => SliceType::I,
            3 => SliceType::Sp,
            _ => SliceType::Si,
        };
        let pps_id = b.ue_max(255, "pic_parameter_set_id")? as u8;
        let (sps_id, sps) = sets.sps_of_pps(pps_id)?;
        if first_mb >= sps.frame_mbs {
            return Err(Refused::Bounds("first_mb_in_slice"));
        }
        let idr = header & 0x1f == nal::IDR;
        if idr && !matches!(kind, SliceType::I | SliceType::Si) {
            // §7.4.3: an IDR picture has I and SI slices only.
            return Err(Refused::Bounds("slice_type"));
        }
        if sps.separate_colour_planes {
            b.bits(2)?;
        }
        b.bits(sps.frame_num_bits)?;
        if !sps.frame_mbs_only && b.bit()? {
            b.bit()?; // bottom_field_flag
        }
        if idr {
            b.ue_max(65_535, "idr_pic_id")?;
        }
        let poc_lsb = match sps.poc {
            PocType::Lsb(bits) => Some((b.bits(bits)?, bits)),
            _ => None,
        };
        Ok(Self { first_mb, kind, pps_id, sps_id, poc_lsb })
    }
}
