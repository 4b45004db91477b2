//! The device catalogue: engines, speeds and memory of known GPUs, each with a mark that says how far to trust it.
//!
//! Speeds per engine come from NVIDIA's application notes (NVENC and NVDEC, Video Codec SDK 13.0: frames a second of
//! 1080p 4:2:0 8-bit, low latency, CBR) times 2.0736 megapixels, scaled by the card's video clock over the note's
//! reference clock. P2 and P4 are the geometric means of their neighbours, P6 that of P5 and P7. Nothing here was
//! measured; calibrating a device replaces the table.
use crate::device::{
    Codec, DecodeRates, DeviceKind, EncodeRates, EncoderKind, Evidence, Evidences, PixelRate, Preset, SourceCodec,
};

/// Encoding sessions that the driver allows all GeForce cards of a host together (SDK 13.1; drivers before: 8, 5, 3).
pub const GEFORCE_SESSIONS: u32 = 12;

/// The kind of that name; names are lower case with hyphens, for example `rtx-pro-6000`.
pub fn find(name: &str) -> Option<DeviceKind> {
    ENTRIES.iter().find(|e| e.name == name).map(Entry::kind)
}

/// All names, in the order of the catalogue.
pub fn names() -> impl Iterator<Item = &'static str> {
    ENTRIES.iter().map(|e| e.name)
}

/// Chip generations whose engines are alike.
#[derive(Clone, Copy)]
enum Generation {
    Turing,
    Ampere,
    Ada,
    Blackwell,
    Orin,
    Thor,
    /// GA100 and Hopper: Turing's decoder by the note's table, clock-scaled; no encoder.
    Compute,
}

struct Entry {
    name: &'static str,
    generation: Generation,
    encoders: u8,
    decoders: u8,
    /// Highest video clock in MHz; None: the note's reference clocks.
    clock: Option<u64>,
    /// GiB.
    vram: u32,
    consumer: bool,
    engines: Evidence,
    speed: Evidence,
}

const fn entry(
    name: &'static str,
    generation: Generation,
    (encoders, decoders): (u8, u8),
    clock: Option<u64>,
    vram: u32,
    (engines, speed): (Evidence, Evidence),
) -> Entry {
    Entry { name, generation, encoders, decoders, clock, vram, consumer: false, engines, speed }
}

const fn geforce(entry: Entry) -> Entry {
    Entry { consumer: true, ..entry }
}

use Evidence::{Documented as D, Estimated as E, Remembered as M, Reported as R};
use Generation::{Ada, Ampere, Blackwell, Compute, Orin, Thor, Turing};

// The speed's mark is that of its weakest link: the clock where one is given, else of the table's reference clock for this
// card. VRAM is remembered throughout.
const ENTRIES: [Entry; 13] = [
    entry("t4", Turing, (1, 2), Some(1470), 16, (M, R)),
    entry("a10g", Ampere, (1, 2), Some(1500), 24, (M, E)),
    entry("l4", Ada, (2, 4), Some(1770), 24, (R, R)),
    entry("l40s", Ada, (3, 3), Some(1965), 48, (R, E)),
    geforce(entry("rtx-4090", Ada, (2, 1), None, 24, (R, D))),
    geforce(entry("rtx-5090", Blackwell, (3, 2), None, 32, (R, E))),
    entry("rtx-pro-6000", Blackwell, (4, 4), None, 96, (D, E)),
    entry("a100", Compute, (0, 5), Some(1290), 80, (D, R)),
    entry("h100", Compute, (0, 7), Some(1290), 80, (D, E)),
    entry("h200", Compute, (0, 7), Some(1290), 141, (D, E)),
    entry("orin-nx-16", Orin, (1, 1), None, 16, (R, R)),
    entry("orin-agx-64", Orin, (1, 1), None, 64, (R, R)),
    entry("thor-t5000", Thor, (2, 2), None, 128, (D, D)),
];

/// Megapixels a second of one engine at P1, P2, P3, P4, P5, P7 for H.264, H.265 and AV1.
type EncodeTable = [[u64; 6]; 3];

const NO_CODEC: [u64; 6] = [0; 6];
const ENCODE_TURING: EncodeTable = [[1773, 1485, 1244, 836, 562, 475], [1933, 1362, 960, 779, 632, 635], NO_CODEC];
const ENCODE_AMPERE: EncodeTable = [[1800, 1513, 1271, 848, 566, 479], [1955, 1376, 968, 785, 637, 639], NO_CODEC];
const ENCODE_ADA: EncodeTable =
    [[1887, 1597, 1352, 903, 603, 512], [2188, 1497, 1024, 854, 711, 711], [2260, 1905, 1605, 1305, 1062, 738]];
const ENCODE_THOR: EncodeTable = [[1501, 1283, 1097, 733, 489, 454], [1783, 1219, 834, 694, 579, 579], NO_CODEC];
const ENCODE_BLACKWELL: EncodeTable =
    [[2026, 1737, 1489, 999, 670, 547], [2351, 1606, 1097, 1073, 1049, 962], [2231, 1921, 1655, 1463, 1294, 819]];

/// Megapixels a second of one engine for H.264, H.265, H.265 10 bit, VP9 and AV1.
type DecodeTable = [u64; 5];

const DECODE_TURING: DecodeTable = [1599, 2729, 2401, 1933, 0];
const DECODE_AMPERE: DecodeTable = [1551, 2934, 2694, 2229, 1638];
const DECODE_ADA: DecodeTable = [1872, 3403, 3152, 2675, 2111];
const DECODE_BLACKWELL: DecodeTable = [4504, 3882, 3770, 2996, 2320];
const DECODE_THOR: DecodeTable = [2974, 2681, 2343, 2113, 1646];

impl Entry {
    fn kind(&self) -> DeviceKind {
        let (encode, decode) = self.rates();
        DeviceKind {
            name: self.name.to_owned(),
            encoder: if self.encoders == 0 { EncoderKind::None } else { EncoderKind::Hardware },
            encode_engines: self.encoders,
            encode,
            decode_engines: self.decoders,
            decode,
            vram: self.vram * 1024,
            consumer: self.consumer,
            evidence: Evidences { engines: self.engines, speed: self.speed, vram: M },
        }
    }

    fn rates(&self) -> (EncodeRates, DecodeRates) {
        // Reference clocks in MHz of the encoder's and of the decoder's note. Blackwell's and Thor's encoder clocks are
        // not named there: those entries have no clock of their own.
        let (encode, decode, encode_clock, decode_clock) = match self.generation {
            Turing => (ENCODE_TURING, DECODE_TURING, 1950, 1860),
            Ampere => (ENCODE_AMPERE, DECODE_AMPERE, 1950, 1665),
            Ada => (ENCODE_ADA, DECODE_ADA, 2415, 2160),
            Blackwell => (ENCODE_BLACKWELL, DECODE_BLACKWELL, 1, 1),
            Thor => (ENCODE_THOR, DECODE_THOR, 1, 1),
            Compute => ([NO_CODEC; 3], DECODE_TURING, 1, 1860),
            Orin => return self.orin(),
        };
        let scale = |mp: u64, reference: u64| match self.clock {
            Some(clock) => PixelRate(mp * 1_000_000 * clock / reference),
            None => PixelRate::megapixels(mp),
        };
        let presets = |[p1, p2, p3, p4, p5, p7]: [u64; 6]| -> [PixelRate; Preset::COUNT] {
            [p1, p2, p3, p4, p5, (p5 * p7).isqrt(), p7].map(|mp| scale(mp, encode_clock))
        };
        (EncodeRates(encode.map(presets)), DecodeRates(decode.map(|mp| scale(mp, decode_clock))))
    }

    /// Jetson Orin's data sheet counts 1080p30 streams (62.2 megapixels a second each) and knows no presets.
    fn orin(&self) -> (EncodeRates, DecodeRates) {
        let (encode, decode) = if self.name == "orin-nx-16" { (12, 18) } else { (16, 22) };
        let streams = |n: u64| PixelRate(n * 1920 * 1080 * 30);
        (EncodeRates::flat(&Codec::ALL, streams(encode)), DecodeRates::flat(&SourceCodec::ALL, streams(decode)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn speeds_agree_with_the_worked_examples() {
        let p4 = Preset::new(4).unwrap();
        let p1 = Preset::new(1).unwrap();
        let mp = |r: PixelRate| r.0 / 1_000_000;
        let t4 = find("t4").unwrap();
        assert_eq!(mp(t4.encode.of(Codec::H264, p1)), 1336);
        assert_eq!(mp(t4.encode.of(Codec::H264, p4)), 630);
        assert_eq!(mp(t4.decode.of(SourceCodec::H264)), 1263);
        let l4 = find("l4").unwrap();
        assert_eq!(mp(l4.encode.of(Codec::H264, p4)), 661);
        assert_eq!(mp(l4.encode.of(Codec::Av1, p1)), 1656);
        assert_eq!(mp(find("a100").unwrap().decode.of(SourceCodec::H264)), 1108);
    }

    #[test]
    fn what_a_card_lacks_has_no_speed() {
        let p1 = Preset::new(1).unwrap();
        for name in ["a100", "h100", "h200"] {
            let kind = find(name).unwrap();
            assert_eq!((kind.encoder, kind.encode_engines), (EncoderKind::None, 0));
            assert_eq!(kind.encode.of(Codec::H264, p1), PixelRate(0));
        }
        for name in ["t4", "a10g", "thor-t5000"] {
            assert_eq!(find(name).unwrap().encode.of(Codec::Av1, p1), PixelRate(0), "{name}");
        }
        assert_eq!(find("t4").unwrap().decode.of(SourceCodec::Av1), PixelRate(0));
        let geforce: Vec<_> = names().filter(|n| find(n).unwrap().consumer).collect();
        assert_eq!(geforce, ["rtx-4090", "rtx-5090"]);
        assert_eq!(names().count(), ENTRIES.len());
    }
}
