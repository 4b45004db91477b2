//! What a ladder costs: decode and encode pixel rates, memory and sessions; and what that takes of a kind of device.
use crate::device::{Codec, DeviceKind, EncoderKind, PixelRate, Preset, Share, SourceCodec, WHOLE};

/// Most rungs of a ladder.
pub const MAX_RUNGS: usize = 16;
/// Small frames cost more than their pixels: each counts as at least these (an estimate until measured).
const LEAST_PIXELS: u64 = 250_000;
/// Largest side of a picture that is taken.
const MAX_SIDE: u32 = 8192;

/// A picture's size and rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// Frames a second as (frames, seconds).
    pub frame_rate: (u32, u32),
}

/// One encoding of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rung {
    pub codec: Codec,
    pub preset: Preset,
    pub picture: Picture,
}

/// A source and what is to be made of it: decoded once, encoded once for each rung, all on one device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ladder {
    pub source: (SourceCodec, Picture),
    pub rungs: Vec<Rung>,
}

/// Why a ladder can't exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LadderFault {
    /// Nothing to encode: such a channel needs no device.
    NoRungs,
    TooManyRungs(usize),
    /// None: the source; else the rung's number from 0. A side of 0, odd or above 8192.
    Size(Option<usize>, u32, u32),
    /// Frames a second must lie between 1 and 480.
    FrameRate(Option<usize>, u32, u32),
    /// The rung is larger than the source.
    Upscaled(usize),
}

impl std::fmt::Display for LadderFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = |n: &Option<usize>| n.map_or("the source".to_owned(), |n| format!("rung {n}"));
        match self {
            Self::NoRungs => f.write_str("nothing to encode"),
            Self::TooManyRungs(n) => write!(f, "{n} rungs; at most {MAX_RUNGS}"),
            Self::Size(n, w, h) => write!(f, "{}: {w}x{h}: sides must be even, from 2 to {MAX_SIDE}", what(n)),
            Self::FrameRate(n, a, b) => write!(f, "{}: {a}/{b} frames a second: must be from 1 to 480", what(n)),
            Self::Upscaled(n) => write!(f, "rung {n} is larger than the source"),
        }
    }
}

impl std::error::Error for LadderFault {}

/// A ladder's cost in units that no device appears in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Demand {
    pub decode: (SourceCodec, PixelRate),
    /// One encoding session each; at most [`MAX_RUNGS`].
    pub encode: Vec<(Codec, Preset, PixelRate)>,
    /// MiB.
    pub vram: u32,
}

impl Ladder {
    /// All that is wrong with the ladder, or its cost.
    pub fn demand(&self) -> Result<Demand, Vec<LadderFault>> {
        let (source_codec, source) = self.source;
        let mut faults = Vec::new();
        if self.rungs.is_empty() {
            faults.push(LadderFault::NoRungs);
        }
        if self.rungs.len() > MAX_RUNGS {
            faults.push(LadderFault::TooManyRungs(self.rungs.len()));
        }
        let pictures = self.rungs.iter().enumerate().map(|(n, r)| (Some(n), r.picture));
        for (n, p) in std::iter::once((None, source)).chain(pictures) {
            let odd = |side: u32| side == 0 || side > MAX_SIDE || !side.is_multiple_of(2);
            if odd(p.width) || odd(p.height) {
                faults.push(LadderFault::Size(n, p.width, p.height));
            }
            let (frames, seconds) = p.frame_rate;
            if seconds == 0 || frames < seconds || u64::from(frames) > 480 * u64::from(seconds) {
                faults.push(LadderFault::FrameRate(n, frames, seconds));
            }
            if let Some(n) = n
                && (p.width > source.width || p.height > source.height)
            {
                faults.push(LadderFault::Upscaled(n));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let encode = self.rungs.iter().map(|r| (r.codec, r.preset, r.picture.rate())).collect();
        let vram = self.rungs.iter().map(|r| encode_memory(r.picture)).sum::<u32>() + decode_memory(source);
        Ok(Demand { decode: (source_codec, source.rate()), encode, vram })
    }
}

impl Picture {
    /// What an engine has to get through, the extra cost of small frames included.
    pub fn rate(&self) -> PixelRate {
        let pixels = (u64::from(self.width) * u64::from(self.height)).max(LEAST_PIXELS);
        PixelRate((pixels * u64::from(self.frame_rate.0)).div_ceil(u64::from(self.frame_rate.1.max(1))))
    }

    /// Bytes of a 4:2:0 8-bit frame.
    fn bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * 3 / 2
    }
}

/// MiB of a decoder: the largest reference buffer (16 frames), six output surfaces, and its tables.
fn decode_memory(p: Picture) -> u32 {
    mebibytes(22 * p.bytes()) + 20
}

/// MiB of an encoder with twelve surfaces, and the six frames of the scaler before it.
fn encode_memory(p: Picture) -> u32 {
    mebibytes(18 * p.bytes()) + 40
}

fn mebibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX / 64)
}

/// Why a kind of device can never take a demand, however empty it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misfit {
    /// It can't decode the source's codec.
    Decoder(SourceCodec),
    /// It has no encoder for the codec (or none at all).
    Encoder(Codec),
    /// Its encoder is the processor, which the request doesn't allow.
    SoftwareOnly,
    /// The source alone is more than one decoder engine may take.
    SourceAboveEngine,
    /// One rung alone is more than one encoder engine may take.
    RungAboveEngine,
    /// More than the empty device holds.
    AboveDevice,
}

/// A demand in a kind's own units.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Of one decoder engine.
    pub decode: Share,
    /// Of one encoder engine each, largest first; the first `sessions` count.
    pub encode: [Share; MAX_RUNGS],
    pub encode_total: Share,
    /// MiB.
    pub vram: u32,
    pub sessions: u8,
}

impl Need {
    /// What `demand` takes of a device of this kind that runs at the table's speed.
    pub fn of(demand: &Demand, kind: &DeviceKind, software_allowed: bool) -> Result<Self, Misfit> {
        if kind.encoder == EncoderKind::Software && !software_allowed {
            return Err(Misfit::SoftwareOnly);
        }
        let (source, rate) = demand.decode;
        let decode = rate.share(kind.decode.of(source)).filter(|_| kind.decode_engines > 0);
        let decode = Share::try_from(decode.ok_or(Misfit::Decoder(source))?).map_err(|_| Misfit::SourceAboveEngine)?;
        let mut encode = [0; MAX_RUNGS];
        for (place, (codec, preset, rate)) in encode.iter_mut().zip(&demand.encode) {
            let able = kind.encode_engines > 0 && kind.encoder != EncoderKind::None;
            let share = rate.share(kind.encode.of(*codec, *preset)).filter(|_| able);
            let share = share.ok_or(Misfit::Encoder(*codec))?;
            // Calibration can make an engine up to ten times as fast as the table.
            if share > 10 * u64::from(WHOLE) {
                return Err(Misfit::RungAboveEngine);
            }
            *place = Share::try_from(share).map_err(|_| Misfit::RungAboveEngine)?;
        }
        if demand.encode.len() > MAX_RUNGS {
            return Err(Misfit::AboveDevice);
        }
        encode.sort_unstable_by(|a, b| b.cmp(a));
        let sessions = u8::try_from(demand.encode.len()).unwrap_or(u8::MAX);
        Ok(Self { decode, encode, encode_total: encode.iter().sum(), vram: demand.vram, sessions })
    }

    /// The encoders' shares, largest first.
    pub fn rungs(&self) -> &[Share] {
        self.encode.get(..usize::from(self.sessions)).unwrap_or(&self.encode)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalogue;

    fn picture(width: u32, height: u32, fps: u32) -> Picture {
        Picture { width, height, frame_rate: (fps, 1) }
    }

    fn ladder(preset: u8) -> Ladder {
        let rung = |w, h| Rung { codec: Codec::H264, preset: Preset::new(preset).unwrap(), picture: picture(w, h, 30) };
        Ladder {
            source: (SourceCodec::H264, picture(1920, 1080, 30)),
            rungs: vec![rung(1920, 1080), rung(1280, 720), rung(854, 480), rung(640, 360)],
        }
    }

    #[test]
    fn the_usual_ladder_costs_what_its_pixels_say() {
        let demand = ladder(4).demand().unwrap();
        assert_eq!(demand.decode.1, PixelRate(62_208_000));
        let total: u64 = demand.encode.iter().map(|e| e.2.0).sum();
        // 640x360 counts as 250,000 pixels.
        assert_eq!(total, 62_208_000 + 27_648_000 + 12_297_600 + 7_500_000);
        assert_eq!(demand.vram, (66 + 20) + (54 + 40) + (24 + 40) + (11 + 40) + (6 + 40));
        let need = Need::of(&demand, &catalogue::find("l4").unwrap(), false).unwrap();
        // 109.7 of 661.8 megapixels a second.
        assert_eq!(need.encode_total / 1000, 165);
        assert_eq!(need.rungs().len(), 4);
        assert!(need.rungs().is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn all_faults_of_a_ladder_are_named_at_once() {
        let mut bad = ladder(1);
        bad.source.1.frame_rate = (30, 0);
        bad.rungs[0].picture.width = 1922;
        bad.rungs[2].picture.height = 481;
        let faults = bad.demand().unwrap_err();
        assert_eq!(
            faults,
            [LadderFault::FrameRate(None, 30, 0), LadderFault::Upscaled(0), LadderFault::Size(Some(2), 854, 481)]
        );
        let none = Ladder { rungs: Vec::new(), ..ladder(1) };
        assert_eq!(none.demand().unwrap_err(), [LadderFault::NoRungs]);
    }

    #[test]
    fn a_kind_says_why_it_can_never_take_a_ladder() {
        let demand = ladder(1).demand().unwrap();
        let h100 = catalogue::find("h100").unwrap();
        assert_eq!(Need::of(&demand, &h100, true).unwrap_err(), Misfit::Encoder(Codec::H264));
        let hybrid = h100.with_software_encoder(2, PixelRate::megapixels(200));
        assert_eq!(Need::of(&demand, &hybrid, false).unwrap_err(), Misfit::SoftwareOnly);
        assert_eq!(Need::of(&demand, &hybrid, true).unwrap().sessions, 4);
        let mut av1 = ladder(1);
        av1.source.0 = SourceCodec::Av1;
        let t4 = catalogue::find("t4").unwrap();
        assert_eq!(Need::of(&av1.demand().unwrap(), &t4, true).unwrap_err(), Misfit::Decoder(SourceCodec::Av1));
    }
}
