//! The parameter sets that a stream has sent, and the configuration that an IDR picture activates out of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use media::{H264Config, TrackConfig};

use super::bits::Bits;
use super::{Refused, Sps};

/// A set larger than this is not one: real ones are under 200 bytes, with all scaling lists under 1,000.
const MAX_SET: usize = 4096;

/// At most 32 SPS and 256 PPS by their ids, each at most `MAX_SET` bytes: 1.2 MB, and a few hundred bytes in practice.
#[derive(Debug, Default)]
pub struct ParameterSets {
    sps: BTreeMap<u8, (Bytes, Sps)>,
    pps: BTreeMap<u8, (Bytes, u8)>,
    /// Made at the last activation; given again while nothing differs.
    active: Option<Arc<TrackConfig>>,
    active_sps: Option<u8>,
    active_pps: Vec<u8>,
    /// Reordering that was observed although no VUI declared it.
    observed_reorder: u8,
}

impl ParameterSets {
    /// Keeps an SPS. Identical repeats change nothing (byte-compared).
    pub fn add_sps(&mut self, nal: &[u8]) -> Result<(), Refused> {
        if nal.len() > MAX_SET {
            return Err(Refused::Bounds("SPS size"));
        }
        let sps = Sps::parse(nal)?;
        if self.sps.get(&sps.id).is_none_or(|(old, _)| old != nal) {
            // A copy, so that a set which lives for hours does not hold a packet.
            self.sps.insert(sps.id, (Bytes::copy_from_slice(nal), sps));
        }
        Ok(())
    }

    pub fn add_pps(&mut self, nal: &[u8]) -> Result<(), Refused> {
        if nal.len() > MAX_SET {
            return Err(Refused::Bounds("PPS size"));
        }
        let mut b = Bits::new(nal.get(1..).ok_or(Refused::Short)?);
        let id = b.ue_max(255, "pic_parameter_set_id")? as u8;
        let sps_id = b.ue_max(31, "seq_parameter_set_id")? as u8;
        b.bits(2)?; // entropy_coding_mode_flag, bottom_field_pic_order_in_frame_present_flag
        b.ue_max(7, "num_slice_groups_minus1")?;
        if self.pps.get(&id).is_none_or(|(old, _)| old != nal) {
            self.pps.insert(id, (Bytes::copy_from_slice(nal), sps_id));
        }
        Ok(())
    }

    pub fn sps_of_pps(&self, pps_id: u8) -> Result<(u8, &Sps), Refused> {
        let (_, sps_id) = self.pps.get(&pps_id).ok_or(Refused::Missing("PPS"))?;
        let (_, sps) = self.sps.get(sps_id).ok_or(Refused::Missing("SPS"))?;
        Ok((*sps_id, sps))
    }

    /// Reordering was seen that no VUI had declared; told by the next activation.
    pub fn observe_reorder(&mut self, depth: u8) {
        self.observed_reorder = self.observed_reorder.max(depth);
    }

    /// An IDR picture refers to this PPS: its SPS and all PPS of that SPS are in force until the next one.
    pub fn activate(&mut self, pps_id: u8) -> Result<(Arc<TrackConfig>, Sps), Refused> {
        let (sps_id, sps) = self.sps_of_pps(pps_id)?;
        let sps = sps.clone();
        let (raw, _) = self.sps.get(&sps_id).ok_or(Refused::Missing("SPS"))?;
        let of_sps: Vec<(u8, Bytes)> =
            self.pps.iter().filter(|(_, (_, s))| *s == sps_id).map(|(id, (raw, _))| (*id, raw.clone())).collect();
        let config = TrackConfig::H264(H264Config {
            sps: raw.clone(),
            pps: of_sps.iter().map(|(_, raw)| raw.clone()).collect(),
            width: sps.width,
            height: sps.height,
            sar: sps.sar,
            reorder_depth: sps.reorder.unwrap_or(self.observed_reorder.min(sps.dpb_frames)),
            frame_rate: sps.frame_rate,
        });
        self.active_sps = Some(sps_id);
        self.active_pps = of_sps.into_iter().map(|(id, _)| id).collect();
        let active = match &self.active {
            Some(old) if **old == config => old.clone(),
            _ => config.shared(),
        };
        self.active = Some(active.clone());
        Ok((active, sps))
    }

    /// The configuration of the last IDR picture, where a later picture may use this PPS under it.
    pub fn active(&self, pps_id: u8) -> Result<Arc<TrackConfig>, Refused> {
        let active = self.active.as_ref().ok_or(Refused::Missing("IDR picture"))?;
        if !self.active_pps.contains(&pps_id) {
            return Err(Refused::Missing("PPS"));
        }
        Ok(active.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::bits::write::BitWriter;
    use super::super::sps::tests::write;
    use super::*;

    fn pps(id: u32, extra: u32) -> Vec<u8> {
        BitWriter::default().ue(id).ue(0).u(2, 0).ue(0).ue(extra).finish(0x68)
    }

    #[test]
    fn a_repeat_gives_the_same_configuration_and_a_change_waits_for_activation() {
        let mut sets = ParameterSets::default();
        sets.add_sps(&write(77, (20, 15), 2, None)).unwrap();
        assert!(sets.activate(0).is_err());
        sets.add_pps(&pps(0, 0)).unwrap();
        let (first, _) = sets.activate(0).unwrap();
        sets.add_sps(&write(77, (20, 15), 2, None)).unwrap();
        sets.add_pps(&pps(0, 0)).unwrap();
        assert!(Arc::ptr_eq(&first, &sets.activate(0).unwrap().0));
        sets.add_sps(&write(77, (40, 30), 2, None)).unwrap();
        assert_eq!(sets.active(0).unwrap(), first);
        let (second, _) = sets.activate(0).unwrap();
        let TrackConfig::H264(c) = &*second else { unreachable!() };
        assert_eq!((c.width, c.height), (640, 480));
        assert_eq!(sets.active(9), Err(Refused::Missing("PPS")));
    }
}
