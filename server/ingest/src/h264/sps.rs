//! Sequence parameter sets (H.264 §7.3.2.1, annex E), bounded before anything is believed.

use super::Refused;
use super::bits::Bits;

/// What we need of an SPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sps {
    pub id: u8,
    pub profile: u8,
    pub constraints: u8,
    pub level: u8,
    /// Cropped.
    pub width: u32,
    pub height: u32,
    pub sar: (u32, u32),
    pub frame_rate: Option<(u32, u32)>,
    pub separate_colour_planes: bool,
    pub frame_num_bits: u32,
    pub frame_mbs_only: bool,
    pub poc: PocType,
    /// Macroblocks of a frame.
    pub frame_mbs: u32,
    /// max_num_reorder_frames, or 0 where the profile or the POC type allows no reordering; `None`: not said.
    pub reorder: Option<u8>,
    /// Frames that the decoded picture buffer holds by level and size: the most that reordering can be.
    pub dpb_frames: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PocType {
    /// pic_order_cnt_lsb of so many bits.
    Lsb(u32),
    /// Type 1: an expected cycle.
    Cycle,
    /// Type 2: output order is decoding order.
    None,
}

/// Larger pictures are refused before any buffer is thought of. A 4096x4096 picture is 65,536 macroblocks; level 6.2
/// allows 139,264, but nobody sends that to an edge server over RTP.
const MAX_SIDE: u32 = 4096;
/// Level 5.2's frame size (table A-1): above, a decoder's buffers would pass what one channel may cost.
const MAX_FRAME_MBS: u32 = 36_864;

impl Sps {
    /// `nal`: with its header byte.
    pub fn parse(nal: &[u8]) -> Result<Self, Refused> {
        let mut b = Bits::new(nal.get(1..).ok_or(Refused::Short)?);
        let profile = b.bits(8)? as u8;
        let constraints = b.bits(8)? as u8;
        let level = b.bits(8)? as u8;
        let id = b.ue_max(31, "seq_parameter_set_id")? as u8;
        let mut chroma = 1;
        let mut separate_colour_planes = false;
        // Profiles with the high syntax (§7.3.2.1.1). MVC and SVC (118, 128, 83, 86 ...) belong in subset SPS, which
        // the gate does not pass.
        match profile {
            66 | 77 | 88 => {}
            100 | 110 | 122 | 244 | 44 => {
                chroma = b.ue_max(3, "chroma_format_idc")?;
                if chroma == 3 {
                    separate_colour_planes = b.bit()?;
                }
                b.ue_max(6, "bit_depth_luma_minus8")?;
                b.ue_max(6, "bit_depth_chroma_minus8")?;
                b.bit()?; // qpprime_y_zero_transform_bypass_flag
                if b.bit()? {
                    for i in 0..if chroma == 3 { 12 } else { 8 } {
                        if b.bit()? {
                            skip_scaling_list(&mut b, if i < 6 { 16 } else { 64 })?;
                        }
                    }
                }
            }
            _ => return Err(Refused::Bounds("profile_idc")),
        }
        let frame_num_bits = b.ue_max(12, "log2_max_frame_num_minus4")? + 4;
        let poc = match b.ue_max(2, "pic_order_cnt_type")? {
            0 => PocType::Lsb(b.ue_max(12, "log2_max_pic_order_cnt_lsb_minus4")? + 4),
            1 => {
                b.bit()?; // delta_pic_order_always_zero_flag
                b.se()?;
                b.se()?;
                // The bound before the loop: GHSA-qxj9-fmqx-r7j8.
                for _ in 0..b.ue_max(255, "num_ref_frames_in_pic_order_cnt_cycle")? {
                    b.se()?;
                }
                PocType::Cycle
            }
            _ => PocType::None,
        };
        let refs = b.ue_max(16, "max_num_ref_frames")?;
        b.bit()?; // gaps_in_frame_num_value_allowed_flag
        let mbs_wide = b.ue_max(MAX_SIDE / 16 - 1, "pic_width_in_mbs_minus1")? + 1;
        let map_units_high = b.ue_max(MAX_SIDE / 16 - 1, "pic_height_in_map_units_minus1")? + 1;
        let frame_mbs_only = b.bit()?;
        let mbs_high = map_units_high * if frame_mbs_only { 1 } else { 2 };
        if mbs_high > MAX_SIDE / 16 {
            return Err(Refused::Bounds("picture height"));
        }
        let frame_mbs = mbs_wide * mbs_high;
        if frame_mbs > MAX_FRAME_MBS {
            return Err(Refused::Bounds("picture size"));
        }
        if !frame_mbs_only {
            b.bit()?; // mb_adaptive_frame_field_flag
        }
        b.bit()?; // direct_8x8_inference_flag
        let (mut width, mut height) = (mbs_wide * 16, mbs_high * 16);
        if b.bit()? {
            // §7.4.2.1.1: crop units depend on chroma sampling and on fields.
            let chroma_array = if separate_colour_planes { 0 } else { chroma };
            let unit_x = if matches!(chroma_array, 1 | 2) { 2 } else { 1 };
            let unit_y = if chroma_array == 1 { 2 } else { 1 } * if frame_mbs_only { 1 } else { 2 };
            let mut crop = |unit: u32| -> Result<u32, Refused> { Ok(b.ue_max(MAX_SIDE, "frame_crop_offset")? * unit) };
            let across = crop(unit_x)? + crop(unit_x)?;
            let down = crop(unit_y)? + crop(unit_y)?;
            width = width.checked_sub(across).filter(|w| *w > 0).ok_or(Refused::Bounds("cropping"))?;
            height = height.checked_sub(down).filter(|h| *h > 0).ok_or(Refused::Bounds("cropping"))?;
        }
        let dpb_frames = dpb_frames(profile, constraints, level, frame_mbs).max(refs).min(16) as u8;
        let mut sps = Self {
            id,
            profile,
            constraints,
            level,
            width,
            height,
            sar: (1, 1),
            frame_rate: None,
            separate_colour_planes,
            frame_num_bits,
            frame_mbs_only,
            poc,
            frame_mbs,
            // Baseline has no B slices (§A.2.1); intra-only profiles (constraint_set3) and POC type 2 reorder nothing.
            reorder: (profile == 66
                || poc == PocType::None
                || (matches!(profile, 44 | 100 | 110 | 122 | 244) && constraints & 0x10 != 0))
                .then_some(0),
            dpb_frames,
        };
        if b.bit()? {
            sps.read_vui(&mut b)?;
        }
        Ok(sps)
    }

    /// Annex E.1.1.
    fn read_vui(&mut self, b: &mut Bits) -> Result<(), Refused> {
        if b.bit()? {
            let (w, h) = match b.bits(8)? {
                255 => (b.bits(16)?, b.bits(16)?),
                i => *SAMPLE_ASPECT.get(i as usize).unwrap_or(&(1, 1)),
            };
            if w > 0 && h > 0 {
                self.sar = (w, h);
            }
        }
        if b.bit()? {
            b.bit()?; // overscan_appropriate_flag
        }
        if b.bit()? {
            b.bits(4)?; // video_format, video_full_range_flag
            if b.bit()? {
                b.bits(24)?; // colour description
            }
        }
        if b.bit()? {
            b.ue_max(5, "chroma_sample_loc_type")?;
            b.ue_max(5, "chroma_sample_loc_type")?;
        }
        if b.bit()? {
            let tick = b.bits(32)?;
            let scale = b.bits(32)?;
            b.bit()?; // fixed_frame_rate_flag: many encoders leave it 0 and still mean it, so plausibility decides
            // A frame lasts two ticks (E.2.1).
            if tick > 0 && scale > 0 {
                let (n, d) = reduce(u64::from(scale), 2 * u64::from(tick));
                if let (Ok(n), Ok(d)) = (u32::try_from(n), u32::try_from(d))
                    && n >= d
                    && u64::from(n) <= 300 * u64::from(d)
                {
                    self.frame_rate = Some((n, d));
                }
            }
        }
        let nal_hrd = b.bit()?;
        if nal_hrd {
            skip_hrd(b)?;
        }
        let vcl_hrd = b.bit()?;
        if vcl_hrd {
            skip_hrd(b)?;
        }
        if nal_hrd || vcl_hrd {
            b.bit()?; // low_delay_hrd_flag
        }
        b.bit()?; // pic_struct_present_flag
        if b.bit()? {
            b.bit()?; // motion_vectors_over_pic_boundaries_flag
            b.ue()?;
            b.ue()?;
            b.ue()?;
            b.ue()?;
            let reorder = b.ue_max(16, "max_num_reorder_frames")?;
            b.ue_max(16, "max_dec_frame_buffering")?;
            if self.reorder.is_none() {
                self.reorder = Some(reorder as u8);
            }
        }
        Ok(())
    }
}

/// §7.3.2.1.1.1
fn skip_scaling_list(b: &mut Bits, size: u32) -> Result<(), Refused> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..size {
        if next != 0 {
            let delta = b.se()?;
            if !(-128..=127).contains(&delta) {
                return Err(Refused::Bounds("delta_scale"));
            }
            next = (last + delta + 256) % 256;
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

/// E.1.2
fn skip_hrd(b: &mut Bits) -> Result<(), Refused> {
    let count = b.ue_max(31, "cpb_cnt_minus1")? + 1;
    b.bits(8)?;
    for _ in 0..count {
        b.ue()?;
        b.ue()?;
        b.bit()?;
    }
    b.bits(20)?;
    Ok(())
}

/// MaxDpbFrames (§A.3.1 h, table A-1).
fn dpb_frames(profile: u8, constraints: u8, level: u8, frame_mbs: u32) -> u32 {
    let mbs = match level {
        9 | 10 => 396,
        11 if constraints & 0x10 != 0 && matches!(profile, 66 | 77 | 88) => 396,
        11 => 900,
        12 | 13 | 20 => 2_376,
        21 => 4_752,
        22 | 30 => 8_100,
        31 => 18_000,
        32 => 20_480,
        40 | 41 => 32_768,
        42 => 34_816,
        50 => 110_400,
        _ => 184_320,
    };
    (mbs / frame_mbs.max(1)).clamp(1, 16)
}

/// Table E-1.
const SAMPLE_ASPECT: [(u32, u32); 17] = [
    (1, 1),
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

fn reduce(a: u64, b: u64) -> (u64, u64) {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1), b / x.max(1))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::bits::write::BitWriter;
    use super::*;

    /// A progressive SPS of the given macroblock size; `reorder`: what the VUI says, if it is to say anything.
    pub fn write(profile: u8, mbs: (u32, u32), poc_type: u32, reorder: Option<u32>) -> Vec<u8> {
        let mut w = BitWriter::default();
        w.u(8, profile.into()).u(8, 0).u(8, 31).ue(0);
        if profile == 100 {
            w.ue(1).ue(0).ue(0).u(1, 0).u(1, 0);
        }
        w.ue(4).ue(poc_type);
        if poc_type == 0 {
            w.ue(4);
        }
        w.ue(4).u(1, 0).ue(mbs.0 - 1).ue(mbs.1 - 1).u(1, 1).u(1, 1).u(1, 0);
        match reorder {
            None => w.u(1, 0),
            Some(n) => {
                w.u(1, 1).u(4, 0); // VUI: no aspect, overscan, signal type, chroma location
                w.u(1, 1).u(32, 1).u(32, 60).u(1, 1); // 30 frames a second
                w.u(3, 0).u(1, 1).u(1, 1).ue(0).ue(0).ue(0).ue(0).ue(n).ue(n.max(1))
            }
        };
        w.finish(0x67)
    }

    #[test]
    fn an_sps_of_x264_is_read() {
        // ffmpeg 5.1 -f lavfi -i testsrc=size=320x240:rate=30 -c:v libx264, High 4:4:4 Predictive
        let nal = [
            0x67, 0xf4, 0x00, 0x0d, 0x91, 0x9b, 0x28, 0x28, 0x3f, 0x60, 0x22, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00,
            0x03, 0x00, 0x78, 0x1e, 0x28, 0x53, 0x2c,
        ];
        let sps = Sps::parse(&nal).unwrap();
        assert_eq!((sps.profile, sps.level, sps.width, sps.height), (244, 13, 320, 240));
        assert_eq!(sps.frame_rate, Some((30, 1)));
        assert_eq!(sps.reorder, Some(2));
        assert_eq!(sps.sar, (1, 1));
        assert_eq!(sps.frame_num_bits, 4);
    }

    #[test]
    fn an_interlaced_cropped_sps_has_its_visible_size() {
        let mut w = BitWriter::default();
        // 1920x1080i: 120 x 34 map units, cropped by 2 * 2 * 2 lines at the bottom
        w.u(8, 77).u(8, 0).u(8, 40).ue(0).ue(0).ue(0).ue(2).ue(4).u(1, 0).ue(119).ue(33).u(1, 0).u(1, 1).u(1, 1);
        w.u(1, 1).ue(0).ue(0).ue(0).ue(2).u(1, 1);
        w.u(1, 1).u(8, 255).u(16, 4).u(16, 3).u(3, 0).u(1, 0).u(4, 0);
        let sps = Sps::parse(&w.finish(0x67)).unwrap();
        assert_eq!((sps.width, sps.height, sps.sar), (1920, 1080, (4, 3)));
        assert!(!sps.frame_mbs_only);
        assert_eq!((sps.reorder, sps.dpb_frames), (None, 4));
    }

    #[test]
    fn bombs_are_refused_from_their_fields() {
        assert!(Sps::parse(&write(77, (256, 144), 2, None)).is_ok());
        assert!(Sps::parse(&write(77, (256, 145), 2, None)).is_err());
        assert!(Sps::parse(&write(77, (1024, 1), 2, None)).is_err());
        assert!(Sps::parse(&write(77, (0x7fff_ffff, 1), 2, None)).is_err());
        assert_eq!(Sps::parse(&write(118, (1, 1), 2, None)), Err(Refused::Bounds("profile_idc")));
        let mut w = BitWriter::default();
        w.u(8, 66).u(8, 0).u(8, 40).ue(0).ue(0).ue(1).u(1, 0).se(0).se(0).ue(0x7fff_ffff);
        assert_eq!(Sps::parse(&w.finish(0x67)), Err(Refused::Bounds("num_ref_frames_in_pic_order_cnt_cycle")));
        assert_eq!(Sps::parse(&[0x67]), Err(Refused::Short));
        assert_eq!(Sps::parse(&[]), Err(Refused::Short));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            profile in prop::sample::select(vec![66u8, 77, 88, 100, 110, 122, 244, 44]),
            rest in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut nal = vec![0x67, profile];
            nal.extend(rest);
            if let Ok(sps) = Sps::parse(&nal) {
                prop_assert!(sps.width <= 4096 && sps.height <= 4096 && sps.dpb_frames <= 16);
            }
        }

        #[test]
        fn flipped_bits_never_panic(at in 0usize..40, bit in 0u8..8) {
            let mut nal = write(100, (20, 15), 0, Some(2));
            if let Some(b) = nal.get_mut(at) {
                *b ^= 1 << bit;
            }
            let _ = Sps::parse(&nal);
        }
    }
}
