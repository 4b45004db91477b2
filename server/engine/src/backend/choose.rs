//! Which back end a ladder gets, under the policy that its configuration names. Pure; nothing falls back in silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Codec, Family, RungRequest, SoftwareEncoder};

/// What may happen when a GPU cannot do a whole ladder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Every rung is encoded on the GPU, or the ladder is refused.
    GpuOnly,
    /// The rungs that the GPU can encode are kept, the others are dropped and named.
    Shorten,
    /// What the GPU cannot do is done on the CPU, and said.
    #[default]
    Cpu,
}

/// The elements of one device, as the probe found them or as its worker will see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceElements {
    pub family: Family,
    /// The CUDA ordinal in the process that runs the graph: 0 in a worker that sees only this GPU. 0 for other families.
    pub ordinal: u32,
    /// Decoder factory per codec.
    pub decoders: BTreeMap<Codec, String>,
    pub encoders: BTreeMap<Codec, EncoderElement>,
    /// The factory that scales in the device's memory; None: it did not register.
    pub scaler: Option<String>,
}

/// An encoder's factory and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderElement {
    pub factory: String,
    /// Smallest and largest picture (width, height) that it takes; None: it does not say.
    pub smallest: Option<(u32, u32)>,
    pub largest: Option<(u32, u32)>,
}

/// Where one rung is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    Device(EncoderElement),
    Cpu(SoftwareEncoder),
}

/// A ladder's back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What the source is coded in.
    pub input: Codec,
    /// None: the CPU decodes, scales and encodes.
    pub device: Option<DeviceElements>,
    /// The rungs that are made, by their place in the request.
    pub rungs: Vec<(usize, On)>,
    /// The rungs that are not, under [`Policy::Shorten`].
    pub dropped: Vec<(usize, Reason)>,
    /// Why the CPU does what was a GPU's to do; empty where nothing fell back.
    pub fallen_back: Vec<Reason>,
}

impl Choice {
    /// The back end's name, for logs, metrics and the status page.
    pub fn name(&self) -> &'static str {
        let on_cpu = self.rungs.iter().any(|(_, on)| matches!(on, On::Cpu(_)));
        match (self.device.as_ref().map(|d| d.family), on_cpu) {
            (None, _) => "software",
            (Some(Family::Nvidia), false) => "nvidia",
            (Some(Family::Nvidia), true) => "nvidia-hybrid",
            (Some(Family::Va), _) => "va",
            (Some(Family::Jetson), _) => "jetson",
        }
    }
}

/// Why a GPU does not do something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    #[error("there is no GPU")]
    NoDevice,
    #[error("the GPU has no {codec} decoder")]
    NoDecoder { codec: Codec },
    #[error("nothing scales pictures in the GPU's memory")]
    NoScaler,
    #[error("the GPU has no {codec} encoder")]
    NoEncoder { codec: Codec },
    #[error("the GPU's {codec} encoder does not take {width}x{height}")]
    PictureSize { codec: Codec, width: u32, height: u32 },
    #[error("the CPU has no {codec} encoder: install {}", SoftwareEncoder::remedy(*codec))]
    NoSoftwareEncoder { codec: Codec },
}

/// A ladder that is not made, and all the reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub policy: Policy,
    pub reasons: Vec<Reason>,
}

impl Refused {
    /// No worker on this host will do better: what is missing is not a device, which may come back.
    pub(crate) fn is_final(&self) -> bool {
        self.reasons.iter().any(|reason| matches!(reason, Reason::NoSoftwareEncoder { .. }))
    }
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let policy = match self.policy {
            Policy::GpuOnly => "gpu-only",
            Policy::Shorten => "shorten",
            Policy::Cpu => "cpu",
        };
        let reasons: Vec<String> = self.reasons.iter().map(ToString::to_string).collect();
        write!(f, "refused under the policy {policy}: {}", reasons.join("; "))
    }
}

/// Picks where each rung is made. `software` are the encoders that this host has for the CPU, one of a codec at most.
pub fn choose(
    policy: Policy,
    input: Codec,
    rungs: &[RungRequest],
    device: Option<&DeviceElements>,
    software: &[SoftwareEncoder],
) -> Result<Choice, Refused> {
    let refuse = |reasons| Err(Refused { policy, reasons });
    let missing = match device {
        None => Some(Reason::NoDevice),
        Some(d) if !d.decoders.contains_key(&input) => Some(Reason::NoDecoder { codec: input }),
        Some(d) if d.scaler.is_none() => Some(Reason::NoScaler),
        Some(_) => None,
    };
    let on_cpu = |rung: &RungRequest| match software.iter().find(|encoder| encoder.codec() == rung.codec) {
        Some(encoder) => Ok(On::Cpu(*encoder)),
        None => Err(Reason::NoSoftwareEncoder { codec: rung.codec }),
    };
    let device = match (device, missing) {
        (Some(device), None) => device,
        (_, missing) => {
            let missing: Vec<Reason> = missing.into_iter().collect();
            if policy != Policy::Cpu {
                return refuse(missing);
            }
            return match rungs.iter().map(on_cpu).collect::<Result<Vec<_>, _>>() {
                Ok(all) => Ok(Choice {
                    input,
                    device: None,
                    rungs: all.into_iter().enumerate().collect(),
                    dropped: Vec::new(),
                    fallen_back: missing,
                }),
                Err(none) => refuse(missing.into_iter().chain([none]).collect()),
            };
        }
    };

    let mut choice =
        Choice { input, device: Some(device.clone()), rungs: vec![], dropped: vec![], fallen_back: vec![] };
    let mut refused = Vec::new();
    for (index, rung) in rungs.iter().enumerate() {
        let reason = match on_device(device, rung) {
            Ok(on) => {
                choice.rungs.push((index, on));
                continue;
            }
            Err(reason) => reason,
        };
        match policy {
            Policy::GpuOnly => refused.push(reason),
            Policy::Shorten => choice.dropped.push((index, reason)),
            Policy::Cpu => {
                choice.fallen_back.push(reason.clone());
                match on_cpu(rung) {
                    Ok(on) => choice.rungs.push((index, on)),
                    Err(none) => refused.extend([reason, none]),
                }
            }
        }
    }
    if refused.is_empty() && choice.rungs.is_empty() && !rungs.is_empty() {
        refused = choice.dropped.iter().map(|(_, reason)| reason.clone()).collect();
    }
    if !refused.is_empty() {
        return refuse(distinct(refused));
    }
    choice.fallen_back = distinct(choice.fallen_back);
    // Only an NVIDIA GPU is worth it for decoding and scaling alone: NVDEC is where it has no NVENC. A GPU of the other
    // families that lacks an encoder leaves the whole ladder to the CPU.
    if device.family != Family::Nvidia && choice.rungs.iter().any(|(_, on)| matches!(on, On::Cpu(_))) {
        return match rungs.iter().map(on_cpu).collect::<Result<Vec<_>, _>>() {
            Ok(all) => Ok(Choice { device: None, rungs: all.into_iter().enumerate().collect(), ..choice }),
            Err(none) => refuse(choice.fallen_back.into_iter().chain([none]).collect()),
        };
    }
    Ok(choice)
}

fn on_device(device: &DeviceElements, rung: &RungRequest) -> Result<On, Reason> {
    let codec = rung.codec;
    let encoder = device.encoders.get(&codec).ok_or(Reason::NoEncoder { codec })?;
    let fits = encoder.smallest.is_none_or(|(w, h)| rung.width >= w && rung.height >= h)
        && encoder.largest.is_none_or(|(w, h)| rung.width <= w && rung.height <= h);
    if fits {
        Ok(On::Device(encoder.clone()))
    } else {
        Err(Reason::PictureSize { codec, width: rung.width, height: rung.height })
    }
}

fn distinct(reasons: Vec<Reason>) -> Vec<Reason> {
    let mut kept: Vec<Reason> = Vec::new();
    for reason in reasons {
        if !kept.contains(&reason) {
            kept.push(reason);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backend::{KeyPolicy, Preset, Tune};

    fn rung(codec: Codec, height: u32) -> RungRequest {
        RungRequest {
            codec,
            width: height * 16 / 9,
            height,
            bitrate: 1_000_000,
            preset: Preset::parse_or_usual("p4"),
            tune: Tune::default(),
            keys: KeyPolicy::default(),
        }
    }

    fn gpu(family: Family, encoders: &[Codec]) -> DeviceElements {
        let encoder = |codec: &Codec| {
            let limits = EncoderElement {
                factory: format!("enc-{codec}"),
                smallest: Some((145, 49)),
                largest: Some((4096, 4096)),
            };
            (*codec, limits)
        };
        DeviceElements {
            family,
            ordinal: 0,
            decoders: [(Codec::H264, "dec".to_owned())].into(),
            encoders: encoders.iter().map(encoder).collect(),
            scaler: Some("scale".into()),
        }
    }

    const X264: &[SoftwareEncoder] = &[SoftwareEncoder::X264];
    const POLICIES: [Policy; 3] = [Policy::GpuOnly, Policy::Shorten, Policy::Cpu];

    #[test]
    fn a_gpu_that_can_do_all_does_all_under_every_policy() {
        let device = gpu(Family::Nvidia, &[Codec::H264, Codec::Av1]);
        for policy in POLICIES {
            let rungs = [rung(Codec::H264, 720), rung(Codec::Av1, 360)];
            let choice = choose(policy, Codec::H264, &rungs, Some(&device), X264).unwrap();
            assert_eq!((choice.name(), choice.rungs.len()), ("nvidia", 2));
            assert!(choice.dropped.is_empty() && choice.fallen_back.is_empty());
        }
    }

    #[test]
    fn no_gpu_is_a_refusal_unless_the_cpu_is_allowed_and_then_it_is_said() {
        let rungs = [rung(Codec::H264, 720)];
        for policy in [Policy::GpuOnly, Policy::Shorten] {
            let refused = choose(policy, Codec::H264, &rungs, None, X264).unwrap_err();
            assert_eq!(refused.reasons, [Reason::NoDevice]);
        }
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, None, X264).unwrap();
        assert_eq!((choice.name(), choice.fallen_back), ("software", vec![Reason::NoDevice]));
        let refused = choose(Policy::Cpu, Codec::H264, &rungs, None, &[]).unwrap_err();
        assert_eq!(refused.reasons, [Reason::NoDevice, Reason::NoSoftwareEncoder { codec: Codec::H264 }]);
    }

    #[test]
    fn a_codec_that_nothing_here_encodes_refuses_the_ladder_and_says_what_to_install() {
        let rungs = [rung(Codec::H264, 720), rung(Codec::H265, 720), rung(Codec::Av1, 360)];
        let refused = choose(Policy::Cpu, Codec::H264, &rungs, None, X264).unwrap_err();
        assert!(refused.is_final());
        let text = refused.to_string();
        assert!(text.contains("no H.265 encoder: install gstreamer1.0-plugins-bad"), "{text}");
        let both = [SoftwareEncoder::X264, SoftwareEncoder::X265];
        let text = choose(Policy::Cpu, Codec::H264, &rungs, None, &both).unwrap_err().to_string();
        assert!(text.contains("no AV1 encoder: install gstreamer1.0-plugins-bad 1.24.5 or newer"), "{text}");
        let all = [SoftwareEncoder::X264, SoftwareEncoder::X265, SoftwareEncoder::Aom];
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, None, &all).unwrap();
        assert_eq!(choice.rungs.iter().map(|(_, on)| on.clone()).collect::<Vec<_>>(), all.map(On::Cpu));
        // A GPU that is not there now may be there later.
        assert!(!choose(Policy::GpuOnly, Codec::H264, &rungs, None, &all).unwrap_err().is_final());
    }

    /// Each rung is made where it can be.
    #[test]
    fn a_gpu_does_the_codecs_that_it_has_and_the_cpu_the_others() {
        let device = gpu(Family::Nvidia, &[Codec::H264]);
        let rungs = [rung(Codec::H264, 720), rung(Codec::H265, 720)];
        let software = [SoftwareEncoder::X264, SoftwareEncoder::X265];
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, Some(&device), &software).unwrap();
        assert!(matches!(choice.rungs[0].1, On::Device(_)));
        assert_eq!(choice.rungs[1].1, On::Cpu(SoftwareEncoder::X265));
        assert_eq!(choice.fallen_back, [Reason::NoEncoder { codec: Codec::H265 }]);
    }

    #[test]
    fn a_gpu_without_nvenc_decodes_and_scales_where_the_cpu_may_encode() {
        let device = gpu(Family::Nvidia, &[]);
        let rungs = [rung(Codec::H264, 720), rung(Codec::H264, 360)];
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, Some(&device), X264).unwrap();
        assert_eq!(choice.name(), "nvidia-hybrid");
        assert_eq!(choice.fallen_back, [Reason::NoEncoder { codec: Codec::H264 }]);
        for policy in [Policy::GpuOnly, Policy::Shorten] {
            let refused = choose(policy, Codec::H264, &rungs, Some(&device), X264).unwrap_err();
            assert_eq!(refused.reasons, [Reason::NoEncoder { codec: Codec::H264 }]);
        }
    }

    #[test]
    fn shortening_names_each_dropped_rung() {
        let device = gpu(Family::Nvidia, &[Codec::H264]);
        let rungs = [rung(Codec::Av1, 720), rung(Codec::H264, 360), rung(Codec::H264, 36)];
        let choice = choose(Policy::Shorten, Codec::H264, &rungs, Some(&device), X264).unwrap();
        assert_eq!(choice.rungs.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1]);
        let size = Reason::PictureSize { codec: Codec::H264, width: 64, height: 36 };
        assert_eq!(choice.dropped, [(0, Reason::NoEncoder { codec: Codec::Av1 }), (2, size.clone())]);
        let refused = choose(Policy::GpuOnly, Codec::H264, &rungs, Some(&device), X264).unwrap_err();
        assert_eq!(refused.reasons, [Reason::NoEncoder { codec: Codec::Av1 }, size]);
        assert!(refused.to_string().contains("gpu-only: the GPU has no AV1 encoder; "), "{refused}");
    }

    #[test]
    fn a_gpu_that_cannot_decode_or_scale_is_not_used_at_all() {
        let mut device = gpu(Family::Nvidia, &[Codec::H264]);
        device.scaler = None;
        let rungs = [rung(Codec::H264, 360)];
        let choice = choose(Policy::Cpu, Codec::H264, &rungs, Some(&device), X264).unwrap();
        assert_eq!((choice.name(), choice.fallen_back), ("software", vec![Reason::NoScaler]));
        let refused = choose(Policy::GpuOnly, Codec::H265, &rungs, Some(&device), X264).unwrap_err();
        assert_eq!(refused.reasons, [Reason::NoDecoder { codec: Codec::H265 }]);
    }

    #[test]
    fn other_families_leave_the_whole_ladder_to_the_cpu_or_none_of_it() {
        let device = gpu(Family::Va, &[Codec::H264]);
        let tiny = [rung(Codec::H264, 360), rung(Codec::H264, 36)];
        let choice = choose(Policy::Cpu, Codec::H264, &tiny, Some(&device), X264).unwrap();
        assert_eq!((choice.name(), choice.rungs.len(), choice.fallen_back.len()), ("software", 2, 1));
        assert_eq!(choose(Policy::Cpu, Codec::H264, &tiny[..1], Some(&device), X264).unwrap().name(), "va");
        let mixed = [rung(Codec::H265, 360)];
        assert_eq!(choose(Policy::Cpu, Codec::H264, &mixed, Some(&device), X264).unwrap_err().reasons.len(), 2);
    }
}
